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
from hnc_ds.evaluation.embed import embed_texts
from hnc_ds.evaluation.labels import Row
from hnc_ds.evaluation.readers.classes import class_names, prompts, templates
from hnc_ds.evaluation.retrieval import rank_first_right
from hnc_ds.evaluation.statistics import bootstrap_means, bootstrap_of_group_means
from hnc_ds.model.clip import Clip


def classify(model: Clip, encoded: Encoded, place: Path, seed: int) -> Iterator[Row]:
    """Rows of acc1, acc5 and the mean of the classes' recalls.

    Args:
        model: That encoded the pictures.
        encoded: A question for each picture; its group is its class.
        place: Of classnames.json and templates.json.
        seed: Of the intervals, by bootstrap over pictures.

    Raises:
        UserError: As ``class_names`` and ``templates``.
    """
    names, texts = class_names(place), templates(place)
    class_CD = embed_classes(model, list(names.values()), texts, encoded.image_ND.device)
    number_of = {folder: number for number, folder in enumerate(names)}
    group_N = np.array([question.group for question in encoded.questions])
    class_N = np.array([number_of[group] for group in group_N.tolist()])
    rows = torch.tensor([encoded.image_row[q.images[0]] for q in encoded.questions])
    image_ND = encoded.image_ND[rows.to(encoded.image_ND.device)]
    right = (image_ND, class_CD, np.arange(len(class_N)), class_N)
    rank_N = rank_first_right(*right)
    columns = {"acc1": rank_N < 1, "acc5": rank_N < 5}
    columns["ties"] = rank_N != rank_first_right(*right, ties_first=False)
    image_N = np.arange(len(class_N))
    for metric, found in bootstrap_means(columns, image_N, seed=seed).items():
        yield metric, "all", found
    groups = np.unique(group_N).tolist()
    recall = bootstrap_of_group_means(columns["acc1"], group_N, groups, image_N, seed=seed)
    yield "mean_per_class_recall", "all", recall


def embed_classes(
    model: Clip, names: list[str], template_list: list[str], device: torch.device
) -> torch.Tensor:
    """float32 unit rows [C, D] of classes."""
    texts = [prompt for name in names for prompt in prompts(template_list, name)]
    distinct = list(dict.fromkeys(texts))
    text_TD, _ = embed_texts(model, distinct, device)
    row_of = {text: row for row, text in enumerate(distinct)}
    rows = torch.tensor([row_of[text] for text in texts], device=device)
    mean_CD = text_TD[rows].view(len(names), len(template_list), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean_CD, dim=-1)
