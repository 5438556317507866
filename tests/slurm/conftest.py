"""A cluster for the session, and a user's project folder on it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from tests.slurm.cluster import Cluster, Job, install, missing

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes. Where there can be none, tests are skipped with the reason."""
    if why := missing() or install():
        pytest.skip(why)
    # Not pytest's own folder, which is closed to other users; munge wants it open.
    with TemporaryDirectory(prefix="hnc-slurm-") as folder, Cluster(Path(folder)) as running:
        yield running


def user(**more: str) -> dict[str, str]:
    """Environment of a user on a CPU, with the package installed."""
    own = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(BIN.parent),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return os.environ | own | more


class Project(NamedTuple):
    """A folder with slurm/, from which jobs are submitted."""

    folder: Path

    def bash(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script where there is no SLURM."""
        bare = {name: value for name, value in user(**more).items() if "SLURM" not in name}
        return subprocess.run(
            ["bash", *map(str, words)],
            cwd=self.folder,
            env=bare,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def submit(self, cluster: Cluster, *words: object, **more: str) -> Job:
        """sbatch; gives the job at once."""
        done = subprocess.run(
            ["sbatch", "--parsable", *map(str, words)],
            cwd=self.folder,
            env=user(SLURM_CONF=cluster.environment["SLURM_CONF"], **more),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        number = done.stdout.strip()
        script = next(Path(str(word)).stem for word in words if str(word).endswith(".sh"))
        return Job(number, self.folder / "slurm" / "logs" / f"{script}-{number}.out")

    def finish(self, cluster: Cluster, *words: object, seconds: float = 240, **more: str) -> Job:
        """sbatch, and wait for the end."""
        job = self.submit(cluster, *words, **more)
        cluster.wait_for_end(job, seconds)
        return job


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The scripts as they are shipped, and a DeepSpeed configuration of batches of 32."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm", ignore=shutil.ignore_patterns("*.out"))
    cpu = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    (tmp_path / "cpu32.json").write_text(json.dumps(cpu | {"train_batch_size": 32}))
    return Project(tmp_path)


def last_line(job: Job) -> str:
    """Of a job's log."""
    return job.log.read_text().splitlines()[-1]


def losses(run: Path) -> list[tuple[int, float]]:
    """(step, loss) of every logged step."""
    lines: list[dict[str, Any]] = [json.loads(x) for x in (run / "log.jsonl").open()]
    return [(line["step"], line["loss"]) for line in lines]


def steps_logged(run: Path) -> int:
    """Of a run that may not have begun."""
    log = run / "log.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0
