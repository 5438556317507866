"""What a section stands on, and how it tells what it found: a line of JSON at once for each thing,
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

from benchmarks.timing import Check, Table

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
        """A size by what there is: a CUDA device, a CPU, or no wish for a measurement."""
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
        """Bytes of the device that tensors hold; 0 on a CPU, where nobody counts them."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def most_held(self) -> int:
        """Bytes that tensors held at most since ``free``."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def free(self) -> None:
        """Give back what nobody holds any more, and forget how much was held at most."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


@dataclass(frozen=True)
class Row:
    """Whole training steps of one way."""

    what: str
    batch: int
    samples_per_second: Sequence[float]
    """Of each turn."""
    times_as_fast: Sequence[float] | None = None
    """As open_clip's way in the same turn; None where there is none beside it."""
    tflops: float | None = None
    """10^12 operations a second that the training needs: pictures once, real tokens of distinct
    captions once, backward as twice the forward."""
    memory_gib: float | None = None
    """Most that was held, without what the other way held meanwhile."""
    waiting: float | None = None
    """Share of the time spent waiting for data."""
    behind: Sequence[float] | None = None
    """By how much its step is longer than that without an engine in the same turn, as a share;
    None where there is none beside it."""


class Tell:
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
        """What goes wrong within is told in a line, and what comes after it still runs."""
        try:
            yield
        except Exception as error:  # of whatever kind: nobody is there to start the rest again
            lines = str(error).strip().splitlines()
            told = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            self._write("error", f"{what}: {told}")

    def _write(self, kind: str, value: Any) -> None:
        line = {"section": self._section, "kind": kind, "value": value}
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no room: its allocator, or a library that asks the driver itself."""
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in told
