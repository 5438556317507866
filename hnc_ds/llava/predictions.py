"""Files of a model's answers. No torch here.

    OUT/parts/00003.jsonl    a process's log: a header with everything the answers depend on, then
                             an answer a line
    OUT/answers.jsonl        all answers in the order of the questions, once complete

Each line of a log is synced to disk; a torn last line of a killed process is cut off. Any process
may continue any other's work: each reads all logs first.

    ours and LLaVA's   JSON Lines {question_id, text, prompt, model_id}
    the VQA server's   a JSON list of {question_id, answer}

The server only takes all questions of test2015, in its test-dev phase too. Answers to test-dev are
completed with empty ones, as LLaVA's conversion script does.
"""

import codecs
import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.released.annotations import read_json, read_json_lines
from hnc_ds.llava.benchmark_files import QuestionId
from hnc_ds.llava.questions import Questions, VqaQuestion, as_number, read_vqa_questions
from hnc_ds.llava.scorers import normalise_m4c
from hnc_ds.reading import decode_json, update_digest

SERVER = "answers.vqa.json"
VIZWIZ_SERVER = "answers.vizwiz.json"
QUESTIONS = 447_793
"""Questions of test2015."""


class Prediction(msgspec.Struct, frozen=True):
    """An answer of a model."""

    question_id: QuestionId
    text: str
    prompt: str = ""
    model_id: str = ""
    margin: float | msgspec.UnsetType | None = msgspec.UNSET
    """Set by 'hnc-ds answer': None where the image was missing."""
    metadata: dict[str, Any] = {}

    @property
    def ocr(self) -> str:
        """Whether the question included OCR tokens; "unknown" in other tools' files."""
        return str(self.metadata.get("ocr", "unknown"))


class _ServerAnswer(msgspec.Struct, frozen=True):
    question_id: QuestionId
    answer: str


def read_predictions(path: Path) -> list[Prediction]:
    """The answers of a file, in its order.

    Raises:
        UserError: The file is missing, broken, empty, of another layout, or of several models.
    """
    given = list(_read(path))
    if not given:
        raise UserError(f"{path}: holds no answer")
    models = dict.fromkeys(answer.model_id for answer in given)
    if len(models) > 1:
        raise UserError(
            f"{path}: answers of {len(models)} models ({', '.join(list(models)[:3])}); score each "
            "model separately"
        )
    modes = dict.fromkeys(answer.ocr for answer in given)
    if len(modes) > 1:
        raise UserError(
            f"{path}: answers with OCR tokens {' and '.join(modes)}; score each kind separately"
        )
    return given


def _read(path: Path) -> Sequence[Prediction]:
    try:
        with path.open("rb") as file:
            first = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if first == b"[":
        rows = read_json(path, list[_ServerAnswer], "the VQA server's answers")
        return [Prediction(row.question_id, row.answer) for row in rows]
    return list(read_json_lines(path, Prediction, "answers"))


def check_unique(ids: Sequence[object], path: Path) -> None:
    """Raise UserError for ids that occur twice."""
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: {counted(len(twice), 'question is', 'questions are')} answered twice, the "
            f"first is {twice[0]}; remove one answer of each"
        )


def questions_not_asked(asked: Questions, path: Path) -> list[QuestionId]:
    """Ids of the questions of a file that were not asked.

    Args:
        asked: The questions that are answered.
        path: All questions of test2015, in VQA v2.0's layout or LLaVA's.

    Raises:
        UserError: The file lacks a question that was asked, or cannot be read.
    """
    own = {as_number(question.question_id) for question in asked.asked}
    found = {as_number(one.question_id): None for one in read_vqa_questions("vqav2", path).asked}
    if unknown := [number for number in own if number not in found]:
        raise UserError(
            f"--complete-with {path}: lacks {len(unknown):,} of the {len(own):,} questions that "
            f"are asked, one is {unknown[0]}; give all questions of test2015"
        )
    return [number for number in found if number not in own]


def write_for_server(
    folder: Path,
    answers: Sequence[tuple[QuestionId, str]],
    not_asked: Sequence[QuestionId],
    normalise: bool,
    of_test: bool,
) -> str:
    """Write answers.vqa.json.

    Args:
        folder: Output folder of the answers.
        answers: Question ids with their answers.
        not_asked: Ids of questions that get an empty answer.
        normalise: Normalize answers as LLaVA's conversion script does; the server does it again.
        of_test: Whether the images are test2015's.

    Returns:
        A line for the user: what was written and whether the server accepts it.
    """
    rows = [
        {"question_id": as_number(number), "answer": normalise_m4c(text) if normalise else text}
        for number, text in (*answers, *((number, "") for number in not_asked))
    ]
    atomic_write(folder / SERVER, msgspec.json.encode(rows))
    empty = f", {len(not_asked):,} of them empty (not asked)" if not_asked else ""
    return f"{SERVER}: {counted(len(rows), 'answer')}{empty}; {_use(len(rows), of_test)}"


