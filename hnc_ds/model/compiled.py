"""torch.compile of both towers' transformer blocks, one by one: seconds, not minutes.

The forward of a block's class is compiled and called by all its blocks, so that equal blocks share
code. A block's ``forward`` is replaced and not the block: parameters keep their names, and hooks
stay outside of what is compiled. Under ZeRO-3 a block is a leaf, whose weights are fetched together
before it, as hooks of the layers inside would cut the code into pieces.
"""

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch

from hnc_ds.errors import UserError, counted
from hnc_ds.model.clip import TOWERS, Clip

MOST_VARIANTS = 64
"""Codes of a block's forward that torch keeps before it gives up and computes eagerly (8 by
default): two towers and a start model, with and without gradients, captions packed or not."""

Backend = str | Callable[..., Any]
"""Of torch.compile: a name, or a function as torch._dynamo takes it."""


def check_compiler(device: torch.device, backend: Backend = "inductor") -> None:
    """Compile something small.

    Raises:
        UserError: torch cannot compile for the device.
    """
    compiled: Any = torch.compile(lambda x: x.sin() + 1, backend=backend)
    try:
        compiled(torch.ones(8, device=device))
    except Exception as error:  # of a compiler, of Triton, of torch, each its own
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause).strip().splitlines() or [""])[0][:300]
        needed = "a C++ compiler" if device.type == "cpu" else "a C compiler and Triton"
        raise UserError(
            f"--compile: torch cannot compile here ({type(cause).__name__}: {reason}); it needs "
            f"{needed}: install that, or train without --compile"
        ) from error


def compile_blocks(clip: Clip, backend: Backend = "inductor") -> dict[str, int]:
    """Compile the blocks of both towers, and those of the start model, when they first run.

    Code is made for any number of captions and of their tokens; of images for the first number of
    them, and once more for any when that changes.

    Args:
        clip: The model, before DeepSpeed has it; its scope is chosen, its start model remembered.
        backend: Of torch.compile.

    Returns:
        Blocks by tower; only towers that have open_clip's transformer blocks.
    """
    settings: Any = torch._dynamo.config
    limit = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"
    setattr(settings, limit, max(getattr(settings, limit), MOST_VARIANTS))
    found: dict[str, int] = {}
    for model in (clip, clip.start):
        for tower, block in _blocks(model) if model is not None else ():
            _compile(block, backend, tower)
            found[tower] = found.get(tower, 0) + 1
        if model is not None:
            model.is_compiled = True
    return found


def described(blocks: dict[str, int]) -> str:
    """What ``compile_blocks`` compiles, for a line of the log."""
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
    """Inputs of a block that trains, the first of which has a gradient, needed or not.

    Behind frozen embeddings it has none, and then DeepSpeed takes the gradients of a leaf before
    they are there: torch calls its hook on a module whose input needs none too early.
    """
    x, *others = inputs
    if torch.is_grad_enabled() and not x.requires_grad:
        x = x.detach().requires_grad_()
    return (x, *others)
