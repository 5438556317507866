"""The commands a user types, run as processes."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Of a user who has the package installed and no accelerator."""
    folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def hnc_ds() -> Command:
    """Run ``hnc-ds ARGUMENTS`` and give what it printed."""

    def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return _run([sys.executable, "-m", "hnc_ds.cli", *map(str, arguments)], cwd)

    return run


@pytest.fixture
def deepspeed() -> Command:
    """Run ``deepspeed --num_gpus RANKS hnc_ds/train.py ARGUMENTS`` from the checkout."""

    def run(ranks: int, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return _run(deepspeed_command(ranks, *arguments), cwd)

    return run


def deepspeed_command(ranks: int, *arguments: object) -> list[str]:
    """The launcher's command line, on a port of its own."""
    launcher = shutil.which("deepspeed", path=environment()["PATH"])
    assert launcher, "the deepspeed launcher is not installed"
    ports = ["--num_gpus", str(ranks), "--master_port", str(free_port())]
    return [launcher, *ports, str(ROOT / "hnc_ds" / "train.py"), *map(str, arguments)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
