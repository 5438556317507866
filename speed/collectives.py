"""What a rank sends in a training step at two processes: ours under each ZeRO stage, beside
open_clip's step, which averages all gradients and gathers all embeddings, negatives included.

Calls are counted where they enter torch.distributed. What a rank sends for one is computed for ring
algorithms, as NCCL has them, so that a count does not depend on what gloo does beneath.

B images of a rank, W ranks, K hard negatives an image, D width, P trained parameters, fp32.
"""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from hnc_ds.config import ModelConfig, ScopeConfig
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.model.scope import choose_scope
from speed.made import drawn_captions, made_batch
from speed.ranks import Ranks
from speed.timing import Check, Comparison, Table, Timing
from speed.variants import Ours, Theirs, shipped, their_batch

RANKS, ROWS, NEGATIVES = 2, 16, 4
MODEL, LARGE, LARGE_ROWS = "tiny", "ViT-B-32", 256
FLOAT = 4
"""Bytes."""
DEVIATION = 0.01
"""Allowed relative difference of a count from the formula: alignment, clipping, small messages."""
THEIRS = "open_clip's step: DDP, negatives appended"
FROZEN = "hnc_ds: ZeRO 1, only the image tower trains"
ALL_NEGATIVES = "hnc_ds: ZeRO 1, hard negatives of all images"


class Variant(NamedTuple):
    """How a step is done, and how often all weights are sent by it."""

    weights: float
    """Of 2 (W - 1) / W times their bytes, which is an all-reduce; a gather or a
    reduce-scatter is half of it."""
    stage: int | None = None
    """ZeRO's; None: the peer."""
    towers: str = "both"
    all_negatives: bool = False


VARIANTS = {
    "hnc_ds: ZeRO 0": Variant(1.0, 0),
    "hnc_ds: ZeRO 1": Variant(1.0, 1),
    "hnc_ds: ZeRO 2": Variant(1.5, 2),
    "hnc_ds: ZeRO 3": Variant(1.0, 3),
    FROZEN: Variant(1.0, 1, towers="image"),
    ALL_NEGATIVES: Variant(1.0, 1, all_negatives=True),
    THEIRS: Variant(1.0),
}
"""Gradients are all-reduced, under ZeRO 2 the new weights gathered as well. Under ZeRO 1 each part
of them goes to the rank that updates it, and the new weights are gathered: together what an
all-reduce sends. Under ZeRO 3 weights are gathered once, as DeepSpeed keeps those of so small a
model until the backward pass, and gradients reduce-scattered."""


OF_WEIGHTS = ("deepspeed.", "torch.nn.parallel.", "speed.variants", "hnc_ds.engine.zero")
"""Modules that send weights and gradients; what others send is for the loss."""
FOR_OTHERS = "hnc_ds.distributed"
"""Sends for the module that calls it."""


class Counted(NamedTuple):
    """Of one step, on one rank."""

    weights: float
    """Bytes sent for weights and gradients: by DeepSpeed or DistributedDataParallel."""
    embeddings: float
    """Bytes sent for what the loss compares."""
    calls: int
    seconds: float
    cpu: float
    parameters: int
    """That train."""


def measure(folder: Path, quick: bool) -> Comparison:
    """Seconds of a step of each variant in turns; what each sends in a table."""
    rounds = 2 if quick else 5
    captions = drawn_captions(folder, RANKS * ROWS, NEGATIVES)
    with Ranks(folder / "ranks", RANKS, make, captions) as ranks:
        for variant in VARIANTS:
            ranks.ask(variant)  # the first step also makes what optimizers keep
        found = {variant: ranks.ask(variant)[0] for variant in VARIANTS}
        turns = [
            {variant: _timing(ranks.ask(variant)) for variant in VARIANTS} for _ in range(rounds)
        ]
    return Comparison(
        clock="wall",
        baseline=THEIRS,
        timings={variant: tuple(turn[variant] for turn in turns) for variant in VARIANTS},
        checks=_checks(found),
        notes=(
            f"{MODEL}, fp32, {RANKS} processes of one thread on gloo, {ROWS} images a process, "
            f"{NEGATIVES} hard negatives an image; a step in memory, nothing is read.",
            "Sent: bytes that a rank sends in a step with ring algorithms, mean over the ranks; "
            "calls of torch.distributed are counted in the processes, DDP's in its hook.",
            f"{LARGE} is not run here: its columns are the formulas that the counts of {MODEL} are "
            f"checked against, with its parameters and width and {LARGE_ROWS} images a process.",
            "The way back of gathered embeddings is an all-reduce on gloo in ours; on NCCL, and "
            "in the columns of formulas, it is a reduce-scatter, half of that.",
        ),
        tables=(_table(found),),
    )


