"""Items that two runs share, and the difference between the runs on them.

Pairs match by image, negative type and both captions, questions by id and captions. Retrieval is
compared over the same gallery only.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from msgspec import structs

from hnc_ds.captions.language.attribute_classes import about_of
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL
from hnc_ds.evaluation.blind import BLIND, SIGHTED
from hnc_ds.evaluation.released.summary import MATCHES, TAG
from hnc_ds.evaluation.results import (
    CLASS,
    AnsweredItem,
    Measurement,
    PairItem,
    RankItem,
    RowKey,
    VqaItem,
)
from hnc_ds.evaluation.statistics import Change, paired_difference, permutation_test

PAIR_VALUES: dict[str, Callable[[PairItem], float]] = {
    "pair_accuracy": lambda pair: pair.margin > 0,
    "margin": lambda pair: pair.margin,
    "ties": lambda pair: pair.margin == 0,
    MATCHES: lambda pair: ((pair.positive_score >= 0) + (pair.negative_score < 0)) / 2,
}
BLIND_VALUES: dict[str, Callable[[bool, float], float]] = {
    BLIND: lambda right, blind: blind,
    SIGHTED: lambda right, blind: right - blind + 0.5,
}
"""Of whether an item is right, and of its blind accuracy."""

ChangeOf = Callable[[RowKey], Change | None]
"""Difference to another model in a row of the results; None if there is none."""

CLASS_HITS = {"acc1": 1, "acc5": 5}
"""Zero-shot classification is right within so many classes."""

LOWER_IS_BETTER = frozenset({"ties", BLIND})
RANKS: dict[str, Callable[[RankItem], int]] = {
    "image_to_text": lambda item: item.image_to_text,
    "text_to_image": lambda item: item.text_to_image,
}


@dataclass(frozen=True, slots=True)
class SharedItems:
    """Matching items of two runs, in the same order."""

    first_pairs: list[PairItem]
    second_pairs: list[PairItem]
    first_ranks: list[RankItem]
    second_ranks: list[RankItem]
    answers: list[tuple[AnsweredItem, AnsweredItem]] = field(default_factory=list)
    """(first run, second run)."""
    free_form: list[tuple[VqaItem, VqaItem]] = field(default_factory=list)


class PairedValues(NamedTuple):
    """Values of N items of both runs, whose means are a row of the results."""

    first_N: np.ndarray
    second_N: np.ndarray
    cluster_N: np.ndarray
    """Image labels; items of one image are drawn together."""


def identity(pair: PairItem) -> tuple[str, str, str, str]:
    """What pairs of two runs match by."""
    return pair.key, pair.type, pair.positive, pair.negative


def shared_items(first: Measurement, second: Measurement) -> SharedItems:
    """Match the items of two runs."""
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
        _same_free_form(first, second),
    )


def _same_questions(
    first: Measurement, second: Measurement
) -> list[tuple[AnsweredItem, AnsweredItem]]:
    of_second = {(item.benchmark, item.id): item for item in second.answers}
    both = [(item, of_second.get((item.benchmark, item.id))) for item in first.answers]
    shared = [(one, other) for one, other in both if other and one.captions == other.captions]
    counts = [Counter(item.benchmark for item in run.answers) for run in (first, second)]
    galleries = Counter(one.benchmark for one, _ in shared)
    whole = {name for name, n in galleries.items() if all(count[name] == n for count in counts)}
    return [
        (one, other) if one.benchmark in whole else (_in_no_gallery(one), _in_no_gallery(other))
        for one, other in shared
    ]


def _in_no_gallery(item: AnsweredItem) -> AnsweredItem:
    """Without ranks among the images and captions of all questions; classes stay the same."""
    return structs.replace(item, ranks={n: r for n, r in item.ranks.items() if n == CLASS})


def _same_free_form(first: Measurement, second: Measurement) -> list[tuple[VqaItem, VqaItem]]:
    of_second = {(item.benchmark, item.question_id): item for item in second.free_form}
    both = [(item, of_second.get((item.benchmark, item.question_id))) for item in first.free_form]
    return [(one, other) for one, other in both if other and one.people == other.people]


def change_of(shared: SharedItems, row: RowKey, seed: int = 0) -> Change | None:
    """Second run minus first in one row of the results; None if the row has no shared items."""
    values = paired_values(shared, row)
    if values is None:
        return None
    difference, p = paired_difference(*values, seed=seed), permutation_test(*values, seed=seed)
    return Change(difference, p, row[1] in LOWER_IS_BETTER)


def paired_values(shared: SharedItems, row: RowKey) -> PairedValues | None:
    """Values of the shared items behind a row; None for means of groups and rows without items."""
    benchmark, metric, group = row
    rows: list[tuple[float, float, str | int]] = []
    if benchmark == HARD_NEGATIVES and metric in PAIR_VALUES:
        rows = _pair_values(shared, PAIR_VALUES[metric], group)
    elif benchmark == HARD_NEGATIVES and metric in BLIND_VALUES:
        rows = _blind_pairs(shared, BLIND_VALUES[metric], group)
    elif benchmark == RETRIEVAL and group == "all":
        rows = _recall_values(shared, metric)
    elif metric in BLIND_VALUES:
        value = BLIND_VALUES[metric]
        rows = [
            (
                value(one.right["accuracy"], one.blind),
                value(other.right["accuracy"], other.blind),
                one.images[0],
            )
            for one, other in _answers(shared, (benchmark, "accuracy", group))
            if one.blind is not None and other.blind is not None
        ]
    elif benchmark not in (HARD_NEGATIVES, RETRIEVAL):
        rows = [
            (one.right[metric], other.right[metric], one.images[0])
            for one, other in _answers(shared, row)
        ]
        rows += [*_searched_values(shared, row), *_free_form_values(shared, row)]
    return PairedValues(*map(np.array, zip(*rows, strict=True))) if rows else None


def _answers(shared: SharedItems, row: RowKey) -> list[tuple[AnsweredItem, AnsweredItem]]:
    """The questions whose plain mean is a row; none for means of groups."""
    benchmark, metric, group = row
    return [
        (one, other)
        for one, other in shared.answers
        if one.benchmark == benchmark
        and metric in one.right
        and (group in ("all", one.group) or group.removeprefix(TAG) in one.tags)
    ]


def _searched_values(shared: SharedItems, row: RowKey) -> list[tuple[float, float, str | int]]:
    """Hits of the queries whose rate is a row."""
    benchmark, metric, group = row
    if metric in CLASS_HITS:
        search, most = CLASS, CLASS_HITS[metric]
    else:
        search, _, cutoff = metric.partition("_R@")
        most = int(cutoff) if cutoff.isdecimal() else 0
    return [
        (rank < most, other_rank < most, one.images[0])
        for one, other in shared.answers
        if one.benchmark == benchmark and (group == "all" or one.group.startswith(f"{group}/"))
        if most and search in one.ranks and search in other.ranks
        for rank, other_rank in zip(one.ranks[search], other.ranks[search], strict=True)
    ]


NOT_JUDGED = frozenset({"yes_ratio"})
"""Scores of which neither more nor less is better."""


def _free_form_values(shared: SharedItems, row: RowKey) -> list[tuple[float, float, str | int]]:
    """Scores of the questions whose mean is a row; none where the models have it of different
    questions, as precision of those that each answers with yes."""
    benchmark, metric, group = row
    both = [
        (one, other)
        for one, other in shared.free_form
        if one.benchmark == benchmark
        and (metric in one.scores or metric in other.scores)
        and group in ("all", *one.groups)
    ]
    same = all(metric in one.scores and metric in other.scores for one, other in both)
    if not same or metric in NOT_JUDGED:
        return []
    return [(one.scores[metric], other.scores[metric], one.image) for one, other in both]


def remarks_on_sharing(first: Measurement, second: Measurement, shared: SharedItems) -> list[str]:
    """Remarks on the data of a comparison."""
    if first.header is None or second.header is None or not (first.items and second.items):
        return ["without the scores of single items (*.items.jsonl) there are no differences"]
    remarks = []
    if first.header.shards and first.header.fingerprint != second.header.fingerprint:
        remarks.append("measured on different shards than the first run")
    if first.header.ocr != second.header.ocr:
        remarks.append(
            f"prompts have other OCR tokens than the first run's ({second.header.ocr}, not "
            f"{first.header.ocr})"
        )
    most = max(len(first.pairs), len(second.pairs))
    if len(shared.first_pairs) < most:
        remarks.append(
            f"{len(shared.first_pairs):,} of {most:,} pairs are shared with the first run; "
            "differences are over those"
        )
    questions = max(len(first.answers), len(second.answers))
    questions += max(len(first.free_form), len(second.free_form))
    answered = len(shared.answers) + len(shared.free_form)
    if answered < questions:
        remarks.append(
            f"{answered:,} of {questions:,} questions are shared with the first run; "
            "differences are over those"
        )
    if not shared.first_ranks and (first.ranks or second.ranks):
        remarks.append(
            "retrieval searches another gallery than the first run's, so there are no differences"
        )
    return remarks


def _pair_values(
    shared: SharedItems, value: Callable[[PairItem], float], group: str
) -> list[tuple[float, float, str | int]]:
    return [(value(first), value(second), first.key) for first, second in _pairs_of(shared, group)]


def _blind_pairs(
    shared: SharedItems, value: Callable[[bool, float], float], group: str
) -> list[tuple[float, float, str | int]]:
    return [
        (value(first.margin > 0, first.blind), value(second.margin > 0, second.blind), first.key)
        for first, second in _pairs_of(shared, group)
        if first.blind is not None and second.blind is not None
    ]


def _pairs_of(shared: SharedItems, group: str) -> Iterator[tuple[PairItem, PairItem]]:
    about = about_of(group)
    for first, second in zip(shared.first_pairs, shared.second_pairs, strict=True):
        if group in ("all", first.type) or (about is not None and about == first.about):
            yield first, second


def _recall_values(shared: SharedItems, metric: str) -> list[tuple[float, float, str | int]]:
    """Hits of retrieval; every image is a cluster of its own."""
    direction, _, cutoff = metric.partition("_R@")
    if direction not in RANKS or not cutoff.isdecimal():
        return []
    rank, most = RANKS[direction], int(cutoff)
    both = zip(shared.first_ranks, shared.second_ranks, strict=True)
    return [(rank(one) < most, rank(two) < most, place) for place, (one, two) in enumerate(both)]
