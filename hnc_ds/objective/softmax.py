"""Softmaxes and sigmoids over many columns, in memory that grows with rows plus columns, not with
their product.

Logits are computed for a slice of the columns at a time, a tile, and discarded; the backward pass
computes them again from the log-sum-exp of the forward pass. Only the last tile, often the only
one, is kept. Everything is computed in float32 or wider, also for 16-bit embeddings, and products
have the precision that torch is set to ("highest" by default). Nothing synchronizes with the
device. Letters as in loss_inputs.py; S a row's own columns.

Rows are multiplied by the scale, so that their products with the columns are the logits, and a tile
is [E, B]: what is added to all logits of a row is the bias of a matrix product, which costs a GPU
no pass over the tile. The remaining passes, besides the masks': maximum, subtraction, exponential
and sum in the forward pass; the exponential in the backward pass, or none for a tile that was kept.
Weights of rows are multiplied into rows.

Memory besides embeddings, their gradients and a few times B * D, where t is ``Tiling.logits`` (or
``narrowest`` times B if that is more), in fp32: one tile, 4 t bytes, three in ``divergence``; a
mask and its inputs, 3 t; and what is kept for the backward pass, at most 4 t for each block of
shared columns (8 t in ``divergence``, which keeps tiles only if there is one). ``contrastive`` with
all images' negatives has three such blocks: at most 19 t bytes, 1.2 GiB on a GPU and 19 MiB on a
CPU.

Source: the recomputation is that of FlashAttention (Dao et al. 2022) and Inf-CL (Cheng et al.
2024), with masks, weights and columns of a row's own."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from hnc_ds.objective.loss_inputs import Direction, Own

Excluded = Callable[[slice], torch.Tensor] | None
"""As ``Shared.excluded``."""


class Tiling(NamedTuple):
    """The size of tiles."""

    logits: int
    """Approximate number of logits of a tile."""
    narrowest: int
    """Least columns of a tile, however many rows there are; widths are multiples of it."""


ON_CPU = Tiling(2**20, 64)
"""4 MiB, which fits a processor's cache. Smaller tiles save little memory, as the columns'
gradients exist anyway; larger ones are slower (RESULTS.md)."""

ON_DEVICE = Tiling(2**26, 256)
"""256 MiB: 4,096 rows times 16,384 columns. At width 512 the product of such a tile is 69 GFLOP, a
millisecond or more in fp32 on an H100, and a pass over it takes 0.1 to 0.2 ms (3.3 TB/s); the 5
microseconds that it takes to start a kernel do not count beside them. Larger tiles would gain
nothing and take memory that activations need. Kernels of matrix products work on blocks of up to
256."""


def log_partition(direction: Direction, scale: torch.Tensor) -> torch.Tensor:
    """Logarithm of the denominator of each row's softmax, [B]; differentiable.

    Args:
        direction: Rows and what they compete with.
        scale: 1 / tau, one element.
    """
    return _log_partition(direction, scale * direction.row_BD)


def cross_entropy(direction: Direction, scale: torch.Tensor) -> torch.Tensor:
    """-log of the softmax probability of each row's positive, [B], nats; differentiable.

    Args:
        direction: Rows and what they compete with.
        scale: 1 / tau, one element.
    """
    scaled_BD = scale * direction.row_BD
    return _log_partition(direction, scaled_BD) - (scaled_BD * direction.positive_BD).sum(dim=1)


def divergence(direction: Direction, reference: Direction, scale: torch.Tensor) -> torch.Tensor:
    """KL(reference || model) of each row's two softmaxes over the same columns, [B], nats, >= 0.

    Args:
        direction: Rows and columns under the model; gradients flow to them.
        reference: The same under the reference model; constants.
        scale: 1 / tau of both softmaxes, one element, a constant.
    """
    scaled_BD, reference_BD = scale.detach() * direction.row_BD, (scale * reference.row_BD).detach()
    parts = [
        _CompareSoftmaxes.apply(
            scaled_BD, shared.column_CD, reference_BD, before.column_CD.detach(), shared.excluded
        )
        for shared, before in zip(direction.shared, reference.shared, strict=True)
    ]
    weights = [shared.log_weight for shared in direction.shared]
    lse, reference_lse = (
        [_weighted(p[n], w) for p, w in zip(parts, weights, strict=True)] for n in (0, 1)
    )
    own = [_own_logits(own, scaled_BD) for own in direction.own]
    own_reference = [_own_logits(own, reference_BD) for own in reference.own]
    gaps = [part[2][:, None] for part in parts] + [
        (before - now).masked_fill(before == -torch.inf, 0)
        for before, now in zip(own_reference, own, strict=True)
    ]
    if len(gaps) == 1:
        return parts[0][2] - reference_lse[0] + lse[0]
    reference_BP = torch.cat([*(part[:, None] for part in reference_lse), *own_reference], dim=1)
    reference_B = reference_BP.logsumexp(dim=1)
    gap_B = ((reference_BP - reference_B[:, None]).exp() * torch.cat(gaps, dim=1)).sum(dim=1)
    return gap_B - reference_B + _together(lse, own)


def sigmoid_cross_entropy(
    direction: Direction, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """-log of the probability of all of a row's labels, [B], nats; differentiable.

    Each pair of a row and a column is a label of its own, with the logit row . column / tau + bias:
    true for the row's positive, false for every other column.

    Args:
        direction: Rows, their positives, and everything that they are paired with.
        scale: 1 / tau, one element.
        bias: One element.
    """
    scaled_BD = scale * direction.row_BD
    # -log sigmoid(-l) for all columns. The positive is among them, and has -log sigmoid(l) instead,
    # which is less by l.
    total_B = -((scaled_BD * direction.positive_BD).sum(dim=1) + bias)
    for shared in direction.shared:
        sum_B = _SoftplusSum.apply(scaled_BD, shared.column_CD, bias, shared.excluded)
        total_B = total_B + math.exp(shared.log_weight) * sum_B
    for own in direction.own:
        logits_BS1 = torch.baddbmm(bias[:, None, None], own.column_BSD, scaled_BD[:, :, None])
        weighted_BS = own.log_weight_BS.exp() * -F.logsigmoid(-logits_BS1.squeeze(2))
        total_B = total_B + weighted_BS.sum(dim=1)
    return total_B


def column_slices(rows: int, columns: int, device: torch.device) -> list[slice]:
    """Slices of the columns, about equal, whose tiles have the size that suits the device.

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


