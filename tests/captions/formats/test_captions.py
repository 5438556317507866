"""The reader of each kind of captions file, and the error for one that no reader takes."""

import gzip
import json

import pytest

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

LINES = """\
{"image_id": "1", "groups": [{"positive": "A dog.", "type": "attribute", "negatives": \
[{"caption": "A cat.", "type": "attribute", "replaced": ["dog", "cat"]}]}]}

{"image_id": "2", "groups": []}
"""
IMAGES = [
    ImageCaptions(
        "1",
        (CaptionGroup("A dog.", "attribute", (Negative("A cat.", "attribute", ("dog", "cat")),)),),
    ),
    ImageCaptions("2", ()),
]
RELEASED = {
    "1.jpg": {
        "0": {"caption": "A dog.", "label": 1, "type": "attribute"},
        "1": {"caption": "A cat.", "label": 0, "type": "attribute", "replaced": ["dog", "cat"]},
    },
    "2.jpg": {},
}


@pytest.mark.parametrize("text", [LINES, json.dumps(RELEASED), json.dumps(RELEASED, indent=1)])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["captions.jsonl", "captions.jsonl.gz", "hnc.json"])
def test_what_a_file_is_depends_on_its_content_alone(tmp_path, text, zipped, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())

    assert list(read_captions(path)) == IMAGES


def test_a_release_without_images_has_none(tmp_path):
    path = tmp_path / "hnc.json"
    path.write_text("{ }")
    assert list(read_captions(path)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.jsonl: empty"),
        (b" \n\n", r"x\.jsonl: empty"),
        (b"\x89PNG\r\n", r"x\.jsonl: after line 0: not UTF-8 text in columns"),
        (
            LINES.encode() + b'{"image_id": "3", "gro',
            r"x\.jsonl: line 4: not an image's captions",
        ),
        (
            b'{"image_id": 3, "groups": []}',
            r"line 1: .*Expected `str`, got `int` - at `\$\.image_id`",
        ),
        (b'{"image_id": "\xff", "groups": []}', r"line 1: "),
        (b'{"1": {"0": "\xff"}}', r"broken JSON"),
        (gzip.compress(LINES.encode(), mtime=0)[:-12], r"x\.jsonl: truncated or broken gzip"),
        (
            gzip.compress(json.dumps(RELEASED).encode(), mtime=0)[:-12],
            r"x\.jsonl: truncated or broken gzip",
        ),
        (b"\x1f\x8bnot gzip at all", r"x\.jsonl: truncated or broken gzip"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_captions(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl: no such file"):
        list(read_captions(tmp_path / "absent.jsonl"))
