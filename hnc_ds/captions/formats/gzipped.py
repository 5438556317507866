"""Files that may be gzipped, which is told by their first bytes and not by their names."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from hnc_ds.errors import UserError
from hnc_ds.reading import reading

MOST_UNPACKED = 200
"""Bytes that a byte of gzip may stand for; text has up to some 30, deflate can have 1,032."""

UNPACKED_ANYWAY = 1 << 26
"""Bytes that are unpacked before that is looked at."""

_MAGIC = b"\x1f\x8b"


@contextmanager
def open_unzipped(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, to be read within the block.

    Raises:
        UserError: It cannot be read, is a gzip file that is broken or cut off or unpacks to more
            than text can, or what reads it finds no sense in it; also where this shows only while
            it is read.
    """
    with reading(path), path.open("rb") as file:
        if not is_gzipped(path):
            yield file
            return
        yield cast(BinaryIO, io.BufferedReader(_Unpacked(file, path), 1 << 17))


def is_gzipped(path: Path) -> bool:
    """Whether a file starts as gzip files do.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class _Unpacked(io.RawIOBase):
    """What a gzip file unpacks to, as long as it is no more than text can."""

    def __init__(self, packed: BinaryIO, path: Path) -> None:
        self._packed, self._path = packed, path
        self._file = gzip.GzipFile(fileobj=packed, mode="rb")
        self._count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.readinto(buffer)
        self._count += size
        if self._count > max(UNPACKED_ANYWAY, MOST_UNPACKED * self._packed.tell()):
            raise UserError(
                f"{self._path}: unpacks to more than {MOST_UNPACKED} times its size, which no text "
                "does; copy it again"
            )
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To the start only, or to where it is."""
        self._count = 0 if whence == io.SEEK_SET else self._count
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
