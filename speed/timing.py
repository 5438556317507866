"""How variants of the same work are timed and compared, whatever is measured.

Variants take turns, A B A B, and are compared turn by turn: what else the machine does in the
meantime disturbs neighbours alike. CPU time is that of this process, all threads, and of the
child processes it has waited for.
"""

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

Clock = Literal["wall", "cpu"]


class Timing(NamedTuple):
    """What one turn took, in seconds."""

    wall: float
    cpu: float


class Spread(NamedTuple):
    """The middle of some values, and how far they reach."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Check:
    """A number that shows that the variants do the same: it must not be larger than allowed."""

    what: str
    found: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.found <= self.allowed  # also False for NaN


@dataclass(frozen=True)
class Table:
    """Quantities of the variants that are no times."""

    title: str
    columns: tuple[str, ...]
    """With their units, if they differ from the title's."""
    rows: Mapping[str, tuple[float, ...]]
    """By variant; a number for each column."""


@dataclass(frozen=True)
class Comparison:
    """One measurement: variants of the same work, timed in turn."""

    clock: Clock
    """What the variants are compared by; both are kept."""
    baseline: str
    """The variant that the others are compared with."""
    timings: dict[str, tuple[Timing, ...]]
    """Of each variant, one per round."""
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    """What a reader has to know to read the numbers right."""
    items: str = ""
    """What is counted: 'images'."""
    count: int | None = None
    """Items in a turn; None where the seconds themselves are what counts."""
    tables: tuple[Table, ...] = ()

    def measured(self, variant: str, clock: Clock) -> Spread:
        """Items per second of a clock, or seconds where there is no count."""
        seconds = self._seconds(variant, clock)
        return spread([self.count / s for s in seconds] if self.count else seconds)

    def speed_up(self, variant: str) -> Spread:
        """How many times as fast as the baseline in the same round."""
        pairs = zip(
            self._seconds(self.baseline, self.clock),
            self._seconds(variant, self.clock),
            strict=True,
        )
        return spread([theirs / ours for theirs, ours in pairs])

    def _seconds(self, variant: str, clock: Clock) -> list[float]:
        return [getattr(timing, clock) for timing in self.timings[variant]]


def alternate(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: "Callable[[Callable[[], Any]], Timing] | None" = None,
) -> dict[str, tuple[Timing, ...]]:
    """Time the variants in turn, ``rounds`` times, after one turn of each that does not count.

    Args:
        variants: What is done.
        rounds: How often.
        clock: Does a turn and says what it took; ``timed`` if none is given.
    """
    clock = clock or timed
    for work in variants.values():
        work()
    taken: dict[str, list[Timing]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            taken[name].append(clock(work))
    return {name: tuple(timings) for name, timings in taken.items()}


def timed(work: Callable[[], object]) -> Timing:
    """What the work took."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return Timing(time.perf_counter() - wall, _cpu_seconds() - cpu)


def spread(values: list[float]) -> Spread:
    """Median, smallest and largest."""
    return Spread(median(values), min(values), max(values))


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
