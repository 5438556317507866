"""torch.compile of both towers' transformer blocks, one at a time: seconds, not minutes.

The forward of a block's class is compiled, so that equal blocks share code. Only ``forward`` is
replaced: parameters keep their names, and hooks are outside of compiled code. Under ZeRO-3 a block
is a leaf module, whose weights are fetched together, as hooks inside would break the graph.
"""

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch

from hnc_ds.errors import UserError, counted
from hnc_ds.model.clip import TOWERS, Clip

MOST_VARIANTS = 64
"""torch's recompile limit (8 by default), after which it runs eagerly: two towers and a reference
model, with and without gradients, captions packed or not."""

Backend = str | Callable[..., Any]
"""torch.compile's backend: a name or a function."""


def check_compiler(device: torch.device, backend: Backend = "inductor") -> None:
    """Compile a small function.

    Raises:
        UserError: torch cannot compile for the device.
    """
    compiled: Any = torch.compile(lambda x: x.sin() + 1, backend=backend)
    try:
        compiled(torch.ones(8, device=device))
    except Exception as error:  # of the compiler, Triton or torch
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause).strip().splitlines() or [""])[0][:300]
        needed = "a C++ compiler" if device.type == "cpu" else "a C compiler and Triton"
        raise UserError(
            f"--compile: torch cannot compile here ({type(cause).__name__}: {reason}); it needs "
            f"{needed}: install that, or train without --compile"
        ) from error


def compile_blocks(clip: Clip, backend: Backend = "inductor") -> dict[str, int]:
    """Make the blocks of both towers, and of the reference model, compile when they first run.

    The text tower compiles with dynamic shapes; the image tower for its first batch size, and with
    dynamic shapes once that changes.

    Args:
        clip: The model before it is passed to DeepSpeed, with its scope and reference model set.
        backend: torch.compile's backend.

    Returns:
        Number of blocks by tower, for towers with open_clip's transformer blocks.
    """
    settings: Any = torch._dynamo.config
    limit = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"
    setattr(settings, limit, max(getattr(settings, limit), MOST_VARIANTS))
    found: dict[str, int] = {}
    for model in (clip, clip.reference):
        for tower, block in _blocks(model) if model is not None else ():
            _compile(block, backend, tower)
            found[tower] = found.get(tower, 0) + 1
        if model is not None:
            model.is_compiled = True
    return found


def described(blocks: dict[str, int]) -> str:
    """The result of ``compile_blocks`` as a message."""
    if not blocks:
        return "nothing is compiled, as no tower has open_clip's transformer blocks"
    towers = [f"{counted(count, 'block')} of the {tower} tower" for tower, count in blocks.items()]
    return f"compiles {' and '.join(towers)} in the first step"


def _blocks(clip: Clip) -> Iterator[tuple[str, Any]]:
    for tower in TOWERS:
        blocks = getattr(clip.tower(tower).get("transformer"), "resblocks", None)
        for block in blocks or ():
            yield tower, block


def _compile(block: Any, backend: Backend, tower: str) -> None:
    make: Any = torch.compile
    compiled = make(type(block).forward, backend=backend, dynamic=tower == "text" or None)
    block.forward = MethodType(compiled, block)
    block._z3_leaf = True  # DeepSpeed's mark, as deepspeed.utils.set_z3_leaf_module sets it
    if any(parameter.requires_grad for parameter in block.parameters()):
        block.register_forward_pre_hook(_as_variable)


def _as_variable(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make the first input of a trained block require a gradient.

    After frozen embeddings it does not, and then torch calls DeepSpeed's hook on a leaf module
    before the gradients exist."""
    x, *others = inputs
    if torch.is_grad_enabled() and not x.requires_grad:
        x = x.detach().requires_grad_()
    return (x, *others)


def suit(device: torch.device) -> None:
    """Enable cuDNN's benchmark mode: all images have one size, so convolutions are measured once.

    fp32 matrix products keep the precision "highest". open_clip's script allows TF32, but the
    setting is global, and TF32 would round the cosines in the loss to three digits, which is the
    scale of differences between hard negatives. bf16 uses tensor cores with the loss in fp32.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
