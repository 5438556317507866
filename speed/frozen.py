"""A training step of the text tower alone, with images encoded once before, against encoding them
at every visit: from the tar to new weights. One process, one thread, ds_configs/cpu.json; the same
losses.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hnc_ds.config import DataConfig, LossConfig, ModelConfig, ScopeConfig
from hnc_ds.engine.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.engine.engine import Engine, start_process_group
from hnc_ds.model.load import load_model
from hnc_ds.model.scope import choose_scope
from hnc_ds.objective.terms import LossInputs, LossTerms, objective
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training import grad_cache
from hnc_ds.training.grad_cache import Embedded, gather_inputs
from hnc_ds.training.image_embeddings import image_embeddings, unreadable, with_embeddings
from speed.inputs import packed, photograph, write_pack_input
from speed.timing import Check, Comparison, Table, alternate

NEGATIVES = (0, 1, 4)
ONCE, EVERY = "hnc_ds: encoded once", "hnc_ds: encoded at every visit"


class Trained(NamedTuple):
    """A model of which the text tower trains."""

    engine: Engine
    data: TrainingData
    images: Any
    """Embeddings of all images, or None."""
    losses: list[float]

    def step(self) -> None:
        """One optimizer step."""
        number = len(self.losses)
        batch = self.data.batch(number)
        if self.images is not None:
            batch = with_embeddings(batch, self.images, pin=False)
        terms, _ = grad_cache.step(self.engine, batch, partial(_loss_of, batch), number)
        self.losses.append(float(terms.total.detach()))


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s of whole steps, for several numbers of hard negatives."""
    torch.set_num_threads(1)
    model, batch = ("tiny", 4) if quick else ("ViT-B-32", 128)
    start_process_group()
    photographs = [photograph(seed) for seed in range(batch)]
    shards = packed(write_pack_input(folder, photographs, batch, negatives=max(NEGATIVES)))
    found, rows, checks = {}, {}, list[Check]()
    for negatives in NEGATIVES:
        once = _trained(model, shards, batch, negatives, folder / f"{negatives}")
        every = _trained(model, shards, batch, negatives, None)
        rounds = 2 if quick else 5
        found = alternate({ONCE: once.step, EVERY: every.step}, rounds)
        taken = Comparison("cpu", EVERY, found, (), (), "images", batch)
        per_second = [taken.measured(variant, "cpu").median for variant in (ONCE, EVERY)]
        rows[f"{negatives} hard negatives"] = (*per_second, taken.speed_up(ONCE).median)
        apart = max(abs(a - b) for a, b in zip(once.losses, every.losses, strict=True))
        checks.append(Check(f"difference of the losses, {negatives} hard negatives", apart, 0.0))
    return Comparison(
        clock="cpu",
        baseline=EVERY,
        timings=found,
        checks=tuple(checks),
        notes=(
            f"{model}, --towers text --crop 1, --deepspeed_config cpu, one thread, batch {batch}; "
            f"timings above with {NEGATIVES[-1]} hard negatives an image, others in the table. The "
            "one pass over the images before the first step is not counted.",
        ),
        items="images",
        count=batch,
        tables=(Table("images per CPU second", ("once", "every visit", "times as fast"), rows),),
    )


def _trained(model: str, shards: Path, batch: int, negatives: int, folder: Path | None) -> Trained:
    clip = load_model(ModelConfig(model=model), 0)
    choose_scope(clip, ScopeConfig(towers="text"))
    config = DataConfig(hard_negatives=negatives, crop=1.0, workers=0)
    views = (clip.image_settings, clip.tokenize)
    data = TrainingData(shards, config, 0, batch, range(batch), *views)
    where = find_deepspeed_config(Path("cpu"))
    settings = resolve(read_deepspeed_config(where) | {"train_batch_size": batch}, where, 1, 1000)
    engine = Engine(clip, clip.parameter_groups(), settings)
    if folder is None:
        return Trained(engine, data, None, [])
    folder.mkdir()
    images = image_embeddings(folder, "bench", engine, data, workers=0)
    return Trained(engine, data.without_images(unreadable(images)), images, [])


def _loss_of(batch: Batch, embedded: Embedded) -> tuple[LossTerms, LossInputs]:
    compared = gather_inputs(embedded, batch, LossConfig())
    return objective(compared, LossConfig(), 1.0), compared
