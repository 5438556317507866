"""What travels between two ranks in a step, and what a second process brings.

Bytes are counted in the calls of torch.distributed, in processes of their own, once per ZeRO stage;
the peer is open_clip's way: DistributedDataParallel, and all embeddings gathered with gradient.
Seconds are those of one process and of two with the same batch of both together.

    python benchmarks/collectives.py RANK RANKS PORT WAY STEPS    one rank; prints bytes and seconds
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find benchmarks and hnc_ds
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F

from benchmarks.timing import Check, Comparison, Timing
from hnc_ds.config import LossConfig, ModelConfig, ScopeConfig
from hnc_ds.deepspeed_config import resolve
from hnc_ds.distributed import gather_rows
from hnc_ds.engine import Engine, start_process_group
from hnc_ds.model.load import load_model
from hnc_ds.model.scope import choose_scope
from hnc_ds.objective.terms import Compared, LossTerms, objective
from hnc_ds.shards.loader import Batch
from hnc_ds.training import passes
from hnc_ds.training.compare import Embedded, compare

BATCH, NEGATIVES, MODEL = 256, 4, "tiny"
OURS, THEIRS = "2 processes", "1 process"
WAYS = ("zero0", "zero1", "zero2", "zero3", "zero1-image", "open_clip")
"""What is counted: ours under each stage, with one tower frozen, and the peer's."""


CALLS = {
    "all_reduce": 0,
    "all_gather": 1,
    "all_gather_into_tensor": 1,
    "reduce_scatter_tensor": 1,
    "reduce": 0,
    "broadcast": 0,
}
"""torch.distributed's, and the position of what a rank gives to them."""


class Step(NamedTuple):
    """What a rank found."""

    bytes: int
    """Given to collectives by this rank in one step: its own rows to a gather, all to a sum."""
    seconds: float


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s of one and of two processes; bytes of each way in the notes."""
    steps = 2 if quick else 20
    rounds = [_both(steps) for _ in range(2 if quick else 5)]
    counted = {way: _run_ranks(2, way, 2)[0].bytes for way in WAYS}
    trained = sum(p.numel() for p in load_model(ModelConfig(model=MODEL), 0).parameters())
    told = ", ".join(f"{way} {count / 1e6:.2f}" for way, count in counted.items())
    frozen = counted["zero1"] - counted["zero1-image"]
    text = _text_parameters()
    return Comparison(
        clock="wall",
        baseline=THEIRS,
        timings={
            THEIRS: tuple(Timing(one, one) for one, _ in rounds),
            OURS: tuple(Timing(two, 2 * two) for _, two in rounds),
        },
        checks=(
            Check(
                "zero0: bytes beyond those of the gradients, of these",
                counted["zero0"] / (4 * trained) - 1,
                0.5,
            ),
            Check(
                "zero1: bytes that a frozen text tower does not save, of its weights' twice",
                1 - frozen / (8 * text),
                0.05,
            ),
        ),
        notes=(
            f"{MODEL}, fp32, batch {BATCH} of all processes, {NEGATIVES} hard negatives an image, "
            f"one thread each; {steps} steps, the start of the processes not counted.",
            f"Megabytes that a rank gives to collectives in a step: {told}; the gradients alone "
            f"are {4 * trained / 1e6:.2f}. Under ZeRO 1 to 3 weights travel as well; under 3 "
            "those of a model this small stay whole on every rank.",
        ),
        items="images",
        count=BATCH * steps,
    )


def _both(steps: int) -> tuple[float, float]:
    """Seconds of the steps in one process, and in two."""
    alone, together = _run_ranks(1, "zero1", steps), _run_ranks(2, "zero1", steps)
    return steps * alone[0].seconds, steps * max(rank.seconds for rank in together)


def _text_parameters() -> int:
    clip = load_model(ModelConfig(model=MODEL), 0)
    clip.freeze("text")
    return sum(p.numel() for p in clip.parameters() if not p.requires_grad)


def _run_ranks(ranks: int, way: str, steps: int) -> list[Step]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, (rank, ranks, port, way, steps))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(ranks)
    ]
    return [Step(*json.loads(rank.communicate()[0].splitlines()[-1])) for rank in started]


def made_batch(rank: int, ranks: int) -> Batch:
    """A rank's rows: random pictures and tokens, every caption another."""
    rows = BATCH // ranks
    draw = torch.Generator().manual_seed(rank)
    captions = rows * (1 + NEGATIVES)
    token_TL = torch.randint(1, 4000, (captions, 12), generator=draw)
    token_TL[:, -1] = 4095  # the end token is the largest
    number = torch.arange(captions)
    return Batch(
        torch.randint(0, 256, (rows, 3, 32, 32), generator=draw, dtype=torch.uint8),
        token_TL,
        number[:rows],
        number[rows:].view(rows, NEGATIVES),
        torch.zeros(rows, NEGATIVES, dtype=torch.int64),
        torch.zeros(rows, 0, dtype=torch.int64),
        number[:rows] + rank * captions,
        number + rank * captions,
        (),
    )


