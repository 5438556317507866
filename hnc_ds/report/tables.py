"""Tables of several runs: values with intervals, and differences to the first run.

Hard negatives have a table per metric. A released benchmark has a table of its first metric by
group, with bars, and one of its other metrics, whose groups are folded. Rows of corrupted images
are in charts.py. Fractions become percent here; the only markup are the bars of figures.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hnc_ds.captions.language.attribute_classes import ATTRIBUTE, PREDICATE, about_of
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, HELD_OUT, LEAST_PAIRS, described
from hnc_ds.evaluation.blind import BLIND, SIGHTED
from hnc_ds.evaluation.corruptions import is_of_conditions
from hnc_ds.evaluation.paired import LOWER_IS_BETTER, ChangeOf
from hnc_ds.evaluation.results import Measurement, RowKey
from hnc_ds.evaluation.seeds import deviation
from hnc_ds.evaluation.statistics import Change, Judgement, judge, probability
from hnc_ds.evaluation.tables import (
    BY_KIND,
    MOST_GROUPS,
    few_groups,
    is_group,
    most_frequent,
    of_kind,
)

TIES = "ties"
METRIC_TITLES = {
    SIGHTED: "Sighted accuracy",
    BLIND: "Blind accuracy",
    "margin": "Margin between true caption and hard negative",
    TIES: "Ties",
}
ABOUT_METRIC = {
    SIGHTED: "Accuracy minus blind accuracy plus one half: 50 if the image adds nothing to what "
    "the captions alone give away.",
    BLIND: "The same pairs with other images: how often the true caption wins although the image "
    "shows something else. Above 50, captions alone give the answer away.",
    "margin": "Mean similarity of the image with its true caption minus that with the hard "
    "negative: cosines, or of cross-encoders log-odds, which are not comparable with them.",
    TIES: "Pairs whose captions are equally similar to the image; they count as wrong.",
}
ABOUT_KIND = {
    PREDICATE: "Pairs by the predicate that the hard negative states",
    ATTRIBUTE: "Pairs by the class of the attribute that makes the hard negative false",
}
DECIDED_BY_TIES = "decided by a tie"
"""Label of ties beside scores; benchmarks differ in how they count."""


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one table."""

    title: str
    keys: list[RowKey]
    about: str = ""
    folded: bool = False
    bars: list[RowKey] = field(default_factory=list)
    """Rows drawn as bars; empty if there are too few or too many."""
    by_metric: bool = False
    """Whether rows are labelled by metric, because there are several."""

    def label_of(self, key: RowKey) -> str:
        """Label of a row in this table."""
        _, metric, group = key
        if metric == TIES and self.by_metric:
            return DECIDED_BY_TIES
        if not self.by_metric:
            return about_of(group) or _words(group)
        words = metric if group == "all" else f"{metric}, {group}"
        return _words(words).replace(" R@", ", R@")


def arrange(keys: Sequence[RowKey]) -> list[Block]:
    """The tables of one results file, in order."""
    shown = [key for key in keys if not is_of_conditions(key[2])]
    found: list[Block] = []
    for benchmark in dict.fromkeys(benchmark for benchmark, _, _ in shown):
        own = [key for key in shown if key[0] == benchmark]
        found += _of_shards(own) if benchmark == HARD_NEGATIVES else _of_benchmark(benchmark, own)
    return found


def _of_shards(keys: Sequence[RowKey]) -> list[Block]:
    """Hard negatives: accuracy by type and by predicate, with bars; margins and ties folded."""
    known, found = HELD_OUT[HARD_NEGATIVES], list[Block]()
    of_types = [key for key in keys if about_of(key[2]) is None]
    titled = [metric for metric in METRIC_TITLES if metric in _metrics(of_types)]
    for metric in (*(m for m in _metrics(of_types) if m not in titled), *titled):
        own = [key for key in of_types if key[1] == metric]
        if metric in METRIC_TITLES:
            about = ABOUT_METRIC[metric]
            folded = metric != SIGHTED
            bars = [] if folded else _drawn(own)
            found.append(Block(METRIC_TITLES[metric], own, about, folded=folded, bars=bars))
        else:
            found.append(Block(known.title, own, known.about, bars=_drawn(own)))
            found += _by_about([key for key in keys if key[1] == metric])
    return found


