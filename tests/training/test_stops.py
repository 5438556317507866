"""A signal ends a run after the step under way, or at once where nothing is to be saved."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hnc_ds.training import signals
from hnc_ds.training.signals import SIGNALS, Signals


class Ended(list[tuple[str, int]]):
    """In place of the end of the process."""

    def __call__(self, line: str, status: int) -> None:
        self.append((line, status))

    def only(self) -> tuple[str, int]:
        """What the process was ended with, once."""
        patience = time.monotonic() + 5
        while not self and time.monotonic() < patience:
            time.sleep(0.01)
        (found,) = self
        return found


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def heard(ended: Ended) -> Iterator[Signals]:
    with Signals(end=ended) as found:
        yield found


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.05)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_for_the_loop_and_the_handlers_come_back(
    number: signal.Signals, ended: Ended
) -> None:
    before = signal.getsignal(number)
    with Signals(end=ended) as found:
        found.after_steps(Path("run"))
        assert found.asked == 0
        send(number)
        assert found.asked == number
        assert not ended
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_first_step_the_process_ends_at_once_with_one_line(
    number: signal.Signals, heard: Signals, ended: Ended
) -> None:
    send(number)
    again = "the same command with --resume starts again"
    line = f"stopped by {number.name} before the first step; {again}"
    assert ended.only() == (line, 128 + number)


def test_sigterm_and_sigusr1_may_come_again_and_again(heard: Signals, ended: Ended) -> None:
    heard.after_steps(Path("run"))
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        send(number)
    assert heard.asked == signal.SIGUSR1
    send(signal.SIGINT)
    assert heard.asked == signal.SIGINT
    assert not ended


def test_a_second_ctrl_c_ends_the_process_and_names_what_continues(
    heard: Signals, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SAME_SECONDS", 0.0)
    heard.after_steps(Path("runs/my run"))
    for _ in range(2):
        send(signal.SIGINT)
    again = "the same command with --run 'runs/my run' --resume continues from the last checkpoint"
    assert ended.only() == (f"interrupted twice, not saved; {again}", 130)


def test_two_signals_that_come_together_are_one(
    heard: Signals, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SAME_SECONDS", 60.0)
    heard.after_steps(Path("run"))
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    time.sleep(0.05)
    assert heard.asked == signal.SIGINT
    assert not ended


def test_while_a_saved_step_is_measured_the_process_ends_at_once(
    heard: Signals, ended: Ended
) -> None:
    heard.after_steps(Path("runs/a"))
    with heard.at_once("while step 8 of 20 was measured"):
        send(signal.SIGTERM)
    line = (
        "stopped by SIGTERM while step 8 of 20 was measured, saved in runs/a; "
        "the same command with --run runs/a --resume continues"
    )
    assert ended.only() == (line, 143)


def test_the_last_line_names_the_signal_and_how_to_continue(heard: Signals) -> None:
    heard.after_steps(Path("runs/first"))
    end = heard.stopped(signals.FIRST - signal.SIGUSR1, "after step 7 of 100")
    assert str(end) == (
        "stopped by SIGUSR1 after step 7 of 100, saved in runs/first; "
        "the same command with --run runs/first --resume continues"
    )
    assert end.status == 128 + signal.SIGUSR1


def test_a_process_that_was_signalled_ignores_signals_while_it_ends(ended: Ended) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with Signals(ends_process=True, end=ended) as found:
            found.after_steps(Path("run"))
            send(signal.SIGTERM)
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}
    finally:
        gc.unfreeze()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_process_that_is_forked_meanwhile_keeps_its_signals_to_itself(
    heard: Signals, ended: Ended
) -> None:
    heard.after_steps(Path("run"))
    fork = multiprocessing.get_context("fork")
    runs = fork.Event()
    child = fork.Process(target=lambda: (runs.set(), time.sleep(60)))
    child.start()
    assert runs.wait(20)
    child.terminate()
    child.join(20)
    assert child.exitcode == -signal.SIGTERM
    assert heard.asked == 0
