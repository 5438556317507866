"""Image-text retrieval: recall at 1, 5 and 10 in both directions.

Every image enters with one caption; captions made from templates repeat, so the gallery holds
each distinct text once, and every text that is written for an image is a right answer to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hnc_ds.evaluation.benchmarks import BENCHMARKS, RETRIEVAL
from hnc_ds.evaluation.embed import EmbeddedSet
from hnc_ds.evaluation.items import RankItem
from hnc_ds.evaluation.robustness import Judged
from hnc_ds.evaluation.statistics import bootstrap_means
from hnc_ds.records import Result, TrainingSample

CUTOFFS = (1, 5, 10)

NEVER = 2**62
"""Rank of a query whose right answer has no similarity."""

_CELLS_AT_ONCE = 16_777_216
"""Similarities held at once: 64 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """N images and the G distinct texts that they are described with."""

    texts: tuple[str, ...]
    text_of_image_N: np.ndarray
    """Which text is each image's own."""
    right_image_R: np.ndarray
    right_text_R: np.ndarray
    """All (image, text) that belong together; R of them."""


class Retrieval:
    """The benchmark of a set: which captions it needs, and then its scores.

    Args:
        samples: The readable ones of the set, in order.
        caption_ids: Numbers of the captions to encode; new ones get the next.

    Raises:
        ValueError: A sample without a caption group.
    """

    def __init__(self, samples: Sequence[TrainingSample], caption_ids: dict[str, int]) -> None:
        self._gallery = build_gallery(samples)
        numbers = [caption_ids.setdefault(text, len(caption_ids)) for text in self._gallery.texts]
        self._row_G = torch.tensor(numbers)

    def __len__(self) -> int:
        return len(self._gallery.text_of_image_N)

    def score(
        self, embedded: EmbeddedSet, model: str, seed: int
    ) -> tuple[list[Result], Iterator[RankItem]]:
        """Rows of results, and an item for each image."""
        ranks = self._ranks(embedded)
        return summarise_ranks(model, *ranks, seed), self._items(embedded, *ranks)

    def judge(self, embedded: EmbeddedSet) -> dict[str, Judged]:
        """Whether each query is a hit, by metric."""
        image_N = np.arange(len(self))
        return {m: Judged(hit_N, image_N) for m, hit_N in hits(*self._ranks(embedded)).items()}

    def _ranks(self, embedded: EmbeddedSet) -> tuple[np.ndarray, np.ndarray]:
        text_GD = embedded.text_TD[self._row_G.to(embedded.text_TD.device)]
        return rank_both_ways(embedded.image_ND, text_GD, self._gallery)

    def _items(
        self, embedded: EmbeddedSet, text_rank_N: np.ndarray, image_rank_N: np.ndarray
    ) -> Iterator[RankItem]:
        gallery = self._gallery
        for image, (text_rank, image_rank) in enumerate(
            zip(text_rank_N, image_rank_N, strict=True)
        ):
            caption = gallery.texts[gallery.text_of_image_N[image]]
            yield RankItem(*embedded.images[image], caption, int(text_rank), int(image_rank))


def build_gallery(samples: Sequence[TrainingSample]) -> Gallery:
    """Choose each image's caption and note every text of the gallery that is true of it.

    Raises:
        ValueError: A sample without a caption group.
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
    """The positive that says most: most characters, of those the first by code point."""
    return min((group.positive for group in sample.groups), key=lambda text: (-len(text), text))


def rank_first_right(
    query_QD: torch.Tensor,
    gallery_GD: torch.Tensor,
    right_query_R: np.ndarray,
    right_gallery_R: np.ndarray,
    *,
    ties_first: bool = True,
) -> np.ndarray:
    """How many wrong gallery rows come before each query's best right one; 0 is a hit at 1.

    A wrong row with the same score comes first, unless said otherwise, and so does one whose score
    is NaN; a right one without a score is never found. Memory is bounded: rows of
    similarities are made and dropped in blocks.

    Args:
        query_QD: Unit rows; every query needs a right answer.
        gallery_GD: Unit rows.
        right_query_R: Together with right_gallery_R the pairs that belong together.
        right_gallery_R: See right_query_R.
        ties_first: Whether a wrong row with the same score comes before the right one.

    Returns:
        int64 [Q].
    """
    order = np.argsort(right_query_R, kind="stable")
    right_query_R, right_gallery_R = right_query_R[order], right_gallery_R[order]
    rank_Q = np.empty(len(query_QD), dtype=np.int64)
    rows_at_once = max(1, _CELLS_AT_ONCE // len(gallery_GD))
    for start in range(0, len(query_QD), rows_at_once):
        scores_BG = query_QD[start : start + rows_at_once] @ gallery_GD.T
        end = start + len(scores_BG)
        first, last = np.searchsorted(right_query_R, [start, end])
        row_R = torch.from_numpy(right_query_R[first:last] - start).to(scores_BG.device)
        column_R = torch.from_numpy(right_gallery_R[first:last]).to(scores_BG.device)
        right_BG = torch.zeros_like(scores_BG, dtype=torch.bool)
        right_BG[row_R, column_R] = True
        best_B = scores_BG.masked_fill(~right_BG, -torch.inf).amax(dim=1, keepdim=True)
        behind_BG = scores_BG < best_B if ties_first else scores_BG <= best_B  # of NaN none is
        rank_B = (~behind_BG & ~right_BG).sum(dim=1)
        rank_Q[start:end] = torch.where(best_B[:, 0].isnan(), NEVER, rank_B).cpu().numpy()
    return rank_Q


def rank_both_ways(
    image_ND: torch.Tensor, text_GD: torch.Tensor, gallery: Gallery
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks [N] of each image's search for a text, and of its own text's search for an image."""
    text_rank_N = rank_first_right(image_ND, text_GD, gallery.right_image_R, gallery.right_text_R)
    image_rank_G = rank_first_right(text_GD, image_ND, gallery.right_text_R, gallery.right_image_R)
    return text_rank_N, image_rank_G[gallery.text_of_image_N]


def hits(image_to_text_N: np.ndarray, text_to_image_N: np.ndarray) -> dict[str, np.ndarray]:
    """Whether each query's right answer is within each cutoff, by metric."""
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
    version = BENCHMARKS[RETRIEVAL].version
    images = np.arange(len(image_to_text_N))
    return [
        Result(model, RETRIEVAL, version, metric, "all", i.value, i.low, i.high, i.count)
        for metric, i in bootstrap_means(columns, images, seed=seed).items()
    ]
