"""When a difference of two models is marked: one rule for pages and terminals. No torch.

A difference on the same items is marked where its 95 % interval, by bootstrap over pictures,
excludes 0 and the p of the paired permutation test, corrected over the rows of its table, is below
0.05. Either alone marks too much: an interval says nothing of the other rows, and a test nothing of
how large a difference may be.

Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from hnc_ds.evaluation.statistics import Interval

LEVEL = 0.05
BETTER, WORSE, UNCLEAR = "better", "worse", ""

_WIDTH = 100

RULE = (
    "differences on the same items whose 95 % interval excludes 0 and whose paired permutation "
    "test has p < 0.05, corrected over the rows of the table (Holm)"
)
"""What is marked, in words; for legends."""

SIGN = {BETTER: "+", WORSE: "-", UNCLEAR: " "}
"""On a terminal."""


class Change(NamedTuple):
    """A second model less a first one, in one row of a table."""

    difference: Interval
    p: float
    """Of the paired permutation test."""
    lower_is_better: bool = False


class Judgement(NamedTuple):
    """What a table says of a change."""

    verdict: str
    """BETTER, WORSE or UNCLEAR; only the first two are marked."""
    p: float
    """Corrected over the rows of the table."""


def judge(changes: Sequence[Change | None]) -> list[Judgement | None]:
    """By the rule, all rows of one table together; None where there is no change to judge."""
    tested = [change for change in changes if change is not None]
    corrected = iter(holm([change.p for change in tested]))
    return [change and Judgement(_verdict(change, p := next(corrected)), p) for change in changes]


def holm(chances: Sequence[float]) -> list[float]:
    """p of several tests, so that with each below a level all of them hold at it."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    found, least = [0.0] * len(chances), 0.0
    for tests_before, place in enumerate(order):
        least = max(least, min(1.0, chances[place] * (len(chances) - tests_before)))
        found[place] = least
    return found


def probability(p: float) -> str:
    """``p < 0.001``, ``p = 0.180``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def legend(second: str, first: str) -> str:
    """What the signs on a terminal say, in lines."""
    told = f"{SIGN[BETTER]} better and {SIGN[WORSE]} worse in {second} than in {first} mark {RULE}."
    return textwrap.fill(told, _WIDTH)


def _verdict(change: Change, p: float) -> str:
    low, high = change.difference.low, change.difference.high
    if not (p < LEVEL and (low > 0 or high < 0)):
        return UNCLEAR
    return BETTER if (low > 0) != change.lower_is_better else WORSE
