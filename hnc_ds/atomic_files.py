"""Files and folders that appear complete or not at all, even after a kill or a power cut.

They are written under a temporary name in the same folder, flushed to the disk, then renamed. A
writer locks its temporary file, so the next writer can remove what a killed process left behind.
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

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

A_DAY = 86400.0
"""Seconds after which an unlocked temporary file of another machine counts as abandoned; some disks
keep locks to one machine."""


class CannotWrite(UserError, OSError):
    """A file or folder that cannot be written: its name, the reason, and what to do."""

    then = "run it again"

    def __str__(self) -> str:
        full = self.errno in NO_ROOM
        what = "make room" if full else "fix its permissions, or choose another place,"
        return f"{self.filename}: cannot be written ({self.strerror}); {what} and {self.then}"


@contextmanager
def writing(
    path: Path, then: str | None = None, errors: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """Raise errors of a block that writes a file or folder as CannotWrite, with the path.

    Args:
        path: The file or folder.
        then: What to do once there is room; 'run it again' by default.
        errors: Exceptions to convert; some libraries have their own.

    Raises:
        CannotWrite: The disk is full, or there is no permission.
    """
    try:
        yield
    except errors as error:
        name = str(getattr(error, "filename", None) or path)
        ours = name.startswith((str(path), str(_partial(path)))) or str(path).startswith(name)
        if not ours or (isinstance(error, UserError) and not isinstance(error, CannotWrite)):
            raise  # a file that the block reads
        reason = str(getattr(error, "strerror", None) or error)
        inside = name.startswith(f"{path}/")
        number = getattr(error, "errno", None) or 0
        cannot_write = CannotWrite(number, reason, name if inside else str(path))
        cannot_write.then = str(then or getattr(error, "then", CannotWrite.then))
        raise cannot_write from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing; it takes its name when the block ends without an exception.

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
    """A new, locked file in the same folder."""
    while True:
        # Processes on several machines may write the same file on a shared disk.
        number = f"{_machine()}{secrets.randbelow(10**8):08d}"
        temporary = path.with_name(f"{path.name}.{number}{TEMPORARY_SUFFIX}")
        file = temporary.open("xb")
        if _lock(file.fileno()) is not False:
            return temporary, file
        file.close()  # a process that removes leftovers locked it first


def remove_leftovers(path: Path, alone: bool = False) -> None:
    """Remove temporary files of a file whose writers are dead.

    Args:
        path: The file.
        alone: No other process writes it (output_lock.py), so all its writers are dead.
    """
    ours = re.compile(rf"{re.escape(path.name)}\.(\d+)\{TEMPORARY_SUFFIX}")
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{TEMPORARY_SUFFIX}"):
        if match := ours.fullmatch(left.name):
            _remove_if_dead(left, match[1].startswith(_machine()), alone)


def _remove_if_dead(left: Path, local: bool, alone: bool) -> None:
    """Remove a temporary file that is not locked; one of another machine only if it is old."""
    try:
        with left.open("r+b") as file:
            old = time.time() - os.fstat(file.fileno()).st_mtime > A_DAY
            locked = _lock(file.fileno())
            if (alone and locked is not False) or (locked and (local or old)):
                left.unlink()
    except OSError:
        pass  # it was renamed meanwhile, or belongs to another user


def _lock(file: int) -> bool | None:
    """Whether a file could be locked; None on a disk without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@lru_cache(maxsize=1)
def _machine() -> str:
    """Six digits that identify the running kernel, within which locks always work."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        name = socket.gethostname().encode()
    return f"{zlib.crc32(name) % 10**6:06d}"


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Create a folder; it takes its name when the block ends without an exception.

    An existing file or folder of that name is replaced. The block flushes the files it writes.

    Raises:
        OSError: The disk is full, or the folder above cannot be written; nothing is left behind.
    """
    partial = _partial(path)
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


def _partial(path: Path) -> Path:
    return path.parent / f".{path.name}.partial"


def remove_partial_folders(folder: Path) -> None:
    """Remove what killed processes left of ``atomic_folder``; no other process may be writing."""
    for partial in folder.glob(".*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def atomic_write(path: Path, *content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        CannotWrite: As ``atomic_file``.
    """
    with atomic_file(path) as file:
        file.writelines(content)


def is_temporary(path: Path) -> bool:
    """Whether a file may be what a killed process left behind."""
    return path.suffix == TEMPORARY_SUFFIX


def flush_folder(folder: Path) -> None:
    """Flush the file names of a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
