"""THE TABLE of scorers: an answer against ten annotators', from 0 to 1; reading of the latter.

Sources: Antol et al. 2015 and vqaEval.py of VQA (GT-Vision-Lab/VQA, revision a013f00);
TextVQAAccuracyEvaluator and STVQAAccuracyEvaluator in MMF's m4c_evaluators.py. Both normalize with
the same tables, oddities included; contractions.json holds their contractions that can apply. No
torch here.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import read_json
from hnc_ds.llava.benchmark_files import READERS, AnnotatedQuestion, QuestionId
from hnc_ds.llava.questions import vqa_image

MARKS = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@")
PUNCTUATION = (*MARKS, "`", ",", "?", "!")
"""In their order. Not among them: ' : . $ % & # * ~ | ^"""

NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
ARTICLES = frozenset({"a", "an", "the"})
CONTRACTIONS: dict[str, str] = json.loads(
    (Path(__file__).parent / "contractions.json").read_text(encoding="utf-8")
)

MOST_PERIODS = 32
"""Their code passes re.UNICODE, which is 32, as the maximum number of replacements."""

_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # their look-behind is misspelt and always true

Scorer = Callable[[str, Sequence[str]], float]
"""Takes a model's answer and the annotators' answers."""


def vqa_official(answer: str, people: Sequence[str]) -> float:
    """VQA accuracy as the official evaluation computes it: where all annotators agree, nothing is
    normalized, and 'Yes' is not 'yes'."""
    given, references = clean(answer), [clean(one) for one in people]
    if len(set(references)) > 1:
        given, references = normalise(given), [normalise(one) for one in references]
    return leave_one_out(references.count(given), len(references))


def vqa_always_normalised(answer: str, people: Sequence[str]) -> float:
    """VQA accuracy with all answers normalized, as several tools compute it."""
    return leave_one_out(_votes(answer, people), len(people))


def vqa_min3(answer: str, people: Sequence[str]) -> float:
    """min(votes / 3, 1) of normalized answers, without leaving one out."""
    return min(_votes(answer, people) / 3, 1.0)


def _votes(answer: str, people: Sequence[str]) -> int:
    return [normalise(clean(one)) for one in people].count(normalise(clean(answer)))


def m4c(answer: str, people: Sequence[str]) -> float:
    """TextVQA's accuracy: M4C's normalization, then leave-one-out."""
    references = [normalise_m4c(one) for one in people]
    return leave_one_out(references.count(normalise_m4c(answer)), len(references))


def exact_match(answer: str, people: Sequence[str]) -> float:
    """1 if any annotator gave this answer, after M4C's normalization (STVQAAccuracyEvaluator)."""
    return float(normalise_m4c(answer) in {normalise_m4c(one) for one in people})


def leave_one_out(votes: int, people: int) -> float:
    """Mean over the annotators, each left out in turn, of min(votes of the others / 3, 1): with ten
    annotators 0, 0.3, 0.6, 0.9, and 1 for four votes or more."""
    if not people:
        return 0.0
    without_voter, without_other = (min(n / 3, 1.0) for n in (votes - 1, votes))
    return (votes * without_voter + (people - votes) * without_other) / people


def clean(text: str) -> str:
    """Line breaks and tabs become blanks; stripped."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@cache
def normalise(text: str) -> str:
    """VQA's normalization of a cleaned answer: marks, periods, numbers, articles, contractions."""
    return _without_articles(_without_marks(text))


@cache
def normalise_m4c(text: str) -> str:
    """M4C's normalization, which TextVQA and LLaVA's evaluation use: VQA's after other changes."""
    plain = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise(clean(plain.strip()))


def _without_marks(text: str) -> str:
    everywhere = _DIGIT_COMMA.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        apart = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if apart or everywhere else " ")
    return _PERIOD.sub("", found, count=MOST_PERIODS)


def _without_articles(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


SCORERS: Mapping[str, Scorer] = {
    "vqa_official": vqa_official,
    "vqa_always_normalised": vqa_always_normalised,
    "vqa_min3": vqa_min3,
    "m4c": m4c,
    "exact_match": exact_match,
}


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


def read_annotations(
    dataset: str, annotations: Path, questions: Path | None
) -> list[AnnotatedQuestion]:
    """Annotated questions in the order of the file.

    Args:
        dataset: Name in FREE_FORM.
        annotations: The data set's file of answers.
        questions: VQA v2.0's file of questions; its annotations do not hold their texts.

    Raises:
        UserError: A file is missing, broken or of another layout; the questions are of another
            split; a question has no answers or occurs twice.
    """
    if dataset in READERS:
        found = list(READERS[dataset](annotations))
    elif dataset == "vqav2":
        found = list(_of_vqa(annotations, questions))
    else:
        found = list(_of_text_vqa(annotations))
    seen: set[QuestionId] = set()
    for one in found:
        if not one.answers:
            raise UserError(
                f"{annotations}: question {one.question_id} has no answers, as in test splits; "
                "take the validation split"
            )
        if one.question_id in seen:
            raise UserError(f"{annotations}: holds question {one.question_id} twice")
        seen.add(one.question_id)
    if not found:
        raise UserError(f"{annotations}: holds no question")
    return found


def _of_vqa(annotations: Path, questions: Path | None) -> Iterator[AnnotatedQuestion]:
    texts: dict[int, str] = {}
    if questions is not None:
        file = read_json(questions, _QuestionFile, "VQA v2.0's questions")
        texts = {row.question_id: row.question for row in file.questions}
        if len(texts) < len(file.questions):
            counts = Counter(row.question_id for row in file.questions)
            twice = next(number for number, count in counts.items() if count > 1)
            raise UserError(f"{questions}: holds question {twice} twice; copy the file again")
    content = read_json(annotations, _AnnotationFile, "VQA v2.0's annotations")
    for row in content.annotations:
        if questions is not None and row.question_id not in texts:
            raise UserError(
                f"{questions}: has no question {row.question_id} of {annotations}; take the files "
                "of one split"
            )
        yield AnnotatedQuestion(
            row.question_id,
            str(row.image_id),
            vqa_image(content.data_subtype, row.image_id),
            texts.get(row.question_id, ""),
            tuple(one.answer for one in row.answers),
            row.answer_type,
            row.question_type,
        )


def _of_text_vqa(path: Path) -> Iterator[AnnotatedQuestion]:
    for row in read_json(path, _TextFile, "TextVQA").data:
        image_file = f"{row.image_id}.jpg"
        yield AnnotatedQuestion(
            row.question_id, row.image_id, image_file, row.question, tuple(row.answers)
        )
