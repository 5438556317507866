"""One optimizer step: in one pass, or in two for a batch whose activations do not fit.

In two passes the whole batch is embedded in parts without keeping activations, the loss and its
gradient with respect to the embeddings are computed over the whole batch, and each part is
embedded again to carry its share of that gradient back. The loss is that of the whole batch, not
the mean of small ones; the price is one more forward pass.

Source of the two passes: GradCache (Gao et al. 2021), BASIC (Pham et al. 2021).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from hnc_ds.engine import Engine
from hnc_ds.model.packed import on_device
from hnc_ds.objective.terms import Compared, LossTerms
from hnc_ds.shards.loader import Batch
from hnc_ds.training.compare import Embedded, embed

Objective = Callable[[Embedded], tuple[LossTerms, Compared]]
"""The loss of embeddings over all ranks. It raises on every rank alike, if at all."""


class Part(NamedTuple):
    """A share of a rank's pictures and captions."""

    images: slice
    texts: torch.Tensor
    """int64: rows of token_TL, on its device."""
    used_T: torch.Tensor
    """int64: their tokens without padding, on the host."""
    texts_count: bool = True
    """False where the caption of another part stands in, so that there is one."""


def step(engine: Engine, batch: Batch, of: Objective, seed: int) -> tuple[LossTerms, Compared]:
    """Forward, backward and optimizer step of a batch; as many passes as the engine has parts.

    Args:
        engine: Whose ``parts`` say how often the rows are divided.
        batch: This rank's rows, on the engine's device.
        of: The objective.
        seed: Of what is random in the model (dropout); each part has its own, in both passes.
    """
    if engine.parts == 1:
        torch.manual_seed(seed)
        embedded = embed(engine.forward, batch)
        terms, compared = of(embedded)
        engine.backward_and_step(terms.total + embedded.bound_pull.squeeze())
        return terms, compared
    parts = divide(batch, engine.parts)
    leaves = _leaves(engine, batch, parts, seed)
    terms, compared = of(leaves)  # over all ranks
    terms.total.backward()
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        again = _embed_part(engine, batch, part, with_start=False)
        engine.backward_and_step(_carried(leaves, again, part, is_first=number == 0))
    return terms, compared


def divide(batch: Batch, parts: int) -> list[Part]:
    """Equal shares of the pictures; captions sorted by length, so that a part is little padded.

    Every part has a caption, as all ranks must run the same towers under ZeRO-3.
    """
    rows = len(batch.images_B3RR) // parts
    order_T = batch.used_T.argsort(stable=True)
    there_T = on_device(batch.token_TL.device, order_T)
    shares = zip(order_T.tensor_split(parts), there_T.tensor_split(parts), strict=True)
    return [
        Part(slice(number * rows, (number + 1) * rows), own_T, batch.used_T[known_T], bool(counts))
        for number, (counts, known_T, own_T) in enumerate(_with_one(shares, order_T, there_T))
    ]


def _with_one(
    shares: Iterable[tuple[torch.Tensor, torch.Tensor]], *all_T: torch.Tensor
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Captions of each share and how many they are; for one that has none, the first of all."""
    first_T, first_there_T = (order_T[:1] for order_T in all_T)
    for own_T, there_T in shares:
        yield (len(own_T), own_T, there_T) if len(own_T) else (0, first_T, first_there_T)


def _embed_part(engine: Engine, batch: Batch, part: Part, with_start: bool) -> Embedded:
    token_TL = engine.module.tokenize.trimmed(batch.token_TL[part.texts], part.used_T)
    inputs = batch.images_B3RR[part.images], token_TL, part.used_T
    return Embedded(*engine.forward(*inputs, with_start))


@torch.no_grad()
def _leaves(engine: Engine, batch: Batch, parts: list[Part], seed: int) -> Embedded:
    """The whole batch's embeddings, as leaves of a graph of their own."""
    found = []
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        found.append(_embed_part(engine, batch, part, with_start=True))
    rows_T = torch.cat([part.texts for part in parts])

    def texts(of_parts: list[torch.Tensor]) -> torch.Tensor:
        text_TD = of_parts[0].new_empty((len(batch.token_TL), of_parts[0].shape[1]))
        text_TD[rows_T] = torch.cat(of_parts)
        return text_TD

    first, clip = found[0], engine.module
    own = (torch.cat([e.image_BD for e in found]), texts([e.text_TD for e in found]), first.scale)
    trains = (not clip.is_frozen("image"), not clip.is_frozen("text"), clip.learns_temperature())
    leaves = [part.clone().requires_grad_(t) for part, t in zip(own, trains, strict=True)]
    kept = Embedded(leaves[0], leaves[1], leaves[2], first.bound_pull)
    if first.start_scale is None:
        return kept
    start_BD = torch.cat([e.start_image_BD for e in found if e.start_image_BD is not None])
    start_TD = texts([e.start_text_TD for e in found if e.start_text_TD is not None])
    return Embedded(*kept[:4], start_BD, start_TD, first.start_scale)


def _carried(leaves: Embedded, again: Embedded, part: Part, is_first: bool) -> torch.Tensor:
    """A number whose gradient is the part's share of the whole loss's."""
    total = again.scale.new_zeros(())
    pairs = (
        (again.image_BD, _gradient(leaves.image_BD)[part.images]),
        (again.text_TD, _gradient(leaves.text_TD)[part.texts] * float(part.texts_count)),
        (again.scale, _gradient(leaves.scale) * float(is_first)),
        (again.bound_pull, torch.full_like(again.bound_pull, float(is_first))),
    )
    for output, gradient in pairs:
        if output.requires_grad:
            total = total + (output * gradient).sum()
    return total


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
