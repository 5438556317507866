"""Tables of several runs: values with intervals, the best marked, differences to the first run.

Here fractions become percent; no markup but the bars of figures.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES
from hnc_ds.evaluation.question_sets import described
from hnc_ds.evaluation.robustness import is_of_conditions
from hnc_ds.evaluation.statistics import Interval
from hnc_ds.evaluation.table import MOST_GROUPS, is_group
from hnc_ds.records import Result
from hnc_ds.report.figures import bars
from hnc_ds.report.paired import SharedItems, chance_of, difference
from hnc_ds.report.runs import Measurement, RowKey

METRIC_TITLES = {
    "margin": "Margin between true caption and hard negative",
    "ties": "Ties",
}
ABOUT_METRIC = {
    "margin": "Mean cosine similarity of the image with its true caption less that with the hard "
    "negative.",
    "ties": "Pairs whose two captions are exactly as similar to the image; they count as wrong.",
}
COSINES = frozenset({"margin"})
"""Metrics shown as they are; all others are fractions, shown as percent."""
FOLDED = frozenset(
    {
        "vqa_always_normalised",
        "vqa_min3",
        "exact_match",
        "ratio_1",
        "ratio_1.1",
        "ratio_1.2",
        "ratio_1.3",
        "ratio_1.4",
        "ratio_1.5",
    }
)
"""Metrics by group that few ask for."""
LOWER_IS_BETTER = frozenset({"ties"})
DIGITS_OF_COSINE = 3
DIGITS_OF_PERCENT = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One run's value in a row, as shown."""

    value: str
    interval: str
    best: bool
    difference: str = ""
    """To the first run, with sign; empty for the first run and where no item tells."""
    difference_interval: str = ""
    chance: str = ""
    """McNemar's p of the difference; empty where it was not tested."""
    verdict: str = ""
    """'better' or 'worse' where the interval of the difference excludes 0."""


@dataclass(frozen=True, slots=True)
class Row:
    """One group or metric; a cell per run, None where a run lacks it."""

    label: str
    count: str
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class Table:
    """One benchmark, or one metric of it by group."""

    title: str
    about: str
    unit: str
    counted: str
    """What the counts count."""
    rows: list[Row]
    folded: bool
    """Shown on demand only."""
    chart: str = ""
    """Bars of its groups, as SVG; empty where there are none, or too many."""
    has_chance: bool = False
    """Whether the bars have a line of guessing."""


def compare(
    measurements: Sequence[Measurement | None], shared: Sequence[SharedItems | None]
) -> list[Table]:
    """The tables of one results file over all runs.

    Args:
        measurements: One per run; None for a run without this file.
        shared: For each run what it shares with the first; None for the first itself.
    """
    keys = dict.fromkeys(key for m in measurements if m is not None for key in m.rows)
    shown = [key for key in keys if not is_of_conditions(key[2])]  # robust.py has those
    tables = []
    for benchmark in dict.fromkeys(benchmark for benchmark, _, _ in shown):
        for own in _split([key for key in shown if key[0] == benchmark]):
            if own[0][1] in LOWER_IS_BETTER and not _any_above_zero(own, measurements):
                continue  # no ties: nothing to say
            tables += _tables(own, measurements, shared)
    return tables


def percent(fraction: float) -> str:
    """``93.2`` for 0.932."""
    return _text(fraction, "")


def label_of(key: RowKey) -> str:
    """How a row is called: its group, or its metric where it has no groups."""
    _, metric, group = key
    if is_of_conditions(group):
        return f"{metric.replace('_', ' ')}, {group}"
    words = metric if group == "all" and "R@" in metric else group
    return words.replace("_", " ").replace(" R@", ", R@")


def _split(keys: list[RowKey]) -> list[list[RowKey]]:
    """A table per metric where a benchmark has groups, else one table of all its metrics."""
    if keys[0][0] != HARD_NEGATIVES and all(group == "all" for _, _, group in keys):
        return [keys]
    metrics = dict.fromkeys(metric for _, metric, _ in keys)
    return [[key for key in keys if key[1] == metric] for metric in metrics]


def _any_above_zero(keys: list[RowKey], measurements: Sequence[Measurement | None]) -> bool:
    return any(m.rows[key].value > 0 for m in measurements if m for key in keys if key in m.rows)


def alone(keys: list[RowKey], measurements: Sequence[Measurement | None]) -> Table:
    """A table of values without differences, which no item tells."""
    return _table(keys, measurements, [None] * len(measurements))


