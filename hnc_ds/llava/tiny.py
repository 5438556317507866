"""The LLaVA experiment on rendered scenes with tiny models: does another tower answer better?

    hnc-ds demo-llava

Trains a tiny CLIP, and fine-tunes it with hard negatives. Trains a tiny LLaVA on the first one's
tower; then replaces the tower with the second one's and keeps connector and language model. Both
answer questions about held-out scenes and words drawn on them. Finished stages are not repeated.

The questions have ten answers in the layouts of VQA v2.0 and TextVQA, a few of them wrong, as
annotators' are. They are deterministic in the scene graphs and the seed:

    OUT/vqa.SPLIT.questions.json, OUT/vqa.SPLIT.annotations.json     images in OUT/images
    OUT/text.SPLIT.json, OUT/text.SPLIT.ocr.json                     images in OUT/text_images

TextVQA's images are the scenes with a word drawn on them.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from PIL import Image, ImageDraw, ImageFont

from hnc_ds.atomic_files import atomic_folder, atomic_write
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.checkpoint import load_trained, newest_checkpoint
from hnc_ds.config import DemoLlavaConfig
from hnc_ds.demo import NEGATIVES, SCENES, caption_and_pack, hnc_ds, train_unless_done
from hnc_ds.errors import counted
from hnc_ds.llava.model import load_llava
from hnc_ds.llava.questions import read_vqa_questions
from hnc_ds.llava.tiny_model import (
    TrainingExample,
    TrainSettings,
    fine_tune,
    make_llava,
    make_tokenizer,
    save_llava,
)
from hnc_ds.records import SceneGraph, SceneObject
from hnc_ds.scenes.layout import COLOURS

WORDS = tuple(
    "bank book cafe door east exit fast food free gold hall home king left lion lost main milk "
    "moon news next note open park pink play rain read road room salt shop slow snow soap song "
    "star stop taxi time town tree west wind wine wood work yard zero zone".split()
)
"""Words to draw on images; at most four letters fit."""

CERTAIN = 0.9
"""Probability that an annotator gives the right answer."""

ANNOTATORS = 10


class Asked(NamedTuple):
    """A question about a scene, its right answer and plausible wrong ones."""

    question: str
    answer: str
    others: tuple[str, ...]
    question_type: str
    answer_type: str


def write_questions(scenes: Path, split: str, out: Path, *, per_image: int, seed: int) -> None:
    """Write all files of a split.

    Args:
        scenes: Output folder of 'hnc-ds scenes'.
        split: train or val.
        out: Output folder.
        per_image: Maximum number of VQA questions about an image.
        seed: Same seed, same bytes.

    Raises:
        UserError: The scenes do not exist.
    """
    graphs = {g.image_id: g for g in read_scene_graphs(scenes / f"{split}_sceneGraphs.json")}
    images = {folder: out / folder for folder in ("images", "text_images")}
    for folder in images.values():
        folder.mkdir(parents=True, exist_ok=True)
    vqa, text = _Vqa(), _Text()
    for number, graph in enumerate(graphs.values()):
        draw = random.Random(f"{seed}/{graph.image_id}")
        source = scenes / "images" / f"{graph.image_id}.jpg"
        name = f"COCO_{split}2014_{number:012d}.jpg"
        shutil.copyfile(source, images["images"] / name)
        for asked in _spread(list(_questions(graph)), per_image, draw):
            vqa.add(number, asked, draw)
        word = draw.choice(WORDS)
        _draw_word(source, word, draw).save(images["text_images"] / f"{graph.image_id}.jpg")
        text.add(graph.image_id, word, draw)
    for name, content in {**vqa.files(split), **text.files(split)}.items():
        atomic_write(out / name, msgspec.json.encode(content))


def _questions(graph: SceneGraph) -> Iterator[Asked]:
    names = Counter(thing.name for thing in graph.objects.values())
    single = {id: thing for id, thing in graph.objects.items() if names[thing.name] == 1}
    colours = sorted({a for thing in graph.objects.values() for a in thing.attributes})
    things = sorted(names)
    for thing in single.values():
        for colour in thing.attributes[:1]:
            others = tuple(c for c in (*colours, "red", "blue", "green") if c != colour)
            question = f"What color is the {thing.name}?"
            yield Asked(question, colour, others, "what color is the", "other")
    for id, thing in single.items():
        for relation in thing.relations:
            other = single.get(relation.object)
            if other is not None and id < relation.object:
                yield from _about_relation(thing, relation.name, other, things)
    for colour in (*colours, next(c for c in COLOURS if c not in colours)):
        count = sum(colour in thing.attributes for thing in graph.objects.values())
        others = tuple(str(number) for number in range(4) if number != count)
        question = f"How many {colour} things are there?"
        yield Asked(question, str(count), others, "how many", "number")


def _about_relation(
    thing: SceneObject, relation: str, other: SceneObject, things: list[str]
) -> Iterator[Asked]:
    """Questions about a relation; yes/no in both directions, one of which is false."""
    for first, second, answer in ((thing, other, "yes"), (other, thing, "no")):
        question = f"Is the {first.name} {relation} the {second.name}?"
        wrong = "no" if answer == "yes" else "yes"
        yield Asked(question, answer, (wrong,), "is the", "yes/no")
    others = tuple(name for name in (*things, "circle", "square") if name != thing.name)
    yield Asked(f"What is {relation} the {other.name}?", thing.name, others, "what is", "other")


def _spread(found: list[Asked], most: int, draw: random.Random) -> list[Asked]:
    """At most ``most`` questions, types in turn."""
    draw.shuffle(found)
    seen: Counter[str] = Counter()
    turns = []
    for asked in found:
        turns.append((seen[asked.question_type], asked))
        seen[asked.question_type] += 1
    return [asked for _, asked in sorted(turns, key=lambda turn: turn[0])][:most]


def _ten_answers(asked: Asked, draw: random.Random) -> list[str]:
    return [
        asked.answer if draw.random() < CERTAIN else draw.choice(asked.others)
        for _ in range(ANNOTATORS)
    ]


class _Vqa:
    """VQA v2.0's two files."""

    def __init__(self) -> None:
        self._questions: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, image: int, asked: Asked, draw: random.Random) -> None:
        number = len(self._questions)
        shared = {"question_id": number, "image_id": image}
        self._questions.append({**shared, "question": asked.question})
        answers = [
            {"answer": answer, "answer_confidence": "yes", "answer_id": place}
            for place, answer in enumerate(_ten_answers(asked, draw), start=1)
        ]
        self._annotations.append(
            {
                **shared,
                "question_type": asked.question_type,
                "answer_type": asked.answer_type,
                "multiple_choice_answer": asked.answer,
                "answers": answers,
            }
        )

    def files(self, split: str) -> dict[str, Any]:
        head = {"data_type": "rendered scenes", "data_subtype": f"{split}2014"}
        return {
            f"vqa.{split}.questions.json": {**head, "questions": self._questions},
            f"vqa.{split}.annotations.json": {**head, "annotations": self._annotations},
        }


