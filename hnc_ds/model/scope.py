"""Which parameters train: towers, last blocks, LoRA adapters, the temperature.

Frozen parameters have requires_grad False, so that DeepSpeed keeps no optimizer state and reduces
no gradients for them; frozen towers are in evaluation mode (``Clip.train``).
Blocks are found in towers of open_clip, image towers of timm and text towers of Hugging Face.

LoRA (Hu et al. 2022): an adapter is a parametrization. A matrix is W + scale * (up @ down) wherever
the model reads it, also in attention's joint projection and under ZeRO-3. Rank r, I inputs, O
outputs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from hnc_ds.config import ScopeConfig
from hnc_ds.errors import UserError
from hnc_ds.model.clip import TOWERS, Clip, Part

MATRICES = ("weight", "in_proj_weight")
"""Names of the matrices of linear layers and of attention."""

_ORIGINAL = "original"

AFTER_BLOCKS = ("ln_post", "proj", "attn_pool", "ln_final", "text_projection")
"""Members of open_clip's own towers after the blocks."""

HOLDERS = ("trunk", "transformer", "encoder")
"""Names of modules around the blocks: timm's in TimmModel, Hugging Face's in HFTextEncoder."""

CONTAINERS = ("blocks", "stages", "layers", "layer", "block")
"""Names of the list of blocks, or of stages with a list each, in timm and transformers."""


class Blocks(NamedTuple):
    """A tower from its first block on."""

    blocks: list[nn.Module]
    after: list[Part]
    """Norms, pooling and projections after the last block."""


class LowRank(nn.Module):
    """W -> W + scale * (up @ down). ``up`` is initially zero.

    Args:
        matrix_OI: The frozen matrix.
        rank: r.
        scale: Factor of the adapter.
    """

    def __init__(self, matrix_OI: torch.Tensor, rank: int, scale: float) -> None:
        super().__init__()
        outputs, inputs = matrix_OI.shape
        self.scale = scale
        self.down_rI = nn.Parameter(torch.empty(rank, inputs))
        self.up_Or = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down_rI, a=math.sqrt(5))

    def forward(self, matrix_OI: torch.Tensor) -> torch.Tensor:
        """The adapted matrix."""
        return matrix_OI + self.scale * (self.up_Or @ self.down_rI)


def add_low_rank(blocks: Sequence[nn.Module], rank: int, scale: float) -> int:
    """Add an adapter to every matrix of linear layers and attention.

    Args:
        blocks: Blocks with frozen parameters.
        rank: Rank of every adapter.
        scale: Factor of every adapter.

    Returns:
        Number of adapters.
    """
    modules = [module for block in blocks for module in block.modules()]
    count = 0
    for module in modules:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if name in MATRICES and parameter.ndim == 2 and not isinstance(module, nn.Embedding):
                change = LowRank(parameter, rank, scale)
                parametrize.register_parametrization(module, name, change)
                count += 1
    _share_classes(modules)
    return count


def _share_classes(modules: Sequence[nn.Module]) -> None:
    """Give modules with the same parametrizations one class.

    torch creates an equal class for each module, and code is compiled for each class, so every
    block would be compiled separately."""
    shared: dict[tuple[type, tuple[str, ...]], type] = {}
    for module in modules:
        if parametrize.is_parametrized(module):
            changed = tuple(cast(nn.ModuleDict, module.parametrizations))
            key = (type(module).__bases__[0], changed)
            module.__class__ = shared.setdefault(key, type(module))


