"""What ``hnc-ds evaluate`` prints: the scores of one model, and of several side by side. No torch.

A benchmark has at most MOST_LINES lines, with the number of scores that they leave out.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hnc_ds.captions.language.attribute_classes import about_of
from hnc_ds.errors import counted
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL, described
from hnc_ds.evaluation.blind import BLIND, SIGHTED
from hnc_ds.evaluation.corruptions import SEVERITIES, condition_of, is_of_conditions
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.released.summary import CHOSEN, MATCHES
from hnc_ds.evaluation.results import (
    ItemsHeader,
    Measurement,
    RowKey,
    key_of,
    read_measurement,
)
from hnc_ds.evaluation.statistics import SIGN, UNCLEAR, judge, legend
from hnc_ds.evaluation.tables import (
    BY_KIND,
    WIDTH,
    Rows,
    captions_cut,
    judged_with,
    most_frequent,
    set_remarks,
    shown_rows,
    title_of,
    with_interval,
)
from hnc_ds.records import Result

MOST_LINES = 25
"""Maximum number of lines of a benchmark."""

NAMES = 40
"""Characters of the column of names."""

TIES = "ties"
"""Metric that is a remark below the scores, so it is not counted as left out."""

FILES = "the results files"


class Column(NamedTuple):
    """One model of several."""

    rows: Rows
    shown: Rows
    """Those of its rows that are printed."""
    verdicts: dict[RowKey, str]
    """On the differences to the first model."""


class Line(NamedTuple):
    """One line of a table."""

    text: str
    keys: tuple[RowKey, ...] = ()
    """Rows of the results that it shows; none for a heading."""


def results_table(
    results: Sequence[Result], header: ItemsHeader, where: str, is_whole: bool = False
) -> str:
    """Tables of one model's scores, and remarks on the data.

    Args:
        results: All rows.
        header: The data behind them.
        where: The results file, for the line about what is left out.
        is_whole: Whether to print every score.
    """
    of_shards = (
        f": {counted(header.images, 'image')}, {counted(header.captions, 'caption')}"
        if header.shards
        else ""
    )
    rows = {name: [r for r in results if r.benchmark == name] for name in _benchmarks(results)}
    tables = {name: _table(name, own, is_whole) for name, own in rows.items()}
    remarks = {name: _set_remarks(name, rows.get(name, []), header) for name in header.sets}
    lines = [f"{header.model}{of_shards}"]
    for name in (HARD_NEGATIVES, RETRIEVAL):
        lines += _limited(tables.get(name, []), rows.get(name, []), [], where, is_whole)
    lines += _remarks(results, header)
    for name in header.sets:
        lines += _limited(tables.get(name, []), rows.get(name, []), remarks[name], where, is_whole)
    return "\n".join(lines)


def _benchmarks(results: Iterable[Result]) -> list[str]:
    return list(dict.fromkeys(row.benchmark for row in results))


def _table(name: str, results: Sequence[Result], is_whole: bool) -> list[Line]:
    if name == HARD_NEGATIVES:
        lines = _pair_lines(results)
    elif name == RETRIEVAL:
        lines = _recall_lines(results)
    else:
        lines = _set_lines(name, results)
    shown = {key for line in lines for key in line.keys}
    rest = [row for row in results if key_of(row) not in shown]
    if not is_whole or not rest:
        return lines
    return [*lines, Line(""), Line("further scores"), *map(_plain_line, rest)]


def _plain_line(row: Result) -> Line:
    name = f"{row.metric}, {row.group}"
    if row.metric == "margin":
        interval = f"{row.low:.3f} to {row.high:.3f}"
        return Line(f"{name:<36}{row.value:>10.3f}{interval:>18}{row.count:>9,}", (key_of(row),))
    return Line(f"{_percents(name, row, 36)}{row.count:>9,}", (key_of(row),))


def _limited(
    lines: Sequence[Line],
    results: Sequence[Result],
    remarks: Sequence[str],
    where: str,
    is_whole: bool,
) -> list[str]:
    """The lines of one benchmark and its remarks, at most MOST_LINES, after a blank one."""
    if not lines:
        return []
    kept, room = list(lines), MOST_LINES - len(remarks)
    if not is_whole and len(kept) + bool(_left_out(kept, results)) > room:
        kept = kept[: max(1, room - 1)]
        while len(kept) > 1 and not kept[-1].keys:  # a heading without its rows
            kept.pop()
    note = []
    if left := _left_out(kept, results):
        are = counted(left, "further score is", "further scores are")
        note = [f"{are} in {where}; --all prints {'it' if left == 1 else 'them'}"]
    return ["", *(line.text for line in kept), *note, *remarks]


def _left_out(lines: Iterable[Line], results: Iterable[Result]) -> int:
    shown = {key for line in lines for key in line.keys}
    return sum(row.metric != TIES and key_of(row) not in shown for row in results)


def models_table(files: Mapping[str, Path], seed: int, is_whole: bool = False) -> str:
    """Scores of several models, one column each; differences to the first model are marked.

    Args:
        files: Results files by model name; at least one.
        seed: Seed of intervals and tests.
        is_whole: Whether to print every score.

    Raises:
        UserError: As ``read_measurement``.
    """
    first = read_measurement(next(iter(files.values())))
    others = (read_measurement(file) for file in list(files.values())[1:])
    columns = [_column(first, None, seed, is_whole)]
    columns += [_column(first, other, seed, is_whole) for other in others]
    benchmarks = dict.fromkeys(name for column in columns for name, _, _ in column.shown)
    names = [f"{f'({number})':>6} {name}" for number, name in enumerate(files, start=1)]
    heads = "".join(f"({number})  ".rjust(WIDTH) for number in range(1, len(files) + 1))
    lines = [*names, "", f"{'':{NAMES}}{heads}"]
    for name in benchmarks:
        lines += _side_by_side(name, columns, is_whole)
    return "\n".join(map(str.rstrip, [*lines, "", legend("a model", "(1)")]))


def _side_by_side(name: str, columns: Sequence[Column], is_whole: bool) -> list[str]:
    """The lines of one benchmark."""
    keys = [key for column in columns for key in column.shown if key[0] == name]
    shown = list(dict.fromkeys(keys))
    if not is_whole and len(shown) >= MOST_LINES:
        shown = _main_first(shown)
    lines = [Line(described(name).title), *(Line(_line(key, columns), (key,)) for key in shown)]
    rows = {key: row for column in columns for key, row in column.rows.items() if key[0] == name}
    return _limited(lines, list(rows.values()), [], FILES, is_whole)[1:]


def _main_first(keys: Sequence[RowKey]) -> list[RowKey]:
    """Scores over everything, then the groups of the first metric, then those of the others."""
    metrics = list(dict.fromkeys(metric for _, metric, _ in keys))
    return sorted(keys, key=lambda key: (key[2] != "all", metrics.index(key[1])))


def _column(first: Measurement, other: Measurement | None, seed: int, is_whole: bool) -> Column:
    """A model's rows, and their verdicts, corrected table by table; of the first one if ``other``
    is None."""
    rows = (other or first).rows
    shown = rows if is_whole else {key_of(row): row for row in shown_rows(list(rows.values()))}
    verdicts: dict[RowKey, str] = {}
    if other is not None:
        shared = shared_items(first, other)
        for table in dict.fromkeys(map(judged_with, shown)):
            keys = [key for key in shown if judged_with(key) == table]
            judged = judge([change_of(shared, key, seed) for key in keys])
            verdicts |= {key: j.verdict for key, j in zip(keys, judged, strict=True) if j}
    return Column(rows, shown, verdicts)


def _line(key: RowKey, columns: Sequence[Column]) -> str:
    parts = [
        f"{with_interval(column.shown[key])} {SIGN[column.verdicts.get(key, UNCLEAR)]}"
        if key in column.shown
        else "-  "
        for column in columns
    ]
    return f"  {title_of(*key[1:]):<{NAMES - 2}}" + "".join(part.rjust(WIDTH) for part in parts)


def _pair_lines(results: Sequence[Result]) -> list[Line]:
    plain = [r for r in results if not is_of_conditions(r.group)]
    row = {(r.group, r.metric): r for r in plain if about_of(r.group) is None}
    lines = [
        Line(
            f"{'hard negatives':<24}{'accuracy':>10}{'95 % interval':>18}{'blind':>8}"
            f"{'sighted':>9}{'margin':>9}{'pairs':>11}"
        )
    ]
    for group in dict.fromkeys(group for group, _ in row):
        shown = [row.get((group, m)) for m in ("pair_accuracy", "margin", BLIND, SIGHTED)]
        accuracy, margin = row[group, "pair_accuracy"], row[group, "margin"]
        lines.append(
            Line(
                f"{_percents(group, accuracy)}{_percent(shown[2]):>8}{_percent(shown[3]):>9}"
                f"{margin.value:>9.3f}{accuracy.count:>11,}",
                tuple(key_of(one) for one in shown if one),
            )
        )
    return [*lines, *_single_lines(row), *_about_lines(plain), *_corruption_lines(results)]


def _single_lines(row: Mapping[tuple[str, str], Result]) -> list[Line]:
    """Captions judged one by one, if they were."""
    places = {MATCHES: "P(match) = 1/2", CHOSEN: "the threshold of the validation data"}
    single = {
        metric: f"{row['all', metric].value:.1%} right at {place}"
        for metric, place in places.items()
        if ("all", metric) in row
    }
    if not single:
        return []
    auroc = row["all", "auroc"]
    text = f"captions one by one: {', '.join(single.values())}, AUROC {auroc.value:.3f}"
    keys = (*(key_of(row["all", metric]) for metric in single), key_of(auroc))
    return [Line(""), Line(text, keys)]


def _about_lines(results: Sequence[Result]) -> list[Line]:
    """Accuracy of the most frequent predicates and attribute classes."""
    rows = {key_of(r): r for r in results if about_of(r.group) is not None}
    lines: list[Line] = []
    for kind, keys in most_frequent(list(rows)).items():
        head = f"{BY_KIND[kind]:<24}{'accuracy':>10}{'95 % interval':>18}{'pairs':>20}"
        lines += [Line(""), Line(head)]
        for key in keys:
            name = f"{about_of(key[2])}"
            lines.append(Line(f"{_percents(name, rows[key])}{rows[key].count:>20,}", (key,)))
    return lines


def _recall_lines(results: Sequence[Result]) -> list[Line]:
    head = f"{'retrieval':<24}{'recall':>10}{'95 % interval':>18}{'queries':>20}"
    return [
        Line(head),
        *(
            Line(f"{_percents(r.metric.replace('_', ' '), r)}{r.count:>20,}", (key_of(r),))
            for r in results
            if not is_of_conditions(r.group)
        ),
        *_corruption_lines(results),
    ]


def _corruption_lines(results: Sequence[Result]) -> list[Line]:
    """One benchmark on corrupted images: its first metric by corruption and severity, and the means
    of all metrics."""
    of = {(r.metric, condition): r for r in results if (condition := condition_of(r.group))}
    if not of:
        return []
    first, _ = next(iter(of))
    names = dict.fromkeys(name for metric, (name, _) in of if metric == first)
    head = f"{f'{first}, severity':<36}" + "".join(f"{s:>8}" for s in SEVERITIES)
    lines = [Line(""), Line(head)]
    for name in names:
        cells = [of.get((first, (name, severity))) for severity in SEVERITIES]
        text = f"{name:<36}" + "".join(f"{_percent(cell):>8}" for cell in cells)
        lines.append(Line(text, tuple(key_of(cell) for cell in cells if cell)))
    means = [r for r in results if is_of_conditions(r.group) and condition_of(r.group) is None]
    of_means = [(_percents(title_of(r.metric, r.group), r, 36), (key_of(r),)) for r in means]
    return [*lines, *(Line(text, key) for text, key in of_means)]


def _set_lines(name: str, results: Sequence[Result]) -> list[Line]:
    """Scores of a released benchmark."""
    head = f"{described(name).title:<36}{'score':>10}{'95 % interval':>18}{'items':>9}"
    shown = [row for row in shown_rows(results) if not is_of_conditions(row.group)]
    return [
        Line(head),
        *(
            Line(f"{_percents(title_of(r.metric, r.group), r, 36)}{r.count:>9,}", (key_of(r),))
            for r in shown
        ),
        *_corruption_lines(results),
    ]


def _set_remarks(name: str, results: Sequence[Result], header: ItemsHeader) -> list[str]:
    ties = sum(round(row.value * row.count) for row in results if row.metric == TIES)
    return set_remarks(name, header.sets[name], ties)


def _percent(result: Result | None) -> str:
    return "-" if result is None else f"{100 * result.value:.1f}"


def _percents(name: str, result: Result, width: int = 24) -> str:
    interval = f"{100 * result.low:.1f} to {100 * result.high:.1f}"
    return f"{name:<{width}}{f'{100 * result.value:.1f} %':>10}{interval:>18}"


def _remarks(results: Sequence[Result], header: ItemsHeader) -> list[str]:
    """Remarks on the pairs and images of the shards."""
    remarks = []
    ties = {key_of(result): result for result in results}.get((HARD_NEGATIVES, TIES, "all"))
    if ties and (tied := round(ties.value * ties.count)):
        remarks.append(f"{counted(tied, 'pair is a tie', 'pairs are ties')}, counted as wrong")
    if header.too_long:
        remarks.append(captions_cut(header.too_long))
    if header.unreadable:
        remarks.append(
            f"{counted(len(header.unreadable), 'image')} cannot be decoded and "
            f"{'is' if len(header.unreadable) == 1 else 'are'} left out (the first is "
            f"{header.unreadable[0]})"
        )
    return ["", *remarks] if remarks else []
