"""Results as tables for a terminal: of one model, of several models, and of a sweep.

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
    RETRIEVAL,
    described,
)
from hnc_ds.evaluation.blind import BLIND, SIGHTED
from hnc_ds.evaluation.corruptions import SEVERITIES, condition_of, is_of_conditions
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.released.summary import CHOSEN, MACRO, MATCHES, TAG
from hnc_ds.evaluation.results import (
    Coverage,
    ItemsHeader,
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

NAMES, WIDTH = 40, 26
"""Characters of the columns of names and of values."""

Rows = dict[RowKey, Result]
Verdicts = dict[RowKey, str]


def results_table(results: Sequence[Result], header: ItemsHeader) -> str:
    """Tables of one model's scores, and remarks on the data."""
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


def models_table(files: Mapping[str, Path], seed: int) -> str:
    """Scores of several models, one column each; differences to the first model are marked.

    Args:
        files: Results files by model name; at least one.
        seed: Seed of intervals and tests.

    Raises:
        UserError: As ``read_measurement``.
    """
    first = read_measurement(next(iter(files.values())))
    columns = [_column(first, read_measurement(file), seed) for file in list(files.values())[1:]]
    columns.insert(0, (_shown(first), {}))
    keys = dict.fromkeys(key for rows, _ in columns for key in rows)
    names = [f"{f'({number})':>6} {name}" for number, name in enumerate(files, start=1)]
    heads = "".join(f"({number})  ".rjust(WIDTH) for number in range(1, len(files) + 1))
    lines = [*names, "", f"{'':{NAMES}}{heads}"]
    for benchmark in dict.fromkeys(benchmark for benchmark, _, _ in keys):
        lines.append(described(benchmark).title)
        lines += [_line(key, columns) for key in keys if key[0] == benchmark]
    return "\n".join(map(str.rstrip, [*lines, "", legend("a model", "(1)")]))


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


def _pair_lines(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    plain = [r for r in results if not is_of_conditions(r.group)]
    row = {(r.group, r.metric): r for r in plain if about_of(r.group) is None}
    lines = [
        "",
        f"{'hard negatives':<24}{'accuracy':>10}{'95 % interval':>18}{'blind':>8}{'sighted':>9}"
        f"{'margin':>9}{'pairs':>11}",
    ]
    for group in dict.fromkeys(group for group, _ in row):
        accuracy, margin = row[group, "pair_accuracy"], row[group, "margin"]
        blind, seen = (_percent(row.get((group, metric))) for metric in (BLIND, SIGHTED))
        lines.append(
            f"{_percents(group, accuracy)}{blind:>8}{seen:>9}{margin.value:>9.3f}"
            f"{accuracy.count:>11,}"
        )
    places = {MATCHES: "P(match) = 1/2", CHOSEN: "the threshold of the validation data"}
    single = [
        f"{row['all', metric].value:.1%} right at {place}"
        for metric, place in places.items()
        if ("all", metric) in row
    ]
    if single:
        auroc = row["all", "auroc"].value
        lines += ["", f"captions one by one: {', '.join(single)}, AUROC {auroc:.3f}"]
    return [*lines, *_about_lines(plain), *_corruption_lines(results)]


def _about_lines(results: Sequence[Result]) -> list[str]:
    """Accuracy of the most frequent predicates and attribute classes."""
    rows = {key_of(r): r for r in results if about_of(r.group) is not None}
    lines: list[str] = []
    for kind, keys in most_frequent(list(rows)).items():
        head = BY_KIND[kind]
        lines += ["", f"{head:<24}{'accuracy':>10}{'95 % interval':>18}{'pairs':>20}"]
        for key in keys:
            name = f"{about_of(key[2])}"
            lines.append(f"{_percents(name, rows[key])}{rows[key].count:>20,}")
        if hidden := len(of_kind(kind, rows)) - len(keys):
            others = counted(hidden, "further one is", "further ones are")
            lines.append(f"{others} in the results file")
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
        *_corruption_lines(results),
    ]


def _corruption_lines(results: Sequence[Result]) -> list[str]:
    """One benchmark on corrupted images: its first metric by corruption and severity, and the means
    of all metrics."""
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
    """Scores of a released benchmark, and remarks on its data."""
    known, own = RELEASED[name], [row for row in results if row.benchmark == name]
    lines = ["", f"{known.title:<36}{'score':>10}{'95 % interval':>18}{'items':>9}"]
    shown = [row for row in shown_rows(own) if not is_of_conditions(row.group)]
    lines += [f"{_percents(title_of(r.metric, r.group), r, 36)}{r.count:>9,}" for r in shown]
    if hidden := sum(map(_is_group, own)) - sum(map(_is_group, shown)):
        lines.append(
            f"{counted(hidden, 'row of a single group is', 'rows of single groups are')} in the "
            "results file"
        )
    lines += _corruption_lines(own)
    ties = sum(round(row.value * row.count) for row in own if row.metric == "ties")
    return [*lines, *set_remarks(name, coverage, ties)]


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
        remarks.append(_cut(coverage.too_long))
    return remarks


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
            f"{counted(len(header.unreadable), 'image')} cannot be decoded and "
            f"{'is' if len(header.unreadable) == 1 else 'are'} left out (the first is "
            f"{header.unreadable[0]})"
        )
    return ["", *remarks] if remarks else []


def _shown(measurement: Measurement) -> Rows:
    return {key_of(row): row for row in shown_rows(list(measurement.rows.values()))}


def _column(first: Measurement, other: Measurement, seed: int) -> tuple[Rows, Verdicts]:
    """Shown rows of a model, and their verdicts, corrected table by table."""
    rows, shared = _shown(other), shared_items(first, other)
    verdicts: Verdicts = {}
    for table in dict.fromkeys(map(judged_with, rows)):
        keys = [key for key in rows if judged_with(key) == table]
        judged = judge([change_of(shared, key, seed) for key in keys])
        verdicts |= {key: j.verdict for key, j in zip(keys, judged, strict=True) if j}
    return rows, verdicts


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


def _line(key: RowKey, columns: Sequence[tuple[Rows, Verdicts]]) -> str:
    parts = [
        f"{_value(rows[key])} {SIGN[verdicts.get(key, UNCLEAR)]}" if key in rows else "-  "
        for rows, verdicts in columns
    ]
    return f"  {title_of(*key[1:]):<{NAMES - 2}}" + "".join(part.rjust(WIDTH) for part in parts)


def _cell(result: Result, judgement: Judgement | None) -> str:
    return f"{_value(result)} {SIGN[judgement.verdict if judgement else UNCLEAR]}"


def _value(result: Result) -> str:
    return f"{100 * result.value:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})"
