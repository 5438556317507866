"""Objectives on photographs: one pretrained start model, Flickr8k, the same steps for each.

    python experiments/flickr8k.py --captions dataset_flickr8k.json --images Flicker8k_Dataset \
        --model local-dir:START --sugarcrepe DIR --coco DIR

The image tower is frozen, so its embeddings are computed once for all trainings; the text tower
learns from captions and their word swaps. Every objective sees the same images in the same order;
captions and swaps too, but for those that ask for others (OBJECTIVES). Scores are of the test
split: word swaps with their blind twins, retrieval, and SugarCrepe where its files are given.
Interrupted, it resumes; what is in --out is not made again.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.preset_settings import check_objectives
from experiments.preset_tables import cell, markdown
from experiments.presets import hnc_ds, in_turns, main
from hnc_ds.atomic_files import atomic_write
from hnc_ds.evaluation.paired import PairedValues, paired_values, shared_items
from hnc_ds.evaluation.results import Measurement, RowKey, read_measurement
from hnc_ds.evaluation.statistics import paired_difference
from speed.machine import facts

START, PLAIN, NEGCLIP = "start", "clip", "negclip"


class Objective(NamedTuple):
    """What is trained."""

    flags: str = ""
    """Of 'hnc-ds train', after those of DRAWN."""
    negatives: str = "all"
    """A key of SWAPS, or SIMILAR."""
    between: tuple[str, ...] = ()
    """Two other objectives, or the start model and one; then the weights are theirs, interpolated,
    and nothing is trained."""
    coefficient: float = 1.0
    """Of the second."""


OBJECTIVES = {
    PLAIN: Objective("--preset clip"),
    NEGCLIP: Objective("--preset negclip --hard_negatives 1"),
    "hnc": Objective("--preset hnc"),
    "hnc-sighted": Objective("--preset hnc-sighted"),
    "sighted-1": Objective("--preset hnc-sighted --terms contrastive 1 sighted 1 blind_mean 3"),
    "sighted-2": Objective("--preset hnc-sighted --terms contrastive 1 sighted 2 blind_mean 3"),
    "sighted-3": Objective("--preset hnc-sighted --terms contrastive 1 sighted 3 blind_mean 3"),
    "clip+sighted-3": Objective(between=(PLAIN, "sighted-3"), coefficient=0.8),
    "blind-mean": Objective("--preset hnc --terms contrastive 1 blind_mean 3"),
    "blind-3": Objective("--preset hnc --terms contrastive 1 blind 3"),
    "blind-10": Objective("--preset hnc --terms contrastive 1 blind 10"),
    "blind-10-distill": Objective(
        "--preset hnc --terms contrastive 1 blind 10 distill 1 --no-distill_negatives"
    ),
    "hnc-fluent": Objective("--preset hnc --share_with_negatives 0.5", "fluent"),
    "hnc-sighted-fluent": Objective("--preset hnc-sighted --share_with_negatives 0.5", "fluent"),
    "hnc-similar": Objective("--preset hnc", "similar"),
    "hnc-distill": Objective("--preset hnc --terms contrastive 1 distill 1 --no-distill_negatives"),
    "hnc-alpha-3": Objective("--preset hnc --alpha 3"),
    "ce-clip": Objective("--preset ce-clip"),
    "fsc-clip": Objective("--preset fsc-clip"),
    "clic": Objective("--preset clic --positives 4 --hard_negatives 1"),
    "degla": Objective("--preset degla"),
}

SWAPS = {"all": "", "fluent": "--fluency_margin 0.5"}
"""Word swaps, as flags of 'hnc-ds swap-words': all, and those that are about as fluent as their
caption."""

SIMILAR = "similar"
"""All word swaps, and true captions of similar images ('hnc-ds mine --captions_out')."""

DRAWN = "--towers text --crop 1 --encode_images_once always --hard_negatives 2 --workers 0"

PAIRS, SUGARCREPE, RETRIEVAL = "hnc-shards", "sugarcrepe", "flickr30k-retrieval"

COLUMNS: dict[str, RowKey] = {
    "swaps": (PAIRS, "pair_accuracy", "all"),
    "blind": (PAIRS, "blind_accuracy", "all"),
    "sighted": (PAIRS, "sighted_accuracy", "all"),
    "SugarCrepe": (SUGARCREPE, "accuracy", "all"),
    "SugarCrepe, blind": (SUGARCREPE, "blind_accuracy", "all"),
    "SugarCrepe, sighted": (SUGARCREPE, "sighted_accuracy", "all"),
    "image-to-text R@1": (RETRIEVAL, "image_to_text_R@1", "all"),
    "text-to-image R@1": (RETRIEVAL, "text_to_image_R@1", "all"),
}

HEAD = """# Objectives on photographs

