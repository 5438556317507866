"""Read files of captions: captions.jsonl, the released HNC files, or lists of captions.

All are read image by image and may be gzipped; the format is recognised by content, not by name.
captions_file.py writes captions.jsonl. Image ids alone are read without decoding the captions:
seconds for 8 GB of released captions, where reading them takes many minutes.
"""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from hnc_ds.archives import find_archives, is_archive
from hnc_ds.captions.formats.caption_lists import read_listed_groups
from hnc_ds.captions.formats.caption_rows import NO_SPLITS, NegativeColumns, is_list
from hnc_ds.captions.formats.hnc_release import is_release, read_release
from hnc_ds.captions.formats.json_members import members
from hnc_ds.errors import UserError
from hnc_ds.reading import JSON, decode_json, is_gzipped, lines, open_unzipped, reading
from hnc_ds.records import NOT_GROUPS, ImageCaptions

_START_BYTES = 1 << 16  # room for white space and one image id
_Line = TypeVar("_Line")


def read_captions(
    path: Path,
    negatives: NegativeColumns = NegativeColumns(),  # noqa: B008, a constant
    splits: Sequence[str] = (),
) -> Iterator[ImageCaptions]:
    """The images of a captions file; memory holds one at a time.

    Args:
        path: captions.jsonl of ``hnc-ds generate``, a released HNC file, or a list of captions
            with or without negatives, plain or gzipped; or archives with captions.
        negatives: Columns of negatives in a list.
        splits: Splits to read of Karpathy's file or of archives; all when empty.

    Raises:
        UserError: Missing, empty, truncated, of unknown format, or with a type of negatives in
            NOT_GROUPS; names the line or image.
    """
    check_is_file(path)
    if is_a_list(path):
        yield from read_listed_groups(path, negatives, splits)
        return
    if splits:
        raise UserError(f"{path}: {NO_SPLITS}")
    if negatives.names or negatives.types:
        raise UserError(
            f"{path}: its negatives have types already; --negative_columns is for lists"
        )
    with open_unzipped(path) as file:
        released = starts_as_release(file)
        if released:
            yield from read_release(file, path)
        else:
            yield from (_checked(image, path) for image in read_lines(file, path, ImageCaptions))


def _checked(image: ImageCaptions, path: Path) -> ImageCaptions:
    """The image, if no type of its negatives is the name of a mean of results."""
    for group in image.groups:
        for negative in group.negatives:
            if negative.type in NOT_GROUPS:
                raise UserError(
                    f"{path}: image {image.image_id} has negatives of the type '{negative.type}', "
                    "which is the name of a mean; rename it"
                )
    return image


def is_a_list(path: Path) -> bool:
    """Whether a file is a list of captions, by its start; archives are.

    Raises:
        UserError: It is empty or cannot be read.
    """
    if is_archive(path):
        return True
    with open_unzipped(path) as file:
        start = file.read(_START_BYTES)
    if not start.strip():
        raise UserError(f"{path}: empty; make captions with 'hnc-ds generate'")
    return is_list(start)


def check_is_file(path: Path) -> None:
    """Refuse a missing file of captions.

    Raises:
        UserError: There is no such file, and no archives of that name.
    """
    if is_archive(path):
        find_archives(path)
    elif not path.is_file():
        raise UserError(f"{path}: no such file; make it with 'hnc-ds generate' or 'swap-words'")


def starts_as_release(file: BinaryIO) -> bool:
    """Whether a stream of captions is a released HNC file; restores its position at the start."""
    start = file.read(_START_BYTES)
    file.seek(0)
    return is_release(start)


def read_lines(file: BinaryIO, path: Path, type_: type[_Line]) -> Iterator[_Line]:
    """The lines of captions.jsonl, decoded as a type that has the required fields.

    Raises:
        UserError: An invalid line; names it.
    """
    what, again = "not an image's captions", "make the file again with 'hnc-ds generate'"
    for number, line in enumerate(lines(file, path), start=1):
        if not line.isspace():
            yield decode_json(line, type_, f"{path}: line {number}", again, what)


RELEASED_BYTES = 4
"""A released caption, with boxes and flags, has about this many times the bytes of ours."""


class _Undecoded(msgspec.Struct):
    """The required fields of a line of captions.jsonl; the groups stay undecoded."""

    image_id: str
    groups: list[msgspec.Raw]


def captioned_images(
    path: Path,
    negatives: NegativeColumns = NegativeColumns(),  # noqa: B008, a constant
    splits: Sequence[str] = (),
) -> Iterator[tuple[str, int]]:
    """(image id, approximate bytes of its captions in a shard), in file order.

    Args:
        path: As ``read_captions``. Images of captions.jsonl without captions are skipped.
        negatives: Columns of negatives in a list.
        splits: As ``read_captions``.

    Raises:
        UserError: Missing, empty, truncated, or of unknown format.
    """
    check_is_file(path)
    if is_a_list(path) or negatives.names or negatives.types or splits:
        for image in read_captions(path, negatives, splits):
            yield image.image_id, len(msgspec.json.encode(image.groups))
        return
    with open_unzipped(path) as file:
        if not starts_as_release(file):
            for line in read_lines(file, path, _Undecoded):
                if line.groups:
                    yield line.image_id, sum(map(_size, line.groups))
            return
    for name, size in _streamed(path) if is_gzipped(path) else _mapped(path):
        yield name.removesuffix(".jpg"), size // RELEASED_BYTES


def _size(raw: msgspec.Raw) -> int:
    return memoryview(raw).nbytes


def _streamed(path: Path) -> Iterator[tuple[str, int]]:
    for member in members(path):
        yield member.key, len(member.value)


def _mapped(path: Path) -> Iterator[tuple[str, int]]:
    """The members of a plain file, which is memory-mapped."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with reading(path, what=JSON):
        images = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    for name, raw in images.items():
        yield name, _size(raw)
