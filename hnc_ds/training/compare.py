"""From embeddings to what the objective compares: captions by row, and what lies on other ranks.

B rows of this rank, N of all, T distinct captions, K hard-negative slots, D width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.distributed import gather_constants, gather_rows, rank, world_size
from hnc_ds.objective.rows import Rows, Slots, repeat, vary
from hnc_ds.objective.terms import Compared
from hnc_ds.shards.loader import EMPTY, Batch, Masks


class Embedded(NamedTuple):
    """A rank's batch under the model that trains, and under the start model if there is one."""

    image_BD: torch.Tensor
    text_TD: torch.Tensor
    scale: torch.Tensor
    """1 / tau, one element."""
    bound_pull: torch.Tensor
    """Zero, one element; a term of the loss that keeps the temperature within its bound."""
    start_image_BD: torch.Tensor | None = None
    start_text_TD: torch.Tensor | None = None
    start_scale: torch.Tensor | None = None


def embed(forward: Any, batch: Batch) -> Embedded:
    """Embed a batch.

    Args:
        forward: ``Clip.forward``, or the engine's around it.
        batch: This rank's rows.
    """
    return Embedded(*forward(batch.images_B3RR, batch.token_TL, batch.used_T))


def compare(embedded: Embedded, batch: Batch, all_negatives: bool) -> Compared:
    """Put the rows together with what they compete with. A collective.

    Args:
        embedded: Of this rank's batch.
        batch: It.
        all_negatives: Whether images also compete with other images' hard negatives.
    """
    start = None
    if embedded.start_image_BD is not None and embedded.start_text_TD is not None:
        start = _rows(embedded.start_image_BD, embedded.start_text_TD, batch, all_negatives)
    return Compared(
        _rows(embedded.image_BD, embedded.text_TD, batch, all_negatives),
        _slots(batch, all_negatives),
        embedded.scale,
        start,
        embedded.start_scale,
    )


def _rows(image_BD: torch.Tensor, text_TD: torch.Tensor, batch: Batch, all_negatives: bool) -> Rows:
    text_BD = _rows_of(text_TD, batch.positive_B)
    negative_BKD = _rows_of(text_TD, batch.negative_BK)
    image_ND, text_ND = _gather_pairs(image_BD, text_BD)
    return Rows(
        image_BD,
        text_BD,
        negative_BKD,
        _rows_of(text_TD, batch.unrelated_BM),
        image_ND,
        text_ND,
        _gather(negative_BKD.flatten(0, 1)) if all_negatives else text_TD[:0],
    )


def _rows_of(text_TD: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Captions by number, of an empty slot the first. As an embedding, whose gradient is summed in
    one order; that of an index is not, with several threads on a CPU."""
    return F.embedding(rows.clamp(min=0), text_TD)


def _gather_pairs(image_BD: torch.Tensor, text_BD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Both towers' rows of all ranks, in one collective where both train."""
    if image_BD.requires_grad != text_BD.requires_grad:
        return _gather(image_BD), _gather(text_BD)
    return _gather(torch.cat([image_BD, text_BD], dim=1)).split(image_BD.shape[1], dim=1)


def _gather(rows: torch.Tensor) -> torch.Tensor:
    """Of all ranks; no gradients travel back to a tower that does not train."""
    return gather_rows(rows) if rows.requires_grad else gather_constants(rows)


def _slots(batch: Batch, all_negatives: bool) -> Slots:
    index_B2 = torch.stack([batch.image_index_B, batch.text_index_T[batch.positive_B]], dim=1)
    used_BK = batch.negative_BK != EMPTY
    number_BK = batch.text_index_T[batch.negative_BK.clamp(min=0)]
    # -1 for an empty slot, so that one collective moves both: the numbers are not negative
    number_BK = number_BK.masked_fill(~used_BK, -1)
    number_C = gather_constants(number_BK.flatten()) if all_negatives else number_BK.flatten()[:0]
    used_C, index_N2 = number_C >= 0, gather_constants(index_B2)
    masks = _masks(batch, number_C, used_C, index_N2)
    return Slots(
        used_BK,
        batch.unrelated_BM != EMPTY,
        index_B2,
        index_N2,
        number_C,
        used_C,
        rank() * len(index_B2),
        masks.pairs_repeat,
        masks.negatives_vary,
    )


def _masks(
    batch: Batch, number_C: torch.Tensor, used_C: torch.Tensor, index_N2: torch.Tensor
) -> Masks:
    """Which masks are needed. A device is not asked, as that would wait for it: one rank knows its
    batch from when it was on the host; several have masks, which are right whether needed or not.
    """
    if world_size() == 1 and batch.masks is not None:
        return batch.masks
    if index_N2.device.type == "cpu":
        return Masks(repeat(index_N2), vary(number_C, used_C, index_N2))
    return Masks(True, True)
