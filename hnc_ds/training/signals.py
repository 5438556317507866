"""SIGTERM, SIGUSR1 and Ctrl-C end training after the current step, with a checkpoint.

    first signal                 during steps: finish the step, save, end; otherwise end
                                 immediately, as there is nothing to save
    second SIGTERM or SIGUSR1    ignored: SLURM and launchers send them twice
    second SIGINT                end immediately

Ranks must stop at the same step: the loop exchanges requests at every step. A thread handles
signals, as the main thread may be inside a library for long. No torch here: signals are handled
before it is imported.
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
"""What SLURM, launchers and terminals send to stop a process."""

SAME_SECONDS = 0.5
"""SIGINTs within this time count as one: a launcher may forward what all processes got."""

FIRST = 100
"""Greater than any signal number."""

OVER = 0
"""Ends the thread; not a signal number."""

BEFORE = "before the first step; the same command with --resume starts again"

_active: "Signals | None" = None


class Signals:
    """Handles signals as a context manager; at most one per process.

    Args:
        ends_process: Whether the process ends after it: then signals stay ignored once one came,
            also while Python ends.
        end: Called with a message and an exit status to end immediately; ends the process when not
            given.
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

    def __enter__(self) -> "Signals":
        global _active
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread.start()
        _active = self
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        _active = None
        for number, handler in self._before.items():
            stay_deaf = self._asked and self._ends_process
            signal.signal(number, signal.SIG_IGN if stay_deaf else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write, bytes([OVER]))  # closing is not enough: workers have it open too
        self._thread.join()
        os.close(self._write)
        os.close(self._read)
        if self._ends_process:
            gc.freeze()  # or Python's exit spends seconds in the garbage collector

    @property
    def asked(self) -> int:
        """Number of the signal that came, 0 for none. Of several, SIGINT counts before SIGUSR1
        before SIGTERM, which launchers add."""
        return self._asked

    @property
    def wish(self) -> int:
        """The signal in the form for an all-reduce of maximum; 0 for none."""
        return FIRST - self._asked if self._asked else 0

    def after_steps(self, run: Path) -> None:
        """From now on the loop checks for signals after every step, and saves."""
        self._resume = f"--run {shlex.quote(str(run))} --resume"
        self._now = None

    @contextmanager
    def at_once(self, when: str) -> Iterator[None]:
        """In this block a signal ends the process immediately, as everything is saved.

        Args:
            when: For the message, such as ``while step 8 of 20 was measured``.
        """
        self._now = self._where(when)
        try:
            yield
        finally:
            self._now = None

    def stopped(self, wish: int, when: str) -> Stopped:
        """The exception that ends a stopped run after it was saved.

        Args:
            wish: The largest ``wish`` of all ranks.
            when: For the message, such as ``after step 7 of 100``.
        """
        number, self._saved = FIRST - wish, True
        self._note(number, None)
        return Stopped(_line(number, self._where(when)), 128 + number)

    def _where(self, when: str) -> str:
        saved = shlex.split(self._resume)[1]
        return f"{when}, saved in {saved}; the same command with {self._resume} continues"

    def _note(self, number: int, _: object) -> None:
        """Python's handler, which runs late, in the main thread; the thread does the rest."""
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
    """End without an exception, as the main thread may be stuck."""
    if line and is_rank_zero():
        os.write(2, f"train: {line}\n".encode())
    os._exit(status)


def _forget() -> None:
    """Restore default handlers in a forked process."""
    if _active is not None:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
