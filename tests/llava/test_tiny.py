"""Generated questions are true of their scenes, and a tiny LLaVA learns what it is trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hnc_ds.config import ModelConfig, ScenesConfig
from hnc_ds.llava.batches import pack, slots_of
from hnc_ds.llava.generate import Generator
from hnc_ds.llava.model import load_llava
from hnc_ds.llava.questions import VqaQuestion, read_vqa_questions, short_question
from hnc_ds.llava.scorers import read_annotations
from hnc_ds.llava.tiny import WORDS, write_questions
from hnc_ds.llava.tiny_model import (
    TrainingExample,
    TrainSettings,
    fine_tune,
    make_llava,
    make_tokenizer,
    save_llava,
)
from hnc_ds.model.load import load_model
from hnc_ds.scenes.write import write_scenes

SCENES = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    look = {
        "patterned": 0.0,
        "duplicate_shapes": 0.0,
        "overlaps": 0.0,
        "objects": (2, 3),
        "size": 64,
    }
    write_scenes(ScenesConfig(out=folder / "scenes", train=0, val=SCENES, workers=1, **look))
    write_questions(folder / "scenes", "val", folder / "questions", per_image=4, seed=0)
    return folder


def test_the_right_answers_are_those_of_the_scene_graphs(made: Path) -> None:
    graphs = list(json.loads((made / "scenes" / "val_sceneGraphs.json").read_text()).values())
    files = [made / "questions" / f"vqa.val.{kind}.json" for kind in ("questions", "annotations")]
    questions, annotations = (
        json.loads(path.read_text())[path.stem.split(".")[2]] for path in files
    )
    kinds = set()
    for question, annotation in zip(questions, annotations, strict=True):
        things = graphs[question["image_id"]]["objects"]
        named = {thing["name"]: thing for thing in things.values()}
        words, right = question["question"].rstrip("?"), annotation["multiple_choice_answer"]
        kinds.add(annotation["question_type"])
        if words.startswith("What color is the "):
            assert right in named[words.split()[-1]]["attributes"]
        elif words.startswith("How many "):
            colour = words.split()[2]
            assert right == str(sum(colour in thing["attributes"] for thing in things.values()))
        elif words.startswith("Is the "):
            first, relation, second = _ends(words.removeprefix("Is the "), named)
            assert right == ("yes" if holds(named[first], relation, things, second) else "no")
        else:
            relation, _, second = words.removeprefix("What is ").rpartition(" the ")
            assert holds(named[right], relation, things, second)
    assert kinds == {"what color is the", "how many", "is the", "what is"}


def _ends(words: str, named: dict[str, Any]) -> tuple[str, str, str]:
    first = next(name for name in named if words.startswith(f"{name} "))
    relation, _, second = words.removeprefix(f"{first} ").rpartition(" the ")
    return first, relation, second


def holds(thing: dict[str, Any], relation: str, things: dict[str, Any], second: str) -> bool:
    return any(
        edge["name"] == relation and things[edge["object"]]["name"] == second
        for edge in thing["relations"]
    )


def test_the_files_are_those_of_the_data_sets(made: Path) -> None:
    folder = made / "questions"
    asked = read_vqa_questions("vqav2", folder / "vqa.val.questions.json").asked
    people = read_annotations(
        "vqav2", folder / "vqa.val.annotations.json", folder / "vqa.val.questions.json"
    )
    assert [q.question_id for q in asked] == [one.question_id for one in people]
    assert {len(one.answers) for one in people} == {10}
    assert all((folder / "images" / q.image).is_file() for q in asked)
    with_words = read_vqa_questions(
        "textvqa", folder / "text.val.json", folder / "text.val.ocr.json"
    )
    texts = read_annotations("textvqa", folder / "text.val.json", None)
    assert len(with_words.asked) == len(texts) == SCENES
    for question, one in zip(with_words.asked, texts, strict=True):
        word = max(one.answers, key=one.answers.count)
        assert word in WORDS
        assert f"Reference OCR token: {word.upper()}\n" in question.text


def test_drawn_words_change_the_image_and_nothing_depends_on_the_call(
    made: Path, tmp_path: Path
) -> None:
    write_questions(made / "scenes", "val", tmp_path, per_image=4, seed=0)
    for path in sorted((made / "questions").rglob("*")):
        if path.is_file():
            other = tmp_path / path.relative_to(made / "questions")
            assert other.read_bytes() == path.read_bytes(), path.name
    with (
        Image.open(made / "scenes" / "images" / "v000000.jpg") as plain,
        Image.open(made / "questions" / "text_images" / "v000000.jpg") as written,
    ):
        assert plain.size == written.size
        assert plain.tobytes() != written.tobytes()


@pytest.mark.slow
def test_what_is_trained_is_answered(tmp_path: Path) -> None:
    """So questions and answers stand where generation has them."""
    examples = []
    for number, (colour, answer) in enumerate((("red", "ruby"), ("blue", "sky"), ("lime", "leaf"))):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{number}.png")
        for place, (text, end) in enumerate((("What is it?", ""), ("And what else?", " too"))):
            unit = f"{number}-{place}"
            question = VqaQuestion(unit, unit, f"{number}.png", short_question(text))
            examples.append(TrainingExample(question, tmp_path, f"{answer}{end}"))
    clip = load_model(ModelConfig(), seed=0)
    words = make_tokenizer([f"{one.question.text} {one.answer}" for one in examples])
    shape = {"width": 48, "layers": 2, "heads": 2, "seed": 0}
    model = make_llava(clip.config["model_cfg"], words, **shape)
    save_llava(tmp_path / "llava", model, words, clip.image_settings)
    llava = load_llava(tmp_path / "llava", torch.float32, torch.device("cpu"))
    tower = {n: t.clone() for n, t in llava.model.model.vision_tower.state_dict().items()}
    losses = fine_tune(llava, examples, TrainSettings(steps=120, batch=12, rate=3e-3, seed=0))
    assert sum(losses[-5:]) / 5 < 0.2 < losses[0]
    for name, tensor in llava.model.model.vision_tower.state_dict().items():
        assert torch.equal(tensor, tower[name])
    names = sorted({one.question.image for one in examples})
    split = [llava.split_prompt(one.question.text) for one in examples]
    pixels = torch.stack([llava.view(tmp_path / name) for name in names])
    image_of = [names.index(one.question.image) for one in examples]
    packed = pack(pixels, image_of, [after for _, after in split])
    found = Generator(llava, split[0][0], 8).answer(packed)
    answers = [llava.decode(found[row][slot].ids) for row, slot in slots_of(image_of)]
    assert answers == [one.answer for one in examples]