def _log_partition(direction: Direction, scaled_BD: torch.Tensor) -> torch.Tensor:
    parts = [
        _weighted(_LogSumExp.apply(scaled_BD, s.column_CD, s.excluded), s.log_weight)
        for s in direction.shared
    ]
    return _together(parts, [_own_logits(own, scaled_BD) for own in direction.own])


def _weighted(lse_B: torch.Tensor, log_weight: float) -> torch.Tensor:
    return lse_B + log_weight if log_weight else lse_B


def _together(lse: list[torch.Tensor], own: list[torch.Tensor]) -> torch.Tensor:
    """Log-sum-exp over blocks of columns, from their log-sum-exps [B], and over logits [B, S]."""
    if len(lse) == 1 and not own:
        return lse[0]
    return torch.cat([*(part[:, None] for part in lse), *own], dim=1).logsumexp(dim=1)


def _own_logits(own: Own, scaled_BD: torch.Tensor) -> torch.Tensor:
    """Logits of a row's own columns, [B, S]."""
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
        bias_B, share_B = None, sum_B.reciprocal_()  # times the tile: softmax over its columns
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
            del tile_EB  # before the next one is made
        return *gradients.weighted(gradient_B), None


class _SoftplusSum(torch.autograd.Function):
    """sum_c log(1 + exp(row . column + bias)) over the columns that are not excluded, [B]."""

    @staticmethod
    def forward(
        ctx: Any,
        row_BD: torch.Tensor,
        column_CD: torch.Tensor,
        bias: torch.Tensor,
        excluded: Excluded,
    ) -> torch.Tensor:
        ctx.excluded = excluded
        total_B, tile_EB = row_BD.new_zeros(len(row_BD)), None
        for columns in column_slices(len(row_BD), len(column_CD), row_BD.device):
            del tile_EB  # before the next one is made
            tile_EB = _logits(row_BD, column_CD, columns, excluded, bias.expand(len(row_BD)))
            total_B -= F.logsigmoid(tile_EB.neg()).sum(dim=0)  # 0 for -inf
        ctx.save_for_backward(row_BD, column_CD, bias, tile_EB)
        return total_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        row_BD, column_CD, bias, kept_EB = ctx.saved_tensors
        gradients = _Gradients(row_BD, column_CD, ctx.needs_input_grad[:2])
        weighted_BD, of_bias = row_BD * gradient_B[:, None], torch.zeros_like(bias)
        *others, last = column_slices(len(row_BD), len(column_CD), row_BD.device)
        for columns in (last, *others):
            if columns is last:
                tile_EB = kept_EB.sigmoid()
            else:
                tile_EB = _logits(
                    row_BD, column_CD, columns, ctx.excluded, bias.expand(len(row_BD))
                ).sigmoid_()
            gradients.add(tile_EB, columns, weighted_BD)
            of_bias += tile_EB.sum(dim=0) @ gradient_B
            del tile_EB  # before the next one is made
        return *gradients.weighted(gradient_B), of_bias, None


