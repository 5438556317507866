"""A KV cache that is allocated once and written in place.

transformers' StaticCache has a row for each question. Here a row is an image with all its
questions: their common prefix is stored once, and a step writes a token of every question. Nothing
is concatenated, and no method synchronizes with the device.

I images, N tokens of a forward pass, K tokens of capacity.
"""

from typing import Any

import torch
from transformers import Cache

Layer = tuple[torch.Tensor, torch.Tensor]
"""Keys and values."""


class SharedCache(Cache):
    """A cache for the forward pass of transformers' language models."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._memory: list[Layer] = []  # flat; never shrinks
        self._layers: list[Layer] = []  # views of it [I, heads, K, width]
        self._images, self._room = 0, 0
        self._start, self._visible = 0, 0
        self._place_N: torch.Tensor | None = None
        self.version = 0
        """Changes when memory is reallocated."""

    @property
    def capacity(self) -> int:
        """K."""
        return self._room

    def begin(self, images: int, capacity: int) -> None:
        """Start a batch of ``images`` rows of ``capacity`` tokens."""
        self._images, self._room = images, capacity
        self._layers.clear()

    def write_from(self, start: int, stop: int) -> None:
        """Have the next pass write tokens ``start`` to ``stop``, and see all tokens up to there."""
        self._start, self._visible, self._place_N = start, stop, None

    def write_at(self, place_N: torch.Tensor, visible: int) -> None:
        """Have the next passes write at indices that may change between passes.

        Args:
            place_N: int64 indices, on the device.
            visible: Number of keys that attention reads.
        """
        self._place_N, self._visible = place_N, visible

    def change(self, kept: torch.Tensor | None, capacity: int) -> None:
        """Drop images, or grow the capacity.

        Args:
            kept: int64 indices of the rows to keep, on the device; None for all.
            capacity: K; not smaller than before.
        """
        before, self._layers = self._layers, []
        images = self._images if kept is None else len(kept)
        for number, layer in enumerate(before):
            old = [t.clone() if kept is None else t.index_select(0, kept) for t in layer]
            new = self._views(number, images, capacity, *old)
            for view, tensor in zip(new, old, strict=True):
                view[:, :, : self._room].copy_(tensor)
            self._layers.append(new)
        self._images, self._room = images, capacity

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> Layer:
        """Write a pass's keys and values; return all that it sees (transformers' Cache API)."""
        if layer_idx == len(self._layers):
            views = self._views(layer_idx, self._images, self._room, key_states, value_states)
            self._layers.append(views)
        keys, values = self._layers[layer_idx]
        for whole, new in ((keys, key_states), (values, value_states)):
            if self._place_N is None:
                whole[:, :, self._start : self._visible].copy_(new)
            else:
                whole.index_copy_(2, self._place_N, new)
        return keys[:, :, : self._visible], values[:, :, : self._visible]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the pass (transformers' Cache API)."""
        del layer_idx
        return self._start

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Tokens that the pass sees, and their offset (transformers' Cache API)."""
        del query_length, layer_idx
        return self._visible, 0

    def _views(
        self, number: int, images: int, capacity: int, key: torch.Tensor, value: torch.Tensor
    ) -> Layer:
        """Views of a layer's memory, which grows as needed.

        Memory is zeroed: unwritten values are multiplied by 0, and 0 * NaN is NaN.
        """
        shapes = [(images, like.shape[1], capacity, like.shape[3]) for like in (key, value)]
        sizes = [torch.Size(shape).numel() for shape in shapes]
        if number == len(self._memory):
            empty = key.new_zeros(0)
            self._memory.append((empty, empty))
        if any(t.numel() < size for t, size in zip(self._memory[number], sizes, strict=True)):
            dtype, device = key.dtype, key.device
            self._memory[number] = (key.new_zeros(0), key.new_zeros(0))  # free before allocating
            keys, values = (torch.zeros(size, dtype=dtype, device=device) for size in sizes)
            self._memory[number] = (keys, values)
            self.version += 1
        keys, values = self._memory[number]
        return keys[: sizes[0]].view(shapes[0]), values[: sizes[1]].view(shapes[1])
