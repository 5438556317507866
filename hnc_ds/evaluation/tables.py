"""Which results are shown to people, and the table of a sweep; printed.py prints evaluations.

Values are fractions elsewhere; percent is computed here and in report/. No torch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hnc_ds.captions.language.attribute_classes import (
    ATTRIBUTE,
    KINDS,
    PREDICATE,
    about_of,
    kind_of,
)
from hnc_ds.errors import counted
from hnc_ds.evaluation.benchmarks import (
    FREE_FORM,
    HARD_NEGATIVES,
    HELD_OUT,
    RELEASED,
    described,
)
from hnc_ds.evaluation.corruptions import condition_of, is_of_conditions
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.released.summary import MACRO, TAG
from hnc_ds.evaluation.results import (
    Coverage,
    Measurement,
    RowKey,
    key_of,
    read_measurement,
)
from hnc_ds.evaluation.statistics import (
    SIGN,
    UNCLEAR,
    Change,
    Judgement,
    judge,
    legend,
    probability,
)
from hnc_ds.records import Result

NOT_SHOWN = ("ties", "margin")
"""Metrics without rows in tables; ties are counted below them."""

BY_KIND = {PREDICATE: "by predicate", ATTRIBUTE: "by class of attributes"}
"""Titles of tables of the most frequent predicates and attribute classes."""

MOST_GROUPS = 24
"""Maximum number of groups of a metric with rows of their own."""

MOST_SHOWN = 12
"""Maximum number of predicates, and of attribute classes, in a table."""

WIDTH = 26
"""Characters of a column of values."""

Rows = dict[RowKey, Result]


def sweep_table(files: Mapping[str, Path], seed: int) -> str:
    """Headlines of the points of a sweep, one line each; differences to the first are marked.

    Args:
        files: Results files by coefficient, ascending.
        seed: Seed of intervals and tests.

    Raises:
        UserError: As ``read_measurement``.
    """
    first = read_measurement(next(iter(files.values())))
    titles = headlines(list(first.rows.values()))
    keys = [key for _, key in titles]
    points = _points(first, files, keys, seed)
    judged = [judge(column) for column in zip(*(changes for _, changes in points), strict=True)]
    lines = ["coefficient".ljust(16) + "".join(f"{t}  ".rjust(WIDTH) for t, _ in titles)]
    for place, (coefficient, (rows, _)) in enumerate(zip(files, points, strict=True)):
        cells = [_cell(rows[key], of_key[place]) for key, of_key in zip(keys, judged, strict=True)]
        lines.append(coefficient.ljust(16) + "".join(cell.rjust(WIDTH) for cell in cells))
    return "\n".join(map(str.rstrip, [*lines, "", legend("a point", next(iter(files)))]))


def difference_to_first(files: Mapping[str, Path], coefficient: str, key: RowKey, seed: int) -> str:
    """Significance of the difference between a point of a sweep and the first one, as a clause;
    empty if they share no items. Arguments and errors as of `sweep_table`."""
    start = next(iter(files))
    points = _points(read_measurement(files[start]), files, [key], seed)
    judgement = judge([changes[0] for _, changes in points])[list(files).index(coefficient)]
    if coefficient == start or judgement is None:
        return ""
    what = "may be chance" if judgement.verdict == UNCLEAR else "is more than chance"
    return f"; the difference to {start} {what} ({probability(judgement.p)})"


def headlines(results: Sequence[Result]) -> list[tuple[str, RowKey]]:
    """Title and key of the main scores: those of HELD_OUT, and one of each other benchmark."""
    keys = list(map(key_of, results))
    held_out = [
        (title, (name, metric, "all"))
        for name, known in HELD_OUT.items()
        for metric, title in known.headlines.items()
    ]
    chosen = [(title, key) for title, key in held_out if key in keys]
    for benchmark in dict.fromkeys(name for name, _, _ in keys if name not in HELD_OUT):
        metrics = [metric for name, metric, group in keys if (name, group) == (benchmark, "all")]
        known = RELEASED.get(benchmark) or FREE_FORM.get(benchmark)
        if known and known.headline in metrics:
            metrics = [known.headline]
        title = described(benchmark).title
        for metric in metrics[:1]:
            shown = title if metric == "accuracy" else f"{title}, {metric}"
            chosen.append((shown, (benchmark, metric, "all")))
    return chosen


def title_of(metric: str, group: str) -> str:
    """Label of a row in the table of its benchmark."""
    if about_of(group) is not None:  # these have one metric only
        return group
    return metric if group == "all" else f"{metric}, {group}"


def shown_rows(results: Sequence[Result]) -> list[Result]:
    """Rows for people: fractions, without single corruptions, and of the groups of each metric
    those of ``few_groups`` and ``most_frequent``."""
    rows = [
        row
        for row in results
        if row.metric not in NOT_SHOWN
        and condition_of(row.group) is None
        and (row.group == "all" or _is_headline_scorer(row))
    ]
    groups: dict[tuple[str, str], list[RowKey]] = defaultdict(list)
    for row in rows:
        if _is_group(row) and about_of(row.group) is None:
            groups[row.benchmark, row.metric].append(key_of(row))
    few = {key for own in groups.values() for key in few_groups(own)}
    few |= {key for own in most_frequent(list(map(key_of, rows))).values() for key in own}
    return [row for row in rows if not _is_group(row) or key_of(row) in few]


def _is_headline_scorer(row: Result) -> bool:
    """False for the other scorers of a free-form benchmark."""
    return row.benchmark not in FREE_FORM or FREE_FORM[row.benchmark].headline == row.metric


def few_groups(keys: Sequence[RowKey]) -> list[RowKey]:
    """Groups of a metric with rows of their own: all, or those that are not tags, or the tags,
    whichever first has at most MOST_GROUPS; else none."""
    tags = [key for key in keys if key[2].startswith(TAG)]
    plain = [key for key in keys if not key[2].startswith(TAG)]
    return next((few for few in (list(keys), plain, tags) if 0 < len(few) <= MOST_GROUPS), [])


def most_frequent(keys: Sequence[RowKey]) -> dict[str, list[RowKey]]:
    """The first rows of predicates and of attribute classes; results list frequent ones first."""
    first = {kind: of_kind(kind, keys)[:MOST_SHOWN] for kind in KINDS}
    return {kind: shown for kind, shown in first.items() if shown}


def of_kind(kind: str, keys: Iterable[RowKey]) -> list[RowKey]:
    """Rows of predicates or of attribute classes."""
    return [
        key
        for key in keys
        if key[0] == HARD_NEGATIVES and (about := about_of(key[2])) and kind_of(about) == kind
    ]


def judged_with(key: RowKey) -> tuple[str, bool]:
    """Identifies the table in which p of a row is corrected: the benchmark, with predicates and
    attribute classes apart, as they regroup the same pairs."""
    return key[0], key[0] == HARD_NEGATIVES and about_of(key[2]) is not None


def is_group(benchmark: str, metric: str, group: str) -> bool:
    """Whether a row is of a single group, not a mean over all or several."""
    known = RELEASED.get(benchmark)
    means = ("all", MACRO, *(known.averages.of_groups if known else ()))
    return group not in means and not is_of_conditions(group)


def _is_group(row: Result) -> bool:
    return is_group(*key_of(row))


def set_remarks(name: str, coverage: Coverage, ties: int) -> list[str]:
    """Remarks on the data of a released benchmark's scores."""
    remarks, lost = [], sum(coverage.lost.values())
    total = coverage.questions + lost
    if lost:
        remarks.append(
            f"{lost:,} of {total:,} questions are left out ({lost / total:.1%}): "
            f"{counted(len(coverage.missing), 'image is', 'images are')} missing, "
            f"{len(coverage.unreadable):,} cannot "
            "be decoded"
        )
    released = sum(RELEASED[name].released.values())
    if released and total != released:
        remarks.append(f"the release has {counted(released, 'question')}, these files {total:,}")
    if coverage.identical:
        remarks.append(
            f"{counted(coverage.identical, 'question has', 'questions have')} the same text as "
            "true and false caption and cannot be answered"
        )
    if ties:
        remarks.append(f"{counted(ties, 'question is', 'questions are')} decided by a tie")
    if coverage.too_long:
        remarks.append(captions_cut(coverage.too_long))
    return remarks


def captions_cut(captions: int) -> str:
    """Remark on captions that are longer than the context."""
    was = counted(
        captions,
        "caption is longer than the context and was",
        "captions are longer than the context and were",
    )
    return f"{was} cut"


def _points(
    first: Measurement, files: Mapping[str, Path], keys: Sequence[RowKey], seed: int
) -> list[tuple[Rows, list[Change | None]]]:
    """Rows of each point and its changes from the first; holds the items of one point at a time."""
    points: list[tuple[Rows, list[Change | None]]] = [(first.rows, [None] * len(keys))]
    for file in list(files.values())[1:]:
        other = read_measurement(file)
        shared = shared_items(first, other)
        points.append((other.rows, [change_of(shared, key, seed) for key in keys]))
    return points


def _cell(result: Result, judgement: Judgement | None) -> str:
    return f"{with_interval(result)} {SIGN[judgement.verdict if judgement else UNCLEAR]}"


def with_interval(result: Result) -> str:
    """``85.0 (82.5 to 87.5)``, percent; a margin as it is."""
    if result.metric == "margin":
        return f"{result.value:.3f} ({result.low:.3f} to {result.high:.3f})"
    return f"{100 * result.value:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})"