def _tables(
    keys: list[RowKey],
    measurements: Sequence[Measurement | None],
    shared: Sequence[SharedItems | None],
) -> list[Table]:
    """One table, or two where there are too many groups to stand open."""
    groups = [key for key in keys if is_group(*key)]
    if len(groups) > MOST_GROUPS:
        others = [key for key in keys if key not in set(groups)]
        whole = [_table(others, measurements, shared)] if others else []
        parts = _table(groups, measurements, shared)
        return [*whole, replace(parts, title=f"{parts.title}, by group", folded=True)]
    table = _table(keys, measurements, shared)
    chart = "" if table.folded else _chart(groups, measurements)
    has_chance = chance_of_benchmark(keys[0][0]) is not None
    return [replace(table, chart=chart, has_chance=has_chance)]


def _chart(keys: list[RowKey], measurements: Sequence[Measurement | None]) -> str:
    """Bars of a metric by group; "" where there is one group or none."""
    metric = keys[0][1] if keys else ""
    own = [key for key in keys if key[1] == metric]
    if len(own) < 2:
        return ""
    results = [[m.rows.get(key) if m else None for m in measurements] for key in own]
    return bars([label_of(key) for key in own], results, chance_of_benchmark(own[0][0]))


def chance_of_benchmark(benchmark: str) -> float | None:
    """What guessing scores; None where that depends on the group or the set."""
    known = described(benchmark)
    return known.chance if known else None


def _table(
    keys: list[RowKey],
    measurements: Sequence[Measurement | None],
    shared: Sequence[SharedItems | None],
) -> Table:
    benchmark, metric, _ = keys[0]
    known = described(benchmark)
    folded = metric in METRIC_TITLES or metric in FOLDED
    title = known.title if known else benchmark
    if known and benchmark != HARD_NEGATIVES and any(group != "all" for _, _, group in keys):
        title += f": {metric.replace('_', ' ')}"  # a table each
    return Table(
        title=METRIC_TITLES.get(metric, title),
        about=ABOUT_METRIC.get(metric) or (known.about if known else ""),
        unit="cosine" if metric in COSINES else "%",
        counted="Pairs" if benchmark == HARD_NEGATIVES else "Items",
        rows=[_row(key, measurements, shared) for key in keys],
        folded=folded,
    )


def _row(
    key: RowKey,
    measurements: Sequence[Measurement | None],
    shared: Sequence[SharedItems | None],
) -> Row:
    results = [m.rows.get(key) if m else None for m in measurements]
    present = [result for result in results if result is not None]
    sign = -1 if key[1] in LOWER_IS_BETTER else 1
    shown = {_rounded(result, sign) for result in present}
    cells = [
        _cell(result, other, key, len(shown) > 1 and _rounded(result, sign) == max(shown))
        if result
        else None
        for result, other in zip(results, shared, strict=True)
    ]
    counts = sorted({result.count for result in present})
    return Row(label_of(key), " / ".join(f"{count:,}" for count in counts), cells)


def _rounded(result: Result, sign: int) -> float:
    """As shown, so that values that read alike are marked alike."""
    digits = DIGITS_OF_COSINE if result.metric in COSINES else DIGITS_OF_PERCENT + 2
    return sign * round(result.value, digits)


def _cell(result: Result, shared: SharedItems | None, key: RowKey, best: bool) -> Cell:
    value = _text(result.value, result.metric)
    interval = _span(result.low, result.high, result.metric)
    change = difference(shared, key) if shared else None
    if change is None:
        return Cell(value, interval, best)
    return Cell(
        value,
        interval,
        best,
        _signed(change.value, result.metric),
        f"{_signed(change.low, result.metric)} to {_signed(change.high, result.metric)}",
        _probability(chance_of(shared, key)) if shared else "",
        _verdict(change, key[1]),
    )


def _probability(chance: float | None) -> str:
    if chance is None:
        return ""
    return "p < 0.001" if chance < 0.001 else f"p = {chance:.3f}"


def _verdict(change: Interval, metric: str) -> str:
    if change.low <= 0 <= change.high:
        return ""
    return "better" if (change.value > 0) != (metric in LOWER_IS_BETTER) else "worse"


def _text(value: float, metric: str) -> str:
    digits = DIGITS_OF_COSINE if metric in COSINES else DIGITS_OF_PERCENT
    shown = round(value if metric in COSINES else 100 * value, digits)
    return ("\N{MINUS SIGN}" if shown < 0 else "") + f"{abs(shown):.{digits}f}"


def _span(low: float, high: float, metric: str) -> str:
    return f"{_text(low, metric)} to {_text(high, metric)}"


def _signed(value: float, metric: str) -> str:
    text = _text(value, metric)
    return f"+{text}" if value > 0 and text.strip("0.") else text
