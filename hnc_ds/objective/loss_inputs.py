"""What each row of a batch competes with under one model. Tensors only: what lies on other ranks is
gathered before.

B rows of this rank, N rows of all ranks, K hard-negative slots, M unrelated slots, C hard
negatives of all ranks (N * K, or 0 where each image competes with its own only), D width, E columns
of a slice of N or C.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Embeddings(NamedTuple):
    """Unit-length embeddings under one model. Empty slots hold any finite numbers."""

    image_BD: torch.Tensor
    text_BD: torch.Tensor
    """Positive captions."""
    negative_BKD: torch.Tensor
    """Hard negatives."""
    unrelated_BMD: torch.Tensor
    """Captions of other images."""
    image_ND: torch.Tensor
    """Images of all ranks, in rank order."""
    text_ND: torch.Tensor
    """Positive captions of all ranks, in rank order."""
    negative_CD: torch.Tensor
    """Hard negatives of all ranks; no rows where images compete with their own only."""


class Masks(NamedTuple):
    """Which columns count for which row; the same under every model."""

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
    """False if no image and no text occurs twice in ``index_N2``, so that no mask is needed."""
    negatives_vary: bool = True
    """False if every row competes with every hard negative, so that no mask is needed."""


def pairs_repeat(index_N2: torch.Tensor) -> bool:
    """Whether an image or a text occurs twice. Synchronizes with the device: pass host tensors."""
    for column_N in index_N2.T:
        sorted_N = column_N.sort().values
        if (sorted_N[1:] == sorted_N[:-1]).any():
            return True
    return False


def negatives_vary(number_C: torch.Tensor, used_C: torch.Tensor, index_N2: torch.Tensor) -> bool:
    """Whether a hard negative is an empty slot, or the positive text of some row. Synchronizes with
    the device: pass host tensors."""
    if not used_C.all():
        return True
    text_N = index_N2[:, 1].sort().values  # sorted once and searched: a fifth of torch.isin's time
    nearest_C = text_N[torch.searchsorted(text_N, number_C).clamp_(max=len(text_N) - 1)]
    return bool((nearest_C == number_C).any())


def true_pairs(masks: Masks, columns: slice) -> torch.Tensor:
    """Which of some positives (a slice of N) are true of a row: same image or same text, its own
    included; bool [columns, B]."""
    index_E2 = masks.index_N2[columns]
    same_EB = index_E2[:, :1] == masks.index_B2[:, 0]
    return same_EB.logical_or_(index_E2[:, 1:] == masks.index_B2[:, 1])


def other_true_pairs(masks: Masks, columns: slice) -> torch.Tensor:
    """``true_pairs`` without each row's own positive: false negatives, bool [columns, B]."""
    same_EB = true_pairs(masks, columns)
    hide_own(same_EB, masks, columns, False)
    return same_EB


def hide_own(tile_EB: torch.Tensor, masks: Masks, columns: slice, by: float) -> None:
    """Overwrite each row's own column in a tile [columns, B].

    Row b's own column is first_row + b: a diagonal, so that no index has to be computed.
    """
    tile_EB.diagonal(columns.start - masks.first_row).fill_(by)


def hidden_negatives(masks: Masks, columns: slice) -> torch.Tensor:
    """Which of some hard negatives (a slice of C) a row does not compete with: empty slots, and the
    row's own positive text; bool [columns, B]."""
    own_text_EB = masks.negative_index_C[columns, None] == masks.index_B2[:, 1]
    return own_text_EB.logical_or_(~masks.negative_used_C[columns, None])


class Shared(NamedTuple):
    """Columns that every row competes with."""

    column_CD: torch.Tensor
    excluded: Callable[[slice], torch.Tensor] | None
    """A slice of the columns to bool [columns, B]: True where a row does not compete with a column.
    None where there are no such pairs."""
    log_weight: float
    """Logarithm of how often a column counts; added to each logit."""


class Own(NamedTuple):
    """S columns of its own for every row."""

    column_BSD: torch.Tensor
    log_weight_BS: torch.Tensor
    """-inf for an empty slot."""


class Direction(NamedTuple):
    """One direction of the comparison: rows, and everything they compete with."""

    row_BD: torch.Tensor
    positive_BD: torch.Tensor
    """Each row's positive, which is a column of ``shared`` as well."""
    shared: tuple[Shared, ...]
    own: tuple[Own, ...]


def image_to_text(embeddings: Embeddings, masks: Masks, log_alpha: float) -> Direction:
    """Images among captions: all positives, hard negatives with weight alpha, unrelated captions.

    Args:
        embeddings: Under one model.
        masks: Of the same batch.
        log_alpha: Logarithm of the weight of hard negatives; -inf leaves them out.

    Raises:
        ValueError: If slots and their masks disagree in shape.
    """
    _check_shapes(embeddings, masks)
    shared = [Shared(embeddings.text_ND, _other_true(masks), 0.0)]
    own = []
    dtype = compute_dtype(embeddings)
    if embeddings.unrelated_BMD.shape[1]:
        weight_BM = _log_weight(masks.unrelated_used_BM, 0.0, dtype)
        own.append(Own(embeddings.unrelated_BMD, weight_BM))
    if log_alpha > -torch.inf and len(embeddings.negative_CD):
        hidden = (
            (lambda columns: hidden_negatives(masks, columns)) if masks.negatives_vary else None
        )
        shared.append(Shared(embeddings.negative_CD, hidden, log_alpha))
    elif log_alpha > -torch.inf and embeddings.negative_BKD.shape[1]:
        weight_BK = _log_weight(masks.negative_used_BK, log_alpha, dtype)
        own.append(Own(embeddings.negative_BKD, weight_BK))
    return Direction(embeddings.image_BD, embeddings.text_BD, tuple(shared), tuple(own))


def text_to_image(embeddings: Embeddings, masks: Masks) -> Direction:
    """Positive captions among the images of all ranks."""
    shared = Shared(embeddings.image_ND, _other_true(masks), 0.0)
    return Direction(embeddings.text_BD, embeddings.image_BD, (shared,), ())


def _other_true(masks: Masks) -> Callable[[slice], torch.Tensor] | None:
    return (lambda columns: other_true_pairs(masks, columns)) if masks.pairs_repeat else None


def _log_weight(used_BS: torch.Tensor, log_weight: float, dtype: torch.dtype) -> torch.Tensor:
    empty_BS = torch.full(used_BS.shape, -torch.inf, dtype=dtype, device=used_BS.device)
    return empty_BS.masked_fill(used_BS, log_weight)


def compute_dtype(embeddings: Embeddings) -> torch.dtype:
    """float32, or the embeddings' dtype if that is wider: what the loss is computed in."""
    return torch.promote_types(embeddings.image_BD.dtype, torch.float32)


def _check_shapes(embeddings: Embeddings, masks: Masks) -> None:
    for name, embedded, used in (
        ("negatives", embeddings.negative_BKD, masks.negative_used_BK),
        ("unrelated captions", embeddings.unrelated_BMD, masks.unrelated_used_BM),
    ):
        if embedded.shape[:2] != used.shape:
            raise ValueError(
                f"{name} are {tuple(embedded.shape)} but their mask is {tuple(used.shape)}"
            )
