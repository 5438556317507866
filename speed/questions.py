"""Answer a benchmark's questions: every image and caption once, beside SugarCrepe's own loop,
which encodes an image and two captions for each question.

As in SugarCrepe there are five questions to an image, and some captions come again.
"""

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from PIL import Image

from hnc_ds.config import ModelConfig
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.inputs import read_questions
from hnc_ds.evaluation.released.images import ImageFiles
from hnc_ds.evaluation.released.measure import encode_questions, scores_of
from hnc_ds.evaluation.released.rules import true_beats_false
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from speed.graphs import caption_sets
from speed.inputs import photograph
from speed.timing import Check, Comparison, alternate

MODEL, IMAGES, ROUNDS = "ViT-B-32", 32, 3
QUICK_MODEL, QUICK_IMAGES, QUICK_ROUNDS = "tiny", 3, 1
QUESTIONS_OF_IMAGE = 5
OURS, THEIRS = "hnc_ds", "SugarCrepe's own loop"

Right = list[bool]


def measure(folder: Path, quick: bool) -> Comparison:
    """Questions/s."""
    torch.set_num_threads(1)
    model, images = (QUICK_MODEL, QUICK_IMAGES) if quick else (MODEL, IMAGES)
    made(folder, images)
    clip = load_model(ModelConfig(model=model), 0).eval()
    variants: dict[str, Callable[[], Right]] = {
        OURS: lambda: ours(clip, folder),
        THEIRS: lambda: theirs(clip, folder),
    }
    found = {name: variant() for name, variant in variants.items()}
    questions = images * QUESTIONS_OF_IMAGE
    apart = sum(a != b for a, b in zip(found[OURS], found[THEIRS], strict=True))
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate(variants, QUICK_ROUNDS if quick else ROUNDS),
        checks=(Check("answers that differ", apart, 0),),
        notes=(
            f"{model}, fp32, one thread; {questions} questions on {images} photographs of "
            f"500x375 pixels, {_distinct(folder)} distinct captions. SugarCrepe's loop opens and "
            "encodes an image for every question, and captions one by one with 77 tokens.",
        ),
        items="questions",
        count=questions,
    )


def _distinct(folder: Path) -> int:
    rows = json.loads((folder / "swap_obj.json").read_text()).values()
    return len({row[name] for row in rows for name in ("caption", "negative_caption")})


def made(folder: Path, images: int) -> None:
    """A file of SugarCrepe's layout, and its images."""
    rows = {}
    for number, groups in enumerate(caption_sets(folder, images, 48)):
        (folder / f"{number}.jpg").write_bytes(photograph(number))
        pairs = [(g.positive, n.caption) for g in groups for n in g.negatives]
        for place in range(QUESTIONS_OF_IMAGE):
            true, false = pairs[place % len(pairs)]
            rows[f"{number}-{place}"] = {
                "filename": f"{number}.jpg",
                "caption": true,
                "negative_caption": false,
            }
    (folder / "swap_obj.json").write_text(json.dumps(rows))


def ours(clip: Clip, folder: Path) -> Right:
    """As ``hnc-ds evaluate`` answers."""
    encoded = encode_questions(
        Encoder(clip, torch.device("cpu"), batch=64, workers=0),
        read_questions("sugarcrepe", folder, allow_missing=True),
        ImageFiles({"coco2017": (folder,)}),
        benchmark="sugarcrepe",
        allow_missing=False,
    )
    outcomes = map(true_beats_false, encoded.questions, scores_of(encoded))
    return [outcome.right["accuracy"] for outcome in outcomes]


@torch.no_grad()
def theirs(clip: Clip, folder: Path) -> Right:
    """As main_eval.py of SugarCrepe answers."""
    view = open_clip.image_transform(clip.image_settings.size, is_train=False)
    length, tokenize = clip.tokenize.context_length, clip.tokenize._tokenize
    right = []
    for row in json.loads((folder / "swap_obj.json").read_text()).values():
        image = Image.open(folder / row["filename"])
        image_1D = clip.towers.encode_image(view(image)[None], normalize=True)
        true_1D, false_1D = (
            clip.towers.encode_text(tokenize([row[name]], length), normalize=True)
            for name in ("caption", "negative_caption")
        )
        scores = [float(text_1D @ image_1D.T) for text_1D in (true_1D, false_1D)]
        right.append(scores[0] > scores[1])
    return right
