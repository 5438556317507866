"""One optimizer step: embeddings of all ranks to the inputs of the loss, and gradients back.

A step takes one pass, or with GradCache two for a batch that does not fit. GradCache embeds the
whole batch in micro-batches without keeping activations, computes the loss and its gradient with
respect to the embeddings over the whole batch, and embeds each micro-batch again to backpropagate
its part of that gradient. The loss is that of the whole batch, not the mean over micro-batches, at
the cost of one more forward pass.

B rows of this rank, N of all, T distinct captions, K hard-negative slots, D width.

Source: GradCache (Gao et al. 2021), BASIC (Pham et al. 2021).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.config import LossConfig
from hnc_ds.engine.engine import Engine
from hnc_ds.model.text import on_device
from hnc_ds.objective.loss_inputs import Embeddings, Masks
from hnc_ds.objective.terms import LossInputs, LossTerms
from hnc_ds.shards.loader import EMPTY, Batch
from hnc_ds.training.gather import gather_embeddings, gather_masks, mean_gap


class Embedded(NamedTuple):
    """A rank's batch under the model that trains, and under the reference model if there is one."""

    image_BD: torch.Tensor
    text_TD: torch.Tensor
    scale: torch.Tensor
    """1 / tau, one element."""
    bias: torch.Tensor
    """The model's logit_bias, one element; 0 if it has none."""
    bound_pull: torch.Tensor
    """Zero, one element: added to the loss, its gradient keeps the temperature within its bound."""
    reference_image_BD: torch.Tensor | None = None
    reference_text_TD: torch.Tensor | None = None
    reference_scale: torch.Tensor | None = None


def embed(forward: Any, batch: Batch) -> Embedded:
    """Embed a batch.

    Args:
        forward: ``Clip.forward``, or the engine's around it.
        batch: This rank's rows.
    """
    return Embedded(*forward(batch.images_B3RR, batch.token_TL, batch.used_T))


def gather_inputs(embedded: Embedded, batch: Batch, config: LossConfig) -> LossInputs:
    """The inputs of the loss, gathered over ranks. A collective.

    Args:
        embedded: This rank's embeddings.
        batch: This rank's batch.
        config: Whether images also compete with other images' hard negatives, and what the terms
            need.
    """
    first, *further = (_gathered(embedded, of_one, config) for of_one in batch.with_each_positive())
    return first._replace(further=tuple(further))


def _gathered(embedded: Embedded, batch: Batch, config: LossConfig) -> LossInputs:
    """The inputs of the loss with one positive of each image."""
    all_negatives = config.negatives_from == "all_images"
    reference = None
    if embedded.reference_image_BD is not None and embedded.reference_text_TD is not None:
        images, texts = embedded.reference_image_BD, embedded.reference_text_TD
        reference = _embeddings(images, texts, batch, all_negatives)
    inputs = LossInputs(
        _embeddings(embedded.image_BD, embedded.text_TD, batch, all_negatives),
        _gathered_masks(batch, all_negatives),
        embedded.scale,
        reference,
        embedded.reference_scale,
        embedded.bias,
    )
    return inputs._replace(mean_gap=mean_gap(inputs)) if config.needs_mean_gap() else inputs


def _embeddings(
    image_BD: torch.Tensor, text_TD: torch.Tensor, batch: Batch, all_negatives: bool
) -> Embeddings:
    return gather_embeddings(
        image_BD,
        _rows_of(text_TD, batch.positive_B),
        _rows_of(text_TD, batch.negative_BK),
        _rows_of(text_TD, batch.unrelated_BM),
        all_negatives,
    )


