"""The settings of every stage: frozen dataclasses, from which flags, help and checks come.

No torch here. Batch size, optimizer, learning rate, precision and ZeRO are not here either:
they live in ds_configs/*.json and nowhere else.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from hnc_ds.errors import UserError, did_you_mean


def _at_least(minimum: float, **values: float) -> None:
    for name, value in values.items():
        if value < minimum:
            raise UserError(f"{name} is {value}; it must be {minimum} or more")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}; it must lie between 0 and 1")


def _read_weights(given: list[str]) -> dict[str, float]:
    if len(given) % 2:
        raise ValueError("give names and weights in turn: NAME WEIGHT NAME WEIGHT")
    return {name: float(w) for name, w in zip(given[::2], given[1::2], strict=True)}


Weights = Annotated[
    dict[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME WEIGHT ...",
        instance_from_str=_read_weights,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda weights: [str(part) for pair in weights.items() for part in pair],
    ),
]
"""Names with numbers. tyro alone would make a flag of each name of a default that has some."""

_REQUIRED = tyro.conf.arg(help_behavior_hint="(required, but for --check)")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """What the rendered scenes look like and how many there are (hnc_ds/scenes)."""

    out: Path
    """Folder for train_sceneGraphs.json, val_sceneGraphs.json and images/."""

    train: int = 4000
    """Training scenes."""

    val: int = 500
    """Held-out scenes."""

    seed: int = 0
    """Same seed, same bytes."""

    size: int = 224
    """Pixels on a side."""

    objects: tuple[int, int] = (2, 5)
    """Fewest and most objects in a picture."""

    shapes: int = 8
    """Kinds of shape, taken from the front of the list."""

    colours: int = 8
    """Colours, taken from the front of the list."""

    patterned: float = 0.25
    """Share of objects that are striped or dotted."""

    namesakes: float = 0.3
    """Share of pictures in which a shape may occur more than once."""

    overlaps: float = 0.3
    """Share of pictures with an object inside, on or in front of another."""

    workers: int = field(default_factory=_cores)
    """Processes. The bytes do not depend on it."""

    def __post_init__(self) -> None:
        _at_least(0, train=self.train, val=self.val, seed=self.seed)
        _at_least(1, workers=self.workers)
        _at_least(32, size=self.size)
        _at_least(2, shapes=self.shapes, colours=self.colours)
        _share(patterned=self.patterned, namesakes=self.namesakes, overlaps=self.overlaps)
        fewest, most = self.objects
        if not 1 <= fewest <= most <= 8:
            raise UserError(
                f"objects is {fewest} {most}; give a smaller and a larger number from 1 to 8"
            )


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How captions are made from scene graphs (hnc_ds/captions)."""

    scene_graphs: Annotated[Path, _REQUIRED] = Path()
    """GQA's train_sceneGraphs.json or val_sceneGraphs.json, or a file of that layout (.gz too)."""

    out: Annotated[Path, _REQUIRED] = Path()
    """captions.jsonl or captions.jsonl.gz; the statistics go beside it as *.stats.json."""

    types: tuple[str, ...] = ()
    """Negative types to make, or families of them: hnc, swaps, negclip, structure_clip. When none
    is named: hnc and swaps."""

    per_image: int = 48
    """Most caption groups of an image. No predicate takes more than a quarter of the places for
    relations: left and right are 89 % of GQA's."""

    tables: Path | None = None
    """Frequencies of the training graphs, from 'hnc-ds tables': attributes are also drawn as often
    as things have them, and exchanges that nobody would say are left out."""

    open_world: bool = False
    """Also write negatives that are only not annotated as true. They are tagged, and a training
    draws them less often (--open_world_weight)."""

    by_colour: float = 2 / 3
    """How often a noun's attribute is its colour, where it has one."""

    hnc_json: Path | None = None
    """Also write the captions in the layout of the released HNC files, .json or .json.gz."""

    audit: bool = False
    """Measure how far text alone gives the label away, and add it to the statistics. Takes minutes
    on a large file and needs hnc_ds[audit]."""

    seed: int = 0
    """Same seed, same bytes."""

    workers: int = field(default_factory=_cores)
    """Processes. The bytes do not depend on it."""

    overwrite: bool = False
    """Replace an existing file of captions."""

    check: Path | None = None
    """Only say whether this file of scene graphs is complete; needs no other flag."""

    def __post_init__(self) -> None:
        _at_least(1, per_image=self.per_image, workers=self.workers)
        _share(by_colour=self.by_colour)
        if self.check is None and Path() in (self.scene_graphs, self.out):
            raise UserError("generate: give --scene-graphs and --out, or only --check FILE")


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """How often things, attributes and relations occur (hnc_ds/captions/tables.py)."""

    scene_graphs: Path
    """GQA's train_sceneGraphs.json, or a file of that layout (.gz too)."""

    out: Path
    """tables.json or tables.json.gz."""

    any_split: bool = False
    """Also count a file whose name says validation or test."""

    overwrite: bool = False
    """Replace existing tables."""