def _by_about(keys: Sequence[RowKey]) -> Iterator[Block]:
    """The most frequent predicates and attribute classes; the others folded."""
    title = HELD_OUT[HARD_NEGATIVES].title
    for kind, shown in most_frequent(keys).items():
        about = (
            f"{ABOUT_KIND[kind]}, the most frequent first, with at least {LEAST_PAIRS} pairs each."
        )
        yield Block(f"{title} {BY_KIND[kind]}", shown, about, bars=_drawn(shown))
        if rest := of_kind(kind, keys)[len(shown) :]:
            yield Block(f"{title} {BY_KIND[kind]}: less frequent ones", rest, folded=True)


def _of_benchmark(benchmark: str, keys: Sequence[RowKey]) -> list[Block]:
    title, about = described(benchmark).title, described(benchmark).about
    grouped = [metric for metric in _metrics(keys) if _grouped(keys, metric)]
    if not grouped:
        return [Block(title, list(keys), about, by_metric=True)]
    main, *others = grouped
    alone = set(_metrics(keys)) <= {main, TIES}
    name = title if alone else f"{title}: {_words(main)}"
    found = _main(name, about, [key for key in keys if key[1] == main])
    if rest := [key for key in keys if key[1] != main and not is_group(*key)]:
        found.append(Block(f"{title}: further scores", rest, by_metric=True))
    if by_group := [key for metric in others for key in _grouped(keys, metric)]:
        name = f"{title}: further scores by group"
        found.append(Block(name, by_group, folded=True, by_metric=True))
    return found


def _main(title: str, about: str, keys: list[RowKey]) -> list[Block]:
    """One table with bars, or an open and a folded one if there are many groups."""
    groups = [key for key in keys if is_group(*key)]
    few = few_groups(groups)
    rest = [key for key in groups if key not in few]
    shown = [key for key in keys if key not in rest]
    found = [Block(title, shown, about, bars=_drawn(shown))] if shown else []
    if rest:
        name = f"{title}, by {'further groups' if few else 'group'}"
        found.append(Block(name, rest, folded=True))
    return found


def _drawn(keys: Sequence[RowKey]) -> list[RowKey]:
    """The groups, if there are 2 to MOST_GROUPS."""
    groups = [key for key in keys if is_group(*key)]
    return groups if 2 <= len(groups) <= MOST_GROUPS else []


def _grouped(keys: Sequence[RowKey], metric: str) -> list[RowKey]:
    return [key for key in keys if key[1] == metric and is_group(*key)]


def _metrics(keys: Iterable[RowKey]) -> list[str]:
    return list(dict.fromkeys(metric for _, metric, _ in keys))


def _words(name: str) -> str:
    return name.replace("_", " ")


COSINES = frozenset({"margin"})
"""Metrics that are cosines; all others are fractions, shown as percent."""
DIGITS_OF_COSINE = 3
DIGITS_OF_PERCENT = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of one run's value in a row."""

    value: str
    interval: str
    difference: str = ""
    """Difference to the first run, with sign; empty without shared items."""
    difference_interval: str = ""
    chance: str = ""
    """p of the difference, corrected over the rows of the table."""
    verdict: str = ""
    """'better' or 'worse' if the difference is marked."""
    deviation: str = ""
    """Standard deviation over seeds; empty for a single run."""
    seeds: Mapping[str, str] = field(default_factory=dict)
    """Value of each seed; empty for a single run."""


@dataclass(frozen=True, slots=True)
class Row:
    """One group or metric, with a cell per run; None for a run without it."""

    label: str
    count: str
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class Table:
    """One benchmark, or one metric of it by group."""

    title: str
    about: str
    """Empty if a table above has the same text."""
    counted: str
    """Head of the column of counts."""
    rows: list[Row]
    folded: bool
    """Collapsed in the page."""
    chart: str = ""
    """Bars of its groups as SVG; empty if there are none or too many."""
    has_chance: bool = False
    """Whether the bars have a line at chance."""


def compare(
    measurements: Sequence[Measurement | None], changes: Sequence[ChangeOf | None]
) -> list[Table]:
    """The tables of one results file over all runs.

    Args:
        measurements: One per run; None for a run without this file.
        changes: How each run differs from the first; None for the first run.
    """
    return [table_of(block, measurements, changes) for block in blocks_of(measurements)]


