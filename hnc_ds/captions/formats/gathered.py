"""Rows of one image brought together, however far they lie apart, in little memory.

Rows are sorted by where their image first appears. What does not fit into MOST_HELD bytes waits in
nameless files of the folder for temporary files, and is merged at the end.
"""

import heapq
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.images import SUFFIXES

MOST_HELD = 1 << 26


class Row(NamedTuple):
    """What a list says of one image at one place."""

    file: str
    """With its folders and suffix, as the list has it."""
    captions: tuple[str, ...]
    negatives: tuple[tuple[str, str], ...] = ()
    """(type, caption) of each; they belong to all captions of the row."""


class _Placed(NamedTuple):
    image: int
    """Place of the image's first row among those of images."""
    row: int
    content: bytes


def gathered(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(image id, all its rows) of every image, in the order in which images first appear.

    An id is the name of the file without folder and suffix; where several files have that name,
    with as many folders before it as tell them apart.

    Raises:
        UserError: No room for temporary files.
    """
    places: dict[str, int] = {}
    with _Sorter() as sorter:
        for number, row in enumerate(rows):
            image = places.setdefault(path_of(row.file), len(places))
            sorter.add(_Placed(image, number, msgspec.msgpack.encode(row)))
        ids = _ids(places)
        for image, group in groupby(sorter.sorted(), key=lambda placed: placed.image):
            yield ids[image], [_decoded(placed) for placed in group]


def _decoded(placed: _Placed) -> Row:
    return msgspec.msgpack.decode(placed.content, type=Row)


def path_of(file: str) -> str:
    """'a\\b\\9.JPG' -> 'a/b/9'; nothing in it leads upwards."""
    parts = PurePosixPath(file.strip().replace("\\", "/")).parts
    path = "/".join(part for part in parts if part not in ("/", ".."))
    stem, dot, suffix = path.rpartition(".")
    return stem if dot and stem and f".{suffix.lower()}" in SUFFIXES else path


def _ids(paths: Iterable[str]) -> list[str]:
    """The shortest ends of paths that tell them apart from those of the same name."""
    of_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        of_name[path.rpartition("/")[2]].append(path)
    ids: dict[str, str] = {}
    for name, alike in of_name.items():
        ids.update([(alike[0], name)] if len(alike) == 1 else _told_apart(alike))
    return [ids[path] for path in paths]


def _told_apart(paths: list[str]) -> Iterator[tuple[str, str]]:
    length, ends = 1, [""]
    while len(set(ends)) < len(paths):
        length += 1
        ends = ["/".join(path.split("/")[-length:]) for path in paths]
    return zip(paths, ends, strict=True)


class _Sorter:
    """Sorts more than fits into the memory."""

    def __init__(self) -> None:
        self._held: list[_Placed] = []
        self._bytes = 0
        self._files: list[BinaryIO] = []

    def __enter__(self) -> "_Sorter":
        return self

    def __exit__(self, *reason: object) -> None:
        for file in self._files:
            file.close()

    def add(self, placed: _Placed) -> None:
        """Take one more."""
        self._held.append(placed)
        self._bytes += len(placed.content) + 150  # of Python's own for each
        if self._bytes > MOST_HELD:
            self._put_aside()

    def sorted(self) -> Iterator[_Placed]:
        """All of them."""
        self._held.sort()
        return heapq.merge(*map(_read, self._files), self._held)

    def _put_aside(self) -> None:
        self._held.sort()
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115, closed by __exit__
            self._files.append(file)
            for placed in self._held:
                content = msgspec.msgpack.encode(placed)
                file.write(len(content).to_bytes(4, "big") + content)
            file.flush()
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no room for temporary files ({error.strerror}); name "
                "another folder in TMPDIR"
            ) from error
        self._held, self._bytes = [], 0


def _read(file: BinaryIO) -> Iterator[_Placed]:
    file.seek(0)
    while size := file.read(4):
        yield msgspec.msgpack.decode(file.read(int.from_bytes(size, "big")), type=_Placed)