def merged(weights: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """Weights with adapters merged, by the names of a model without LoRA.

    Args:
        weights: Whole tensors by parameter name; returned unchanged without LoRA.
        scale: Factor of the adapters.
    """
    plain = {name: tensor for name, tensor in weights.items() if ".parametrizations." not in name}
    for name, prefix in _originals(weights):
        up_Or, down_rI = weights[f"{prefix}0.up_Or"], weights[f"{prefix}0.down_rI"]
        plain[name] = weights[f"{prefix}{_ORIGINAL}"] + scale * (up_Or @ down_rI)
    return plain


def is_change(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by its name."""
    return ".parametrizations." in name and not name.endswith(f".{_ORIGINAL}")


def _originals(weights: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """(plain name, prefix of its parts' names) of every adapted matrix."""
    for full in weights:
        if full.endswith(f".{_ORIGINAL}") and ".parametrizations." in full:
            prefix = full.removesuffix(_ORIGINAL)
            yield prefix.replace(".parametrizations.", ".").rstrip("."), prefix


def choose_scope(clip: Clip, config: ScopeConfig) -> None:
    """Freeze the other parameters, and add LoRA adapters.

    Raises:
        UserError: The tower has fewer blocks, or none, or none with a linear layer.
    """
    for name in TOWERS:
        chosen = config.towers in ("both", name)
        if not chosen or config.last_blocks is not None or config.lora_rank is not None:
            clip.freeze(name)
        if chosen and config.last_blocks is not None:
            _train_last_blocks(clip.tower(name), config.last_blocks, name)
        if chosen and config.lora_rank is not None:
            _add_low_rank(clip.tower(name), config, config.lora_rank, name)
    if config.lora_rank is not None:
        clip.low_rank_scale = config.lora_scale()
    if not config.train_temperature:
        clip.towers.logit_scale.requires_grad_(False)
    clip.train(clip.training)


def _train_last_blocks(tower: dict[str, Part], count: int, name: str) -> None:
    blocks, after = _blocks(tower, name, "last_blocks")
    if count > len(blocks):
        raise UserError(
            f"last_blocks is {count}, but the {name} tower has {len(blocks)}; "
            "without last_blocks the whole tower trains"
        )
    for part in (*blocks[len(blocks) - count :], *after):
        part.requires_grad_(True)


def _add_low_rank(tower: dict[str, Part], config: ScopeConfig, rank: int, name: str) -> None:
    blocks, _ = _blocks(tower, name, "lora_rank")
    if not add_low_rank(blocks, rank, config.lora_scale()):
        raise UserError(
            f"lora_rank: the blocks of the {name} tower have no linear layers, which LoRA needs; "
            "train its last blocks, the whole tower, or the other one"
        )


def _blocks(tower: dict[str, Part], name: str, setting: str) -> Blocks:
    found = find_blocks(tower)
    if found is None:
        raise UserError(
            f"{setting}: the {name} tower of this model has none of the blocks that open_clip's, "
            "timm's and Hugging Face's transformers have; train the whole tower, or the other one"
        )
    return found


def find_blocks(tower: dict[str, Part]) -> Blocks | None:
    """The blocks of a tower; None if it has no list of them, as a ResNet.

    Args:
        tower: Its members, as ``Clip.tower`` returns them.
    """
    own: Any = getattr(tower.get("transformer"), "resblocks", None)
    if own is not None:
        return Blocks(list(own), [tower[name] for name in AFTER_BLOCKS if name in tower])
    return _find(list(tower.items()))


def _find(parts: list[tuple[str, Part]]) -> Blocks | None:
    for number, (name, part) in enumerate(parts):
        after = [other for _, other in parts[number + 1 :]]
        if name in CONTAINERS and _is_list(part):
            return Blocks(list(_flat(part)), after)
        if name in HOLDERS and isinstance(part, nn.Module):
            found = _find(list(part.named_children()))
            return found and Blocks(found.blocks, found.after + after)
    return None


def _flat(container: Any) -> Iterator[nn.Module]:
    """Blocks in a list, or in a list of stages."""
    for block in container:
        inner = getattr(block, "blocks", block)
        if _is_list(inner):
            yield from _flat(inner)
        else:
            yield block


def _is_list(part: Any) -> bool:
    return isinstance(part, nn.Sequential | nn.ModuleList)