def blocks_of(measurements: Sequence[Measurement | None]) -> list[Block]:
    """The rows of the tables of one results file over all runs."""
    keys = list(dict.fromkeys(key for m in measurements if m is not None for key in m.rows))
    shown = [
        key for key in keys if key[1] not in LOWER_IS_BETTER or _any_above_zero(key, measurements)
    ]
    return arrange(shown)


def percent(fraction: float) -> str:
    """``93.2`` for 0.932."""
    return _text(fraction, "")


def table_of(
    block: Block, measurements: Sequence[Measurement | None], changes: Sequence[ChangeOf | None]
) -> Table:
    """The table of a block, with its bars. Arguments as of `compare`."""
    benchmark = block.keys[0][0]
    changed = [[change(key) if change else None for key in block.keys] for change in changes]
    judged = zip(*map(judge, changed), strict=True)
    by_key = zip(*changed, strict=True)
    return Table(
        title=block.title,
        about=block.about,
        counted="Pairs" if benchmark == HARD_NEGATIVES else "Items",
        rows=[
            _row(key, block.label_of(key), measurements, list(zip(*parts, strict=True)))
            for key, *parts in zip(block.keys, by_key, judged, strict=True)
        ],
        folded=block.folded,
        chart=_chart(block, measurements) if block.bars else "",
        has_chance=described(benchmark).chance is not None,
    )


def _any_above_zero(key: RowKey, measurements: Sequence[Measurement | None]) -> bool:
    return any(m.rows[key].value > 0 for m in measurements if m and key in m.rows)


def _chart(block: Block, measurements: Sequence[Measurement | None]) -> str:
    from hnc_ds.report.figures import bars  # matplotlib; tables alone do without it

    results = [[m.rows.get(key) if m else None for m in measurements] for key in block.bars]
    chance = described(block.bars[0][0]).chance
    return bars([block.label_of(key) for key in block.bars], results, chance)


def _row(
    key: RowKey,
    label: str,
    measurements: Sequence[Measurement | None],
    judged: Sequence[tuple[Change | None, Judgement | None]],
) -> Row:
    results = [m.rows.get(key) if m else None for m in measurements]
    cells = [
        _cell(m, key, *of_run) if m and key in m.rows else None
        for m, of_run in zip(measurements, judged, strict=True)
    ]
    counts = sorted({result.count for result in results if result is not None})
    return Row(label, " / ".join(f"{count:,}" for count in counts), cells)


def _cell(
    measurement: Measurement, key: RowKey, change: Change | None, judgement: Judgement | None
) -> Cell:
    result, metric = measurement.rows[key], key[1]
    spread = deviation(measurement, key)
    cell = Cell(
        _text(result.value, metric),
        _span(result.low, result.high, metric),
        deviation="" if spread is None else _text(spread, metric),
        seeds={} if spread is None else _values_of_seeds(measurement, key),
    )
    if change is None or judgement is None:
        return cell
    difference = change.difference
    return replace(
        cell,
        difference=_signed(difference.value, metric),
        difference_interval=f"{_signed(difference.low, metric)} to "
        f"{_signed(difference.high, metric)}",
        chance=probability(judgement.p),
        verdict=judgement.verdict,
    )


def _values_of_seeds(measurement: Measurement, key: RowKey) -> dict[str, str]:
    rows = {seed: one.rows.get(key) for seed, one in measurement.seeds.items()}
    return {seed: _text(row.value, key[1]) for seed, row in rows.items() if row}


def _text(value: float, metric: str) -> str:
    digits = DIGITS_OF_COSINE if metric in COSINES else DIGITS_OF_PERCENT
    shown = round(value if metric in COSINES else 100 * value, digits)
    return ("\N{MINUS SIGN}" if shown < 0 else "") + f"{abs(shown):.{digits}f}"


def _span(low: float, high: float, metric: str) -> str:
    return f"{_text(low, metric)} to {_text(high, metric)}"


def _signed(value: float, metric: str) -> str:
    text = _text(value, metric)
    return f"+{text}" if value > 0 and text.strip("0.") else text
