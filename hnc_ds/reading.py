"""Read users' files: errors of any parser become one line that names the file.

Parsers raise all kinds of exceptions at truncated, wrong or malicious files. ``reading`` converts
them to a UserError, with the kind of the file if it is recognised. JSON is read within limits of
size, depth and line length; repeated keys, NaN and infinities are errors, as parsers disagree on
them. Gzip files are recognised by their first bytes, not by their names.
"""

import csv
import gzip
import hashlib
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
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from hnc_ds.errors import UserError

T = TypeVar("T")

AGAIN = "copy it again"

MOST_UNPACKED = 200
"""Maximum ratio of unpacked to packed bytes; text has up to about 30, deflate can have 1,032."""

UNPACKED_ANYWAY = 1 << 26
"""Unpacked bytes up to which the ratio is not checked."""

_GZIP = b"\x1f\x8b"

LARGEST_SETTINGS = 1 << 26
"""Maximum bytes of a file of settings or metadata, which is read at once."""

LONGEST_LINE = 1 << 24
"""Maximum bytes of a line of JSON, or of one image's part of a file; real ones have about 100
kB."""

DEEPEST = 100
"""Maximum depth of nesting; real files have less than ten."""

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
"""Exceptions that parsers raise for bad content only, never for defects of the calling code; those
of the libraries in PARSERS count too."""

PARSERS = frozenset(
    ("huggingface_hub", "ijson", "PIL", "pyarrow", "pydantic", "pydantic_core", "safetensors",
     "pyo3_runtime", "safetensors_rust", "tokenizers")
)  # fmt: skip
"""Libraries whose own exception classes report bad files."""

_GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
GZIPPED = "a gzip file; unpack it"

_KINDS = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"version https://git-lfs": "only a Git LFS pointer; fetch the file itself ('git lfs pull')",
    b"<": "a web page or XML; download the file itself",
    _GZIP: GZIPPED,
}
"""First bytes of files that failed downloads leave behind -> description."""


@contextmanager
def reading(
    path: Path | str, again: str = AGAIN, what: str = "truncated or broken", by: str = ""
) -> Iterator[None]:
    """Raise errors of a block that reads a user's file as UserError.

    Args:
        path: For messages.
        again: What to do, if the file's kind does not imply it.
        what: Description of bad content.
        by: The library that reads; all its exceptions are then attributed to the file. By default,
            exceptions that could be defects of this package pass.

    Raises:
        UserError: The file cannot be read, or is broken.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # Panics in Rust (tokenizers) are not Exceptions.
        known = isinstance(error, Exception) or _library(error) in PARSERS
        if not known or (reason := _reason(error, what, by)) is None:
            raise
        kind = kind_of(path)
        if isinstance(error, OSError) or (kind == GZIPPED and isinstance(error, _GZIP_ERRORS)):
            kind = ""
        if by and Path(path).is_dir():  # a library reads all of it
            kind = ""
        line = f"{what}: it is {kind}" if kind else f"{reason}; {again}"
        raise UserError(f"{path}: {line}") from error


def _reason(error: BaseException, what: str, by: str) -> str | None:
    """What an exception means for a file; None if it is not about a file."""
    if isinstance(error, RecursionError):
        return f"{what} (nested too deeply)"
    if isinstance(error, MemoryError):
        return f"{what} (it needs more memory than available)"
    if isinstance(error, UnicodeError):
        return f"{what} (not UTF-8: {error})"
    if isinstance(error, _GZIP_ERRORS):
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
    line = lines[0][:300] if lines else ""
    # A KeyError's text is the key alone.
    bare = not line or isinstance(error, KeyError | AttributeError | TypeError | AssertionError)
    return f"{type(error).__name__}: {line}".removesuffix(": ") if bare else line


def kind_of(path: Path | str) -> str:
    """Description of a file that is empty or of a wrong kind by its first bytes; else ''."""
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
    """The content of a small file.

    Raises:
        UserError: It cannot be read, or has more than ``most`` bytes.
    """
    with reading(path, again), path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path}: has more than {most >> 20} MiB, it is another file; {again}")
    return content


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits.

    Raises:
        UserError: It cannot be read.
    """
    digest = hashlib.sha256()
    with reading(path):
        update_digest(digest, path)
    return digest.hexdigest()