class _Text:
    """TextVQA's file of questions, and its file of OCR tokens."""

    def __init__(self) -> None:
        self._data: list[dict[str, Any]] = []
        self._read: list[dict[str, Any]] = []

    def add(self, image_id: str, word: str, draw: random.Random) -> None:
        others = tuple(other for other in WORDS if other != word)
        asked = Asked("What word is written?", word, others, "", "")
        self._data.append(
            {
                "question_id": len(self._data),
                "image_id": image_id,
                "question": asked.question,
                "answers": _ten_answers(asked, draw),
            }
        )
        self._read.append({"image_id": image_id, "ocr_tokens": [word.upper()]})

    def files(self, split: str) -> dict[str, Any]:
        return {
            f"text.{split}.json": {"dataset_name": "textvqa", "data": self._data},
            f"text.{split}.ocr.json": {"data": self._read},
        }


def _draw_word(source: Path, word: str, draw: random.Random) -> Image.Image:
    with Image.open(source) as image:
        image = image.convert("RGB")
    size = image.height // 3
    font: Any = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(word.upper())
    x = draw.uniform(0, max(0, image.width - (right - left))) - left
    y = draw.uniform(0, image.height - (bottom - top)) - top
    ImageDraw.Draw(image).text((x, y), word.upper(), (20, 20, 20), font)
    return image


PLAIN, TRAINED = "plain-clip", "hard-negatives"
LLAVA_PLAIN = "llava-plain-clip"
"""The folder whose connector and language model both towers use."""

SETS = {
    "vqav2": ("vqav2", "vqa.val.questions.json", "images", "", "vqa.val.annotations.json"),
    "textvqa": ("textvqa", "text.val.json", "text_images", "", "text.val.json"),
    "textvqa-ocr": (
        "textvqa",
        "text.val.json",
        "text_images",
        "--ocr {data}/text.val.ocr.json",
        "text.val.json",
    ),
}
"""Data set, questions, images, flags, annotations of each evaluation."""


