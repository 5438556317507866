"""Zero-shot classification: every picture among the classes, named in every template.

A class's embedding is the mean of its prompts', each of unit length, brought back to unit length.
Of equal similarities the wrong class comes first, and such pictures are counted.

Source: CLIP (Radford et al. 2021), and CLIP_benchmark's acc1, acc5 and mean_per_class_recall.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hnc_ds.evaluation.ask import Encoded
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.labels import Row
from hnc_ds.evaluation.readers.classes import class_names, prompts, templates
from hnc_ds.evaluation.retrieval import rank_first_right
from hnc_ds.evaluation.robustness import Judged
from hnc_ds.evaluation.statistics import bootstrap_means, bootstrap_of_group_means


class Classes:
    """The classes of a set of pictures, encoded.

    Args:
        encoder: Of the model that encodes the pictures.
        place: Of classnames.json and templates.json.

    Raises:
        UserError: As ``class_names`` and ``templates``.
    """

    def __init__(self, encoder: Encoder, place: Path) -> None:
        names, texts = class_names(place), templates(place)
        self._class_CD = embed_classes(encoder, list(names.values()), texts)
        self._number_of = {folder: number for number, folder in enumerate(names)}

    def classify(self, encoded: Encoded, seed: int) -> Iterator[Row]:
        """Rows of acc1, acc5 and the mean of the classes' recalls.

        Args:
            encoded: A question for each picture; its group is its class.
            seed: Of the intervals, by bootstrap over pictures.
        """
        right, image_N = self._right(encoded), np.arange(len(encoded.questions))
        rank_N = rank_first_right(*right)
        columns = {**_hits(rank_N), "ties": rank_N != rank_first_right(*right, ties_first=False)}
        for metric, found in bootstrap_means(columns, image_N, seed=seed).items():
            yield metric, "all", found
        group_N = np.array([question.group for question in encoded.questions])
        groups = np.unique(group_N).tolist()
        recall = bootstrap_of_group_means(columns["acc1"], group_N, groups, image_N, seed=seed)
        yield "mean_per_class_recall", "all", recall

    def judge(self, encoded: Encoded) -> dict[str, Judged]:
        """Whether each picture's class is found, by metric."""
        image_N = np.arange(len(encoded.questions))
        hits = _hits(rank_first_right(*self._right(encoded)))
        return {metric: Judged(hit_N, image_N) for metric, hit_N in hits.items()}

    def _right(self, encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
        """What rank_first_right takes."""
        class_N = np.array([self._number_of[question.group] for question in encoded.questions])
        rows = torch.tensor([encoded.image_row[q.images[0]] for q in encoded.questions])
        image_ND = encoded.image_ND[rows.to(encoded.image_ND.device)]
        return image_ND, self._class_CD, np.arange(len(class_N)), class_N


def _hits(rank_N: np.ndarray) -> dict[str, np.ndarray]:
    return {"acc1": rank_N < 1, "acc5": rank_N < 5}


def embed_classes(encoder: Encoder, names: list[str], template_list: list[str]) -> torch.Tensor:
    """float32 unit rows [C, D] of classes."""
    texts = [prompt for name in names for prompt in prompts(template_list, name)]
    distinct = list(dict.fromkeys(texts))
    text_TD, _ = encoder.texts(distinct)
    row_of = {text: row for row, text in enumerate(distinct)}
    rows = torch.tensor([row_of[text] for text in texts], device=text_TD.device)
    mean_CD = text_TD[rows].view(len(names), len(template_list), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean_CD, dim=-1)
