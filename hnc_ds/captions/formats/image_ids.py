"""Which images does a file of captions speak of? Skimmed: the captions are not looked at.

So that a check of 8 GB of released captions takes seconds, where reading them takes many minutes.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hnc_ds.captions.formats.captions import (
    check_is_file,
    is_a_list,
    read_captions,
    read_lines,
    starts_as_release,
)
from hnc_ds.captions.formats.gzipped import is_gzipped, open_unzipped
from hnc_ds.captions.formats.json_members import members
from hnc_ds.captions.formats.negative_columns import NegativeColumns
from hnc_ds.reading import JSON, reading

RELEASED_BYTES = 4
"""A released caption, with its boxes and flags, takes about so many times the bytes of ours."""


class _Line(msgspec.Struct):
    """What a line of captions.jsonl has to have; the groups stay undecoded."""

    image_id: str
    groups: list[msgspec.Raw]


def captioned_images(
    path: Path,
    negatives: NegativeColumns = NegativeColumns(),  # noqa: B008, a constant
) -> Iterator[tuple[str, int]]:
    """(image id, about how many bytes its captions will take in a shard), in file order.

    Args:
        path: As ``read_captions``. Images of ours without captions are passed over.
        negatives: Of a list.

    Raises:
        UserError: Missing, empty, cut off, or neither kind.
    """
    check_is_file(path)
    if is_a_list(path) or negatives.names or negatives.types:
        for image in read_captions(path, negatives):
            yield image.image_id, len(msgspec.json.encode(image.groups))
        return
    with open_unzipped(path) as file:
        if not starts_as_release(file):
            for line in read_lines(file, path, _Line):
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
    """The members of a whole plain file, which is mapped and not held in memory."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with reading(path, what=JSON):
        images = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    for name, raw in images.items():
        yield name, _size(raw)
