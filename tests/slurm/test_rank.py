"""One task of a job (slurm/rank.sh), of which SLURM may signal only the shell that it started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import ROOT

COMMAND = """
import os, signal, sys, time
heard = []
def note(number, _):
    heard.append(signal.Signals(number).name)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    assert signal.getsignal(number) is not signal.SIG_IGN
    signal.signal(number, note)
print("runs", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.3)  # as if it saved
print("heard", *heard, flush=True)
sys.exit(128 + signal.Signals[heard[0]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("times", [1, 2])
def test_what_comes_to_the_shell_alone_is_passed_on_to_the_command(
    number: signal.Signals, times: int, tmp_path: Path
) -> None:
    with subprocess.Popen(
        ["bash", ROOT / "slurm" / "rank.sh", tmp_path, sys.executable, "-c", COMMAND],
        env=os.environ | {"SLURM_PROCID": "0", "SLURMD_NODENAME": "gpu04"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as task:
        assert task.stdout is not None
        assert task.stderr is not None
        assert task.stdout.readline() == "runs\n"
        for _ in range(times):
            task.send_signal(number)
        message = task.stdout.read()
        assert message.split()[:2] == ["heard", number.name]
        assert task.stderr.read() == ""
    assert task.returncode == 128 + number
    ended = f"rank 0 on gpu04 (exit {128 + number}): {message}"
    assert (tmp_path / "ended").read_text() == ended
    assert (tmp_path / "rank-0.log").read_text() == f"runs\n{message}"


def test_a_command_that_ends_well_leaves_no_note(tmp_path: Path) -> None:
    task = subprocess.run(
        ["bash", ROOT / "slurm" / "rank.sh", tmp_path, "echo", "done"],
        env=os.environ | {"SLURM_PROCID": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (task.stdout, task.stderr) == ("done\n", "")
    assert (tmp_path / "rank-3.log").read_text() == "done\n"
    assert not (tmp_path / "ended").exists()
