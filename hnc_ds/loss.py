"""The training objective as arithmetic: tensors in, scalars out.

Knows neither ranks nor models: what lies on other ranks is gathered before. Shapes: B rows of
this rank, N rows of all ranks, K hard-negative slots, M unrelated slots, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Features(NamedTuple):
    """Unit-length embeddings of one rank's rows, with what is needed to compare them."""

    image_BD: torch.Tensor
    text_BD: torch.Tensor
    """Of the positive captions."""
    negative_BKD: torch.Tensor
    """Of the hard negatives; empty slots hold anything finite."""
    negative_used_BK: torch.Tensor
    """bool: False for an empty slot."""
    unrelated_BMD: torch.Tensor
    """Of captions of other images."""
    unrelated_used_BM: torch.Tensor
    """bool: False for an empty slot."""


class Columns(NamedTuple):
    """What a rank's rows compete with: every rank's rows, in rank order."""

    image_ND: torch.Tensor
    text_ND: torch.Tensor
    excluded_BN: torch.Tensor
    """bool: True where the column is another true pair of the row (same image or same text)."""
    first_row: int
    """Column of this rank's first row (rank * B)."""


class LossTerms(NamedTuple):
    """Means over this rank's B rows, in nats."""

    total: torch.Tensor
    image_to_text: torch.Tensor
    text_to_image: torch.Tensor


def other_true_pairs(
    index_B2: torch.Tensor, index_N2: torch.Tensor, first_row: int
) -> torch.Tensor:
    """Which columns are true of a row though they are not its own: same image or same text.

    Args:
        index_B2: Numbers of this rank's images and of their positive captions; equal texts have
            equal numbers.
        index_N2: ``index_B2`` of all ranks, in rank order.
        first_row: Column of this rank's first row.

    Returns:
        bool [B, N], False at each row's own column.
    """
    same_BN = (index_B2[:, None] == index_N2).any(dim=2)
    own_B = torch.arange(len(index_B2), device=same_BN.device)
    same_BN[own_B, own_B + first_row] = False
    return same_BN


def contrastive_loss(
    features: Features, columns: Columns, logit_scale: torch.Tensor, alpha: float
) -> LossTerms:
    """Symmetric InfoNCE in which each image also competes with its own hard negatives.

    Image i's softmax runs over all N positive captions, its K hard negatives, each counted
    ``alpha`` times, and its M unrelated captions; caption i's runs over all N images. alpha
    multiplies the exponential, so it is + log(alpha) on the logit: 0 removes the negatives and
    leaves plain CLIP. Empty slots and ``excluded_BN`` are removed in the same way.

    Computed in float32, or in the features' precision if that is higher.

    Args:
        features: This rank's rows.
        columns: Every rank's rows.
        logit_scale: 1 / tau, a scalar or one element.
        alpha: Weight of a hard negative, 0 or more.

    Returns:
        L = L_i2t + L_t2i (the sum, not the mean) and its two parts.

    Raises:
        ValueError: If slots and their masks disagree in shape.

    Source: InfoNCE as in CLIP (Radford et al. 2021, figure 3); hard negatives on the text side
    only, as in NegCLIP (Yuksekgonul et al. 2023).
    """
    _check_shapes(features)
    at_least_float32 = torch.promote_types(features.image_BD.dtype, torch.float32)
    image_BD, text_BD, negative_BKD, unrelated_BMD = (
        part.to(at_least_float32)
        for part in (
            features.image_BD,
            features.text_BD,
            features.negative_BKD,
            features.unrelated_BMD,
        )
    )
    image_ND, text_ND = columns.image_ND.to(at_least_float32), columns.text_ND.to(at_least_float32)
    scale = logit_scale.to(at_least_float32)
    target_B = torch.arange(len(image_BD), device=image_BD.device) + columns.first_row

    weight_BK = features.negative_used_BK.to(at_least_float32) * alpha
    hard_BK = scale * torch.einsum("bd,bkd->bk", image_BD, negative_BKD) + weight_BK.log()
    unrelated_BM = scale * torch.einsum("bd,bmd->bm", image_BD, unrelated_BMD)
    unrelated_BM = unrelated_BM.masked_fill(~features.unrelated_used_BM, -torch.inf)
    row_BN = (scale * image_BD @ text_ND.T).masked_fill(columns.excluded_BN, -torch.inf)
    column_BN = (scale * text_BD @ image_ND.T).masked_fill(columns.excluded_BN, -torch.inf)

    image_to_text = F.cross_entropy(torch.cat([row_BN, hard_BK, unrelated_BM], dim=1), target_B)
    text_to_image = F.cross_entropy(column_BN, target_B)
    return LossTerms(image_to_text + text_to_image, image_to_text, text_to_image)


def _check_shapes(features: Features) -> None:
    for name, slots, used in (
        ("negatives", features.negative_BKD, features.negative_used_BK),
        ("unrelated captions", features.unrelated_BMD, features.unrelated_used_BM),
    ):
        if slots.shape[:2] != used.shape:
            raise ValueError(
                f"{name} are {tuple(slots.shape)} but their mask is {tuple(used.shape)}"
            )
