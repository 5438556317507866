"""GQA, POPE, VizWiz-VQA, MMVP, NaturalBench and VSR: prompts, official rules, answers."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from hnc_ds.config import AnswerConfig, CompareConfig, ScoreConfig
from hnc_ds.config.evaluation import Dataset
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import FREE_FORM, HELD_OUT, RELEASED
from hnc_ds.evaluation.results import VqaItem, read_items, read_results
from hnc_ds.llava.answer import answer
from hnc_ds.llava.benchmark_files import READERS
from hnc_ds.llava.question_scores import BENCHMARK_SCORES, first_choice, says_yes
from hnc_ds.llava.questions import read_vqa_questions
from hnc_ds.llava.score import score
from hnc_ds.report.compare import compare_models
from hnc_ds.report.page import render
from hnc_ds.report.runs import read_runs

SHORT = "Answer the question using a single word or phrase."


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def png(colour: str) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (20, 16), colour).save(made, "png")
    return made.getvalue()


def gqa_row(image: str, text: str, right: str, kind: str, **other: Any) -> dict[str, Any]:
    steps = [("select", "dog (3)"), ("filter color", "red"), ("query", "name")]
    return {
        "imageId": image,
        "question": text,
        "answer": right,
        "fullAnswer": "",
        "isBalanced": True,
        "groups": {"global": None, "local": "x"},
        "entailed": [],
        "equivalent": [],
        "types": {"structural": kind, "semantic": "obj", "detailed": "existC"},
        "semantic": [{"operation": o, "argument": a, "dependencies": []} for o, a in steps],
        **other,
    }


@pytest.fixture
def gqa(tmp_path: Path) -> Path:
    common = {"structural": "compare", "semantic": "attr", "detailed": "twoCommon"}
    rows = {
        "02": gqa_row("n1", "What is it?", "dog", "query", entailed=["02", "03", "04", "05"]),
        "03": gqa_row("n1", "Is it a dog?", "yes", "verify", entailed=["02"]),
        "04": gqa_row("n1", "Is it a cat?", "no", "verify", isBalanced=False),
        "05": gqa_row("n1", "Is it big?", "no", "verify", isBalanced=False),
        "06": gqa_row("n2", "What do both share?", "color", "compare", types=common),
    }
    path = tmp_path / "testdev_all_questions.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    """Three categories; the first question of each is about what is there."""
    folder = tmp_path / "coco"
    folder.mkdir()
    for name, other in (("random", "car"), ("popular", "person"), ("adversarial", "cat")):
        rows = [
            {"question_id": n, "image": f"COCO_val2014_{n // 3:012d}.jpg", "label": label}
            | {"text": f"Is there a {thing} in the image?"}
            for n, (thing, label) in enumerate((("dog", "yes"), (other, "no"), ("hat", "yes")), 1)
        ]
        (folder / f"coco_pope_{name}.json").write_text(lines(*rows))
    return folder


@pytest.fixture
def vizwiz(tmp_path: Path) -> Path:
    def row(number: int, kind: str, *given: str) -> dict[str, Any]:
        answers = [{"answer": text, "answer_confidence": "yes"} for text in given]
        image = f"VizWiz_val_{number:08d}.jpg"
        return {"image": image, "question": "What is this?", "answers": answers} | {
            "answer_type": kind,
            "answerable": 1,
        }

    path = tmp_path / "val.json"
    rows = [row(0, "unanswerable", *["unanswerable"] * 10)]
    rows.append(row(1, "other", *["soup can"] * 3, *["can"] * 7))
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def mmvp(tmp_path: Path) -> Path:
    path = tmp_path / "Questions.csv"
    path.write_text(
        "Index,Question,Options,Correct Answer\n"
        "1,Are the wings open or closed?,(a) Open (b) Closed,(a)\n"
        "2,Are the wings open or closed?,(a) Open (b) Closed,(b)\n"
        '3,"Is it left, or right?",(a) Left (b) Right,(b)\n'
        '4,"Is it left, or right?",(a) Left (b) Right,(a)\n'
    )
    return path


@pytest.fixture
def naturalbench(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    yes_no, letters = ("Yes", "No", "No", "Yes"), ("A", "B", "B", "A")
    rows = [
        {
            "Index": number,
            "Question_0": first,
            "Question_1": second,
            "Image_0_Question_0": right[0],
            "Image_1_Question_0": right[1],
            "Image_0_Question_1": right[2],
            "Image_1_Question_1": right[3],
            "Question_Type": kind,
            "Image_0": {"bytes": png("red"), "path": None},
            "Image_1": {"bytes": png("lime"), "path": None},
        }
        for number, (first, second, kind, right) in enumerate(
            (
                ("Is it red?", "Is it lime?", "yes_no", yes_no),
                (
                    "Which colour? A: red B: lime",
                    "Which? A: lime B: red",
                    "multiple_choice",
                    letters,
                ),
            )
        )
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder


@pytest.fixture
def vsr(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    row = {"image": "000000050403.jpg", "caption": "The cat is on the mat.", "relation": "on"}
    path.write_text(lines(row | {"label": 1}, row | {"label": 0, "relation": "facing"}))
    return path


Files = dict[str, Path]


@pytest.fixture
def files(gqa: Path, pope: Path, vizwiz: Path, mmvp: Path, naturalbench: Path, vsr: Path) -> Files:
    found = {"gqa": gqa, "pope": pope, "vizwiz": vizwiz, "mmvp-vqa": mmvp}
    return found | {"naturalbench": naturalbench, "vsr-vqa": vsr}


def test_every_set_is_in_each_table_under_a_name_of_its_own() -> None:
    assert list(FREE_FORM) == list(BENCHMARK_SCORES) == list(get_args(Dataset))
    assert [*FREE_FORM][2:] == list(READERS)
    assert not set(FREE_FORM) & {*RELEASED, *HELD_OUT}


CHOICE = "Answer with the option's letter from the given choices directly."
UNSURE = "When the provided information is insufficient, respond with 'Unanswerable'."


@pytest.mark.parametrize(
    ("dataset", "place", "expected"),
    [
        ("gqa", 0, ("02", "n1.jpg", f"What is it?\n{SHORT}")),
        (
            "pope",
            4,
            (
                "popular/2",
                "COCO_val2014_000000000000.jpg",
                f"Is there a person in the image?\n{SHORT}",
            ),
        ),
        (
            "vizwiz",
            1,
            *(("VizWiz_val_00000001.jpg",) * 2 + (f"What is this?\n{UNSURE}\n{SHORT}",),),
        ),
        (
            "mmvp-vqa",
            3,
            ("4", "4.jpg", f"Is it left, or right?\nA. Left\nB. Right\n{CHOICE}"),
        ),
        (
            "naturalbench",
            1,
            (
                "train-00000-of-00001/0/q0_i1",
                "train-00000-of-00001.parquet/0/Image_1",
                "Is it red? Please answer Yes or No.",
            ),
        ),
        (
            "naturalbench",
            6,
            (
                "train-00000-of-00001/1/q1_i0",
                "train-00000-of-00001.parquet/1/Image_0",
                "Which? A: lime B: red Please output the letter corresponding to the correct "
                "option.",
            ),
        ),
        (
            "vsr-vqa",
            0,
            (
                "test/0",
                "000000050403.jpg",
                f"Is the following statement true? The cat is on the mat.\n{SHORT}",
            ),
        ),
    ],
)
def test_prompts_are_those_of_each_set_to_the_character(
    files: Files, dataset: str, place: int, expected: tuple[str, str, str]
) -> None:
    asked = read_vqa_questions(dataset, files[dataset]).asked
    one = asked[place]
    assert (one.question_id, one.image, one.text) == expected
    assert one.unit == one.question_id
    assert len({question.unit for question in asked}) == len(asked)


Scored = Callable[..., dict[tuple[str, str], float]]


@pytest.fixture
def scored(files: Files, tmp_path: Path) -> Scored:
    """Scores by metric and group, of answers in the order of the questions."""

    def run(dataset: str, *texts: str, name: str = "m", **other: Any) -> dict[Any, float]:
        path, out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.json"
        asked = READERS[dataset](files[dataset])
        rows = zip(asked, texts, strict=True)
        path.write_text(
            lines(*({"question_id": q.question_id, "text": t, "model_id": name} for q, t in rows))
        )
        settings: dict[str, Any] = {"annotations": files[dataset], "answers": path, "out": out}
        score(ScoreConfig(dataset=dataset, **(settings | other)))  # type: ignore[arg-type]
        return {(row.metric, row.group): row.value for row in read_results(out)}

    return run


def test_gqa_has_the_scores_of_its_official_rules(
    scored: Scored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = {
        "02": {"valid": ["dog", "cat"], "plausible": ["dog"]},
        "03": {"valid": ["yes", "no"], "plausible": ["yes"]},
        "06": {"valid": [], "plausible": []},
    }
    (tmp_path / "choices.json").write_text(json.dumps(choices))
    given = ("Dog.", "no", "no", "yes", "material")
    rows = scored("gqa", *given, choices=tmp_path / "choices.json")
    # Three balanced questions; a period at the end and capitals do not count.
    assert rows["accuracy", "all"] == pytest.approx(1 / 3)
    # What two things have in common may be a colour, material or shape, whatever the file says.
    assert rows["validity", "all"] == 1
    assert rows["plausibility", "all"] == pytest.approx(2 / 3)
    # Only of the question answered right: of those that it entails, without itself, one of three.
    assert rows["consistency", "all"] == pytest.approx(1 / 3)
    assert rows["accuracy", "answer type: open"] == 1
    assert rows["accuracy", "answer type: binary"] == 0
    assert rows["accuracy", "structural type: verify"] == 0
    assert rows["accuracy", "semantic type: object"] == 0.5
    assert rows["accuracy", "steps: 2"] == pytest.approx(1 / 3)  # the query of a name is none
    assert rows["accuracy", "words: 3"] == 1
    _, items = read_items(tmp_path / "m.items.jsonl")
    assert [item.question_id for item in items if isinstance(item, VqaItem)] == ["02", "03", "06"]
    assert "no consistency" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "right"),
    [("DOG", 1), ("dog...", 1), ("dog .", 0), ("a dog", 0), ("dogs", 0), ("", 0), ("dog!", 0)],
)
def test_gqa_compares_whole_answers(scored: Scored, given: str, right: int) -> None:
    rows = scored("gqa", given, "yes", "no", "no", "color")
    assert rows["accuracy", "answer type: open"] == right


def test_gqas_scores_without_their_files_are_left_out_with_a_line(
    gqa: Path, scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(gqa.read_text())
    gqa.write_text(json.dumps({k: row for k, row in content.items() if row["isBalanced"]}))
    rows = scored("gqa", "dog", "yes", "color")
    assert {metric for metric, _ in rows} == {"accuracy"}
    message = capsys.readouterr().out
    assert "no consistency: " in message
    assert "lacks 2 questions that its own entail" in message
    assert "no validity and plausibility without --choices" in message
    choices = gqa.with_name("choices.json")
    choices.write_text(json.dumps({"02": {"valid": [], "plausible": []}}))
    with pytest.raises(UserError, match=r"has no choices of question 03; take the files of one"):
        scored("gqa", "dog", "yes", "color", choices=choices)


def test_ids_of_gqa_keep_their_zeros_and_llavas_file_names_the_same_questions(
    gqa: Path, tmp_path: Path
) -> None:
    row = {"question_id": "02", "image": "n1.jpg", "text": f"What is it?\n{SHORT}"}
    path = tmp_path / "llava_gqa.jsonl"
    path.write_text(lines(row))
    (llavas,) = read_vqa_questions("gqa", path).asked
    ours = read_vqa_questions("gqa", gqa).asked[0]
    assert (llavas.question_id, llavas.image, llavas.text) == ("02", ours.image, ours.text)


@pytest.mark.parametrize(
    ("given", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no", False),
        ("NO", True),  # the official words are No, not and no
        ("No, there is not.", False),
        ("There is not a dog", False),
        ("Yes. There is no cat", True),  # the first sentence alone counts
        ("A dog. No", True),
        ("Nothing", True),
        ("The dog isn't there", True),
        ("yes\nno", True),  # words end at blanks
        (" no", False),
        ("nothing, no", False),
        ("", True),
    ],
)
def test_pope_reads_an_answer_by_its_words(given: str, yes: bool) -> None:
    assert says_yes(given) is yes


def test_pope_counts_yes_as_positive_in_each_category(
    scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = scored("pope", "Yes", "Yes", "Yes", "yes", "no", "No.", "No", "no", "no")
    of = {
        name: [
            rows.get((metric, f"category: {name}"))
            for metric in ("accuracy", "precision", "recall", "f1", "yes_ratio")
        ]
        for name in ("random", "popular", "adversarial")
    }
    assert of["random"] == pytest.approx([2 / 3, 2 / 3, 1, 0.8, 1])
    assert of["popular"] == pytest.approx([2 / 3, 1, 0.5, 2 / 3, 1 / 3])
    assert of["adversarial"] == [pytest.approx(1 / 3), None, 0, 0, 0]  # no precision without yes
    whole = [rows[m, "all"] for m in ("accuracy", "precision", "recall", "f1", "yes_ratio")]
    assert whole == pytest.approx([5 / 9, 3 / 4, 3 / 6, 2 * 3 / (4 + 6), 4 / 9])
    assert f"{'category: popular':<28}{'66.67':>8}" in capsys.readouterr().out


def test_pope_without_a_yes_has_neither_precision_nor_f1(scored: Scored) -> None:
    rows = scored("pope", *["No"] * 9)
    assert rows["accuracy", "all"] == pytest.approx(3 / 9)
    assert {m for m, g in rows if g == "all"} == {"accuracy", "yes_ratio", "recall", "f1"}


def test_a_missing_answer_is_wrong_in_pope_whatever_is_asked(pope: Path, tmp_path: Path) -> None:
    """Though an empty answer, given, is yes."""
    answers, out = tmp_path / "m.jsonl", tmp_path / "m.json"
    first = next(iter(READERS["pope"](pope)))
    answers.write_text(lines({"question_id": first.question_id, "text": "Yes"}))
    where = {"annotations": pope, "answers": answers, "out": out}
    score(ScoreConfig(dataset="pope", allow_missing=True, **where))  # type: ignore[arg-type]
    rows = {(row.metric, row.group): row.value for row in read_results(out)}
    assert rows["accuracy", "all"] == pytest.approx(1 / 9)
    assert rows["recall", "all"] == pytest.approx(1 / 6)
    _, items = read_items(out.with_suffix(".items.jsonl"))
    assert [item.answer for item in items if isinstance(item, VqaItem)] == ["Yes", *[""] * 8]


def test_pope_of_questions_about_what_is_not_there(pope: Path, tmp_path: Path) -> None:
    path = pope / "coco_pope_random.json"
    rows = [json.loads(line) | {"label": "no"} for line in path.read_text().splitlines()]
    path.write_text(lines(*rows))
    answers, out = tmp_path / "m.jsonl", tmp_path / "m.json"
    asked = READERS["pope"](path)
    answers.write_text(lines(*({"question_id": q.question_id, "text": "No"} for q in asked)))
    score(ScoreConfig(dataset="pope", annotations=path, answers=answers, out=out))
    assert {row.metric for row in read_results(out)} == {"accuracy", "yes_ratio"}


def test_gqa_without_a_balanced_question_is_reported(gqa: Path, tmp_path: Path) -> None:
    content = json.loads(gqa.read_text())
    for question in content.values():
        question["isBalanced"] = False
    gqa.write_text(json.dumps(content))
    answers, out = tmp_path / "m.jsonl", tmp_path / "m.json"
    answers.write_text(lines(*({"question_id": key, "text": "no"} for key in content)))
    with pytest.raises(UserError, match="has no question that counts; only balanced ones"):
        score(ScoreConfig(dataset="gqa", annotations=gqa, answers=answers, out=out))
    assert not out.exists()


def test_answers_to_llavas_file_of_pope_are_found_by_category_and_place(
    files: Files, tmp_path: Path
) -> None:
    """Its ids run through all categories, in an order of its own."""
    asked = list(READERS["pope"](files["pope"]))
    order = [*asked[6:], *asked[:3], *asked[3:6]]
    rows = [
        {"question_id": n, "image": q.image_file, "text": q.prompt}
        | {"category": q.groups[0].removeprefix("category: ")}
        for n, q in enumerate(order)
    ]
    questions, answers = tmp_path / "llava_pope_test.jsonl", tmp_path / "a.jsonl"
    questions.write_text(lines(*rows))
    said = {"adversarial": "No", "random": "Yes", "popular": "No"}
    answers.write_text(
        lines(*({"question_id": r["question_id"], "text": said[r["category"]]} for r in rows))
    )
    given: dict[str, Any] = {"annotations": files["pope"], "questions": questions}
    settings = ScoreConfig(dataset="pope", answers=answers, out=tmp_path / "o.json", **given)
    score(settings)
    found = {(r.metric, r.group): r.value for r in read_results(tmp_path / "o.json")}
    assert found["yes_ratio", "category: random"] == 1
    assert found["yes_ratio", "all"] == pytest.approx(1 / 3)
    ours = [{"question_id": q.question_id, "text": "No"} for q in asked]
    answers.write_text(lines(*ours))
    given["questions"] = files["pope"]  # POPE's own ids need no other file
    score(ScoreConfig(dataset="pope", answers=answers, out=tmp_path / "own.json", **given))
    answers.write_text(lines(*({"question_id": r["question_id"], "text": ""} for r in rows)))
    questions.write_text(lines(*rows[1:]))
    with pytest.raises(UserError, match=r"question 1 is not the next one of POPE's file 'adv"):
        score(settings)


def test_one_file_of_pope_is_a_category(pope: Path) -> None:
    asked = read_vqa_questions("pope", pope / "coco_pope_popular.json").asked
    assert [one.unit for one in asked] == ["popular/1", "popular/2", "popular/3"]
    with pytest.raises(UserError, match="none of the files of POPE exists"):
        read_vqa_questions("pope", pope.parent)


def test_vizwiz_is_scored_as_llava_submits_it(scored: Scored) -> None:
    rows = scored("vizwiz", "Unanswerable", "A soup can.")
    assert rows["vqa_submitted", "answer type: unanswerable"] == 1
    assert rows["vqa_official", "answer type: unanswerable"] == 0  # nothing is normalised there
    assert rows["vqa_submitted", "answer type: other"] == pytest.approx(0.9)
    assert rows["vqa_submitted", "all"] == pytest.approx(0.95)


def test_answers_of_mmvp_count_by_pairs(scored: Scored) -> None:
    rows = scored("mmvp-vqa", "A", "b", "(B)", "Right")
    assert rows == {
        ("accuracy", "all"): 0.75,
        ("pair_accuracy", "all"): 0.5,
    }


@pytest.mark.parametrize(
    ("given", "words", "found"),
    [
        ("Yes", ("yes", "no"), "yes"),
        ("nothing", ("yes", "no"), None),
        ("I know: no, or yes", ("yes", "no"), "no"),
        ("B.", ("a", "b"), "b"),
        ("Option (A)", ("a", "b"), "a"),
        ("Both", ("a", "b"), None),
    ],
)
def test_the_first_of_two_words_is_the_answer(
    given: str, words: tuple[str, str], found: str | None
) -> None:
    assert first_choice(given, *words) == found


def test_naturalbench_has_the_four_scores_of_its_groups(scored: Scored) -> None:
    first = ("Yes", "No", "Yes", "Yes")  # wrong: question 1 on image 0
    rows = scored("naturalbench", *first, "A", "B", "B.", "The answer is A")
    assert rows["accuracy", "all"] == pytest.approx(7 / 8)
    assert rows["question_accuracy", "all"] == pytest.approx(3 / 4)
    assert rows["image_accuracy", "all"] == pytest.approx(3 / 4)
    assert rows["group_accuracy", "all"] == 0.5
    assert rows["group_accuracy", "question type: multiple_choice"] == 1


def test_captions_of_vsr_are_true_or_false(scored: Scored) -> None:
    rows = scored("vsr-vqa", "Yes", "perhaps")
    assert rows["accuracy", "all"] == 0.5
    assert rows["accuracy", "kind: Topological"] == 1
    assert rows["accuracy", "relation: facing"] == 0


def test_two_models_are_compared_on_scores_of_the_same_questions_alone(
    scored: Scored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored("pope", *["Yes"] * 9, name="first")
    scored("pope", *["Yes", "No", "Yes"] * 3, name="second")
    capsys.readouterr()
    paths = [tmp_path / f"{name}.json" for name in ("first", "second")]
    out = tmp_path / "compared.json"
    compare_models(CompareConfig(first=paths[0], second=paths[1], out=out))
    rows = {(row["metric"], row["group"]): row for row in json.loads(out.read_text())}
    assert rows["accuracy", "all"]["difference"] == pytest.approx(1 / 3)
    assert rows["recall", "all"]["difference"] == 0
    # Each model has precision of the questions that it answers with yes.
    judged = {metric for metric, _ in rows}
    assert not judged & {"precision", "f1", "yes_ratio"}
    assert "'Yes' to 'No'; right: 'no'" in capsys.readouterr().out
    assert "Answers better in second" in render(read_runs(paths))


@pytest.mark.parametrize(
    ("dataset", "change", "message"),
    [
        ("gqa", {"imageId": 3}, "not in the layout of GQA"),
        ("gqa", {"types": {}}, "not in the layout of GQA"),
        ("pope", {"label": "maybe"}, "not in the layout of POPE"),
        ("vizwiz", {"image": 3}, "not in the layout of VizWiz-VQA"),
        ("vsr-vqa", {"label": 2}, "not in the layout of VSR"),
    ],
)
def test_a_file_of_another_layout_is_reported_in_a_line(
    files: Files, dataset: str, change: dict[str, Any], message: str
) -> None:
    path = files[dataset]
    path = path / "coco_pope_random.json" if path.is_dir() else path
    if dataset in ("gqa", "vizwiz"):
        content = json.loads(path.read_text())
        content["02" if dataset == "gqa" else 0] |= change
        path.write_text(json.dumps(content))
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(lines(rows[0], rows[1] | change))
    with pytest.raises(UserError, match=message):
        read_vqa_questions(dataset, files[dataset])


@pytest.mark.parametrize(
    ("dataset", "old", "new", "message"),
    [
        ("mmvp-vqa", "(a) Left (b) Right,(b)", "Left or right,(b)", "row '3' lacks a number"),
        ("mmvp-vqa", "Correct Answer", "Answer", "no column Correct Answer"),
        ("mmvp-vqa", "\n4,", "\n3,", "holds question 3 twice"),
    ],
)
def test_a_table_of_questions_with_a_flaw_is_reported_in_a_line(
    files: Files, dataset: str, old: str, new: str, message: str
) -> None:
    path = files[dataset]
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_vqa_questions(dataset, path)


def test_parquet_without_a_column_or_with_another_type_is_reported(naturalbench: Path) -> None:
    (file,) = naturalbench.iterdir()
    table = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(table.drop_columns(["Question_1"]), file)
    with pytest.raises(UserError, match="no column Question_1; is it a file of NaturalBench"):
        read_vqa_questions("naturalbench", naturalbench)
    place = table.column_names.index("Question_Type")
    other = table.set_column(place, "Question_Type", [["open", "yes_no"]])
    pyarrow.parquet.write_table(other, file)
    with pytest.raises(UserError, match="Question_Type is 'open', not one of yes_no, multiple"):
        read_vqa_questions("naturalbench", naturalbench)
    file.unlink()
    with pytest.raises(UserError, match="copy NaturalBench's data folder"):
        read_vqa_questions("naturalbench", naturalbench)


@pytest.mark.slow
def test_answers_to_every_set_do_not_depend_on_the_batch(
    llava_folder: Path,
    images: Path,
    files: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Asked as a user asks, and scored."""
    named, images_there, seen = tmp_path / "images", sorted(images.iterdir()), set[str]()
    named.mkdir()
    for dataset, path in files.items():
        asked = read_vqa_questions(dataset, path).asked
        folder = path if dataset == "naturalbench" else named
        if folder is named:
            for n, name in enumerate(sorted({one.image for one in asked})):
                source = images_there[(n + len(seen)) % len(images_there)]
                shutil.copyfile(source, named / name)
        given = {"model": llava_folder, "dataset": dataset, "questions": path, "images": folder}
        found = []
        for batch in (1, 3, 64):
            out = tmp_path / f"{dataset}-{batch}"
            answer(AnswerConfig(**given, out=out, batch=batch, max_new_tokens=6))  # type: ignore[arg-type]
            rows = map(json.loads, (out / "answers.jsonl").read_text().splitlines())
            found.append([(row["question_id"], row["prompt"], row["text"]) for row in rows])
        assert found[0] == found[1] == found[2]
        seen |= {text for _, _, text in found[0]}
        answers = tmp_path / f"{dataset}-64/answers.jsonl"
        results = tmp_path / f"{dataset}.json"
        score(ScoreConfig(dataset=dataset, annotations=path, answers=answers, out=results))  # type: ignore[arg-type]
        assert {row.benchmark for row in read_results(results)} == {dataset}
    assert len(seen) > 3  # else equal answers would prove little
    written = json.loads((tmp_path / "vizwiz-64/answers.vizwiz.json").read_text())
    assert [row["image"] for row in written] == [
        "VizWiz_val_00000000.jpg",
        "VizWiz_val_00000001.jpg",
    ]
    assert "answers.vizwiz.json: 2 answers; not for VizWiz-VQA's server" in capsys.readouterr().out


def test_a_broken_image_inside_parquet_is_named(
    llava_folder: Path, naturalbench: Path, tmp_path: Path
) -> None:
    (file,) = naturalbench.iterdir()
    table = pyarrow.parquet.read_table(file).to_pylist()
    table[0]["Image_1"]["bytes"] = b"no image"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), file)
    config = AnswerConfig(
        model=llava_folder,
        dataset="naturalbench",
        questions=naturalbench,
        images=naturalbench,
        out=tmp_path / "out",
        max_new_tokens=2,
    )
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet.*--allow-missing"):
        answer(config)