@dataclass(frozen=True, kw_only=True)
class SwapWordsConfig:
    """Word swaps from a list of captions (hnc_ds/captions/swap_words.py)."""

    captions: Path
    """COCO's captions_*.json, Karpathy's dataset_*.json, a CSV or TSV with a header, or JSON Lines;
    .gz too."""

    out: Path
    """captions.jsonl or captions.jsonl.gz; the statistics go beside it as *.stats.json."""

    split: tuple[str, ...] = ()
    """Of Karpathy's file, the splits to read: train restval; all when none is named."""

    types: tuple[str, ...] = ()
    """Word swaps to make; all of them when none is named."""

    per_caption: int = 3
    """Most negatives of a caption; of one type never more than one."""

    seed: int = 0
    """Same seed, same bytes."""

    workers: int = field(default_factory=_cores)
    """Processes. The bytes do not depend on it."""

    overwrite: bool = False
    """Replace an existing file of captions."""

    def __post_init__(self) -> None:
        _at_least(1, per_caption=self.per_caption, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How images and captions become tar shards (hnc_ds/shards/pack.py)."""

    captions: Path
    """captions.jsonl(.gz) of 'hnc-ds generate', or a released HNC file (.json, .json.gz)."""

    images: Path
    """Folder of the images, ID.jpg."""

    out: Path
    """Folder for the shards and their index."""

    samples_per_shard: int = 1000
    """Images in a tar."""

    workers: int = field(default_factory=_cores)
    """Processes. The bytes do not depend on it."""

    overwrite: bool = False
    """Replace shards that were packed from something else."""

    check: bool = False
    """Only say whether captions, images and disk space are complete; write nothing."""

    def __post_init__(self) -> None:
        _at_least(1, samples_per_shard=self.samples_per_shard, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Look into a folder of shards, or a file of captions."""

    shards: tyro.conf.Positional[str]
    """Folder that 'hnc-ds pack' wrote, its URL, or a file of captions."""

    samples: int | None = None
    """Images on the sheet, 12 when not given; of a file, groups per negative type, 10."""

    sheet: Path | None = None
    """PNG of samples with their captions; SHARDS/sheet.png when not given, of a URL
    sheet.png here."""

    seed: int = 0
    """Which samples."""

    verify: bool = False
    """Read every shard and compare its sha256 with the index."""

    def __post_init__(self) -> None:
        if self.samples is not None:
            _at_least(1, samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which CLIP is trained (hnc_ds/model)."""

    model: str = "tiny"
    """An open_clip model name or hf-hub:/local-dir: reference; 'tiny' takes 32 pixels and is for
    trying out."""

    pretrained: str | None = None
    """An open_clip tag or a local file of weights; none starts from random weights."""


LOSS_TERMS = {
    "contrastive": "InfoNCE in which images also compete with hard negatives, alpha times each",
    "margin": "hinge on the lead of the positive over each hard negative (gamma)",
    "preference": "the lead over a hard negative should exceed the start model's (beta)",
    "distill": "KL divergence from the start model's softmaxes (distill_tau, distill_negatives)",
    "l2_to_start": "squared distance of the trained weights from the start weights",
}
"""What a loss can be summed of."""

OF_START = frozenset(("preference", "distill", "l2_to_start"))
"""Terms that compare with the start model."""

PRESETS: dict[str, dict[str, Any]] = {
    "clip": {"terms": {"contrastive": 1.0}, "alpha": 0.0},
    "hnc": {"terms": {"contrastive": 1.0}, "alpha": 1.0},
    "negclip": {"terms": {"contrastive": 0.5}, "alpha": 1.0, "negatives_from": "all_images"},
    "structure-clip": {"terms": {"contrastive": 0.5, "margin": 1.0}, "alpha": 0.0, "gamma": 0.2},
    "dpo": {"terms": {"contrastive": 1.0, "preference": 1.0}, "alpha": 0.0, "beta": 0.1},
}
"""Objectives by the names under which people compare them.

clip is CLIP's with this project's weight; NegCLIP and Structure-CLIP take the mean of the two
directions of InfoNCE, hence 0.5. What they draw (NegCLIP: one negative and similar images) is said
by DataConfig. Preference alone would forget to tell pictures apart, so dpo keeps CLIP's objective.
"""

OF_NEGATIVES = frozenset(("margin", "preference"))
"""Terms that are nothing without hard negatives."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised (hnc_ds/objective)."""

    terms: Weights = field(default_factory=dict)
    """Terms and their weights: contrastive 1 distill 0.5. Of contrastive, margin, preference,
    distill, l2_to_start; when none is named: contrastive 1."""

    alpha: float = 1.0
    """Copies of each hard negative in the softmax; 0 is plain CLIP."""

    alpha_end: float | None = None
    """alpha after --alpha-steps; alpha stays when not given."""

    alpha_steps: int = 1
    """Steps from alpha to alpha_end."""

    alpha_schedule: Literal["linear", "step"] = "linear"
    """On a line from alpha to alpha_end, or alpha before and alpha_end after."""

    negatives_from: Literal["own_image", "all_images"] = "own_image"
    """Which hard negatives an image competes with: its own, or those of all images of the batch, as
    in NegCLIP."""

    tau: float | None = None
    """Fixed temperature; learned from the model's own start value when not given."""

    gamma: float = 0.2
    """margin: the least lead in cosine that costs nothing."""

    beta: float = 0.1
    """preference: how sharply a lead is preferred."""

    distill_tau: float | None = None
    """distill: temperature of both softmaxes; the start model's own when not given."""

    distill_negatives: bool = True
    """distill: over all columns of the contrastive softmax; without, hard negatives are left out,
    so that the start model's opinion of them is not taught."""

    def __post_init__(self) -> None:
        _at_least(0, alpha=self.alpha, alpha_end=self.alpha_end or 0.0, gamma=self.gamma)
        _at_least(1, alpha_steps=self.alpha_steps)
        for name, tau in (("tau", self.tau), ("distill_tau", self.distill_tau)):
            if tau is not None and not 0.01 <= tau <= 10:
                raise UserError(f"{name} is {tau}; it must lie between 0.01 and 10")
        if self.beta <= 0:
            raise UserError(f"beta is {self.beta}; it must be more than 0")
        for name, weight in self.terms.items():
            if name not in LOSS_TERMS:
                known = ", ".join(LOSS_TERMS)
                raise UserError(
                    f"terms: no term '{name}'{did_you_mean(name, LOSS_TERMS)}; there are {known}"
                )
            if not 0 <= weight < math.inf:
                raise UserError(f"terms: the weight of {name} is {weight}; it must be 0 or more")
        if not set(self.weights()) - {"l2_to_start"}:
            raise UserError("terms: nothing is learned from images; give contrastive a weight")

    def weights(self) -> dict[str, float]:
        """The terms that count, and their weights."""
        chosen = self.terms or {"contrastive": 1.0}
        return {name: weight for name, weight in chosen.items() if weight > 0}

    def alpha_at(self, step: int) -> float:
        """The weight of a hard negative at a step, counted from 0."""
        if self.alpha_end is None or step <= 0:
            return self.alpha
        if step >= self.alpha_steps:
            return self.alpha_end
        if self.alpha_schedule == "step":
            return self.alpha
        return self.alpha + (self.alpha_end - self.alpha) * step / self.alpha_steps

    def sees_negatives(self) -> bool:
        """Whether any hard negative can count at any step."""
        largest = max(self.alpha, self.alpha_end or 0.0)
        weights = self.weights()
        in_softmax = "contrastive" in weights or ("distill" in weights and self.distill_negatives)
        return bool(OF_NEGATIVES & set(weights)) or (in_softmax and largest > 0)


@dataclass(frozen=True, kw_only=True)
class ScopeConfig:
    """What of the model trains (hnc_ds/model/scope.py)."""

    towers: Literal["both", "image", "text"] = "both"
    """Which tower trains; the other one stays as it is."""

    last_blocks: int | None = None
    """Only the last transformer blocks of the chosen towers, with the norm and the projection after
    them; 0 for these two alone."""

    lora_rank: int | None = None
    """LoRA: low-rank changes beside the frozen matrices of the chosen towers' blocks."""

    lora_alpha: float | None = None
    """LoRA: the changes are multiplied by lora_alpha / lora_rank; lora_rank when not given."""

    train_temperature: bool = True
    """Learn the temperature; --tau fixes it at a value."""

    def __post_init__(self) -> None:
        _at_least(0, last_blocks=self.last_blocks or 0)
        if self.lora_rank is not None:
            _at_least(1, lora_rank=self.lora_rank)
        elif self.lora_alpha is not None:
            raise UserError("lora_alpha is nothing without lora_rank; give both or neither")
        if self.last_blocks is not None and self.lora_rank is not None:
            raise UserError("give last_blocks or lora_rank, not both")

    def lora_scale(self) -> float:
        """What the low-rank changes are multiplied by."""
        rank = self.lora_rank or 1
        return (rank if self.lora_alpha is None else self.lora_alpha) / rank


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is drawn from the shards, and in which order (hnc_ds/shards)."""

    shards: str | None = None
    """Folder that 'hnc-ds pack' wrote, or its URL (s3, gs, https, hf, ...); rendered scenes are
    prepared under data/ when not given."""

    cache: Path | None = None
    """Where shards of a URL are kept; $HNC_DS_CACHE or ~/.cache/hnc_ds when not given."""

    cache_gb: float | None = None
    """Most gigabytes of them; $HNC_DS_CACHE_GB or 50 when not given."""

    hard_negatives: int = 4
    """Hard negatives drawn for each image (K)."""

    unrelated_negatives: int = 0
    """Captions of other images drawn for each image besides the batch's own (M)."""

    negative_types: Weights = field(default_factory=dict)
    """How often each negative type is drawn, relative to the others: swap 2 attribute 1. Types not
    named are not drawn; without any, all types are drawn alike."""

    open_world_weight: float = 0.25
    """How often a negative that is not proven false ('hnc-ds generate --open-world', 'swap-words')
    is drawn, relative to a proven one of its type; 0 leaves them out."""

    crop: float = 0.9
    """Smallest share of the picture's area that a random training crop keeps; 1 never crops."""

    shuffle_shards: int = 16
    """Shards that are mixed with each other at a time; 0 mixes the whole data set."""

    similar: Path | None = None
    """File of 'hnc-ds mine' for these shards: puts a similar image after each image, so that
    batches hold pairs that are hard to tell apart."""

    nearest: int = 3
    """How many of the nearest images the similar one is drawn from; with --similar only."""

    workers: int = 1
    """Processes per rank that read and decode; 0 does it in the training process."""

    def __post_init__(self) -> None:
        _at_least(
            0,
            hard_negatives=self.hard_negatives,
            unrelated_negatives=self.unrelated_negatives,
            shuffle_shards=self.shuffle_shards,
            workers=self.workers,
        )
        _at_least(1, nearest=self.nearest)
        _share(open_world_weight=self.open_world_weight)
        if not 0 < self.crop <= 1:
            raise UserError(f"crop is {self.crop}; it must be more than 0 and at most 1")
        if any(weight < 0 for weight in self.negative_types.values()) or (
            self.negative_types and not sum(self.negative_types.values())
        ):
            raise UserError(
                "negative_types: weights must be 0 or more, and one of them more than 0"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fine-tune a CLIP on hard negative captions."""

    deepspeed_config: Path | None = None
    """DeepSpeed's JSON, a path or a name in ds_configs: batch, optimizer, precision, ZeRO. Needed,
    unless --config names one."""

    run: Path | None = None
    """Folder of the run; runs/train-001 or the next free number when not given."""

    resume: bool = False
    """Continue the run from its newest complete checkpoint, on any number of ranks."""

    config: Annotated[
        Path | None,
        tyro.conf.arg(help="Take settings from this run's config.json; flags override them."),
    ] = None

    preset: Annotated[
        str | None,
        tyro.conf.arg(help="Loss settings by name, which flags override: " + ", ".join(PRESETS)),
    ] = None

    steps: int = 1000
    """Optimizer steps of the whole run."""

    seed: int = 0
    """Of the start weights, the order and every draw."""

    log_every: int = 10
    """Steps between lines of the log."""

    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""

    keep_last: int = 2
    """Checkpoints that are kept."""

    eval_shards: str | None = None
    """Held-out shards, a folder or a URL, that are measured while training; the start model
    first."""

    eval_every: int | None = None
    """Steps between measurements, each of a checkpoint; as --save-every when not given."""

    eval_metric: str = "hnc-shards/pair_accuracy/all"
    """BENCHMARK/METRIC/GROUP of the score by which the best checkpoint is kept; the larger the
    better."""

    stop_early: int | None = None
    """Measurements without a better score after which training ends."""

    ema: float | None = None
    """Also keep an average of the weights, of which this share stays at each step (0.999, say);
    checkpoints hold it in average/."""

    patience: float = 1800
    """Seconds without progress on any rank after which the run is given up as hung."""

    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a
    third more time."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    scope: Annotated[ScopeConfig, tyro.conf.arg(name="")] = field(default_factory=ScopeConfig)
    loss: Annotated[LossConfig, tyro.conf.arg(name="")] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        _at_least(
            1,
            steps=self.steps,
            log_every=self.log_every,
            save_every=self.save_every,
            keep_last=self.keep_last,
            patience=self.patience,
        )
        _at_least(1, eval_every=self.eval_every or 1, stop_early=self.stop_early or 1)
        if self.eval_shards is None and (self.eval_every or self.stop_early):
            raise UserError("eval_every and stop_early need --eval_shards, held-out shards")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"ema is {self.ema}; it must be from 0 to less than 1")
        if OF_NEGATIVES & set(self.loss.weights()) and not self.data.hard_negatives:
            names = ", ".join(sorted(OF_NEGATIVES & set(self.loss.weights())))
            raise UserError(f"terms {names} need hard negatives; hard_negatives is 0")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure a run on held-out shards (hnc_ds/evaluation)."""

    run: tyro.conf.Positional[Path]
    """A run folder (its newest checkpoint) or one checkpoint folder."""

    shards: str
    """Held-out shards of 'hnc-ds pack', a folder or a URL."""

    out: Path
    """results.json; the score of every pair goes beside it as *.items.jsonl."""

    benchmarks: tuple[str, ...] = ()
    """What to measure: hnc-shards (hard negatives), retrieval; all when none is named."""

    name: str | None = None
    """What to call the model in the results; the run's folder name when not given."""

    batch: int = 256
    """Images or captions encoded at once. Scores depend on it by rounding only."""

    workers: int = field(default_factory=_cores)
    """Processes that read and decode."""

    seed: int = 0
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        _at_least(1, batch=self.batch)
        _at_least(0, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig:
    """Mix the weights of two models and measure the mixtures (hnc_ds/evaluation/interpolate.py)."""

    start: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="START")]]
    """The model of weight 0: a run (its newest checkpoint), a checkpoint folder, an open_clip model
    with its tag or file of weights (ViT-B-32:openai), hf-hub:... or local-dir:...; or the word
    start, for what the run FINAL began with."""

    final: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="FINAL")]]
    """The model of weight 1, named in the same ways: usually a run."""

    sweep: str = "0:1:0.1"
    """Mixing weights to measure: FIRST:LAST:STEP with both ends, or a list such as 0,0.25,0.5."""

    benchmarks: tuple[str, ...] = ()
    """What to measure: hnc-shards (hard negatives), retrieval; all when none is named."""

    shards: str | None = None
    """Held-out shards of 'hnc-ds pack'; needed to measure."""

    out: Path | None = None
    """Folder for the results, alpha-0.3.json for the weight 0.3; needed to measure. Points that are
    there already are not measured again."""

    metric: str | None = None
    """BENCHMARK/METRIC/GROUP of the score by which the best weight is named, such as
    retrieval/text_to_image_R@1/all; the accuracy over all pairs when not given."""

    save: str | None = None
    """A mixing weight to keep as a checkpoint folder; with --save-to."""

    save_to: Path | None = None
    """Folder for the mixed model, which 'hnc-ds evaluate' and open_clip open."""

    overwrite: bool = False
    """Replace mixed weights that lie in --save-to."""

    name: str | None = None
    """What to call the models in the results, before the @ and the weight; FINAL's name when not
    given."""

    batch: int = 256
    """Images or captions encoded at once. Scores depend on it by rounding only."""

    workers: int = field(default_factory=_cores)
    """Processes that read and decode."""

    seed: int = 0
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        _at_least(1, batch=self.batch)
        _at_least(0, workers=self.workers)
        if (self.shards is None) != (self.out is None):
            raise UserError("interpolate: to measure, give --shards and --out")
        if (self.save is None) != (self.save_to is None):
            raise UserError("interpolate: to keep a mixed model, give --save and --save-to")
        if self.shards is None and self.save is None:
            raise UserError(
                "interpolate: nothing to do; give --shards and --out, or --save and --save-to"
            )


