"""A cross-encoder with and without hard negatives, on rendered scenes: experiments/ITM.md.

    python experiments/itm.py     a quarter of an hour on two idle cores; resumes where it stopped

A small BLIP trains twice from the same random weights, on the same images in the same order with as
many captions an image, by ITM and ITC: what does not match are captions of other images alone, half
of them similar ones, or hard negatives beside them. Both are scored on held-out scenes, by pairs
that hold the same words.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from experiments.preset_tables import markdown
from experiments.presets import hnc_ds, in_turns, main
from hnc_ds.atomic_files import atomic_write
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.demo import TWO_TYPES, caption_and_pack
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.results import Measurement, read_measurement
from speed.machine import facts

PLAIN, HARD = "other images' captions", "hard negatives"

SCENES = "--objects 2 2 --size 64 --shapes 3 --colours 4 --patterned 0 --duplicate_shapes 0"
"""Two plain shapes an image, of twelve kinds."""

OBJECTIVES = {
    PLAIN: "--alpha 0 --hard_negatives 0 --unrelated_negatives 2 --mined_negatives 1",
    HARD: f"--alpha 3 --hard_negatives 2 --unrelated_negatives 1 --negative_types {TWO_TYPES}",
}
"""Flags of 'hnc-ds train': four captions an image in both."""

TERMS = "--terms itm 1 contrastive 1 --tau 0.05 --crop 1"

LONGEST = 32
"""Tokens of a caption."""

SIDE, PATCH = 32, 8
"""Pixels of an image and of a patch."""

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")

PAIRS = "hnc-shards"
ROWS = {
    "swaps": ("pair_accuracy", "swap"),
    "opposite relations": ("pair_accuracy", "relation_attr_pred"),
    "all pairs": ("pair_accuracy", "all"),
    "all pairs, blind": ("blind_accuracy", "all"),
    "captions one by one": ("match_accuracy", "all"),
}

HEAD = """# A cross-encoder with and without hard negatives

Written by `python experiments/itm.py`: a BLIP of {size:.1f} M parameters trains twice from the same
random weights; {steps} steps of {batch} images, learning rate {lr}, {train} rendered scenes of two
shapes; scored on {val} held-out ones. Percent with 95 % intervals; the difference is paired by
image. *Blind* are the same pairs with other images. Captions one by one are right at
P(match) = 1/2. Made with {machine}.

    both                      --preset hnc-itm {terms}
    {plain:<24}  {plain_flags}
    {hard:<24}  {hard_flags}

"""


@dataclass(frozen=True)
class Settings:
    """Compare image-text matching with and without hard negatives."""

    out: Path = Path("runs/itm")
    """Folder of everything that is made."""

    steps: int = 2000
    """Steps of both trainings."""

    batch: int = 128
    """Images of a step."""

    lr: float = 2e-3
    """Largest learning rate."""

    train: int = 8000
    """Training scenes."""

    val: int = 500
    """Held-out scenes."""

    width: int = 64
    """Width of both towers."""

    layers: int = 3
    """Layers of the image tower; the text tower has one less."""

    at_once: int = 2
    """Number of trainings that run in parallel."""

    seed: int = 0
    """Seed of scenes, weights and order."""

    page: Path | None = None
    """Output page. Default: ITM.md in --out."""

    def run(self, name: str) -> Path:
        """Folder of a training."""
        folders = {PLAIN: "plain", HARD: "hard-negatives"}
        return self.out / folders[name]

    def results(self, name: str) -> Path:
        """Results file of a training."""
        return self.run(name) / "results" / "val.json"


def run(settings: Settings) -> None:
    """Make what is missing, and write the page."""
    scenes = settings.out / "scenes"
    sizes = f"--train {settings.train} --val {settings.val} --seed {settings.seed}"
    hnc_ds(f"scenes --out {scenes} {sizes} {SCENES} --overlaps 0")
    for split in ("train", "val"):
        caption_and_pack(scenes, split, settings.seed)
    random = settings.out / "random"
    if not (random / "model.safetensors").is_file():
        make_blip(settings, random, scenes / "train.captions.jsonl.gz")
    deepspeed = settings.out / "deepspeed.json"
    atomic_write(deepspeed, json.dumps(deepspeed_settings(settings), indent=1).encode())
    in_turns(settings.at_once, partial(compare, settings), [(name,) for name in OBJECTIVES])
    out = settings.page or settings.out / "ITM.md"
    atomic_write(out, page(settings).encode())
    print(f"wrote {out}")


def train(settings: Settings, name: str) -> None:
    """Train an objective, unless that is done."""
    run = settings.run(name)
    hnc_ds(
        f"train --deepspeed_config {settings.out / 'deepspeed.json'} --preset hnc-itm "
        f"--model hf:{settings.out / 'random'} --run {run} "
        f"--shards {settings.out / 'scenes' / 'shards' / 'train'} --seed {settings.seed} "
        f"--steps {settings.steps} --log_every 50 {TERMS} {OBJECTIVES[name]} --resume",
        run.with_suffix(".log"),
        settings.at_once,
    )
    print(f"{name}: trained, see {run.with_suffix('.log')}", flush=True)


def compare(settings: Settings, name: str) -> None:
    """Train and score an objective, unless that is done."""
    train(settings, name)
    if not (out := settings.results(name)).is_file():
        shards, run = settings.out / "scenes" / "shards" / "val", settings.run(name)
        log = run.with_suffix(".log")
        hnc_ds(f"evaluate {run} --shards {shards} --out {out}", log, settings.at_once)


def deepspeed_settings(settings: Settings) -> dict[str, Any]:
    """DeepSpeed's JSON."""
    adam = {"lr": settings.lr, "betas": [0.9, 0.98], "weight_decay": 0.1}
    adam |= {"torch_adam": True, "fused": True}
    return {
        "train_batch_size": settings.batch,
        "optimizer": {"type": "AdamW", "params": adam},
        "scheduler": {
            "type": "WarmupCosineLR",
            "params": {"total_num_steps": "auto", "warmup_num_steps": 50, "warmup_type": "linear"},
        },
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 1},
    }


