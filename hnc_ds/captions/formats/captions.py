"""Read files of captions, of our own making or as the HNC data set was released.

Both kinds are read image by image and may be gzipped; what a file is, is told by its content and
not by its name. Writing captions.jsonl is captions_file.py's work.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from hnc_ds.captions.formats.gzipped import open_unzipped
from hnc_ds.captions.formats.hnc_release import is_release, read_release
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, lines
from hnc_ds.records import ImageCaptions

_START_BYTES = 1 << 16  # room for white space and one image id
_Line = TypeVar("_Line")


def read_captions(path: Path) -> Iterator[ImageCaptions]:
    """The images of a captions file, one after the other; memory holds one at a time.

    Args:
        path: captions.jsonl of ``hnc-ds generate``, or a released HNC file; plain or gzipped.

    Raises:
        UserError: Missing, empty, truncated, or neither kind; names the line or image.
    """
    check_is_file(path)
    with open_unzipped(path) as file:
        released = starts_as_release(file, path)
        yield from read_release(file, path) if released else read_lines(file, path, ImageCaptions)


def check_is_file(path: Path) -> None:
    """Refuse a file of captions that is not there.

    Raises:
        UserError: It is not.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make captions with 'hnc-ds generate --out {path}'")


def starts_as_release(file: BinaryIO, path: Path) -> bool:
    """Whether a file of captions, open at its start, is a released one; it stays at its start.

    Raises:
        UserError: It is empty, or starts as no file of captions does.
    """
    start = file.read(_START_BYTES)
    file.seek(0)
    first = start.lstrip()[:1]
    if not first:
        raise UserError(f"{path}: empty; make captions with 'hnc-ds generate'")
    if first != b"{":
        raise UserError(f"{path}: neither captions.jsonl nor a released HNC file")
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