def make(captions: list[tuple[str, ...]]) -> Callable[[str], Counted]:
    """On a rank: what does a step of a variant and counts it."""
    counter = Counter()
    counter.listen()  # before DeepSpeed is imported, as it keeps some of the functions
    steps = {name: _step_of(variant, captions) for name, variant in VARIANTS.items()}
    return partial(_counted, counter, steps)


def _counted(
    counter: "Counter", steps: Mapping[str, tuple[Clip, Callable[[], object]]], name: str
) -> Counted:
    clip, step = steps[name]
    dist.barrier()
    counter.sent.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
    weights = sum(sent for by, sent in counter.sent if by.startswith(OF_WEIGHTS))
    embeddings = sum(sent for _, sent in counter.sent) - weights
    return Counted(weights, embeddings, len(counter.sent), seconds, cpu, trained(clip))


def _step_of(
    variant: Variant, captions: list[tuple[str, ...]]
) -> tuple[Clip, Callable[[], object]]:
    rank = dist.get_rank()
    clip = load_model(ModelConfig(model=MODEL), 0)
    batch = made_batch(clip, captions, range(rank * ROWS, (rank + 1) * ROWS))
    if variant.stage is None:
        return clip, partial(
            Theirs(clip.towers, torch.device("cpu")).step, their_batch(clip, batch)
        )
    choose_scope(clip, ScopeConfig(towers=variant.towers))  # type: ignore[arg-type]
    config = shipped(
        "cpu", train_batch_size=RANKS * ROWS, zero_optimization={"stage": variant.stage}
    )
    ours = Ours(clip, config, RANKS, variant.all_negatives)
    return clip, partial(ours.step, batch)


def trained(clip: Clip) -> int:
    """Parameters that train; under ZeRO 3, too, where a rank holds only pieces of them."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in clip.parameters() if p.requires_grad)


class Counter:
    """What is sent for the calls of torch.distributed, and by which module each is called."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, float]] = []

    def listen(self) -> None:
        """Count every call from now on."""
        for name, sent in SENT.items():
            if hasattr(dist, name):
                setattr(dist, name, partial(self._call, getattr(dist, name), sent))

    def _call(self, original: Callable[..., Any], sent: "Sent", *given: Any, **named: Any) -> Any:
        frame: FrameType | None = sys._getframe(1)  # one up; partial, being C, has none
        while frame is not None and frame.f_globals["__name__"] == FOR_OTHERS:
            frame = frame.f_back
        caller = frame.f_globals["__name__"] if frame is not None else ""
        self.sent.append((caller, sent((*given, *named.values()), dist.get_world_size())))
        return original(*given, **named)


Sent = Callable[[tuple[Any, ...], int], float]


def _reduced(given: tuple[Any, ...], ranks: int) -> float:
    return 2 * (ranks - 1) / ranks * max(_sizes(given))


def _gathered(given: tuple[Any, ...], ranks: int) -> float:
    """A rank's own part, or the part that is left to it, goes to all others."""
    return (ranks - 1) * min(_sizes(given))


def _passed_on(given: tuple[Any, ...], ranks: int) -> float:
    """From one to all, or from all to one, mean over the ranks."""
    return (ranks - 1) / ranks * max(_sizes(given))


def _scattered(given: tuple[Any, ...], ranks: int) -> float:
    """The rank that has what is scattered sends all parts but its own; the others nothing."""
    sizes = _sizes(given)
    return (ranks - 1) / ranks * max(sizes) if len(sizes) > 1 else 0


