"""What becomes of a folder whose packing was stopped, or that was packed before."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.shards.pack import pack


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def index_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "index.json").read_bytes())


def numbered(count: int) -> list[str]:
    return [f"{number:04}" for number in range(count)]


def run_pack(
    folder: Path,
    prelude: str = "",
    workers: int = 1,
    captions: str = "captions.jsonl",
    images: tuple[str, ...] = ("images",),
) -> subprocess.Popen:
    code = f"""
import os, resource, signal, sys
from pathlib import Path
from hnc_ds.config import PackConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.pack import pack
if __name__ == "__main__":
    folder = Path({str(folder)!r})
    {prelude}
    try:
        pack(PackConfig(captions=folder / {captions!r}, images=tuple(folder / i for i in {images}),
                        out=folder / "out", samples_per_shard=4, workers={workers}))
    except UserError as error:
        sys.exit(str(error))
"""
    script = folder / "run_pack.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True
    )


def killed_at_rename(number: int) -> str:
    """Python that ends the process, as kill -9 does, in place of its n-th os.replace."""
    return (
        f"left = [{number}]; real = os.replace; os.replace = lambda *a: "
        "(left.append(left.pop() - 1), os.kill(os.getpid(), 9) if left[0] < 0 else real(*a))"
    )


@pytest.mark.parametrize("renames", [0, 1, 2, 3, 6, 7])
def test_a_run_killed_at_any_point_is_resumed_to_the_same_bytes(packing, tmp_path, renames):
    packing.write(numbered(10))  # renames: source.json, 3 tars with their indices, index.json
    pack(packing.config("uninterrupted"))

    killed = run_pack(tmp_path, killed_at_rename(renames))
    assert killed.wait() == -signal.SIGKILL
    left = contents(tmp_path / "out")
    assert "index.json" not in left
    assert any(name.endswith(".tmp") for name in left)

    pack(packing.config())
    assert contents(tmp_path / "out") == contents(tmp_path / "uninterrupted")


def test_jobs_of_an_array_give_the_bytes_of_a_single_run(packing, tmp_path, capsys):
    packing.write(numbered(602))
    for number in range(4, 8):  # a shard of nothing, which is left out in the end
        (packing.images / f"{number:04}.jpg").unlink()
    pack(packing.config("whole"))
    pack(packing.config(part="1/2"))
    assert "part 1 of 2 is done, others are not" in capsys.readouterr().out
    assert not (tmp_path / "out" / "index.json").exists()
    temporary = tmp_path / "out" / "shard-000000.tar.7.tmp"  # another process is writing it
    temporary.touch()
    pack(packing.config(part="0/2"))
    assert temporary.exists()
    temporary.unlink()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    pack(packing.config(part="1/2"))  # requeued
    assert "nothing to do" in capsys.readouterr().out


def test_another_job_may_finish_the_folder_before_a_late_one_looks_into_it(
    packing, tmp_path, monkeypatch, capsys
):
    packing.write(numbered(8))
    pack(packing.config(part="1/2"))
    pack(packing.config(part="0/2"))
    before = contents(tmp_path / "out")
    monkeypatch.setattr("hnc_ds.shards.pack.is_finished", lambda *_: False)  # a moment ago
    pack(packing.config(part="1/2"))
    assert "finished by another process" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


def test_a_part_of_other_captions_does_not_mix_with_those_of_its_folder(packing, tmp_path):
    packing.write(numbered(8))
    pack(packing.config(part="0/2"))
    before = contents(tmp_path / "out")
    packing.write(numbered(9))
    with pytest.raises(UserError, match="unfinished shards of something else"):
        pack(packing.config(part="1/2"))
    assert contents(tmp_path / "out") == before


def test_a_resumed_run_does_not_write_complete_shards_again(packing, tmp_path):
    packing.write(numbered(10))
    run_pack(tmp_path, killed_at_rename(3)).wait()
    first = tmp_path / "out" / "shard-000000.tar"
    before = first.stat()

    pack(packing.config())
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.slow
def test_workers_end_with_their_killed_parent_and_the_run_resumes(packing, tmp_path):
    packing.write(numbered(2000))
    pack(packing.config("uninterrupted"))

    process = run_pack(tmp_path, workers=2)
    while len(list(tmp_path.glob("out/shard-*.tar"))) < 20 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    # stderr is inherited by the workers: it ends when the last of them has.
    process.communicate(timeout=20)

    assert not (tmp_path / "out" / "index.json").exists()
    pack(packing.config())
    assert contents(tmp_path / "out") == contents(tmp_path / "uninterrupted")


def test_a_full_disk_is_one_line_and_what_is_complete_stays(packing, tmp_path):
    packing.write(numbered(10))
    pack(packing.config("uninterrupted"))
    big = io.BytesIO()
    Image.effect_noise((600, 600), 90).save(big, "JPEG")
    (packing.images / "0009.jpg").write_bytes(big.getvalue())

    # No file may grow beyond 50 kB: the first two shards fit, the third does not.
    full = run_pack(tmp_path, "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))")
    message = full.communicate()[1]
    assert full.returncode == 1
    assert message.startswith(
        f"{tmp_path / 'out/shard-000002.tar'}: cannot be written (File too large); make room"
    )
    assert "complete shards are kept" in message
    assert message.count("\n") == 1
    assert sorted(contents(tmp_path / "out")) == [
        "shard-000000.json",
        "shard-000000.tar",
        "shard-000001.json",
        "shard-000001.tar",
        "source.json",
    ]
    pack(packing.config())
    assert index_of(tmp_path / "out")["samples"] == 10


def test_packing_the_same_again_does_nothing(packing, tmp_path, capsys):
    packing.write(numbered(6))
    pack(packing.config())
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    pack(packing.config())

    assert "already holds" in capsys.readouterr().out
    assert {path.name: path.stat().st_ino for path in (tmp_path / "out").iterdir()} == before


def test_shards_of_another_source_are_replaced_only_when_asked_for(packing, tmp_path):
    packing.write(numbered(9))
    pack(packing.config())
    (tmp_path / "out" / "notes.txt").write_text("mine")
    before = contents(tmp_path / "out")
    packing.write(["x", "y"])
    with pytest.raises(UserError, match="--overwrite"):
        pack(packing.config())
    assert contents(tmp_path / "out") == before

    pack(packing.config(overwrite=True))
    assert sorted(contents(tmp_path / "out")) == [
        "index.json",
        "notes.txt",
        "shard-000000.json",
        "shard-000000.tar",
    ]
    assert index_of(tmp_path / "out")["samples"] == 2


def test_a_lost_shard_of_a_finished_folder_is_made_again(packing, tmp_path):
    packing.write(numbered(9))
    pack(packing.config())
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "shard-000001.tar").unlink()
    os.truncate(tmp_path / "out" / "shard-000002.tar", 512)
    pack(packing.config())

    assert contents(tmp_path / "out") == before
