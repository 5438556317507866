"""Softmaxes over many columns in memory that grows with rows plus columns, not with their product.

Logits are computed for a slice of the columns at a time and thrown away; the backward pass computes
them again from the log-sum-exp of the forward pass. Everything in float32 or wider. Letters as in
rows.py; E is the columns of a slice, S a row's own columns.

Source: the recomputation is FlashAttention's (Dao et al. 2022) and that of Inf-CL (Cheng et al.
2024), with masks, weights and columns of a row's own.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from hnc_ds.objective.rows import Side

TILE = 2**20
"""Logits in memory at a time: 4 MiB, which a processor's cache still holds. Smaller tiles save
little, as the gradients of the columns are there anyway; larger ones are slower (RESULTS.md)."""

NARROWEST = 64
"""Columns of a slice for very many rows."""


def log_normaliser(side: Side, scale: torch.Tensor) -> torch.Tensor:
    """Logarithm of what each row's softmax divides by, [B]; differentiable.

    Args:
        side: Rows and what they compete with.
        scale: 1 / tau, one element.
    """
    parts = [
        _LogSumExp.apply(side.row_BD, shared.column_CD, scale, shared.excluded) + shared.log_weight
        for shared in side.shared
    ]
    return torch.cat([torch.stack(parts, dim=1), _own_logits(side, scale)], dim=1).logsumexp(dim=1)


def divergence(side: Side, start: Side, scale: torch.Tensor) -> torch.Tensor:
    """KL(start || side) of each row's two softmaxes over the same columns, [B], nats, >= 0.

    Args:
        side: Rows and columns under the model; gradients flow to them.
        start: The same under the start model; constants.
        scale: 1 / tau of both, one element, a constant.
    """
    parts = [
        _AgainstStart.apply(
            side.row_BD,
            shared.column_CD,
            start.row_BD.detach(),
            before.column_CD.detach(),
            scale.detach(),
            shared.excluded,
        )
        for shared, before in zip(side.shared, start.shared, strict=True)
    ]
    weights = [shared.log_weight for shared in side.shared]
    lse_BP = torch.stack([part[0] + w for part, w in zip(parts, weights, strict=True)], dim=1)
    start_BP = torch.stack([part[1] + w for part, w in zip(parts, weights, strict=True)], dim=1)
    gap_BP = torch.stack([part[2] for part in parts], dim=1)
    own_BS, own_start_BS = _own_logits(side, scale), _own_logits(start, scale).detach()
    log_sum_B = torch.cat([lse_BP, own_BS], dim=1).logsumexp(dim=1)
    start_B = torch.cat([start_BP, own_start_BS], dim=1).logsumexp(dim=1)
    own_gap_BS = (own_start_BS - own_BS).masked_fill(own_start_BS == -torch.inf, 0)
    gap_B = ((start_BP - start_B[:, None]).exp() * gap_BP).sum(dim=1)
    own_gap_B = ((own_start_BS - start_B[:, None]).exp() * own_gap_BS).sum(dim=1)
    return gap_B + own_gap_B - start_B + log_sum_B


def column_slices(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the columns whose tiles have about TILE logits."""
    width = max(NARROWEST, TILE // max(1, rows))
    return (slice(first, min(first + width, columns)) for first in range(0, columns, width))


def _own_logits(side: Side, scale: torch.Tensor) -> torch.Tensor:
    """Of the columns that each row has for itself, [B, S]."""
    logits = [
        scale * torch.einsum("bd,bsd->bs", side.row_BD, own.column_BSD) + own.log_weight_BS
        for own in side.own
    ]
    return torch.cat([side.row_BD[:, :0], *logits], dim=1)


class _LogSumExp(torch.autograd.Function):
    """log sum_c exp(scale * row . column) over the columns that are not excluded, [B]."""

    @staticmethod
    def forward(
        ctx: Any, row_BD: torch.Tensor, column_CD: torch.Tensor, scale: torch.Tensor, excluded: Any
    ) -> torch.Tensor:
        lse_B = row_BD.new_full((len(row_BD),), -torch.inf)
        for columns in column_slices(len(row_BD), len(column_CD)):
            logits_BE = _logits(row_BD, column_CD[columns], scale, _mask(excluded, columns))
            lse_B = torch.logaddexp(lse_B, _log_sum(logits_BE))
        ctx.save_for_backward(row_BD, column_CD, scale, lse_B)
        ctx.excluded = excluded
        return lse_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        row_BD, column_CD, scale, lse_B = ctx.saved_tensors
        gradients = _Gradients.of(row_BD, column_CD, ctx.needs_input_grad)
        weight_B1 = (gradient_B * scale)[:, None]
        for columns in column_slices(len(row_BD), len(column_CD)):
            mask = _mask(ctx.excluded, columns)
            share_BE = _logits(row_BD, column_CD[columns], scale, mask)
            _to_shares(share_BE, lse_B).mul_(weight_B1)
            gradients.add(share_BE, row_BD, column_CD[columns], columns)
        return gradients.row_BD, gradients.column_CD, gradients.of_scale(row_BD, scale), None


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
        scale: torch.Tensor,
        excluded: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lse_B = row_BD.new_full((len(row_BD),), -torch.inf)
        start_lse_B, gap_B = lse_B.clone(), torch.zeros_like(lse_B)
        for columns in column_slices(len(row_BD), len(column_CD)):
            excluded_BE = _mask(excluded, columns)
            logits_BE = _logits(row_BD, column_CD[columns], scale, excluded_BE)
            start_BE = _logits(start_row_BD, start_column_CD[columns], scale, excluded_BE)
            apart_BE = _hide(start_BE - logits_BE, excluded_BE, 0)
            lse_B = torch.logaddexp(lse_B, _log_sum(logits_BE))
            seen_B = torch.logaddexp(start_lse_B, _log_sum(start_BE.clone()))
            # The mean so far counts with its share of all columns seen up to here.
            gap_B = gap_B * _to_shares(start_lse_B[:, None].clone(), seen_B)[:, 0]
            gap_B += _to_shares(start_BE, seen_B).mul_(apart_BE).sum(dim=1)
            start_lse_B = seen_B
        saved = (row_BD, column_CD, start_row_BD, start_column_CD, scale, lse_B, start_lse_B)
        ctx.save_for_backward(*saved)
        ctx.excluded = excluded
        ctx.mark_non_differentiable(start_lse_B)
        return lse_B, start_lse_B, gap_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        row_BD, column_CD, start_row_BD, start_column_CD, scale, lse_B, start_B = ctx.saved_tensors
        of_lse_B1, of_gap_B1 = ((gradients_B[n] * scale)[:, None] for n in (0, 2))
        gradients = _Gradients.of(row_BD, column_CD, ctx.needs_input_grad)
        for columns in column_slices(len(row_BD), len(column_CD)):
            excluded_BE = _mask(ctx.excluded, columns)
            share_BE = _logits(row_BD, column_CD[columns], scale, excluded_BE)
            _to_shares(share_BE, lse_B).mul_(of_lse_B1)
            start_BE = _logits(start_row_BD, start_column_CD[columns], scale, excluded_BE)
            share_BE -= _to_shares(start_BE, start_B).mul_(of_gap_B1)
            gradients.add(share_BE, row_BD, column_CD[columns], columns)
        return gradients.row_BD, gradients.column_CD, None, None, None, None


class _Gradients(NamedTuple):
    """Of rows and columns, summed slice by slice. What is given is times the scale already."""

    row_BD: torch.Tensor
    column_CD: torch.Tensor | None
    """None where the columns are constants."""

    @staticmethod
    def of(row_BD: torch.Tensor, column_CD: torch.Tensor, needed: Any) -> "_Gradients":
        return _Gradients(
            torch.zeros_like(row_BD), torch.empty_like(column_CD) if needed[1] else None
        )

    def add(
        self,
        gradient_BE: torch.Tensor,
        row_BD: torch.Tensor,
        column_ED: torch.Tensor,
        columns: slice,
    ) -> None:
        self.row_BD.addmm_(gradient_BE, column_ED)
        if self.column_CD is not None:
            torch.mm(gradient_BE.T, row_BD, out=self.column_CD[columns])

    def of_scale(self, row_BD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """sum_c gradient * row . column, which is the rows' gradient times the rows."""
        total = torch.dot(self.row_BD.reshape(-1), row_BD.reshape(-1))
        return (total / scale).view_as(scale)


def _logits(
    row_BD: torch.Tensor,
    column_ED: torch.Tensor,
    scale: torch.Tensor,
    excluded_BE: torch.Tensor | None,
) -> torch.Tensor:
    return _hide((row_BD @ column_ED.T).mul_(scale), excluded_BE, -torch.inf)


def _mask(excluded: Any, columns: slice) -> torch.Tensor | None:
    return None if excluded is None else excluded(columns)


def _hide(values_BE: torch.Tensor, excluded_BE: torch.Tensor | None, by: float) -> torch.Tensor:
    return values_BE if excluded_BE is None else values_BE.masked_fill_(excluded_BE, by)


def _log_sum(logits_BE: torch.Tensor) -> torch.Tensor:
    """log sum exp of each row, overwriting the logits: five times as fast as torch.logsumexp."""
    largest_B = logits_BE.amax(dim=1)
    return _to_shares(logits_BE, largest_B).sum(dim=1).log_().add_(largest_B)


def _to_shares(logits_BE: torch.Tensor, lse_B: torch.Tensor) -> torch.Tensor:
    """exp(logits - lse) in place; 0, not NaN, in rows that see nothing."""
    return logits_BE.sub_(lse_B.masked_fill(lse_B == -torch.inf, 0)[:, None]).exp_()
