"""Cosines that a training is watched by. No part of what is minimised.

B rows of this rank, N of all ranks, K hard negatives an image, D width, E columns of a slice.
"""

from typing import NamedTuple

import torch

from hnc_ds.objective.rows import other_true_pairs
from hnc_ds.objective.softmax import column_slices
from hnc_ds.objective.terms import Compared

SAMPLED_ROWS = 64
"""Images whose cosines with the batch's other captions go into a histogram."""


class Similarities(NamedTuple):
    """Cosines of this rank's images with their texts, float32."""

    positive_B: torch.Tensor
    hard_BK: torch.Tensor
    others_sum_B: torch.Tensor
    """Of other images' captions that are not true of the row."""
    others_count_B: torch.Tensor
    others_best_B: torch.Tensor
    """-inf where there are none."""
    some_others: torch.Tensor
    """Some of them, and -inf, for the histogram."""


@torch.no_grad()
def measure_similarities(compared: Compared) -> Similarities:
    """Cosines of this rank's images with their captions, hard negatives and all positives.

    A slice of the columns at a time, as in the objective, so that memory does not grow with B * N.
    """
    rows, slots = compared.rows, compared.slots
    image_BD, text_ND = rows.image_BD.float(), rows.text_ND
    own_B = torch.arange(len(image_BD), device=image_BD.device) + slots.first_row
    sum_B, count_B = torch.zeros_like(image_BD[:, 0]), torch.zeros_like(own_B)
    best_B = torch.full_like(sum_B, -torch.inf)
    some = image_BD[:0, 0]
    for columns in column_slices(len(image_BD), len(text_ND)):
        cosine_BE = image_BD @ text_ND[columns].float().T
        number_E = torch.arange(columns.start, columns.stop, device=image_BD.device)
        true_BE = other_true_pairs(slots, columns) | (number_E == own_B[:, None])
        sum_B += cosine_BE.masked_fill(true_BE, 0).sum(dim=1)
        count_B += (~true_BE).sum(dim=1)
        best_B = torch.maximum(best_B, cosine_BE.masked_fill_(true_BE, -torch.inf).amax(dim=1))
        if not columns.start:
            some = cosine_BE[:SAMPLED_ROWS].clone()
    return Similarities(
        (image_BD * rows.text_BD.float()).sum(dim=1),
        torch.einsum("bd,bkd->bk", image_BD, rows.negative_BKD.float()),
        sum_B,
        count_B,
        best_B,
        some,
    )
