"""LoRA: a low-rank change beside each frozen matrix, and its way back into plain weights.

The change is a parametrization, so a matrix is W + scale * (up @ down) wherever the model reads it,
in attention's joined projection too, and under ZeRO-3. r ranks, I inputs, O outputs.

Source: Hu et al. 2022.
"""

import math
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

MATRICES = ("weight", "in_proj_weight")
"""Names of the matrices of linear layers and of attention."""

_ORIGINAL = "original"


class LowRank(nn.Module):
    """W -> W + scale * (up @ down). Nothing changes at first, as ``up`` is zero.

    Args:
        matrix_OI: What is changed.
        rank: r.
        scale: Of the change.
    """

    def __init__(self, matrix_OI: torch.Tensor, rank: int, scale: float) -> None:
        super().__init__()
        outputs, inputs = matrix_OI.shape
        self.scale = scale
        self.down_rI = nn.Parameter(torch.empty(rank, inputs))
        self.up_Or = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down_rI, a=math.sqrt(5))

    def forward(self, matrix_OI: torch.Tensor) -> torch.Tensor:
        """The changed matrix."""
        return matrix_OI + self.scale * (self.up_Or @ self.down_rI)


def add_low_rank(blocks: nn.Module, rank: int, scale: float) -> None:
    """Put a change beside every matrix of linear layers and attention in some blocks.

    Args:
        blocks: Transformer blocks, all of whose parameters are frozen.
        rank: Of every change.
        scale: Of every change.
    """
    for module in list(blocks.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if name in MATRICES and parameter.ndim == 2:
                change = LowRank(parameter, rank, scale)
                parametrize.register_parametrization(module, name, change)
    _share_classes(blocks)


def _share_classes(blocks: nn.Module) -> None:
    """Modules that were changed alike get one class.

    torch gives each a class of its own, all of the same content, and compiled code is for a class:
    without this every block would be compiled by itself.
    """
    shared: dict[tuple[type, tuple[str, ...]], type] = {}
    for module in blocks.modules():
        if parametrize.is_parametrized(module):
            changed = tuple(cast(nn.ModuleDict, module.parametrizations))
            key = (type(module).__bases__[0], changed)
            module.__class__ = shared.setdefault(key, type(module))


def merged(weights: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """Weights under the names and with the values that a model without LoRA has.

    Args:
        weights: Whole tensors by parameter name; without LoRA they come back as they are.
        scale: Of the changes.
    """
    plain = {name: tensor for name, tensor in weights.items() if ".parametrizations." not in name}
    for name, prefix in _originals(weights):
        up_Or, down_rI = weights[f"{prefix}0.up_Or"], weights[f"{prefix}0.down_rI"]
        plain[name] = weights[f"{prefix}{_ORIGINAL}"] + scale * (up_Or @ down_rI)
    return plain


def is_change(name: str) -> bool:
    """Whether a parameter is a part of a change, by its name."""
    return ".parametrizations." in name and not name.endswith(f".{_ORIGINAL}")


def _originals(weights: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """(plain name, what its parts' names begin with) of every changed matrix."""
    for full in weights:
        if full.endswith(f".{_ORIGINAL}") and ".parametrizations." in full:
            prefix = full.removesuffix(_ORIGINAL)
            yield prefix.replace(".parametrizations.", ".").rstrip("."), prefix
