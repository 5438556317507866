"""Files of GQA, POPE, VizWiz-VQA, MMVP, NaturalBench and VSR: LLaVA-1.5's prompts, right answers.

GQA           {ID: {imageId, question, answer, isBalanced, entailed, types, ...}}
POPE          coco_pope_CATEGORY.json: JSON Lines {question_id, image, text, label}
VizWiz-VQA    [{image, question, answers: [{answer}], answer_type}]; test.json has no answers
MMVP          Questions.csv: Index, Question, Options, Correct Answer; two rows are a pair
NaturalBench  parquet: two questions, two images and four answers a row
VSR           JSON Lines {image, caption, label, relation}

Sources of the prompts: docs/Evaluation.md of haotian-liu/LLaVA (a single word or phrase; the
option's letter), its question file of VizWiz-VQA, and naturalbench_vqa.py of
Baiqi-Li/NaturalBench. VSR has none. No torch here.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from hnc_ds.arrow_tables import PARQUET
from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import files_in, read_csv, read_json, read_json_lines
from hnc_ds.evaluation.released.images import read_texts
from hnc_ds.evaluation.released.one_image import VSR_KIND_OF

QuestionId = int | str

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."


class AnnotatedQuestion(msgspec.Struct, frozen=True):
    """A question with the annotators' answers."""

    question_id: QuestionId
    image: str
    """Label of what is resampled together: the image's id, or its pair's or group's."""
    image_file: str
    """File name of the image."""
    question: str
    answers: tuple[str, ...]
    """A single one is the right answer; several are those of annotators."""
    answer_type: str = ""
    question_type: str = ""
    prompt: str = ""
    """The user's message; empty for VQA v2.0 and TextVQA, whose prompts questions.py writes."""
    groups: tuple[str, ...] = ()
    """Further groups with scores of their own, such as 'category: random'."""


class GqaQuestion(AnnotatedQuestion, frozen=True):
    """A question of GQA."""

    balanced: bool = True
    """Whether it counts; the others only serve consistency."""
    entailed: tuple[str, ...] = ()
    """Ids of other questions whose answers follow from its own."""
    common: bool = False
    """Whether it asks what two things have in common."""


class _GqaTypes(msgspec.Struct):
    structural: str
    semantic: str
    detailed: str


class _GqaStep(msgspec.Struct):
    operation: str
    argument: str


class _GqaRow(msgspec.Struct, rename="camel"):
    image_id: str
    question: str
    answer: str
    is_balanced: bool
    types: _GqaTypes
    semantic: list[_GqaStep]
    entailed: list[str] = []


NO_STEP = ("exist", "query: name", "choose name")
"""Last operations, which do not count as steps of reasoning."""

SEMANTIC = {"attr": "attribute", "cat": "category", "global": "scene", "obj": "object"} | {
    "rel": "relation"
}


def read_gqa(path: Path) -> Iterator[GqaQuestion]:
    """A file of questions, balanced or all."""
    for number, row in read_json(path, dict[str, _GqaRow], "GQA").items():
        steps = (f"{step.operation}: {step.argument}" for step in row.semantic)
        count = sum(not any(last in step for last in NO_STEP) for step in steps)
        yield GqaQuestion(
            question_id=number,
            image=row.image_id,
            image_file=f"{row.image_id}.jpg",
            question=row.question,
            answers=(row.answer,),
            answer_type="open" if row.types.structural == "query" else "binary",
            prompt=f"{row.question}\n{SHORT}",
            groups=(
                f"structural type: {row.types.structural}",
                f"semantic type: {SEMANTIC.get(row.types.semantic, row.types.semantic)}",
                f"steps: {count}",
                f"words: {len(row.question.split())}",
            ),
            balanced=row.is_balanced,
            entailed=tuple(one for one in row.entailed if one != number),
            common="Common" in row.types.detailed,
        )


POPE_FILES = {name: f"coco_pope_{name}.json" for name in ("random", "popular", "adversarial")}


class _PopeRow(msgspec.Struct):
    question_id: int
    image: str
    text: str
    label: Literal["yes", "no"]


def read_pope(path: Path) -> Iterator[AnnotatedQuestion]:
    """The files of a folder, or one of them; ids are CATEGORY/question_id."""
    for category, file in files_in(path, POPE_FILES, "POPE", path.is_file()).items():
        for row in read_json_lines(file, _PopeRow, "POPE"):
            yield AnnotatedQuestion(
                question_id=f"{category}/{row.question_id}",
                image=row.image,
                image_file=row.image,
                question=row.text,
                answers=(row.label,),
                prompt=f"{row.text}\n{SHORT}",
                groups=(f"category: {category}",),
            )


class _VizWizAnswer(msgspec.Struct):
    answer: str


class _VizWizRow(msgspec.Struct):
    image: str
    question: str
    answers: list[_VizWizAnswer] = []
    answer_type: str = ""


def read_vizwiz(path: Path) -> Iterator[AnnotatedQuestion]:
    """train.json, val.json or test.json; ids are images, each of which has one question."""
    for row in read_json(path, list[_VizWizRow], "VizWiz-VQA"):
        yield AnnotatedQuestion(
            question_id=row.image,
            image=row.image,
            image_file=row.image,
            question=row.question,
            answers=tuple(one.answer for one in row.answers),
            answer_type=row.answer_type,
            prompt=f"{row.question}\n{UNANSWERABLE}\n{SHORT}",
        )


