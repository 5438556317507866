"""Batches that do not fit into memory are answered in halves."""

from collections.abc import Callable
from contextlib import suppress

import torch

from hnc_ds.errors import UserError
from hnc_ds.llava.generate import Answering, Generated, Generator
from hnc_ds.llava.packing import Packed

Grid = list[list[Generated]]
"""An answer for every slot of every image."""


class Halving:
    """A generator that knows how much it can do at once.

    Args:
        generator: What answers.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._most: int | None = None

    def begin(self, packed: Packed) -> Callable[[], Grid]:
        """Begin with a batch, without waiting for the device; what is returned finishes it.

        Raises:
            UserError: A single question does not fit, or the model computes what are no numbers.
        """
        answering = None
        if self._most is None or packed.used_IQ.numel() <= self._most:
            with suppress(torch.OutOfMemoryError):
                answering = self._generator.begin(packed)
        begun = [] if answering is None else [answering]
        return lambda: self._finished(packed, begun)

    def _finished(self, packed: Packed, begun: list[Answering]) -> Grid:
        with suppress(torch.OutOfMemoryError):
            if begun:
                return begun.pop().finish()
        if self._most is None or packed.used_IQ.numel() <= self._most:
            self._make_smaller(packed.used_IQ.numel())
        return self._in_halves(packed)

    def _make_smaller(self, slots: int) -> None:
        """Remember that so many were too many, and free what they took."""
        if slots == 1:
            raise UserError(
                "answer: a single question does not fit into the GPU's memory; give --dtype float16"
            )
        self._most = slots // 2
        self._generator.forget()
        torch.cuda.empty_cache()

    def _in_halves(self, packed: Packed) -> Grid:
        first, second = (self.begin(half)() for half in packed.halves())
        if len(packed.used_IQ) > 1:
            return first + second
        return [first[0] + second[0]]
