"""Tables of several runs: values with intervals, the best marked, differences to the first run.

Here fractions become percent; no markup but the bars of figures.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES
from hnc_ds.evaluation.statistics import Interval
from hnc_ds.evaluation.table import RowKey
from hnc_ds.records import Result
from hnc_ds.report.arrange import TIES, Block, arrange, chance_of_benchmark
from hnc_ds.report.figures import bars
from hnc_ds.report.paired import SharedItems, chance_of, difference
from hnc_ds.report.runs import Measurement

COSINES = frozenset({"margin"})
"""Metrics shown as they are; all others are fractions, shown as percent."""
LOWER_IS_BETTER = frozenset({TIES})
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
    """Empty where a table above says it."""
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
    keys = list(dict.fromkeys(key for m in measurements if m is not None for key in m.rows))
    told = [
        key for key in keys if key[1] not in LOWER_IS_BETTER or _any_above_zero(key, measurements)
    ]
    return [table_of(block, measurements, shared) for block in arrange(told)]


def percent(fraction: float) -> str:
    """``93.2`` for 0.932."""
    return _text(fraction, "")


def table_of(
    block: Block,
    measurements: Sequence[Measurement | None],
    shared: Sequence[SharedItems | None],
) -> Table:
    """The table of a block, with its bars. Arguments as of `compare`."""
    benchmark = block.keys[0][0]
    return Table(
        title=block.title,
        about=block.about,
        counted="Pairs" if benchmark == HARD_NEGATIVES else "Items",
        rows=[_row(key, block.label_of(key), measurements, shared) for key in block.keys],
        folded=block.folded,
        chart=_chart(block, measurements) if block.bars else "",
        has_chance=chance_of_benchmark(benchmark) is not None,
    )


def _any_above_zero(key: RowKey, measurements: Sequence[Measurement | None]) -> bool:
    return any(m.rows[key].value > 0 for m in measurements if m and key in m.rows)


def _chart(block: Block, measurements: Sequence[Measurement | None]) -> str:
    results = [[m.rows.get(key) if m else None for m in measurements] for key in block.bars]
    chance = chance_of_benchmark(block.bars[0][0])
    return bars([block.label_of(key) for key in block.bars], results, chance)


def _row(
    key: RowKey,
    label: str,
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
    return Row(label, " / ".join(f"{count:,}" for count in counts), cells)


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