Written by `python experiments/flickr8k.py`. Flickr8k's test split (word swaps, retrieval as for
Flickr30k) and SugarCrepe's questions that were given; percent, means over the seeds and, in
brackets, the smallest and the largest. *Blind*: the same pairs of captions with other images;
*sighted* is accuracy - blind accuracy + 1/2 ([benchmarks](../docs/benchmarks.md)).

Trained from `--model {model}`: text tower alone, {steps} steps of {batch} images, learning rate
{lr}, {precision}, up to two word swaps an image (`hnc-ds swap-words`; *fluent*: with `{fluent}`;
*similar*: or true captions of similar images, `hnc-ds mine --captions_out`). Made with {machine}.

{objectives}

"""

DIFFERENCES = """
## Differences from {title}

Points, mean over the seeds that both have; 95 % intervals by bootstrap over images, items paired.
An interval that contains 0 decides nothing.

"""


@dataclass(frozen=True)
class Settings:
    """Compare objectives on Flickr8k's photographs."""

    captions: Path
    """Karpathy's dataset_flickr8k.json."""

    images: Path
    """Folder of the photographs."""

    model: str
    """Start model, as for 'hnc-ds train --model'."""

    sugarcrepe: Path | None = None
    """Folder of SugarCrepe's JSON files."""

    coco: Path | None = None
    """Folder of COCO's images of SugarCrepe; questions whose image is not there are left out."""

    out: Path = Path("runs/flickr8k")
    """Folder of everything that is made."""

    steps: int = 100
    """Steps of every objective."""

    batch: int = 48
    """Images of a step."""

    lr: float = 2e-5
    """Largest learning rate."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the training; bf16 is faster where the processor has units for it (AMX). Scores are always
    of fp32."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the order of samples and of the captions that are drawn."""

    only: tuple[str, ...] = ()
    """Names of objectives. Default: all."""

    at_once: int = 1
    """Number of trainings that run in parallel."""

    page: Path | None = None
    """Output page. Default: FLICKR8K.md in --out."""

    tables_only: bool = False
    """Only write the page of what is measured."""

    def __post_init__(self) -> None:
        check_objectives(self.only, OBJECTIVES)

    def shards(self, split: str, negatives: str = "all") -> Path:
        """Shards of a split, train or test."""
        return self.out / "shards" / f"{split}-{negatives}"

    def run(self, name: str, seed: int) -> Path:
        """Folder of a training."""
        return self.out / f"{name}-{seed}"

    def model_of(self, name: str, seed: int) -> str:
        """The start model, or that of an objective after its last step."""
        if name == START:
            return self.model
        run = self.run(name, seed)
        last = run / "checkpoints" / f"step-{self.steps:06d}"
        return str(run if OBJECTIVES[name].between else last)

    def results(self, name: str, seed: int = 0) -> Path:
        """Results file of a training, or of the start model."""
        return self.out / "results" / (START if name == START else f"{name}-{seed}") / "test.json"

    def log(self, name: str, seed: int) -> Path:
        """Log file of a training."""
        return self.out / "logs" / f"{name}-{seed}.log"


