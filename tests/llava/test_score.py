"""Files of answers against files of annotations, and two models beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hnc_ds.config import CompareConfig, ScoreConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.results import VqaItem, read_items, read_results
from hnc_ds.llava.score import score
from hnc_ds.report.compare import compare_models
from hnc_ds.report.page import render
from hnc_ds.report.runs import read_runs

QUESTIONS = (("Is it red?", "is it", "yes/no", "yes"), ("How many?", "how many", "number", "2"))


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def vqa(tmp_path: Path) -> dict[str, Any]:
    """Two questions on each of three images; eight of ten annotators agree."""
    questions, annotations = [], []
    for number in range(6):
        text, question_type, answer_type, right = QUESTIONS[number % 2]
        shared = {"question_id": 100 + number, "image_id": number // 2}
        answers = [{"answer": right, "answer_id": n, "answer_confidence": "yes"} for n in range(8)]
        answers += [{"answer": "blue", "answer_id": n, "answer_confidence": "no"} for n in (8, 9)]
        questions.append({**shared, "question": text})
        annotations.append(
            {
                **shared,
                "question_type": question_type,
                "answer_type": answer_type,
                "multiple_choice_answer": right,
                "answers": answers,
            }
        )
    head = {"data_subtype": "val2014"}
    return {
        "dataset": "vqav2",
        "questions": written(tmp_path / "q.json", {**head, "questions": questions}),
        "annotations": written(tmp_path / "a.json", {**head, "annotations": annotations}),
        "out": tmp_path / "scores.json",
    }


def ours(*texts: str, model: str = "m", first: int = 100) -> str:
    rows = [
        {"question_id": first + n, "text": text, "model_id": model, "answer_id": str(n), "x": 1}
        for n, text in enumerate(texts)
    ]
    return lines(*rows)


def test_scores_are_of_all_questions_and_of_each_type(
    vqa: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = written(tmp_path / "m.jsonl", ours("yes", "two", "Yes.", "blue", "no", "3"))
    per_item = tmp_path / "items.jsonl"
    score(ScoreConfig(**vqa, answers=answers, per_item=per_item))
    rows = {(row.metric, row.group): row for row in read_results(vqa["out"])}
    assert rows["vqa_official", "all"].value == pytest.approx((1 + 1 + 1 + 0.6 + 0 + 0) / 6)
    assert rows["vqa_min3", "all"].value == pytest.approx((1 + 1 + 1 + 2 / 3 + 0 + 0) / 6)
    assert rows["exact_match", "all"].value == pytest.approx(4 / 6)
    assert rows["vqa_official", "answer type: yes/no"].value == pytest.approx(2 / 3)
    assert rows["vqa_official", "question type: how many"].value == pytest.approx(1.6 / 3)
    assert {row.benchmark for row in rows.values()} == {"vqav2"}
    assert rows["vqa_official", "all"].low <= rows["vqa_official", "all"].value
    _, items = read_items(tmp_path / "scores.items.jsonl")
    first = items[0]
    assert isinstance(first, VqaItem)
    assert (first.question, first.image_file) == ("Is it red?", "COCO_val2014_000000000000.jpg")
    message = [json.loads(line) for line in per_item.read_text().splitlines()]
    assert message[3] == {"question_id": 103, "score": pytest.approx(0.6)}
    assert "60.00" in capsys.readouterr().out


def test_the_servers_list_and_llavas_lines_give_the_same(
    vqa: dict[str, Any], tmp_path: Path
) -> None:
    texts = ("yes", "two", "Yes.", "blue", "no", "3")
    server = [{"question_id": 100 + n, "answer": text} for n, text in enumerate(texts)]
    found = []
    for name, content in (("m.jsonl", ours(*texts)), ("s.json", server)):
        score(ScoreConfig(**vqa, answers=written(tmp_path / name, content), name="m"))
        found.append(vqa["out"].read_bytes())
    assert found[0] == found[1]


@pytest.fixture
def text_vqa(tmp_path: Path) -> dict[str, Any]:
    rows = [
        {
            "question_id": 7,
            "image_id": "ab",
            "question": "What Brand?",
            "answers": ["cola"] * 10,
        },
        {"question_id": 8, "image_id": "ab", "question": "what time?", "answers": ["4:30"] * 10},
    ]
    return {
        "dataset": "textvqa",
        "annotations": written(tmp_path / "t.json", {"data": rows}),
        "out": tmp_path / "scores.json",
    }


def test_whether_words_that_were_read_were_given_is_always_reported(
    text_vqa: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(*modes: str | None) -> Path:
        rows = [
            {"question_id": 7 + n, "text": "x", "metadata": {} if mode is None else {"ocr": mode}}
            for n, mode in enumerate(modes)
        ]
        return written(tmp_path / "m.jsonl", lines(*rows))

    for modes, message in ((("with", "with"), "with"), ((None, None), "unknown")):
        score(ScoreConfig(**text_vqa, answers=answered(*modes)))
        assert f"OCR tokens: {message}" in capsys.readouterr().out
        assert read_items(tmp_path / "scores.items.jsonl")[0].ocr == message
    with pytest.raises(UserError, match="OCR tokens with and without; score each"):
        score(ScoreConfig(**text_vqa, answers=answered("with", "without")))


def test_llavas_text_vqa_answers_are_found_by_image_and_question(
    text_vqa: dict[str, Any], tmp_path: Path
) -> None:
    """Its question ids are those of images, and the question is the first line of the prompt."""
    row = {"question_id": "ab", "model_id": "m"}
    answers = lines(
        row | {"prompt": "What time?\nReference OCR token: X\nAnswer", "text": "4:30"},
        row | {"prompt": "what brand?\nAnswer", "text": "the COLA"},
    )
    score(ScoreConfig(**text_vqa, answers=written(tmp_path / "m.jsonl", answers)))
    rows = {(row.metric, row.group): row.value for row in read_results(text_vqa["out"])}
    assert rows["m4c", "all"] == 1
    assert rows["vqa_official", "all"] == 0.5  # unanimous annotators: nothing is normalised
    again = lines(row | {"prompt": "What time?\nA", "text": "x"}) * 2
    with pytest.raises(UserError, match="'what time\\?' is answered twice"):
        score(ScoreConfig(**text_vqa, answers=written(tmp_path / "m.jsonl", again)))


SIX = ("yes", "2", "yes", "2", "yes", "2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ours(*SIX[:4]), r"2 of 6 questions are not answered, the first is 104"),
        (ours(*SIX) + ours("yes"), "1 question is answered twice, the first is 100"),
        (ours(*SIX, "yes"), "1 answer is to questions that .*a.json lacks, the first is 106"),
        (
            ours(*SIX[:3]) + ours("2", "yes", "2", model="n", first=103),
            r"of 2 models \(m, n",
        ),
        ("", "m.jsonl: is empty; copy the file again"),
        ('{"question_id": 1', "truncated or broken JSON"),
        ('{"question_id": 1, "answer": "x"}\n', "not in the layout of answers"),
        ([{"question_id": 1}], "not in the layout of the VQA server's answers"),
        (lines({"question_id": "ab", "text": "x"}), "question id 'ab' is not a number"),
        # What Python's int would take for a number.
        *[
            (lines({"question_id": text, "text": "x"}), "question id .* is not a number")
            for text in (" 100", "1_00", "\uff11\uff10\uff10", "")
        ],
        # Answers that are no text.
        *[
            (lines({"question_id": 100, "text": value}), "not in the layout of answers")
            for value in (2, None, ["yes"], True)
        ],
        ([{"question_id": 100, "answer": 2}], "not in the layout of the VQA server's answers"),
        (lines({"question_id": 100.5, "text": "x"}), "not in the layout of answers"),
        (lines({"question_id": None, "text": "x"}), "not in the layout of answers"),
        ('{"question_id": 100, "text": NaN}\n', "NaN is not a number"),
        ('{"question_id": 100, "question_id": 101, "text": "x"}\n', "'question_id' occurs twice"),
        ('{"question_id": 100, "text": "\\ud800"}\n', r"m\.jsonl:1: .*not UTF-8"),
    ],
)
def test_answers_that_cannot_be_scored_are_reported_in_a_line(
    vqa: dict[str, Any], tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score(ScoreConfig(**vqa, answers=written(tmp_path / "m.jsonl", content)))
    assert not vqa["out"].exists()


def test_missing_answers_may_count_as_wrong(
    vqa: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = written(tmp_path / "m.jsonl", ours(*SIX[:3]))
    score(ScoreConfig(**vqa, answers=answers, allow_missing=True))
    rows = {(row.metric, row.group): row.value for row in read_results(vqa["out"])}
    assert rows["vqa_official", "all"] == 0.5
    assert "3 questions are not answered and counted as wrong" in capsys.readouterr().out


def test_answers_without_an_image_and_few_annotators_are_counted(
    vqa: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question_id": 100 + n, "text": text, "margin": margin}
        for n, (text, margin) in enumerate((("yes", 1.5), *(("", None),) * 2, *(("2", 0.1),) * 3))
    ]
    content = json.loads(vqa["annotations"].read_text())
    content["annotations"][5]["answers"] = content["annotations"][5]["answers"][:3]
    written(vqa["annotations"], content)
    score(ScoreConfig(**vqa, answers=written(tmp_path / "m.jsonl", lines(*rows)), name="a\udcff"))
    message = capsys.readouterr().out
    assert "2 questions are answered without an image" in message
    assert "1 question is without 10 annotators' answers, so that their scores are not" in message
    assert "not answered" not in message
    assert {row.model for row in read_results(vqa["out"])} == {"a?"}


def test_line_separators_in_answers_and_byte_order_marks_are_no_ends(
    vqa: dict[str, Any], tmp_path: Path
) -> None:
    texts = ("yes\u2028", "2\x85", "yes", "2", "yes", "2")
    rows = [{"question_id": 100 + n, "text": text} for n, text in enumerate(texts)]
    server = [{"question_id": row["question_id"], "answer": row["text"]} for row in rows]
    plain = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    found = []
    for content in (plain, json.dumps(server, ensure_ascii=False)):
        path = tmp_path / "m.json"
        path.write_bytes(b"\xef\xbb\xbf" + content.encode())
        score(ScoreConfig(**vqa, answers=path, name="m"))
        found.append(vqa["out"].read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("file", "key", "change", "message"),
    [
        ("annotations", "annotations", lambda rows: rows + rows[:1], "holds question 100 twice"),
        ("questions", "questions", lambda rows: rows + rows[:1], "holds question 100 twice"),
        ("annotations", "annotations", lambda rows: [], "holds no question"),
        (
            "annotations",
            "annotations",
            lambda rows: [rows[0] | {"answers": []}, *rows[1:]],
            "question 100 has no answers",
        ),
        (
            "annotations",
            "annotations",
            lambda rows: [rows[0] | {"answers": [{"answer": None}] * 10}],
            "not in the layout of VQA v2.0's annotations",
        ),
        (
            "annotations",
            "annotations",
            lambda rows: [rows[0] | {"question_id": "100"}],
            "not in the layout of VQA v2.0's annotations",
        ),
    ],
)
def test_annotators_that_cannot_be_scored_against_are_reported_in_a_line(
    vqa: dict[str, Any], tmp_path: Path, file: str, key: str, change: Any, message: str
) -> None:
    content = json.loads(vqa[file].read_text())
    written(vqa[file], content | {key: change(content[key])})
    with pytest.raises(UserError, match=message):
        score(ScoreConfig(**vqa, answers=written(tmp_path / "m.jsonl", ours(*SIX))))
    assert not vqa["out"].exists()


def test_files_of_two_splits_are_reported(vqa: dict[str, Any], tmp_path: Path) -> None:
    other = {"questions": [{"question_id": 1, "question": "x"}], "data_subtype": "val2014"}
    answers = written(tmp_path / "m.jsonl", ours(*SIX))
    vqa["questions"] = written(tmp_path / "other.json", other)
    with pytest.raises(UserError, match=r"has no question 100 of .*take the files of one split"):
        score(ScoreConfig(**vqa, answers=answers))


def test_two_models_are_compared_question_by_question_and_shown_with_images(
    vqa: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), "red").save(images / f"COCO_val2014_{number:012d}.jpg")
    paths = []
    for model, texts in (("base", ("no", "3", "yes", "2", "yes", "2")), ("new", SIX)):
        answers = written(tmp_path / f"{model}.jsonl", ours(*texts, model=model))
        paths.append(tmp_path / f"{model}.json")
        score(ScoreConfig(**(vqa | {"out": paths[-1]}), answers=answers, images=images))
    capsys.readouterr()
    out = tmp_path / "compare.json"
    compare_models(CompareConfig(first=paths[0], second=paths[1], out=out))
    rows = {(row["metric"], row["group"]): row for row in json.loads(out.read_text())}
    row = rows["vqa_official", "all"]
    assert (row["first"], row["second"]) == (pytest.approx(4 / 6), 1)
    assert (row["better"], row["worse"], row["count"]) == (2, 0, 6)
    assert row["p"] == 1  # one image differs: either sign is as likely
    message = capsys.readouterr().out
    assert "How many? '3' to '2'; most annotators: '2'" in message
    page = render(read_runs(paths))
    assert "Answers better in new" in page
    assert "data:image/jpeg" in page
    assert "VQA v2.0: vqa official" in page


def test_files_without_items_or_a_common_one_are_reported(
    vqa: dict[str, Any], tmp_path: Path
) -> None:
    answers = written(tmp_path / "m.jsonl", ours(*SIX))
    score(ScoreConfig(**vqa, answers=answers))
    bare = written(tmp_path / "bare.json", "[]")
    with pytest.raises(UserError, match=r"bare\.json: has no \*\.items\.jsonl"):
        compare_models(CompareConfig(first=vqa["out"], second=bare))
