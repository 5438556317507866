"""How many processes a rank reads with: its cores, in containers and jobs too."""

import os
from pathlib import Path

import pytest

from hnc_ds import launch
from hnc_ds.checkpoint import to_json, updated
from hnc_ds.config import DataConfig, EvaluateConfig


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 32 cores without jobs, launchers and control groups."""
    for name in [name for name in os.environ if name.startswith(("SLURM", "LOCAL_", "WORLD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    monkeypatch.setattr(launch, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(launch, "OWN_CGROUP", tmp_path / "own")
    return tmp_path


def write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_a_rank_alone_reads_with_all_cores_but_one_within_a_bound() -> None:
    assert launch.own_cores({}) == 32
    assert launch.readers() == 16
    assert launch.readers(accelerated=False) == 1


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])  # torchrun's, deepspeed's
def test_ranks_of_a_launcher_share_the_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "4")
    assert launch.readers() == 7
    monkeypatch.setenv(name, "64")
    assert launch.readers() == 1


@pytest.mark.parametrize("group", ["", "/job/step"])
def test_the_time_that_a_container_may_take_counts_and_not_the_cores_it_sees(
    machine: Path, group: str
) -> None:
    """As the container sees its group: the root of the tree, or a place in the host's."""
    write(machine / "own", f"0::/{group.lstrip('/')}\n")
    write(machine / f"cgroup{group}/cpu.max", "max 100000\n")
    assert launch.cores({}) == 32
    write(machine / f"cgroup{group}/cpu.max", "650000 100000\n")
    assert launch.cores({}) == 6
    write(machine / f"cgroup{group}/cpu.max", "50000 100000\n")
    assert launch.cores({}) == 1


def test_the_narrowest_of_the_groups_around_a_process_counts(machine: Path) -> None:
    write(machine / "own", "0::/pod/container\n")
    write(machine / "cgroup/pod/container/cpu.max", "max 100000\n")
    write(machine / "cgroup/pod/cpu.max", "400000 50000\n")
    assert launch.cores({}) == 8


def test_quotas_of_the_first_version_of_control_groups_count_too(machine: Path) -> None:
    write(machine / "own", "5:cpuset:/\n4:cpuacct,cpu:/docker/1\n0::/\n")
    write(machine / "cgroup/cpu/cpu.cfs_quota_us", "300000\n")
    write(machine / "cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert launch.cores({}) == 3
    write(machine / "cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    assert launch.cores({}) == 32


STEP = {"SLURM_PROCID": "5", "RANK": "5", "SLURM_STEP_NUM_TASKS": "8", "WORLD_SIZE": "8"}


def test_a_task_of_slurm_has_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {**STEP, "LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_ON_NODE": "24"}
    assert launch.own_cores(job) == 6  # not bound: a quarter of the job's
    assert launch.own_cores({**job, "SLURM_CPUS_PER_TASK": "5"}) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6, 12)))
    assert launch.own_cores(job) == 6  # bound already
    assert launch.own_cores({**job, "SLURM_CPUS_PER_TASK": "6"}) == 6


def test_ranks_of_a_launcher_in_one_task_of_slurm_share_its_cores() -> None:
    job = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_CPUS_PER_TASK": "16"}
    ranks = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_ON_NODE": "16"}
    assert launch.own_cores(job | ranks) == 4


def test_evaluation_reads_with_the_cores_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert EvaluateConfig(models=("run",), shards="s", out=Path("r")).workers == 3


def test_settings_keep_an_unset_number_of_workers() -> None:
    assert to_json(DataConfig())["workers"] is None
    assert updated(DataConfig(workers=3), {"workers": None}, "config.json").workers is None
    assert updated(DataConfig(), {"workers": 1}, "config.json").workers == 1