def update_digest(digest: "hashlib._Hash", path: Path) -> None:
    """Feed a file's bytes to a hash (Python 3.10 has no ``hashlib.file_digest``).

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


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
    """Parse JSON strictly: UTF-8, no repeated keys, finite numbers, no lone surrogates.

    Args:
        content: A file, or a line of one.
        where: File, or file and place, for messages.
        again: What to do.
        what: What is wrong.

    Raises:
        UserError: The content is not such JSON.
    """
    with reading(where, again, what):
        text = content.decode("utf-8-sig")
        if len(content) < LONGEST_LINE:  # the parser has a limit of its own for larger ones
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
        if "\\u" in text:  # a lone surrogate has no UTF-8
            json.dumps(value, ensure_ascii=False).encode()
        if value != value:
            raise UserError(f"{where}: not a number; {again}")
    return value


def decode_json(
    content: bytes, kind: type[T], where: Path | str, again: str = AGAIN, what: str = JSON
) -> T:
    """Decode JSON of a type at msgspec's speed; strict as ``parse_json``.

    Raises:
        UserError: The content is not such JSON.
    """
    with reading(where, again, what):
        value = msgspec.json.decode(content, type=kind)
        # Content that encodes to itself, apart from white space, has no repeated keys.
        plain = msgspec.json.encode(value)
        if plain != content.rstrip() and plain != msgspec.json.format(content, indent=-1):
            refuse_repeated_keys(content, where, again)
    return value


def refuse_repeated_keys(content: bytes, where: Path | str, again: str = AGAIN) -> None:
    """Check that no object in JSON has a repeated key.

    Raises:
        UserError: One has, or the JSON is broken.
    """
    with reading(where, again):
        plain = msgspec.json.encode(msgspec.json.decode(content))
        if plain == msgspec.json.format(content, indent=-1):
            return  # as in decode_json, but without a type that drops fields
        try:
            json.loads(content, object_pairs_hook=_check_once)
        except _Strange as error:
            raise UserError(f"{where}: {error}; {again}") from error


class _Strange(ValueError):
    """JSON that parsers interpret differently."""


def _check_once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Strange(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        _check_once(pairs)
    return members


def _no_number(word: str) -> Any:
    raise _Strange(f"{word} is not a number")


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
    """The lines of a file, of bounded length.

    Raises:
        UserError: A line has more than LONGEST_LINE bytes.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            most = LONGEST_LINE >> 20
            raise UserError(f"{path}: line {number} has more than {most} MiB; it is no JSON Lines")
        yield line


class ShallowJson:
    """A JSON file for ijson, with limits of depth and item size.

    ijson keeps the path to each value, so memory grows with the square of the depth, and builds
    items of any size.

    Args:
        file: Open at its start.
        path: For messages.
        items_at: Depth of the items, each of which may have LONGEST_LINE bytes.
    """

    def __init__(self, file: BinaryIO, path: Path, items_at: int) -> None:
        self._file, self._path, self._items_at = file, path, items_at
        self._depth = self._item_bytes = 0
        self._in_text = self._escaped = False
        repeated = self._repeated = list[str]()

        class Mapping(dict[str, Any]):
            def __setitem__(self, key: str, value: Any) -> None:
                if key in self:  # an exception here would crash ijson
                    repeated.append(key)
                super().__setitem__(key, value)

        self.map_type = Mapping
        """Type of the objects that ijson builds; records repeated keys."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the file.

        Raises:
            UserError: Too deep, an item too large, or a repeated key.
        """
        if self._repeated:
            raise UserError(
                f"{self._path}: the key '{self._repeated[0]}' occurs twice in an object; copy the "
                "file again"
            )
        chunk = self._file.read(size)
        if surrogate := _lone_surrogate(chunk):
            raise UserError(f"{self._path}: {surrogate.decode()} is half a character; {AGAIN}")
        depths = list(accumulate(self._changes(chunk), initial=self._depth))
        self._depth = depths[-1]
        if max(depths) > DEEPEST:
            raise UserError(f"{self._path}: nested more than {DEEPEST} deep; it is another file")
        ended = min(depths) <= self._items_at
        self._item_bytes = 0 if ended else self._item_bytes + len(chunk)
        if self._item_bytes > LONGEST_LINE:
            raise UserError(
                f"{self._path}: one item has more than {LONGEST_LINE >> 20} MiB; it is another file"
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


def _lone_surrogate(chunk: bytes) -> bytes | None:
    """A lone surrogate escape; not at the ends of a chunk, where its pair may be in the next
    one."""
    if rb"\ud" not in chunk.lower():
        return None
    alone = _PAIR.sub(lambda found: b" " * len(found[0]), chunk.replace(rb"\\", b"  "))
    halves = (h for h in _HALF.finditer(alone) if 12 <= h.start() < len(chunk) - 12)
    return next((half[0] for half in halves), None)


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@contextmanager
def open_unzipped(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading its unpacked content.

    Raises:
        UserError: It cannot be read, the gzip data is broken, truncated or unpacks to more than
            text can, or a parser in the block rejects the content (see ``reading``).
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
        return file.read(len(_GZIP)) == _GZIP


class _Unpacked(io.RawIOBase):
    """The content of a gzip file; protects against decompression bombs."""

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
                f"{self._path}: unpacks to more than {MOST_UNPACKED} times its size, unlike any "
                "text; copy it again"
            )
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only to the start or the current position."""
        self._count = 0 if whence == io.SEEK_SET else self._count
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