def demo_llava(config: DemoLlavaConfig) -> None:
    """Run every stage and print the results.

    Raises:
        UserError: A stage failed; its own message is printed above.
    """
    data = config.scenes / "questions"
    _prepare(config, data)
    plain, trained = config.out / PLAIN, config.out / TRAINED
    _train(config, plain, config.steps, "--alpha 0")
    start = f"--model local-dir:{newest_checkpoint(plain).resolve()} --alpha {config.alpha:g}"
    _train(config, trained, config.more_steps, start)
    llava, swapped = config.out / LLAVA_PLAIN, config.out / f"llava-{TRAINED}"
    if not llava.is_dir():
        _train_llava(config, data, plain, llava)
    if not swapped.is_dir():
        hnc_ds(f"export {trained} --into {llava} --out {swapped}")
    for folder in (llava, swapped):
        for name in SETS:
            measure(config, data, folder, name)
    for name in SETS:
        hnc_ds(f"compare {results_of(config, llava, name)} {results_of(config, swapped, name)}")
    page = config.out / "report.html"
    folders = " ".join(str(results_of(config, f, "vqav2").parent) for f in (llava, swapped))
    hnc_ds(f"report {folders} --out {page}")


def _prepare(config: DemoLlavaConfig, data: Path) -> None:
    scenes = config.scenes
    sizes = f"--train {config.train} --val {config.val} --seed {config.seed}"
    hnc_ds(f"scenes --out {scenes} {sizes} {SCENES}")
    caption_and_pack(scenes, "train", config.seed)
    done = data / "complete"
    if not done.is_file():
        print(f"\n# questions about the scenes, and words drawn on them: {data}", flush=True)
        for split in ("train", "val"):
            write_questions(scenes, split, data, per_image=config.questions, seed=config.seed)
        atomic_write(done)


def _train(config: DemoLlavaConfig, folder: Path, steps: int, objective: str) -> None:
    flags = f"--shards {config.scenes / 'shards/train'} --seed {config.seed} {objective}"
    train_unless_done(folder, steps, config.ranks, f"{flags} {NEGATIVES}")


def _train_llava(config: DemoLlavaConfig, data: Path, tower: Path, out: Path) -> None:
    """Make a tiny LLaVA around the tower of a run, and train it on the training questions."""
    print(f"\n# {out}: a tiny LLaVA, {counted(config.llava_steps, 'step')}", flush=True)
    examples = training_examples(data)
    tokenizer = make_tokenizer(f"{one.question.text} {one.answer}" for one in examples)
    clip = load_trained(tower, torch.device("cpu"))
    shape = {"width": config.width, "layers": config.layers, "heads": 4}
    model = make_llava(clip.config["model_cfg"], tokenizer, **shape, seed=config.seed)
    empty, full = out.with_name(f"{out.name}.empty"), out.with_name(f"{out.name}.untrained")
    save_llava(empty, model, tokenizer, clip.image_settings)
    hnc_ds(f"export {tower} --into {empty} --out {full} --overwrite")
    llava = load_llava(full, torch.float32, torch.device("cpu"))
    settings = TrainSettings(config.llava_steps, batch=32, rate=1e-3, seed=config.seed)
    losses = fine_tune(llava, examples, settings)
    print(f"loss {losses[0]:.2f} at first, {sum(losses[-20:]) / 20:.2f} at last", flush=True)
    with atomic_folder(out) as folder:
        save_llava(folder, llava.model, tokenizer, clip.image_settings)


def training_examples(data: Path) -> list[TrainingExample]:
    """All questions of the training scenes: VQA v2.0's kind, and TextVQA's with and without OCR."""
    rows = json.loads((data / "vqa.train.annotations.json").read_bytes())["annotations"]
    answers = {row["question_id"]: row["multiple_choice_answer"] for row in rows}
    asked = read_vqa_questions("vqav2", data / "vqa.train.questions.json").asked
    found = [TrainingExample(q, data / "images", answers[q.question_id]) for q in asked]
    texts = json.loads((data / "text.train.json").read_bytes())["data"]
    given = {row["question_id"]: row["answers"] for row in texts}
    words = {number: max(sorted(set(own)), key=own.count) for number, own in given.items()}
    for ocr in (None, data / "text.train.ocr.json"):
        asked = read_vqa_questions("textvqa", data / "text.train.json", ocr).asked
        found += [TrainingExample(q, data / "text_images", words[q.question_id]) for q in asked]
    return found


def measure(config: DemoLlavaConfig, data: Path, folder: Path, name: str) -> None:
    """Answer one set of questions with a model, and score its answers."""
    dataset, questions, images, flags, annotations = SETS[name]
    answers = config.out / "answers" / folder.name / name
    hnc_ds(
        f"answer {folder} --dataset {dataset} --questions {data / questions} "
        f"--images {data / images} --out {answers} --max_new_tokens 8 {flags.format(data=data)}"
    )
    texts = f"--questions {data / questions} " if dataset == "vqav2" else ""
    hnc_ds(
        f"score --dataset {dataset} {texts}--annotations {data / annotations} "
        f"--answers {answers / 'answers.jsonl'} --images {data / images} "
        f"--out {results_of(config, folder, name)}"
    )


def results_of(config: DemoLlavaConfig, folder: Path, name: str) -> Path:
    """Results file of a model on one of SETS."""
    return config.out / "results" / folder.name / f"{name}.json"
