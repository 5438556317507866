"""Answers for VQA v2.0's server: a JSON list of {question_id, answer}. No torch here.

The server takes nothing but all questions of test2015, in its test-dev phase too. Answers to
test-dev alone are completed with empty ones, as LLaVA's conversion script does.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError, counted
from hnc_ds.llava.answer_text import normalise_m4c
from hnc_ds.llava.questions import QuestionId, Questions, as_number, read_vqa_questions
from hnc_ds.whole_files import write_whole

SERVER = "answers.vqa.json"
QUESTIONS = 447_793
"""Of test2015."""


def questions_beside(asked: Questions, path: Path) -> list[QuestionId]:
    """Ids of the questions of a file that are not asked.

    Args:
        asked: The questions that are answered.
        path: The questions of all of test2015, VQA v2.0's file or LLaVA's.

    Raises:
        UserError: The file lacks a question that is asked, or cannot be read.
    """
    own = {as_number(question.question_id) for question in asked.asked}
    found = {as_number(one.question_id): None for one in read_vqa_questions("vqav2", path).asked}
    if unknown := [number for number in own if number not in found]:
        raise UserError(
            f"--complete-with {path}: lacks {len(unknown):,} of the {len(own):,} questions that "
            f"are asked, one is {unknown[0]}; give the questions of all of test2015"
        )
    return [number for number in found if number not in own]


def write_for_server(
    folder: Path,
    answers: Sequence[tuple[QuestionId, str]],
    beside: Sequence[QuestionId],
    normalise: bool,
    of_test: bool,
) -> str:
    """Write answers.vqa.json.

    Args:
        folder: Of the answers.
        answers: Question ids with their answers.
        beside: Questions that get an empty answer, as ``questions_beside`` returns them.
        normalise: As LLaVA's conversion script does, before the server does it again.
        of_test: Whether these are answers about images of test2015.

    Returns:
        What was written and whether the server takes it.
    """
    rows = [
        {"question_id": as_number(number), "answer": normalise_m4c(text) if normalise else text}
        for number, text in (*answers, *((number, "") for number in beside))
    ]
    write_whole(folder / SERVER, msgspec.json.encode(rows))
    empty = f", {len(beside):,} of them empty (not asked)" if beside else ""
    return f"{SERVER}: {counted(len(rows), 'answer')}{empty}; {_use(len(rows), of_test)}"


def _use(count: int, of_test: bool) -> str:
    if count == QUESTIONS:
        return "for VQA's server"
    if not of_test:
        return "not for VQA's server, which takes test2015 alone; 'hnc-ds score' scores them"
    return (
        f"not for VQA's server, which takes all {QUESTIONS:,} questions of test2015, for test-dev "
        "too; --complete-with v2_OpenEnded_mscoco_test2015_questions.json adds those that were not "
        "asked"
    )