@dataclass(frozen=True, kw_only=True)
class MineConfig:
    """Find the images most similar to each image (hnc_ds/evaluation/mine.py)."""

    run: tyro.conf.Positional[Path | None] = None
    """A run folder (its newest checkpoint) or one checkpoint folder; or give --model."""

    shards: str
    """Shards of 'hnc-ds pack', a folder or a URL."""

    out: Path
    """NAME.safetensors, for the flag --similar of a training."""

    model: str | None = None
    """An open_clip model name or hf-hub:/local-dir: reference, in place of a run."""

    pretrained: str | None = None
    """An open_clip tag or a local file of weights for --model."""

    k: int = 8
    """Similar images kept for each image. NegCLIP draws one of the 3 nearest; with more in the file
    a training can choose (--nearest)."""

    batch: int = 256
    """Images encoded at once. Similarities depend on it by rounding only."""

    workers: int = field(default_factory=_cores)
    """Processes that read and decode."""

    def __post_init__(self) -> None:
        _at_least(1, k=self.k, batch=self.batch)
        _at_least(0, workers=self.workers)
        if (self.run is None) == (self.model is None):
            raise UserError("mine: give either a run or --model, so that images can be compared")
        if self.pretrained and self.run:
            raise UserError("mine: --pretrained belongs to --model; a run has weights of its own")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Compare runs in one self-contained HTML page."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders; the first is what the others are compared with."""

    out: Path = Path("report.html")
    """The page."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole job on rendered scenes: the same training with and without hard negatives."""

    out: Path = Path("runs/demo")
    """Folder for the runs and the report."""

    scenes: Path = Path("data/demo")
    """Folder for the scenes, captions and shards."""

    train: int = 8000
    """Training scenes."""

    val: int = 500
    """Held-out scenes."""

    steps: int = 1300
    """Of each of the two trainings."""

    alpha: float = 3.0
    """Weight of the hard negatives in the second training; the first has 0."""

    ranks: int = 2
    """Processes that train."""

    seed: int = 0
    """Of scenes, captions, start weights and order."""
