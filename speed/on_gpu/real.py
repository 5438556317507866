"""``hnc_ds.train`` itself on shards of made-up photographs: does the loader keep up?"""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

from hnc_ds.config import DataConfig, LossConfig, ModelConfig, TrainConfig
from hnc_ds.launch import cores
from hnc_ds.train import train
from speed.inputs import packed, photograph, write_pack_input
from speed.on_gpu.ground import Ground, Recorder, Row
from speed.on_gpu.steps import NEGATIVES
from speed.variants import shipped

ON_CUDA = ("ViT-B-32", 512, 2048, 128, 80, 10)
ON_CPU = ("ViT-S-32-alt", 8, 64, 8, 6, 1)
QUICK = ("tiny", 8, 32, 4, 4, 1)
"""Model, batch, images in the shards, photographs that differ, steps, steps a line of the log."""
STARTING_LINES = 2
"""Of the log that are not counted: starting, and batches that were read ahead meanwhile."""


def measure(ground: Ground, recorder: Recorder) -> None:
    """A row of a training, from its own log."""
    model, batch, images, photographs, steps, every = ground.pick(ON_CUDA, ON_CPU, QUICK)
    jpegs = [photograph(seed) for seed in range(photographs)]
    shards = packed(write_pack_input(ground.folder / "real", jpegs, images, negatives=NEGATIVES))
    lines = _trained(ground, model, batch, shards, steps, every)
    counted = lines[STARTING_LINES:]
    wait = mean(line["data_wait_fraction"] for line in counted)
    recorder.row(
        Row(
            f"{model}: hnc_ds.train from shards",
            batch,
            [line["samples_per_second"] for line in counted],
            None,
            mean(line["tflops_per_rank"] for line in counted),
            max(line["memory_gib"] for line in counted) if ground.device.type == "cuda" else None,
            wait,
        )
    )
    recorder.reached("real waiting", wait)
    recorder.note(
        f"Cores: {cores()}, workers: {_workers(ground)}; "
        f"{photographs} made-up photographs of 500x375 pixels, again and again in {images} "
        "samples, in the page cache; decoding, cropping, tokenising, copying, the step and its "
        "measures."
    )


def _workers(ground: Ground) -> int:
    """As the run's record has them."""
    record = json.loads((ground.folder / "run" / "config.json").read_text())
    return int(record["workers"])


def _trained(
    ground: Ground, model: str, batch: int, shards: Path, steps: int, every: int
) -> list[dict[str, float]]:
    data = DataConfig(shards=str(shards), hard_negatives=NEGATIVES)
    if ground.quick:
        data = replace(data, workers=0)  # starting them would take longer than all else
    deepspeed = ground.folder / "deepspeed.json"
    deepspeed.write_text(json.dumps(shipped("zero1_bf16", train_batch_size=batch)))
    config = TrainConfig(
        deepspeed_config=deepspeed,
        run=ground.folder / "run",
        steps=steps,
        log_every=every,
        save_every=steps,
        model=ModelConfig(model=model),
        data=data,
        loss=LossConfig(negatives_from="all_images"),
    )
    log = train(config) / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]
