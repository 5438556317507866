"""The start of a process: ranks from the variables of SLURM's srun, and imports."""

import gc
import json
import socket
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest

from hnc_ds import distributed
from hnc_ds.checkpoint import to_json
from hnc_ds.cli import main
from hnc_ds.config import PRESETS, LossConfig, TrainConfig
from hnc_ds.distributed import own_device
from hnc_ds.errors import RankError
from hnc_ds.launch import first_host, importing, rank_label, read_slurm

STEP = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "12345",
    "SLURM_STEP_ID": "2",
}


def test_a_task_of_srun_is_a_rank() -> None:
    found = dict(STEP)
    read_slurm(found)
    assert {name: found[name] for name in found if not name.startswith("SLURM")} == {
        "RANK": "5",
        "WORLD_SIZE": "7",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": str(20_000 + (7 * 12345 + 2) % 20_000),
    }


def test_a_task_that_sees_one_gpu_calls_it_its_first() -> None:
    found = STEP | {"CUDA_VISIBLE_DEVICES": "1"}
    read_slurm(found)
    assert found["LOCAL_RANK"] == "0"
    several = STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    read_slurm(several)
    assert several["LOCAL_RANK"] == "1"


def test_more_tasks_than_gpus_on_a_node_are_refused_by_those_who_see_it() -> None:
    step = STEP | {"SLURM_GPUS_ON_NODE": "2", "SLURMD_NODENAME": "gpu04"}
    with pytest.raises(RankError, match=r"^gpu04 has 2 GPUs for 3 tasks; .*--gres=gpu:3"):
        read_slurm(dict(step))
    enough = step | {"SLURM_GPUS_ON_NODE": "3"}
    read_slurm(enough)
    assert rank_label(enough) == "rank 5 on gpu04"


def test_a_process_without_a_gpu_of_its_own_names_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"RANK": "6", "LOCAL_RANK": "2", "SLURMD_NODENAME": "gpu04"}.items():
        monkeypatch.setenv(name, value)
    assert own_device(3) == 2
    with pytest.raises(RankError, match=r"^rank 6 on gpu04: is process 2 .* sees 2 GPUs"):
        own_device(2)


@pytest.mark.slow
def test_ranks_whose_rendezvous_fails_report_it_and_do_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "2"}
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "RENDEZVOUS_TIMEOUT", timedelta(seconds=2))
    monkeypatch.setattr(distributed, "_in_group", lambda: False)  # as in a process of its own
    with pytest.raises(RankError, match=rf"^rank 0: the rendezvous at 127\.0\.0\.1:{port}"):
        distributed.init_process_group("gloo")
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(RankError, match=rf"^rank 0: the port of .*:{port} is in use"):
            distributed.init_process_group("gloo")


def test_a_batch_script_is_one_process_and_variables_of_a_launcher_are_kept() -> None:
    batch = {name: value for name, value in STEP.items() if "STEP" not in name}
    before = dict(batch)
    read_slurm(batch)
    assert batch == before
    launched = STEP | {"RANK": "0", "WORLD_SIZE": "2"}
    before = dict(launched)
    read_slurm(launched)
    assert launched == before


def test_the_address_and_port_that_a_script_gives_stay() -> None:
    found = STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "999"}
    read_slurm(found)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.1", "999")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[1-2]", "node1"),
        ("node[001-004,7],other", "node001"),
        ("a[9,12-13]", "a9"),
        ("rack[2-3]n[05-08]", "rack2n05"),
        ("gpu-a[1-2]-ib,x", "gpu-a1-ib"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list_is_the_master_address(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_every_command_takes_the_argument_that_the_deepspeed_launcher_inserts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["hnc-ds", "--local_rank=1", "benchmarks"])
    assert main() == 0
    assert "sugarcrepe: SugarCrepe" in capsys.readouterr().out


@pytest.mark.parametrize("inserted", ["--local_rank=1", "--local-rank=1"])
def test_train_reads_presets_and_files_behind_the_argument_that_launchers_insert(
    inserted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainConfig] = []
    monkeypatch.setattr("hnc_ds.train.train", lambda config, _: asked.append(config))
    record = {"settings": to_json(TrainConfig(steps=7))}
    (tmp_path / "config.json").write_text(json.dumps(record))
    of_file = ["--config", str(tmp_path / "config.json")]
    words = ["hnc-ds", inserted, "train", "--preset", "negclip", *of_file]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    (config,) = asked
    assert config.loss == LossConfig(**PRESETS["negclip"])
    assert config.steps == 7


def test_libraries_are_imported_without_garbage_collections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their objects are frozen; where nothing is imported, garbage is not."""
    (tmp_path / "a_library_of_this_test.py").write_text("import gc\nenabled = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    try:
        with importing():
            pass
        assert gc.get_freeze_count() == before
        with importing():
            library = import_module("a_library_of_this_test")
        assert not library.enabled
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        sys.modules.pop("a_library_of_this_test", None)
