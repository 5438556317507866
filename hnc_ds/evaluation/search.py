"""Retrieval on captioned pictures: hit rate at 1, 5 and 10 in both directions.

Each picture searches among all captions and is right with any of its own; each caption searches
among all pictures. Of equal similarities the wrong one comes first, and such queries are counted.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from hnc_ds.evaluation.ask import Encoded
from hnc_ds.evaluation.labels import Row
from hnc_ds.evaluation.retrieval import CUTOFFS, rank_first_right
from hnc_ds.evaluation.robustness import Judged
from hnc_ds.evaluation.statistics import bootstrap_means


def search(encoded: Encoded, seed: int) -> Iterator[Row]:
    """Rows of hit rates; a picture with all its captions is one question.

    Args:
        encoded: N questions with G captions in all.
        seed: Of the intervals, by bootstrap over pictures.
    """
    for way in _ways(encoded):
        rank_Q = rank_first_right(*way.right)
        columns = _hits(way, rank_Q)
        columns["ties"] = rank_Q != rank_first_right(*way.right, ties_first=False)
        for metric, found in bootstrap_means(columns, way.cluster_Q, seed=seed).items():
            yield metric, way.name if metric == "ties" else "all", found


def judge_search(encoded: Encoded) -> dict[str, Judged]:
    """Whether each query is a hit, by metric."""
    return {
        metric: Judged(hit_Q, way.cluster_Q)
        for way in _ways(encoded)
        for metric, hit_Q in _hits(way, rank_first_right(*way.right)).items()
    }


class _Way(NamedTuple):
    """A direction of search: what rank_first_right takes, and the picture of each query."""

    name: str
    right: tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]
    cluster_Q: np.ndarray


def _ways(encoded: Encoded) -> tuple[_Way, _Way]:
    questions = encoded.questions
    image_G = np.repeat(np.arange(len(questions)), [len(q.captions) for q in questions])
    rows_N = [encoded.image_row[q.images[0]] for q in questions]
    rows_G = [encoded.text_row[caption] for q in questions for caption in q.captions]
    image_ND = encoded.image_ND[torch.tensor(rows_N, device=encoded.image_ND.device)]
    text_GD = encoded.text_TD[torch.tensor(rows_G, device=encoded.text_TD.device)]
    text_G = np.arange(len(image_G))
    return (
        _Way("image_to_text", (image_ND, text_GD, image_G, text_G), np.arange(len(questions))),
        _Way("text_to_image", (text_GD, image_ND, text_G, image_G), image_G),
    )


def _hits(way: _Way, rank_Q: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{way.name}_R@{cutoff}": rank_Q < cutoff for cutoff in CUTOFFS}