class _CompareSoftmaxes(torch.autograd.Function):
    """Two softmaxes over the same columns, of which the reference model's is a constant.

    Returns three tensors [B]: the log-sum-exps of both, and the mean of (reference's logit - logit)
    under the reference's softmax, 0 for a row that competes with none of the columns.
    """

    @staticmethod
    def forward(
        ctx: Any,
        row_BD: torch.Tensor,
        column_CD: torch.Tensor,
        reference_row_BD: torch.Tensor,
        reference_column_CD: torch.Tensor,
        excluded: Excluded,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.excluded = excluded
        pair = (row_BD, column_CD), (reference_row_BD, reference_column_CD)
        slices = column_slices(len(row_BD), len(column_CD), row_BD.device)
        if len(slices) == 1:
            kept, parts = _compared(*pair, slices[0], excluded)
            ctx.save_for_backward(*pair[0], *pair[1], *kept)
        else:
            found = (_compared(*pair, columns, excluded)[1] for columns in slices)
            parts = functools.reduce(_Parts.merge, found)
            ctx.save_for_backward(
                *pair[0], *pair[1], None, None, parts.lse_B, parts.reference_lse_B
            )
        ctx.mark_non_differentiable(parts.reference_lse_B)
        return parts.lse_B, parts.reference_lse_B, parts.gap_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (
            row_BD,
            column_CD,
            reference_row_BD,
            reference_column_CD,
            *kept,
            saved_B,
            saved_reference_B,
        ) = ctx.saved_tensors
        of_lse_B, _, of_gap_B = gradients_B
        gradients = _Gradients(row_BD, column_CD, ctx.needs_input_grad)
        if kept[0] is not None:
            tile_EB = kept[0] * (of_lse_B / saved_B)
            tile_EB.addcmul_(kept[1], of_gap_B / saved_reference_B, value=-1)
            gradients.add(tile_EB, slice(None), row_BD)
            return *gradients.both(), None, None, None
        biases = _bias(saved_B), _bias(saved_reference_B)
        for columns in column_slices(len(row_BD), len(column_CD), row_BD.device):
            hidden_EB = _mask(ctx.excluded, columns)
            tile_EB = _product(row_BD, column_CD[columns], biases[0])
            reference_EB = _product(reference_row_BD, reference_column_CD[columns], biases[1])
            _hide(tile_EB, hidden_EB).exp_().mul_(of_lse_B)
            tile_EB.addcmul_(_hide(reference_EB, hidden_EB).exp_(), of_gap_B, value=-1)
            gradients.add(tile_EB, columns, row_BD)
            del tile_EB, reference_EB, hidden_EB  # before the next ones are made
        return *gradients.both(), None, None, None


class _Parts(NamedTuple):
    """What ``_CompareSoftmaxes`` returns, for some of the columns."""

    lse_B: torch.Tensor
    reference_lse_B: torch.Tensor
    gap_B: torch.Tensor

    def merge(self, more: "_Parts") -> "_Parts":
        """For the columns of both."""
        reference_lse_B = torch.logaddexp(self.reference_lse_B, more.reference_lse_B)
        bias_B = _bias(reference_lse_B)  # each mean counts with its columns' share of all
        gap_B = (self.reference_lse_B + bias_B).exp_().mul_(self.gap_B)
        gap_B.addcmul_((more.reference_lse_B + bias_B).exp_(), more.gap_B)
        return _Parts(torch.logaddexp(self.lse_B, more.lse_B), reference_lse_B, gap_B)


def _compared(
    ours: tuple[torch.Tensor, torch.Tensor],
    reference: tuple[torch.Tensor, torch.Tensor],
    columns: slice,
    excluded: Excluded,
) -> tuple[tuple[torch.Tensor, ...], _Parts]:
    """Both tiles of a slice as ``_log_sum`` leaves them and their sums; and the comparison."""
    hidden_EB = _mask(excluded, columns)
    tile_EB, reference_EB = (
        _product(row_BD, column_CD[columns]) for row_BD, column_CD in (ours, reference)
    )
    gap_EB = reference_EB - tile_EB  # before masking: finite everywhere
    lse_B, sum_B = _log_sum(_hide(tile_EB, hidden_EB))
    reference_lse_B, reference_sum_B = _log_sum(_hide(reference_EB, hidden_EB))
    gap_B = gap_EB.mul_(reference_EB).sum(dim=0).div_(reference_sum_B)
    return (tile_EB, reference_EB, sum_B, reference_sum_B), _Parts(lse_B, reference_lse_B, gap_B)


class _Gradients:
    """Gradients of rows and columns, summed slice by slice.

    A factor common to all logits of a row is multiplied into the rows (B * D numbers) instead of
    the tiles (B * C): before the product that gives the columns' gradient, and into the sum that
    gives the rows'.

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
        """Add those of a tile of logits, given the rows times their factor."""
        column_ED = self._columns_CD[columns]
        if self._of_rows and self._row_BD is None:
            self._row_BD = tile_EB.T @ column_ED
        elif self._row_BD is not None:
            self._row_BD.addmm_(tile_EB.T, column_ED)
        if self._column_CD is not None:
            torch.mm(tile_EB, weighted_BD, out=self._column_CD[columns])

    def weighted(self, factor_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Multiply the sum so far of each row by its factor; returns ``both``."""
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
    """A tile [E, B]; -inf where a row does not compete with a column."""
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
    """log sum exp of each row's logits, and the divisor that turns the tile into a softmax.

    The tile becomes exp(logit - the row's largest), 0 in a row that competes with nothing. The
    maximum is needed, as logits may differ by twice the scale, and float32 holds exp(88) at most.
    """
    # The lowest number for a row that competes with nothing, so that -inf minus it is -inf.
    largest_B = tile_EB.amax(dim=0).clamp_(min=torch.finfo(tile_EB.dtype).min)
    sum_B = tile_EB.sub_(largest_B).exp_().sum(dim=0)
    # The sum of any other row is at least 1, from its largest logit.
    return sum_B.log().add_(largest_B), sum_B.clamp_(min=1)


def _bias(lse_B: torch.Tensor) -> torch.Tensor:
    """-lse; finite for rows that compete with nothing, whose logits are -inf."""
    return lse_B.clamp(min=torch.finfo(lse_B.dtype).min).neg_()
