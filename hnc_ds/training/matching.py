"""One optimizer step of an image-text matching model, and what a run of one refuses.

Each image goes through its tower once; its positive, its hard negatives and its unrelated captions
are matched with what the tower gave. Rows do not compete with other rows, so parts of a batch are
independent: each adds its share of the gradient.

B rows of this rank, K hard-negative slots, M unrelated slots.
"""

from typing import Any

import torch

from hnc_ds.config import DataConfig, LossConfig, ScopeConfig, TrainConfig
from hnc_ds.engine.engine import Engine
from hnc_ds.errors import UserError
from hnc_ds.metrics import Similarities
from hnc_ds.model.load import CROSS_ENCODERS
from hnc_ds.objective.matching import MatchInputs, match_objective
from hnc_ds.objective.terms import LossTerms
from hnc_ds.shards.loader import EMPTY, Batch


def step(
    engine: Engine, batch: Batch, loss: LossConfig, alpha: float, seed: int
) -> tuple[LossTerms, MatchInputs]:
    """Forward, backward and optimizer step of a batch.

    Args:
        engine: Of a ``CrossEncoder``; its ``micro_batches`` divides the rows.
        batch: This rank's rows, on the engine's device.
        loss: The terms.
        alpha: Weight of a hard negative at this step.
        seed: Seed for dropout.
    """
    rows, parts = len(batch.positive_B), engine.micro_batches
    terms, inputs = list[LossTerms](), list[MatchInputs]()
    for number in range(parts):
        torch.manual_seed(seed + number)
        own = slice(number * rows // parts, (number + 1) * rows // parts)
        inputs.append(_match(engine.forward, batch, own))
        terms.append(match_objective(inputs[-1], loss, alpha))
        engine.backward_and_step(terms[-1].total / parts)
    names = terms[0].parts
    mean = {name: torch.stack([one.parts[name].detach() for one in terms]).mean() for name in names}
    total = torch.stack([one.total.detach() for one in terms]).mean()
    joined = (torch.cat([part.detach() for part in column]) for column in zip(*inputs, strict=True))
    return LossTerms(total, mean), MatchInputs(*joined)


def _match(forward: Any, batch: Batch, own: slice) -> MatchInputs:
    """Log-odds of some rows; an empty slot is matched with the first caption."""
    slots_BS = torch.cat(
        [batch.positive_B[own, None], batch.negative_BK[own], batch.unrelated_BM[own]], dim=1
    )
    odds_BS = forward(batch.images_B3RR[own], batch.token_TL, batch.used_T, slots_BS.clamp(min=0))
    slots = [1, batch.negative_BK.shape[1], batch.unrelated_BM.shape[1]]
    positive_B1, hard_BK, unrelated_BM = odds_BS.float().split(slots, dim=1)
    used = batch.negative_BK[own] != EMPTY, batch.unrelated_BM[own] != EMPTY
    return MatchInputs(positive_B1[:, 0], hard_BK, unrelated_BM, *used)


def similarities(inputs: MatchInputs) -> Similarities:
    """Log-odds in place of cosines; captions of other images are the unrelated ones."""
    others_BM = inputs.unrelated_BM.masked_fill(~inputs.unrelated_used_BM, -torch.inf)
    none_B1 = torch.full_like(inputs.positive_B[:, None], -torch.inf)
    return Similarities(
        inputs.positive_B,
        inputs.hard_BK.masked_fill(~inputs.hard_used_BK, -torch.inf),
        inputs.unrelated_BM.masked_fill(~inputs.unrelated_used_BM, 0).sum(dim=1),
        inputs.unrelated_used_BM.sum(dim=1),
        torch.cat([none_B1, others_BM], dim=1).amax(dim=1),
        others_BM,
    )


def check_settings(config: TrainConfig) -> None:
    """Refuse settings that an image-text matching model does not have, and terms of the other kind
    of model.

    Raises:
        UserError: Names the setting.
    """
    matches = config.model.model.startswith(CROSS_ENCODERS)
    if wrong := [name for name in config.loss.weights() if config.loss.is_match(name) != matches]:
        raise UserError(
            f"terms: {wrong[0]} needs embeddings, which {config.model.model} does not have; it "
            "has the terms itm and match_margin"
            if matches
            else f"terms: {wrong[0]} is of image-text matching models; name one, --model hf:..."
        )
    if not matches:
        return
    plain_scope, plain_data = ScopeConfig(), DataConfig()
    unfit = {
        "pretrained": config.model.pretrained is not None,
        "towers, last_blocks, lora_rank and train_temperature": config.scope != plain_scope,
        "compile": config.compile,
        "encode_images_once": config.encode_images_once == "always",
        "positives": config.data.positives != plain_data.positives,
        "tau": config.loss.tau is not None,
        "negatives_from": config.loss.negatives_from != "own_image",
    }
    for name, is_given in unfit.items():
        if is_given:
            raise UserError(f"{name}: is not for image-text matching models (--model hf:...)")
    if not (config.data.hard_negatives or config.data.unrelated_negatives):
        raise UserError(
            "itm needs captions that do not match; give --hard_negatives or --unrelated_negatives"
        )
