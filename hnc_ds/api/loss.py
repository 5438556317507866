"""The loss with hard negatives, of embeddings of any model.

B rows of this rank, K hard-negative slots, width D.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.config import LOSS_TERMS, PRESETS, LossConfig
from hnc_ds.distributed import rank
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.objective.loss_inputs import Embeddings, Masks
from hnc_ds.objective.terms import LossInputs, objective
from hnc_ds.training.gather import gather_embeddings, gather_masks, mean_gap

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Embeddings of images [B, D], of their captions [B, D] and of hard negatives [B, K, D]."""

SETTINGS = {field.name for field in fields(LossConfig)} - {
    *("terms", "alpha", "alpha_end", "alpha_steps", "alpha_schedule"),
    *("tau", "bias", "reference", "match_gamma"),
}
"""Settings of the loss that are passed by name; the others are arguments, or of a training."""

NO_TEXT = 2**62
"""Number of a hard negative that is no row's caption."""


def hard_negative_loss(
    image: torch.Tensor,
    text: torch.Tensor,
    negatives: torch.Tensor,
    used: torch.Tensor | None = None,
    *,
    alpha: float | None = None,
    tau: float | torch.Tensor = 0.07,
    terms: str | Sequence[str] | Mapping[str, float] = "hnc",
    bias: float | torch.Tensor = -10.0,
    reference: Triple | None = None,
    image_ids: torch.Tensor | None = None,
    text_ids: torch.Tensor | None = None,
    **settings: Any,
) -> torch.Tensor:
    """The objective of ``hnc-ds train`` on embeddings: the mean over this rank's rows, in nats.

    In a process group it is a collective: rows compete with those of all ranks, of which each has
    the same number. Where gradients are averaged over ranks, as DistributedDataParallel does, they
    are those of one process with the whole batch.

    Args:
        image: Embeddings of images [B, D], of any length, as cosines are compared.
        text: Embeddings of a true caption of each image [B, D].
        negatives: Embeddings of its hard negatives [B, K, D].
        used: bool [B, K]: False for an empty slot, whose embedding has no effect. All are used by
            default.
        alpha: Weight of each hard negative in the softmax; by default the preset's, or 1.
        tau: Temperature: a number, or a tensor of one element that trains.
        terms: A preset ('hnc', 'negclip', ...); or terms of 'hnc-ds train --terms': one, several,
            or their weights by name.
        bias: What the term sigmoid adds to the logits: a number, or a tensor of one element.
        reference: Embeddings of the same batch by the reference model, constants, for the terms
            that compare with it. Its temperature is ``tau``.
        image_ids: int64 [B], 0 or more: equal for rows of one image, which then do not compete. By
            default all images differ.
        text_ids: int64 [B], 0 or more: likewise for rows with the same caption.
        settings: Further settings of the loss by name: negatives_from, gamma, focal_gamma, ...

    Raises:
        UserError: Shapes that do not fit, an unknown name, a value out of range, or a term that
            needs more than is given.
    """
    config = _config(terms, alpha, settings)
    if not isinstance(tau, torch.Tensor) and tau <= 0:
        raise UserError(f"hard_negative_loss: tau is {tau}; it must be more than 0")
    with torch.autocast(image.device.type, enabled=False):  # products of unit rows need float32
        rows = _rows(image, text, negatives, used)
        inputs = LossInputs(
            _gathered(rows, config),
            _masks(rows, image_ids, text_ids, config),
            1 / _one_element(tau, rows),
            bias=_one_element(bias, rows),
        )
        inputs = _with_reference(inputs, reference, rows, config)
        if config.needs_mean_gap():
            inputs = inputs._replace(mean_gap=mean_gap(inputs))
        return objective(inputs, config, config.alpha).total


def _config(
    terms: str | Sequence[str] | Mapping[str, float], alpha: float | None, settings: dict[str, Any]
) -> LossConfig:
    for name in settings:
        if name not in SETTINGS:
            raise UserError(
                f"hard_negative_loss: no setting '{name}'{did_you_mean(name, SETTINGS)}; there are "
                f"{', '.join(sorted(SETTINGS))}"
            )
    own = {} if alpha is None else {"alpha": alpha}
    config = LossConfig(**{**_chosen(terms), **settings, **own})
    for name in config.weights():
        if LOSS_TERMS[name].on_weights or LOSS_TERMS[name].of_matches:
            raise UserError(f"hard_negative_loss: {name} is not of embeddings; use 'hnc-ds train'")
    return config


