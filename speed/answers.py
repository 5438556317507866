"""Answer questions with a tiny LLaVA: 16 at once with one prefix an image, and transformers'
generate: one by one as LLaVA's own loader does, and 16 at once.

As in VQA v2.0 there are five questions to an image.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hnc_ds.config import ModelConfig
from hnc_ds.llava.batches import batches, pack, slots_of
from hnc_ds.llava.generate import Generator
from hnc_ds.llava.model import Llava, load_llava
from hnc_ds.llava.questions import VqaQuestion, short_question
from hnc_ds.llava.tiny_model import make_llava, make_tokenizer, save_llava
from hnc_ds.model.load import load_model
from speed.graphs import caption_sets
from speed.inputs import photograph
from speed.timing import Check, Comparison, alternate

IMAGES, QUICK_IMAGES = 32, 2
ROUNDS, QUICK_ROUNDS = 5, 1
QUESTIONS_OF_IMAGE, AT_ONCE = 5, 16
LONGEST = 4
"""Tokens of an answer: short ones, as VQA v2.0 asks for."""

BATCHED, ONE_BY_ONE = "hnc_ds, 16 at once", "hnc_ds, one at a time"
THEIRS, THEIRS_BATCHED = "generate, one by one", "generate, 16 at once"

Answers = dict[str, list[int]]


def measure(folder: Path, quick: bool) -> Comparison:
    """Questions/s."""
    torch.set_num_threads(1)
    images = QUICK_IMAGES if quick else IMAGES
    asked = made(folder, images)
    clip = load_model(ModelConfig(), seed=0)
    tokenizer = make_tokenizer([question.text for question in asked])
    config = clip.config["model_cfg"]
    model = make_llava(config, tokenizer, width=128, layers=4, heads=4, seed=0)
    save_llava(folder / "llava", model, tokenizer, clip.image_settings)
    llava = load_llava(folder / "llava", torch.float32, torch.device("cpu"))
    seen = {q.image: llava.view(folder / q.image) for q in asked}
    variants: dict[str, Callable[[], Answers]] = {
        BATCHED: lambda: ours(llava, asked, seen, AT_ONCE),
        ONE_BY_ONE: lambda: ours(llava, asked, seen, 1),
        THEIRS: lambda: theirs(llava, asked, seen, 1),
        THEIRS_BATCHED: lambda: theirs(llava, asked, seen, AT_ONCE),
    }
    found = {name: variant() for name, variant in variants.items()}
    apart = sum(found[variant][q.unit] != found[THEIRS][q.unit] for variant in found for q in asked)
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate(variants, QUICK_ROUNDS if quick else ROUNDS),
        checks=(Check("answers that differ", apart, 0),),
        notes=(
            f"Four layers of width 128 behind the tower of `tiny`, random weights, fp32, one "
            f"thread; {len(asked)} questions on {images} images, answers of {LONGEST} tokens. "
            "Images are decoded before.",
        ),
        items="questions",
        count=len(asked),
    )


def made(folder: Path, images: int) -> list[VqaQuestion]:
    """Images, and captions as the questions about them."""
    asked = []
    for number, groups in enumerate(caption_sets(folder, images, 48)):
        (folder / f"{number}.jpg").write_bytes(photograph(number))
        texts = [group.positive for group in groups]
        for place in range(QUESTIONS_OF_IMAGE):
            text = short_question(texts[place % len(texts)])
            unit = f"{number}-{place}"
            asked.append(VqaQuestion(unit, unit, f"{number}.jpg", text))
    return asked


def ours(
    llava: Llava, asked: list[VqaQuestion], seen: dict[str, torch.Tensor], at_once: int
) -> Answers:
    """As ``hnc-ds answer`` answers."""
    found: Answers = {}
    before, _ = llava.split_prompt(asked[0].text)
    generator = Generator(llava, before, LONGEST)
    for batch in batches(asked, at_once):
        names = list(dict.fromkeys(question.image for question in batch))
        image_of = [names.index(question.image) for question in batch]
        ids = [llava.split_prompt(question.text)[1] for question in batch]
        grid = generator.answer(pack(torch.stack([seen[name] for name in names]), image_of, ids))
        for question, (row, slot) in zip(batch, slots_of(image_of), strict=True):
            found[question.unit] = grid[row][slot].ids
    return found


@torch.inference_mode()
def theirs(
    llava: Llava, asked: list[VqaQuestion], seen: dict[str, torch.Tensor], at_once: int
) -> Answers:
    """As model_vqa_loader.py of LLaVA answers: every question with its image; several at once are
    padded on their left."""
    found: Answers = {}
    model: Any = llava.model
    image = [model.config.image_token_id] * model.config.image_seq_length
    for start in range(0, len(asked), at_once):
        batch = asked[start : start + at_once]
        split = [llava.split_prompt(question.text) for question in batch]
        rows = [[*before, *image, *after] for before, after in split]
        width = max(map(len, rows))
        pad = llava.tokenizer.pad_token_id
        made = model.generate(
            input_ids=torch.tensor([[pad] * (width - len(row)) + row for row in rows]),
            attention_mask=torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
            pixel_values=torch.stack([seen[question.image] for question in batch]),
            max_new_tokens=LONGEST,
            do_sample=False,
        )
        for question, answer in zip(batch, made[:, width:].tolist(), strict=True):
            stops = [n for n, token in enumerate(answer) if token in llava.stop_ids]
            found[question.unit] = answer[: min(stops, default=len(answer))]
    return found
