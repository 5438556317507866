"""Measures on held-out shards: pair accuracy of hard negatives, and image-text retrieval.

Pair accuracy is the share of pairs in which the positive is more similar than the hard negative.
Ties count as wrong and are counted. Scores are float32 cosines, because in half precision different
captions tie. Predicates and attribute classes have rows of their own from LEAST_PAIRS pairs on, the
MOST_OF_KIND most frequent ones of each.

Retrieval is recall at 1, 5 and 10 in both directions. Every image has one caption in the gallery.
Captions made from templates repeat, so the gallery holds each distinct text once, and every gallery
text written for an image is right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch

from hnc_ds.captions.language.attribute_classes import KINDS, group_of, kind_of
from hnc_ds.evaluation import blind
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, HELD_OUT, LEAST_PAIRS, RETRIEVAL
from hnc_ds.evaluation.corruptions import Judged
from hnc_ds.evaluation.results import PairItem, RankItem
from hnc_ds.evaluation.similarity import Grid, ScoredSet, Similarity, Thresholds
from hnc_ds.evaluation.statistics import (
    Interval,
    bootstrap_auroc,
    bootstrap_mean,
    bootstrap_means,
)
from hnc_ds.records import Result, TrainingSample

MOST_OF_KIND = 40
"""Maximum number of predicates, and of attribute classes, with rows of their own."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """All P (image, positive, hard negative) of a set, as indices."""

    image_P: np.ndarray
    """Row of the image."""
    positive_P: np.ndarray
    """Row of the caption."""
    negative_P: np.ndarray
    type_P: np.ndarray
    """Index into `types`."""
    types: tuple[str, ...]
    """In alphabetical order."""
    statements: tuple[str, ...]
    """Type of each positive's caption group; P entries."""
    about_P: np.ndarray
    """Index into `abouts`."""
    abouts: tuple[str, ...]
    """Predicates and attribute classes, in alphabetical order."""
    true_2T: np.ndarray
    """All (image, positive), of captions without negatives as well; two rows."""

    def __len__(self) -> int:
        return len(self.image_P)


class HardNegatives:
    """The measure of a set.

    Args:
        samples: Samples with readable images, in order.
        caption_ids: Rows of the captions to encode; new captions are added.
    """

    benchmark = HARD_NEGATIVES

    def __init__(self, samples: Sequence[TrainingSample], caption_ids: dict[str, int]) -> None:
        self._pairs = list_pairs(samples, caption_ids)

    def __len__(self) -> int:
        return len(self._pairs)

    def score(
        self, scored: ScoredSet, model: str, seed: int
    ) -> tuple[list[Result], Iterator[PairItem]]:
        """Rows of results, and one item per pair."""
        scores = score_pairs(scored.similarity, self._pairs)
        blind_P = score_twins(scored.similarity, self._pairs, len(scored.images), seed)
        rows = summarise_pairs(model, self._pairs, *scores, blind_P, seed)
        if thresholds := scored.similarity.thresholds:
            rows += summarise_single(model, self._pairs, *scores, thresholds, seed)
        return rows, self._items(scored, *scores, blind_P)

    def judge(self, scored: ScoredSet) -> dict[str, Judged]:
        """Whether each pair is right, by metric."""
        positive_P, negative_P = score_pairs(scored.similarity, self._pairs)
        return {"pair_accuracy": Judged(positive_P > negative_P, self._pairs.image_P)}

    def _items(
        self,
        scored: ScoredSet,
        positive_P: np.ndarray,
        negative_P: np.ndarray,
        blind_P: np.ndarray,
    ) -> Iterator[PairItem]:
        pairs = self._pairs
        for row, image in enumerate(pairs.image_P):
            index, key = scored.images[image]
            yield PairItem(
                image=index,
                key=key,
                statement=pairs.statements[row],
                type=pairs.types[pairs.type_P[row]],
                positive=scored.captions[pairs.positive_P[row]],
                negative=scored.captions[pairs.negative_P[row]],
                positive_score=float(positive_P[row]),
                negative_score=float(negative_P[row]),
                about=pairs.abouts[pairs.about_P[row]],
                blind=None if np.isnan(blind_P[row]) else float(blind_P[row]),
            )


