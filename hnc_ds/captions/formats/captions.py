"""Read files of captions: our own, as the HNC data set was released, or lists with negatives.

All are read image by image and may be gzipped; what a file is, is told by its content and
not by its name. Writing captions.jsonl is captions_file.py's work.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from hnc_ds.captions.formats.caption_lists import read_listed_groups
from hnc_ds.captions.formats.caption_rows import is_list
from hnc_ds.captions.formats.gzipped import open_unzipped
from hnc_ds.captions.formats.hnc_release import is_release, read_release
from hnc_ds.captions.formats.negative_columns import NegativeColumns
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, lines
from hnc_ds.records import ImageCaptions

_START_BYTES = 1 << 16  # room for white space and one image id
_Line = TypeVar("_Line")


def read_captions(
    path: Path,
    negatives: NegativeColumns = NegativeColumns(),  # noqa: B008, a constant
) -> Iterator[ImageCaptions]:
    """The images of a captions file, one after the other; memory holds one at a time.

    Args:
        path: captions.jsonl of ``hnc-ds generate``, a released HNC file, or a list of captions
            with negatives; plain or gzipped.
        negatives: Of a list.

    Raises:
        UserError: Missing, empty, truncated, or of no kind; names the line or image.
    """
    check_is_file(path)
    if is_a_list(path):
        yield from read_listed_groups(path, negatives)
        return
    if negatives.names or negatives.types:
        raise UserError(f"{path}: its negatives have types; --negative_columns are of tables")
    with open_unzipped(path) as file:
        released = starts_as_release(file)
        yield from read_release(file, path) if released else read_lines(file, path, ImageCaptions)


def is_a_list(path: Path) -> bool:
    """Whether a file is a list of captions of others, by its start.

    Raises:
        UserError: It is empty, or not readable.
    """
    with open_unzipped(path) as file:
        start = file.read(_START_BYTES)
    if not start.strip():
        raise UserError(f"{path}: empty; make captions with 'hnc-ds generate'")
    return is_list(start)


def check_is_file(path: Path) -> None:
    """Refuse a file of captions that is not there.

    Raises:
        UserError: It is not.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make captions with 'hnc-ds generate --out {path}'")


def starts_as_release(file: BinaryIO) -> bool:
    """Whether a file of captions, open at its start, is a released one; it stays at its start."""
    start = file.read(_START_BYTES)
    file.seek(0)
    return is_release(start)


def read_lines(file: BinaryIO, path: Path, type_: type[_Line]) -> Iterator[_Line]:
    """The lines of captions.jsonl, each decoded as a type with the fields that are wanted.

    Raises:
        UserError: A line that is none; names it.
    """
    what, again = "not an image's captions", "make the file again with 'hnc-ds generate'"
    for number, line in enumerate(lines(file, path), start=1):
        if not line.isspace():
            yield decode_json(line, type_, f"{path}: line {number}", again, what)
