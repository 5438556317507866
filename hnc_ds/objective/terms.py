"""The terms of the objective. Any weighted sum of them can be trained.

A term is a function of this file with the name of its record in ``LOSS_TERMS``
(config/objective.py). It returns a mean over this rank's B rows, so that the mean over ranks is the
mean over all N rows. l2_sp is a function of the weights instead: engine.py adds its gradient.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from hnc_ds.config import LOSS_TERMS, LossConfig
from hnc_ds.objective.loss_inputs import (
    Embeddings,
    Masks,
    compute_dtype,
    image_to_text,
    text_to_image,
    true_pairs,
)
from hnc_ds.objective.softmax import (
    column_slices,
    cross_entropy,
    divergence,
    sigmoid_cross_entropy,
)

RECOMPUTED: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
"""Tiles are computed again in the backward pass, so that memory is linear in the batch."""

Parts = dict[str, torch.Tensor]
"""A term's summands by their name in the log; the term is their sum."""


class LossInputs(NamedTuple):
    """Everything that a step's terms are computed from."""

    embeddings: Embeddings
    """Under the model that trains."""
    masks: Masks
    scale: torch.Tensor
    """1 / tau, one element."""
    reference: Embeddings | None = None
    """Under the reference model; constants. Only for the terms that need it."""
    reference_scale: torch.Tensor | None = None
    """1 / tau of the reference model."""
    bias: torch.Tensor | None = None
    """Added to the logits of ``sigmoid``, one element."""
    mean_gap: torch.Tensor | None = None
    """Mean of s_ii - h_ik over the used slots of all ranks, one element; a constant. Only for the
    terms that need it."""
    further: "tuple[LossInputs, ...]" = ()
    """The same images with their further positives, one each."""


class LossTerms(NamedTuple):
    """Means over this rank's B rows, in nats."""

    total: torch.Tensor
    parts: Parts
    """Before their weights."""


def objective(inputs: LossInputs, config: LossConfig, alpha: float) -> LossTerms:
    """The weighted sum of the terms, computed in float32 or in the embeddings' dtype if wider.

    Where images have several positives, the mean over them, as in CLIC (Peleg et al. 2025): the
    first positives of all images compete with each other, the second ones with each other, ...

    Args:
        inputs: This rank's rows and what they compete with.
        config: Which terms, their weights and constants.
        alpha: Weight of a hard negative at this step, 0 or more.

    Raises:
        ValueError: If slots and their masks disagree in shape.
    """
    if inputs.further:
        each = inputs._replace(further=()), *inputs.further
        return _mean([objective(of_one, config, alpha) for of_one in each])
    inputs = _in_compute_dtype(inputs)
    parts: Parts = {}
    weighted: list[torch.Tensor] = []
    for name, weight in config.weights().items():
        if name in TERMS:
            found = TERMS[name](inputs, config, alpha)
            parts.update(found)
            weighted += [part if weight == 1 else weight * part for part in found.values()]
    total = functools.reduce(torch.add, weighted) if weighted else inputs.scale.new_zeros(())
    return LossTerms(total, parts)


def _mean(found: Sequence[LossTerms]) -> LossTerms:
    """The mean over positives."""
    names = found[0].parts
    parts = {name: torch.stack([terms.parts[name] for terms in found]).mean() for name in names}
    return LossTerms(torch.stack([terms.total for terms in found]).mean(), parts)


