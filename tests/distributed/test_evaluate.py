"""Ranks that share an evaluation find what one finds alone, to the byte."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hnc_ds import checkpoint
from hnc_ds.checkpoint import to_json
from hnc_ds.config import EvaluateConfig, ModelConfig, TrainConfig
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import items_path
from hnc_ds.model.load import load_model

IMAGES = 150
"""Three chunks, so that neither rank has as many as the other."""


@pytest.fixture
def config(tmp_path: Path, scene_shards: Path) -> EvaluateConfig:
    """A model on shards, and on questions of which one has an image that cannot be decoded."""
    run, crepe, images = (tmp_path / name for name in ("run", "crepe", "images"))
    checkpoint.start_run(run, {"settings": to_json(TrainConfig())})
    model = load_model(ModelConfig(), seed=6)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    checkpoint.write(run, 1, checkpoint.contents(model, weights, {}, {}, {}), keep_last=1)
    crepe.mkdir()
    images.mkdir()
    questions = {}
    for number in range(IMAGES):
        colour = (number, 255 - number, 7 * number % 256)
        Image.new("RGB", (32, 32), colour).save(images / f"{number}.png")
        true, false = f"number {number} of many", "many of number " * (1 + number % 9)
        questions[str(number)] = {
            "filename": f"{number}.png",
            "caption": true,
            "negative_caption": false,
        }
    (images / "70.png").write_bytes(b"no image")
    (crepe / "swap_obj.json").write_text(json.dumps(questions))
    return EvaluateConfig(
        models=(str(run),),
        shards=str(scene_shards / "val"),
        out=tmp_path / "alone" / "results.json",
        data=f"sugarcrepe={crepe}",
        images=f"coco2017={images}",
        allow_missing=True,
        corruptions=("gaussian_noise:3",),
    )


def test_two_ranks_write_the_bytes_of_one_as_does_one_with_their_cache(
    config: EvaluateConfig, run_on_ranks: Callable[..., None], tmp_path: Path
) -> None:
    torch.set_num_threads(1)  # as each rank has
    evaluate(config)
    cache = tmp_path / "cache"
    together = replace(config, out=tmp_path / "two" / "results.json", cache=cache)
    run_on_ranks(2, evaluate, together)
    kept = set(cache.iterdir())
    again = replace(together, out=tmp_path / "again" / "results.json")
    evaluate(again)
    assert set(cache.iterdir()) == kept  # nothing was encoded anew
    for other in (together, again):
        for of in (Path, items_path):
            assert of(config.out).read_bytes() == of(other.out).read_bytes()