def _sizes(given: tuple[Any, ...]) -> list[int]:
    """Bytes of each tensor among the arguments, and of each list of them."""
    lists = [part if isinstance(part, (list, tuple)) else [part] for part in given]
    tensors = [[t for t in part if isinstance(t, torch.Tensor)] for part in lists]
    return [sum(t.numel() * t.element_size() for t in part) for part in tensors if part]


SENT: dict[str, Sent] = {
    "all_reduce": _reduced,
    "all_gather": _gathered,
    "all_gather_into_tensor": _gathered,
    "_all_gather_base": _gathered,
    "reduce_scatter": _gathered,
    "reduce_scatter_tensor": _gathered,
    "_reduce_scatter_base": _gathered,
    "reduce": _passed_on,
    "broadcast": _passed_on,
    "scatter": _scattered,
    "all_to_all": _scattered,
    "all_to_all_single": _scattered,
    "_broadcast_coalesced": _passed_on,
}
"""What is sent by the functions that training may call."""


def of_weights(variant: Variant, parameters: int) -> float:
    """Bytes that a rank sends for weights and gradients."""
    return variant.weights * 2 * (RANKS - 1) / RANKS * FLOAT * parameters


def of_embeddings(variant: Variant, rows: int, width: int, on_gloo: bool) -> float:
    """Bytes that a rank sends for what the loss compares, forward and backward.

    Each row goes to all other ranks, and its gradient comes back from them: as a reduce-scatter,
    or on gloo, in ours, as an all-reduce, which takes twice as much. With ours go the numbers by
    which equal images and texts are known.
    """
    all_negatives = NEGATIVES * (variant.stage is None or variant.all_negatives)
    forth = 2 + all_negatives
    back = (forth if variant.towers == "both" else 1) * (
        1 + (on_gloo and variant.stage is not None)
    )
    numbers = 0 if variant.stage is None else 8 * (2 + all_negatives)
    return (RANKS - 1) * rows * (FLOAT * width * (forth + back) + numbers)


def _timing(answers: list[Counted]) -> Timing:
    return Timing(max(a.seconds for a in answers), sum(a.cpu for a in answers))


def _checks(found: Mapping[str, Counted]) -> tuple[Check, ...]:
    width = load_model(ModelConfig(model=MODEL), 0).config["model_cfg"]["embed_dim"]
    both, frozen = found["hnc_ds: ZeRO 1"], found[FROZEN]
    weights = [c.weights / of_weights(VARIANTS[n], c.parameters) - 1 for n, c in found.items()]
    embeddings = [
        c.embeddings / of_embeddings(VARIANTS[n], ROWS, width, True) - 1 for n, c in found.items()
    ]
    gone = of_weights(VARIANTS[FROZEN], both.parameters - frozen.parameters)
    return (
        Check(
            "bytes for weights and gradients, off the number of parameters, as a share",
            max(map(abs, weights)),
            DEVIATION,
        ),
        Check("the same for embeddings", max(map(abs, embeddings)), DEVIATION),
        Check(
            "what a frozen text tower does not save, of its share",
            abs(1 - (both.weights - frozen.weights) / gone),
            DEVIATION,
        ),
    )


def _table(found: Mapping[str, Counted]) -> Table:
    clip = load_model(ModelConfig(model=LARGE), 0)
    width, both = clip.config["model_cfg"]["embed_dim"], trained(clip)
    clip.freeze("text")
    large = {"both": both, "image": trained(clip)}
    rows = {
        name: (
            counted.weights / 1e6,
            counted.embeddings / 1e6,
            counted.calls,
            of_weights(VARIANTS[name], large[VARIANTS[name].towers]) / 1e6,
            of_embeddings(VARIANTS[name], LARGE_ROWS, width, False) / 1e6,
        )
        for name, counted in found.items()
    }
    return Table(
        "sent in a step by a rank, MB",
        (
            f"{MODEL}: weights, gradients",
            f"{MODEL}: embeddings",
            "calls",
            f"{LARGE}: weights, gradients",
            f"{LARGE}: embeddings",
        ),
        rows,
    )
