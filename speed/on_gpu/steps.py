"""Variants of a training step on a device, side by side in its memory, and the largest batch that
fits."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch

from hnc_ds.model.clip import Clip
from hnc_ds.shards.loader import Batch
from speed.made import Captions, made_batch
from speed.on_gpu.ground import Ground, is_out_of_memory
from speed.variants import NoEngine, Ours, Theirs, shipped, their_batch

OURS, THEIRS, NO_ENGINE = "hnc_ds", "open_clip's step", "no engine"
VARIANTS = (OURS, THEIRS, NO_ENGINE)
NEGATIVES = 4


class Steps:
    """Variants of a training step, and the batch that they step on.

    Args:
        clip: A model on the CPU; each gets a copy.
        captions: Of the images of the batch.
        ground: Where.
        names: Of VARIANTS.
        checkpointing: Whether activations are computed again in the backward pass.
    """

    def __init__(
        self,
        clip: Clip,
        captions: Captions,
        ground: Ground,
        names: Sequence[str],
        checkpointing: bool,
    ) -> None:
        self.batch, self.checkpointing = len(captions), checkpointing
        self._clip, self._captions, self.ground, self._names = clip, captions, ground, names
        self.works: dict[str, Callable[[], object]] = {}
        self.variants: dict[str, Any] = {}
        """The objects that step."""
        self.seconds: dict[str, float] = {}
        """Of each one's second step."""
        self._held: dict[str, int] = {}
        self._rows: Batch | None = None

    def fits(self, captions: Captions | None = None) -> bool:
        """Do two steps of each variant, the first of which makes it; False without enough memory.

        Args:
            captions: Of the images of another batch, which takes the place of the one before.
        """
        if captions is not None:
            self._captions, self.batch = captions, len(captions)
        self.works.clear()
        self._rows = None
        try:
            self._step_twice()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _step_twice(self) -> None:
        rows = made_batch(self._clip, self._captions, range(self.batch))
        self.captions, self.longest = rows.token_TL.shape
        self.tokens = int((rows.token_TL.argmax(dim=1) + 1).sum())
        for name in self._names:
            before = self.ground.held()
            if name not in self.variants:
                self.variants[name] = self._made(name)
            self.works[name] = partial(self.variants[name].step, self._given(name, rows))
            self.works[name]()
            self.ground.wait()
            self._held[name] = self.ground.held() - before
        for name, work in self.works.items():  # beside what optimizers keep from their first step
            self.seconds[name] = repeat(work, 1, self.ground)

    def _made(self, name: str) -> Any:
        if name == THEIRS:
            return Theirs(self._copy().towers, self.ground.device, torch.bfloat16)
        if name == NO_ENGINE:
            return NoEngine(self._copy(), self.ground.device, all_negatives=True)
        config = shipped("zero1_bf16", train_batch_size=self.batch)
        return Ours(self._copy(), config, all_negatives=True)

    def _given(self, name: str, rows: Batch) -> Any:
        if name == THEIRS:
            return their_batch(self._clip, rows.to(self.ground.device))
        if self._rows is None:
            self._rows = rows.to(self.ground.device)
        return self._rows

    def _copy(self) -> Clip:
        clip = deepcopy(self._clip, {id(self._clip.tokenize): self._clip.tokenize})
        clip.towers.set_grad_checkpointing(self.checkpointing)
        return clip

    def held_by_others(self, name: str) -> int:
        """Bytes that the other variants hold while this one steps."""
        return sum(held for other, held in self._held.items() if other != name)

    def compile(self, ground: Ground) -> float:
        """torch.compile of the towers' blocks in each variant; seconds until each has stepped."""
        before = time.perf_counter()
        for name, variant in self.variants.items():
            variant.compile(backend(ground))
            self.works[name]()
        ground.wait()
        return time.perf_counter() - before

    def summary(self) -> str:
        """What a step is given."""
        again = ", with gradient checkpointing" * self.checkpointing
        return (
            f"Batch {self.batch}{again}: {self.captions} distinct captions of "
            f"{self.tokens / self.captions:.1f} tokens on average, {self.longest} at most; "
            f"open_clip's step encodes {self.batch * (1 + NEGATIVES)} of "
            f"{self._clip.tokenize.context_length}."
        )

    def close(self) -> None:
        """Let go of all memory."""
        if OURS in self.variants:
            self.variants[OURS].close()
        self.works.clear()
        self.variants.clear()
        self._rows = None
        self.ground.free()


def largest(
    clip: Clip,
    captions: Captions,
    batches: Sequence[int],
    ground: Ground,
    names: Sequence[str],
    checkpointing: Sequence[bool] = (False, True),
) -> Steps | None:
    """The largest batch that fits; with gradient checkpointing only if none fits without."""
    for again in checkpointing:
        for batch in sorted(batches, reverse=True):
            steps = Steps(clip, captions[:batch], ground, names, again)
            if steps.fits():
                return steps
            steps.close()
    return None


def backend(ground: Ground) -> str:
    """Of torch.compile; on a CPU inductor takes minutes to compile what is not measured there."""
    return ground.pick("inductor", "aot_eager", "eager")


def repeat(work: Callable[[], object], times: int, ground: Ground) -> float:
    """Seconds of some steps, until the device has done them."""
    ground.wait()
    before = time.perf_counter()
    for _ in range(times):
        work()
    ground.wait()
    return time.perf_counter() - before
