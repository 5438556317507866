"""Pair accuracy: does the image prefer its true caption to the hard negative made from it?

Strictly more similar is right; a tie is wrong and is counted. Scores are float32 cosines: in
half precision different captions tie. Of predicates and of classes of attributes accuracy is told
where a set has LEAST_PAIRS of one, of the MOST_OF_KIND most frequent ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hnc_ds.captions.about import KINDS, group_of, kind_of
from hnc_ds.evaluation.benchmarks import BENCHMARKS, HARD_NEGATIVES
from hnc_ds.evaluation.embed import EmbeddedSet
from hnc_ds.evaluation.items import PairItem
from hnc_ds.evaluation.robustness import Judged
from hnc_ds.evaluation.statistics import bootstrap_means
from hnc_ds.evaluation.table import LEAST_PAIRS
from hnc_ds.records import Result, TrainingSample

MOST_OF_KIND = 40
"""Predicates, and classes of attributes, of which scores are told."""

_PAIRS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every (image, positive, hard negative) of a set, as indices; P pairs."""

    image_P: np.ndarray
    """Row of the image's embedding."""
    positive_P: np.ndarray
    """Row of the true caption's embedding."""
    negative_P: np.ndarray
    type_P: np.ndarray
    """Index into `types`."""
    types: tuple[str, ...]
    """In alphabetical order."""
    statements: tuple[str, ...]
    """What kind of statement each positive makes; P entries."""
    about_P: np.ndarray
    """Index into `abouts`."""
    abouts: tuple[str, ...]
    """What negatives turn on, in alphabetical order."""

    def __len__(self) -> int:
        return len(self.image_P)


class HardNegatives:
    """The benchmark of a set: which captions it needs, and then its scores.

    Args:
        samples: The readable ones of the set, in order.
        caption_ids: Numbers of the captions to encode; new ones get the next.
    """

    def __init__(self, samples: Sequence[TrainingSample], caption_ids: dict[str, int]) -> None:
        self._pairs = list_pairs(samples, caption_ids)

    def __len__(self) -> int:
        return len(self._pairs)

    def score(
        self, embedded: EmbeddedSet, model: str, seed: int
    ) -> tuple[list[Result], Iterator[PairItem]]:
        """Rows of results, and an item for each pair."""
        scores = score_pairs(embedded.image_ND, embedded.text_TD, self._pairs)
        return summarise_pairs(model, self._pairs, *scores, seed), self._items(embedded, *scores)

    def judge(self, embedded: EmbeddedSet) -> dict[str, Judged]:
        """Whether each pair is right, by metric."""
        positive_P, negative_P = score_pairs(embedded.image_ND, embedded.text_TD, self._pairs)
        return {"pair_accuracy": Judged(positive_P > negative_P, self._pairs.image_P)}

    def _items(
        self, embedded: EmbeddedSet, positive_P: np.ndarray, negative_P: np.ndarray
    ) -> Iterator[PairItem]:
        pairs = self._pairs
        for row, image in enumerate(pairs.image_P):
            index, key = embedded.images[image]
            yield PairItem(
                image=index,
                key=key,
                statement=pairs.statements[row],
                type=pairs.types[pairs.type_P[row]],
                positive=embedded.captions[pairs.positive_P[row]],
                negative=embedded.captions[pairs.negative_P[row]],
                positive_score=float(positive_P[row]),
                negative_score=float(negative_P[row]),
                about=pairs.abouts[pairs.about_P[row]],
            )


def list_pairs(samples: Sequence[TrainingSample], caption_ids: dict[str, int]) -> Pairs:
    """All pairs of the samples in their order; captions not yet known get the next free id."""
    rows: list[tuple[int, int, int]] = []
    types: list[str] = []
    statements: list[str] = []
    about: list[str] = []
    for image, sample in enumerate(samples):
        for group in sample.groups:
            positive = caption_ids.setdefault(group.positive, len(caption_ids))
            for negative in group.negatives:
                caption = caption_ids.setdefault(negative.caption, len(caption_ids))
                rows.append((image, positive, caption))
                types.append(negative.type)
                statements.append(group.type)
                about.append(negative.about)
    type_P, names = _numbered(types)
    about_P, abouts = _numbered(about)
    image_P, positive_P, negative_P = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Pairs(image_P, positive_P, negative_P, type_P, names, tuple(statements), about_P, abouts)


def _numbered(words: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Words as numbers, and the words in alphabetical order."""
    names, number_P = np.unique(np.array(words, dtype=object), return_inverse=True)
    return number_P.reshape(-1), tuple(names)


def score_pairs(
    image_ND: torch.Tensor, text_TD: torch.Tensor, pairs: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each pair's image with its positive and with its negative, float32 [P] each.

    Both are summed in the same way, so that equal embeddings give exactly equal scores.
    """
    return (
        cosines(image_ND, text_TD, pairs.image_P, pairs.positive_P),
        cosines(image_ND, text_TD, pairs.image_P, pairs.negative_P),
    )


def cosines(
    image_ND: torch.Tensor, text_TD: torch.Tensor, image_P: np.ndarray, text_P: np.ndarray
) -> np.ndarray:
    """Cosine of rows with rows, float32 [P]; each pair is summed in the same way."""
    scores = np.empty(len(image_P), dtype=np.float32)
    for start in range(0, len(image_P), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        image_PD = image_ND[torch.from_numpy(image_P[rows]).to(image_ND.device)]
        text_PD = text_TD[torch.from_numpy(text_P[rows]).to(text_TD.device)]
        scores[rows] = (image_PD * text_PD).sum(dim=1).cpu().numpy()
    return scores


def summarise_pairs(
    model: str, pairs: Pairs, positive_P: np.ndarray, negative_P: np.ndarray, seed: int
) -> list[Result]:
    """Rows of accuracy, margin and share of ties for all pairs together and per negative type, and
    of accuracy per predicate and class of attributes, the most frequent first.

    'all' is the mean over pairs, so common types weigh more. Intervals: bootstrap over images.
    """
    results = _rows(model, "all", pairs, np.arange(len(pairs)), positive_P, negative_P, seed)
    for index, name in enumerate(pairs.types):
        chosen = np.flatnonzero(pairs.type_P == index)
        results += _rows(model, name, pairs, chosen, positive_P, negative_P, seed)
    for name, chosen in _told(pairs):
        own = _rows(model, name, pairs, chosen, positive_P, negative_P, seed)
        results += [row for row in own if row.metric == "pair_accuracy"]
    return results


def _told(pairs: Pairs) -> Iterator[tuple[str, np.ndarray]]:
    """Groups of what pairs turn on with their positions, predicates first, each by count."""
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
    seed: int,
) -> list[Result]:
    positive, negative = positive_P[chosen], negative_P[chosen]
    columns = {
        "pair_accuracy": positive > negative,
        "margin": positive.astype(float) - negative,
        "ties": positive == negative,
    }
    version = BENCHMARKS[HARD_NEGATIVES].version
    return [
        Result(model, HARD_NEGATIVES, version, metric, group, i.value, i.low, i.high, i.count)
        for metric, i in bootstrap_means(columns, pairs.image_P[chosen], seed=seed).items()
    ]
