"""Captions written in the layout of the released HNC files, and read back from it."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.hnc_export import check_release_name, write_release
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

BOX = {"x": 10, "y": 20, "w": 30, "h": 40}

# Object ids in an order that is not the sorted one, by which captions number the objects:
# 0 is the cat 105, 1 the mat 11, 2 the dog 9, 3 the cat 99.
GRAPH = {
    "width": 640,
    "height": 480,
    "objects": {
        "9": {"name": "dog", **BOX},
        "105": {"name": "cat", **BOX, "x": 11},
        "11": {"name": "mat", **BOX, "x": 12},
        "99": {"name": "cat", **BOX, "x": 13},
    },
}
ON = CaptionGroup(
    "The dog is on the mat.",
    "relation",
    (
        Negative("The cat is on the mat.", "relation_subj", ("dog", "cat"), objects=(0, 1)),
        Negative("The mat is on the dog.", "swap", objects=(2, 1)),
    ),
    objects=(1, 2),
)
CATS = CaptionGroup(
    "There are more cats than dogs.",
    "obj_comp_count",
    (Negative("There are fewer cats than dogs.", "obj_comp_count", ("more", "fewer")),),
    objects=(0, 2, 3),
)
EITHER = CaptionGroup(
    "The dog is on either the mat or the cat.",
    "xor_logic_rel",
    (Negative("The dog is on either the mat or the dog.", "xor_logic_rel", ("cat", "dog")),),
)
GUESSED = CaptionGroup(
    "The dog is black.",
    "attribute",
    (
        Negative("The dog is wet.", "attribute", open_world=True),
        Negative("The dog is white.", "attribute"),
    ),
)


def write(tmp_path: Path, *images: ImageCaptions, graphs: Any = None, out: str = "h.json") -> Path:
    """The file that is made from these captions; all images have the same graph by default."""
    if graphs is None:
        graphs = {image.image_id: GRAPH for image in images}
    (tmp_path / "graphs.json").write_text(json.dumps(graphs))
    lines = b"".join(msgspec.json.encode(image) + b"\n" for image in images)
    (tmp_path / "c.jsonl").write_bytes(lines)
    write_release(tmp_path / "c.jsonl", tmp_path / "graphs.json", tmp_path / out)
    return tmp_path / out


def said(images: list[ImageCaptions]) -> list[tuple[str, str, str, str]]:
    """(image, positive, negative, type of the negative), in order."""
    return [
        (image.image_id, group.positive, negative.caption, negative.type)
        for image in images
        for group in image.groups
        for negative in group.negatives
    ]


def box(name: str, x: int) -> dict[str, Any]:
    return {"bbox": BOX | {"x": x}, "name": name}


# ------------------------------------------------------------------ the layout


def test_a_pair_is_two_records_with_all_fields_of_the_release(tmp_path):
    path = write(tmp_path, ImageCaptions("2386621", (ON,)))

    dog, mat, cat = box("dog", 10), box("mat", 12), box("cat", 11)
    doubts = {"ambiguity": {"ambiguous": False}, "noisy": False}
    assert json.loads(path.read_text())["2386621"]["captions"] == {
        "0": {
            "caption": "The dog is on the mat.",
            "label": 1,
            "type": "relation_subj",
            "textual_label": "dog",
            "bboxes": {"11": mat, "9": dog},
            "replaced": None,
            "cpt_p_id": None,
            **doubts,
        },
        "1": {
            "caption": "The cat is on the mat.",
            "label": 0,
            "type": "relation_subj",
            "textual_label": "dog",
            "bboxes": {"11": mat, "9": dog, "105": cat},
            "replaced": ["dog", "cat"],
            "cpt_p_id": 0,
            **doubts,
        },
        "2": {
            "caption": "The dog is on the mat.",
            "label": 1,
            "type": "swap",
            "textual_label": None,
            "bboxes": {"11": mat, "9": dog},
            "replaced": None,
            "cpt_p_id": None,
            **doubts,
        },
        "3": {
            "caption": "The mat is on the dog.",
            "label": 0,
            "type": "swap",
            "textual_label": None,
            "bboxes": {"11": mat, "9": dog},
            "replaced": None,
            "cpt_p_id": 2,
            **doubts,
        },
    }


def test_only_relations_state_the_replaced_words_on_the_true_side(tmp_path):
    path = write(tmp_path, ImageCaptions("1", (CATS, EITHER)))
    records = json.loads(path.read_text())["1"]["captions"]

    assert [record["textual_label"] for record in records.values()] == [None, "more", None, "both"]
    assert [record["replaced"] for record in records.values()] == [
        None, ["more", "fewer"], None, ["cat", "dog"]
    ]  # fmt: skip


def test_ids_count_through_the_whole_file(tmp_path):
    images = [ImageCaptions("1", (ON,)), ImageCaptions("2", ()), ImageCaptions("3", (CATS, ON))]
    released = json.loads(write(tmp_path, *images).read_text())

    ids = [[int(n) for n in image["captions"]] for image in released.values()]
    assert list(released) == ["1", "2", "3"]
    assert ids == [[0, 1, 2, 3], [], [4, 5, 6, 7, 8, 9]]
    for image in released.values():
        for number, record in image["captions"].items():
            true = image["captions"].get(str(record["cpt_p_id"]))
            assert record["label"] == int(number) % 2 ^ 1
            assert true is None if record["label"] else true["label"] == 1


def test_what_is_not_proven_false_is_left_out_and_reported(tmp_path, capsys):
    path = write(tmp_path, ImageCaptions("1", (GUESSED,)), ImageCaptions("2", (GUESSED, ON)))

    assert "The dog is wet." not in path.read_text()
    assert said(list(read_captions(path)))[0][1:] == (
        "The dog is black.", "The dog is white.", "attribute"
    )  # fmt: skip
    assert capsys.readouterr().out.startswith(
        f"{path}: 4 pairs of captions of 2 images; "
        "left out: 2 negatives that are not proven false\n"
    )


def test_the_number_of_pairs_is_returned(tmp_path, capsys):
    path = write(tmp_path, ImageCaptions("1", (ON, CATS)), ImageCaptions("2", ()))

    assert write_release(tmp_path / "c.jsonl", tmp_path / "graphs.json", path) == 3
    assert capsys.readouterr().out.endswith("3 pairs of captions of 2 images; left out: none\n")


def test_a_quote_or_an_accent_in_a_text_is_no_end_of_it(tmp_path):
    group = CaptionGroup('The "café" is open.', "attribute", (Negative('"', "attribute"),))
    path = write(tmp_path, ImageCaptions('1"2', (group,)), graphs={'1"2': GRAPH})

    assert said(list(read_captions(path))) == [('1"2', 'The "café" is open.', '"', "attribute")]


# ------------------------------------------------------------------ the file


def test_the_same_captions_are_the_same_bytes_and_gz_holds_the_same_json(tmp_path):
    image = ImageCaptions("1", (ON, CATS))
    plain = write(tmp_path, image).read_bytes()
    packed = write(tmp_path, image, out="h.json.gz").read_bytes()

    assert gzip.decompress(packed) == plain
    assert packed[3:8] == bytes(5), "a gzip header without a name and a time"
    assert write(tmp_path, image, out="again.json.gz").read_bytes() == packed


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    images = [ImageCaptions("1", (ON,)), ImageCaptions("2", (ON,))]
    with pytest.raises(UserError):
        write(tmp_path, *images, graphs={"1": GRAPH})

    assert {path.name for path in tmp_path.iterdir()} == {"c.jsonl", "graphs.json"}


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "h.json").mkdir()
    with pytest.raises(UserError, match=r"h\.json.*: cannot be written \(.+\); fix"):
        write(tmp_path, ImageCaptions("1", (ON,)))


@pytest.mark.parametrize("name", ["h.jsonl", "h", "h.gz", "json"])
def test_a_name_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"hnc_json is .*; its name must end in \.json"):
        check_release_name(tmp_path / name)
    with pytest.raises(UserError, match="its name must end"):
        write(tmp_path, ImageCaptions("1", (ON,)), out=name)


def test_memory_holds_one_image_at_a_time(tmp_path):
    groups = tuple(
        CaptionGroup(f"There is dog {n}.", "x", ON.negatives * 5, ON.objects) for n in range(20)
    )
    images = [ImageCaptions(str(n), groups) for n in range(100)]
    write(tmp_path, *images)

    tracemalloc.start()
    write_release(tmp_path / "c.jsonl", tmp_path / "graphs.json", tmp_path / "h.json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "h.json").stat().st_size > 10e6
    assert peak < 4e6


# ------------------------------------------------------------------ the wrong graphs


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        (["1"], r"c\.jsonl: image '2' where .*graphs\.json has no more images; give the scene"),
        (["1", "2", "3"], r"c\.jsonl: no more images where .*graphs\.json has image '3'; give"),
        (["1", "3", "2"], r"c\.jsonl: image '2' where .*graphs\.json has image '3'; give"),
    ],
)
def test_captions_of_other_images_are_refused_with_the_place(tmp_path, graphs, message):
    images = [ImageCaptions("1", (ON,)), ImageCaptions("2", (ON,))]
    with pytest.raises(UserError, match=message):
        write(tmp_path, *images, graphs=dict.fromkeys(graphs, GRAPH))


@pytest.mark.parametrize("place", ["group", "negative"])
def test_an_object_that_the_graph_does_not_have_is_refused(tmp_path, place):
    group = msgspec.structs.replace(ON, objects=(4,) if place == "group" else ())
    if place == "negative":
        group = msgspec.structs.replace(ON, negatives=(Negative("X", "x", objects=(4,)),))
    with pytest.raises(UserError, match=r"image '1' refers to objects that .* does not have"):
        write(tmp_path, ImageCaptions("1", (group,)))


# ------------------------------------------------------------------ and back


def test_reading_the_file_gives_the_same_pairs(tmp_path, capsys):
    images = [
        ImageCaptions("1", (ON, CATS, EITHER)),
        ImageCaptions("2", ()),
        ImageCaptions("3", (EITHER, ON)),
    ]
    read = list(read_captions(write(tmp_path, *images)))

    assert said(read) == said(images)
    assert [image.image_id for image in read] == ["1", "2", "3"]
    assert read[0].groups[0].negatives[0].replaced == ("dog", "cat")
    assert capsys.readouterr().out.endswith(": 7 pairs of captions; left out: none\n")


def test_of_all_that_is_written_a_reader_drops_what_it_cannot_check(tmp_path, capsys):
    """A comparison without the objects that it counts, and a negative that is true elsewhere."""
    silent = msgspec.structs.replace(CATS, objects=())
    true_after_all = CaptionGroup("The dog lies.", "x", (Negative("The dog is black.", "x"),))
    images = [ImageCaptions("1", (silent, ON, GUESSED, true_after_all))]
    read = list(read_captions(write(tmp_path, *images)))

    assert said(read) == [
        ("1", "The dog is on the mat.", "The cat is on the mat.", "relation_subj"),
        ("1", "The dog is on the mat.", "The mat is on the dog.", "swap"),
        ("1", "The dog is black.", "The dog is white.", "attribute"),
    ]
    assert capsys.readouterr().out.endswith(
        ": 5 pairs of captions; left out: 1 negative is a true caption of the image, "
        "1 obj_comp_count whose boxes do not show what they count, "
        "1 true captions left without a negative\n"
    )
