"""Ctrl-C, SIGTERM and SIGUSR1 to any command but train, which has ways of its own: it ends in good
order with one line that states what is kept and how to continue.

The signal becomes an exception in the main thread. Worker processes do not get it
(worker_processes.py); the parent ends them.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hnc_ds.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; the end; SLURM's warning of the end, after which slurm/job.sh queues the job again."""

AGAIN_SECONDS = 2.0
"""Launchers pass on a signal that the whole group got: for so long, it is the same one."""

CONTINUES = "run the same command again, it continues where it stopped"
ANEW = "nothing was written; run the same command again"
AFTER = {
    "scenes": CONTINUES,
    "generate": CONTINUES,
    "swap-words": CONTINUES,
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
def signals_raise() -> Iterator[None]:
    """Raise Interrupted in the main thread at a signal; a second Ctrl-C ends the process at once.

    Signals that are ignored, as nohup has it, stay so.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    last = 0.0

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal last
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
        elif time.monotonic() - last < AGAIN_SECONDS:
            return
        last = time.monotonic()
        raise Interrupted(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        raise Stopped(f"{command or 'it'} was stopped by {by}; {then}", 128 + number) from None
