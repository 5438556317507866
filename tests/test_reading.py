"""Whatever error a parser raises for a user's file is one line that names it."""

import csv
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file

from hnc_ds import reading
from hnc_ds.errors import UserError
from hnc_ds.reading import ShallowJson, decode_json, lines, parse_json, read_json

NOT_DATA = {
    "empty": (b"", "is empty"),
    "white": (b" \n", "is empty"),
    "page": (b"<!DOCTYPE html><html>404</html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "zip": (b"PK\x03\x04....", "is a zip archive"),
    "cut": (b'{"a": ', "truncated or broken"),
    "bytes": (b"\xff\xfe\x00", "not UTF-8"),
}

PARSERS: dict[str, Callable[[Path], Any]] = {
    "json": lambda path: json.loads(path.read_bytes().decode()),
    "msgspec": lambda path: msgspec.json.decode(path.read_bytes()),
    "safetensors": load_file,
    "zlib": lambda path: zlib.decompress(path.read_bytes()),
    "tar": tarfile.open,
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("kind", NOT_DATA)
def test_the_error_states_what_a_file_is_instead(kind: str, parser: str, tmp_path: Path) -> None:
    content, said = NOT_DATA[kind]
    file = tmp_path / "a.bin"
    file.write_bytes(content)
    with pytest.raises(UserError) as error, reading.reading(file):
        PARSERS[parser](file)
    assert str(error.value).startswith(str(file))
    if kind not in ("cut", "bytes"):
        assert said in str(error.value)


@pytest.mark.parametrize(
    "error", [RecursionError(), MemoryError(), OverflowError("x"), EOFError(), csv.Error("x")]
)
def test_what_parsers_raise_at_content_is_a_line(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json"), reading.reading(tmp_path / "a.json"):
        raise error


def test_a_defect_passes_but_for_that_of_a_library_which_reads(tmp_path: Path) -> None:
    with pytest.raises(KeyError), reading.reading(tmp_path):
        raise KeyError("x")
    said = pytest.raises(UserError, match="open_clip: KeyError")
    with said, reading.reading(tmp_path / "a", by="open_clip"):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"a": "\\ud800"}', "UTF-8"),
        (b"[" * 200_000, "nested"),
        (b'{"a": "\x00"}', "broken"),
        (b"", "broken"),
    ],
)
def test_json_that_readers_take_for_different_things_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_json(content, "a.json")
    with pytest.raises(UserError, match=r"a\.json"):
        decode_json(content, dict[str, int], "a.json")


def test_what_editors_add_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a":\r\n "\\ud83d\\ude00"}\r\n')
    assert read_json(file) == {"a": "\U0001f600"}
    assert decode_json(b'{ "a": 1 }\n', dict[str, int], file) == {"a": 1}


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with file.open("wb") as made:
        made.truncate(1 << 40)  # a hole
    with pytest.raises(UserError, match="more than 64 MiB"):
        read_json(file)


def test_a_line_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 10)
    file = io.BytesIO(b"123456789\n" + b"1" * 100)
    with pytest.raises(UserError, match="line 2 has more"):
        list(lines(file, Path("a.jsonl")))
    assert file.tell() == 21


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_depth_is_counted_outside_of_strings(step: int) -> None:
    flat = rb'{"a[[\"[\\": {"b": "]]{\\\"", "c": [1, [2]]}}'
    file = ShallowJson(io.BytesIO(flat * 50), Path("a.json"), 1)
    assert b"".join(iter(lambda: file.read(step), b"")) == flat * 50
    deep = ShallowJson(io.BytesIO(flat * 50 + b"[" * 101), Path("a.json"), 1)
    with pytest.raises(UserError, match="more than 100 deep"):
        list(iter(lambda: deep.read(step), b""))


def test_an_item_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 1000)
    file = ShallowJson(io.BytesIO(b'{"a": [' + b"1, " * 10_000), Path("a.json"), 1)
    with pytest.raises(UserError, match="one item"):
        list(iter(lambda: file.read(100), b""))


def test_half_a_character_is_found_between_pairs() -> None:
    pairs = rb'{"aaaaaaaaaaaaaaaa": "\ud83d\ude00 \\ud800 \uD83D\uDE00", "b": "xxxxxxxxxxxxxxxx"}'
    assert ShallowJson(io.BytesIO(pairs), Path("a.json"), 0).read() == pairs
    half = pairs.replace(rb"\ude00 ", b" ")
    with pytest.raises(UserError, match="ud83d is half a character"):
        ShallowJson(io.BytesIO(half), Path("a.json"), 0).read()
