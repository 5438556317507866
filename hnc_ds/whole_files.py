"""Files and folders that others see whole or not at all, even after a kill or a power cut.

Written under a temporary name in the same folder, flushed to the disk, then renamed. What a killed
process left of a file the next one that writes it removes: its writer locks a temporary file.
"""

import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from hnc_ds.errors import UserError

TEMPORARY_SUFFIX = ".tmp"
"""Of what a killed process may leave behind."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

A_DAY = 86400.0
"""Seconds after which an unlocked temporary file of another machine is a dead process's; there are
disks that keep locks to one machine."""


class CannotWrite(UserError, OSError):
    """A file that cannot be written, in one line."""

    def __str__(self) -> str:
        full = self.errno in NO_ROOM
        what = "make room" if full else "see to its permissions, or choose another place,"
        return f"{self.filename}: cannot be written ({self.strerror}); {what} and run it again"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file of what goes wrong while it is written.

    Raises:
        CannotWrite: The disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        # What was read meanwhile has a name of its own; a folder above this file is its matter.
        name = str(path if error.filename is None else error.filename)
        ours = name.startswith(str(path)) or str(path).startswith(name)
        if isinstance(error, UserError) or not ours:
            raise
        raise CannotWrite(error.errno or 0, error.strerror or str(error), str(path)) from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends without an exception.

    Raises:
        CannotWrite: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    with writing(path):
        remove_leftovers(path)
        temporary, file = _open_temporary(path)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A locked file beside another one."""
    while True:
        # Processes of several machines may write the same file on a shared disk.
        number = f"{_machine()}{secrets.randbelow(10**8):08d}"
        temporary = path.with_name(f"{path.name}.{number}{TEMPORARY_SUFFIX}")
        file = temporary.open("xb")
        if _lock(file.fileno()) is not False:
            return temporary, file
        file.close()  # who looks for leftovers was faster, and removes it


def remove_leftovers(path: Path, alone: bool = False) -> None:
    """Remove temporary files of a file whose writers are dead.

    Args:
        path: The file.
        alone: Nobody else writes it (output_lock.py), so that all of them are.
    """
    ours = re.compile(rf"{re.escape(path.name)}\.(\d+)\{TEMPORARY_SUFFIX}")
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{TEMPORARY_SUFFIX}"):
        if found := ours.fullmatch(left.name):
            _remove_if_dead(left, found[1].startswith(_machine()), alone)


def _remove_if_dead(left: Path, own: bool, alone: bool) -> None:
    """Remove a temporary file that is not locked; where that says little, only an old one."""
    try:
        with left.open("r+b") as file:
            old = time.time() - os.fstat(file.fileno()).st_mtime > A_DAY
            locked = _lock(file.fileno())
            if (alone and locked is not False) or (locked and (own or old)):
                left.unlink()
    except OSError:
        pass  # it has its name by now, or is another user's


def _lock(file: int) -> bool | None:
    """Whether a file could be locked; None where the disk has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@lru_cache(maxsize=1)
def _machine() -> str:
    """Six digits of the running kernel: its locks are seen here whatever the disk does."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        name = socket.gethostname().encode()
    return f"{zlib.crc32(name) % 10**6:06d}"


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


def remove_partial_folders(folder: Path) -> None:
    """Remove what killed processes left of ``whole_folder``; nobody else may be writing there."""
    for partial in folder.glob(".*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, *pieces: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        CannotWrite: As ``whole_file``.
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
