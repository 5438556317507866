"""Answers that are to be scored, from the three kinds of files that hold them. No torch here.

ours and LLaVA's   a JSON value a line: {question_id, text, prompt, model_id}
the VQA server's   a JSON list of {question_id, answer}
"""

import codecs
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.readers.annotations import read_json, read_json_lines
from hnc_ds.llava.questions import QuestionId


class GivenAnswer(msgspec.Struct, frozen=True):
    """An answer of a model."""

    question_id: QuestionId
    text: str
    prompt: str = ""
    model_id: str = ""
    margin: float | msgspec.UnsetType | None = msgspec.UNSET
    """Of 'hnc-ds answer': None where there was no image."""
    metadata: dict[str, Any] = {}

    @property
    def ocr(self) -> str:
        """Whether it was asked with the words that were read in the picture; "not told" by others'
        files."""
        return str(self.metadata.get("ocr", "not told"))


class _ServerAnswer(msgspec.Struct, frozen=True):
    question_id: QuestionId
    answer: str


def read_given(path: Path) -> list[GivenAnswer]:
    """The answers of a file, in its order.

    Raises:
        UserError: Missing, broken, empty, in another layout, or of several models.
    """
    given = list(_read(path))
    if not given:
        raise UserError(f"{path}: holds no answer")
    models = dict.fromkeys(answer.model_id for answer in given)
    if len(models) > 1:
        raise UserError(
            f"{path}: answers of {len(models)} models ({', '.join(list(models)[:3])}); score those "
            "of each model by itself"
        )
    modes = dict.fromkeys(answer.ocr for answer in given)
    if len(modes) > 1:
        raise UserError(
            f"{path}: answers with OCR tokens {' and '.join(modes)}; score each kind by itself"
        )
    return given


def _read(path: Path) -> Sequence[GivenAnswer]:
    try:
        with path.open("rb") as file:
            first = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if first == b"[":
        rows = read_json(path, list[_ServerAnswer], "the VQA server's answers")
        return [GivenAnswer(row.question_id, row.answer) for row in rows]
    return list(read_json_lines(path, GivenAnswer, "answers"))


def check_once(ids: Sequence[object], path: Path) -> None:
    """Refuse an id that stands twice.

    Raises:
        UserError: One does.
    """
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: {counted(len(twice), 'question is', 'questions are')} answered twice, the "
            f"first is {twice[0]}; remove "
            "one answer of each"
        )
