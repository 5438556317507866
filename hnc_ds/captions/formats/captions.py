"""Read files of captions, of our own making or as the HNC data set was released.

Both kinds are read image by image and may be gzipped; what a file is, is told by its content and
not by its name. Writing captions.jsonl is generate.py's work.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from hnc_ds.captions.formats.hnc_release import read_release
from hnc_ds.errors import UserError
from hnc_ds.records import ImageCaptions

_GZIP_MAGIC = b"\x1f\x8b"
_START_BYTES = 1 << 16  # room for white space and one image id
_RELEASE_START = re.compile(rb'\s*\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:\s*\{)')
"""{"2386621": {... ; a line of captions.jsonl starts {"image_id": "..."""


def read_captions(path: Path) -> Iterator[ImageCaptions]:
    """The images of a captions file, one after the other; memory holds one at a time.

    Args:
        path: captions.jsonl of ``hnc-ds generate``, or a released HNC file; plain or gzipped.

    Raises:
        UserError: Missing, empty, truncated, or neither kind; names the line or image.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make captions with 'hnc-ds generate --out {path}'")
    try:
        with _open(path) as file:
            start = file.read(_START_BYTES)
            file.seek(0)
            yield from _reader_of(start, path)(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or broken gzip ({error}); copy it again") from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")


def _reader_of(start: bytes, path: Path) -> Callable[[BinaryIO, Path], Iterator[ImageCaptions]]:
    first = start.lstrip()[:1]
    if not first:
        raise UserError(f"{path}: empty; make captions with 'hnc-ds generate'")
    if first != b"{":
        raise UserError(f"{path}: neither captions.jsonl nor a released HNC file")
    return read_release if _RELEASE_START.match(start) else _read_lines


def _read_lines(file: BinaryIO, path: Path) -> Iterator[ImageCaptions]:
    decoder = msgspec.json.Decoder(ImageCaptions)
    for number, line in enumerate(file, start=1):
        if line.isspace():
            continue
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: line {number} is not an image's captions ({error}); "
                "make the file again with 'hnc-ds generate'"
            ) from error
