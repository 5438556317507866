"""Questions with ten answers about rendered scenes, in the layouts of VQA v2.0 and TextVQA.

    OUT/vqa.SPLIT.questions.json, OUT/vqa.SPLIT.annotations.json     and images/ beside the scenes'
    OUT/text.SPLIT.json, OUT/text.SPLIT.ocr.json                     and text_images/

Everything follows from the scene graphs and a seed. Of the ten answers to a question a few differ,
as people's do. TextVQA's pictures are the scenes with a word drawn on them. No torch here.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from PIL import Image, ImageDraw, ImageFont

from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.records import SceneGraph, SceneObject
from hnc_ds.scenes.palette import COLOURS
from hnc_ds.whole_files import write_whole

WORDS = tuple(
    "bank book cafe door east exit fast food free gold hall home king left lion lost main milk "
    "moon news next note open park pink play rain read road room salt shop slow snow soap song "
    "star stop taxi time town tree west wind wine wood work yard zero zone".split()
)
"""That are drawn on pictures; none is longer than four letters."""

CERTAIN = 0.9
"""How likely each of ten people is to give the right answer."""

ANNOTATORS = 10


class Asked(NamedTuple):
    """A question about a scene, with its right answer and others that would fit the question."""

    question: str
    answer: str
    others: tuple[str, ...]
    question_type: str
    answer_type: str


def write_questions(scenes: Path, split: str, out: Path, *, most: int, seed: int) -> None:
    """Write all files of a split.

    Args:
        scenes: Folder of 'hnc-ds scenes'.
        split: train or val.
        out: Where the files go.
        most: Questions of a picture.
        seed: Same seed, same bytes.

    Raises:
        UserError: There are no such scenes.
    """
    graphs = {g.image_id: g for g in read_scene_graphs(scenes / f"{split}_sceneGraphs.json")}
    pictures = {folder: out / folder for folder in ("images", "text_images")}
    for folder in pictures.values():
        folder.mkdir(parents=True, exist_ok=True)
    vqa, text = _Vqa(), _Text()
    for number, graph in enumerate(graphs.values()):
        draw = random.Random(f"{seed}/{graph.image_id}")
        source = scenes / "images" / f"{graph.image_id}.jpg"
        name = f"COCO_{split}2014_{number:012d}.jpg"
        shutil.copyfile(source, pictures["images"] / name)
        for asked in _spread(list(_questions(graph)), most, draw):
            vqa.add(number, asked, draw)
        word = draw.choice(WORDS)
        _draw_word(source, word, draw).save(pictures["text_images"] / f"{graph.image_id}.jpg")
        text.add(graph.image_id, word, draw)
    for name, content in {**vqa.files(split), **text.files(split)}.items():
        write_whole(out / name, msgspec.json.encode(content))


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
    """Which of two is where; asked in both orders, of which one is false."""
    for first, second, answer in ((thing, other, "yes"), (other, thing, "no")):
        question = f"Is the {first.name} {relation} the {second.name}?"
        wrong = "no" if answer == "yes" else "yes"
        yield Asked(question, answer, (wrong,), "is the", "yes/no")
    others = tuple(name for name in (*things, "circle", "square") if name != thing.name)
    yield Asked(f"What is {relation} the {other.name}?", thing.name, others, "what is", "other")


def _spread(found: list[Asked], most: int, draw: random.Random) -> list[Asked]:
    """Some questions, each kind in turn."""
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
    """TextVQA's file, and that of the words that were read."""

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
    with Image.open(source) as picture:
        image = picture.convert("RGB")
    size = image.height // 3
    font: Any = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(word.upper())
    x = draw.uniform(0, max(0, image.width - (right - left))) - left
    y = draw.uniform(0, image.height - (bottom - top)) - top
    ImageDraw.Draw(image).text((x, y), word.upper(), (20, 20, 20), font)
    return image