def write_for_vizwiz(folder: Path, answers: Sequence[tuple[str, str]]) -> str:
    """Write answers.vizwiz.json, normalized as LLaVA's conversion script does.

    Args:
        folder: Output folder of the answers.
        answers: Images with the answers to their questions.

    Returns:
        A line for the user: what was written and whether the server accepts it.
    """
    rows = [{"image": image, "answer": normalise_m4c(text)} for image, text in answers]
    atomic_write(folder / VIZWIZ_SERVER, msgspec.json.encode(rows))
    of_test = all(image.startswith("VizWiz_test_") for image, _ in answers)
    use = "for" if of_test else "not for"
    return f"{VIZWIZ_SERVER}: {counted(len(rows), 'answer')}; {use} VizWiz-VQA's server (test.json)"


def _use(count: int, of_test: bool) -> str:
    if count == QUESTIONS:
        return "for VQA's server"
    if not of_test:
        return "not for VQA's server, which only takes test2015; 'hnc-ds score' scores them"
    return (
        f"not for VQA's server, which takes all {QUESTIONS:,} questions of test2015, for test-dev "
        "too; --complete-with v2_OpenEnded_mscoco_test2015_questions.json adds those that were not "
        "asked"
    )


T = TypeVar("T")

ANSWERS = "answers.jsonl"
PARTS = "parts"


class Job(msgspec.Struct, frozen=True, tag_field="item", tag="job"):
    """Everything that answers depend on."""

    model: str
    model_sha256: str
    """folder_sha256 of the model's files."""
    dataset: str
    ocr: str
    dtype: str
    max_new_tokens: int
    prompt_version: int = 0
    """questions.PROMPT_VERSION; files older than this field have 0."""
    view_version: int = 0
    """model.VIEW_VERSION; files older than this field have 0."""


class AnswerLine(msgspec.Struct, frozen=True, tag_field="item", tag="answer"):
    """An answer in the layout of LLaVA's files, with further fields."""

    question_id: QuestionId
    image: str
    prompt: str
    text: str
    """The answer."""
    answer_id: str
    """VqaQuestion.unit: unique where question ids are not."""
    model_id: str
    margin: float | None = None
    """Difference of the first token's two largest logits; None where the image is unreadable."""
    metadata: dict[str, str] = {}


class AnswerLog:
    """One process's log, and the answers of all logs.

    Args:
        folder: Output folder of the answers.
        job: Everything this run's answers depend on.
        part: Number of this process.

    Raises:
        UserError: The folder holds answers of another job or cannot be written, or another process
            writes this part.
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

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def close_in_worker(self, worker: int) -> None:
        """Close the log in a forked worker, so that its lock ends with the parent."""
        del worker
        self._file.close()

    def known(self) -> dict[str, AnswerLine]:
        """Answers of all logs by unit; one with an image replaces one without.

        Raises:
            UserError: A log is of another job, or broken before its last line.
        """
        found: dict[str, AnswerLine] = {}
        for path in sorted(self._path.parent.glob("*.jsonl")):
            for line in _whole_lines(path, self._job):
                if line.answer_id not in found or found[line.answer_id].margin is None:
                    found[line.answer_id] = line
        return found

    def known_to(self, asked: Sequence[VqaQuestion]) -> dict[str, AnswerLine]:
        """``known``, checked against the questions.

        Raises:
            UserError: As ``known``; or the question or image of an answer has changed.
        """
        known = self.known()
        for question in asked:
            line = known.get(question.unit)
            expected = (question.question_id, question.text, question.image)
            if line is not None and (line.question_id, line.prompt, line.image) != expected:
                raise UserError(
                    f"{self._folder}: holds an answer to another question {question.question_id} "
                    f"('{_short(line.prompt)}' about {line.image}, not '{_short(question.text)}' "
                    f"about {question.image}); choose another --out, or remove the folder"
                )
        return known

    def add(self, answers: Iterable[AnswerLine]) -> None:
        """Append answers and sync them to disk."""
        self._add([msgspec.json.encode(answer) for answer in answers])

    def merge(self, asked: Sequence[VqaQuestion]) -> Path | None:
        """Write all answers in the order of the questions; None while some are missing."""
        known = self.known()
        if any(question.unit not in known for question in asked):
            return None
        out = self._folder / ANSWERS
        lines = (msgspec.json.encode(known[q.unit]) + b"\n" for q in asked)
        atomic_write(out, *lines)
        return out

    def _add(self, lines: Sequence[bytes]) -> None:
        left = memoryview(b"".join(line + b"\n" for line in lines))
        with writing(self._path):
            while left:  # a nearly full disk takes fewer bytes
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())

    def _lock(self, part: int) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{self._path}: another process writes part {part}; wait for it, or stop it"
            ) from error
        except OSError:
            pass  # a file system without locks; parts have different numbers anyway

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)


def _short(text: str) -> str:
    """The question without the rest of its prompt."""
    return text.partition("\n")[0][:80]


def _whole_lines(path: Path, job: Job) -> Iterator[AnswerLine]:
    """The answers of a log without a line that is still being written."""
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
        if one != other and name != "model":  # the folder may have been moved
            raise UserError(
                f"{path}: holds answers with {name} {one}, not {other}; choose another --out, or "
                "remove the folder"
            )


SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})
"""Suffixes of the files that a model is loaded from."""


def folder_sha256(folder: Path) -> str:
    """sha256 over names, sizes and contents of the files that a model is loaded from."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in SUFFIXES:
            digest.update(f"\n{path.name} {path.stat().st_size}\n".encode())
            update_digest(digest, path)
    return digest.hexdigest()
