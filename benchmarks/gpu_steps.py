"""What gpu.py measures and checks, section by section. B images, K = 4 hard negatives each."""

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.graphs import caption_sets
from benchmarks.inputs import packed, photograph, write_pack_input
from benchmarks.loss import made, ours, theirs
from hnc_ds.config import DataConfig, LossConfig, ModelConfig
from hnc_ds.deepspeed_config import resolve
from hnc_ds.engine import Engine, start_process_group
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.load import load_model
from hnc_ds.model.text import used_tokens
from hnc_ds.objective.terms import Compared, LossTerms, objective
from hnc_ds.shards.loader import Batch, TrainingData, batches, text_number
from hnc_ds.training import passes
from hnc_ds.training.compare import Embedded, compare

NEGATIVES = 4
WARM_UP, MOST_STEPS, MOST_SECONDS = 3, 20, 8.0
LOSS_CASES = {"fp32": torch.float32, "bf16 embeddings": torch.bfloat16}


@dataclass(frozen=True)
class Measured:
    """One way of training, over whole steps."""

    batch: int
    rate: float
    """Samples a second."""
    tflops: float
    memory_gib: float
    waited: float
    """Share of the time spent waiting for data."""


def peak_of_matmuls(device: torch.device, quick: bool) -> float:
    """The best of several large bf16 matrix products, TFLOP/s."""
    best = 0.0
    for size in (256,) if quick else (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        seconds, times = _seconds(device, lambda a=a, b=b: a @ b, 1.0)
        best = max(best, 2 * size**3 * times / seconds / 1e12)
    return best


def our_steps(
    device: torch.device,
    model: str,
    folder: Path,
    quick: bool,
    batch: int,
    compiled: bool = False,
    parts: int = 1,
) -> Measured:
    """Steps of hnc_ds on a batch that lies on the device."""
    clip = load_model(ModelConfig(model=model), 0)
    rows = made_batch(clip, batch, folder, quick)
    cost = _work(clip, rows)
    if compiled:
        clip.towers.visual.compile()
    engine = make_engine(clip, batch, parts)
    rows = rows.to(device)
    step = partial(passes.step, engine, rows, partial(loss_of, rows), 0)
    return _measured(device, batch, cost, step, quick)


def their_steps(
    device: torch.device, model: str, folder: Path, quick: bool, batch: int
) -> Measured:
    """Steps as open_clip's script takes them with --precision amp_bf16, negatives appended."""
    clip = load_model(ModelConfig(model=model), 0)
    rows = made_batch(clip, batch, folder, quick)
    cost = _work(clip, rows)
    clip = clip.to(device)
    towers, optimizer = clip.towers, torch.optim.AdamW(clip.parameters(), lr=1e-5)
    missing = clip.tokenize.context_length - rows.token_TL.shape[1]
    order = torch.cat([rows.positive_B, rows.negative_BK.flatten()])
    token_TL = F.pad(rows.token_TL, (0, missing))[order].to(device)
    settings = clip.image_settings
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (settings.mean, settings.std))
    images = ((rows.images_B3RR / 255 - mean) / std).to(device)
    target = torch.arange(batch, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            image_BD = towers.encode_image(images, normalize=True)
            text_TD = towers.encode_text(token_TL, normalize=True)
            scale = towers.logit_scale.exp()
            to_text = scale * image_BD @ text_TD.T
            to_image = scale * text_TD[:batch] @ image_BD.T
            loss = F.cross_entropy(to_text, target) + F.cross_entropy(to_image, target)
        loss.backward()
        optimizer.step()

    return _measured(device, batch, cost, step, quick)


def with_real_data(
    device: torch.device, model: str, folder: Path, quick: bool, batch: int
) -> Measured:
    """Steps on pictures of 500x375 from shards, decoded by workers meanwhile."""
    clip = load_model(ModelConfig(model=model), 0)
    photographs = [photograph(seed) for seed in range(4 if quick else 64)]
    place = folder / f"real-{model}"
    place.mkdir()
    shards = packed(write_pack_input(place, photographs, max(batch, 64), negatives=NEGATIVES))
    cores = len(os.sched_getaffinity(0))
    config = DataConfig(hard_negatives=NEGATIVES, workers=0 if quick else max(1, cores - 1))
    views = (clip.image_settings, clip.tokenize)
    data = TrainingData(shards, config, 0, batch, range(batch), *views)
    cost = _work(clip, data.batch(0))
    engine, waited = make_engine(clip, batch, 1), [0.0]
    stream = batches(data, range(10_000), config.workers, pin=device.type == "cuda")

    def step() -> None:
        before = time.perf_counter()
        rows = next(stream)
        waited[0] += time.perf_counter() - before
        if isinstance(rows, UserError):
            raise rows
        rows = rows.to(device)
        passes.step(engine, rows, partial(loss_of, rows), 0)

    return _measured(device, batch, cost, step, quick, waited)


def packed_is_padded(device: torch.device) -> float:
    """Largest difference of embeddings of short and of padded text in bf16, cosine."""
    clip = load_model(ModelConfig(), 0).to(device, torch.bfloat16)
    captions = ["a", "the red star is above the blue ring", "two dogs and a cat on a sofa"]
    token_TL = clip.tokenize(captions).to(device)
    padded_TL = F.pad(token_TL, (0, clip.tokenize.context_length - token_TL.shape[1]))
    with torch.no_grad():
        short, long = clip.encode_texts(token_TL), clip.towers.encode_text(padded_TL)
    return float((1 - (short * F.normalize(long.float(), dim=-1)).sum(dim=1)).max())


def slices_are_the_matrix(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference of a gradient of the loss, of the largest gradient."""
    found = []
    for way in (ours, theirs):
        leaves = [part.detach().to(device, dtype).requires_grad_() for part in made(512)]
        inputs = type(made(2))(*leaves)
        wide = inputs if way is ours else type(inputs)(*(leaf.float() for leaf in leaves))
        found.append(torch.autograd.grad(way(wide), leaves))
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def losses_fall(device: torch.device, precision: str = "bf16") -> float:
    """The loss of one batch after 20 steps on it, over that before."""
    clip = load_model(ModelConfig(), 0)
    rows = made_batch(clip, 32, None, True)
    engine = make_engine(clip, 32, 1, precision, rate=1e-3)
    rows = rows.to(device)
    losses = [
        float(passes.step(engine, rows, partial(loss_of, rows), 0)[0].total.detach())
        for _ in range(20)
    ]
    return losses[-1] / losses[0]


def make_engine(
    clip: Clip, batch: int, parts: int, precision: str = "bf16", rate: float = 1e-5
) -> Engine:
    """As ds_configs/zero1_bf16.json, without a schedule."""
    start_process_group()
    config: dict[str, Any] = {
        "train_batch_size": batch,
        "gradient_accumulation_steps": parts,
        "optimizer": {"type": "AdamW", "params": {"lr": rate, "torch_adam": True, "fused": True}},
        precision: {"enabled": True},
        "zero_optimization": {"stage": 1},
    }
    return Engine(clip, clip.parameter_groups(), resolve(config, Path("-"), 1, 1000))


def loss_of(rows: Batch, embedded: Embedded) -> tuple[LossTerms, Compared]:
    """Against the hard negatives of all images, as the peer."""
    compared = compare(embedded, rows, all_negatives=True)
    return objective(compared, LossConfig(negatives_from="all_images"), 1.0), compared


def made_batch(clip: Clip, batch: int, folder: Path | None, quick: bool) -> Batch:
    """Random pictures with captions of HNC's length, each once as far as there are enough."""
    captions = list(_captions(batch * (1 + NEGATIVES), folder))
    draw = torch.Generator().manual_seed(0)
    size = clip.image_settings.size
    number = torch.arange(len(captions))
    return Batch(
        torch.randint(0, 256, (batch, 3, size, size), generator=draw, dtype=torch.uint8),
        clip.tokenize(captions),
        number[:batch],
        number[batch:].view(batch, NEGATIVES),
        torch.zeros(batch, NEGATIVES, dtype=torch.int64),
        torch.zeros(batch, 0, dtype=torch.int64),
        number[:batch],
        torch.tensor([text_number(f"{n} {caption}") for n, caption in enumerate(captions)]),
        (),
    )


def _captions(wanted: int, folder: Path | None) -> Iterator[str]:
    if folder is None:
        words = random.Random(0).choices(["red", "star", "above", "blue", "ring", "dog"], k=9999)
        distinct = [" ".join(words[n : n + 3 + n % 6]) for n in range(wanted)]
    else:
        distinct = _distinct_captions(folder, 8 if wanted < 1000 else 400)
    return (distinct[n % len(distinct)] for n in range(wanted))


@lru_cache
def _distinct_captions(folder: Path, images: int) -> list[str]:
    place = folder / f"captions-of-{images}"
    place.mkdir()
    found: dict[str, None] = {}
    for groups in caption_sets(place, images, 48):
        for group in groups:
            found.update(dict.fromkeys([group.positive, *(n.caption for n in group.negatives)]))
    return list(found)


def _work(clip: Clip, rows: Batch) -> float:
    """Operations of a step: real tokens and pictures, forward once and backward twice."""
    per_image, per_token = forward_cost(clip)
    tokens = int(used_tokens(rows.token_TL).sum())
    return 3 * (len(rows.images_B3RR) * per_image + tokens * per_token)


def _measured(
    device: torch.device,
    batch: int,
    work: float,
    step: Callable[[], object],
    quick: bool,
    waited: list[float] | None = None,
) -> Measured:
    for _ in range(1 if quick else WARM_UP):
        step()
    waited = waited if waited is not None else [0.0]
    waited[0] = 0.0
    seconds, steps = _seconds(device, step, 0.5 if quick else MOST_SECONDS)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    rate = batch * steps / seconds
    return Measured(batch, rate, work * steps / seconds / 1e12, memory, waited[0] / seconds)


def _seconds(device: torch.device, do: Callable[[], object], most: float) -> tuple[float, int]:
    """Seconds of some repetitions, and how many they were."""
    _wait(device)
    before, times = time.perf_counter(), 0
    while times < MOST_STEPS and (not times or time.perf_counter() - before < most):
        do()
        times += 1
    _wait(device)
    return time.perf_counter() - before, times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
