"""Questions of every benchmark and of LLaVA's files, and LLaVA-1.5's prompts. No torch here.

VQA v2.0   {"data_subtype": "val2014", "questions": [{question_id, image_id, question}]}
TextVQA    {"data": [{question_id, image_id, question}]}; OCR tokens in another file
LLaVA      JSON Lines {question_id, image, text}; the text is the final question
others     benchmark_files.py

Source of the prompts: LLaVA's conversation template vicuna_v1, and its evaluation files.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import read_json, read_json_lines
from hnc_ds.llava.benchmark_files import READERS, SHORT, QuestionId
from hnc_ds.model.llava_prompt import IMAGE
from hnc_ds.reading import LONGEST_LINE, reading

PROMPT_VERSION = 2
"""To be raised with any change of the prompts: older answers on disk are then refused."""

YEAR_OF = {"train": "2014", "val": "2014", "test": "2015"}
"""COCO's year for each split of VQA v2.0."""

_SPLIT = re.compile("|".join(YEAR_OF))
_YEAR = re.compile(r"\d{4}$")


def as_number(question_id: QuestionId) -> QuestionId:
    """An id written as text as a number; other text is returned unchanged."""
    text = str(question_id)
    return int(text) if text.isascii() and text.isdecimal() else question_id


class VqaQuestion(msgspec.Struct, frozen=True):
    """A question about an image."""

    unit: str
    """Unique; question ids are not in LLaVA's TextVQA file, where they are image ids."""
    question_id: QuestionId
    image: str
    """File name."""
    text: str
    """The user's message, with OCR tokens and instruction."""


class Questions(msgspec.Struct, frozen=True):
    """The questions of a file."""

    asked: list[VqaQuestion]
    ocr: str
    """Whether OCR tokens are included: "with", "without" or "as in the file"."""


class _VqaQuestion(msgspec.Struct):
    question_id: int
    image_id: int
    question: str


class _VqaFile(msgspec.Struct):
    questions: list[_VqaQuestion]
    data_subtype: str


class _TextQuestion(msgspec.Struct):
    question_id: int
    image_id: str
    question: str


class _TextFile(msgspec.Struct):
    data: list[_TextQuestion]


class _Read(msgspec.Struct):
    image_id: str
    ocr_tokens: list[str]


class _ReadFile(msgspec.Struct):
    data: list[_Read]


class _LlavaQuestion(msgspec.Struct):
    question_id: QuestionId
    image: str
    text: str


def read_vqa_questions(dataset: str, path: Path, ocr: Path | None = None) -> Questions:
    """The questions of a file, in its order.

    Args:
        dataset: Name in FREE_FORM.
        path: Questions in the data set's layout or LLaVA's.
        ocr: TextVQA's file of OCR tokens; None for questions without them.

    Raises:
        UserError: The file is missing, broken or of another layout; an id occurs twice; an image
            has no OCR tokens; a question contains the image token.
    """
    if is_llavas_file(path, dataset):
        if ocr is not None:
            raise UserError(f"{path}: LLaVA's questions hold their OCR tokens; leave out --ocr")
        asked, mode = list(_of_llava(path, dataset)), "as in the file"
    elif dataset in READERS:
        asked, mode = list(_of_benchmark(path, dataset)), "without"
    elif dataset == "vqav2":
        asked, mode = list(_of_vqa(path)), "without"
    else:
        tokens = None if ocr is None else _read_tokens(ocr)
        asked, mode = list(_of_text_vqa(path, tokens, ocr)), "without" if ocr is None else "with"
    _check(asked, dataset, path)
    return Questions(asked, mode)


def is_llavas_file(path: Path, dataset: str) -> bool:
    """Whether the file is LLaVA's JSON Lines, judged by its first line."""
    if path.is_dir():  # of files of a benchmark
        return False
    with reading(path, f"{dataset} needs it"), path.open("rb") as file:
        first = file.readline(LONGEST_LINE)
    try:
        value = msgspec.json.decode(first)
    except (ValueError, RecursionError):  # msgspec's are ValueErrors
        return False
    # POPE's own files have lines with a text and its label.
    return isinstance(value, dict) and "text" in value and "label" not in value


