"""Which items two runs both scored, and the difference between the runs on those.

A pair is the same pair where image, negative type and both captions are the same, a question the
same where its id and captions are. Retrieval is only compared over one and the same gallery.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hnc_ds.captions.about import about_of
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL
from hnc_ds.evaluation.items import AnsweredItem, PairItem, RankItem, VqaItem
from hnc_ds.evaluation.measurement import Measurement
from hnc_ds.evaluation.significance import Change
from hnc_ds.evaluation.statistics import paired_difference, permutation_test
from hnc_ds.evaluation.summary import TAG
from hnc_ds.evaluation.table import RowKey

PAIR_VALUES: dict[str, Callable[[PairItem], float]] = {
    "pair_accuracy": lambda pair: pair.margin > 0,
    "margin": lambda pair: pair.margin,
    "ties": lambda pair: pair.margin == 0,
}
LOWER_IS_BETTER = frozenset({"ties"})
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
    in_words: list[tuple[VqaItem, VqaItem]] = field(default_factory=list)


class PairedValues(NamedTuple):
    """What a row is the mean of, item by item, of both runs; N items."""

    first_N: np.ndarray
    second_N: np.ndarray
    cluster_N: np.ndarray
    """Labels of pictures: items of one are drawn together."""


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
        _same_in_words(first, second),
    )


def _same_questions(
    first: Measurement, second: Measurement
) -> list[tuple[AnsweredItem, AnsweredItem]]:
    of_second = {(item.benchmark, item.id): item for item in second.answers}
    both = [(item, of_second.get((item.benchmark, item.id))) for item in first.answers]
    return [(one, other) for one, other in both if other and one.captions == other.captions]


def _same_in_words(first: Measurement, second: Measurement) -> list[tuple[VqaItem, VqaItem]]:
    of_second = {(item.benchmark, item.question_id): item for item in second.in_words}
    both = [(item, of_second.get((item.benchmark, item.question_id))) for item in first.in_words]
    return [(one, other) for one, other in both if other and one.people == other.people]


def change_of(shared: SharedItems, row: RowKey, seed: int = 0) -> Change | None:
    """Second run minus first in one row of the results; None where no item tells."""
    values = paired_values(shared, row)
    if values is None:
        return None
    difference, p = paired_difference(*values, seed=seed), permutation_test(*values, seed=seed)
    return Change(difference, p, row[1] in LOWER_IS_BETTER)


def paired_values(shared: SharedItems, row: RowKey) -> PairedValues | None:
    """The items of both runs that a row of the results counts alike; None where there are none."""
    benchmark, metric, group = row
    rows: list[tuple[float, float, str | int]] = []
    if benchmark == HARD_NEGATIVES and metric in PAIR_VALUES:
        rows = _pair_values(shared, PAIR_VALUES[metric], group)
    elif benchmark == RETRIEVAL and group == "all":
        rows = _recall_values(shared, metric)
    elif benchmark not in (HARD_NEGATIVES, RETRIEVAL):
        rows = [
            (one.right[metric], other.right[metric], one.images[0])
            for one, other in _answers(shared, row)
        ]
        rows += [
            (one.scores[metric], other.scores[metric], one.image)
            for one, other in shared.in_words
            if one.benchmark == benchmark
            and metric in one.scores
            and metric in other.scores
            and group in ("all", *one.groups)
        ]
    return PairedValues(*map(np.array, zip(*rows, strict=True))) if rows else None


def _answers(shared: SharedItems, row: RowKey) -> list[tuple[AnsweredItem, AnsweredItem]]:
    """The questions that a row counts alike; none for means of groups."""
    benchmark, metric, group = row
    return [
        (one, other)
        for one, other in shared.answers
        if one.benchmark == benchmark
        and metric in one.right
        and (group in ("all", one.group) or group.removeprefix(TAG) in one.tags)
    ]


def remarks_on_sharing(first: Measurement, second: Measurement, shared: SharedItems) -> list[str]:
    """What a reader must know before believing the differences."""
    if first.header is None or second.header is None or not (_items(first) and _items(second)):
        return ["without the scores of single items (*.items.jsonl) there are no differences"]
    remarks = []
    if first.header.shards and first.header.fingerprint != second.header.fingerprint:
        remarks.append("measured on other shards than the first run")
    if first.header.ocr != second.header.ocr:
        remarks.append(
            f"asked with other OCR tokens than the first run ({second.header.ocr}, not "
            f"{first.header.ocr})"
        )
    most = max(len(first.pairs), len(second.pairs))
    if len(shared.first_pairs) < most:
        remarks.append(
            f"{len(shared.first_pairs):,} of {most:,} pairs are shared with the first run; "
            "differences are over those"
        )
    questions = max(len(first.answers), len(second.answers))
    questions += max(len(first.in_words), len(second.in_words))
    answered = len(shared.answers) + len(shared.in_words)
    if answered < questions:
        remarks.append(
            f"{answered:,} of {questions:,} questions are shared with the first run; "
            "differences are over those"
        )
    if not shared.first_ranks and (first.ranks or second.ranks):
        remarks.append("retrieval has another gallery than the first run's: no differences")
    return remarks


def _items(measurement: Measurement) -> int:
    m = measurement
    return len(m.pairs) + len(m.ranks) + len(m.answers) + len(m.in_words)


def _pair_values(
    shared: SharedItems, value: Callable[[PairItem], float], group: str
) -> list[tuple[float, float, str | int]]:
    about = about_of(group)
    return [
        (value(first), value(second), first.key)
        for first, second in zip(shared.first_pairs, shared.second_pairs, strict=True)
        if group in ("all", first.type) or (about is not None and about == first.about)
    ]


def _recall_values(shared: SharedItems, metric: str) -> list[tuple[float, float, str | int]]:
    """Of retrieval over one gallery: hits, each image by itself."""
    direction, _, cutoff = metric.partition("_R@")
    if direction not in RANKS or not cutoff.isdecimal():
        return []
    rank, most = RANKS[direction], int(cutoff)
    both = zip(shared.first_ranks, shared.second_ranks, strict=True)
    return [(rank(one) < most, rank(two) < most, place) for place, (one, two) in enumerate(both)]
