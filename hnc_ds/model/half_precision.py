"""Layers that mix parameters and buffers, in 16-bit training.

DeepSpeed casts parameters and leaves buffers as they are, in fp32; PyTorch's kernels refuse some of
the mixtures.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _WithFp32Parameters:
    """A batch norm whose parameters are cast to the type of its statistics where it uses them, as
    images of 16 bits may be normalized with fp32 parameters, and fp32 statistics with no others.
    What is trained, sharded and saved are the parameters themselves."""

    running_mean: torch.Tensor | None
    _parameters: dict[str, nn.Parameter | None]

    @property
    def weight(self) -> torch.Tensor | None:
        """[C], or None without an affine part."""
        return self._cast("weight")

    @property
    def bias(self) -> torch.Tensor | None:
        """[C], or None without an affine part."""
        return self._cast("bias")

    def _cast(self, name: str) -> torch.Tensor | None:
        parameter = self._parameters[name]
        if parameter is None or self.running_mean is None:
            return parameter
        return parameter.to(self.running_mean.dtype)


@cache
def _with_fp32_parameters(kind: Any) -> Any:
    return type(kind.__name__, (_WithFp32Parameters, kind), {})


def fit_buffers(model: nn.Module, dtype: torch.dtype) -> None:
    """Prepare a model whose parameters are about to be cast to 16 bits.

    Statistics of batch norms stay in fp32: a running mean of 16 bits would stop to move. Buffers
    that checkpoints leave out are constants of the architecture (masks, tables of positions), which
    layers mix with their parameters; they take ``dtype``. Rotary positions keep their fp32 angles,
    as their users cast the result.

    Args:
        model: Changed in place.
        dtype: Of the parameters.
    """
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            if not isinstance(module, _WithFp32Parameters):
                kind: Any = type(module)
                module.__class__ = _with_fp32_parameters(kind)
        elif "rotary" not in type(module).__name__.lower():
            for name in module._non_persistent_buffers_set:
                buffer = module._buffers[name]
                if buffer is not None and buffer.is_floating_point():
                    module._buffers[name] = buffer.to(dtype)