def list_pairs(samples: Sequence[TrainingSample], caption_ids: dict[str, int]) -> Pairs:
    """All pairs of the samples in order; new captions get the next free id."""
    rows: list[tuple[int, int, int]] = []
    true: list[tuple[int, int]] = []
    types: list[str] = []
    statements: list[str] = []
    about: list[str] = []
    for image, sample in enumerate(samples):
        for group in sample.groups:
            positive = caption_ids.setdefault(group.positive, len(caption_ids))
            true.append((image, positive))
            for negative in group.negatives:
                caption = caption_ids.setdefault(negative.caption, len(caption_ids))
                rows.append((image, positive, caption))
                types.append(negative.type)
                statements.append(group.type)
                about.append(negative.about)
    type_P, names = _numbered(types)
    about_P, abouts = _numbered(about)
    image_P, positive_P, negative_P = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    true_2T = np.array(true, dtype=np.int64).reshape(-1, 2).T
    of_pairs = image_P, positive_P, negative_P, type_P, names, tuple(statements), about_P, abouts
    return Pairs(*of_pairs, true_2T)


def _numbered(words: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Indices of words, and the words in alphabetical order."""
    names, number_P = np.unique(np.array(words, dtype=object), return_inverse=True)
    return number_P.reshape(-1), tuple(names)


def score_pairs(similarity: Similarity, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Scores of each pair's image with its positive and with its negative, float32 [P] each."""
    found = similarity.pairs(
        np.tile(pairs.image_P, 2), np.concatenate([pairs.positive_P, pairs.negative_P])
    )
    return found[: len(pairs)], found[len(pairs) :]


def score_twins(similarity: Similarity, pairs: Pairs, images: int, seed: int) -> np.ndarray:
    """Blind accuracy of each pair (blind.py), float [P]."""
    image_RP = blind.other_images(pairs.image_P, pairs.positive_P, pairs.true_2T, images, seed)
    draws = len(image_RP)
    image_Q, positive_Q, negative_Q = (
        np.maximum(image_RP, 0).reshape(-1),
        np.tile(pairs.positive_P, draws),
        np.tile(pairs.negative_P, draws),
    )
    found = similarity.pairs(np.tile(image_Q, 2), np.concatenate([positive_Q, negative_Q]))
    right_RP = np.greater(*np.split(found, 2)).reshape(image_RP.shape)
    return blind.mean_of_twins(right_RP, image_RP)


def summarise_pairs(
    model: str,
    pairs: Pairs,
    positive_P: np.ndarray,
    negative_P: np.ndarray,
    blind_P: np.ndarray,
    seed: int,
) -> list[Result]:
    """Rows of accuracy, margin, ties, blind and sighted accuracy over all pairs and per negative
    type, and of accuracy per predicate and attribute class, the most frequent first. Intervals:
    bootstrap over images."""
    scores = positive_P, negative_P, blind_P
    results = _rows(model, "all", pairs, np.arange(len(pairs)), *scores, seed)
    for index, name in enumerate(pairs.types):
        results += _rows(model, name, pairs, np.flatnonzero(pairs.type_P == index), *scores, seed)
    for name, chosen in _frequent(pairs):
        own = _rows(model, name, pairs, chosen, *scores, seed)
        results += [row for row in own if row.metric == "pair_accuracy"]
    return results


def summarise_single(
    model: str,
    pairs: Pairs,
    positive_P: np.ndarray,
    negative_P: np.ndarray,
    thresholds: Thresholds,
    seed: int,
) -> list[Result]:
    """Rows of accuracy and AUROC of captions one by one, each positive as often as it has
    negatives: over all, and accuracy at each threshold per negative type."""
    groups = {"all": np.arange(len(pairs))}
    groups |= {name: np.flatnonzero(pairs.type_P == n) for n, name in enumerate(pairs.types)}
    found: list[tuple[str, str, Interval]] = []
    for metric, threshold in thresholds.items():
        right_P = np.add(positive_P >= threshold, negative_P < threshold, dtype=float) / 2
        for group, chosen in groups.items():
            interval = bootstrap_mean(right_P[chosen], pairs.image_P[chosen], seed=seed)
            found.append((metric, group, interval))
    score, label = np.concatenate([positive_P, negative_P]), np.repeat([True, False], len(pairs))
    auroc = bootstrap_auroc(score, label, np.tile(pairs.image_P, 2), seed=seed)
    version = HELD_OUT[HARD_NEGATIVES].version
    return [
        Result(model, HARD_NEGATIVES, version, metric, group, *astuple(interval))
        for metric, group, interval in [*found, ("auroc", "all", auroc)]
    ]


def _frequent(pairs: Pairs) -> Iterator[tuple[str, np.ndarray]]:
    """Groups of predicates, then of attribute classes, by count, with positions of their pairs."""
    counts = np.bincount(pairs.about_P, minlength=len(pairs.abouts))
    order = np.argsort(-counts, kind="stable")
    enough = [i for i in order if pairs.abouts[i] and counts[i] >= LEAST_PAIRS]
    for kind in KINDS:
        own = [i for i in enough if kind_of(pairs.abouts[i]) == kind]
        for index in own[:MOST_OF_KIND]:
            yield group_of(pairs.abouts[index]), np.flatnonzero(pairs.about_P == index)


def _rows(
    model: str,
    group: str,
    pairs: Pairs,
    chosen: np.ndarray,
    positive_P: np.ndarray,
    negative_P: np.ndarray,
    blind_P: np.ndarray,
    seed: int,
) -> list[Result]:
    positive, negative = positive_P[chosen], negative_P[chosen]
    columns = {
        "pair_accuracy": positive > negative,
        "margin": positive.astype(float) - negative,
        "ties": positive == negative,
    }
    found = bootstrap_means(columns, pairs.image_P[chosen], seed=seed)
    if len(twins := chosen[~np.isnan(blind_P[chosen])]):
        columns = blind.columns(positive_P[twins] > negative_P[twins], blind_P[twins])
        found |= bootstrap_means(columns, pairs.image_P[twins], seed=seed)
    version = HELD_OUT[HARD_NEGATIVES].version
    return [
        Result(model, HARD_NEGATIVES, version, metric, group, i.value, i.low, i.high, i.count)
        for metric, i in found.items()
    ]


CUTOFFS = (1, 5, 10)

NEVER = 2**62
"""Rank of a query whose right answer has similarity NaN."""

_CELLS_AT_ONCE = 16_777_216
"""Similarities in memory at once: 64 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """N images and their G distinct texts."""

    texts: tuple[str, ...]
    text_of_image_N: np.ndarray
    """Text of each image."""
    right_image_R: np.ndarray
    right_text_R: np.ndarray
    """All R right (image, text) pairs."""


class Retrieval:
    """The measure of a set.

    Args:
        samples: Samples with readable images, in order.
        caption_ids: Rows of the captions to encode; new captions are added.

    Raises:
        ValueError: A sample has no caption group.
    """

    benchmark = RETRIEVAL

    def __init__(self, samples: Sequence[TrainingSample], caption_ids: dict[str, int]) -> None:
        self._gallery = build_gallery(samples)
        numbers = [caption_ids.setdefault(text, len(caption_ids)) for text in self._gallery.texts]
        self._row_G = numbers

    def __len__(self) -> int:
        return len(self._gallery.text_of_image_N)

    def score(
        self, scored: ScoredSet, model: str, seed: int
    ) -> tuple[list[Result], Iterator[RankItem]]:
        """Rows of results, and one item per image."""
        ranks = self._ranks(scored)
        return summarise_ranks(model, *ranks, seed), self._items(scored, *ranks)

    def judge(self, scored: ScoredSet) -> dict[str, Judged]:
        """Whether each query is a hit, by metric."""
        image_N = np.arange(len(self))
        return {m: Judged(hit_N, image_N) for m, hit_N in hits(*self._ranks(scored)).items()}

    def _ranks(self, scored: ScoredSet) -> tuple[np.ndarray, np.ndarray]:
        images = range(len(scored.images))
        return rank_both_ways(scored.similarity.grid(images, self._row_G), self._gallery)

    def _items(
        self, scored: ScoredSet, text_rank_N: np.ndarray, image_rank_N: np.ndarray
    ) -> Iterator[RankItem]:
        gallery = self._gallery
        for image, (text_rank, image_rank) in enumerate(
            zip(text_rank_N, image_rank_N, strict=True)
        ):
            caption = gallery.texts[gallery.text_of_image_N[image]]
            yield RankItem(*scored.images[image], caption, int(text_rank), int(image_rank))


def build_gallery(samples: Sequence[TrainingSample]) -> Gallery:
    """Choose a caption for each image, and list all right pairs.

    Raises:
        ValueError: A sample has no caption group.
    """
    chosen = [longest_caption(sample) for sample in samples]
    text_ids = {caption: row for row, caption in enumerate(dict.fromkeys(chosen))}
    right = [
        (image, text_ids[caption])
        for image, sample in enumerate(samples)
        for caption in sorted({group.positive for group in sample.groups})
        if caption in text_ids
    ]
    right_image_R, right_text_R = np.array(right, dtype=np.int64).reshape(-1, 2).T
    own = np.array([text_ids[caption] for caption in chosen], dtype=np.int64)
    return Gallery(tuple(text_ids), own, right_image_R, right_text_R)


def longest_caption(sample: TrainingSample) -> str:
    """The longest positive; of equal lengths the first by code point."""
    return min((group.positive for group in sample.groups), key=lambda text: (-len(text), text))


def rank_first_right(
    grid: Grid,
    right_query_R: np.ndarray,
    right_gallery_R: np.ndarray,
    *,
    ties_first: bool = True,
) -> np.ndarray:
    """Number of wrong gallery rows before each query's best right one; 0 is a hit at 1.

    A wrong row with score NaN comes first; a query whose right score is NaN has rank NEVER.

    Args:
        grid: Scores; every query needs a right answer.
        right_query_R: Queries of the right pairs.
        right_gallery_R: Gallery rows of the right pairs.
        ties_first: Whether wrong rows with the same score come before the right one.

    Returns:
        int64 [Q].
    """
    order = np.argsort(right_query_R, kind="stable")
    right_query_R, right_gallery_R = right_query_R[order], right_gallery_R[order]
    queries, rows = grid.shape
    rank_Q = np.empty(queries, dtype=np.int64)
    rows_at_once = max(1, _CELLS_AT_ONCE // rows)
    for start in range(0, queries, rows_at_once):
        scores_BG = grid.rows(start, start + rows_at_once)
        end = start + len(scores_BG)
        first, last = np.searchsorted(right_query_R, [start, end])
        row_R = torch.from_numpy(right_query_R[first:last] - start).to(scores_BG.device)
        column_R = torch.from_numpy(right_gallery_R[first:last]).to(scores_BG.device)
        right_BG = torch.zeros_like(scores_BG, dtype=torch.bool)
        right_BG[row_R, column_R] = True
        best_B = scores_BG.masked_fill(~right_BG, -torch.inf).amax(dim=1, keepdim=True)
        behind_BG = scores_BG < best_B if ties_first else scores_BG <= best_B  # False for NaN
        rank_B = (~behind_BG & ~right_BG).sum(dim=1)
        rank_Q[start:end] = torch.where(best_B[:, 0].isnan(), NEVER, rank_B).cpu().numpy()
    return rank_Q


def rank_both_ways(grid: Grid, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Ranks [N] of image-to-text and of text-to-image retrieval, from the scores of all images with
    all texts."""
    right = gallery.right_image_R, gallery.right_text_R
    text_rank_N = rank_first_right(grid, *right)
    image_rank_G = rank_first_right(grid.transposed(), *right[::-1])
    return text_rank_N, image_rank_G[gallery.text_of_image_N]


def hits(image_to_text_N: np.ndarray, text_to_image_N: np.ndarray) -> dict[str, np.ndarray]:
    """Hits of each query at each cutoff, by metric."""
    return {
        f"{name}_R@{cutoff}": rank_N < cutoff
        for name, rank_N in (("image_to_text", image_to_text_N), ("text_to_image", text_to_image_N))
        for cutoff in CUTOFFS
    }


def summarise_ranks(
    model: str, image_to_text_N: np.ndarray, text_to_image_N: np.ndarray, seed: int
) -> list[Result]:
    """Recall at each cutoff, with intervals by bootstrap over images."""
    columns = hits(image_to_text_N, text_to_image_N)
    version = HELD_OUT[RETRIEVAL].version
    images = np.arange(len(image_to_text_N))
    return [
        Result(model, RETRIEVAL, version, metric, "all", i.value, i.low, i.high, i.count)
        for metric, i in bootstrap_means(columns, images, seed=seed).items()
    ]
