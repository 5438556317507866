"""Annotation files as typed records. What is wrong with one is told in a line that names it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import Question
from hnc_ds.launch import is_rank_zero
from hnc_ds.reading import parse_json, read_bytes, reading

LARGEST = 1 << 29
"""Bytes of an annotation file; the largest, what people answered to VQA v2.0's training questions,
has some 360 MB."""

T = TypeVar("T")


def read_json(path: Path, kind: type[T], benchmark: str) -> T:
    """A JSON file whose content is of a kind.

    Args:
        path: The file.
        kind: What msgspec converts it to.
        benchmark: Its name, for messages.

    Raises:
        UserError: Missing, truncated, of another layout, or with a key twice in an object.
    """
    content = parse_json(_content(path, benchmark), path, "copy the file again")
    return converted(content, kind, f"{path}", benchmark)


def read_json_lines(path: Path, kind: type[T], benchmark: str) -> Iterator[T]:
    """A file with a JSON value of a kind on each line. Raises UserError as ``read_json`` does."""
    content = _content(path, benchmark)
    if not content.strip():
        raise UserError(f"{path}: is empty; copy the file again")
    # At line ends alone: a text may hold what str.splitlines takes for one.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            value = parse_json(line, where, "copy the file again")
            yield converted(value, kind, where, benchmark)


def converted(content: Any, kind: type[T], where: str, benchmark: str) -> T:
    """A value that was read, as a kind. Raises UserError if it is none."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{where}: not in the layout of {benchmark} ({error}); is it another benchmark's file?"
        ) from error


def files_in(
    folder: Path, names: Mapping[str, str], benchmark: str, allow_missing: bool
) -> dict[str, Path]:
    """The files of a benchmark that is split by group.

    Args:
        folder: Where they lie, or one of them.
        names: File name by group.
        benchmark: Its name, for messages.
        allow_missing: Whether some of them may be missing.

    Raises:
        UserError: Some are missing and may not be; or all of them.
    """
    if folder.is_file():
        found = {group: folder for group, name in names.items() if name == folder.name}
    else:
        found = {group: folder / n for group, n in names.items() if (folder / n).is_file()}
    missing = [name for group, name in names.items() if group not in found]
    if not found or (missing and not allow_missing):
        raise UserError(
            f"{folder}: {benchmark} also needs {', '.join(missing)}; put them there, or give "
            "--allow-missing to measure what is there"
            if found
            else f"{folder}: none of the files of {benchmark} is there: {', '.join(missing)}"
        )
    if missing and is_rank_zero():
        print(f"{benchmark}: {', '.join(missing)} missing in {folder}; the others are measured")
    return found


def file_in(place: Path, name: str, benchmark: str) -> Path:
    """The one file of a benchmark: what was given, or the file of that name in the folder given.

    Raises:
        UserError: There is none.
    """
    path = place / name if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{path}: no such file; {benchmark} needs it")
    return path


def without_twins(questions: Iterable[Question], benchmark: str) -> list[Question]:
    """The questions, none of which has the id of another.

    Raises:
        UserError: Two have.
    """
    seen: set[str] = set()
    found = []
    for question in questions:
        if question.id in seen:
            raise UserError(
                f"{benchmark}: {question.id} stands twice; copy its file again, or remove one"
            )
        seen.add(question.id)
        found.append(question)
    return found


def read_text(path: Path, benchmark: str) -> str:
    """A text file in UTF-8, without the mark of its byte order, its line ends as they are.

    Raises:
        UserError: Missing, or not such text.
    """
    with reading(path, "save it as UTF-8", "not text"):
        return _content(path, benchmark).decode("utf-8-sig")


def lines_of(text: str) -> list[str]:
    """Lines without their ends. Not ``splitlines``, which also cuts at marks inside captions."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _content(path: Path, benchmark: str) -> bytes:
    if not path.exists():
        raise UserError(f"{path}: no such file; {benchmark} needs it")
    return read_bytes(path, f"give the file of {benchmark}", LARGEST)
