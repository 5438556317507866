"""Cosines that a training is watched by. No part of what is minimised.

B rows of this rank, N of all ranks, K hard negatives an image, D width, E columns of a slice.
"""

from typing import NamedTuple

import torch

from hnc_ds.objective.rows import hide_own, true_pairs
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


HIDDEN = -2.0
"""In the place of captions that are true of a row: less than any cosine, and finite, so that it can
be taken out of a sum again."""


@torch.no_grad()
def measure_similarities(compared: Compared) -> Similarities:
    """Cosines of this rank's images with their captions, hard negatives and all positives.

    A slice of the columns at a time, as in the objective, so that memory does not grow with B * N.
    One product; of passes over it one, the maximum, or five where a mask hides pairs. Does not wait
    for the device.
    """
    rows, slots = compared.rows, compared.slots
    image_BD, text_ND = rows.image_BD.float(), rows.text_ND
    positive_B = (image_BD * rows.text_BD.float()).sum(dim=1)
    sums, counts, best, some = [], [], [], image_BD[:0, :0]
    for columns in column_slices(len(image_BD), len(text_ND), image_BD.device):
        cosine_EB = text_ND[columns].float() @ image_BD.T
        if slots.pairs_repeat:
            true_EB = true_pairs(slots, columns)
            true_B = true_EB.sum(dim=0)
            sums.append(cosine_EB.masked_fill_(true_EB, HIDDEN).sum(dim=0) - HIDDEN * true_B)
            counts.append(len(cosine_EB) - true_B)
        else:
            hide_own(cosine_EB, slots, columns, HIDDEN)
        best.append(cosine_EB.amax(dim=0))
        if not columns.start:
            some = cosine_EB[:, :SAMPLED_ROWS].T.contiguous()
    if not slots.pairs_repeat:
        sums.append(image_BD @ text_ND.float().sum(dim=0) - positive_B)
        counts.append(slots.index_B2.new_full((len(image_BD),), len(text_ND) - 1))
    return Similarities(
        positive_B,
        (rows.negative_BKD.float() @ image_BD[:, :, None]).squeeze(2),
        torch.stack(sums).sum(dim=0),
        torch.stack(counts).sum(dim=0),
        _none(torch.stack(best).amax(dim=0)),
        _none(some),
    )


def _none(cosines: torch.Tensor) -> torch.Tensor:
    return cosines.masked_fill(cosines == HIDDEN, -torch.inf)
