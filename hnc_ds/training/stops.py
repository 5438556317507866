"""Requests to stop: SIGTERM, SIGUSR1 and Ctrl-C end a training after the step under way, saved.

    the first, of whichever kind      while steps are made: the step is finished and saved; else the
                                      process ends at once, as there is nothing to save
    SIGTERM, SIGUSR1 once more        nothing: SLURM and launchers send them twice
    SIGINT once more                  the process ends at once

Ranks must agree on the step, so that a signal to one of them stops all: the loop asks every rank
for its request at every step. A thread hears the signals, as the main thread may be deep inside of
a library for long. No torch here: signals are heard before it is imported.
"""

import gc
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hnc_ds.errors import Stopped
from hnc_ds.launch import is_rank_zero

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What SLURM, launchers and terminals send: the end, or a warning of it."""

SAME_SECONDS = 0.5
"""SIGINTs that come so close are one: a launcher may pass on what came to all processes."""

FIRST = 100
"""More than the number of any signal."""

OVER = 0
"""No signal's number: the thread is to end."""

BEFORE = "before the first step; the same command with --resume starts again"

_heard_by: "Stops | None" = None


class Stops:
    """Hears signals from entering to leaving; of one process there is one at a time.

    Args:
        ends_process: What follows is the end of the process: once it was asked to stop, it hears
            no more signals, not even while Python ends.
        end: What to do with a line and an exit status where there is nothing to wait for; ends
            the process when not given.
    """

    def __init__(
        self, ends_process: bool = False, end: Callable[[str, int], None] | None = None
    ) -> None:
        self._ends_process, self._end = ends_process, _end_process if end is None else end
        self._asked, self._saved = 0, False
        self._interrupted: float | None = None
        self._now: str | None = BEFORE
        self._resume = "--resume"
        self._read, self._write = os.pipe()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="signals")

    def __enter__(self) -> "Stops":
        global _heard_by
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread.start()
        _heard_by = self
        return self

    def __exit__(self, *_: object) -> None:
        global _heard_by
        _heard_by = None
        for number, handler in self._before.items():
            stay_deaf = self._asked and self._ends_process
            signal.signal(number, signal.SIG_IGN if stay_deaf else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write, bytes([OVER]))  # closing is not enough: workers hold it too
        self._thread.join()
        os.close(self._write)
        os.close(self._read)
        if self._ends_process:
            gc.freeze()  # else Python looks through all of torch as it ends, for seconds

    @property
    def asked(self) -> int:
        """Number of the signal that came, 0 if none did; SIGINT before SIGUSR1 before SIGTERM,
        which launchers add."""
        return self._asked

    @property
    def wish(self) -> int:
        """The signal for other ranks, of which the largest counts; 0 if none came."""
        return FIRST - self._asked if self._asked else 0

    def after_steps(self, run: Path) -> None:
        """From now on the loop asks after every step, and saves."""
        self._resume = f"--run {shlex.quote(str(run))} --resume"
        self._now = None

    @contextmanager
    def at_once(self, when: str) -> Iterator[None]:
        """Here all is saved, and a signal need not be waited for.

        Args:
            when: For the line, such as ``while step 8 of 20 was measured``.
        """
        self._now = self._where(when)
        try:
            yield
        finally:
            self._now = None

    def stopped(self, wish: int, when: str) -> Stopped:
        """The end of a run that was asked to stop, after it was saved.

        Args:
            wish: The largest of all ranks.
            when: For the line, such as ``after step 7 of 100``.
        """
        number, self._saved = FIRST - wish, True
        self._note(number, None)
        return Stopped(_line(number, self._where(when)), 128 + number)

    def _where(self, when: str) -> str:
        saved = shlex.split(self._resume)[1]
        return f"{when}, saved in {saved}; the same command with {self._resume} continues"

    def _note(self, number: int, _: object) -> None:
        """In the main thread, when it comes to it. The rest is for the thread."""
        self._asked = min(self._asked or number, number)

    def _listen(self) -> None:
        for number in iter(lambda: os.read(self._read, 1)[0], OVER):
            if number in SIGNALS:
                self._hear(number)

    def _hear(self, number: int) -> None:
        self._note(number, None)
        if self._now is not None:
            self._end(_line(number, self._now), 128 + number)
        elif number == signal.SIGINT and self._is_second_interrupt():
            lost = f"the same command with {self._resume} continues from the last checkpoint"
            self._end("" if self._saved else f"interrupted twice, not saved; {lost}", 128 + number)

    def _is_second_interrupt(self) -> bool:
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
        return now - self._interrupted > SAME_SECONDS


def _line(number: int, where: str) -> str:
    return f"stopped by {signal.Signals(number).name} {where}"


def _end_process(line: str, status: int) -> None:
    """The main thread may be stuck, so that nothing can be raised there."""
    if line and is_rank_zero():
        os.write(2, f"train: {line}\n".encode())
    os._exit(status)


def _forget() -> None:
    """A process that is forked from one that listens does not listen in its place."""
    if _heard_by is not None:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
