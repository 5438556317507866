"""Files and folders that others see whole or not at all, even after a kill or a power cut.

Written under a temporary name in the same folder, flushed to the disk, then renamed.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"
"""Of what a killed process may leave behind."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends without an exception.

    Raises:
        OSError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    # Processes of several machines may write the same file on a shared disk: a number of its own.
    temporary = path.with_name(f"{path.name}.{secrets.randbelow(10**12)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends without an exception.

    What has that name then is replaced. Files in the folder are to be flushed by the block.

    Raises:
        OSError: The disk is full, or the folder above cannot be written; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        flush_folder(partial)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
        flush_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, *pieces: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: As ``whole_file``.
    """
    with whole_file(path) as file:
        file.writelines(pieces)


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed process left behind."""
    return path.suffix == TEMPORARY_SUFFIX


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
