"""One optimizer step of an image-text matching model, and what a run of one refuses.

Each image goes through its tower once; its positive, its hard negatives and its unrelated captions
are matched with what the tower gave. Rows do not compete with other rows, so parts of a batch are
independent: each adds its share of the gradient. Models with contrastive heads also have the terms
of CLIP models, and draw captions of other images that these heads find similar; both need the whole
batch.

B rows of this rank, N of all, T distinct captions of this rank, K hard-negative slots, M unrelated
slots, L tokens, width D.
"""

from typing import Any

import torch
import torch.nn.functional as F

from hnc_ds.config import DataConfig, LossConfig, ScopeConfig, TrainConfig
from hnc_ds.distributed import all_gather_no_grad, rank
from hnc_ds.engine.engine import Engine
from hnc_ds.errors import UserError
from hnc_ds.metrics import Similarities
from hnc_ds.model.load import CROSS_ENCODERS
from hnc_ds.objective.matching import MatchInputs, match_objective
from hnc_ds.objective.terms import LossTerms, objective
from hnc_ds.shards.loader import EMPTY, Batch
from hnc_ds.training.grad_cache import Embedded, gather_inputs

TAU = 0.07
"""Temperature of the contrastive heads when none is given, as in ALBEF and BLIP; files of
transformers do not have theirs."""


