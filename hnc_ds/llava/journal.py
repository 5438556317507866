"""Answers on disk while they are made: a file for each process, added to, and in the end one file.

    OUT/parts/00003.jsonl    a header with what the answers depend on, then an answer a line
    OUT/answers.jsonl        all of them in the order of the questions, when all are there

A line is written and flushed to the disk at once; what a killed process left of its last line is
cut off. Which process answered what does not matter: each begins with what all files hold.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.llava.questions import QuestionId, VqaQuestion
from hnc_ds.reading import decode_json
from hnc_ds.whole_files import write_whole, writing

T = TypeVar("T")

ANSWERS = "answers.jsonl"
PARTS = "parts"


class Job(msgspec.Struct, frozen=True, tag_field="item", tag="job"):
    """Everything that answers depend on."""

    model: str
    model_sha256: str
    """Over all files of the folder that are read."""
    dataset: str
    ocr: str
    dtype: str
    longest: int
    """Tokens of an answer."""
    prompt_version: int = 0
    """Of prompts.py; files that are older than these two fields have 0."""
    view_version: int = 0
    """Of model.py's view of images."""


class AnswerLine(msgspec.Struct, frozen=True, tag_field="item", tag="answer"):
    """An answer, in the layout of LLaVA's files with more besides."""

    question_id: QuestionId
    image: str
    prompt: str
    text: str
    """The answer."""
    answer_id: str
    """The unit of the question: unique where question ids are not."""
    model_id: str
    margin: float | None = None
    """Lead of the first token's logit; None where the picture could not be read."""
    metadata: dict[str, str] = {}


class Journal:
    """What one process adds, and what all have.

    Args:
        folder: Of the answers.
        job: Of this run.
        part: Number of this process.

    Raises:
        UserError: Answers of another job lie there, another process writes this part, or the folder
            cannot be written.
    """

    def __init__(self, folder: Path, job: Job, part: int) -> None:
        self._folder, self._job = folder, job
        self._path = folder / PARTS / f"{part:05d}.jsonl"
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b", buffering=0)
        self._lock(part)
        with writing(self._path):
            self._cut_torn_line()
        if not self._file.tell():
            self._add([msgspec.json.encode(job)])
        self.known()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def leave_to_parent(self, worker: int) -> None:
        """Let go of this part in a process that was forked, so that it is free when the parent is
        killed."""
        del worker
        self._file.close()

    def known(self) -> dict[str, AnswerLine]:
        """All answers that are there, by unit; those to an image rather than those without one.

        Raises:
            UserError: A file is of another job, or broken elsewhere than at its end.
        """
        found: dict[str, AnswerLine] = {}
        for path in sorted(self._path.parent.glob("*.jsonl")):
            for line in _whole_lines(path, self._job):
                if line.answer_id not in found or found[line.answer_id].margin is None:
                    found[line.answer_id] = line
        return found

    def known_to(self, asked: Sequence[VqaQuestion]) -> dict[str, AnswerLine]:
        """As ``known``, of questions.

        Raises:
            UserError: As ``known``; an answer is to another question, or about another image.
        """
        known = self.known()
        for question in asked:
            line = known.get(question.unit)
            asks = (question.question_id, question.text, question.image)
            if line is not None and (line.question_id, line.prompt, line.image) != asks:
                raise UserError(
                    f"{self._folder}: holds an answer to another question {question.question_id} "
                    f"('{_short(line.prompt)}' about {line.image}, not '{_short(question.text)}' "
                    f"about {question.image}); choose another --out, or remove the folder"
                )
        return known

    def add(self, answers: Iterable[AnswerLine]) -> None:
        """Write answers; when this returns they are on the disk."""
        self._add([msgspec.json.encode(answer) for answer in answers])

    def merge(self, asked: Sequence[VqaQuestion]) -> Path | None:
        """Write all answers in the order of the questions; None as long as some are missing."""
        known = self.known()
        if any(question.unit not in known for question in asked):
            return None
        out = self._folder / ANSWERS
        lines = (msgspec.json.encode(known[q.unit]) + b"\n" for q in asked)
        write_whole(out, *lines)
        return out

    def _add(self, lines: Sequence[bytes]) -> None:
        left = memoryview(b"".join(line + b"\n" for line in lines))
        with writing(self._path):
            while left:  # a disk that gets full takes a part
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())

    def _lock(self, part: int) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{self._path}: another process is at part {part}; wait for it, or stop it"
            ) from error
        except OSError:
            pass  # a disk without locks: parts have different numbers all the same

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)


def _short(text: str) -> str:
    """The question itself, without what is asked around it."""
    return text.partition("\n")[0][:80]


def _whole_lines(path: Path, job: Job) -> Iterator[AnswerLine]:
    """The answers of a part; a line that is being written is left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    if not lines:
        return
    _check_job(path, _decoded(lines[0], Job, path, 1), job)
    for number, line in enumerate(lines[1:], start=2):
        yield _decoded(line, AnswerLine, path, number)


def _decoded(line: bytes, kind: type[T], path: Path, number: int) -> T:
    again = "remove the file to answer its questions again"
    return decode_json(line, kind, f"{path}:{number}", again, "broken")


def _check_job(path: Path, theirs: Job, ours: Job) -> None:
    for name in Job.__struct_fields__:
        one, other = getattr(theirs, name), getattr(ours, name)
        if one != other and name != "model":  # the same folder may have been moved
            raise UserError(
                f"{path}: holds answers with {name} {one}, not {other}; choose another --out, or "
                "remove the folder"
            )
