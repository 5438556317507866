"""Softmaxes over many columns in memory that grows with rows plus columns, not with their product.

Logits are computed for a slice of the columns at a time, a tile, and thrown away; the backward pass
computes them again from the log-sum-exp of the forward pass. The last tile is kept instead, often
the only one. Everything is in float32 or wider, also of 16-bit embeddings, and products have the
precision that torch is set to ("highest", its default). Nothing here waits for the device. Letters
as in rows.py; S a row's own columns.

Rows come times the scale, so that their products with the columns are the logits, and a tile is
[E, B]: what is added to all logits of a row is then the bias of a matrix product, which costs a GPU
no pass over the tile. Passes that are left, beside the masks': forward the maximum, subtraction,
exponential and sum; backward the exponential, or none where the tile was kept. Weights of rows are
multiplied into rows.

Memory beside embeddings, their gradients and a few times B * D, with t = ``Tiling.logits`` (or
``narrowest`` times B if that is more) and fp32: one tile, 4 t bytes, three in ``divergence``; a
mask and what it is made of, 3 t; and what is kept until the backward pass, at most 4 t for each
block of shared columns (8 t in ``divergence``, which keeps tiles only where there is one).
``contrastive`` of all images' negatives has three such blocks: at most 19 t bytes, 1.2 GiB on a GPU
and 19 MiB on a CPU. Nothing grows with B * N.

Source: the recomputation is FlashAttention's (Dao et al. 2022) and that of Inf-CL (Cheng et al.
2024), with masks, weights and columns of a row's own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from hnc_ds.objective.rows import Own, Side

Excluded = Callable[[slice], torch.Tensor] | None
"""As ``Shared.excluded``."""


class Tiling(NamedTuple):
    """How large tiles are."""

    logits: int
    """At a time, about."""
    narrowest: int
    """Columns of a slice for very many rows; widths are multiples of it."""


ON_CPU = Tiling(2**20, 64)
"""4 MiB, which a processor's cache still holds. Smaller tiles save little, as the gradients of the
columns are there anyway; larger ones are slower (RESULTS.md)."""

ON_DEVICE = Tiling(2**26, 256)
"""256 MiB: 4,096 rows times 16,384 columns. At width 512 the product of such a tile is 69 GFLOP, a
millisecond or more in fp32 on an H100, and a pass over it takes 0.1 to 0.2 ms (3.3 TB/s); the 5
microseconds that it takes to start a kernel do not count beside them. Larger tiles would gain
nothing and take memory that activations need. Kernels of matrix products work on blocks of up to
256."""


def log_normaliser(side: Side, scale: torch.Tensor) -> torch.Tensor:
    """Logarithm of what each row's softmax divides by, [B]; differentiable.

    Args:
        side: Rows and what they compete with.
        scale: 1 / tau, one element.
    """
    return _log_normaliser(side, scale * side.row_BD)


def cross_entropy(side: Side, scale: torch.Tensor) -> torch.Tensor:
    """-log of the share of each row's positive, [B], nats; differentiable.

    Args:
        side: Rows and what they compete with.
        scale: 1 / tau, one element.
    """
    scaled_BD = scale * side.row_BD
    return _log_normaliser(side, scaled_BD) - (scaled_BD * side.positive_BD).sum(dim=1)


def divergence(side: Side, start: Side, scale: torch.Tensor) -> torch.Tensor:
    """KL(start || side) of each row's two softmaxes over the same columns, [B], nats, >= 0.

    Args:
        side: Rows and columns under the model; gradients flow to them.
        start: The same under the start model; constants.
        scale: 1 / tau of both, one element, a constant.
    """
    scaled_BD, start_BD = scale.detach() * side.row_BD, (scale * start.row_BD).detach()
    parts = [
        _AgainstStart.apply(
            scaled_BD, shared.column_CD, start_BD, before.column_CD.detach(), shared.excluded
        )
        for shared, before in zip(side.shared, start.shared, strict=True)
    ]
    weights = [shared.log_weight for shared in side.shared]
    lse, start_lse = (
        [_weighted(p[n], w) for p, w in zip(parts, weights, strict=True)] for n in (0, 1)
    )
    own = [_own_logits(own, scaled_BD) for own in side.own]
    own_start = [_own_logits(own, start_BD) for own in start.own]
    gaps = [part[2][:, None] for part in parts] + [
        (before - now).masked_fill(before == -torch.inf, 0)
        for before, now in zip(own_start, own, strict=True)
    ]
    if len(gaps) == 1:
        return parts[0][2] - start_lse[0] + lse[0]
    start_BP = torch.cat([*(part[:, None] for part in start_lse), *own_start], dim=1)
    start_B = start_BP.logsumexp(dim=1)
    gap_B = ((start_BP - start_B[:, None]).exp() * torch.cat(gaps, dim=1)).sum(dim=1)
    return gap_B - start_B + _together(lse, own)


def column_slices(rows: int, columns: int, device: torch.device) -> list[slice]:
    """Slices of the columns, about equal, whose tiles are as large as the device likes.

    Args:
        rows: B.
        columns: N or C.
        device: Where they are.
    """
    logits, narrowest = ON_CPU if device.type == "cpu" else ON_DEVICE
    widest = max(1, logits // max(1, rows) // narrowest) * narrowest
    count = max(1, -(-columns // widest))
    width = max(1, -(-columns // count))
    width += -width % narrowest
    return [slice(first, min(first + width, columns)) for first in range(0, columns, width)]


def _log_normaliser(side: Side, scaled_BD: torch.Tensor) -> torch.Tensor:
    parts = [
        _weighted(_LogSumExp.apply(scaled_BD, s.column_CD, s.excluded), s.log_weight)
        for s in side.shared
    ]
    return _together(parts, [_own_logits(own, scaled_BD) for own in side.own])


def _weighted(lse_B: torch.Tensor, log_weight: float) -> torch.Tensor:
    return lse_B + log_weight if log_weight else lse_B


def _together(lse: list[torch.Tensor], own: list[torch.Tensor]) -> torch.Tensor:
    """log-sum-exp of parts [B], whose log-sum-exps are known, and of logits [B, S]."""
    if len(lse) == 1 and not own:
        return lse[0]
    return torch.cat([*(part[:, None] for part in lse), *own], dim=1).logsumexp(dim=1)


def _own_logits(own: Own, scaled_BD: torch.Tensor) -> torch.Tensor:
    """Of the columns that each row has for itself, [B, S]."""
    weight_BS1 = own.log_weight_BS[:, :, None]
    return torch.baddbmm(weight_BS1, own.column_BSD, scaled_BD[:, :, None]).squeeze(2)


class _LogSumExp(torch.autograd.Function):
    """log sum_c exp(row . column) over the columns that are not excluded, [B]."""

    @staticmethod
    def forward(
        ctx: Any, row_BD: torch.Tensor, column_CD: torch.Tensor, excluded: Excluded
    ) -> torch.Tensor:
        ctx.excluded = excluded
        *others, last = column_slices(len(row_BD), len(column_CD), row_BD.device)
        parts = (_log_sum(_logits(row_BD, column_CD, s, excluded))[0] for s in others)
        others_B = functools.reduce(torch.logaddexp, parts) if others else None
        kept_EB = _logits(row_BD, column_CD, last, excluded)
        lse_B, sum_B = _log_sum(kept_EB)
        bias_B, share_B = None, sum_B.reciprocal_()  # the tile times it: shares of its columns
        if others_B is not None:
            last_B, lse_B = lse_B, torch.logaddexp(others_B, lse_B)
            bias_B = _bias(lse_B)
            share_B.mul_((last_B + bias_B).exp_())  # of all columns
        ctx.save_for_backward(row_BD, column_CD, kept_EB, share_B, bias_B)
        return lse_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        row_BD, column_CD, kept_EB, share_B, bias_B = ctx.saved_tensors
        *others, last = column_slices(len(row_BD), len(column_CD), row_BD.device)
        gradients = _Gradients(row_BD, column_CD, ctx.needs_input_grad)
        of_kept_B = gradient_B * share_B
        gradients.add(kept_EB, last, row_BD * of_kept_B[:, None])
        if not others:
            return *gradients.weighted(of_kept_B), None
        gradients.weighted(share_B)
        weighted_BD = row_BD * gradient_B[:, None]
        for columns in others:
            tile_EB = _logits(row_BD, column_CD, columns, ctx.excluded, bias_B).exp_()
            gradients.add(tile_EB, columns, weighted_BD)
            del tile_EB  # before there is another
        return *gradients.weighted(gradient_B), None


class _AgainstStart(torch.autograd.Function):
    """Two softmaxes over the same columns, of which the start model's is a constant.

    Returns three tensors [B]: the log-sum-exps of both, and the start's mean of (start's logit -
    logit), 0 where a row sees none of the columns.
    """

    @staticmethod
    def forward(
        ctx: Any,
        row_BD: torch.Tensor,
        column_CD: torch.Tensor,
        start_row_BD: torch.Tensor,
        start_column_CD: torch.Tensor,
        excluded: Excluded,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.excluded = excluded
        pair = (row_BD, column_CD), (start_row_BD, start_column_CD)
        slices = column_slices(len(row_BD), len(column_CD), row_BD.device)
        if len(slices) == 1:
            kept, parts = _compared(*pair, slices[0], excluded)
            ctx.save_for_backward(*pair[0], *pair[1], *kept)
        else:
            found = (_compared(*pair, columns, excluded)[1] for columns in slices)
            parts = functools.reduce(_Parts.and_those, found)
            ctx.save_for_backward(*pair[0], *pair[1], None, None, parts.lse_B, parts.start_lse_B)
        ctx.mark_non_differentiable(parts.start_lse_B)
        return parts.lse_B, parts.start_lse_B, parts.gap_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        row_BD, column_CD, start_row_BD, start_column_CD, *kept, saved_B, saved_start_B = (
            ctx.saved_tensors
        )
        of_lse_B, _, of_gap_B = gradients_B
        gradients = _Gradients(row_BD, column_CD, ctx.needs_input_grad)
        if kept[0] is not None:
            tile_EB = kept[0] * (of_lse_B / saved_B)
            tile_EB.addcmul_(kept[1], of_gap_B / saved_start_B, value=-1)
            gradients.add(tile_EB, slice(None), row_BD)
            return *gradients.both(), None, None, None
        biases = _bias(saved_B), _bias(saved_start_B)
        for columns in column_slices(len(row_BD), len(column_CD), row_BD.device):
            hidden_EB = _mask(ctx.excluded, columns)
            tile_EB = _product(row_BD, column_CD[columns], biases[0])
            start_EB = _product(start_row_BD, start_column_CD[columns], biases[1])
            _hide(tile_EB, hidden_EB).exp_().mul_(of_lse_B)
            tile_EB.addcmul_(_hide(start_EB, hidden_EB).exp_(), of_gap_B, value=-1)
            gradients.add(tile_EB, columns, row_BD)
            del tile_EB, start_EB, hidden_EB  # before there are others
        return *gradients.both(), None, None, None


class _Parts(NamedTuple):
    """Of the softmaxes over some of the columns, as ``_AgainstStart`` returns them."""

    lse_B: torch.Tensor
    start_lse_B: torch.Tensor
    gap_B: torch.Tensor

    def and_those(self, more: "_Parts") -> "_Parts":
        """Over the columns of both."""
        start_lse_B = torch.logaddexp(self.start_lse_B, more.start_lse_B)
        bias_B = _bias(start_lse_B)  # each mean counts with its columns' share of all
        gap_B = (self.start_lse_B + bias_B).exp_().mul_(self.gap_B)
        gap_B.addcmul_((more.start_lse_B + bias_B).exp_(), more.gap_B)
        return _Parts(torch.logaddexp(self.lse_B, more.lse_B), start_lse_B, gap_B)


def _compared(
    ours: tuple[torch.Tensor, torch.Tensor],
    start: tuple[torch.Tensor, torch.Tensor],
    columns: slice,
    excluded: Excluded,
) -> tuple[tuple[torch.Tensor, ...], _Parts]:
    """Both softmaxes of rows and columns over a slice; before them their tiles as ``_log_sum``
    leaves them, and their sums."""
    hidden_EB = _mask(excluded, columns)
    tile_EB, start_EB = (
        _product(row_BD, column_CD[columns]) for row_BD, column_CD in (ours, start)
    )
    apart_EB = start_EB - tile_EB  # before anything is hidden: finite everywhere
    lse_B, sum_B = _log_sum(_hide(tile_EB, hidden_EB))
    start_lse_B, start_sum_B = _log_sum(_hide(start_EB, hidden_EB))
    gap_B = apart_EB.mul_(start_EB).sum(dim=0).div_(start_sum_B)
    return (tile_EB, start_EB, sum_B, start_sum_B), _Parts(lse_B, start_lse_B, gap_B)


class _Gradients:
    """Of rows and columns, summed slice by slice.

    A factor that all logits of a row share is left out of the tiles and multiplied into the rows, B
    * D numbers instead of B * C: before the product that gives the columns' gradient, and into the
    sum that is the rows'.

    Args:
        row_BD: The rows.
        column_CD: The columns.
        needed: Which of them need a gradient, in this order.
    """

    def __init__(self, row_BD: torch.Tensor, column_CD: torch.Tensor, needed: Any) -> None:
        self._columns_CD = column_CD
        self._of_rows, of_columns, *_ = needed
        self._row_BD: torch.Tensor | None = None
        self._column_CD = torch.empty_like(column_CD) if of_columns else None

    def add(self, tile_EB: torch.Tensor, columns: slice, weighted_BD: torch.Tensor) -> None:
        """Those of a tile of logits, and the rows times their factor."""
        column_ED = self._columns_CD[columns]
        if self._of_rows and self._row_BD is None:
            self._row_BD = tile_EB.T @ column_ED
        elif self._row_BD is not None:
            self._row_BD.addmm_(tile_EB.T, column_ED)
        if self._column_CD is not None:
            torch.mm(tile_EB, weighted_BD, out=self._column_CD[columns])

    def weighted(self, factor_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Multiply what was added for a row so far by its factor; gradients of rows and columns."""
        if self._row_BD is not None:
            self._row_BD.mul_(factor_B[:, None])
        return self.both()

    def both(self) -> tuple[torch.Tensor | None, ...]:
        """Gradients of rows and columns; None where none is needed."""
        return self._row_BD, self._column_CD