def step(
    engine: Engine, batch: Batch, config: TrainConfig, alpha: float, seeds: tuple[int, int]
) -> tuple[LossTerms, MatchInputs]:
    """Forward, backward and optimizer step of a batch.

    Args:
        engine: Of a ``CrossEncoder``; its ``micro_batches`` divides the rows.
        batch: This rank's rows, on the engine's device.
        config: The run's.
        alpha: Weight of a hard negative at this step.
        seeds: Of this rank's dropout, and of what is drawn from the batches of all ranks.
    """
    seed, draws = seeds
    loss = config.loss
    rows, parts = len(batch.positive_B), engine.micro_batches
    terms, inputs = list[LossTerms](), list[MatchInputs]()
    for number in range(parts):
        torch.manual_seed(seed + number)
        own = slice(number * rows // parts, (number + 1) * rows // parts)
        found, embeddings = _match(engine.forward, batch, own, config, draws)
        inputs.append(found)
        terms.append(match_objective(found, loss, alpha))
        if contrasts(loss):
            terms[-1] = _sum(terms[-1], _contrast(embeddings, batch, loss, alpha))
        engine.backward_and_step(terms[-1].total / parts)
    names = terms[0].parts
    mean = {name: torch.stack([one.parts[name].detach() for one in terms]).mean() for name in names}
    total = torch.stack([one.total.detach() for one in terms]).mean()
    joined = (torch.cat([part.detach() for part in column]) for column in zip(*inputs, strict=True))
    return LossTerms(total, mean), MatchInputs(*joined)


def contrasts(loss: LossConfig) -> bool:
    """Whether a term is on embeddings."""
    return not all(loss.is_match(name) for name in loss.weights())


def needs_embeddings(config: TrainConfig) -> bool:
    """Whether the model's contrastive heads are used."""
    return contrasts(config.loss) or config.data.mined_negatives > 0


def _match(
    forward: Any, batch: Batch, own: slice, config: TrainConfig, seed: int
) -> tuple[MatchInputs, tuple[torch.Tensor, ...]]:
    """Log-odds of some rows, and embeddings; an empty slot is matched with the first caption."""
    slots_BS = torch.cat(
        [batch.positive_B[own, None], batch.negative_BK[own], batch.unrelated_BM[own]], dim=1
    )
    drawn = _Drawn(batch, config, seed) if config.data.mined_negatives else None
    odds_BS, *embeddings = forward(
        batch.images_B3RR[own],
        batch.token_TL,
        batch.used_T,
        slots_BS.clamp(min=0),
        contrasts(config.loss),
        drawn,
    )
    ends = [1, 1 + batch.negative_BK.shape[1]]
    positive_B1, hard_BK, unrelated_BM = odds_BS.float().tensor_split(ends, dim=1)
    hard_used_BK, used_BM = batch.negative_BK[own] != EMPTY, batch.unrelated_BM[own] != EMPTY
    if drawn:
        used_BM = torch.cat([used_BM, drawn.used_BM], dim=1)
    inputs = MatchInputs(positive_B1[:, 0], hard_BK, unrelated_BM, hard_used_BK, used_BM)
    return inputs, tuple(embeddings)


class _Drawn:
    """Captions of other images of all ranks, more often those that are similar to an image.

    Without replacement, in proportion to the softmax of similarities, by Gumbel noise that depends
    on the seed and the row alone. A caption that is another image's too, or of the same image, is
    not drawn.

    Args:
        batch: This rank's whole batch.
        config: How many, and the temperature.
        seed: The same on every rank.

    Source: ALBEF (Li et al. 2021, 3.2), whose ranks draw from their own batch, an image for each
    caption too.
    """

    def __init__(self, batch: Batch, config: TrainConfig, seed: int) -> None:
        self._batch, self._seed = batch, seed
        self._count, self._tau = config.data.mined_negatives, config.loss.tau or TAU
        self.used_BM = torch.empty(0)
        """bool: False where fewer could be drawn."""

    @torch.no_grad()
    def __call__(
        self, image_BD: torch.Tensor, text_TD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [B, M, L] and their numbers without padding [B, M]. A collective."""
        batch = self._batch
        text_ND = all_gather_no_grad(text_TD[batch.positive_B])
        index_B2 = batch.pair_numbers
        same_BN = (index_B2[:, None] == all_gather_no_grad(index_B2)).any(dim=2)
        logit_BN = image_BD @ text_ND.T / self._tau + self._noise(*same_BN.shape).to(text_ND)
        chosen = logit_BN.masked_fill(same_BN, -torch.inf).topk(min(self._count, len(text_ND)))
        self.used_BM = chosen.values > -torch.inf
        token_NL, used_N = self._tokens()
        return token_NL[chosen.indices], used_N[chosen.indices]

    def _noise(self, rows: int, columns: int) -> torch.Tensor:
        """Gumbel noise [B, N] of this rank's rows."""
        noise = []
        for row in range(rank() * rows, (rank() + 1) * rows):
            own = torch.Generator().manual_seed(hash((self._seed, row)))
            noise.append(-torch.empty(columns).exponential_(generator=own).log())
        return torch.stack(noise)

    def _tokens(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of all ranks' positives and their numbers without padding."""
        batch = self._batch
        used_B = batch.used_T.to(batch.token_TL.device)[batch.positive_B]
        used_N = all_gather_no_grad(used_B)
        token_BL = batch.token_TL[batch.positive_B][:, : int(used_N.max())]
        missing = int(used_N.max()) - token_BL.shape[1]
        return all_gather_no_grad(F.pad(token_BL, (0, missing))), used_N


def _contrast(
    embeddings: tuple[torch.Tensor, ...], batch: Batch, loss: LossConfig, alpha: float
) -> LossTerms:
    """The terms on embeddings, over all ranks. A collective."""
    image_BD, text_TD = embeddings
    zero = image_BD.new_zeros(1)
    embedded = Embedded(image_BD, text_TD, zero + 1 / (loss.tau or TAU), zero, zero)
    return objective(gather_inputs(embedded, batch, loss), loss, alpha)


def _sum(one: LossTerms, other: LossTerms) -> LossTerms:
    return LossTerms(one.total + other.total, one.parts | other.parts)


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
    loss, data = config.loss, config.data
    of_matches = [name for name in loss.weights() if loss.is_match(name)]
    if not config.model.model.startswith(CROSS_ENCODERS):
        if of_matches or data.mined_negatives:
            what = f"terms: {of_matches[0]}" if of_matches else "mined_negatives"
            raise UserError(f"{what} is of image-text matching models; name one, --model hf:...")
        return
    if not of_matches:
        raise UserError(
            f"terms: none is about matches, which {config.model.model} is scored by; give itm or "
            "match_margin a weight"
        )
    if (needs := loss.needs_reference(False) or loss.needs_reference(True)) or loss.trains_bias():
        what = "a reference model" if needs else "a bias"
        raise UserError(
            f"terms: {', '.join(loss.weights())} need {what}, which image-text matching models "
            "(--model hf:...) do not have"
        )
    plain_scope, plain_data = ScopeConfig(), DataConfig()
    embeds = needs_embeddings(config)
    unfit = {
        "pretrained": config.model.pretrained is not None,
        "towers, last_blocks, lora_rank and train_temperature": config.scope != plain_scope,
        "compile": config.compile,
        "encode_images_once": config.encode_images_once == "always",
        "positives": data.positives != plain_data.positives,
        "tau": loss.tau is not None and not embeds,
        "negatives_from": loss.negatives_from != "own_image" and not contrasts(loss),
    }
    for name, is_given in unfit.items():
        if is_given:
            raise UserError(f"{name}: is not for image-text matching models (--model hf:...)")
    weighed = data.hard_negatives and loss.sees_negatives()
    if not (weighed or data.unrelated_negatives or data.mined_negatives):
        raise UserError(
            "itm needs captions that do not match; give --hard_negatives with an alpha above 0, "
            "--unrelated_negatives or --mined_negatives"
        )
