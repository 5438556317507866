"""Files of users: whatever a parser says of them becomes one line that names the file.

Parsers raise what they like at a file that is cut off, is something else, or was made to do harm.
``reading`` turns all of it into a UserError and says what the file is where that is known. JSON is
read within limits of size, depth and length of a line; keys that stand twice and numbers that are
none are refused, as every reader would otherwise choose silently.
"""

import csv
import gzip
import io
import json
import math
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from hnc_ds.errors import UserError

T = TypeVar("T")

AGAIN = "copy it again"

LARGEST_SETTINGS = 1 << 26
"""Bytes of a file of settings or metadata that is read at once."""

LONGEST_LINE = 1 << 24
"""Bytes of a line of JSON, or of one image's part of a file; a real one has some 100 kB."""

DEEPEST = 100
"""Brackets in brackets; real files have less than ten."""

BROKEN = (
    UnicodeError,
    RecursionError,
    MemoryError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
    csv.Error,
    json.JSONDecodeError,
    msgspec.MsgspecError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
"""What parsers raise at content alone, never for a defect of the code that calls them; besides, all
exceptions of the libraries of PARSERS."""

PARSERS = frozenset(
    ("huggingface_hub", "ijson", "PIL", "pyarrow", "pydantic", "pydantic_core", "safetensors",
     "pyo3_runtime", "safetensors_rust", "tokenizers")
)  # fmt: skip
"""Whose own kinds of exceptions speak of a file, by the module that defines them."""

_OF_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
GZIPPED = "a gzip file; unpack it"

_KINDS = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"version https://git-lfs": "only a Git LFS pointer; fetch the file itself ('git lfs pull')",
    b"<": "a web page or XML; download the file itself",
    b"\x1f\x8b": GZIPPED,
}
"""How files start that a download may leave in the place of another."""


@contextmanager
def reading(
    path: Path | str, again: str = AGAIN, what: str = "truncated or broken", by: str = ""
) -> Iterator[None]:
    """A block that reads a user's file; what a parser raises there is raised as a UserError.

    Args:
        path: For messages.
        again: What to do where the file's kind does not say it.
        what: What is wrong when the content is.
        by: A library that does the reading; whatever it raises is taken for what it says of the
            file. Without it, exceptions that a defect of this project could raise pass.

    Raises:
        UserError: The file cannot be read, or is broken.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # What panics in Rust (tokenizers) is no Exception.
        known = isinstance(error, Exception) or _library(error) in PARSERS
        if not known or (told := _said(error, what, by)) is None:
            raise
        kind = kind_of(path)
        if isinstance(error, OSError) or (kind == GZIPPED and isinstance(error, _OF_GZIP)):
            kind = ""
        line = f"{what}: it is {kind}" if kind else f"{told}; {again}"
        raise UserError(f"{path}: {line}") from error


def _said(error: BaseException, what: str, by: str) -> str | None:
    """What an exception says of a file; None where it says nothing of any."""
    if isinstance(error, RecursionError):
        return f"{what} (nested too deeply)"
    if isinstance(error, MemoryError):
        return f"{what} (it needs more memory than there is)"
    if isinstance(error, UnicodeError):
        return f"{what} (not UTF-8: {error})"
    if isinstance(error, _OF_GZIP):
        return f"truncated or broken gzip ({error})"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    if isinstance(error, BROKEN) or _library(error) in PARSERS:
        return f"{what} ({_first_line(error)})"
    return f"{what} ({by}: {_first_line(error)})" if by else None


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    told = lines[0][:300] if lines else ""
    # A KeyError's text is the key alone.
    plain = not told or isinstance(error, KeyError | AttributeError | TypeError | AssertionError)
    return f"{type(error).__name__}: {told}".removesuffix(": ") if plain else told


def kind_of(path: Path | str) -> str:
    """What a file is by its first bytes, where it is empty or of a kind that is none of data; else
    the empty text."""
    path = Path(path)
    try:
        if not path.is_file():
            return "a folder, not a file" if path.is_dir() else ""
        with path.open("rb") as file:
            start = file.read(200)
    except OSError:
        return ""
    if not start.strip():
        return f"empty; {AGAIN}"
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), "")


def read_bytes(path: Path, again: str = AGAIN, most: int = LARGEST_SETTINGS) -> bytes:
    """A file that is small by its nature.

    Raises:
        UserError: It cannot be read, or has more than ``most`` bytes.
    """
    with reading(path, again), path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path}: has more than {most >> 20} MiB, so it is another file; {again}")
    return content


JSON = "truncated or broken JSON"


def read_json(
    path: Path, again: str = AGAIN, what: str = JSON, most: int = LARGEST_SETTINGS
) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: As ``read_bytes`` and ``parse_json``.
    """
    return parse_json(read_bytes(path, again, most), path, again, what)


def parse_json(content: bytes, where: Path | str, again: str = AGAIN, what: str = JSON) -> Any:
    """A JSON value, strictly: UTF-8, no key twice, finite numbers, no halves of characters.

    Args:
        content: Of a file, or of a line of one.
        where: For messages; the file, where it is one.
        again: What to do.
        what: What is wrong.

    Raises:
        UserError: It is none.
    """
    with reading(where, again, what):
        text = content.decode("utf-8-sig")
        if len(content) < LONGEST_LINE:  # of larger ones the parser's own limit must do
            ShallowJson(io.BytesIO(content), Path(where), items_at=0).read()
        try:
            value = json.loads(
                text,
                object_pairs_hook=_each_once,
                parse_constant=_no_number,
                parse_float=_finite,
                parse_int=_whole,
            )
        except _Strange as error:
            raise UserError(f"{where}: {error}; {again}") from error
        if "\\u" in text:  # a half of a character has no UTF-8
            json.dumps(value, ensure_ascii=False).encode()
        if value != value:
            raise UserError(f"{where}: not a number; {again}")
    return value


