"""Whole training steps of the same global batch on one process and on two of one machine, of one
thread each: ours, and open_clip's step under DistributedDataParallel."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from hnc_ds.config import ModelConfig
from hnc_ds.distributed import sum_over_ranks
from hnc_ds.model.load import load_model
from speed.made import Captions, drawn_captions, made_batch
from speed.ranks import Ranks
from speed.timing import Check, Comparison, Timing, alternate, spread
from speed.variants import Ours, Theirs, shipped, their_batch

MODEL, BATCH, NEGATIVES, STEPS, ROUNDS = "tiny", 128, 4, 5, 5
QUICK_BATCH, QUICK_STEPS, QUICK_ROUNDS = 16, 2, 2
OURS, THEIRS = "hnc_ds", "open_clip's step"
MOST_RANKS = 2


class Turn(NamedTuple):
    """Some steps on one rank."""

    cpu: float
    """Seconds."""
    first_loss: float
    """Of the first step, mean over the ranks."""


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s on the wall."""
    batch, steps = (QUICK_BATCH, QUICK_STEPS) if quick else (BATCH, STEPS)
    captions = drawn_captions(folder, batch, NEGATIVES)
    started = {
        f"{variant}: {count} process{'es' * (count > 1)}": Ranks(
            folder / f"{variant}-{count}", count, make, variant, captions, steps
        )
        for variant in (OURS, THEIRS)
        for count in range(1, MOST_RANKS + 1)
    }
    try:
        losses = {name: ranks.ask()[0].first_loss for name, ranks in started.items()}
        variants = {name: partial(ranks.ask) for name, ranks in started.items()}
        timings = alternate(variants, QUICK_ROUNDS if quick else ROUNDS, _clock)
    finally:
        for ranks in started.values():
            ranks.close()
    return _comparison(timings, losses, batch, steps)


def _comparison(
    timings: dict[str, tuple[Timing, ...]], losses: dict[str, float], batch: int, steps: int
) -> Comparison:
    ours_one, ours_two, theirs_one, theirs_two = timings
    ratio = spread(
        [
            one.wall / two.wall
            for one, two in zip(timings[theirs_one], timings[theirs_two], strict=True)
        ]
    )
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return Comparison(
        clock="wall",
        baseline=ours_one,
        timings=timings,
        checks=(
            Check(
                "difference of the loss of two processes from one's, ours",
                abs(losses[ours_two] - losses[ours_one]),
                1e-5,
            ),
            Check("the same, open_clip's step", abs(losses[theirs_two] - losses[theirs_one]), 1e-5),
        ),
        notes=(
            f"{MODEL}, fp32, batch {batch} of all processes together, {NEGATIVES} hard negatives "
            f"an image, ZeRO 1 in ours; {steps} steps a turn, in memory. Twice is the most that "
            "two processes can be.",
            f"open_clip's step alone, two processes over one: {ratio.median:.3g} "
            f"({ratio.low:.3g} - {ratio.high:.3g}).",
            f"Load of the machine at the end, own processes included: {load:.1f} on {cores} "
            "cores; more than 2 on two cores, and others took what a second process would use.",
        ),
        items="images",
        count=batch * steps,
    )


def make(variant: str, captions: Captions, steps: int) -> Callable[[], Turn]:
    """On a rank: what does some steps."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    rows = len(captions) // ranks
    clip = load_model(ModelConfig(model=MODEL), 0)
    batch = made_batch(clip, captions, range(rank * rows, (rank + 1) * rows))
    step: Callable[[], torch.Tensor]
    if variant == THEIRS:
        theirs = Theirs(clip.towers, torch.device("cpu"))
        step = partial(theirs.step, their_batch(clip, batch))
    else:
        config = shipped("cpu", train_batch_size=len(captions))
        step = partial(Ours(clip, config, ranks, all_negatives=True).step, batch)
    return partial(_steps, step, steps)


def _steps(step: Callable[[], torch.Tensor], steps: int) -> Turn:
    cpu = time.process_time()
    losses = [step() for _ in range(steps)]
    cpu = time.process_time() - cpu
    return Turn(cpu, float(sum_over_ranks(losses[0])) / dist.get_world_size())


def _clock(ask: Callable[[], list[Turn]]) -> Timing:
    wall = time.perf_counter()
    turns = ask()
    return Timing(time.perf_counter() - wall, sum(turn.cpu for turn in turns))
