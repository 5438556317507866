"""Ctrl-C, SIGTERM and SIGUSR1 to any command but train (training/stops.py): it ends in good order
with one line that states what is kept and how to continue.

The signal becomes an exception in the main thread. Worker processes do not get it
(worker_processes.py); the parent ends them.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hnc_ds.errors import Stopped
from hnc_ds.launch import is_rank_zero

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; the end; SLURM's warning of the end, after which slurm/job.sh queues the job again."""

SAME_SECONDS = 0.5
"""Launchers pass on a signal that the whole group got: what comes so soon is the same one."""

CONTINUES = "run the same command again, it continues where it stopped"
ANEW = "nothing was written; run the same command again"
AFTER = {
    "scenes": CONTINUES,
    "generate": CONTINUES,
    "swap-words": CONTINUES,
    "rewrite": CONTINUES,
    "pack": CONTINUES,
    "answer": CONTINUES,
    "demo": CONTINUES,
    "demo-llava": CONTINUES,
    "tables": ANEW,
    "mine": ANEW,
    "export": ANEW,
    "score": ANEW,
    "compare": ANEW,
    "report": ANEW,
    "evaluate": "results that were written are whole, the others are not there; run the same "
    "command again, it measures anew",
    "interpolate": "points that were measured are kept; run the same command again, it continues "
    "with the others",
}
"""What is left of a command that was stopped, and what continues it."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks to stop.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_raise(command: str) -> Iterator[None]:
    """Raise Interrupted in the main thread at the first signal, and end the process at once at a
    second Ctrl-C. Signals that are ignored, as nohup has it, stay so.

    Args:
        command: Which is under way.
    """
    first: float | None = None

    def hear(number: int, _: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            raise Interrupted(number)
        if number == signal.SIGINT and time.monotonic() - first > SAME_SECONDS:
            _end_at_once(command)

    def hear_again(ignored: Any) -> None:
        """Where an exception cannot be raised, as in __del__, it is raised a little later. What
        else is ignored after it comes of objects that it cut short while they were made."""
        nonlocal first
        if not isinstance(ignored.exc_value, Interrupted):
            if first is None:
                hook(ignored)
            return
        first = None
        threading.Timer(0.05, os.kill, (os.getpid(), ignored.exc_value.number)).start()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hear)
    hook, sys.unraisablehook = sys.unraisablehook, hear_again
    try:
        yield
    finally:
        if first is None:
            sys.unraisablehook = hook
        for number, handler in before.items():
            if signal.getsignal(number) is hear:  # a training that was stopped stays deaf
                signal.signal(number, handler if first is None else signal.SIG_IGN)


def _end_at_once(command: str) -> None:
    if is_rank_zero():
        line = f"{command} was stopped by Ctrl-C at once; run the same command again"
        os.write(2, f"hnc-ds: {line}\n".encode())
    os._exit(128 + signal.SIGINT)


@contextmanager
def explained(command: str) -> Iterator[None]:
    """End a command that is interrupted with a line.

    Raises:
        Stopped: It was.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        then = AFTER.get(command, "run the same command again")
        raise Stopped(f"{command} was stopped by {by}; {then}", 128 + number) from None
