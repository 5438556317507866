"""Curves on worse pictures: a panel for each corruption, scores against severity."""

from collections.abc import Sequence
from dataclasses import dataclass

from hnc_ds.evaluation.corruptions import SEVERITIES
from hnc_ds.evaluation.measurement import Measurement
from hnc_ds.evaluation.robustness import Condition, condition_of, is_of_conditions
from hnc_ds.evaluation.table import RowKey
from hnc_ds.report.arrange import Block, chance_of_benchmark, title_of_benchmark
from hnc_ds.report.compare import Table, table_of
from hnc_ds.report.figures import Curve, curves

CLEAN = 0
"""Severity of the pictures as they are."""

UNLIKE = (
    "Not all were measured on the same corruptions and severities: their mPC and rPC cannot be "
    "compared."
)


@dataclass(frozen=True, slots=True)
class Robustness:
    """One benchmark's first metric on worse pictures."""

    title: str
    panels: list[tuple[str, str]]
    """Name of a corruption, and its curves as SVG."""
    table: Table
    """mPC and rPC of every metric."""
    remark: str
    """Why that table cannot be read across; empty where it can."""


def robustness_panels(measurements: Sequence[Measurement | None]) -> list[Robustness]:
    """Of every benchmark that was measured on worse pictures.

    Args:
        measurements: One per run; None for a run without.
    """
    keys = dict.fromkeys(key for m in measurements if m for key in m.rows)
    found: dict[str, list[RowKey]] = {}
    for key in keys:
        if is_of_conditions(key[2]):
            found.setdefault(key[0], []).append(key)
    return [_of_benchmark(name, own, measurements) for name, own in found.items()]


def _of_benchmark(
    benchmark: str, keys: Sequence[RowKey], measurements: Sequence[Measurement | None]
) -> Robustness:
    metric, title = keys[0][1], title_of_benchmark(benchmark)
    corruptions = dict.fromkeys(c[0] for _, _, group in keys if (c := condition_of(group)))
    means = [key for key in keys if condition_of(key[2]) is None]
    asked = {frozenset(own) for m in measurements if m and (own := _conditions(m, benchmark))}
    return Robustness(
        f"{title}: {metric.replace('_', ' ')}",
        [
            (name.replace("_", " "), _panel(benchmark, metric, name, measurements))
            for name in corruptions
        ],
        table_of(Block(title, means, by_metric=True), measurements, [None] * len(measurements)),
        UNLIKE if len(asked) > 1 else "",
    )


def _conditions(measurement: Measurement, benchmark: str) -> list[Condition]:
    groups = (group for name, _, group in measurement.rows if name == benchmark)
    return [condition for group in groups if (condition := condition_of(group))]


def _panel(
    benchmark: str, metric: str, corruption: str, measurements: Sequence[Measurement | None]
) -> str:
    lines = {
        run: found
        for run, m in enumerate(measurements)
        if m is not None and len(found := severities(m, benchmark, metric, corruption)) > 1
    }
    chance = chance_of_benchmark(benchmark)
    return curves(lines, share=True, chance=chance, ticks=(CLEAN, *SEVERITIES)) if lines else ""


def severities(measurement: Measurement, benchmark: str, metric: str, corruption: str) -> Curve:
    """(severity, share) of one corruption, ascending, from the pictures as they are on."""
    found: list[tuple[float, float]] = []
    for (name, own, group), row in measurement.rows.items():
        condition = (corruption, CLEAN) if group == "all" else condition_of(group)
        if (name, own) == (benchmark, metric) and condition and condition[0] == corruption:
            found.append((condition[1], row.value))
    return sorted(found)