def _rows_of(text_TD: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Captions by number; the first one for an empty slot. F.embedding sums gradients in a fixed
    order; indexing does not with several threads on a CPU."""
    return F.embedding(rows.clamp(min=0), text_TD)


def _gathered_masks(batch: Batch, all_negatives: bool) -> Masks:
    return gather_masks(
        batch.negative_BK != EMPTY,
        batch.unrelated_BM != EMPTY,
        batch.pair_numbers,
        batch.text_index_T[batch.negative_BK.clamp(min=0)] if all_negatives else None,
        batch.masks,
    )


Objective = Callable[[Embedded], tuple[LossTerms, LossInputs]]
"""The loss of embeddings over all ranks. It raises on every rank alike, if at all."""


class MicroBatch(NamedTuple):
    """A part of a rank's images and captions."""

    images: slice
    texts: torch.Tensor
    """int64: rows of token_TL, on its device."""
    used_T: torch.Tensor
    """int64: their tokens without padding, on the host."""
    texts_count: bool = True
    """False if the caption is a placeholder, so that there is one."""


def step(
    engine: Engine, batch: Batch, objective: Objective, seed: int
) -> tuple[LossTerms, LossInputs]:
    """Forward, backward and optimizer step of a batch.

    Args:
        engine: Its ``micro_batches`` decides between one pass and GradCache.
        batch: This rank's rows, on the engine's device.
        objective: The loss.
        seed: Seed for dropout. Each micro-batch has its own, the same in both passes.
    """
    if engine.micro_batches == 1:
        torch.manual_seed(seed)
        embedded = embed(engine.forward, batch)
        terms, inputs = objective(embedded)
        engine.backward_and_step(terms.total + embedded.bound_pull.squeeze())
        return terms, inputs
    micro_batches = divide(batch, engine.micro_batches)
    leaves = _embed_all(engine, batch, micro_batches, seed)
    terms, inputs = objective(leaves)  # over all ranks
    terms.total.backward()
    for number, micro_batch in enumerate(micro_batches):
        torch.manual_seed(seed + number)
        again = _embed_part(engine, batch, micro_batch, with_reference=False)
        engine.backward_and_step(_surrogate(leaves, again, micro_batch, is_first=number == 0))
    return terms, inputs


def divide(batch: Batch, count: int) -> list[MicroBatch]:
    """Equal parts of the images; captions sorted by length, so that parts have little padding.

    Every micro-batch has a caption, as all ranks must run the same towers under ZeRO-3.
    """
    rows = len(batch.images_B3RR) // count
    order_T = batch.used_T.argsort(stable=True)
    device_T = on_device(batch.token_TL.device, order_T)
    parts = zip(order_T.tensor_split(count), device_T.tensor_split(count), strict=True)
    found = []
    for number, (part_T, texts) in enumerate(parts):
        images = slice(number * rows, (number + 1) * rows)
        if not len(part_T):
            part_T, texts = order_T[:1], device_T[:1]
            found.append(MicroBatch(images, texts, batch.used_T[part_T], texts_count=False))
        else:
            found.append(MicroBatch(images, texts, batch.used_T[part_T]))
    return found


def _embed_part(
    engine: Engine, batch: Batch, micro_batch: MicroBatch, with_reference: bool
) -> Embedded:
    texts, used_T = micro_batch.texts, micro_batch.used_T
    token_TL = engine.module.tokenize.trimmed(batch.token_TL[texts], used_T)
    images_B3RR = batch.images_B3RR[micro_batch.images]
    return Embedded(*engine.forward(images_B3RR, token_TL, used_T, with_reference))


@torch.no_grad()
def _embed_all(
    engine: Engine, batch: Batch, micro_batches: list[MicroBatch], seed: int
) -> Embedded:
    """The whole batch's embeddings, as leaves of a new graph."""
    found = []
    for number, micro_batch in enumerate(micro_batches):
        torch.manual_seed(seed + number)
        found.append(_embed_part(engine, batch, micro_batch, with_reference=True))
    rows_T = torch.cat([micro_batch.texts for micro_batch in micro_batches])

    def texts(parts: list[torch.Tensor]) -> torch.Tensor:
        text_TD = parts[0].new_empty((len(batch.token_TL), parts[0].shape[1]))
        text_TD[rows_T] = torch.cat(parts)
        return text_TD

    first, clip = found[0], engine.module
    images, captions = torch.cat([e.image_BD for e in found]), texts([e.text_TD for e in found])
    own = (images, captions, first.scale, first.bias)
    trains = (
        not clip.is_frozen("image"),
        not clip.is_frozen("text"),
        clip.learns_temperature(),
        clip.learns_bias(),
    )
    leaves = [part.clone().requires_grad_(t) for part, t in zip(own, trains, strict=True)]
    kept = Embedded(leaves[0], leaves[1], leaves[2], leaves[3], first.bound_pull)
    if first.reference_scale is None:
        return kept
    of_images = [e.reference_image_BD for e in found if e.reference_image_BD is not None]
    of_captions = [e.reference_text_TD for e in found if e.reference_text_TD is not None]
    return Embedded(*kept[:5], torch.cat(of_images), texts(of_captions), first.reference_scale)


def _surrogate(
    leaves: Embedded, again: Embedded, micro_batch: MicroBatch, is_first: bool
) -> torch.Tensor:
    """A scalar whose gradient is the micro-batch's part of the gradient of the whole loss."""
    total = again.scale.new_zeros(())
    texts_count = float(micro_batch.texts_count)
    pairs = (
        (again.image_BD, _gradient(leaves.image_BD)[micro_batch.images]),
        (again.text_TD, _gradient(leaves.text_TD)[micro_batch.texts] * texts_count),
        (again.scale, _gradient(leaves.scale) * float(is_first)),
        (again.bias, _gradient(leaves.bias) * float(is_first)),
        (again.bound_pull, torch.full_like(again.bound_pull, float(is_first))),
    )
    for output, gradient in pairs:
        if output.requires_grad:
            total = total + (output * gradient).sum()
    return total


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
