"""Retrieval on captioned pictures: hit rate at 1, 5 and 10 in both directions.

Each picture searches among all captions and is right with any of its own; each caption searches
among all pictures. Of equal similarities the wrong one comes first, and such queries are counted.
"""

from collections.abc import Iterator

import numpy as np
import torch

from hnc_ds.evaluation.ask import Encoded
from hnc_ds.evaluation.labels import Row
from hnc_ds.evaluation.retrieval import CUTOFFS, rank_first_right
from hnc_ds.evaluation.statistics import bootstrap_means


def search(encoded: Encoded, seed: int) -> Iterator[Row]:
    """Rows of hit rates; a picture with all its captions is one question.

    Args:
        encoded: N questions with G captions in all.
        seed: Of the intervals, by bootstrap over pictures.
    """
    questions = encoded.questions
    image_G = np.repeat(np.arange(len(questions)), [len(q.captions) for q in questions])
    rows_N = [encoded.image_row[q.images[0]] for q in questions]
    rows_G = [encoded.text_row[caption] for q in questions for caption in q.captions]
    image_ND = encoded.image_ND[torch.tensor(rows_N, device=encoded.image_ND.device)]
    text_GD = encoded.text_TD[torch.tensor(rows_G, device=encoded.text_TD.device)]
    text_G = np.arange(len(image_G))
    ways = {
        "image_to_text": (image_ND, text_GD, image_G, text_G, np.arange(len(questions))),
        "text_to_image": (text_GD, image_ND, text_G, image_G, image_G),
    }
    for way, (query_QD, gallery_HD, right_query_R, right_gallery_R, cluster_Q) in ways.items():
        right = (query_QD, gallery_HD, right_query_R, right_gallery_R)
        rank_Q = rank_first_right(*right)
        columns = {f"{way}_R@{cutoff}": rank_Q < cutoff for cutoff in CUTOFFS}
        columns["ties"] = rank_Q != rank_first_right(*right, ties_first=False)
        for metric, found in bootstrap_means(columns, cluster_Q, seed=seed).items():
            yield metric, way if metric == "ties" else "all", found
