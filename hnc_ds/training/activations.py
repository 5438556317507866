"""Memory that activations of a model take, counted on a CPU without training it.

L tokens, T captions, B images, R pixels.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from hnc_ds.model.clip import TOWERS, Clip, forward_cost
from hnc_ds.model.scope import find_blocks


class Saved(NamedTuple):
    """Bytes that the backward pass of a tower needs, in fp32."""

    fixed: float
    """Whatever the batch, such as matrices of LoRA."""
    each: float
    """For each image, or each token of text."""


@dataclass(frozen=True)
class Activations:
    """Memory of activations in fp32, and operations of a forward pass."""

    image: Saved
    token: Saved
    image_flops: float
    token_flops: float

    def bytes(self, images: int, tokens: float) -> float:
        """Of a micro-batch of images and the tokens of its captions."""
        fixed = self.image.fixed + self.token.fixed
        return fixed + images * self.image.each + tokens * self.token.each


def measure_activations(clip: Clip, token_TL: torch.Tensor, checkpointing: bool) -> Activations:
    """Count what autograd saves in a forward pass of one and of two images, and of the captions
    once and twice.

    Args:
        clip: On a CPU, in fp32.
        token_TL: Some captions.
        checkpointing: Whether blocks keep their input alone, and one block all at a time.
    """
    size = clip.image_settings.size
    image_13RR = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    tokens = int(clip.computed_tokens(token_TL).sum())

    def of_images(count: int) -> float:
        images_B3RR = image_13RR.repeat(count, 1, 1, 1)
        return _saved(clip, lambda: clip.encode_images(images_B3RR), checkpointing)

    def of_texts(count: int) -> float:
        repeated_TL = token_TL.repeat(count, 1)
        return _saved(clip, lambda: clip.encode_texts(repeated_TL), checkpointing)

    images, texts = [of_images(1), of_images(2)], [of_texts(1), of_texts(2)]
    image = Saved(2 * images[0] - images[1], images[1] - images[0])
    token = Saved(2 * texts[0] - texts[1], (texts[1] - texts[0]) / tokens)
    return Activations(image, token, *forward_cost(clip))


def _saved(clip: Clip, forward: Callable[[], torch.Tensor], checkpointing: bool) -> float:
    """Bytes of storage that autograd saves in a forward pass, but for parameters."""
    found: dict[int, dict[int, torch.UntypedStorage]] = {}
    inputs: dict[int, float] = {}
    own = {p.untyped_storage().data_ptr() for p in (*clip.parameters(), *clip.buffers())}
    with _watched(clip, inputs) as inside:

        def save(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found.setdefault(inside[-1], {})[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            kept = forward()
    sums = {block: _bytes_of(stored) for block, stored in found.items()}
    del kept
    outside = sums.pop(OUTSIDE, 0.0)
    if checkpointing and sums:
        return outside + sum(inputs[block] for block in sums) + max(sums.values())
    return outside + sum(sums.values())


def _bytes_of(stored: Mapping[int, torch.UntypedStorage]) -> float:
    return float(sum(storage.nbytes() for storage in stored.values()))


OUTSIDE = -1
"""Stands for no block."""


@contextmanager
def _watched(clip: Clip, inputs: dict[int, float]) -> Iterator[list[int]]:
    """A list whose last element is the block that runs; also fills in the bytes of its input."""
    found = (find_blocks(clip.tower(name)) for name in TOWERS)
    blocks = [block for tower in found if tower for block in tower.blocks]
    inside = [OUTSIDE]

    def enter(number: int, given: tuple[Any, ...]) -> None:
        inside.append(number)
        inputs[number] = float(sum(part.nbytes for part in given if torch.is_tensor(part)))

    def leave(*_: Any) -> None:
        inside.pop()

    def hooked(number: int, block: torch.nn.Module) -> list[Any]:
        first = block.register_forward_pre_hook(lambda _, given: enter(number, given))
        return [first, block.register_forward_hook(leave)]

    hooks = [hook for number, block in enumerate(blocks) for hook in hooked(number, block)]
    try:
        yield inside
    finally:
        for hook in hooks:
            hook.remove()
