"""The terms of the objective, any weighted sum of which can be trained, and their table.

Each term is a mean over this rank's B rows, so that the mean over ranks is that over all N rows.
The pull to the start weights, l2_to_start, is not a function of embeddings; engine.py adds it.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.config import LossConfig
from hnc_ds.objective.rows import Rows, Slots, image_side, text_side, wide
from hnc_ds.objective.softmax import cross_entropy, divergence

Parts = dict[str, torch.Tensor]
"""By the name under which the log has it; the term is their sum."""


class Compared(NamedTuple):
    """Everything a step's terms are made of."""

    rows: Rows
    """Under the model that trains."""
    slots: Slots
    scale: torch.Tensor
    """1 / tau, one element."""
    start: Rows | None = None
    """Under the start model; constants. Only for the terms that need it."""
    start_scale: torch.Tensor | None = None
    """1 / tau of the start model."""


class LossTerms(NamedTuple):
    """Means over this rank's B rows, in nats."""

    total: torch.Tensor
    parts: Parts
    """Before their weights."""


def objective(compared: Compared, config: LossConfig, alpha: float) -> LossTerms:
    """The weighted sum of the terms, computed in float32 or in the rows' precision if higher.

    Args:
        compared: This rank's rows and what they compete with.
        config: Which terms, and their constants.
        alpha: Weight of a hard negative at this step, 0 or more.

    Raises:
        ValueError: If slots and their masks disagree in shape.
    """
    compared = _widened(compared)
    parts: Parts = {}
    weighted: list[torch.Tensor] = []
    for name, weight in config.weights().items():
        if name in TERMS:
            found = TERMS[name](compared, config, alpha)
            parts.update(found)
            weighted += [part if weight == 1 else weight * part for part in found.values()]
    return LossTerms(_sum(weighted, compared.scale), parts)


def contrastive(compared: Compared, config: LossConfig, alpha: float) -> Parts:
    """Symmetric InfoNCE in which each image also competes with hard negatives.

    Image i's softmax runs over all N positive captions, hard negatives, each counted ``alpha``
    times, and its M unrelated captions; caption i's runs over all N images. The hard negatives are
    its own K, or those of all images (``negatives_from``). alpha multiplies the exponential, so it
    is + log(alpha) on the logit: 0 removes the negatives and leaves plain CLIP. Empty slots and
    other true pairs are removed in the same way.

    Returns:
        L_i2t and L_t2i; the term is their sum, not their mean.

    Source: InfoNCE as in CLIP (Radford et al. 2021, figure 3); hard negatives on the text side
    only, as in NegCLIP (Yuksekgonul et al. 2023), whose negatives are those of all images.
    """
    rows, slots, scale, *_ = compared
    return {
        "image_to_text": cross_entropy(image_side(rows, slots, _log(alpha)), scale).mean(),
        "text_to_image": cross_entropy(text_side(rows, slots), scale).mean(),
    }


def margin(compared: Compared, config: LossConfig, alpha: float) -> Parts:
    """max(0, gamma - s_ii + h_ik) in cosines; mean over an image's used slots, then over images.

    Source: Structure-CLIP (Huang et al. 2024), whose gamma is 0.2.
    """
    short_BK = F.relu(config.gamma - _lead(compared.rows))
    return {"margin": _mean_of_used(short_BK, compared.slots.negative_used_BK)}


def preference(compared: Compared, config: LossConfig, alpha: float) -> Parts:
    """-log sigmoid(beta * (lead - the start model's lead) / tau), lead being s_ii - h_ik.

    Mean over an image's used slots, then over images.

    Source: Direct Preference Optimization (Rafailov et al. 2023) with similarities over tau in
    place of log-probabilities.
    """
    gained_BK = _lead(compared.rows) - _lead(_start(compared)).detach()
    loss_BK = -F.logsigmoid(config.beta * compared.scale * gained_BK)
    return {"preference": _mean_of_used(loss_BK, compared.slots.negative_used_BK)}


def distill(compared: Compared, config: LossConfig, alpha: float) -> Parts:
    """KL(start model || model) of the softmaxes of ``contrastive``, both directions added.

    Both are taken at one temperature of this term's own: ``distill_tau``, or the start model's.
    The term therefore has no say in the temperature that trains.
    """
    start, scale = _start(compared), _distill_scale(compared, config)
    log_alpha = _log(alpha) if config.distill_negatives else -math.inf
    sides = (
        (
            image_side(compared.rows, compared.slots, log_alpha),
            image_side(start, compared.slots, log_alpha),
        ),
        (text_side(compared.rows, compared.slots), text_side(start, compared.slots)),
    )
    to_text_B, to_image_B = (divergence(side, before, scale) for side, before in sides)
    return {"distill": (to_text_B + to_image_B).mean()}


TERMS: Mapping[str, Callable[[Compared, LossConfig, float], Parts]] = {
    "contrastive": contrastive,
    "margin": margin,
    "preference": preference,
    "distill": distill,
}
"""The terms that are functions of embeddings, by the names of ``--terms``."""


def _lead(rows: Rows) -> torch.Tensor:
    """s_ii - h_ik: by how much the positive is more similar, cosines [B, K]."""
    positive_B = (rows.image_BD * rows.text_BD).sum(dim=1)
    return positive_B[:, None] - torch.einsum("bd,bkd->bk", rows.image_BD, rows.negative_BKD)


def _mean_of_used(values_BK: torch.Tensor, used_BK: torch.Tensor) -> torch.Tensor:
    """Mean over the used slots of a row, 0 for a row without, then over the rows."""
    count_B = used_BK.sum(dim=1).clamp(min=1)
    return (values_BK.masked_fill(~used_BK, 0).sum(dim=1) / count_B).mean()


def _sum(values: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Of numbers, in order; 0 of none."""
    return functools.reduce(torch.add, values) if values else like.new_zeros(())


def _start(compared: Compared) -> Rows:
    if compared.start is None:
        raise ValueError("this term compares with the start model, whose rows are not given")
    return compared.start


def _distill_scale(compared: Compared, config: LossConfig) -> torch.Tensor:
    if config.distill_tau is not None:
        return compared.scale.detach().new_full((1,), 1 / config.distill_tau)
    if compared.start_scale is None:
        raise ValueError("distill needs the start model's temperature, or distill_tau")
    return compared.start_scale


def _log(alpha: float) -> float:
    return math.log(alpha) if alpha > 0 else -math.inf


def _widened(compared: Compared) -> Compared:
    dtype = wide(compared.rows)

    def widened(rows: Rows) -> Rows:
        return Rows(*(part.to(dtype) for part in rows))

    return Compared(
        widened(compared.rows),
        compared.slots,
        compared.scale.to(dtype),
        widened(compared.start) if compared.start else None,
        compared.start_scale.to(dtype) if compared.start_scale is not None else None,
    )
