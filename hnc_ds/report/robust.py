"""Curves on worse pictures: a panel for each corruption, scores against severity."""

from collections.abc import Sequence
from dataclasses import dataclass

from hnc_ds.evaluation.question_sets import described
from hnc_ds.evaluation.robustness import condition_of, is_of_conditions
from hnc_ds.report.compare import Table, alone, chance_of_benchmark
from hnc_ds.report.figures import curves
from hnc_ds.report.runs import Measurement, RowKey

Severities = list[tuple[float, float]]
"""(severity, share); severity 0 is the picture as it is."""


@dataclass(frozen=True, slots=True)
class Robustness:
    """One benchmark's first metric on worse pictures."""

    title: str
    panels: list[tuple[str, str]]
    """Name of a corruption, and its curves as SVG."""
    table: Table
    """mPC and rPC of every metric."""


def robustness_panels(measurements: Sequence[Measurement | None]) -> list[Robustness]:
    """Of every benchmark that was measured on worse pictures.

    Args:
        measurements: One per run; None for a run without.
    """
    first: dict[str, str] = {}
    names: dict[str, dict[str, None]] = {}
    means: dict[str, list[RowKey]] = {}
    for key in dict.fromkeys(key for m in measurements if m for key in m.rows):
        benchmark, metric, group = key
        if (condition := condition_of(group)) is not None:
            first.setdefault(benchmark, metric)
            names.setdefault(benchmark, {})[condition[0]] = None
        elif is_of_conditions(group):
            means.setdefault(benchmark, []).append(key)
    return [
        Robustness(
            f"{_title(benchmark)}: {metric.replace('_', ' ')}",
            [
                (name.replace("_", " "), _panel(benchmark, metric, name, measurements))
                for name in names[benchmark]
            ],
            alone(means[benchmark], measurements),
        )
        for benchmark, metric in first.items()
    ]


def _panel(
    benchmark: str, metric: str, corruption: str, measurements: Sequence[Measurement | None]
) -> str:
    lines = {
        run: found
        for run, m in enumerate(measurements)
        if m is not None and len(found := _severities(m, benchmark, metric, corruption)) > 1
    }
    return curves(lines, share=True, chance=chance_of_benchmark(benchmark)) if lines else ""


def _severities(
    measurement: Measurement, benchmark: str, metric: str, corruption: str
) -> Severities:
    found: Severities = []
    for (b, m, group), row in measurement.rows.items():
        condition = condition_of(group)
        if (b, m) == (benchmark, metric) and (group == "all" or condition is not None):
            name, severity = condition or (corruption, 0)
            if name == corruption:
                found.append((severity, row.value))
    return sorted(found)


def _title(benchmark: str) -> str:
    known = described(benchmark)
    return known.title if known else benchmark