def _of_benchmark(path: Path, dataset: str) -> Iterator[VqaQuestion]:
    for one in READERS[dataset](path):
        yield VqaQuestion(str(one.question_id), one.question_id, one.image_file, one.prompt)


def _of_vqa(path: Path) -> Iterator[VqaQuestion]:
    file = read_json(path, _VqaFile, "VQA v2.0")
    for row in file.questions:
        image = vqa_image(file.data_subtype, row.image_id)
        text = short_question(row.question)
        yield VqaQuestion(str(row.question_id), row.question_id, image, text)


def vqa_image(subtype: str, image_id: int) -> str:
    """File name of an image of VQA v2.0: COCO_val2014_000000000042.jpg.

    Args:
        subtype: data_subtype of the questions; test-dev2015 and minival2014 have images of
            test2015 and val2014.
        image_id: COCO's image id.
    """
    return f"COCO_{coco_split(subtype)}_{image_id:012d}.jpg"


@cache
def coco_split(subtype: str) -> str:
    """COCO's split of a data_subtype: test2015 for test-dev2015, val2014 for minival2014 and
    mini-val; a name without a single split is returned unchanged."""
    kinds = set(_SPLIT.findall(subtype))
    if len(kinds) != 1:
        return subtype
    (kind,), year = kinds, _YEAR.search(subtype)
    return f"{kind}{year[0] if year else YEAR_OF[kind]}"


def _of_text_vqa(
    path: Path, tokens: Mapping[str, Sequence[str]] | None, ocr: Path | None
) -> Iterator[VqaQuestion]:
    for row in read_json(path, _TextFile, "TextVQA").data:
        if tokens is not None and row.image_id not in tokens:
            raise UserError(
                f"{ocr}: has no OCR tokens of image {row.image_id}; take the files of one split"
            )
        text = short_question(row.question, None if tokens is None else tokens[row.image_id])
        yield VqaQuestion(str(row.question_id), row.question_id, f"{row.image_id}.jpg", text)


def _read_tokens(path: Path) -> dict[str, list[str]]:
    rows = read_json(path, _ReadFile, "TextVQA's OCR tokens").data
    found = {row.image_id: row.ocr_tokens for row in rows}
    if len(found) < len(rows):
        twice = next(row for row in rows if found[row.image_id] is not row.ocr_tokens)
        raise UserError(f"{path}: holds image {twice.image_id} twice; copy it again")
    return found


def _of_llava(path: Path, dataset: str) -> Iterator[VqaQuestion]:
    seen: Counter[QuestionId] = Counter()
    for row in read_json_lines(path, _LlavaQuestion, f"LLaVA's questions of {dataset}"):
        unit = f"{row.question_id}#{seen[row.question_id]}"
        seen[row.question_id] += 1
        yield VqaQuestion(unit, row.question_id, row.image, row.text)


def _check(asked: Sequence[VqaQuestion], dataset: str, path: Path) -> None:
    if not asked:
        raise UserError(f"{path}: holds no question")
    units = Counter(q.unit if dataset == "textvqa" else str(q.question_id) for q in asked)
    if twice := [unit for unit, count in units.items() if count > 1]:
        raise UserError(f"{path}: holds question {twice[0]} twice; copy the file again")
    for question in asked:
        if IMAGE in question.text:
            raise UserError(
                f"{path}: question {question.question_id} contains the image token '{IMAGE}'; "
                "remove it"
            )


def short_question(question: str, ocr_tokens: Sequence[str] | None = None) -> str:
    """The user's message for a question of VQA v2.0 or TextVQA.

    Args:
        question: The annotated question.
        ocr_tokens: Words read in the image; None for a question without them.
    """
    read = [] if ocr_tokens is None else [f"Reference OCR token: {', '.join(ocr_tokens)}"]
    return "\n".join([question, *read, SHORT])