def run(settings: Settings) -> None:
    """Make what is missing, train what is not trained, and write the page of what is there."""
    names = settings.only or tuple(OBJECTIVES)
    if not settings.tables_only:
        prepare(settings, names)
        measure(settings, START, 0)
        between = [name for name in names if OBJECTIVES[name].between]
        for do, chosen in ((train, trained(names)), (interpolate, between), (measure, names)):
            jobs = [(name, seed) for seed in settings.seeds for name in chosen]
            in_turns(settings.at_once, partial(do, settings), jobs)
    out = settings.page or settings.out / "FLICKR8K.md"
    atomic_write(out, page(settings, names).encode())
    print(f"wrote {out}")


def trained(names: Sequence[str]) -> list[str]:
    """Objectives that are trained for these, each once."""
    each = (part for name in names for part in OBJECTIVES[name].between or (name,))
    return [name for name in dict.fromkeys(each) if name != START]


def prepare(settings: Settings, names: Sequence[str]) -> None:
    """Word swaps and shards of both splits, and DeepSpeed's configuration."""
    of_training = {OBJECTIVES[name].negatives for name in trained(names)}
    if SIMILAR in of_training:
        of_training.add("all")  # first, as it is made from these
    for split, negatives in (*(("train", each) for each in sorted(of_training)), ("test", "all")):
        captions = settings.out / f"{split}-{negatives}.captions.jsonl.gz"
        if not captions.is_file() and negatives == SIMILAR:
            hnc_ds(
                f"mine --model {settings.model} --shards {settings.shards(split)} "
                f"--out {settings.out / 'similar.safetensors'} --captions_out {captions}"
            )
        elif not captions.is_file():
            given = f"--captions {settings.captions} --split {split} {SWAPS[negatives]}"
            hnc_ds(f"swap-words {given} --out {captions}")
        out = settings.shards(split, negatives)
        hnc_ds(f"pack --captions {captions} --images {settings.images} --out {out}")
    deepspeed: dict[str, Any] = {
        "train_batch_size": settings.batch,
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": settings.lr, "weight_decay": 0.1, "torch_adam": True, "fused": True},
        },
        "scheduler": {
            "type": "WarmupCosineLR",
            "params": {"total_num_steps": "auto", "warmup_num_steps": 10, "warmup_type": "linear"},
        },
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 1},
    }
    if settings.precision != "fp32":
        deepspeed[settings.precision] = {"enabled": True}
    atomic_write(settings.out / "deepspeed.json", json.dumps(deepspeed, indent=1).encode())


def train(settings: Settings, name: str, seed: int) -> None:
    """Train an objective, if it is not trained."""
    run, before, objective = settings.run(name, seed), time.monotonic(), OBJECTIVES[name]
    if (Path(settings.model_of(name, seed)) / "state.json").is_file():
        return
    kept = settings.out / "image_embeddings"
    link(kept, run)  # of the same frozen tower
    hnc_ds(
        f"train --deepspeed_config {settings.out / 'deepspeed.json'} --run {run} "
        f"--shards {settings.shards('train', objective.negatives)} --seed {seed} "
        f"--steps {settings.steps} --save_every {settings.steps} --log_every 10 "
        f"--model {settings.model} {DRAWN} {objective.flags} --resume",
        settings.log(name, seed),
        settings.at_once,
    )
    link(run, kept)
    print(f"{name}, seed {seed}: {time.monotonic() - before:.0f} s", flush=True)


def interpolate(settings: Settings, name: str, seed: int) -> None:
    """Save the weights between those of two models."""
    out, objective = settings.model_of(name, seed), OBJECTIVES[name]
    if not Path(out).is_dir():
        first, second = (settings.model_of(one, seed) for one in objective.between)
        hnc_ds(
            f"interpolate {first} {second} --save {objective.coefficient} --save-to {out}",
            settings.log(name, seed),
            settings.at_once,
        )


