"""Split one huge JSON object into its members, with one of them in memory at a time.

Keys are decoded, values stay bytes, so that other processes can decode them. GQA's scene graphs are
such a file: one object, image id -> graph.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.reading import open_unzipped

# msgspec.json.decode(mmap, type=dict[str, msgspec.Raw]) is about 8 times as fast (0.4 s for 100
# MB), but drops repeated keys, knows no offsets, gives nothing before an error, and reads no gzip.
READ_BYTES = 1 << 17
LONGEST_VALUE = 1 << 22
"""Maximum bytes of one value; that of a real image has about 100 kB. Several copies are held."""

LONGEST_KEY = 1 << 22
"""Maximum bytes of a key; a longer one lacks its closing quote."""

_CLOSING = {b"{": b"}", b"[": b"]"}
_BRACKET = re.compile(rb"[{}\[\]]")
_KEY = re.compile(rb'\s*("[^"\\]*(?:\\.[^"\\]*)*")\s*:\s*(?=\S)', re.DOTALL)
_SCALAR_END = re.compile(rb"[\s,}]")
_SPACE = re.compile(rb"\s*")


class Member(NamedTuple):
    """One ``"key": value`` of the object."""

    key: str
    value: bytes
    offset: int
    """Offset of the value, in bytes of the (unpacked) file."""


def members(path: Path) -> Iterator[Member]:
    """The members of the JSON object in a file, in file order.

    Args:
        path: Plain or gzipped.

    Raises:
        UserError: Missing or unreadable file, not an object, broken or cut-off JSON (with the
            byte position). Values are not checked; decoding them does that.
    """
    with open_unzipped(path) as stream:
        yield from members_of(stream, path)


def members_of(stream: BinaryIO, path: Path) -> Iterator[Member]:
    """As ``members``, for a stream at its start; the path is for messages."""
    return _Cutter(path, stream).members()


class _Cutter:
    """A window over the file: ``buffer[position:]`` has not been split yet.

    ``position`` is never inside a string, so quotes pair up from there.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.buffer = b""
        self.structure = b""  # the buffer with blanks for brackets and quotes in strings
        self.position = 0
        self.dropped = 0  # bytes of the file before the buffer

    def members(self) -> Iterator[Member]:
        if self._next_byte() != b"{":
            raise self._broken("expected '{': a JSON object of image id -> graph")
        self.position += 1
        if self._next_byte() == b"}":
            self.position += 1
        else:
            separator = b","
            while separator == b",":
                key = self._key()
                offset = self.dropped + self.position
                yield Member(key, self._value(), offset)
                separator = self._separator()
        if self._next_byte():
            raise self._broken("expected the end of the file")

    def _key(self) -> str:
        expected = 'expected "image id": {...}'
        if self._next_byte() != b'"':
            raise self._broken(expected)
        while (match := _KEY.match(self.buffer, self.position)) is None:
            if len(self.buffer) - self.position > LONGEST_KEY or not self._read():
                raise self._broken(expected)
        try:
            key: str = msgspec.json.decode(match[1], type=str)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise self._broken(f"broken image id ({error})") from error
        self.position = match.end()
        return key

    def _value(self) -> bytes:
        first = self.buffer[self.position : self.position + 1]
        if first in _CLOSING:
            return self._cut(self._end_of_nested(first, _CLOSING[first]))
        if first == b'"':
            return self._cut(self._find(b'"', 1) + 1)
        while (match := _SCALAR_END.search(self.buffer, self.position)) is None:
            if not self._read():
                raise self._broken("the file ends in the middle of a value")
        return self._cut(match.start())

    def _end_of_nested(self, opening: bytes, closing: bytes) -> int:
        """End of the value that starts here with a bracket; counts only brackets of its kind."""
        length = depth = 0
        while True:
            end = self._find(closing, length) + 1
            depth += self.structure.count(opening, self.position + length, end) - 1
            if depth == 0:
                return end
            length = end - self.position

    def _find(self, byte: bytes, ahead: int) -> int:
        """Next position of a byte outside strings, at least ``ahead`` bytes after here."""
        while (found := self.structure.find(byte, self.position + ahead)) < 0:
            if not self._read():
                raise self._broken("the file ends in the middle of a value")
        return found

    def _separator(self) -> bytes:
        byte = self._next_byte()
        if byte not in (b",", b"}"):
            raise self._broken("expected ',' or '}'")
        self.position += 1
        return byte

    def _next_byte(self) -> bytes:
        """Move to the next byte that is not white space and return it; b'' at the end."""
        while True:
            match = _SPACE.match(self.buffer, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.buffer):
                return self.buffer[self.position : self.position + 1]
            if not self._read():
                return b""

    def _cut(self, end: int) -> bytes:
        value = self.buffer[self.position : end]
        self.position = end
        return value

    def _read(self) -> bool:
        """Drop what was split and append the next bytes of the file; False at its end."""
        # Reads double for large values, so that copying stays linear in their size.
        waiting = len(self.buffer) - self.position
        if waiting > LONGEST_VALUE:
            raise self._broken(f"a value of more than {LONGEST_VALUE >> 20} MiB")
        more = self.stream.read(max(READ_BYTES, waiting))
        self.dropped += self.position
        self.buffer = self.buffer[self.position :] + more
        self.structure = _without_strings(self.buffer)
        self.position = 0
        return bool(more)

    def _broken(self, what: str) -> UserError:
        return UserError(
            f"{self.path}: broken JSON at byte {self.dropped + self.position}: {what}; "
            "copy the file again"
        )


def _without_strings(buffer: bytes) -> bytes:
    """The buffer with blanks for brackets and quotes inside strings, at unchanged offsets.

    ``bytes.find`` can then search it. Such strings are rare; most buffers are returned unchanged. A
    string without closing quote extends to the end.
    """
    if b"\\" in buffer:
        buffer = buffer.replace(rb"\\", b"  ").replace(rb"\"", b"  ")
    parts = buffer.split(b'"')
    if not _BRACKET.search(b"".join(parts[1::2])):
        return buffer
    parts[1::2] = [b" " * len(part) for part in parts[1::2]]
    return b'"'.join(parts)
