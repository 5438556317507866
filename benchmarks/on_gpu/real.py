"""``hnc_ds.train`` itself on shards of made-up photographs: does the loader keep up?"""

import json
import shutil
from pathlib import Path
from statistics import mean

from benchmarks.inputs import packed, photograph, write_pack_input
from benchmarks.on_gpu.ground import Ground, Row, Tell
from benchmarks.on_gpu.speed import NEGATIVES
from benchmarks.ways import shipped
from hnc_ds.config import DataConfig, LossConfig, ModelConfig, TrainConfig
from hnc_ds.config.checks import cores
from hnc_ds.model.load import load_model
from hnc_ds.shards.loader import PREFETCHED_BATCHES
from hnc_ds.train import train

MODEL, BATCH, IMAGES, PHOTOGRAPHS, STEPS, EVERY = "ViT-B-32", 512, 2048, 128, 80, 10
QUICK_MODEL, QUICK_BATCH, QUICK_IMAGES, QUICK_PHOTOGRAPHS = "tiny", 8, 32, 4
QUICK_STEPS, QUICK_EVERY = 4, 1
STARTING_LINES = 2
"""Of the log that are not counted: starting, and batches that were read ahead meanwhile."""
SHARED_MEMORY = Path("/dev/shm")
"""Through which workers hand over batches."""


def measure(ground: Ground, tell: Tell) -> None:
    """A row of a training, from its own log."""
    quick = ground.quick
    model, batch = (QUICK_MODEL, QUICK_BATCH) if quick else (MODEL, BATCH)
    images, photographs = (QUICK_IMAGES, QUICK_PHOTOGRAPHS) if quick else (IMAGES, PHOTOGRAPHS)
    pictures = [photograph(seed) for seed in range(photographs)]
    shards = packed(write_pack_input(ground.folder / "real", pictures, images, negatives=NEGATIVES))
    workers = 0 if quick else _workers(model, batch, tell)
    lines = _trained(ground, model, batch, shards, workers)
    counted = lines[STARTING_LINES:]
    wait = mean(line["data_wait_share"] for line in counted)
    tell.row(
        Row(
            f"{model}: hnc_ds.train from shards, {workers} workers",
            batch,
            [line["samples_per_second"] for line in counted],
            None,
            mean(line["tflops_per_rank"] for line in counted),
            max(line["memory_gib"] for line in counted) if ground.device.type == "cuda" else None,
            wait,
        )
    )
    tell.note(
        f"{photographs} made-up photographs of 500x375 pixels, again and again in {images} "
        "samples, in the page cache; decoding, cropping, tokenising, copying, the step and its "
        "measures."
    )


def _trained(
    ground: Ground, model: str, batch: int, shards: Path, workers: int
) -> list[dict[str, float]]:
    deepspeed = ground.folder / "deepspeed.json"
    deepspeed.write_text(json.dumps(shipped("zero1_bf16", train_batch_size=batch)))
    steps = QUICK_STEPS if ground.quick else STEPS
    config = TrainConfig(
        deepspeed_config=deepspeed,
        run=ground.folder / "run",
        steps=steps,
        log_every=QUICK_EVERY if ground.quick else EVERY,
        save_every=steps,
        model=ModelConfig(model=model),
        data=DataConfig(shards=shards, hard_negatives=NEGATIVES, workers=workers),
        loss=LossConfig(negatives_from="all_images"),
    )
    log = train(config) / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def _workers(model: str, batch: int, tell: Tell) -> int:
    """Cores - 1, or as many as there is shared memory for what they read ahead."""
    wanted = max(1, cores() - 1)
    size = load_model(ModelConfig(model=model), 0).image_settings.size
    ahead = PREFETCHED_BATCHES * batch * 3 * size**2
    room = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else ahead * wanted
    workers = max(1, min(wanted, int(0.8 * room / ahead)))
    if workers < wanted:
        tell.note(f"{workers} workers instead of {wanted}: {SHARED_MEMORY} has no room for more.")
    return workers