def _logits(
    row_BD: torch.Tensor,
    column_CD: torch.Tensor,
    columns: slice,
    excluded: Excluded,
    bias_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """A tile [E, B]; -inf where a row does not see a column."""
    return _hide(_product(row_BD, column_CD[columns], bias_B), _mask(excluded, columns))


def _product(
    row_BD: torch.Tensor, column_ED: torch.Tensor, bias_B: torch.Tensor | None = None
) -> torch.Tensor:
    return column_ED @ row_BD.T if bias_B is None else torch.addmm(bias_B, column_ED, row_BD.T)


def _mask(excluded: Excluded, columns: slice) -> torch.Tensor | None:
    return None if excluded is None else excluded(columns)


def _hide(tile_EB: torch.Tensor, hidden_EB: torch.Tensor | None) -> torch.Tensor:
    return tile_EB if hidden_EB is None else tile_EB.masked_fill_(hidden_EB, -torch.inf)


def _log_sum(tile_EB: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log sum exp of each row's logits, and what divides the tile to become its shares.

    The tile becomes exp(logit - the row's largest): 0 where a row sees nothing. Four passes; the
    exponential of the logits alone would be three, but a row's logits may lie anywhere within twice
    the scale, and float32 holds exp(88) at most.
    """
    # Of a row that sees nothing the lowest number, so that -inf minus it is -inf.
    largest_B = tile_EB.amax(dim=0).clamp_(min=torch.finfo(tile_EB.dtype).min)
    sum_B = tile_EB.sub_(largest_B).exp_().sum(dim=0)
    # A row that sees something has a sum of 1 or more: that of its largest logit alone.
    return sum_B.log().add_(largest_B), sum_B.clamp_(min=1)


def _bias(lse_B: torch.Tensor) -> torch.Tensor:
    """-lse; finite in rows that see nothing, whose logits are -inf then."""
    return lse_B.clamp(min=torch.finfo(lse_B.dtype).min).neg_()
