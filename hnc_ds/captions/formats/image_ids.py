"""Which images does a file of captions speak of? Skimmed: the captions are not looked at.

So that a check of 8 GB of released captions takes seconds, where reading them takes many minutes.
"""

import gzip
import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from hnc_ds.captions.formats.json_members import members
from hnc_ds.errors import UserError

RELEASED_BYTES = 4
"""A released caption, with its boxes and flags, takes about so many times the bytes of ours."""

_GZIP_MAGIC = b"\x1f\x8b"
_START_BYTES = 1 << 16
_RELEASE_START = re.compile(rb'\s*\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:\s*\{)')
"""As files.py tells them apart: the first member of a release is an object, of ours a string."""


class _Line(msgspec.Struct):
    """What a line of captions.jsonl has to have; the groups stay undecoded."""

    image_id: str
    groups: list[msgspec.Raw]


def captioned_images(path: Path) -> Iterator[tuple[str, int]]:
    """(image id, about how many bytes its captions will take in a shard), in file order.

    Args:
        path: captions.jsonl of ``hnc-ds generate``, or a released HNC file; plain or gzipped.
            Images of ours without captions are passed over.

    Raises:
        UserError: Missing, empty, cut off, or neither kind.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make captions with 'hnc-ds generate --out {path}'")
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    try:
        with cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb") as file:
            start = file.read(_START_BYTES)
            file.seek(0)
            if not start.strip():
                raise UserError(f"{path}: empty; make captions with 'hnc-ds generate'")
            if not _RELEASE_START.match(start):
                yield from _of_lines(path, file)
            else:
                yield from _of_release(_streamed(path) if zipped else _mapped(path, file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or broken gzip ({error}); copy it again") from error


def _of_lines(path: Path, file: BinaryIO) -> Iterator[tuple[str, int]]:
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(file, start=1):
        if line.isspace():
            continue
        try:
            image = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: line {number} is not an image's captions ({error}); "
                "make the file again with 'hnc-ds generate'"
            ) from error
        if image.groups:
            yield image.image_id, len(line)


def _of_release(images: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    for name, size in images:
        yield name.removesuffix(".jpg"), size // RELEASED_BYTES


def _streamed(path: Path) -> Iterator[tuple[str, int]]:
    for member in members(path):
        yield member.key, len(member.value)


def _mapped(path: Path, file: BinaryIO) -> Iterator[tuple[str, int]]:
    """The members of a whole plain file, which is mapped and not held in memory."""
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        images = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: truncated or broken JSON ({error}); copy it again") from error
    for name, raw in images.items():
        yield name, len(memoryview(raw))
