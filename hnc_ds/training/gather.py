"""Embeddings and masks of all ranks, in the form that the loss takes. Every function is a
collective; in a single process a gather returns its input.

B rows of this rank, N of all, K hard-negative slots, M unrelated slots, D width.
"""

import torch

from hnc_ds.distributed import all_gather, all_gather_no_grad, rank, world_size
from hnc_ds.objective.loss_inputs import Embeddings, Masks, negatives_vary, pairs_repeat
from hnc_ds.objective.terms import LossInputs, gap_sums
from hnc_ds.shards.loader import CaptionMasks


def gather_embeddings(
    image_BD: torch.Tensor,
    text_BD: torch.Tensor,
    negative_BKD: torch.Tensor,
    unrelated_BMD: torch.Tensor,
    all_negatives: bool,
) -> Embeddings:
    """This rank's rows beside those of all ranks, with the gradients of all ranks' losses.

    Args:
        image_BD: Images, unit rows; the same number on every rank.
        text_BD: Their positive captions.
        negative_BKD: Their hard negatives.
        unrelated_BMD: Captions of other images.
        all_negatives: Whether images compete with other images' hard negatives too.
    """
    image_ND, text_ND = _gather_pairs(image_BD, text_BD)
    negative_RD = negative_BKD.flatten(0, 1)
    return Embeddings(
        image_BD,
        text_BD,
        negative_BKD,
        unrelated_BMD,
        image_ND,
        text_ND,
        _gather(negative_RD) if all_negatives else negative_RD[:0],
    )


def _gather_pairs(image_BD: torch.Tensor, text_BD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Both towers' rows of all ranks, in one collective if both or none train."""
    if image_BD.requires_grad != text_BD.requires_grad:
        return _gather(image_BD), _gather(text_BD)
    return _gather(torch.cat([image_BD, text_BD], dim=1)).split(image_BD.shape[1], dim=1)


def _gather(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all ranks; a frozen tower gets no gradients."""
    return all_gather(rows) if rows.requires_grad else all_gather_no_grad(rows)


def gather_masks(
    used_BK: torch.Tensor,
    unrelated_used_BM: torch.Tensor,
    index_B2: torch.Tensor,
    number_BK: torch.Tensor | None,
    known: CaptionMasks | None = None,
) -> Masks:
    """The masks of this rank's rows among those of all ranks.

    Args:
        used_BK: bool: False for an empty slot of hard negatives.
        unrelated_used_BM: bool: False for an empty slot of captions of other images.
        index_B2: int64: numbers of the images and of their positive captions, equal on all ranks
            for equal ones.
        number_BK: int64, 0 or more: numbers of the hard negatives; None where images compete with
            their own only.
        known: Which masks a single rank needs, if that was found out on the host.
    """
    if number_BK is None:
        number_C = index_B2[:0, 0]
    else:  # -1 for an empty slot, so that one collective moves both
        number_C = all_gather_no_grad(number_BK.masked_fill(~used_BK, -1).flatten())
    used_C, index_N2 = number_C >= 0, all_gather_no_grad(index_B2)
    needed = _needed(known, number_C, used_C, index_N2)
    return Masks(
        used_BK,
        unrelated_used_BM,
        index_B2,
        index_N2,
        number_C,
        used_C,
        rank() * len(index_B2),
        needed.pairs_repeat,
        needed.negatives_vary,
    )


def _needed(
    known: CaptionMasks | None,
    number_C: torch.Tensor,
    used_C: torch.Tensor,
    index_N2: torch.Tensor,
) -> CaptionMasks:
    """Which masks are needed, without synchronizing with a device: a single rank uses what was
    computed on the host; several ranks on devices always use masks, which is correct but slower.
    """
    if world_size() == 1 and known is not None:
        return known
    if index_N2.device.type == "cpu":
        return CaptionMasks(pairs_repeat(index_N2), negatives_vary(number_C, used_C, index_N2))
    return CaptionMasks(True, True)


def mean_gap(inputs: LossInputs) -> torch.Tensor:
    """Mean of s_ii - h_ik over all ranks' used slots, one element; bitwise equal on all ranks."""
    total, count = all_gather_no_grad(gap_sums(inputs)[None]).sum(dim=0)
    return (total / count.clamp(min=1)).view(1)
