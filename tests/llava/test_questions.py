"""Questions of three layouts become prompts, character for character."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.errors import UserError
from hnc_ds.llava.batches import batches
from hnc_ds.llava.questions import VqaQuestion, read_vqa_questions, short_question
from hnc_ds.model.llava_prompt import prompt


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_prompt_is_llavas_to_the_character() -> None:
    words = ("DAKOTA", "DIGITAL", "Single-Use")
    text = short_question("What is the brand of this camera?", words)
    assert text == (
        "What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL, Single-Use\n"
        "Answer the question using a single word or phrase."
    )
    assert prompt("Who?") == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. USER: <image>\nWho? "
        "ASSISTANT:"
    )


@pytest.mark.parametrize(
    ("subtype", "images"),
    [
        ("train2014", "train2014"),
        ("val2014", "val2014"),
        ("test2015", "test2015"),
        ("test-dev2015", "test2015"),
        ("mini-val", "val2014"),
        ("minival2014", "val2014"),
        ("valminusminival2014", "val2014"),
        ("trainval2014", "trainval2014"),  # of two splits: no rule decides
        ("my own", "my own"),
    ],
)
def test_images_of_vqa_are_named_after_the_split_of_coco(
    tmp_path: Path, subtype: str, images: str
) -> None:
    row = {"question_id": 262148000, "image_id": 262148, "question": "Where is he looking?"}
    path = written(tmp_path / "q.json", {"data_subtype": subtype, "questions": [row]})
    (found,) = read_vqa_questions("vqav2", path).asked
    assert found.image == f"COCO_{images}_000000262148.jpg"
    assert found.question_id == 262148000
    assert found.text == (
        "Where is he looking?\nAnswer the question using a single word or phrase."
    )


def test_text_vqa_is_asked_with_and_without_the_words_that_were_read(tmp_path: Path) -> None:
    row = {"question_id": 34602, "image_id": "003a8ae2ef43b901", "question": "what is the brand?"}
    path = written(tmp_path / "q.json", {"data": [row], "dataset_name": "textvqa"})
    read = {"image_id": "003a8ae2ef43b901", "ocr_tokens": ["DAKOTA", "DIGITAL"]}
    ocr = written(tmp_path / "ocr.json", {"data": [read]})
    without, with_words = (read_vqa_questions("textvqa", path, file) for file in (None, ocr))
    assert (without.ocr, with_words.ocr) == ("without", "with")
    assert without.asked[0].image == "003a8ae2ef43b901.jpg"
    assert "OCR" not in without.asked[0].text
    assert with_words.asked[0].text.split("\n")[1] == "Reference OCR token: DAKOTA, DIGITAL"
    written(ocr, {"data": [read | {"image_id": "other"}]})
    with pytest.raises(UserError, match="has no OCR tokens of image 003a8ae2ef43b901"):
        read_vqa_questions("textvqa", path, ocr)
    written(ocr, {"data": [read, read | {"ocr_tokens": ["SONY"]}]})
    with pytest.raises(UserError, match="holds image 003a8ae2ef43b901 twice"):
        read_vqa_questions("textvqa", path, ocr)


def test_llavas_file_is_asked_as_it_is_and_its_image_ids_get_numbers(tmp_path: Path) -> None:
    row = {"question_id": "a1", "image": "a1.jpg", "text": "Who?\nShort.", "category": "default"}
    path = written(tmp_path / "q.jsonl", lines(row, row | {"text": "Where?\nShort."}))
    found = read_vqa_questions("textvqa", path)
    assert [(q.unit, q.question_id, q.text) for q in found.asked] == [
        ("a1#0", "a1", "Who?\nShort."),
        ("a1#1", "a1", "Where?\nShort."),
    ]
    assert found.ocr == "as in the file"
    with pytest.raises(UserError, match="hold their OCR tokens; leave out --ocr"):
        read_vqa_questions("textvqa", path, path)
    with pytest.raises(UserError, match="holds question a1 twice"):  # VQA's ids are unique
        read_vqa_questions("vqav2", path)


QUESTION = {"question_id": 1, "image_id": 2, "question": "What?"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data_subtype": "val2014", "questions": [QUESTION, QUESTION]}, "holds question 1 twice"),
        ({"data_subtype": "val2014", "questions": []}, "holds no question"),
        (
            {"data_subtype": "val2014", "questions": [QUESTION | {"question": "<image>?"}]},
            "question 1 contains the image token '<image>'",
        ),
        ({"data": []}, "not in the layout of VQA v2.0"),
        ('{"data_subtype": "val2014", "quest', "truncated or broken JSON"),
    ],
)
def test_a_file_that_cannot_be_asked_is_reported_in_a_line(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_vqa_questions("vqav2", written(tmp_path / "q.json", content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"q\.json: cannot be read"):
        read_vqa_questions("vqav2", tmp_path / "q.json")


def test_batches_keep_images_together_and_hold_all_questions_once() -> None:
    asked = [
        VqaQuestion(str(n), n, f"{n % 11}.jpg", "x" * (10 + 40 * (n % 11))) for n in range(100)
    ]
    planned = batches(asked, 8)
    assert sorted(q.unit for batch in planned for q in batch) == sorted(q.unit for q in asked)
    assert max(map(len, planned)) <= 8
    pieces = sum(len({q.image for q in batch}) for batch in planned)
    assert pieces == 22  # nine or ten questions an image: eight, and the rest
    assert batches(asked, 8) == planned


def test_images_of_a_batch_have_as_many_questions_of_like_length() -> None:
    """What is computed is slots of an image times images times the longest question."""
    asked = [
        VqaQuestion(f"{image}-{n}", n, f"{image}.jpg", "x" * (10 + 37 * image % 120))
        for image in range(300)
        for n in range(1 + 7 * image % 6)
    ]
    needed, computed = sum(len(question.text) for question in asked), 0
    for batch in batches(asked, 32):
        counts = Counter(question.image for question in batch)
        slots = len(counts) * max(counts.values())
        assert slots <= 32
        computed += slots * max(len(question.text) for question in batch)
    assert needed <= computed < 1.25 * needed


def test_a_batch_has_at_most_32_images() -> None:
    asked = [VqaQuestion(str(n), n, f"{n}.jpg", "What?") for n in range(70)]
    assert [len(batch) for batch in batches(asked, 128)] == [32, 32, 6]
    assert [len(batch) for batch in batches(asked, 20)] == [20, 20, 20, 10]
