"""Read annotation files as typed records, with errors that name the file and the position.

JSON, lines of JSON, CSV, and Flickr30k's lines of image,caption. A row of CSV with more cells than
the header is an error, except that commas of an unquoted caption in the last column belong to the
caption.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.rules import Question
from hnc_ds.launch import is_rank_zero
from hnc_ds.reading import parse_json, read_bytes, reading

LARGEST = 1 << 29
"""Maximum bytes of an annotation file; the largest, of VQA v2.0's training questions, has 360
MB."""

T = TypeVar("T")


def read_json(path: Path, kind: type[T], benchmark: str) -> T:
    """Read a JSON file.

    Args:
        path: The file.
        kind: Type that msgspec converts it to.
        benchmark: Name of the benchmark, for messages.

    Raises:
        UserError: The file is missing, truncated, of another layout, or repeats a key of an object.
    """
    content = parse_json(_content(path, benchmark), path, "copy the file again")
    return converted(content, kind, f"{path}", benchmark)


def read_json_lines(path: Path, kind: type[T], benchmark: str) -> Iterator[T]:
    """Read a file with one JSON value per line. Raises UserError as ``read_json``."""
    content = _content(path, benchmark)
    if not content.strip():
        raise UserError(f"{path}: is empty; copy the file again")
    # str.splitlines would also split at other separators inside texts.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            value = parse_json(line, where, "copy the file again")
            yield converted(value, kind, where, benchmark)


def converted(content: Any, kind: type[T], where: str, benchmark: str) -> T:
    """Convert a parsed value. Raises UserError if it is of another layout."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{where}: not in the layout of {benchmark} ({error}); is it another benchmark's file?"
        ) from error


def files_in(
    folder: Path, names: Mapping[str, str], benchmark: str, allow_missing: bool
) -> dict[str, Path]:
    """The files of a benchmark with one file per group.

    Args:
        folder: Folder of the files, or one of the files.
        names: File name by group.
        benchmark: Name of the benchmark, for messages.
        allow_missing: Allow some of them to be missing.

    Raises:
        UserError: Files are missing that must not be, or all are.
    """
    if folder.is_file():
        found = {group: folder for group, name in names.items() if name == folder.name}
    else:
        found = {group: folder / n for group, n in names.items() if (folder / n).is_file()}
    missing = [name for group, name in names.items() if group not in found]
    if not found or (missing and not allow_missing):
        raise UserError(
            f"{folder}: {benchmark} also needs {', '.join(missing)}; add them, or give "
            "--allow-missing to measure the others"
            if found
            else f"{folder}: none of the files of {benchmark} exists: {', '.join(missing)}"
        )
    if missing and is_rank_zero():
        print(f"{benchmark}: {', '.join(missing)} missing in {folder}; the others are measured")
    return found


def file_in(place: Path, name: str, benchmark: str) -> Path:
    """The file of a benchmark: the given path, or the file of that name in the given folder.

    Raises:
        UserError: The file does not exist.
    """
    path = place / name if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{path}: no such file; {benchmark} needs it")
    return path


def with_unique_ids(questions: Iterable[Question], benchmark: str) -> list[Question]:
    """The questions as a list.

    Raises:
        UserError: Two questions have the same id.
    """
    seen: set[str] = set()
    checked = []
    for question in questions:
        if question.id in seen:
            raise UserError(
                f"{benchmark}: {question.id} occurs twice; copy its file again, or remove one"
            )
        seen.add(question.id)
        checked.append(question)
    return checked


def read_text(path: Path, benchmark: str) -> str:
    """Text of a UTF-8 file without byte order mark; line ends are kept.

    Raises:
        UserError: The file is missing or not UTF-8.
    """
    with reading(path, "save it as UTF-8", "not text"):
        return _content(path, benchmark).decode("utf-8-sig")


def lines_of(text: str) -> list[str]:
    """Lines without their ends; ``splitlines`` would also split at other separators inside
    captions."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _content(path: Path, benchmark: str) -> bytes:
    if not path.exists():
        raise UserError(f"{path}: no such file; {benchmark} needs it")
    return read_bytes(path, f"give the file of {benchmark}", LARGEST)


CAPTIONED = ["image", "caption"]
"""The header of Flickr30k's lines."""


def read_csv(path: Path, columns: Sequence[str], benchmark: str) -> Iterator[dict[str, str]]:
    """Rows of a CSV file by column name.

    Raises:
        UserError: The file or a column is missing, a row has fewer or more cells than the header,
            or quotes are malformed.
    """
    rows = csv.reader(io.StringIO(read_text(path, benchmark), newline=""), strict=True)
    names = _next(rows, path) or []
    if lacking := [name for name in columns if name not in names]:
        raise UserError(f"{path}: no column {', '.join(lacking)}; is it a file of {benchmark}?")
    while (cells := _next(rows, path)) is not None:
        if not cells:
            continue
        if len(cells) != len(names):
            raise UserError(
                f"{path}:{rows.line_num}: {len(cells)} columns where the header has {len(names)}; "
                "put text with commas in quotes, or copy the file again"
            )
        yield {name: cells[names.index(name)] for name in columns}


def read_captioned_lines(path: Path, benchmark: str) -> Iterator[tuple[str, str]]:
    """(image, caption) of a file with those columns; captions may be unquoted.

    In a row that is not valid CSV with two cells, the caption is everything after the first comma,
    as in CLIP_benchmark for flickr30k_test_karpathy.txt.

    Raises:
        UserError: As ``read_csv``; a row has no caption.
    """
    header, *lines = lines_of(read_text(path, benchmark))
    if [name.strip() for name in header.split(",")] != CAPTIONED:
        rows = read_csv(path, CAPTIONED, benchmark)
        yield from ((row["image"], row["caption"]) for row in rows)
        return
    for number, line in enumerate(lines, start=2):
        if line.strip():
            image, caption = _captioned(line, f"{path}:{number}")
            yield image, caption


def _captioned(line: str, where: str) -> tuple[str, str]:
    image, comma, caption = line.partition(",")
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as error:
        if "unexpected end" in str(error):  # an unclosed quote
            raise UserError(f"{where}: a quote is not closed; correct the line") from error
        cells = []
    if len(cells) == len(CAPTIONED):
        image, caption = cells
    if not comma or not image.strip() or not caption.strip():
        raise UserError(f"{where}: not an image, a comma and a caption; correct the line")
    return image, caption


def _next(rows: Iterator[list[str]], path: Path) -> list[str] | None:
    """The next row; None after the last."""
    try:
        return next(rows, None)
    except csv.Error as error:
        line = getattr(rows, "line_num", 0)
        raise UserError(
            f"{path}:{line}: not a row of CSV ({error}); copy the file again"
        ) from error
