"""What stands in the way, message before hours go into it. Several nodes: tests/slurm."""

from importlib.metadata import version
from pathlib import Path

import pytest

from hnc_ds import doctor as checks
from hnc_ds.config import DoctorConfig
from hnc_ds.doctor import Finding, Grade, Line, differing, doctor, lines, table
from hnc_ds.errors import UserError


def test_ranks_that_find_the_same_share_a_line_and_checks_keep_their_order() -> None:
    fast, slow = Finding("disk", "fast"), Finding("disk", "slow", Grade.WARNING)
    clock = Finding("clock", "right")
    merged = lines([[fast, clock], [slow, clock], [fast, clock], [clock]])
    assert merged == [
        Line("disk", "fast", Grade.OK, (0, 2)),
        Line("disk", "slow", Grade.WARNING, (1,)),
        Line("clock", "right", Grade.OK, (0, 1, 2, 3)),
    ]
    assert table(merged, 4).splitlines() == [
        "ok      disk   ranks 0, 2  fast",
        "warning disk   rank 1      slow",
        "ok      clock  all         right",
    ]


def test_programs_that_differ_between_ranks_are_a_failure_and_speeds_are_not() -> None:
    old, new = Finding("versions", "torch 2.6"), Finding("versions", "torch 2.7")
    fast, slow = Finding("disk", "1 GB/s"), Finding("disk", "2 GB/s")
    merged = differing(lines([[old, fast], [new, slow]]), 2)
    assert [line.grade for line in merged] == [Grade.FAILED, Grade.FAILED, Grade.OK, Grade.OK]
    assert merged[1].message == "differs between ranks: torch 2.7"
    assert all(line.grade is Grade.OK for line in differing(lines([[old], [old]]), 2))


def test_a_machine_without_faults_passes(
    tmp_path: Path, scene_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = str(scene_shards / "train")
    doctor(DoctorConfig(disk=tmp_path / "runs", need_gb=0, shards=shards))
    message = capsys.readouterr().out
    assert f"deepspeed {version('deepspeed')}" in message
    assert "96 images in 1 shard," in message
    assert "MB/s written" in message
    assert "all checks passed" in message
    assert not list((tmp_path / "runs").iterdir())


def test_what_fails_is_the_last_line_and_all_else_is_reported_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = DoctorConfig(disk=tmp_path, need_gb=1e9, shards=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^doctor: free space: .* 1e\+09 GB .*\(and 1 more\)$"):
        doctor(broken)
    message = capsys.readouterr().out
    assert "FAILED  free space" in message
    assert "FAILED  shards" in message
    assert "ok      disk" in message


def test_images_that_do_not_decode_are_counted(
    tmp_path: Path, scene_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hnc_ds.shards.reader import ShardReader

    read = ShardReader.image_bytes

    def torn(self: ShardReader, sample: int) -> bytes:
        return read(self, sample)[: 100 if sample == 6 else None]

    monkeypatch.setattr(ShardReader, "image_bytes", torn)
    found = list(checks.shards(str(scene_shards / "train"), rank=0, ranks=2))
    assert found[1] == Finding("corrupt images", "1 of 48 do not decode", Grade.WARNING)
    assert found[2].message.endswith("images/s a core, 1 worker a rank")
    assert [one.grade for one in checks.shards(str(scene_shards / "train"), 1, 2)] == [Grade.OK] * 2


def test_gpus_that_slurm_gave_and_torch_does_not_see_are_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    (found,) = checks.devices(0)
    assert found.grade is Grade.FAILED
    assert "SLURM gave 4 GPUs" in found.message
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    (found,) = checks.devices(0)
    assert found.grade is Grade.OK


def test_cores_that_cannot_feed_a_gpu_are_a_warning_that_says_how_many_images_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "readers", lambda has_gpu: 5 if has_gpu else 1)
    few, enough = checks.feeding(390.0, True), checks.feeding(401.0, True)
    assert few.grade is Grade.WARNING
    assert few.message.startswith("390 images/s a core, 5 workers a rank: 1,950 images/s a GPU; ")
    assert "2000 to 3000 of ViT-B-32" in few.message
    assert "ViT-L-14-336" not in few.message  # which wants no more than 300
    assert enough == Finding(
        "reading", "401 images/s a core, 5 workers a rank: 2,005 images/s a GPU"
    )
    assert "of ViT-L-14-336" in checks.feeding(40.0, True).message
    assert checks.feeding(40.0, False).grade is Grade.OK


def test_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "SHARED_MEMORY_GB", 1e9)
    (found,) = checks.shared_memory(tmp_path)
    assert found.grade is Grade.WARNING
    assert "--shm-size" in found.message
