"""The model's answers on disk: what was asked once is not asked again.

One SQLite file. A key is the sha256 of everything that an answer depends on: model, prompt, seed,
temperature, length. An answer that is there stays: a run that was killed continues with the same
ones, whatever the model would write now. Neither the endpoint's address nor the API key is in it.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError


class Question(msgspec.Struct, frozen=True):
    """All that an answer depends on."""

    model: str
    prompt: str
    seed: int
    temperature: float
    tokens: int
    """Of the answer, at most."""

    def key(self) -> bytes:
        """32 bytes."""
        return hashlib.sha256(msgspec.json.encode(self)).digest()


class Answers:
    """The answers in a file that is open.

    Args:
        connection: To it.
        path: For messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def get(self, key: bytes) -> str | None:
        """An answer, if it is there."""
        with _explained(self._path):
            row = self._connection.execute(
                "SELECT answer FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return row[0] if row else None

    def put(self, key: bytes, answer: str) -> None:
        """Keep an answer; a process that is killed right after has kept it.

        Raises:
            UserError: The disk is full.
        """
        with _explained(self._path):
            self._connection.execute(
                "INSERT OR IGNORE INTO answers (key, answer) VALUES (?, ?)", (key, answer)
            )


@contextmanager
def open_answers(path: Path) -> Iterator[Answers]:
    """The answers in a file, which is made if it is not there. The caller holds its lock.

    Raises:
        UserError: It cannot be opened, or is another kind of file.
    """
    with _explained(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with _explained(path):
            # One process alone: then no shared memory is needed, which network disks do not have.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) "
                "WITHOUT ROWID"
            )
        yield Answers(connection, path)
    finally:
        connection.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of SQLite as one line.

    Raises:
        UserError: Instead of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(
            f"{path}: the model's answers cannot be read or written there ({error}); make room, or "
            "name another file with --cache, and run it again"
        ) from error
