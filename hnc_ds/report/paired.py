"""Which items two runs both scored, and the difference between the runs on those.

A pair is the same pair where image, negative type and both captions are the same, a question the
same where its id and captions are. Retrieval is only compared over one and the same gallery.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL
from hnc_ds.evaluation.items import AnsweredItem, PairItem, RankItem
from hnc_ds.evaluation.statistics import Interval, mcnemar, paired_difference
from hnc_ds.report.runs import Measurement, RowKey

PAIR_VALUES: dict[str, Callable[[PairItem], float]] = {
    "pair_accuracy": lambda pair: pair.margin > 0,
    "margin": lambda pair: pair.margin,
    "ties": lambda pair: pair.margin == 0,
}
RANKS: dict[str, Callable[[RankItem], int]] = {
    "image_to_text": lambda item: item.image_to_text,
    "text_to_image": lambda item: item.text_to_image,
}


@dataclass(frozen=True, slots=True)
class SharedItems:
    """The items of two runs that belong together, in the same order."""

    first_pairs: list[PairItem]
    second_pairs: list[PairItem]
    first_ranks: list[RankItem]
    second_ranks: list[RankItem]
    answers: list[tuple[AnsweredItem, AnsweredItem]] = field(default_factory=list)
    """Of the first run and of the second."""


def identity(pair: PairItem) -> tuple[str, str, str, str]:
    """What makes a pair of two runs the same pair."""
    return pair.key, pair.type, pair.positive, pair.negative


def shared_items(first: Measurement, second: Measurement) -> SharedItems:
    """Match two runs' items; empty lists where nothing matches."""
    of_first = {identity(pair): pair for pair in first.pairs}
    of_second = {identity(pair): pair for pair in second.pairs}
    both = [key for key in of_first if key in of_second]
    gallery = [(item.key, item.caption) for item in first.ranks]
    same_gallery = gallery == [(item.key, item.caption) for item in second.ranks]
    return SharedItems(
        [of_first[key] for key in both],
        [of_second[key] for key in both],
        first.ranks if same_gallery else [],
        second.ranks if same_gallery else [],
        _same_questions(first, second),
    )


def _same_questions(
    first: Measurement, second: Measurement
) -> list[tuple[AnsweredItem, AnsweredItem]]:
    of_second = {(item.benchmark, item.id): item for item in second.answers}
    both = [(item, of_second.get((item.benchmark, item.id))) for item in first.answers]
    return [(one, other) for one, other in both if other and one.captions == other.captions]


def difference(shared: SharedItems, row: RowKey) -> Interval | None:
    """Second run minus first in one row of the results; None where no item tells."""
    benchmark, metric, group = row
    if benchmark == HARD_NEGATIVES and metric in PAIR_VALUES:
        return _pair_difference(shared, PAIR_VALUES[metric], group)
    if benchmark not in (HARD_NEGATIVES, RETRIEVAL):
        rows = _answers(shared, row)
        images = [one.images[0] for one, _ in rows]
        return paired_difference(*_right(rows, metric), images) if rows else None
    direction, _, cutoff = metric.partition("_R@")
    if benchmark == RETRIEVAL and group == "all" and direction in RANKS and cutoff.isdecimal():
        return _recall_difference(shared, RANKS[direction], int(cutoff))
    return None


def chance_of(shared: SharedItems, row: RowKey) -> float | None:
    """McNemar's p of a row's difference; None where no question tells."""
    rows = _answers(shared, row)
    return mcnemar(*_right(rows, row[1])) if rows else None


def _answers(shared: SharedItems, row: RowKey) -> list[tuple[AnsweredItem, AnsweredItem]]:
    """The questions that a row counts alike; none for means of groups."""
    benchmark, metric, group = row
    return [
        (one, other)
        for one, other in shared.answers
        if one.benchmark == benchmark and metric in one.right and group in ("all", one.group)
    ]


def _right(
    rows: list[tuple[AnsweredItem, AnsweredItem]], metric: str
) -> tuple[list[bool], list[bool]]:
    return [one.right[metric] for one, _ in rows], [other.right[metric] for _, other in rows]


def remarks_on_sharing(first: Measurement, second: Measurement, shared: SharedItems) -> list[str]:
    """What a reader must know before believing the differences."""
    if first.header is None or second.header is None:
        return ["without the scores of single items (*.items.jsonl) there are no differences"]
    remarks = []
    if first.header.shards and first.header.fingerprint != second.header.fingerprint:
        remarks.append("measured on other shards than the first run")
    most = max(len(first.pairs), len(second.pairs))
    if len(shared.first_pairs) < most:
        remarks.append(
            f"{len(shared.first_pairs):,} of {most:,} pairs are shared with the first run; "
            "differences are over those"
        )
    questions = max(len(first.answers), len(second.answers))
    if len(shared.answers) < questions:
        remarks.append(
            f"{len(shared.answers):,} of {questions:,} questions are shared with the first run; "
            "differences are over those"
        )
    if not shared.first_ranks and (first.ranks or second.ranks):
        remarks.append("retrieval has another gallery than the first run's: no differences")
    return remarks


def _pair_difference(
    shared: SharedItems, value: Callable[[PairItem], float], group: str
) -> Interval | None:
    rows = [
        (value(first), value(second), first.key)
        for first, second in zip(shared.first_pairs, shared.second_pairs, strict=True)
        if group in ("all", first.type)
    ]
    if not rows:
        return None
    first_N, second_N, image_N = zip(*rows, strict=True)
    return paired_difference(first_N, second_N, image_N)


def _recall_difference(
    shared: SharedItems, rank: Callable[[RankItem], int], cutoff: int
) -> Interval | None:
    if not shared.first_ranks:
        return None
    return paired_difference(
        [rank(item) < cutoff for item in shared.first_ranks],
        [rank(item) < cutoff for item in shared.second_ranks],
        np.arange(len(shared.first_ranks)),
    )
