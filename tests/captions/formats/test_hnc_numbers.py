"""The released HNC files: numbers that a pair's own boxes and words show to be right or wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative


def boxed(*names: str) -> dict[str, Any]:
    """The boxes of a record about objects of these names."""
    box = {"x": 1, "y": 2, "w": 3, "h": 4}
    return {str(n): {"bbox": box, "name": name} for n, name in enumerate(names)}


def pair(true: str, false: str, kind: str, boxes: Any = None, replaced: Any = None) -> Any:
    """The records of a pair, by their ids."""
    common = {"type": kind, "bboxes": boxes}
    return {
        "0": {"caption": true, "label": 1, **common},
        "1": {"caption": false, "label": 0, "cpt_p_id": 0, "replaced": replaced, **common},
    }


def comparison(true: str, false: str, boxes: Any, replaced: Any = None) -> Any:
    """The records of a pair of the type obj_comp_count."""
    texts = f"There are {true}.", f"There are {false}."
    return pair(*texts, "obj_comp_count", boxes, replaced)


def read(tmp_path: Path, captions: dict[str, Any]) -> ImageCaptions:
    """What is read of an image with these records."""
    path = tmp_path / "hnc.json"
    path.write_text(json.dumps({"1": {"captions": captions}}))
    (image,) = read_captions(path)
    return image


def texts(image: ImageCaptions) -> list[tuple[str, str]]:
    """(positive, negative), in order."""
    return [(group.positive, n.caption) for group in image.groups for n in group.negatives]


# ------------------------------------------------------------------ comparisons, counted again


@pytest.mark.parametrize(
    ("true", "false", "names"),
    [
        ("more cats than dogs", "as many cats as dogs", ["cat", "dog", "cat"]),
        ("fewer dogs than cats", "more dogs than cats", ["cat", "dog", "cat"]),
        ("as many dogs as cats", "fewer dogs than cats", ["cat", "dog"]),
        ("more people than wine glasses", "fewer people than wine glasses",
         ["person", "wine glass", "person"]),
        ("more buses than boxes", "as many buses as boxes", ["bus", "bus", "box", "street"]),
        ("fewer broccolis than mustaches", "more broccolis than mustaches",
         ["mustache", "broccoli", "mustache"]),
        ("more TVs than men", "fewer TVs than men", ["tv", "TV", "man"]),
    ],
)  # fmt: skip
def test_a_comparison_that_its_boxes_confirm_is_kept(tmp_path, capsys, true, false, names):
    captions = comparison(true, false, boxed(*names))

    assert texts(read(tmp_path, captions)) == [(f"There are {true}.", f"There are {false}.")]
    assert capsys.readouterr().out.endswith("1 pair of captions; left out: none\n")


def test_boxes_of_both_captions_count_and_each_object_once(tmp_path):
    captions = comparison("more cats than dogs", "as many cats as dogs", boxed("cat", "cat"))
    captions["1"]["bboxes"] = {"1": {"name": "cat"}, "9": {"name": "dog"}}

    assert texts(read(tmp_path, captions)) == [
        ("There are more cats than dogs.", "There are as many cats as dogs.")
    ]


def test_a_reversed_comparison_is_turned_and_reported(tmp_path, capsys):
    replaced = ["fewer", "more"]
    captions = comparison(
        "fewer cats than dogs", "more cats than dogs", boxed("cat", "cat", "dog"), replaced=replaced
    )
    image = read(tmp_path, captions)

    assert image.groups == (
        CaptionGroup(
            "There are more cats than dogs.",
            "obj_comp_count",
            (Negative("There are fewer cats than dogs.", "obj_comp_count", ("more", "fewer")),),
        ),
    )
    assert capsys.readouterr().out.endswith(
        "1 pair of captions; left out: none; repaired: 1 obj_comp_count corrected by their boxes\n"
    )


@pytest.mark.parametrize(
    ("true", "false", "corrected"),
    [
        ("fewer bananas than picnics", "more picnics than bananas",
         ("fewer picnics than bananas", "more picnics than bananas")),
        ("more bananas than picnics", "fewer picnics than bananas",
         ("more bananas than picnics", "fewer bananas than picnics")),
    ],
)  # fmt: skip
def test_fewer_whose_nouns_the_release_exchanged_is_corrected(
    tmp_path, capsys, true, false, corrected
):
    captions = comparison(true, false, boxed("banana", "banana", "picnic"))
    assert texts(read(tmp_path, captions)) == [tuple(f"There are {text}." for text in corrected)]
    assert "repaired: 1 obj_comp_count corrected" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("true", "false", "names", "reason"),
    [
        ("more cats than dogs", "as many cats as dogs",
         ["cat", "dog", "dog"], "that no exchange makes true and false by their boxes"),
        ("more cats than dogs", "fewer cats than dogs",
         ["cat", "cat"], "whose boxes do not show what they count"),
        ("more cats than dogs", "fewer cats than dogs",
         ["cats", "cat", "dog"], "whose boxes do not show what they count"),
        ("more cats than dogs", "one cat",
         ["cat", "cat", "dog"], "whose boxes do not show what they count"),
    ],
)  # fmt: skip
def test_a_comparison_that_stays_wrong_or_undecided_is_left_out_with_the_reason(
    tmp_path, capsys, true, false, names, reason
):
    captions = comparison(true, false, boxed(*names))

    assert texts(read(tmp_path, captions)) == []
    assert f"left out: 1 obj_comp_count {reason}\n" in capsys.readouterr().out


@pytest.mark.parametrize("boxes", [None, [], {"1": None}, {"1": {"bbox": {}}}, {"1": {"name": 3}}])
def test_invalid_boxes_leave_a_comparison_undecided(tmp_path, capsys, boxes):
    captions = comparison("more cats than dogs", "fewer cats than dogs", boxes)

    assert texts(read(tmp_path, captions)) == []
    assert "1 obj_comp_count whose boxes do not show" in capsys.readouterr().out


# ------------------------------------------------------------------ numbers and their nouns


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("There are three trees.", "There are four tree."),
        ("There is one tree.", "There are four tree."),
        ("There are 2 tree.", "There is one tree."),
        ("There are three buses.", "There are four bus."),
        ("There are two broccolis.", "There are four broccoli."),
        ("There are two men.", "There are twenty-one man."),
    ],
)
def test_a_singular_noun_after_a_plural_number_is_left_out(tmp_path, capsys, true, false):
    captions = pair(true, false, "obj_count")
    assert texts(read(tmp_path, captions)) == []
    assert "left out: 1 obj_count with a singular noun after a plural number" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("There are three trees.", "There are four trees."),
        ("There is one bus.", "There are two buses."),
        ("There is one person.", "There are two people."),
        ("There are three sheep.", "There is one sheep."),
        ("There are two broccolis.", "There is one broccoli."),
        ("There are two cats.", "There are two dogs."),
    ],
)
def test_a_rightly_numbered_noun_is_kept(tmp_path, true, false):
    captions = pair(true, false, "obj_count")
    assert texts(read(tmp_path, captions)) == [(true, false)]


def test_numbers_are_looked_at_in_counts_only(tmp_path):
    captions = pair("There are wood.", "There are wool.", "relation_subj")
    assert len(texts(read(tmp_path, captions))) == 1
