"""The results of one evaluation as lines for a terminal. Percent lives here and in report/."""

from collections.abc import Sequence

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL
from hnc_ds.evaluation.items import ItemsHeader
from hnc_ds.records import Result


def results_table(results: Sequence[Result], header: ItemsHeader) -> str:
    """A table of pair accuracy per negative type and of recall, and what was left out."""
    row = {(r.benchmark, r.group, r.metric): r for r in results}
    groups = [g for b, g, m in row if b == HARD_NEGATIVES and m == "pair_accuracy"]
    lines = [
        f"{header.model}: {header.images:,} images, {header.captions:,} captions",
        "",
        f"{'hard negatives':<24}{'accuracy':>10}{'95 % interval':>18}{'margin':>9}{'pairs':>11}",
    ]
    for group in groups:
        accuracy = row[HARD_NEGATIVES, group, "pair_accuracy"]
        margin = row[HARD_NEGATIVES, group, "margin"]
        lines.append(f"{_percents(group, accuracy)}{margin.value:>9.3f}{accuracy.count:>11,}")
    lines += ["", f"{'retrieval':<24}{'recall':>10}{'95 % interval':>18}{'queries':>20}"]
    lines += [
        f"{_percents(result.metric.replace('_', ' '), result)}{result.count:>20,}"
        for result in results
        if result.benchmark == RETRIEVAL
    ]
    return "\n".join([*lines, *_remarks(row[HARD_NEGATIVES, "all", "ties"], header)])


def _percents(name: str, result: Result) -> str:
    interval = f"{100 * result.low:.1f} to {100 * result.high:.1f}"
    return f"{name:<24}{f'{100 * result.value:.1f} %':>10}{interval:>18}"


def _remarks(ties: Result, header: ItemsHeader) -> list[str]:
    remarks = []
    if tied := round(ties.value * ties.count):
        remarks.append(f"{tied:,} pairs are ties, counted as wrong")
    if header.too_long:
        remarks.append(f"{header.too_long:,} captions are longer than the context and were cut")
    if header.unreadable:
        remarks.append(
            f"{len(header.unreadable):,} images could not be decoded and are left out "
            f"(the first is {header.unreadable[0]})"
        )
    return ["", *remarks] if remarks else []
