"""Ways to damage a file, each by a seed. None depends on the purpose of the file.

A damage is STRICT where nobody could mean what it leaves: the program must refuse it, or count what
it drops, or give the same result as without it. It is LOOSE where a valid file of other content may
come out (a letter flipped in a caption, a line cut off at its end): the program must only end well.
"""

import gzip
import json
import os
import random
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

STRICT, LOOSE = True, False


class Damage(NamedTuple):
    """What to do to a file."""

    name: str
    apply: Callable[[Path, random.Random], None]
    strict: bool


def _bytes(
    change: Callable[[bytes, random.Random], bytes],
) -> Callable[[Path, random.Random], None]:
    def apply(path: Path, draw: random.Random) -> None:
        path.write_bytes(change(path.read_bytes(), draw))

    return apply


def _unzipped(
    change: Callable[[bytes, random.Random], bytes],
) -> Callable[[Path, random.Random], None]:
    """The same on what is in a gzip file, zipped again; on others as they are."""

    def apply(path: Path, draw: random.Random) -> None:
        content = path.read_bytes()
        zipped = content[:2] == b"\x1f\x8b"
        changed = change(gzip.decompress(content) if zipped else content, draw)
        path.write_bytes(gzip.compress(changed, mtime=0) if zipped else changed)

    return apply


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 3, 20))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _zero(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(max(1, len(content)))
    size = max(1, len(content) // 4)
    return content[:start] + bytes(len(content[start : start + size])) + content[start + size :]


def _insert(what: bytes) -> Callable[[bytes, random.Random], bytes]:
    def change(content: bytes, draw: random.Random) -> bytes:
        at = draw.randrange(max(1, len(content)))
        return content[:at] + what + content[at:]

    return change


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(max(1, len(content)))]


def _crlf(content: bytes, _: random.Random) -> bytes:
    return content.replace(b"\n", b"\r\n")


def _folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link_to_itself(path: Path, _: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _unreadable(path: Path, _: random.Random) -> None:
    """/proc/self/mem opens and then gives EIO, to root as well."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def _gone(path: Path, _: random.Random) -> None:
    path.unlink()


def _bomb(unit: bytes) -> Callable[[Path, random.Random], None]:
    """1 GiB of one pattern, zipped in many members; what is unzipped twice counts twice."""

    def apply(path: Path, _: random.Random) -> None:
        piece = gzip.compress(unit * ((1 << 26) // len(unit)), 6, mtime=0)
        path.write_bytes(piece * 40)

    return apply


def _zipped_cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    zipped = content if content[:2] == b"\x1f\x8b" else gzip.compress(content, mtime=0)
    path.write_bytes(zipped[: max(3, draw.randrange(len(zipped)))])


def _hole(path: Path, _: random.Random) -> None:
    """4 GiB of which nothing takes room on the disk."""
    with path.open("r+b") as file:
        file.truncate(4 << 30)


PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)

OF_ANY = [
    Damage("cut", _bytes(_cut), LOOSE),
    Damage("flip", _bytes(_flip), LOOSE),
    Damage("zero-block", _bytes(_zero), LOOSE),
    Damage("empty", _bytes(lambda *_: b""), STRICT),
    Damage("page", _bytes(lambda *_: PAGE), STRICT),
    Damage("pointer", _bytes(lambda *_: POINTER), STRICT),
    Damage("random", _bytes(lambda _, draw: draw.randbytes(4096)), STRICT),
    Damage("zeros", _bytes(lambda *_: bytes(4096)), STRICT),
    Damage("folder", _folder, STRICT),
    Damage("link-to-itself", _link_to_itself, STRICT),
    Damage("unreadable", _unreadable, STRICT),
    Damage("gone", _gone, STRICT),
    Damage("zip", _bytes(lambda *_: b"PK\x03\x04" + bytes(100)), STRICT),
    Damage("zipped-cut", _zipped_cut, STRICT),
    Damage("hole", _hole, STRICT),
]

OF_TEXT = [
    Damage("nul", _unzipped(_insert(b"\0")), LOOSE),
    Damage("not-utf8", _unzipped(_insert(b"\xff\xfe")), LOOSE),
    Damage("byte-order-mark", _unzipped(lambda content, _: b"\xef\xbb\xbf" + content), STRICT),
    Damage("crlf", _unzipped(_crlf), STRICT),
    Damage("utf16", _unzipped(lambda content, _: content.decode().encode("utf-16")), STRICT),
    Damage("deep", _unzipped(lambda *_: b"[" * 200_000), STRICT),
    Damage("deep-objects", _unzipped(lambda *_: b'{"a":' * 100_000), STRICT),
    Damage("long-line", _unzipped(lambda *_: b'{"a": "' + b"x" * (1 << 25)), STRICT),
    Damage("doubled", _unzipped(lambda content, _: content + content), STRICT),
    Damage("bomb-spaces", _bomb(b" "), STRICT),
    Damage("bomb-brackets", _bomb(b"["), STRICT),
    Damage("bomb-text", _bomb(b'{"image_id": "a'), STRICT),
]


# JSON: a place in a value, and what is put there.

SURROGATE = "\ud800"
HUGE = 10**400

VALUES: dict[str, Any] = {
    "null": None,
    "list": [1, None],
    "object": {"a": None},
    "text": "x",
    "empty-text": "",
    "bool": True,
    "negative": -7,
    "nan": float("nan"),
    "infinity": float("inf"),
    "1e308": 1e308,
    "huge": HUGE,
    "surrogate": SURROGATE,
    "fraction": 0.5,
    "deep": "DEEP",
    "long-text": "y" * 300_000,
    "escape": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "nul-text": "a\0b",
    "many": list(range(100_000)),
}


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but its root; of long lists the first and the last two."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
        keys = keys[:1] + keys[1:][-2:]
    for key in keys:
        yield (*way, key)
        yield from places(value[key], (*way, key))


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def is_valid(old: Any, kind: str, way: tuple[Any, ...]) -> bool:
    """Whether what is put in is content of the old kind, which a valid file could hold."""
    if isinstance(old, str):
        return kind in ("text", "long-text", "nul-text", "escape", "absolute", "empty-text")
    if isinstance(old, bool):
        return kind == "bool"
    if isinstance(old, float):
        return kind in ("fraction", "negative", "1e308")
    if isinstance(old, int):
        return kind in ("negative", "fraction")
    if way[-1:] == ("caption",) and isinstance(old, list):  # a caption, or several
        return isinstance(VALUES[kind], str)
    return old is None


def _json_text(value: Any) -> bytes:
    text = json.dumps(value)
    return text.replace('"DEEP"', "[" * 5000 + "]" * 5000).encode()


def _change_json(
    content: bytes, as_lines: bool, change: Callable[[Any], Any], row: int | None
) -> bytes:
    if not as_lines:
        return _json_text(change(json.loads(content)))
    rows = content.splitlines()
    number = (row or 0) % len(rows)
    rows[number] = _json_text(change(json.loads(rows[number])))
    return b"\n".join(rows) + b"\n"


def _put(way: tuple[Any, ...], value: Any) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        at(content, way[:-1])[way[-1]] = value
        return content

    return change


def _drop(way: tuple[Any, ...]) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        del at(content, way[:-1])[way[-1]]
        return content

    return change


def _more(content: Any) -> Any:
    if isinstance(content, dict):
        content["surplus_field"] = {"a": [1, None, "x"]}
    return content


def of_json(content: bytes, as_lines: bool, optional: frozenset[str]) -> list[Damage]:
    """Damages of every field of a JSON file, or of JSON Lines (a row drawn by the seed)."""
    rows = content.splitlines() if as_lines else [content]
    found: list[Damage] = []
    for number in sorted({0, len(rows) // 2, len(rows) - 1}):
        value = json.loads(rows[number])
        for way in places(value):
            found += _of_place(value, way, number, as_lines, optional)
        found += _of_row(number, as_lines)
    return found


def _of_place(
    value: Any, way: tuple[Any, ...], row: int, as_lines: bool, optional: frozenset[str]
) -> list[Damage]:
    name = f"{row}:{'/'.join(map(str, way))}"
    old = at(value, way)

    def rewritten(change: Callable[[Any], Any]) -> Callable[[Path, random.Random], None]:
        return _unzipped(lambda content, _: _change_json(content, as_lines, change, row))

    found = [
        Damage(f"{kind}@{name}", rewritten(_put(way, new)), not is_valid(old, kind, way))
        for kind, new in VALUES.items()
        if type(new) is not type(old) or new != old
    ]
    is_row = isinstance(way[-1], int) or isinstance(old, dict)  # an entry of a list or a mapping
    found.append(
        Damage(f"drop@{name}", rewritten(_drop(way)), not is_row and way[-1] not in optional)
    )
    if isinstance(way[-1], str):
        found.append(Damage(f"twice@{name}", _twice(way[-1], old), STRICT))
    return found


def _twice(key: str, old: Any) -> Callable[[Path, random.Random], None]:
    """The key once more in its object, with another value before the right one."""
    entry = json.dumps(key).encode()

    def change(content: bytes, _: random.Random) -> bytes:
        start = content.find(entry)
        other: Any = {"": 0} if isinstance(old, dict) else [] if isinstance(old, list) else None
        value = json.dumps(other if other is not None else "other").encode()
        return content[:start] + entry + b": " + value + b", " + content[start:]

    return _unzipped(change)


def _of_row(row: int, as_lines: bool) -> list[Damage]:
    def rewritten(change: Callable[[Any], Any]) -> Callable[[Path, random.Random], None]:
        return _unzipped(lambda content, _: _change_json(content, as_lines, change, row))

    found = [Damage(f"surplus@{row}", rewritten(_more), STRICT)]
    for kind in ("null", "list", "text", "bool", "nan", "huge", "surrogate", "deep"):
        new = VALUES[kind]
        found.append(Damage(f"{kind}@{row}", rewritten(lambda _, new=new: new), STRICT))
    changes: dict[str, tuple[Callable[[list[bytes]], list[bytes]], bool]] = {
        "row-twice": (lambda r: [*r[: row + 1], *r[row:]], STRICT),
        "row-gone": (lambda r: r[:row] + r[row + 1 :], LOOSE),
        "rows-turned": (lambda r: r[::-1], LOOSE),
        "row-cut": (lambda r: [*r[:row], r[row][:-3], *r[row + 1 :]], STRICT),
        "rows-joined": (lambda r: [r[0] + (r[1] if r[1:] else r[0]), *r[2:]], STRICT),
    }
    if as_lines:
        for name, (change, strict) in changes.items():
            found.append(Damage(f"{name}@{row}", _unzipped(_rows(change)), strict))
    return found


def _rows(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes, random.Random], bytes]:
    return lambda content, _: b"\n".join(change(content.splitlines())) + b"\n"


def of_table(content: bytes, free: bool) -> list[Damage]:
    """Of CSV and TSV: rows of other lengths, quotes, and columns.

    Args:
        content: Of the file.
        free: Whether the last column may hold the mark without quotes.
    """
    row = len(content.splitlines()) - 1
    mark = b"\t" if b"\t" in content.splitlines()[0] else b","
    changes: dict[str, tuple[Callable[[list[bytes]], list[bytes]], bool]] = {
        "row-twice": (lambda r: [*r, r[-1]], LOOSE),
        "more-columns": (lambda r: [*r[:-1], r[-1] + mark + b"more" + mark + b"still"], not free),
        "fewer-columns": (lambda r: [*r[:-1], r[-1].split(mark)[0]], STRICT),
        "open-quote": (lambda r: [*r[:-1], r[-1].replace(mark, mark + b'"', 1)], STRICT),
        "no-header": (lambda r: r[1:], STRICT),
        "header-twice": (lambda r: [r[0], *r], STRICT),
        "column-twice": (lambda r: [r[0] + mark + r[0], *(x + mark + x for x in r[1:])], STRICT),
        "empty-cell": (lambda r: [*r[:-1], mark.join([b"", *r[-1].split(mark)[1:]])], STRICT),
        "other-mark": (lambda r: [x.replace(mark, b";") for x in r], STRICT),
        "long-cell": (lambda r: [*r[:-1], r[-1] + b"z" * 300_000], LOOSE),
        "blank-line": (lambda r: [*r[:1], b"", *r[1:]], STRICT),
        "rows-gone": (lambda r: r[:1], STRICT),
    }
    return [
        Damage(f"{name}@{row}", _unzipped(_rows(change)), strict)
        for name, (change, strict) in changes.items()
    ]


def of_safetensors() -> list[Damage]:
    """Of the header, and of the numbers."""

    def header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path, random.Random], None]:
        def apply(path: Path, _: random.Random) -> None:
            content = path.read_bytes()
            size = struct.unpack("<Q", content[:8])[0]
            fields = json.loads(content[8 : 8 + size])
            change(fields)
            text = json.dumps(fields).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

        return apply

    def first(fields: dict[str, Any]) -> dict[str, Any]:
        return next(value for name, value in fields.items() if name != "__metadata__")

    def rename(fields: dict[str, Any]) -> None:
        name = next(name for name in fields if name != "__metadata__")
        fields["other"] = fields.pop(name)

    def filled(value: float) -> Callable[[bytes, random.Random], bytes]:
        def change(content: bytes, draw: random.Random) -> bytes:
            start = 8 + struct.unpack("<Q", content[:8])[0]
            rest = (len(content) - start) // 4
            at = start + 4 * draw.randrange(max(1, rest))
            return content[:at] + struct.pack("<f", value) + content[at + 4 :]

        return change

    return [
        Damage("header-huge", _bytes(lambda c, _: struct.pack("<Q", 2**60) + c[8:]), STRICT),
        Damage("header-90MB", _bytes(lambda c, _: struct.pack("<Q", 90_000_000) + c[8:]), STRICT),
        Damage("header-short", _bytes(lambda c, _: struct.pack("<Q", 5) + c[8:]), STRICT),
        Damage("shape-huge", header(lambda t: first(t).update(shape=[10**12, 10**6])), STRICT),
        Damage("shape-negative", header(lambda t: first(t).update(shape=[-1])), STRICT),
        Damage("dtype", header(lambda t: first(t).update(dtype="F63")), STRICT),
        Damage("offsets", header(lambda t: first(t).update(data_offsets=[0, 10**15])), STRICT),
        Damage("renamed", header(rename), STRICT),
        Damage("no-tensors", header(lambda t: t.clear()), STRICT),
        Damage("header-list", _bytes(lambda *_: struct.pack("<Q", 2) + b"[]"), STRICT),
        Damage("nan-weight", _bytes(filled(float("nan"))), STRICT),
        Damage("inf-weight", _bytes(filled(float("inf"))), STRICT),
    ]


def of_image() -> list[Damage]:
    """Of a JPEG: the size that it declares."""

    def declared(width: int, height: int) -> Callable[[bytes, random.Random], bytes]:
        def change(content: bytes, _: random.Random) -> bytes:
            at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
            return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]

        return change

    return [
        Damage("declares-60000", _bytes(declared(60_000, 60_000)), STRICT),
        Damage("declares-0", _bytes(declared(0, 0)), STRICT),
        Damage("declares-60000x2", _bytes(declared(60_000, 2)), LOOSE),
        Damage("declares-8000", _bytes(declared(8000, 8000)), LOOSE),
    ]


def of_sqlite() -> list[Damage]:
    """Damages of a cache of answers that leave a file of SQLite."""
    changes = {
        "no-table": "DROP TABLE answers",
        "no-column": "ALTER TABLE answers RENAME COLUMN answer TO text",
        "other-columns": "DROP TABLE answers; CREATE TABLE answers (key INT, answer BLOB UNIQUE)",
        "view": "ALTER TABLE answers RENAME TO a; CREATE VIEW answers AS SELECT * FROM a",
        "numbers": "UPDATE answers SET answer = CAST(7 AS BLOB)",
        "bytes": "UPDATE answers SET answer = x'ff00fe'",
        "not-utf8": "UPDATE answers SET answer = CAST(x'ff00fe' AS TEXT)",
        "nul": "UPDATE answers SET answer = char(0) || answer",
        "empty-answers": "UPDATE answers SET answer = ''",
        "text-keys": "UPDATE answers SET key = CAST(key AS TEXT)",
        "no-answers": "DELETE FROM answers",
    }
    valid = ("nul", "empty-answers")  # other answers
    return [
        Damage(name, _executed(change), LOOSE if name in valid else STRICT)
        for name, change in changes.items()
    ]


def _executed(script: str) -> Callable[[Path, random.Random], None]:
    def apply(path: Path, _: random.Random) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()

    return apply


def of_tar() -> list[Damage]:
    """Of a tar's headers."""

    def field(start: int, content: bytes) -> Callable[[bytes, random.Random], bytes]:
        def change(tar: bytes, _: random.Random) -> bytes:
            head = bytearray(tar[:512])
            head[start : start + len(content)] = content
            head[148:156] = b" " * 8
            head[148:156] = f"{sum(head):06o}\0 ".encode()
            return bytes(head) + tar[512:]

        return change

    return [
        Damage("member-huge", _bytes(field(124, b"77777777777\0")), STRICT),
        Damage("member-outside", _bytes(field(0, b"../../evil.jpg\0")), STRICT),
        Damage("member-link", _bytes(field(156, b"2")), STRICT),
        Damage("member-sparse", _bytes(field(156, b"S")), STRICT),
        Damage("appended", _bytes(lambda tar, _: tar + bytes(10240)), STRICT),
    ]


def remove_write_permission(path: Path) -> None:
    """Kept apart: root may write all the same."""
    os.chmod(path, 0o444)
