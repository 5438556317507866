"""The terms of image-text matching models, on log-odds of a match.

A term is a function of this file with the name of its record in ``LOSS_TERMS``
(config/objective.py). Each is a mean over this rank's B rows, so that the mean over ranks is the
mean over all rows, and so is that over equal parts of a batch.

B rows, K hard-negative slots, M unrelated slots.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.config import LOSS_TERMS, LossConfig
from hnc_ds.objective.terms import LossTerms


class MatchInputs(NamedTuple):
    """Log-odds that captions match their row's image, float32; empty slots hold any numbers.
    Captions that are drawn from the batch are unrelated ones too."""

    positive_B: torch.Tensor
    hard_BK: torch.Tensor
    unrelated_BM: torch.Tensor
    hard_used_BK: torch.Tensor
    """bool: False for an empty slot."""
    unrelated_used_BM: torch.Tensor
    """bool: False for an empty slot."""


def match_objective(inputs: MatchInputs, config: LossConfig, alpha: float) -> LossTerms:
    """The weighted sum of the terms.

    Args:
        inputs: This rank's rows.
        config: Which terms, their weights and constants.
        alpha: Weight of a hard negative beside an unrelated caption, 0 or more.
    """
    weights = {name: weight for name, weight in config.weights().items() if name in MATCH_TERMS}
    parts = {name: MATCH_TERMS[name](inputs, config, alpha) for name in weights}
    weighted = [weight * parts[name] for name, weight in weights.items()]
    return LossTerms(functools.reduce(torch.add, weighted), parts)


def itm(inputs: MatchInputs, config: LossConfig, alpha: float) -> torch.Tensor:
    """Binary cross-entropy of match and no match, each class with weight 1/2 in every row.

    -1/2 log P(match | positive) - 1/2 * the weighted mean over the row's negatives of
    log P(no match | negative), in which a hard negative has weight alpha and an unrelated caption
    weight 1. A row without negatives has the first half alone.

    Source: the image-text matching loss of ViLBERT and UNITER, as in HNC (Doenmez et al. 2023) and
    ALBEF; the class weights are this project's.
    """
    weight_BS = torch.cat([alpha * inputs.hard_used_BK, inputs.unrelated_used_BM], dim=1)
    wrong_BS = F.softplus(torch.cat([inputs.hard_BK, inputs.unrelated_BM], dim=1))
    sum_B = (weight_BS * wrong_BS.masked_fill(weight_BS == 0, 0)).sum(dim=1)
    total_B = weight_BS.sum(dim=1)
    wrong_B = sum_B / total_B.masked_fill(total_B == 0, 1)
    return ((F.softplus(-inputs.positive_B) + wrong_B) / 2).mean()


def match_margin(inputs: MatchInputs, config: LossConfig, alpha: float) -> torch.Tensor:
    """max(0, match_gamma - p_i + h_ik) in log-odds; mean over an image's used slots, then over
    images; 0 for an image without hard negatives."""
    short_BK = (config.match_gamma - inputs.positive_B[:, None] + inputs.hard_BK).clamp(min=0)
    used_BK = inputs.hard_used_BK
    count_B = used_BK.sum(dim=1).clamp(min=1)
    return (short_BK.masked_fill(~used_BK, 0).sum(dim=1) / count_B).mean()


MATCH_TERMS: Mapping[str, Callable[[MatchInputs, LossConfig, float], torch.Tensor]] = {
    name: globals()[name] for name, term in LOSS_TERMS.items() if term.of_matches
}
"""The terms by name; ``LOSS_TERMS`` is the table."""
