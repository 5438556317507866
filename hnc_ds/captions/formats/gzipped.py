"""Files that may be gzipped, which is told by their first bytes and not by their names."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from hnc_ds.errors import UserError

_MAGIC = b"\x1f\x8b"


@contextmanager
def open_unzipped(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, to be read within the block.

    Raises:
        UserError: It cannot be read, or is a gzip file that is broken or cut off; also where this
            shows only while it is read.
    """
    try:
        with path.open("rb") as file:
            if not is_gzipped(path):
                yield file
                return
            with gzip.open(file, "rb") as unzipped:
                yield cast(BinaryIO, unzipped)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or broken gzip ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def is_gzipped(path: Path) -> bool:
    """Whether a file starts as gzip files do.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
