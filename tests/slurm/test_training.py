"""Training as a job: the same losses, whatever SLURM does to it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import NODES, Cluster
from tests.slurm.conftest import BIN, ROOT, Project, last_line, losses, steps_logged, user

SLOW = f"""#!{sys.executable}
import os, sys, time
from hnc_ds.shards.loader import TrainingData
if "SLURM_RESTART_COUNT" not in os.environ:
    read = TrainingData.drawn
    TrainingData.drawn = lambda self, *place: (time.sleep(2), read(self, *place))[1]
from hnc_ds.cli import main
sys.exit(main())
"""
"""A hnc-ds whose data are slow until its job is queued again: steps take time, but little of
the processor."""


def flags(shards: Path | str, run: str, steps: int, *more: object) -> list[object]:
    settings = ["--steps", steps, "--log_every", 1, "--save_every", 1000]
    return ["--deepspeed_config", "cpu32.json", "--shards", shards, "--run", run, *settings, *more]


def on_this_machine(project: Project, ranks: int, arguments: list[object]) -> None:
    """With the deepspeed launcher."""
    words = ["--num_gpus", ranks, "--master_port", 29_400 + ranks, ROOT / "hnc_ds/train.py"]
    done = subprocess.run(
        [str(word) for word in (BIN / "deepspeed", *words, *arguments)],
        cwd=project.folder,
        env=user(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def slow(project: Project) -> dict[str, str]:
    """An environment in which training takes its time."""
    script = project.folder / "bin" / "hnc-ds"
    script.parent.mkdir()
    script.write_text(SLOW)
    script.chmod(0o755)
    return {"PATH": f"{script.parent}:{user()['PATH']}"}


def test_two_nodes_train_to_the_losses_of_one_machine(
    cluster: Cluster, project: Project, scene_shards: Path
) -> None:
    shards = scene_shards / "train"
    staged = flags(f"file://{shards}", "runs/nodes", 8)  # copied to each node's own disk
    cache = project.folder / "own-disk"
    words = ["--nodes=2", "--gres=gpu:2", "slurm/train.sh", *staged]
    job = project.finish(cluster, *words, HNC_DS_CACHE=str(cache))
    assert cluster.state(job.number) == "COMPLETED", job.log.read_text()
    on_this_machine(project, 4, flags(shards, "runs/here", 8))
    runs = project.folder / "runs"
    assert losses(runs / "nodes") == losses(runs / "here")
    assert list(cache.rglob("*.tar"))
    logs = project.folder / "slurm" / "logs" / f"train-{job.number}"
    assert sorted(path.name for path in logs.iterdir()) == [f"rank-{n}.log" for n in range(4)]
    assert "step 8/8" in (logs / "rank-0.log").read_text()


def test_a_job_that_is_preempted_or_out_of_time_ends_with_the_losses_of_one_that_was_not(
    cluster: Cluster, project: Project, scene_shards: Path, slow: dict[str, str]
) -> None:
    shards, runs, steps = scene_shards / "train", project.folder / "runs", 60
    here = ["--gres=gpu:2", "--cpus-per-gpu=4"]
    preempted = project.submit(
        cluster,
        *here,
        f"--nodelist={NODES[0]}",
        "slurm/train.sh",
        *flags(shards, "runs/preempted", steps),
        **slow,
    )
    # SLURM looks at time limits every half minute: the warning comes after 60 to 90 seconds.
    limited = project.submit(
        cluster,
        *here,
        f"--nodelist={NODES[1]}",
        "--time=2",
        "--signal=B:USR1@60",
        "slurm/train.sh",
        *flags(shards, "runs/limited", steps),
        **slow,
    )
    cluster.wait_until(lambda: steps_logged(runs / "preempted") >= 3, "some steps", 120)
    urgent = ["--partition=urgent", f"--nodelist={NODES[0]}", "--gres=gpu:4", "--wrap=sleep 1"]
    number = cluster.call("sbatch", "--parsable", "--output=/dev/null", *urgent).strip()
    cluster.wait_until(lambda: cluster.state(number) == "COMPLETED", "the urgent job", 90)
    assert steps_logged(runs / "preempted") < steps
    # Where many tests share the processor, two minutes may not suffice to start.
    cluster.wait_until(lambda: cluster.restarts(limited.number) >= 1, "the time limit", 240)
    cluster.call("scontrol", "update", f"JobId={limited.number}", "TimeLimit=20")
    for job in (preempted, limited):
        cluster.wait_for_end(job, 400)
        assert cluster.state(job.number) == "COMPLETED", job.log.read_text()
        assert cluster.restarts(job.number) >= 1
        assert "goes on from what was saved" in job.log.read_text()
    on_this_machine(project, 2, flags(shards, "runs/whole", steps))
    assert losses(runs / "preempted") == losses(runs / "whole")
    assert losses(runs / "limited") == losses(runs / "whole")


def test_jobs_that_are_cancelled_or_interrupted_have_saved_and_a_killed_task_is_named(
    cluster: Cluster, project: Project, scene_shards: Path, slow: dict[str, str]
) -> None:
    names = ("cancelled", "interrupted", "killed")
    runs = {name: project.folder / "runs" / name for name in names}
    jobs = {}
    for name, node in zip(names, (NODES[0], *NODES), strict=True):
        words = flags(scene_shards / "train", f"runs/{name}", 500)
        place = ["--gres=gpu:2", f"--nodelist={node}"]
        jobs[name] = project.submit(cluster, *place, "slurm/train.sh", *words, **slow)
    for run in runs.values():
        cluster.wait_until(lambda: steps_logged(run) >= 2, "some steps", 200)  # noqa: B023
    cluster.call("scancel", jobs["cancelled"].number)
    cluster.call("scancel", "--signal=INT", jobs["interrupted"].number)
    rank_of(jobs["killed"].number, 1).kill()

    cancelled = jobs["cancelled"]
    cluster.wait_until(lambda: cluster.state(cancelled.number) == "CANCELLED", "the end", 60)
    end = time.monotonic()
    for name in ("interrupted", "killed"):
        cluster.wait_for_end(jobs[name], 120)
        assert cluster.state(jobs[name].number) == "FAILED", jobs[name].log.read_text()
        assert "Traceback" not in jobs[name].log.read_text()

    step = step_saved(runs["interrupted"])
    said = last_line(jobs["interrupted"])
    assert f"stopped by SIGINT after step {step} of 500, saved in" in said
    assert "(exit 130)" in said
    assert "rank 1 is gone; nothing was heard of it after" in last_line(jobs["killed"])

    time.sleep(max(0, end + 8 - time.monotonic()))  # a job that is queued again waits for 5 seconds
    assert cluster.state(cancelled.number) == "CANCELLED"
    assert step_saved(runs["cancelled"]) == losses(runs["cancelled"])[-1][0]
    assert "stopped by SIGTERM after step" in cancelled.log.read_text()
    assert (
        last_line(cancelled) == "train: stopped by SLURM, which ends the job now or queues it again"
    )


def step_saved(run: Path) -> int:
    """Of a run with one checkpoint."""
    (checkpoint,) = (run / "checkpoints").iterdir()
    step: int = json.loads((checkpoint / "state.json").read_text())["step"]
    return step


def rank_of(job: str, number: int) -> psutil.Process:
    """The process that trains; its workers are younger."""
    wanted = {"SLURM_JOB_ID": job, "SLURM_PROCID": str(number)}
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        if "train" in (words := process.info["cmdline"] or []) and "bash" not in words[0]:
            there = process.environ()
            if all(there.get(name) == value for name, value in wanted.items()):
                found.append(process)
    return min(found, key=lambda process: process.info["create_time"])