def our_step(way: str, batch: Batch, ranks: int) -> Callable[[], object]:
    """One step as ``hnc_ds.train`` does it."""
    clip = load_model(ModelConfig(model=MODEL), 0)
    choose_scope(clip, ScopeConfig(towers="image" if way.endswith("image") else "both"))
    config: dict[str, Any] = {
        "train_batch_size": BATCH,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}},
        "zero_optimization": {"stage": int(way[4])},
    }
    engine = Engine(clip, clip.parameter_groups(), resolve(config, Path("-"), ranks, 1000))
    return partial(passes.step, engine, batch, partial(_loss, batch), 0)


def _loss(batch: Batch, embedded: Embedded) -> tuple[LossTerms, Compared]:
    compared = compare(embedded, batch, all_negatives=False)
    return objective(compared, LossConfig(), 1.0), compared


def their_step(batch: Batch) -> Callable[[], object]:
    """One step as open_clip and NegCLIP's fork do it: all gradients, all embeddings of captions."""
    clip = load_model(ModelConfig(model=MODEL), 0)
    model = torch.nn.parallel.DistributedDataParallel(clip)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def reduce(group: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """DDP's own, which works beneath Python, where it would not be counted."""
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0] / dist.get_world_size())

    model.register_comm_hook(None, reduce)
    texts = torch.cat([batch.positive_B, batch.negative_BK.flatten()])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        image_BD, text_TD, scale = model(batch.images_B3RR, batch.token_TL)
        image_ND, text_ND = gather_rows(image_BD), gather_rows(text_TD[texts])
        target = torch.arange(len(image_BD))
        F.cross_entropy(scale * image_BD @ text_ND.T, target).backward()
        assert len(image_ND)
        optimizer.step()

    return step


class Counter:
    """Adds up what torch.distributed's calls are given."""

    def __init__(self) -> None:
        self.bytes = 0
        self._inside = False

    def listen(self) -> None:
        """Count every call from now on; a call within a call is counted once.

        Before DeepSpeed is imported, as it keeps some of them.
        """
        for name, position in CALLS.items():
            if hasattr(dist, name):
                setattr(dist, name, partial(self._call, getattr(dist, name), position))

    def _call(self, original: Callable[..., Any], position: int, *given: Any, **named: Any) -> Any:
        if self._inside:
            return original(*given, **named)
        tensor = given[position] if len(given) > position else next(iter(named.values()))
        tensors = tensor if isinstance(tensor, list) else [tensor]
        self.bytes += sum(each.numel() * each.element_size() for each in tensors)
        self._inside = True
        try:
            return original(*given, **named)
        finally:
            self._inside = False


def as_rank(rank: int, ranks: int, port: int, way: str, steps: int) -> Step:
    """Run as one of the ranks."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ.update(address | numbers)
    counter, batch = Counter(), made_batch(rank, ranks)
    counter.listen()
    start_process_group()
    step = their_step(batch) if way == "open_clip" else our_step(way, batch, ranks)
    for _ in range(2):
        step()
    counter.bytes = 0
    step()
    counted, before = counter.bytes, time.perf_counter()
    for _ in range(steps):
        step()
    return Step(counted, (time.perf_counter() - before) / steps)


if __name__ == "__main__":
    own_rank, all_ranks, own_port, own_way, own_steps = sys.argv[1:]
    found = as_rank(int(own_rank), int(all_ranks), int(own_port), own_way, int(own_steps))
    print(json.dumps(found), flush=True)