def make_blip(settings: Settings, folder: Path, captions: Path) -> None:
    """Write a small BLIP with random weights, a tokenizer of the captions' words, and its
    preprocessing."""
    groups = (group for image in read_captions(captions) for group in image.groups)
    texts = (t for group in groups for t in (group.positive, *(n.caption for n in group.negatives)))
    words = sorted({word for text in texts for word in text.lower().replace(".", " ").split()})
    tokenizer = word_tokenizer([*words, "."], longest=LONGEST)
    layers = {
        "hidden_size": settings.width,
        "intermediate_size": 4 * settings.width,
        "num_attention_heads": settings.width // 32,
        # By default 0.02, for layers twelve times as wide, and next to nothing in the image tower.
        "initializer_range": settings.width**-0.5,
    }
    torch.manual_seed(settings.seed)
    config = transformers.BlipConfig(
        vision_config={
            **layers,
            "num_hidden_layers": settings.layers,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={
            **layers,
            "num_hidden_layers": max(1, settings.layers - 1),
            "encoder_hidden_size": settings.width,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": LONGEST,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.cls_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "sep_token_id": tokenizer.sep_token_id,
        },
        image_text_hidden_size=settings.width,
    )
    preprocessing = transformers.BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    preprocessing.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.BlipForImageTextRetrieval(config).save_pretrained(folder)


def word_tokenizer(words: Sequence[str], longest: int, special: Sequence[str] = SPECIAL) -> Any:
    """A tokenizer of whole words, with start and end tokens.

    Args:
        words: In lower case.
        longest: Tokens of the longest caption.
        special: Names of SPECIAL, in the order of their numbers.
    """
    numbers = {word: number for number, word in enumerate([*special, *words])}
    made = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, numbers[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=longest,
    )


def page(settings: Settings) -> str:
    """What was trained and what came out."""
    plain, hard = (read_measurement(settings.results(name)) for name in OBJECTIVES)
    shared = shared_items(plain, hard)
    rows = []
    for title, (metric, group) in ROWS.items():
        key = (PAIRS, metric, group)
        found = change_of(shared, key)
        assert found is not None
        by = found.difference
        change = f"{100 * by.value:+.1f} ({100 * by.low:+.1f} to {100 * by.high:+.1f})"
        rows.append((title, [cell(plain, key), cell(hard, key), change]))
    machine = facts()
    size = sum(
        parameter.numel()
        for parameter in transformers.BlipForImageTextRetrieval.from_pretrained(
            settings.out / "random"
        ).parameters()
    )
    head = HEAD.format(
        size=size / 1e6,
        terms=TERMS,
        plain=PLAIN,
        plain_flags=OBJECTIVES[PLAIN],
        hard=HARD,
        hard_flags=OBJECTIVES[HARD],
        steps=settings.steps,
        batch=settings.batch,
        lr=settings.lr,
        train=settings.train,
        val=settings.val,
        machine=", ".join(f"{name} {machine[name]}" for name in ("Python", "hnc_ds", "torch")),
    )
    return head + markdown(("percent", *OBJECTIVES, "difference"), rows)


def cell(measured: Measurement, key: tuple[str, str, str]) -> str:
    """A score with its interval."""
    row = measured.rows[key]
    return f"{100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"


if __name__ == "__main__":
    sys.exit(main("itm", Settings, run))
