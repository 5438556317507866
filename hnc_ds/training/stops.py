"""Requests to stop: SIGTERM and SIGUSR1 end a training after the step under way, saved.

Ranks must agree on the step, so that a signal to one of them stops all: the loop asks every rank
for its request at every step.
"""

import signal
from types import FrameType

from hnc_ds.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What SLURM and the deepspeed launcher send: the end, or a warning of it."""


class Stops:
    """Remembers a signal until the loop asks; a second one of its kind ends the process at once."""

    def __init__(self) -> None:
        self._asked = 0
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def __enter__(self) -> "Stops":
        for number in SIGNALS:
            signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> int:
        """Number of the signal that came, 0 if none did."""
        return self._asked

    def _remember(self, number: int, _: FrameType | None) -> None:
        self._asked = number
        signal.signal(number, signal.SIG_DFL)


def stopped(number: int, step: int, steps: int, run: object) -> Stopped:
    """The end of a run that was asked to stop, after it was saved."""
    name = signal.Signals(number).name
    return Stopped(
        f"stopped by {name} after step {step} of {steps}, saved in {run}; "
        "the same command with --resume goes on",
        128 + number,
    )
