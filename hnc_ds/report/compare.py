"""Tables of several runs: values with intervals, and differences to the first run.

Here fractions become percent; no markup but the bars of figures.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES
from hnc_ds.evaluation.measurement import Measurement
from hnc_ds.evaluation.paired import LOWER_IS_BETTER, SharedItems, change_of
from hnc_ds.evaluation.significance import Change, Judgement, judge, probability
from hnc_ds.evaluation.table import RowKey
from hnc_ds.records import Result
from hnc_ds.report.arrange import Block, arrange, chance_of_benchmark
from hnc_ds.report.figures import bars

COSINES = frozenset({"margin"})
"""Metrics shown as they are; all others are fractions, shown as percent."""
DIGITS_OF_COSINE = 3
DIGITS_OF_PERCENT = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One run's value in a row, as shown."""

    value: str
    interval: str
    difference: str = ""
    """To the first run, with sign; empty for the first run and where no item tells."""
    difference_interval: str = ""
    chance: str = ""
    """p of the difference, corrected over the rows of the table."""
    verdict: str = ""
    """'better' or 'worse' where the rule of significance.py marks it."""


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
    changes = [[change_of(items, key) if items else None for key in block.keys] for items in shared]
    judged = zip(*map(judge, changes), strict=True)
    told = zip(*changes, strict=True)
    return Table(
        title=block.title,
        about=block.about,
        counted="Pairs" if benchmark == HARD_NEGATIVES else "Items",
        rows=[
            _row(key, block.label_of(key), measurements, list(zip(*parts, strict=True)))
            for key, *parts in zip(block.keys, told, judged, strict=True)
        ],
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
    judged: Sequence[tuple[Change | None, Judgement | None]],
) -> Row:
    results = [m.rows.get(key) if m else None for m in measurements]
    cells = [
        _cell(result, *of_run) if result else None
        for result, of_run in zip(results, judged, strict=True)
    ]
    counts = sorted({result.count for result in results if result is not None})
    return Row(label, " / ".join(f"{count:,}" for count in counts), cells)


def _cell(result: Result, change: Change | None, judgement: Judgement | None) -> Cell:
    metric = result.metric
    value, interval = _text(result.value, metric), _span(result.low, result.high, metric)
    if change is None or judgement is None:
        return Cell(value, interval)
    found = change.difference
    return Cell(
        value,
        interval,
        _signed(found.value, metric),
        f"{_signed(found.low, metric)} to {_signed(found.high, metric)}",
        probability(judgement.p),
        judgement.verdict,
    )


def _text(value: float, metric: str) -> str:
    digits = DIGITS_OF_COSINE if metric in COSINES else DIGITS_OF_PERCENT
    shown = round(value if metric in COSINES else 100 * value, digits)
    return ("\N{MINUS SIGN}" if shown < 0 else "") + f"{abs(shown):.{digits}f}"


def _span(low: float, high: float, metric: str) -> str:
    return f"{_text(low, metric)} to {_text(high, metric)}"


def _signed(value: float, metric: str) -> str:
    text = _text(value, metric)
    return f"+{text}" if value > 0 and text.strip("0.") else text