def link(source: Path, target: Path) -> None:
    """Put the embeddings of one folder into another one."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("image_embeddings-*.npy"):
        if not (target / path.name).exists():
            os.link(path, target / path.name)


def measure(settings: Settings, name: str, seed: int) -> None:
    """Measure the start model or that of an objective, if it is not measured."""
    out, model = settings.results(name, seed), settings.model_of(name, seed)
    if out.is_file():
        return
    data, images = [f"{RETRIEVAL}={settings.captions}"], [f"flickr30k={settings.images}"]
    if settings.sugarcrepe and settings.coco:
        data.append(f"{SUGARCREPE}={settings.sugarcrepe}")
        images.append(f"coco2017={settings.coco}")
    hnc_ds(
        f"evaluate {model} --shards {settings.shards('test')} --benchmarks {PAIRS} "
        f"--data {','.join(data)} --images {','.join(images)} --allow-missing --workers 0 "
        f"--name {name}-{seed} --cache {settings.out / 'embeddings'} --out {out}",
        settings.log(name, seed),
        settings.at_once,
    )


class Found(NamedTuple):
    """Measurements of an objective by seed."""

    name: str
    seeds: dict[int, Measurement]


def page(settings: Settings, names: Sequence[str]) -> str:
    """What was trained, what came out, and what differs."""
    found = [
        Found(
            name,
            {
                seed: read_measurement(settings.results(name, seed))
                for seed in (settings.seeds if name != START else (0,))
                if settings.results(name, seed).is_file()
            },
        )
        for name in (START, *names)
    ]
    machine = facts()
    head = HEAD.format(
        model=settings.model.split("/")[-1],
        steps=settings.steps,
        batch=settings.batch,
        lr=settings.lr,
        precision=settings.precision,
        fluent=SWAPS["fluent"],
        machine=", ".join(f"{name} {machine[name]}" for name in ("Python", "hnc_ds", "torch")),
        objectives="\n".join(
            f"    {one.name:23} seeds: {len(one.seeds)}  {described(OBJECTIVES[one.name])}"
            for one in found
            if one.name != START
        ),
    )
    scores = markdown(("percent", *COLUMNS), [(one.name, cells(one)) for one in found])
    by_name = {one.name: one for one in found}
    differences = [
        DIFFERENCES.format(title=f"`{base}`")
        + markdown(
            ("points", *COLUMNS),
            [
                (one.name, changes(by_name[base], one))
                for one in found
                if one.name not in (START, base)
            ],
        )
        for base in (PLAIN, NEGCLIP)
        if base in by_name
    ]
    return head + scores + "".join(differences)


def described(objective: Objective) -> str:
    """Flags of a training, or what is interpolated."""
    if not objective.between:
        return objective.flags
    (first, second), share = objective.between, objective.coefficient
    return f"weights: {1 - share:.2g} {first} + {share:.2g} {second}"


def cells(one: Found) -> list[str]:
    """A row of scores."""
    rows = [measurement.rows for measurement in one.seeds.values()]
    return [cell([of[key].value for of in rows if key in of]) for key in COLUMNS.values()]


def changes(base: Found, one: Found) -> list[str]:
    """A row of differences, with their intervals."""
    shared = [
        shared_items(measurement, one.seeds[seed])
        for seed, measurement in base.seeds.items()
        if seed in one.seeds
    ]
    return [
        change([v for items in shared if (v := paired_values(items, key)) is not None])
        for key in COLUMNS.values()
    ]


def change(of_seeds: Sequence[PairedValues]) -> str:
    """Of one score: items have the mean of their values over the seeds."""
    if not of_seeds:
        return "-"
    first_N, second_N = (
        np.mean([np.asarray(values[n], float) for values in of_seeds], axis=0) for n in (0, 1)
    )
    found = paired_difference(first_N, second_N, of_seeds[0].cluster_N)
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


if __name__ == "__main__":
    sys.exit(main("flickr8k", Settings, run))