def _chosen(terms: str | Sequence[str] | Mapping[str, float]) -> dict[str, Any]:
    """Fields of LossConfig."""
    if not isinstance(terms, str):
        weights = terms if isinstance(terms, Mapping) else dict.fromkeys(terms, 1.0)
        return {"terms": dict(weights)}
    if terms in PRESETS:
        return {name: value for name, value in PRESETS[terms].items() if name != "reference"}
    if terms not in LOSS_TERMS:
        known = [*PRESETS, *LOSS_TERMS]
        raise UserError(
            f"hard_negative_loss: no preset or term '{terms}'{did_you_mean(terms, known)}; there "
            f"are {', '.join(known)}"
        )
    return {"terms": {terms: 1.0}}


class _Rows(NamedTuple):
    """This rank's rows, of unit length."""

    image_BD: torch.Tensor
    text_BD: torch.Tensor
    negative_BKD: torch.Tensor
    used_BK: torch.Tensor


def _rows(
    image_BD: torch.Tensor,
    text_BD: torch.Tensor,
    negative_BKD: torch.Tensor,
    used_BK: torch.Tensor | None,
) -> _Rows:
    if used_BK is None:
        used_BK = torch.ones(negative_BKD.shape[:2], dtype=torch.bool, device=image_BD.device)
    fits = image_BD.ndim == 2 and len(image_BD) and text_BD.shape == image_BD.shape
    of_negatives = negative_BKD.ndim == 3 and negative_BKD.shape[::2] == image_BD.shape
    if not (fits and of_negatives and used_BK.shape == negative_BKD.shape[:2]):
        shapes = (str([*part.shape]) for part in (image_BD, text_BD, negative_BKD, used_BK))
        raise UserError(
            "hard_negative_loss: image, text, negatives and used must be [B, D], [B, D], "
            f"[B, K, D] and [B, K], but are {', '.join(shapes)}"
        )
    if used_BK.dtype != torch.bool:
        raise UserError(f"hard_negative_loss: used must be bool, but is {used_BK.dtype}")
    known_BKD = negative_BKD.masked_fill(~used_BK[:, :, None], 0)
    return _Rows(_unit(image_BD), _unit(text_BD), _unit(known_BKD), used_BK)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


def _all(config: LossConfig) -> bool:
    """Whether images compete with the hard negatives of all images."""
    return config.negatives_from == "all_images"


def _gathered(rows: _Rows, config: LossConfig) -> Embeddings:
    unrelated_BMD = rows.negative_BKD[:, :0]
    return gather_embeddings(
        rows.image_BD, rows.text_BD, rows.negative_BKD, unrelated_BMD, _all(config)
    )


def _masks(
    rows: _Rows, image_ids: torch.Tensor | None, text_ids: torch.Tensor | None, config: LossConfig
) -> Masks:
    number_BK = torch.full_like(rows.used_BK, NO_TEXT, dtype=torch.int64)
    return gather_masks(
        rows.used_BK,
        rows.used_BK[:, :0],
        torch.stack([_ids(image_ids, rows), _ids(text_ids, rows)], dim=1),
        number_BK if _all(config) else None,
    )


def _with_reference(
    inputs: LossInputs, reference: Triple | None, rows: _Rows, config: LossConfig
) -> LossInputs:
    """With the embeddings by the reference model, if a term needs them."""
    if not config.needs_reference(on_weights=False):
        return inputs
    if reference is None:
        (name, *_) = (name for name in config.weights() if LOSS_TERMS[name].needs_reference)
        raise UserError(
            f"hard_negative_loss: {name} compares with a reference model; give its embeddings as "
            "reference=(image, text, negatives)"
        )
    image_BD, text_BD, negative_BKD = (part.detach() for part in reference)
    theirs = _gathered(_rows(image_BD, text_BD, negative_BKD, rows.used_BK), config)
    return inputs._replace(reference=theirs, reference_scale=inputs.scale.detach())


def _ids(given_B: torch.Tensor | None, rows: _Rows) -> torch.Tensor:
    """int64 [B]: as given, or all different."""
    count = len(rows.image_BD)
    if given_B is None:
        return rank() * count + torch.arange(count, device=rows.image_BD.device)
    if given_B.shape != (count,) or given_B.dtype != torch.int64:
        raise UserError(
            f"hard_negative_loss: ids must be int64 [{count}], but are {given_B.dtype} "
            f"{list(given_B.shape)}"
        )
    return given_B.to(rows.image_BD.device)


def _one_element(value: float | torch.Tensor, rows: _Rows) -> torch.Tensor:
    """In the rows' dtype, [1]."""
    made = torch.as_tensor(value, dtype=rows.image_BD.dtype, device=rows.image_BD.device)
    if made.numel() != 1:
        raise UserError(
            f"hard_negative_loss: tau and bias must be one number, but one is {[*made.shape]}"
        )
    return made.view(1)
