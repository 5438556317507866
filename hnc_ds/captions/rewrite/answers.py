"""A cache of the model's answers in an SQLite file.

A key is the sha256 of everything that an answer depends on: model, prompt, seed, temperature,
length. Answers are never replaced, so a continued run uses the same ones, whatever the model would
write now. The file contains neither the endpoint's address nor the API key.

    NAME.sqlite            answers of a run; a killed one leaves NAME.sqlite-wal beside it
    NAME.part-3.sqlite     answers of job 3 of an array, until they are gathered

SQLite's own locks fail on many network disks, so each file has one writer (output_lock.py). Jobs of
an array write a file each and read NAME.sqlite, which nobody writes meanwhile. The job that joins
the captions, or the next run without parts, moves all answers into NAME.sqlite.
"""

import glob
import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from hnc_ds.atomic_files import atomic_file, writing
from hnc_ds.errors import UserError
from hnc_ds.output_lock import only_writer


class Question(msgspec.Struct, frozen=True):
    """Everything an answer depends on."""

    model: str
    prompt: str
    seed: int
    temperature: float
    tokens: int
    """Maximum number of tokens of the answer."""

    def key(self) -> bytes:
        """The key of the answer, 32 bytes."""
        return hashlib.sha256(msgspec.json.encode(self)).digest()


class Answers:
    """An open file of answers.

    Args:
        connection: To the file.
        path: For messages.
        earlier: Further answers, which are only read.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, earlier: "Answers | None" = None
    ) -> None:
        self.path = path
        self._connection, self._earlier = connection, earlier

    def get(self, key: bytes) -> str | None:
        """A cached answer, or None.

        Raises:
            UserError: The file is damaged.
        """
        with _sqlite_errors(self.path):
            row = self._connection.execute(
                "SELECT answer FROM answers WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return self._earlier.get(key) if self._earlier else None
        if not isinstance(row[0], str):
            raise UserError(
                f"{self.path}: holds an answer that is no text; remove the file, or name another "
                "one with --cache, and run it again"
            )
        return row[0]

    def put(self, key: bytes, answer: str) -> None:
        """Store an answer; it survives a kill of the process.

        Raises:
            UserError: The disk is full.
        """
        with _sqlite_errors(self.path):
            self._connection.execute(
                "INSERT OR IGNORE INTO answers (key, answer) VALUES (?, ?)", (key, answer)
            )


@contextmanager
def open_answers(path: Path, place: tuple[int, int] = (0, 1)) -> Iterator[Answers]:
    """Open a cache of answers, or create it, and hold its lock.

    Args:
        path: The cache.
        place: Number of this job, which has a file of its own, and number of jobs; a single one
            first gathers the answers of earlier jobs.

    Raises:
        UserError: It cannot be opened, is another kind of file, or another process writes it.
    """
    number, jobs = place
    with writing(path), suppress(FileNotFoundError):
        path.stat()  # fails on a link to itself
    with only_writer(path, place):
        if jobs == 1:
            with _writable(path) as connection:
                _gather(connection, path)
                yield Answers(connection, path)
            return
        own = path.with_name(f"{path.stem}.part-{number}{path.suffix}")
        _copy_unfinished(path, own)
        with _writable(own) as connection, _readable(path) as earlier:
            yield Answers(connection, own, earlier)


def gather_answers(path: Path) -> None:
    """Move the answers of all jobs into the cache, unless one of them still has its file open."""
    with suppress(UserError), open_answers(path):
        pass


@contextmanager
def _writable(path: Path) -> Iterator[sqlite3.Connection]:
    with _sqlite_errors(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with _sqlite_errors(path):
            # Exclusive access needs no shared memory, which network disks lack.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            _create(connection, "main")
        yield connection
    finally:
        connection.close()


@contextmanager
def _readable(path: Path) -> Iterator[Answers | None]:
    """Open a complete cache that no process writes, without locks; None if there is none."""
    if _log(path).exists() or not (path.is_file() and path.stat().st_size):
        yield None
        return
    with _sqlite_errors(path):
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True)
    try:
        yield Answers(connection, path)
    finally:
        connection.close()


def _copy_unfinished(path: Path, own: Path) -> None:
    """Start the file of a job with a copy of a cache whose run was killed.

    Only a writer can read the log of such a run, and jobs must not write one file.
    """
    if own.exists() or not (_log(path).exists() and path.is_file()):
        return
    with writing(own):
        shutil.copyfile(_log(path), _log(own))
        with path.open("rb") as source, atomic_file(own) as copy:
            shutil.copyfileobj(source, copy)


def _gather(connection: sqlite3.Connection, path: Path) -> None:
    """Move the answers of all jobs into the cache; of two answers to a question, keep the first."""
    names = f"{glob.escape(path.stem)}.part-*{glob.escape(path.suffix)}"
    for part in sorted(path.parent.glob(names)):
        if not part.stem.rpartition("-")[2].isdecimal():
            continue
        with _sqlite_errors(part):
            connection.execute("ATTACH ? AS part", (str(part),))
            _create(connection, "part")
            connection.execute("INSERT OR IGNORE INTO answers SELECT key, answer FROM part.answers")
            connection.execute("DETACH part")
        with writing(part):
            part.unlink()


def _create(connection: sqlite3.Connection, schema: str) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema}.answers "
        "(key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
    )


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite as UserError.

    Raises:
        UserError: The file cannot be read or written.
    """
    try:
        yield
    except sqlite3.Error as error:
        reason = "".join(c if c.isprintable() else " " for c in str(error)[:100])
        raise UserError(
            f"{path}: the model's answers cannot be read or written there ({reason}); make room, "
            "remove the file if it is damaged, or name another one with --cache, and run it again"
        ) from error
