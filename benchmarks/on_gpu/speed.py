"""Whole training steps on the device: ours and open_clip's way in turns on the same batch.

The batch is the largest of a list that both can do; then ours alone takes the largest it can.
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.made import Captions, drawn_captions, made_batch
from benchmarks.on_gpu.ground import Ground, Row, Tell, is_out_of_memory
from benchmarks.timing import Timing, alternate
from benchmarks.ways import Ours, Theirs, shipped, their_batch
from hnc_ds.config import ModelConfig
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.load import load_model
from hnc_ds.shards.loader import Batch

OURS, THEIRS = "hnc_ds", "open_clip's way"
NEGATIVES = 4
QUICK = ("tiny", (8, 4))
"""Model and batches."""
ROUNDS, TURN_SECONDS, WARM_UP = 5, 1.5, 3
QUICK_ROUNDS, QUICK_TURN_SECONDS, QUICK_WARM_UP = 2, 0.01, 1
COMPILING_SECONDS, ALONE_SECONDS = 60.0, 20.0
"""What compiling, and trying larger batches alone, may take: not begun with less time left."""
GIB = 2**30


def measure(model: str, batches: Sequence[int], ground: Ground, tell: Tell) -> None:
    """Rows of a model: both ways, both compiled, ours with as large a batch as it can do."""
    if ground.quick:
        model, batches = QUICK
    clip = load_model(ModelConfig(model=model), 0)
    captions = drawn_captions(ground.folder / f"speed-{model}", max(batches), NEGATIVES)
    cost = forward_cost(clip)
    pair = largest(clip, captions, batches, ground, peer=True)
    if pair is None:
        tell.note(f"Not even a batch of {min(batches)} fits with gradient checkpointing.")
        return
    tell.note(pair.told())
    compare(pair, model, cost, ground, tell)
    if ground.quick or ground.left() > COMPILING_SECONDS:
        with tell.attempt(f"{model}, torch.compile"):
            if left_out := pair.compile("eager" if ground.quick else "inductor"):
                tell.note(left_out)
            compare(pair, f"{model}, blocks compiled", cost, ground, tell)
    else:
        tell.note("torch.compile was left out: no time.")
    batch = pair.batch
    pair.close()
    larger = [size for size in batches if size > batch]
    if larger and ground.left() > ALONE_SECONDS:
        with tell.attempt(f"{model}, ours alone"):
            _alone(model, larger, clip, captions, cost, ground, tell)


def _alone(
    model: str,
    batches: Sequence[int],
    clip: Clip,
    captions: Captions,
    cost: tuple[float, float],
    ground: Ground,
    tell: Tell,
) -> None:
    own = largest(clip, captions, batches, ground, peer=False, checkpointing=(False,))
    if own is None:
        tell.note(f"Alone hnc_ds has no room for a batch of {min(batches)} either.")
        return
    compare(own, f"{model}, largest batch of its own", cost, ground, tell)
    own.close()


class Pair:
    """Both ways, or ours alone, with the batch that they step on.

    Args:
        clip: A model on the CPU; both get copies.
        captions: Of the images of the batch.
        ground: Where.
        peer: Whether open_clip's way is there.
        checkpointing: Whether activations are computed again in the backward pass.
    """

    def __init__(
        self, clip: Clip, captions: Captions, ground: Ground, peer: bool, checkpointing: bool
    ) -> None:
        self.batch, self.checkpointing = len(captions), checkpointing
        self._clip, self._captions, self._ground, self._peer = clip, captions, ground, peer
        self.ways: dict[str, Callable[[], object]] = {}
        self._held: dict[str, int] = {}
        self._towers: list[Any] = []
        self._ours: Ours | None = None

    def fits(self) -> bool:
        """Make the ways and do a step of each; False if memory does not suffice."""
        try:
            self._make()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _make(self) -> None:
        self._add(OURS, self._make_ours)
        if self._peer:
            self._add(THEIRS, self._make_theirs)
        for work in self.ways.values():  # beside all that optimizers keep since their first step
            work()
        self._ground.wait()

    def _add(self, name: str, make: Callable[[], Callable[[], object]]) -> None:
        before = self._ground.held()
        self.ways[name] = make()
        self.ways[name]()
        self._ground.wait()
        self._held[name] = self._ground.held() - before

    def _make_ours(self) -> Callable[[], object]:
        rows = self._rows()
        self.tokens = int((rows.token_TL.argmax(dim=1) + 1).sum())
        self.captions, self.longest = rows.token_TL.shape
        config = shipped("zero1_bf16", train_batch_size=self.batch)
        self._ours = Ours(self._copy(), config, all_negatives=True)
        return partial(self._ours.step, rows)

    def _make_theirs(self) -> Callable[[], object]:
        theirs = Theirs(self._copy().towers, self._ground.device, torch.bfloat16)
        return partial(theirs.step, their_batch(self._clip, self._rows()))

    def _rows(self) -> Batch:
        return made_batch(self._clip, self._captions, range(self.batch)).to(self._ground.device)

    def _copy(self) -> Clip:
        clip = deepcopy(self._clip, {id(self._clip.tokenize): self._clip.tokenize})
        clip.towers.set_grad_checkpointing(self.checkpointing)
        self._towers.append(clip.towers)
        return clip

    def held_by_others(self, name: str) -> int:
        """Bytes that the other way holds while this one steps."""
        return sum(held for other, held in self._held.items() if other != name)

    def compile(self, backend: str) -> str:
        """torch.compile for the blocks of both towers, in both ways; what was left out.

        Where attention takes packed captions its lengths would break the graph in every block.
        """
        left_out = 0
        for towers in self._towers:
            text = getattr(towers, "text", towers)
            for block in (*towers.visual.transformer.resblocks, *text.transformer.resblocks):
                if type(block.attn) is nn.MultiheadAttention:
                    block.compile(backend=backend)
                else:
                    left_out += 1
        return f"Blocks of packed captions that are not compiled: {left_out}." * bool(left_out)

    def told(self) -> str:
        """What a step is given."""
        again = ", with gradient checkpointing" * self.checkpointing
        return (
            f"Batch {self.batch}{again}: {self.captions} distinct captions of "
            f"{self.tokens / self.captions:.1f} tokens on average, {self.longest} at most; "
            f"open_clip's way encodes {self.batch * (1 + NEGATIVES)} of "
            f"{self._clip.tokenize.context_length}."
        )

    def close(self) -> None:
        """Let go of all memory."""
        if self._ours is not None:
            self._ours.close()
        self._ours = None
        self.ways.clear()
        self._towers.clear()
        self._ground.free()


def largest(
    clip: Clip,
    captions: Captions,
    batches: Sequence[int],
    ground: Ground,
    peer: bool,
    checkpointing: Sequence[bool] = (False, True),
) -> Pair | None:
    """The largest batch that fits; with gradient checkpointing only if none fits without."""
    for again in checkpointing:
        for batch in sorted(batches, reverse=True):
            pair = Pair(clip, captions[:batch], ground, peer, again)
            if pair.fits():
                return pair
            pair.close()
    return None


def compare(pair: Pair, title: str, cost: tuple[float, float], ground: Ground, tell: Tell) -> None:
    """Time the ways in turns and tell a row of each."""
    for work in pair.ways.values():
        repeat(work, QUICK_WARM_UP if ground.quick else WARM_UP, ground)
    slowest = max(repeat(work, 1, ground) for work in pair.ways.values())
    steps = max(1, round((QUICK_TURN_SECONDS if ground.quick else TURN_SECONDS) / slowest))
    memory = {name: _memory_gib(pair, name, ground) for name in pair.ways}
    turns = {name: partial(repeat, work, steps, ground) for name, work in pair.ways.items()}
    timings = alternate(turns, QUICK_ROUNDS if ground.quick else ROUNDS, _clock)
    per_image, per_token = cost
    work_of_step = 3 * (pair.batch * per_image + pair.tokens * per_token)
    for name in pair.ways:
        seconds = [timing.wall / steps for timing in timings[name]]
        beside = [timing.wall / steps for timing in timings.get(THEIRS, ())]
        ratio = [b / s for b, s in zip(beside, seconds, strict=True)] if beside else None
        tell.row(
            Row(
                f"{title}: {name}",
                pair.batch,
                [pair.batch / s for s in seconds],
                ratio,
                work_of_step / median(seconds) / 1e12,
                memory[name],
            )
        )


def _memory_gib(pair: Pair, name: str, ground: Ground) -> float | None:
    if ground.device.type != "cuda":
        return None
    ground.free()
    repeat(pair.ways[name], 1, ground)
    return (ground.most_held() - pair.held_by_others(name)) / GIB


def repeat(work: Callable[[], object], times: int, ground: Ground) -> float:
    """Seconds of some steps, until the device has done them."""
    ground.wait()
    before = time.perf_counter()
    for _ in range(times):
        work()
    ground.wait()
    return time.perf_counter() - before


def _clock(turn: Callable[[], Any]) -> Timing:
    return Timing(turn(), 0.0)
