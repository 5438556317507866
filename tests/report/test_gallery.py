"""Which pairs are shown, which words are marked, and thumbnails."""

import base64
import io

import pytest
from PIL import Image

from hnc_ds.evaluation.paired import shared_items
from hnc_ds.report.gallery import Curator, mark_differences, thumbnail
from hnc_ds.report.runs import read_runs

from .conftest import pair


@pytest.mark.parametrize(
    ("caption", "other", "marked"),
    [
        ("The bus is red.", "The bus is blue.", ["red"]),
        ("a man on a dog", "a dog on a man", ["man", "dog"]),
        ("a red car", "a car", ["red "]),
        ("a car", "a red car", []),
        ("to the left of it", "to the right of it", ["left"]),
        ("big red dog", "old blue dog", ["big red"]),
        ("", "x", []),
    ],
)
def test_the_words_that_differ_are_marked(caption, other, marked):
    pieces = mark_differences(caption, other)
    assert "".join(text for text, _ in pieces) == caption
    assert [text for text, is_marked in pieces if is_marked] == marked


def test_the_lowest_and_highest_margins_are_shown_once_per_image(make_run):
    pairs = [pair("a", -2), pair("a", -1, "attribute"), pair("b", 3), pair("b", 2, "attribute")]
    curator = Curator(read_runs([make_run("one", pairs)]), "val")
    lowest, highest = curator.extremes(0)
    assert [(card.key, card.type) for card in lowest.cards] == [("a", "swap"), ("b", "attribute")]
    assert [(card.key, card.type) for card in highest.cards] == [("b", "swap"), ("a", "attribute")]
    assert curator.remarks() == []


def test_fixed_and_broken_pairs_are_counted_and_show_both_runs(make_run):
    first = [pair("a", -0.5), pair("b", 0.25), pair("b", 1, "attribute")]
    second = [pair("a", 0.25), pair("b", 0.0), pair("b", 1, "attribute")]
    runs = read_runs([make_run("one", first), make_run("two", second)])
    one, two = (run.measurements["val"] for run in runs)
    fixed, broken = Curator(runs, "val").changes(1, shared_items(one, two))
    assert "1 of 3 pairs" in fixed.about
    assert [(score.true, score.false, score.right) for score in fixed.cards[0].scores] == [
        ("0.500", "1.000", False),
        ("0.500", "0.250", True),
    ]
    assert [card.key for card in broken.cards] == ["b"]  # a tie is wrong


def test_images_are_the_shards_own(make_run):
    curator = Curator(read_runs([make_run("one", [pair("a", 1)])]), "val")
    (uri,) = curator.extremes(0)[0].cards[0].images
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
    red, green, blue = image.getpixel((20, 20))
    assert (image.size, red > 230, green < 30, blue < 30) == ((64, 48), True, True, True)


def test_a_thumbnail_is_small_and_a_damaged_image_is_none():
    file = io.BytesIO()
    Image.new("RGB", (4000, 1000), "red").save(file, "JPEG")
    uri = thumbnail(file.getvalue())
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (320, 80)
    assert thumbnail(file.getvalue()[:200]) == ""
    assert thumbnail(b"<svg onload=alert(1)>") == ""


def test_shards_that_are_gone_or_changed_leave_captions_and_a_remark(make_run, shards):
    runs = read_runs([make_run("one")])
    index = shards / "index.json"
    whole = index.read_text()
    index.write_text(whole.replace('"sha256":"', '"sha256":"0'))
    assert "has changed since" in Curator(runs, "val").remarks()[0]
    index.unlink()
    curator = Curator(runs, "val")
    assert "Images are missing" in curator.remarks()[0]
    assert curator.extremes(0)[0].cards[0].images == [""]
