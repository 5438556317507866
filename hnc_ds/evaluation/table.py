"""Results as lines for a terminal: of one evaluation, and of a sweep.

Percent lives here and in report/.
"""

from collections.abc import Mapping, Sequence

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, HEADLINES, RETRIEVAL
from hnc_ds.evaluation.items import Coverage, ItemsHeader
from hnc_ds.evaluation.question_sets import QUESTION_SETS
from hnc_ds.records import Result

NOT_SHOWN = ("ties", "margin")
"""No shares; ties are told below a table."""


def results_table(results: Sequence[Result], header: ItemsHeader) -> str:
    """A table of pair accuracy per negative type and of recall, and what was left out."""
    of_shards = f": {header.images:,} images, {header.captions:,} captions" if header.shards else ""
    lines = [
        f"{header.model}{of_shards}",
        *_pair_lines([result for result in results if result.benchmark == HARD_NEGATIVES]),
        *_recall_lines([result for result in results if result.benchmark == RETRIEVAL]),
        *_remarks(results, header),
        *(line for name in header.sets for line in _set_lines(name, results, header.sets[name])),
    ]
    return "\n".join(lines)


def sweep_table(points: Mapping[str, Sequence[Result]]) -> str:
    """The headlines of each point of a sweep, a line each.

    Args:
        points: Results by the share of the final weights.
    """
    rows = {share: {key_of(result): result for result in r} for share, r in points.items()}
    measured = next(iter(rows.values()))
    columns = [(title, key) for title, key in HEADLINES if key in measured]
    lines = ["share of FINAL".ljust(16) + "".join(title.rjust(24) for title, _ in columns)]
    for share, row in rows.items():
        lines.append(share.ljust(16) + "".join(_cell(row[key]).rjust(24) for _, key in columns))
    return "\n".join(lines)


def key_of(result: Result) -> tuple[str, str, str]:
    """Benchmark, metric and group of a row."""
    return result.benchmark, result.metric, result.group


def _cell(result: Result) -> str:
    return f"{100 * result.value:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})"


def _pair_lines(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    row = {(result.group, result.metric): result for result in results}
    lines = [
        "",
        f"{'hard negatives':<24}{'accuracy':>10}{'95 % interval':>18}{'margin':>9}{'pairs':>11}",
    ]
    for group in dict.fromkeys(result.group for result in results):
        accuracy, margin = row[group, "pair_accuracy"], row[group, "margin"]
        lines.append(f"{_percents(group, accuracy)}{margin.value:>9.3f}{accuracy.count:>11,}")
    return lines


def _recall_lines(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    return [
        "",
        f"{'retrieval':<24}{'recall':>10}{'95 % interval':>18}{'queries':>20}",
        *(f"{_percents(r.metric.replace('_', ' '), r)}{r.count:>20,}" for r in results),
    ]


def _set_lines(name: str, results: Sequence[Result], coverage: Coverage) -> list[str]:
    """A released benchmark: every score, and of what it is."""
    known, own = QUESTION_SETS[name], [row for row in results if row.benchmark == name]
    lines = ["", f"{known.title:<36}{'score':>8}{'95 % interval':>18}{'items':>9}"]
    for row in own:
        words = row.metric if row.group == "all" else f"{row.metric}, {row.group}"
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        if row.metric not in NOT_SHOWN:
            lines.append(f"{words:<36}{f'{100 * row.value:.1f} %':>8}{interval:>18}{row.count:>9,}")
    ties = sum(round(row.value * row.count) for row in own if row.metric == "ties")
    return [*lines, *set_remarks(name, coverage, ties)]


def set_remarks(name: str, coverage: Coverage, ties: int) -> list[str]:
    """What a reader of a released benchmark's scores has to know."""
    found, lost = [], sum(coverage.lost.values())
    there = coverage.questions + lost
    if lost:
        found.append(
            f"{lost:,} of {there:,} questions are left out ({lost / there:.1%}): "
            f"{len(coverage.missing):,} pictures are missing, {len(coverage.unreadable):,} cannot "
            "be decoded"
        )
    released = sum(QUESTION_SETS[name].released.values())
    if released and there != released:
        found.append(f"the release has {released:,} questions, these files {there:,}")
    if coverage.identical:
        found.append(
            f"{coverage.identical:,} questions have one text as true and false caption, which "
            "nobody can answer"
        )
    if ties:
        found.append(f"{ties:,} questions are decided by a tie")
    if coverage.too_long:
        found.append(f"{coverage.too_long:,} captions are longer than the context and were cut")
    return found


def _percents(name: str, result: Result) -> str:
    interval = f"{100 * result.low:.1f} to {100 * result.high:.1f}"
    return f"{name:<24}{f'{100 * result.value:.1f} %':>10}{interval:>18}"


def _remarks(results: Sequence[Result], header: ItemsHeader) -> list[str]:
    remarks = []
    ties = {key_of(result): result for result in results}.get((HARD_NEGATIVES, "ties", "all"))
    if ties and (tied := round(ties.value * ties.count)):
        remarks.append(f"{tied:,} pairs are ties, counted as wrong")
    if header.too_long:
        remarks.append(f"{header.too_long:,} captions are longer than the context and were cut")
    if header.unreadable:
        remarks.append(
            f"{len(header.unreadable):,} images could not be decoded and are left out "
            f"(the first is {header.unreadable[0]})"
        )
    return ["", *remarks] if remarks else []
