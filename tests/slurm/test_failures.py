"""What is wrong with a job: its last line names the rank and the cause, within a minute."""

import socket
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import NODES, Cluster
from tests.slurm.conftest import Project, last_line, user

MINUTE = 60


def fails(cluster: Cluster, project: Project, *words: object, **more: str) -> str:
    """The last line of a job that must fail within a minute of its start."""
    start = time.monotonic()
    job = project.finish(cluster, *words, seconds=120, **more)
    assert cluster.state(job.number) == "FAILED", job.log.read_text()
    assert time.monotonic() - start < MINUTE
    assert "Traceback" not in job.log.read_text()
    return last_line(job)


def training(shards: Path | str) -> list[object]:
    settings = ["--deepspeed_config", "cpu", "--run", "runs/x", "--steps", 4]
    return ["slurm/train.sh", "--shards", shards, *settings]


@pytest.fixture
def site(project: Project) -> Path:
    """slurm/site.sh to be added to: what it puts before every task."""
    return project.folder / "slurm" / "site.sh"


def test_a_node_without_the_environment(
    cluster: Cluster, project: Project, scene_shards: Path, site: Path
) -> None:
    there = f'[[ $SLURMD_NODENAME != {NODES[1]} ]] || PATH=/usr/bin:/bin; exec "$@"'
    with site.open("a") as file:
        file.write(f"IN_CONTAINER=(bash -c '{there}' _)\n")
    words = ["--nodes=2", "--gres=gpu:1", *training(scene_shards / "train")]
    message = fails(cluster, project, *words)
    assert f"rank 1 on {NODES[1]} (exit 127): no command hnc-ds on this node" in message
    assert "slurm/site.sh" in message


@pytest.fixture
def unmounted(project: Project, scene_shards: Path) -> dict[str, str]:
    """An environment in which the second node does not have the folder shards."""
    (project.folder / "shards").symlink_to(scene_shards / "train")
    script = project.folder / "bin" / "hnc-ds"
    script.parent.mkdir()
    elsewhere = f"[[ $SLURMD_NODENAME != {NODES[1]} ]] || cd /"
    script.write_text(f'#!/bin/bash\n{elsewhere}\nexec python -m hnc_ds.cli "$@"\n')
    script.chmod(0o755)
    return {"PATH": f"{script.parent}:{user()['PATH']}"}


def test_a_rank_that_cannot_see_the_shards(
    cluster: Cluster, project: Project, unmounted: dict[str, str]
) -> None:
    words = ["--nodes=2", "--gres=gpu:1", *training("shards")]
    message = fails(cluster, project, *words, **unmounted)
    assert f"[rank 1 on {NODES[1]}] shards: no such folder" in message


def test_fewer_gpus_than_tasks(cluster: Cluster, project: Project, scene_shards: Path) -> None:
    words = ["--gres=gpu:1", "--ntasks-per-node=2", *training(scene_shards / "train")]
    message = fails(cluster, project, *words)
    assert f"{NODES[0]} has 1 GPU for 2 tasks; request" in message


def test_a_port_that_is_in_use(cluster: Cluster, project: Project, scene_shards: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        words = ["--nodes=2", "--gres=gpu:1", *training(scene_shards / "train")]
        message = fails(cluster, project, *words, MASTER_PORT=str(port))
    assert f"rank 0 on {NODES[0]}" in message
    assert f"{NODES[0]}:{port} is in use" in message


def test_the_doctor_sees_all_nodes_and_names_the_one_that_is_ill(
    cluster: Cluster, project: Project, unmounted: dict[str, str]
) -> None:
    disk = project.folder / "runs"
    words = ["--nodes=2", "--gres=gpu:1", "slurm/doctor.sh", "--need-gb", 0, "--disk", disk]
    job = project.finish(cluster, *words, "--shards", project.folder / "shards", **unmounted)
    message = job.log.read_text()
    assert cluster.state(job.number) == "COMPLETED", message
    assert "96 images in 1 shard," in message
    assert "GB/s bus bandwidth" in message
    assert "all checks passed" in message
    ill = fails(cluster, project, *words, "--shards", "shards", **unmounted)
    assert f"shards: rank 1 on {NODES[1]}: shards: no such folder" in ill
    assert not list(disk.iterdir())
