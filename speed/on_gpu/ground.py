"""A section's environment, and its recorder of findings: a line of JSON at once for each finding,
so that what was found stays if its process dies."""

import gc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from speed.timing import Check, Table

T = TypeVar("T")
GIB = 2**30


@dataclass(frozen=True)
class Ground:
    """Where and for how long a section runs."""

    device: torch.device
    quick: bool
    """Tiny model, few steps."""
    folder: Path
    """For files; gone afterwards."""
    until: float
    """Of ``time.time()``: then the process is killed."""

    def pick(self, on_cuda: T, on_cpu: T, quick: T) -> T:
        """A size by what there is: a CUDA device, a CPU, or a quick run."""
        if self.quick:
            return quick
        return on_cuda if self.device.type == "cuda" else on_cpu

    def left(self) -> float:
        """Seconds."""
        return self.until - time.time()

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def held(self) -> int:
        """Bytes of the device that tensors hold; 0 on a CPU, where they are not counted."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def most_held(self) -> int:
        """Bytes that tensors held at most since ``free``."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def free(self) -> None:
        """Free unused memory, and forget how much was held at most."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


@dataclass(frozen=True)
class Row:
    """Whole training steps of one variant."""

    what: str
    batch: int
    samples_per_second: Sequence[float]
    """Of each turn."""
    times_as_fast: Sequence[float] | None = None
    """As open_clip's step in the same turn; None where there is none beside it."""
    tflops: float | None = None
    """10^12 operations a second that the training needs: images once, real tokens of distinct
    captions once, backward as twice the forward."""
    memory_gib: float | None = None
    """Most that was held, without what the other variant held meanwhile."""
    waiting: float | None = None
    """Share of the time spent waiting for data."""
    behind: Sequence[float] | None = None
    """By how much its step is longer than that without an engine in the same turn, as a share;
    None where there is none beside it."""


class Recorder:
    """Writes down what one section finds.

    Args:
        file: Lines are added to it.
        section: Its name.
    """

    def __init__(self, file: Path, section: str) -> None:
        self._file, self._section = file, section

    def row(self, row: Row) -> None:
        """A line of the table."""
        self._write("row", asdict(row))

    def check(self, check: Check) -> None:
        """What shows that results are right."""
        self._write("check", {**asdict(check), "holds": check.holds})

    def table(self, table: Table) -> None:
        """Quantities of a kind of its own."""
        self._write("table", asdict(table))

    def reached(self, goal: str, value: float) -> None:
        """What was found of one of GOALS (goals.py); a later value takes the place of this."""
        self._write("reached", [goal, value])

    def note(self, text: str) -> None:
        """What a reader has to know."""
        self._write("note", text)

    def fact(self, name: str, value: Any) -> None:
        """Of the machine."""
        self._write("fact", [name, value])

    def state(self, state: str) -> None:
        """How far the section is: running, done or left out."""
        self._write("state", state)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Record exceptions of a block as one line and continue after it."""
        try:
            yield
        except Exception as error:  # of whatever kind: the run is unattended
            lines = str(error).strip().splitlines()
            message = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            self._write("error", f"{what}: {message}")

    def _write(self, kind: str, value: Any) -> None:
        line = {"section": self._section, "kind": kind, "value": value}
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no room: its allocator, or a library that calls the driver itself."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in message
