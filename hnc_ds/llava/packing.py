"""Questions of a batch as one row of tokens for each image. No transformers here.

A row has Q slots of L tokens, a question each, padded on its left; images with fewer questions have
empty slots. Questions of a row see their image and themselves, not each other (decoding.py).

I images, Q slots of a row, L tokens of the longest question, N = Q * L, R pixels of a side.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

PADDING = 0
"""Token id in front of a question; any id will do, as nothing looks at it."""


class Packed(NamedTuple):
    """Images with the questions about them; on the host, page-locked where a GPU follows."""

    pixels_I3RR: torch.Tensor
    """float32, or the model's dtype."""
    ids_IN: torch.Tensor
    """int64."""
    used_IQ: torch.Tensor
    """int64: tokens of each question; 0 for an empty slot."""

    @property
    def length(self) -> int:
        """L."""
        return self.ids_IN.shape[1] // self.used_IQ.shape[1]

    def halves(self) -> tuple["Packed", "Packed"]:
        """Two batches with half of the images each, or half of the only image's slots.

        Raises:
            ValueError: There is one slot.
        """
        images, slots = self.used_IQ.shape
        if images * slots == 1:
            raise ValueError("one question has no halves")
        if images > 1:
            half = images // 2
            first, second = (Packed(*(t[part] for t in self)) for part in _parts(half))
            return first, second
        half = slots // 2
        ids_1QL = self.ids_IN.unflatten(1, (slots, self.length))
        first, second = (
            Packed(self.pixels_I3RR, ids_1QL[:, part].flatten(1), self.used_IQ[:, part])
            for part in _parts(half)
        )
        return first, second


def _parts(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(half, None)


def places(image_of: Sequence[int]) -> list[tuple[int, int]]:
    """Row and slot of every question.

    Args:
        image_of: Number of each question's image.
    """
    taken: dict[int, int] = {}
    found = []
    for image in image_of:
        found.append((image, taken.get(image, 0)))
        taken[image] = found[-1][1] + 1
    return found


def pack(
    pixels_I3RR: torch.Tensor, image_of: Sequence[int], questions: Sequence[Sequence[int]]
) -> Packed:
    """Put questions into the places of ``places``.

    Args:
        pixels_I3RR: As ``llava.pictures`` returns them, stacked.
        image_of: Number of each question's image.
        questions: Token ids after the image.
    """
    placed = places(image_of)
    images, slots = len(pixels_I3RR), 1 + max(slot for _, slot in placed)
    length = max(map(len, questions))
    ids_IQL = torch.full((images, slots, length), PADDING, dtype=torch.int64)
    used_IQ = torch.zeros(images, slots, dtype=torch.int64)
    for (row, slot), ids in zip(placed, questions, strict=True):
        ids_IQL[row, slot, length - len(ids) :] = torch.tensor(ids)
        used_IQ[row, slot] = len(ids)
    return Packed(pixels_I3RR, ids_IQL.flatten(1), used_IQ)
