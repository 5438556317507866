"""A signal ends a run after the step under way."""

import os
import signal
import subprocess
import sys

import pytest

from hnc_ds.training.stops import SIGNALS, Stops, stopped


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stops() as stops:
        assert stops.asked == 0
        os.kill(os.getpid(), number)
        assert stops.asked == number
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal\nfrom hnc_ds.training.stops import Stops\n"
        "with Stops():\n"
        "    for _ in range(2): os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM
    assert "still here" not in done.stdout


def test_the_last_line_says_what_came_and_how_to_go_on() -> None:
    end = stopped(int(signal.SIGUSR1), 7, 100, "runs/first")
    assert str(end).startswith("stopped by SIGUSR1 after step 7 of 100, saved in runs/first")
    assert "--resume" in str(end)
    assert end.status == 128 + signal.SIGUSR1