def decode_json(
    content: bytes, kind: type[T], where: Path | str, again: str = AGAIN, what: str = JSON
) -> T:
    """A JSON value of a kind, at msgspec's speed; strict as ``parse_json``.

    Raises:
        UserError: It is none.
    """
    with reading(where, again, what):
        value = msgspec.json.decode(content, type=kind)
        # What comes out again as it is, but for white space, holds no key twice.
        plain = msgspec.json.encode(value)
        if plain != content.rstrip() and plain != msgspec.json.format(content, indent=-1):
            refuse_twins(content, where, again)
    return value


def refuse_twins(content: bytes, where: Path | str, again: str = AGAIN) -> None:
    """Refuse JSON that has a key twice in an object. Of big values nothing is kept.

    Raises:
        UserError: It has, or is broken.
    """
    with reading(where, again):
        plain = msgspec.json.encode(msgspec.json.decode(content))
        if plain == msgspec.json.format(content, indent=-1):
            return  # as in decode_json; a kind leaves fields out
        try:
            json.loads(content, object_pairs_hook=_check_once)
        except _Strange as error:
            raise UserError(f"{where}: {error}; {again}") from error


class _Strange(ValueError):
    """JSON that readers would take for different things."""


def _check_once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Strange(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _check_once(pairs)
    return found


def _no_number(word: str) -> Any:
    raise _Strange(f"{word} is no number")


def _finite(word: str) -> float:
    if not math.isfinite(value := float(word)):
        raise _Strange(f"{word[:40]} is too large for a number")
    return value


def _whole(word: str) -> int:
    if len(word) > LONGEST_INTEGER:
        raise _Strange(f"a number of {len(word)} digits")
    return int(word)


LONGEST_INTEGER = 20
"""Digits; 64 bits have no more."""


def lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of a file, none of which is read without end.

    Raises:
        UserError: A line is longer than any real one.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{path}: line {number} has more than {LONGEST_LINE >> 20} MiB; it is no JSON Lines"
            )
        yield line


class ShallowJson:
    """A file of JSON to be read by ijson, that ends with a UserError where it is too deep.

    ijson keeps the way to each value, so that depth costs its square in memory; and it builds each
    item whole, however large.

    Args:
        file: Open at its start.
        path: For messages.
        items_at: Depth of the items that are built; none may be longer than LONGEST_LINE.
    """

    def __init__(self, file: BinaryIO, path: Path, items_at: int) -> None:
        self._file, self._path, self._items_at = file, path, items_at
        self._depth = self._item_bytes = 0
        self._in_text = self._escaped = False
        twins = self._twins = list[str]()

        class Mapping(dict[str, Any]):
            def __setitem__(self, key: str, value: Any) -> None:
                if key in self:  # ijson does not survive an exception here
                    twins.append(key)
                super().__setitem__(key, value)

        self.map_type = Mapping
        """Of objects that ijson builds; a key twice ends the reading."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as files give them.

        Raises:
            UserError: Too deep, or an item too large.
        """
        if self._twins:
            raise UserError(
                f"{self._path}: the key '{self._twins[0]}' stands twice in an object; copy the "
                "file again"
            )
        chunk = self._file.read(size)
        if halves := _halves(chunk):
            raise UserError(f"{self._path}: {halves.decode()} is half a character; {AGAIN}")
        depths = list(accumulate(self._changes(chunk), initial=self._depth))
        self._depth = depths[-1]
        if max(depths) > DEEPEST:
            raise UserError(f"{self._path}: is nested more than {DEEPEST} deep; it is no such file")
        ended = min(depths) <= self._items_at
        self._item_bytes = 0 if ended else self._item_bytes + len(chunk)
        if self._item_bytes > LONGEST_LINE:
            raise UserError(
                f"{self._path}: one item has more than {LONGEST_LINE >> 20} MiB; it is no such file"
            )
        return chunk

    def _changes(self, chunk: bytes) -> Iterator[int]:
        """+1 and -1 for every bracket outside of strings."""
        data = chunk[1:] if self._escaped and chunk else chunk
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
        self._escaped = data.endswith(b"\\")
        parts = data.split(b'"')
        outside = b"".join(parts[int(self._in_text) :: 2])
        self._in_text ^= len(parts) % 2 == 0
        return (1 if byte in b"[{" else -1 for byte in outside.translate(None, _NO_BRACKETS))


_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def _halves(chunk: bytes) -> bytes | None:
    """Half of a pair of escapes that together are a character; at the ends of a chunk of many the
    other half may be in the next."""
    if rb"\ud" not in chunk.lower():
        return None
    alone = _PAIR.sub(lambda found: b" " * len(found[0]), chunk.replace(rb"\\", b"  "))
    halves = (h for h in _HALF.finditer(alone) if 12 <= h.start() < len(chunk) - 12)
    return next((half[0] for half in halves), None)


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
