"""What a batch's rows compete with, under one model. Tensors only: what lies on other ranks is
gathered before.

B rows of this rank, N rows of all ranks, K hard-negative slots, M unrelated slots, C hard
negatives of all ranks (N * K, or none where each image sees its own only), D width, E columns of
a slice of N or C.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Rows(NamedTuple):
    """Unit-length embeddings of one model."""

    image_BD: torch.Tensor
    text_BD: torch.Tensor
    """Of the positive captions."""
    negative_BKD: torch.Tensor
    """Of the hard negatives; empty slots hold anything finite."""
    unrelated_BMD: torch.Tensor
    """Of captions of other images; empty slots hold anything finite."""
    image_ND: torch.Tensor
    """Every rank's, in rank order."""
    text_ND: torch.Tensor
    negative_CD: torch.Tensor
    """Every rank's hard negatives; no rows where images compete with their own only."""


class Slots(NamedTuple):
    """Which of the rows count for which; the same under every model."""

    negative_used_BK: torch.Tensor
    """bool: False for an empty slot."""
    unrelated_used_BM: torch.Tensor
    """bool: False for an empty slot."""
    index_B2: torch.Tensor
    """int64: numbers of this rank's images and of their positive captions; equal texts have equal
    numbers."""
    index_N2: torch.Tensor
    """``index_B2`` of all ranks, in rank order."""
    negative_index_C: torch.Tensor
    """int64: numbers of ``negative_CD``'s captions."""
    negative_used_C: torch.Tensor
    """bool: False for an empty slot."""
    first_row: int
    """Column of this rank's first row (rank * B)."""
    pairs_repeat: bool = True
    """False if no image and no text stands twice in ``index_N2``, so that no mask is needed."""
    negatives_vary: bool = True
    """False if every row sees every hard negative, so that no mask is needed."""


def repeat(index_N2: torch.Tensor) -> bool:
    """Whether an image or a text stands twice among the rows. Waits for a device: give it numbers
    that are on the host."""
    for column_N in index_N2.T:
        sorted_N = column_N.sort().values
        if (sorted_N[1:] == sorted_N[:-1]).any():
            return True
    return False


def vary(number_C: torch.Tensor, used_C: torch.Tensor, index_N2: torch.Tensor) -> bool:
    """Whether a hard negative is an empty slot, or some row's own true text. Waits for a device:
    give it numbers that are on the host."""
    if not used_C.all():
        return True
    text_N = index_N2[:, 1].sort().values  # sorted once and searched: a fifth of torch.isin's time
    nearest_C = text_N[torch.searchsorted(text_N, number_C).clamp_(max=len(text_N) - 1)]
    return bool((nearest_C == number_C).any())


def true_pairs(slots: Slots, columns: slice) -> torch.Tensor:
    """Which positives are true of a row: same image or same text. Its own is one of them.

    Args:
        slots: Of the batch.
        columns: Of the N that are asked about.

    Returns:
        bool [columns, B].
    """
    index_E2 = slots.index_N2[columns]
    same_EB = index_E2[:, :1] == slots.index_B2[:, 0]
    return same_EB.logical_or_(index_E2[:, 1:] == slots.index_B2[:, 1])


def other_true_pairs(slots: Slots, columns: slice) -> torch.Tensor:
    """``true_pairs`` without each row's own: what it must not be compared with.

    Returns:
        bool [columns, B].
    """
    same_EB = true_pairs(slots, columns)
    hide_own(same_EB, slots, columns, False)
    return same_EB


def hide_own(tile_EB: torch.Tensor, slots: Slots, columns: slice, by: float) -> None:
    """Overwrite what stands at each row's own column, in a tile [columns, B].

    Row b's own is column first_row + b: a diagonal, so that nothing is looked for on the device.
    """
    tile_EB.diagonal(columns.start - slots.first_row).fill_(by)


def no_negatives(slots: Slots, columns: slice) -> torch.Tensor:
    """Which of all ranks' hard negatives do not compete: empty slots, and a row's own true text.

    Args:
        slots: Of the batch.
        columns: Of the C that are asked about.

    Returns:
        bool [columns, B].
    """
    own_text_EB = slots.negative_index_C[columns, None] == slots.index_B2[:, 1]
    return own_text_EB.logical_or_(~slots.negative_used_C[columns, None])


class Shared(NamedTuple):
    """Columns that every row competes with."""

    column_CD: torch.Tensor
    excluded: Callable[[slice], torch.Tensor] | None
    """bool [columns, B] of a slice of the columns: those that a row does not see. None: no such."""
    log_weight: float
    """Added to each logit: the logarithm of how often a column counts."""


class Own(NamedTuple):
    """S columns of its own for every row."""

    column_BSD: torch.Tensor
    log_weight_BS: torch.Tensor
    """-inf for an empty slot."""


class Side(NamedTuple):
    """One direction of the comparison: rows, and everything they compete with."""

    row_BD: torch.Tensor
    positive_BD: torch.Tensor
    """What each row should find; a column of ``shared``, too."""
    shared: tuple[Shared, ...]
    own: tuple[Own, ...]


def image_side(rows: Rows, slots: Slots, log_alpha: float) -> Side:
    """Images among captions: all positives, hard negatives with weight alpha, unrelated captions.

    Args:
        rows: Under one model.
        slots: Of the batch.
        log_alpha: Logarithm of the weight of hard negatives; -inf leaves them out.

    Raises:
        ValueError: If slots and their masks disagree in shape.
    """
    _check_shapes(rows, slots)
    shared = [Shared(rows.text_ND, _other_true(slots), 0.0)]
    own = []
    if rows.unrelated_BMD.shape[1]:
        own.append(Own(rows.unrelated_BMD, _log_weight(slots.unrelated_used_BM, 0.0, rows)))
    if log_alpha > -torch.inf and len(rows.negative_CD):
        hidden = (lambda columns: no_negatives(slots, columns)) if slots.negatives_vary else None
        shared.append(Shared(rows.negative_CD, hidden, log_alpha))
    elif log_alpha > -torch.inf and rows.negative_BKD.shape[1]:
        own.append(Own(rows.negative_BKD, _log_weight(slots.negative_used_BK, log_alpha, rows)))
    return Side(rows.image_BD, rows.text_BD, tuple(shared), tuple(own))


def text_side(rows: Rows, slots: Slots) -> Side:
    """Positive captions among the images of all ranks."""
    shared = Shared(rows.image_ND, _other_true(slots), 0.0)
    return Side(rows.text_BD, rows.image_BD, (shared,), ())


def _other_true(slots: Slots) -> Callable[[slice], torch.Tensor] | None:
    return (lambda columns: other_true_pairs(slots, columns)) if slots.pairs_repeat else None


def _log_weight(used_BS: torch.Tensor, log_weight: float, rows: Rows) -> torch.Tensor:
    empty_BS = torch.full(used_BS.shape, -torch.inf, dtype=wide(rows), device=used_BS.device)
    return empty_BS.masked_fill(used_BS, log_weight)


def wide(rows: Rows) -> torch.dtype:
    """float32, or the embeddings' precision if that is higher: what is computed in."""
    return torch.promote_types(rows.image_BD.dtype, torch.float32)


def _check_shapes(rows: Rows, slots: Slots) -> None:
    for name, embedded, used in (
        ("negatives", rows.negative_BKD, slots.negative_used_BK),
        ("unrelated captions", rows.unrelated_BMD, slots.unrelated_used_BM),
    ):
        if embedded.shape[:2] != used.shape:
            raise ValueError(
                f"{name} are {tuple(embedded.shape)} but their mask is {tuple(used.shape)}"
            )
