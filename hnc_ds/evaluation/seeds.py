"""Scores of trainings that differ only in the seed: mean, standard deviation, paired differences.

Intervals here are Student's t over seeds, on the items at hand: how another seed might score, where
the bootstrap of statistics.py is about other images. Two models are compared seed by seed, as runs
of one seed see the same images in the same order.

Source: Student, "The probable error of a mean", 1908; the distribution by Abramowitz and Stegun,
"Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from statistics import fmean, stdev

from hnc_ds.evaluation.paired import (
    LOWER_IS_BETTER,
    ChangeOf,
    SharedItems,
    change_of,
    remarks_on_sharing,
    shared_items,
)
from hnc_ds.evaluation.results import Measurement, RowKey, fingerprints
from hnc_ds.evaluation.statistics import TAIL, Change, Interval
from hnc_ds.records import Result

NOT_FRACTIONS = frozenset({"margin"})
"""Metrics whose intervals are not limited to [0, 1]."""

RULE = (
    "the mean of the differences seed by seed, with their 95 % t interval and the p of the paired "
    "t test"
)
"""For legends: what a difference between columns of several seeds is."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model compared with the first one."""

    change_of: ChangeOf | None
    """None if they cannot be compared."""
    remarks: list[str] = field(default_factory=list)
    shared: SharedItems | None = None
    """Items of both, if these are single models."""


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean of at least two values with the 95 % t interval of the mean; count is their number."""
    mean = fmean(values)
    reach = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach, len(values))


def paired_change(differences: Sequence[float], lower_is_better: bool = False) -> Change:
    """Mean of at least two differences with its t interval and the p of the paired t test.

    p is 1 if all differences are equal, as their spread is then not known.
    """
    interval, spread = over_seeds(differences), stdev(differences)
    if spread <= 1e-12:
        return Change(interval, 1.0, lower_is_better)
    t = interval.value / (spread / math.sqrt(len(differences)))
    return Change(interval, t_tails(t, len(differences) - 1), lower_is_better)


def t_tails(t: float, degrees: int) -> float:
    """Probability that Student's t exceeds |t| in absolute value; ``degrees`` is 1 or more."""
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    inner = math.sin(angle) * total
    within = 2 / math.pi * (angle + inner) if odd else inner
    return max(0.0, 1 - within)


@cache
def t_quantile(degrees: int) -> float:
    """The t that 2.5 % of the distribution exceed, by bisection to 12 digits."""
    low, high = 0.0, 13.0  # of one degree of freedom it is 12.7
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, degrees) > 2 * TAIL else (low, middle)
    return high


def pooled(name: str, of_seeds: Mapping[str, Measurement]) -> Measurement:
    """The means over seeds as the measurement of one model, with those of the seeds in ``seeds``.

    Args:
        name: The model's name.
        of_seeds: Measurements by seed, at least one; rows on other questions than the first seed's
            are left out.
    """
    first = next(iter(of_seeds.values()))
    own = {seed: _on_questions_of(first, one) for seed, one in of_seeds.items()}
    rows = mean_rows(name, [one.rows for one in own.values()])
    return Measurement(rows, first.folder, first.header, seeds=own)


def mean_rows(name: str, of_seeds: Sequence[Mapping[RowKey, Result]]) -> dict[RowKey, Result]:
    """Rows with the mean over the seeds that have them; a row of a single seed stays as it is."""
    keys = dict.fromkeys(key for rows in of_seeds for key in rows)
    return {key: _mean_row(name, [rows[key] for rows in of_seeds if key in rows]) for key in keys}


def _mean_row(name: str, rows: Sequence[Result]) -> Result:
    one = rows[0]
    low, value, high = one.low, one.value, one.high
    if len(rows) > 1:
        found = over_seeds([row.value for row in rows])
        low, value, high = found.low, found.value, found.high
    if one.metric not in NOT_FRACTIONS:
        low, high = max(0.0, low), min(1.0, high)
    return Result(
        name, one.benchmark, one.version, one.metric, one.group, value, low, high, one.count
    )


def deviation(measurement: Measurement, key: RowKey) -> float | None:
    """Standard deviation over seeds (n - 1); None with fewer than two of them."""
    values = [one.rows[key].value for one in measurement.seeds.values() if key in one.rows]
    return stdev(values) if len(values) > 1 else None


def _on_questions_of(first: Measurement, other: Measurement) -> Measurement:
    reference = dict(first.rows)
    kept = {
        key: row
        for key, row in other.rows.items()
        if key not in reference or is_comparable(first, other, key)
    }
    return other if len(kept) == len(other.rows) else replace(other, rows=kept)


def is_comparable(first: Measurement, other: Measurement, key: RowKey) -> bool:
    """Whether both have a row, on the same questions as far as their files record it."""
    if key not in first.rows or key not in other.rows:
        return False
    one, two = first.rows[key], other.rows[key]
    known = [fingerprints(m.header).get(key[0]) for m in (first, other)]
    return (one.version, one.count) == (two.version, two.count) and (
        None in known or known[0] == known[1]
    )


def comparisons(measurements: Sequence[Measurement | None]) -> list[Comparison | None]:
    """Each model compared with the first one; None for itself and where one was not measured."""
    first, *others = measurements
    return [None, *(compare_with(first, m) if first and m else None for m in others)]


def compare_with(first: Measurement, other: Measurement) -> Comparison:
    """How a model, or the mean of its seeds, differs from the first one.

    Single models are compared item by item. With seeds the differences are those of equal seeds; a
    model without a seed is compared with every seed of the other one.
    """
    if len(first.seeds) < 2 and len(other.seeds) < 2:
        return _compare_items(first, other)
    pairs = _seed_pairs(first, other)
    if not pairs:
        why = "shares no seed with the first run, so there are no differences"
        return Comparison(None, [why])
    remarks = []
    if first.seeds and other.seeds and set(first.seeds) != set(other.seeds):
        shared = ", ".join(pairs)
        remarks.append(f"differences are over what both have, seed {shared}")
    if len(pairs) == 1:
        items = _compare_items(*next(iter(pairs.values())))
        return Comparison(items.change_of, [*remarks, *items.remarks])
    return Comparison(partial(_change_over_seeds, list(pairs.values())), remarks)


def _compare_items(first: Measurement, other: Measurement) -> Comparison:
    shared = shared_items(first, other)
    remarks = remarks_on_sharing(first, other, shared)
    return Comparison(partial(change_of, shared), remarks, shared)


def _seed_pairs(
    first: Measurement, other: Measurement
) -> dict[str, tuple[Measurement, Measurement]]:
    """Measurements of both by seed."""
    if not first.seeds:
        return {seed: (first, one) for seed, one in other.seeds.items()}
    if not other.seeds:
        return {seed: (one, other) for seed, one in first.seeds.items()}
    both = [seed for seed in first.seeds if seed in other.seeds]
    return {seed: (first.seeds[seed], other.seeds[seed]) for seed in both}


def _change_over_seeds(
    pairs: Iterable[tuple[Measurement, Measurement]], key: RowKey
) -> Change | None:
    differences = [
        other.rows[key].value - first.rows[key].value
        for first, other in pairs
        if is_comparable(first, other, key)
    ]
    return paired_change(differences, key[1] in LOWER_IS_BETTER) if len(differences) > 1 else None
