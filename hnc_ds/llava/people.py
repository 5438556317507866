"""What people answered: annotations of VQA v2.0 and TextVQA. No torch here."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.readers.annotations import read_json
from hnc_ds.llava.questions import vqa_picture


class Annotated(msgspec.Struct, frozen=True):
    """A question with the answers of people."""

    question_id: int
    image: str
    """What its questions have in common: the picture's id."""
    picture: str
    """File name of it."""
    question: str
    answers: tuple[str, ...]
    answer_type: str = ""
    question_type: str = ""


class _Answer(msgspec.Struct):
    answer: str


class _Annotation(msgspec.Struct):
    question_id: int
    image_id: int
    question_type: str
    answer_type: str
    answers: list[_Answer]


class _AnnotationFile(msgspec.Struct):
    annotations: list[_Annotation]
    data_subtype: str = ""


class _Question(msgspec.Struct):
    question_id: int
    question: str


class _QuestionFile(msgspec.Struct):
    questions: list[_Question]


class _TextQuestion(msgspec.Struct):
    question_id: int
    image_id: str
    question: str
    answers: list[str] = []


class _TextFile(msgspec.Struct):
    data: list[_TextQuestion]


def read_people(dataset: str, annotations: Path, questions: Path | None) -> list[Annotated]:
    """Annotated questions in the order of the file.

    Args:
        dataset: vqav2 or textvqa.
        annotations: The data set's file with answers.
        questions: VQA v2.0's file of questions, which its annotations lack.

    Raises:
        UserError: A file is missing, broken or of another layout; the questions are of another
            split; a question without answers, or twice.
    """
    if dataset == "vqav2":
        found = list(_of_vqa(annotations, questions))
    else:
        found = list(_of_text_vqa(annotations))
    seen: set[int] = set()
    for one in found:
        if not one.answers:
            raise UserError(
                f"{annotations}: question {one.question_id} has no answers; test splits have none, "
                "take the one for validation"
            )
        if one.question_id in seen:
            raise UserError(f"{annotations}: question {one.question_id} stands twice")
        seen.add(one.question_id)
    if not found:
        raise UserError(f"{annotations}: holds no question")
    return found


def _of_vqa(annotations: Path, questions: Path | None) -> Iterator[Annotated]:
    texts: dict[int, str] = {}
    if questions is not None:
        file = read_json(questions, _QuestionFile, "VQA v2.0's questions")
        texts = {row.question_id: row.question for row in file.questions}
        if len(texts) < len(file.questions):
            counts = Counter(row.question_id for row in file.questions)
            twice = next(number for number, count in counts.items() if count > 1)
            raise UserError(f"{questions}: question {twice} stands twice; copy the file again")
    content = read_json(annotations, _AnnotationFile, "VQA v2.0's annotations")
    for row in content.annotations:
        if questions is not None and row.question_id not in texts:
            raise UserError(
                f"{questions}: has no question {row.question_id} of {annotations}; take the files "
                "of one split"
            )
        yield Annotated(
            row.question_id,
            str(row.image_id),
            vqa_picture(content.data_subtype, row.image_id),
            texts.get(row.question_id, ""),
            tuple(one.answer for one in row.answers),
            row.answer_type,
            row.question_type,
        )


def _of_text_vqa(path: Path) -> Iterator[Annotated]:
    for row in read_json(path, _TextFile, "TextVQA").data:
        picture = f"{row.image_id}.jpg"
        yield Annotated(row.question_id, row.image_id, picture, row.question, tuple(row.answers))