MMVP_COLUMNS = ("Index", "Question", "Options", "Correct Answer")
_OPTIONS = re.compile(r"\(a\)(.+)\(b\)(.+)", re.DOTALL)


def read_mmvp(path: Path) -> Iterator[AnnotatedQuestion]:
    """Questions.csv; images are Index.jpg, and rows 1 and 2, 3 and 4, ... are pairs."""
    for row in read_csv(path, MMVP_COLUMNS, "MMVP"):
        number, options = row["Index"], _OPTIONS.search(row["Options"])
        right = row["Correct Answer"].strip(" ()").lower()
        if not number.isdecimal() or options is None or right not in ("a", "b"):
            raise UserError(
                f"{path}: row '{number}' lacks a number, options '(a) ... (b) ...' or the answer "
                "(a) or (b); copy the file again"
            )
        first, second = (option.strip() for option in options.groups())
        yield AnnotatedQuestion(
            question_id=number,
            image=f"pair {(int(number) + 1) // 2}",
            image_file=f"{number}.jpg",
            question=row["Question"],
            answers=(right,),
            prompt=f"{row['Question']}\nA. {first}\nB. {second}\n{LETTER}",
        )


SUFFIXES = {
    "yes_no": "Please answer Yes or No.",
    "multiple_choice": "Please output the letter corresponding to the correct option.",
}
"""Instruction by NaturalBench's type of question."""
NATURALBENCH_COLUMNS = (
    *("Question_0", "Question_1", "Question_Type"),
    *("Image_0_Question_0", "Image_1_Question_0", "Image_0_Question_1", "Image_1_Question_1"),
)


def read_naturalbench(path: Path) -> Iterator[AnnotatedQuestion]:
    """The parquet files of a folder, or one file, with their images; ids are FILE/ROW/qQ_iI."""
    files = sorted(path.glob(f"*{PARQUET}")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds no *{PARQUET}; copy NaturalBench's data folder")
    for file in files:
        for number, row in enumerate(read_texts(file, NATURALBENCH_COLUMNS, "NaturalBench")):
            yield from _group_of_four(file, number, row)


def _group_of_four(file: Path, number: int, row: Mapping[str, str]) -> Iterator[AnnotatedQuestion]:
    if row["Question_Type"] not in SUFFIXES:
        raise UserError(
            f"{file}: row {number}: Question_Type is '{row['Question_Type']}', not one of "
            f"{', '.join(SUFFIXES)}; copy the file again"
        )
    for question in (0, 1):
        for image in (0, 1):
            text = row[f"Question_{question}"]
            yield AnnotatedQuestion(
                question_id=f"{file.stem}/{number}/q{question}_i{image}",
                image=f"{file.stem}/{number}",
                image_file=f"{file.name}/{number}/Image_{image}",
                question=text,
                answers=(row[f"Image_{image}_Question_{question}"],),
                question_type=row["Question_Type"],
                prompt=f"{text} {SUFFIXES[row['Question_Type']]}",
            )


class _VsrRow(msgspec.Struct):
    image: str
    caption: str
    label: Literal[0, 1]
    relation: str


def read_vsr(path: Path) -> Iterator[AnnotatedQuestion]:
    """A split; ids are FILE/NUMBER."""
    for number, row in enumerate(read_json_lines(path, _VsrRow, "VSR")):
        yield AnnotatedQuestion(
            question_id=f"{path.stem}/{number}",
            image=row.image,
            image_file=row.image,
            question=row.caption,
            answers=("yes" if row.label else "no",),
            prompt=f"Is the following statement true? {row.caption}\n{SHORT}",
            groups=(f"kind: {VSR_KIND_OF.get(row.relation, 'none')}", f"relation: {row.relation}"),
        )


READERS: Mapping[str, Callable[[Path], Iterator[AnnotatedQuestion]]] = {
    "gqa": read_gqa,
    "pope": read_pope,
    "vizwiz": read_vizwiz,
    "mmvp-vqa": read_mmvp,
    "naturalbench": read_naturalbench,
    "vsr-vqa": read_vsr,
}
"""By name in FREE_FORM: readers of the files that hold questions and answers.

Each raises UserError for a file that is missing, broken or of another layout."""


class _PopeOfLlava(msgspec.Struct):
    question_id: QuestionId
    text: str
    category: str


def llavas_pope_ids(path: Path, annotated: Sequence[AnnotatedQuestion]) -> dict[str, QuestionId]:
    """Ids of POPE's questions by those of LLaVA's question file, whose lines of each category are
    in the order of POPE's file.

    Args:
        path: llava_pope_test.jsonl.
        annotated: Questions of POPE's own files.

    Raises:
        UserError: The questions of a category are not those of POPE's file.
    """
    waiting: dict[str, list[AnnotatedQuestion]] = defaultdict(list)
    for one in reversed(annotated):
        waiting[one.groups[0].removeprefix("category: ")].append(one)
    found: dict[str, QuestionId] = {}
    for row in read_json_lines(path, _PopeOfLlava, "LLaVA's questions of POPE"):
        own = waiting[row.category].pop() if waiting[row.category] else None
        if own is None or row.text.partition("\n")[0] != own.question:
            raise UserError(
                f"{path}: question {row.question_id} is not the next one of POPE's file "
                f"'{row.category}'; take the files of the release that LLaVA used"
            )
        found[str(row.question_id)] = own.question_id
    return found
