"""Skimming a captions file finds the same images as reading it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.captions.formats.captions import captioned_images, read_captions
from hnc_ds.errors import UserError

RECORD = {"caption": "The cup is red.", "label": 1, "type": "attribute", "cpt_p_id": None}
FALSE_ONE = RECORD | {"caption": "The cup is blue.", "label": 0, "cpt_p_id": 0}
RELEASE = {image_id: {"captions": {"0": RECORD, "1": FALSE_ONE}} for image_id in ("17", "4")}
HUMAN = {f"{image_id}.jpg": {"0": RECORD, "1": FALSE_ONE} for image_id in ("n3", "n1")}

LINES = [
    {"image_id": "a", "groups": [{"positive": "p", "type": "swap", "negatives": []}]},
    {"image_id": "b", "groups": []},
    {"image_id": "c", "groups": [{"positive": "p", "type": "swap", "negatives": []}]},
]


def write(path: Path, content: Any) -> Path:
    if isinstance(content, list):
        data = b"".join(json.dumps(line).encode() + b"\n" for line in content)
    else:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("content", [LINES, RELEASE, HUMAN], ids=["lines", "release", "human"])
@pytest.mark.parametrize("name", ["c.json", "c.json.gz"])
def test_the_ids_are_those_that_reading_finds(tmp_path: Path, name: str, content: Any) -> None:
    path = write(tmp_path / name, content)
    read = [image.image_id for image in read_captions(path) if image.groups]
    assert [image_id for image_id, _ in captioned_images(path)] == read
    assert len(read) == 2


def test_the_bytes_of_groups_are_counted_and_a_quarter_of_a_released_image(tmp_path: Path) -> None:
    (_, size), _ = captioned_images(write(tmp_path / "c.jsonl", LINES))
    assert size == len(json.dumps(LINES[0]["groups"][0]))
    (_, size), _ = captioned_images(write(tmp_path / "c.json", RELEASE))
    assert size == len(json.dumps(RELEASE["17"])) // 4


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.jsonl", b"", "empty"),
        ("c.jsonl", b'{"image_id": "a"}\n', "line 1: not an image's captions"),
        ("c.jsonl", json.dumps(LINES[0]).encode() + b"\n{", "line 2: not an image's captions"),
        ("c.json", json.dumps(RELEASE).encode()[:-9], "truncated or broken JSON"),
    ],
)
def test_other_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=expected) as raised:
        list(captioned_images(path))
    assert str(path) in str(raised.value)


def test_a_gzip_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl.gz", LINES)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated or broken gzip"):
        list(captioned_images(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(captioned_images(tmp_path / "none.jsonl"))
