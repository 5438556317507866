"""Results of one model as lines for a terminal.

Percent lives here and in report/.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from hnc_ds.captions.about import ATTRIBUTE, KINDS, PREDICATE, about_of, kind_of
from hnc_ds.errors import counted
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, HEADLINE_SCORER, RETRIEVAL
from hnc_ds.evaluation.corruptions import SEVERITIES
from hnc_ds.evaluation.items import Coverage, ItemsHeader
from hnc_ds.evaluation.question_sets import QUESTION_SETS
from hnc_ds.evaluation.robustness import condition_of, is_of_conditions
from hnc_ds.evaluation.summary import MACRO, TAG
from hnc_ds.records import Result

NOT_SHOWN = ("ties", "margin")
"""No shares; ties are told below a table."""

BY_KIND = {PREDICATE: "by predicate", ATTRIBUTE: "by class of attributes"}
"""What tables of the most frequent ones are called."""

RowKey = tuple[str, str, str]
"""Benchmark, metric and group of a row."""

MOST_GROUPS = 24
"""Of a metric, that are shown one by one."""

LEAST_PAIRS = 50
"""That turn on a predicate or a class of attributes of which a score is told: with fewer its 95 %
interval would be wider than 28 points."""

MOST_SHOWN = 12
"""Predicates, and classes of attributes, that are shown: the most frequent ones."""


def results_table(results: Sequence[Result], header: ItemsHeader) -> str:
    """A table of pair accuracy per negative type and of recall, and what was left out."""
    of_shards = (
        f": {counted(header.images, 'image')}, {counted(header.captions, 'caption')}"
        if header.shards
        else ""
    )
    lines = [
        f"{header.model}{of_shards}",
        *_pair_lines([result for result in results if result.benchmark == HARD_NEGATIVES]),
        *_recall_lines([result for result in results if result.benchmark == RETRIEVAL]),
        *_remarks(results, header),
        *(line for name in header.sets for line in _set_lines(name, results, header.sets[name])),
    ]
    return "\n".join(lines)


def key_of(result: Result) -> RowKey:
    """What tells rows of one model apart."""
    return result.benchmark, result.metric, result.group


def title_of(metric: str, group: str) -> str:
    """What a row is called beside others of its benchmark."""
    if about_of(group) is not None:  # there is but one metric of these
        return group
    return metric if group == "all" else f"{metric}, {group}"


def shown_rows(results: Sequence[Result]) -> list[Result]:
    """Those that a person reads: shares, without single conditions of worse pictures, and of the
    groups of each metric those of ``few_groups`` and of ``most_frequent``."""
    rows = [
        row
        for row in results
        if row.metric not in NOT_SHOWN
        and condition_of(row.group) is None
        and (row.group == "all" or HEADLINE_SCORER.get(row.benchmark, row.metric) == row.metric)
    ]
    groups: dict[tuple[str, str], list[RowKey]] = defaultdict(list)
    for row in rows:
        if _is_group(row) and about_of(row.group) is None:
            groups[row.benchmark, row.metric].append(key_of(row))
    few = {key for own in groups.values() for key in few_groups(own)}
    few |= {key for own in most_frequent(list(map(key_of, rows))).values() for key in own}
    return [row for row in rows if not _is_group(row) or key_of(row) in few]


def few_groups(keys: Sequence[RowKey]) -> list[RowKey]:
    """The groups of a metric that are shown one by one: all, or else only those that are no tags,
    or else only tags; none where there are more than MOST_GROUPS of each."""
    tags = [key for key in keys if key[2].startswith(TAG)]
    plain = [key for key in keys if not key[2].startswith(TAG)]
    return next((few for few in (list(keys), plain, tags) if 0 < len(few) <= MOST_GROUPS), [])


def most_frequent(keys: Sequence[RowKey]) -> dict[str, list[RowKey]]:
    """Rows of predicates, and of classes of attributes, by that: of each the first ones, as results
    have them by their number of pairs."""
    found = {kind: of_kind(kind, keys)[:MOST_SHOWN] for kind in KINDS}
    return {kind: shown for kind, shown in found.items() if shown}


def of_kind(kind: str, keys: Iterable[RowKey]) -> list[RowKey]:
    """Rows of predicates, or of classes of attributes."""
    return [
        key
        for key in keys
        if key[0] == HARD_NEGATIVES and (about := about_of(key[2])) and kind_of(about) == kind
    ]


def judged_with(key: RowKey) -> tuple[str, bool]:
    """Rows alike in this are one table to significance.py: those of a benchmark, and apart from
    them those of predicates and classes of attributes, which are other groups of the same pairs."""
    return key[0], key[0] == HARD_NEGATIVES and about_of(key[2]) is not None


def is_group(benchmark: str, metric: str, group: str) -> bool:
    """Whether a row is of one group, and not a mean over all or several."""
    known = QUESTION_SETS.get(benchmark)
    means = ("all", MACRO, *(known.averages.of_groups if known else ()))
    return group not in means and not is_of_conditions(group)


def _is_group(row: Result) -> bool:
    return is_group(*key_of(row))


def _pair_lines(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    plain = [r for r in results if not is_of_conditions(r.group)]
    row = {(r.group, r.metric): r for r in plain if about_of(r.group) is None}
    lines = [
        "",
        f"{'hard negatives':<24}{'accuracy':>10}{'95 % interval':>18}{'margin':>9}{'pairs':>11}",
    ]
    for group in dict.fromkeys(group for group, _ in row):
        accuracy, margin = row[group, "pair_accuracy"], row[group, "margin"]
        lines.append(f"{_percents(group, accuracy)}{margin.value:>9.3f}{accuracy.count:>11,}")
    return [*lines, *_about_lines(plain), *_worse_lines(results)]


def _about_lines(results: Sequence[Result]) -> list[str]:
    """Accuracy by predicate and by class of attributes, the most frequent ones."""
    found = {key_of(r): r for r in results if about_of(r.group) is not None}
    lines: list[str] = []
    for kind, keys in most_frequent(list(found)).items():
        head = BY_KIND[kind]
        lines += ["", f"{head:<24}{'accuracy':>10}{'95 % interval':>18}{'pairs':>20}"]
        for key in keys:
            name = f"{about_of(key[2])}"
            lines.append(f"{_percents(name, found[key])}{found[key].count:>20,}")
        if hidden := len(of_kind(kind, found)) - len(keys):
            told = counted(hidden, "further one is", "further ones are")
            lines.append(f"{told} in the results file")
    return lines


def _recall_lines(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    return [
        "",
        f"{'retrieval':<24}{'recall':>10}{'95 % interval':>18}{'queries':>20}",
        *(
            f"{_percents(r.metric.replace('_', ' '), r)}{r.count:>20,}"
            for r in results
            if not is_of_conditions(r.group)
        ),
        *_worse_lines(results),
    ]


def _worse_lines(results: Sequence[Result]) -> list[str]:
    """Of one benchmark on worse pictures: its first metric by corruption and severity, and what all
    metrics are over all conditions."""
    of = {(r.metric, condition): r for r in results if (condition := condition_of(r.group))}
    if not of:
        return []
    first, _ = next(iter(of))
    names = dict.fromkeys(name for metric, (name, _) in of if metric == first)
    lines = ["", f"{f'{first}, severity':<36}" + "".join(f"{s:>8}" for s in SEVERITIES)]
    for name in names:
        cells = [of.get((first, (name, severity))) for severity in SEVERITIES]
        lines.append(f"{name:<36}" + "".join(f"{_percent(cell):>8}" for cell in cells))
    means = [r for r in results if is_of_conditions(r.group) and condition_of(r.group) is None]
    return [*lines, *(f"{_percents(title_of(r.metric, r.group), r, 36)}" for r in means)]


def _percent(result: Result | None) -> str:
    return "-" if result is None else f"{100 * result.value:.1f}"


def _set_lines(name: str, results: Sequence[Result], coverage: Coverage) -> list[str]:
    """A released benchmark: every score, and of what it is."""
    known, own = QUESTION_SETS[name], [row for row in results if row.benchmark == name]
    lines = ["", f"{known.title:<36}{'score':>10}{'95 % interval':>18}{'items':>9}"]
    shown = [row for row in shown_rows(own) if not is_of_conditions(row.group)]
    lines += [f"{_percents(title_of(r.metric, r.group), r, 36)}{r.count:>9,}" for r in shown]
    if hidden := sum(map(_is_group, own)) - sum(map(_is_group, shown)):
        lines.append(
            f"{counted(hidden, 'row of a single group is', 'rows of single groups are')} in the "
            "results file"
        )
    lines += _worse_lines(own)
    ties = sum(round(row.value * row.count) for row in own if row.metric == "ties")
    return [*lines, *set_remarks(name, coverage, ties)]


def set_remarks(name: str, coverage: Coverage, ties: int) -> list[str]:
    """What a reader of a released benchmark's scores has to know."""
    found, lost = [], sum(coverage.lost.values())
    there = coverage.questions + lost
    if lost:
        found.append(
            f"{lost:,} of {there:,} questions are left out ({lost / there:.1%}): "
            f"{counted(len(coverage.missing), 'picture is', 'pictures are')} missing, "
            f"{len(coverage.unreadable):,} cannot "
            "be decoded"
        )
    released = sum(QUESTION_SETS[name].released.values())
    if released and there != released:
        found.append(f"the release has {counted(released, 'question')}, these files {there:,}")
    if coverage.identical:
        found.append(
            f"{counted(coverage.identical, 'question has', 'questions have')} one text as true "
            "and false caption, which "
            "nobody can answer"
        )
    if ties:
        found.append(f"{counted(ties, 'question is', 'questions are')} decided by a tie")
    if coverage.too_long:
        found.append(_cut(coverage.too_long))
    return found


def _cut(captions: int) -> str:
    was = counted(
        captions,
        "caption is longer than the context and was",
        "captions are longer than the context and were",
    )
    return f"{was} cut"


def _percents(name: str, result: Result, width: int = 24) -> str:
    interval = f"{100 * result.low:.1f} to {100 * result.high:.1f}"
    return f"{name:<{width}}{f'{100 * result.value:.1f} %':>10}{interval:>18}"


def _remarks(results: Sequence[Result], header: ItemsHeader) -> list[str]:
    remarks = []
    ties = {key_of(result): result for result in results}.get((HARD_NEGATIVES, "ties", "all"))
    if ties and (tied := round(ties.value * ties.count)):
        remarks.append(f"{counted(tied, 'pair is a tie', 'pairs are ties')}, counted as wrong")
    if header.too_long:
        remarks.append(_cut(header.too_long))
    if header.unreadable:
        remarks.append(
            f"{counted(len(header.unreadable), 'image is', 'images are')} left out, as what cannot "
            f"be decoded "
            f"(the first is {header.unreadable[0]})"
        )
    return ["", *remarks] if remarks else []