def contrastive(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """Symmetric InfoNCE in which each image also competes with hard negatives.

    Image i's softmax runs over all N positive captions, hard negatives, each counted ``alpha``
    times, and its M unrelated captions; caption i's runs over all N images. The hard negatives are
    its own K, or those of all images (``negatives_from``). alpha multiplies the exponential, so
    log(alpha) is added to the logit: 0 removes the negatives and leaves plain CLIP. Empty slots and
    other true pairs are masked.

    Returns:
        L_i2t and L_t2i; the term is their sum, not their mean.

    Source: InfoNCE as in CLIP (Radford et al. 2021, figure 3); hard negatives on the text side
    only, as in NegCLIP (Yuksekgonul et al. 2023), whose negatives are those of all images.
    """
    embeddings, masks, scale, *_ = inputs
    to_text = cross_entropy(image_to_text(embeddings, masks, _log(alpha)), scale)
    to_image = cross_entropy(text_to_image(embeddings, masks), scale)
    return {"image_to_text": to_text.mean(), "text_to_image": to_image.mean()}


def sigmoid(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """-sum over captions j of log sigmoid(z_ij (s_ij / tau + bias)); z is 1 for i's own, else -1.

    An image's captions are all N positives, its hard negatives, each counted ``alpha`` times, and
    its M unrelated ones; the hard negatives are its own K, or those of all images
    (``negatives_from``). Empty slots and other true pairs are left out. A pair is one question, so
    there is one direction.

    Source: SigLIP (Zhai et al. 2023, algorithm 1), which has neither hard negatives nor masks.
    """
    if inputs.bias is None:
        raise ValueError("sigmoid needs the model's logit_bias")
    direction = image_to_text(inputs.embeddings, inputs.masks, _log(alpha))
    return {"sigmoid": sigmoid_cross_entropy(direction, inputs.scale, inputs.bias).mean()}


def margin(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """max(0, gamma - s_ii + h_ik) in cosines; mean over an image's used slots, then over images.

    Source: Structure-CLIP (Huang et al. 2024), whose gamma is 0.2.
    """
    short_BK = F.relu(config.gamma - _similarity_gap(inputs.embeddings))
    return {"margin": _mean_of_used(short_BK, inputs.masks.negative_used_BK)}


def adaptive_margin(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """max(0, threshold - (s_ii - h_ik) / tau); mean over an image's used slots, then over images.

    The threshold is the mean of (s_ii - h_ik) / tau over the used slots of all ranks, a constant
    from 0 to ``margin_bound``. So it grows as the model learns to separate.

    Source: cross-modal rank loss of CE-CLIP (Zhang et al. 2024), whose threshold is the mean of the
    step before, for each negative type, and 0 at the first step. This is the step's own, so that a
    resumed run has no state to restore, and one for all types.
    """
    if inputs.mean_gap is None:
        raise ValueError("adaptive_margin needs the mean over all ranks")
    threshold = (inputs.scale.detach() * inputs.mean_gap).clamp(0, config.margin_bound)
    short_BK = F.relu(threshold - inputs.scale * _similarity_gap(inputs.embeddings))
    return {"adaptive_margin": _mean_of_used(short_BK, inputs.masks.negative_used_BK)}


def hard_negative(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """-sum_c y_c (1 - p_c)^focal_gamma log p_c; mean over images, 0 for one without negatives.

    p is the softmax of the image among its positive and its used hard negatives alone; y is 1 for
    the positive, mixed with the uniform distribution by ``label_smoothing``.

    Source: selective calibrated regularization of FSC-CLIP (Oh et al. 2024), its global loss.
    Without focal weight and smoothing it is DeGLA's image-grounded contrast (Hu et al. 2025) and,
    with one negative, CLIC's loss of hard negatives (Peleg et al. 2025).
    """
    own, used_BK = inputs.embeddings, inputs.masks.negative_used_BK
    log_BC = _own_log_softmax(inputs.scale * own.image_BD, own.text_BD, inputs)
    loss_BC = -log_BC
    if config.focal_gamma:
        loss_BC = (-log_BC.expm1()) ** config.focal_gamma * loss_BC
    mean_B = loss_BC.sum(dim=1) / (1 + used_BK.sum(dim=1))
    return {"hard_negative": loss_BC[:, 0].lerp(mean_B, config.label_smoothing).mean()}


def sighted(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """-log of the softmax of an image's positive among itself and its used hard negatives, by the
    image's embedding less the mean of others; mean over images, 0 for one without negatives.

    Only what the image adds to what the captions are worth on other images, those of all ranks that
    i's positive is not known to be true of, counts: fluency neither helps nor harms.
    """
    seen_BD = inputs.embeddings.image_BD - _mean_of_others(inputs)
    log_BC = _own_log_softmax(inputs.scale * seen_BD, inputs.embeddings.text_BD, inputs)
    return {"sighted": -log_BC[:, 0].mean()}


def _mean_of_others(inputs: LossInputs) -> torch.Tensor:
    """Mean embedding of the images of all ranks that a row's positive is not known to be true of,
    [B, D]; 0 if there is none."""
    image_ND, masks = inputs.embeddings.image_ND, inputs.masks
    rows, images = len(inputs.embeddings.text_BD), len(image_ND)
    if not masks.pairs_repeat:
        return (image_ND.sum(dim=0) - inputs.embeddings.image_BD) / max(1, images - 1)
    sum_BD, count_B1 = image_ND.sum(dim=0), image_ND.new_full((rows, 1), images)
    for columns in column_slices(rows, images, image_ND.device):
        given = image_ND[columns], masks, columns
        true_BD, true_B1 = checkpoint(_true_images, *given, **RECOMPUTED)
        sum_BD, count_B1 = sum_BD - true_BD, count_B1 - true_B1
    return sum_BD / count_B1.clamp(min=1)


def _true_images(
    image_ED: torch.Tensor, masks: Masks, columns: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum [B, D] and number [B, 1] of the images that a row's positive is true of."""
    true_BE = true_pairs(masks, columns).T.to(image_ED.dtype)
    return true_BE @ image_ED, true_BE.sum(dim=1, keepdim=True)


def intra_modal(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """-log of the softmax of a positive u_i among itself and its used hard negatives, by cosines of
    captions over ``text_tau``; mean over images, 0 for one without negatives.

    Source: the purpose of CE-CLIP's intra-modal contrastive loss (Zhang et al. 2024). The authors'
    code is not followed: it has the first negative in the place of u_i, and so pulls every caption
    towards it (their issue 15).
    """
    text_BD = inputs.embeddings.text_BD
    return {"intra_modal": _among_texts(text_BD, text_BD, inputs, config)}


def text_grounded(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """``intra_modal`` with the reference model's embedding of the positive in place of u_i among
    the captions.

    Source: text-grounded contrast of DeGLA (Hu et al. 2025), with tau 0.1. Their code takes the
    hard negatives of other captions (a mask of the other order); these are the caption's own.
    """
    wanted_BD = _reference(inputs).text_BD.detach()
    return {"text_grounded": _among_texts(inputs.embeddings.text_BD, wanted_BD, inputs, config)}


def _among_texts(
    text_BD: torch.Tensor, wanted_BD: torch.Tensor, inputs: LossInputs, config: LossConfig
) -> torch.Tensor:
    scale = inputs.scale if config.text_tau is None else 1 / config.text_tau
    return -_own_log_softmax(scale * text_BD, wanted_BD, inputs)[:, 0].mean()


def _own_log_softmax(
    scaled_BD: torch.Tensor, wanted_BD: torch.Tensor, inputs: LossInputs
) -> torch.Tensor:
    """Logarithm of each row's softmax over what it should choose and its own hard negatives,
    [B, 1 + K]; 0 for an empty slot."""
    wanted_B1 = (scaled_BD * wanted_BD).sum(dim=1, keepdim=True)
    others_BK = torch.einsum("bd,bkd->bk", scaled_BD, inputs.embeddings.negative_BKD)
    empty_BC = F.pad(~inputs.masks.negative_used_BK, (1, 0))
    logits_BC = torch.cat([wanted_B1, others_BK], dim=1)
    log_BC = logits_BC.masked_fill(empty_BC, -math.inf).log_softmax(dim=1)
    return log_BC.masked_fill(empty_BC, 0)


def blind(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """((t_ji - h_jik) / tau)^2, where image j is compared with i's positive and its hard negatives.

    Mean over the images j of all ranks that i's positive is not known to be true of, then over i's
    used slots, then over images i. A preference that an image has for i's positive although it
    shows something else comes from the captions alone: their fluency, or the words in which
    negatives differ. Without it, a lead of the positive has to come from the image.

    tau is a constant here, as a larger one would lower the term.
    """
    embeddings, masks = inputs.embeddings, inputs.masks
    rows, slots, _ = embeddings.negative_BKD.shape
    gap_BKD = inputs.scale.detach() * (embeddings.text_BD[:, None] - embeddings.negative_BKD)
    sum_BK, count_B = gap_BKD.new_zeros(rows, slots), gap_BKD.new_zeros(rows)
    for columns in column_slices(rows * slots, len(embeddings.image_ND), gap_BKD.device):
        count_B += (~true_pairs(masks, columns)).sum(dim=0)
        given = embeddings.image_ND[columns], gap_BKD, masks, columns
        sum_BK = sum_BK + checkpoint(_squares, *given, **RECOMPUTED)
    mean_BK = sum_BK / count_B.clamp(min=1)[:, None]
    return {"blind": _mean_of_used(mean_BK, masks.negative_used_BK)}


def blind_mean(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """(mean over j of (t_ji - h_jik) / tau)^2: ``blind`` with the mean over images j within the
    square, then the mean over i's used slots and over images i.

    What captions are worth on average is pushed to 0, and images may still differ in their
    preference, as they do where a word is true of one and not of another.
    """
    embeddings = inputs.embeddings
    gap_BKD = inputs.scale.detach() * (embeddings.text_BD[:, None] - embeddings.negative_BKD)
    mean_BK = torch.einsum("bd,bkd->bk", _mean_of_others(inputs), gap_BKD)
    return {"blind_mean": _mean_of_used(mean_BK.square(), inputs.masks.negative_used_BK)}


def _squares(
    image_ED: torch.Tensor, gap_BKD: torch.Tensor, masks: Masks, columns: slice
) -> torch.Tensor:
    """Sum over images of squared products, those of true pairs left out; [B, K]."""
    product_EBK = (image_ED @ gap_BKD.flatten(0, 1).T).unflatten(1, gap_BKD.shape[:2])
    true_EB1 = true_pairs(masks, columns)[:, :, None]
    return product_EBK.masked_fill(true_EB1, 0).square().sum(dim=0)


def preference(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """-log sigmoid(beta * (gap - the reference model's gap) / tau), where gap is s_ii - h_ik.

    Mean over an image's used slots, then over images.

    Source: Direct Preference Optimization (Rafailov et al. 2023) with similarities over tau in
    place of log-probabilities.
    """
    gained_BK = _similarity_gap(inputs.embeddings) - _similarity_gap(_reference(inputs)).detach()
    loss_BK = -F.logsigmoid(config.beta * inputs.scale * gained_BK)
    return {"preference": _mean_of_used(loss_BK, inputs.masks.negative_used_BK)}


def distill(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """KL(reference model || model) of the softmaxes of ``contrastive``, both directions added.

    Both models' softmaxes use one temperature, ``distill_tau`` or the reference model's, which is a
    constant: the term has no gradient for the temperature that trains.
    """
    reference, scale = _reference(inputs), _distill_scale(inputs, config)
    log_alpha = _log(alpha) if config.distill_negatives else -math.inf
    to_text, to_image = (
        (image_to_text(of, inputs.masks, log_alpha), text_to_image(of, inputs.masks))
        for of in (inputs.embeddings, reference)
    )
    to_text_B, to_image_B = (
        divergence(ours, theirs, scale) for ours, theirs in zip(to_text, to_image, strict=True)
    )
    return {"distill": (to_text_B + to_image_B).mean()}


def feature_distill(inputs: LossInputs, config: LossConfig, alpha: float) -> Parts:
    """Squared distances of an image's, its positive's and, each ``alpha`` times, its used hard
    negatives' embeddings from the reference model's, added; mean over images.

    Source: self-distillation of DeGLA (Hu et al. 2025), whose reference is a moving average.
    """
    ours, theirs, used_BK = inputs.embeddings, _reference(inputs), inputs.masks.negative_used_BK
    image_B, text_B, negative_BK = (
        (getattr(ours, name) - getattr(theirs, name).detach()).square().sum(dim=-1)
        for name in ("image_BD", "text_BD", "negative_BKD")
    )
    of_negatives_B = negative_BK.masked_fill(~used_BK, 0).sum(dim=1)
    weight = alpha if config.distill_negatives else 0.0
    return {"feature_distill": (image_B + text_B + weight * of_negatives_B).mean()}


TERMS: Mapping[str, Callable[[LossInputs, LossConfig, float], Parts]] = {
    name: globals()[name]
    for name, term in LOSS_TERMS.items()
    if not (term.on_weights or term.of_matches)
}
"""Terms that are functions of embeddings, by name."""


def _similarity_gap(embeddings: Embeddings) -> torch.Tensor:
    """s_ii - h_ik: by how much the positive is more similar, cosines [B, K]."""
    image_BD = embeddings.image_BD
    positive_B = (image_BD * embeddings.text_BD).sum(dim=1)
    return positive_B[:, None] - torch.einsum("bd,bkd->bk", image_BD, embeddings.negative_BKD)


def gap_sums(inputs: LossInputs) -> torch.Tensor:
    """Sum of s_ii - h_ik over this rank's used slots, and their number, [2]; a constant."""
    inputs, used_BK = _in_compute_dtype(inputs), inputs.masks.negative_used_BK
    gap_BK = _similarity_gap(inputs.embeddings).detach().masked_fill(~used_BK, 0)
    return torch.stack([gap_BK.sum(), used_BK.sum().to(gap_BK)])


def _mean_of_used(values_BK: torch.Tensor, used_BK: torch.Tensor) -> torch.Tensor:
    """Mean over the used slots of a row, 0 for a row without, then over the rows."""
    count_B = used_BK.sum(dim=1).clamp(min=1)
    return (values_BK.masked_fill(~used_BK, 0).sum(dim=1) / count_B).mean()


def _reference(inputs: LossInputs) -> Embeddings:
    if inputs.reference is None:
        raise ValueError("this term needs the embeddings of the reference model")
    return inputs.reference


def _distill_scale(inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    if config.distill_tau is not None:
        return inputs.scale.detach().new_full((1,), 1 / config.distill_tau)
    if inputs.reference_scale is None:
        raise ValueError("distill needs the temperature of the reference model, or distill_tau")
    return inputs.reference_scale


def _log(alpha: float) -> float:
    return math.log(alpha) if alpha > 0 else -math.inf


def _in_compute_dtype(inputs: LossInputs) -> LossInputs:
    dtype = compute_dtype(inputs.embeddings)

    def converted(embeddings: Embeddings) -> Embeddings:
        return Embeddings(*(part.to(dtype) for part in embeddings))

    return LossInputs(
        converted(inputs.embeddings),
        inputs.masks,
        inputs.scale.to(dtype),
        converted(inputs.reference) if inputs.reference else None,
        inputs.reference_scale.to(dtype) if inputs.reference_scale is not None else None,
        inputs.bias.to(dtype) if inputs.bias is not None else None,
        inputs.mean_gap.to(dtype) if inputs.mean_gap is not None else None,
    )
