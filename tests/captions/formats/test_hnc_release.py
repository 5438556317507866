"""The released HNC files: both layouts, what is left out, and memory on a large one."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

EXCERPT = Path(__file__).parents[4] / "shared/data/hnc_human_test_excerpt.json"


def record(caption: str, label: int, of: int | str | None = None, **fields: Any) -> dict[str, Any]:
    """A record as generated files have it, with fields that the reader does not need."""
    return {
        "caption": caption,
        "label": label,
        "type": "relation_subj",
        "textual_label": None,
        "bboxes": {"1058498": {"bbox": {"x": 1.5, "y": 2, "w": 30, "h": 40}, "name": "dog"}},
        "ambiguity": {"ambiguous": False},
        "noisy": None,
        "replaced": None,
        "cpt_p_id": of,
    } | fields


def neighbour(caption: str, label: int, kind: str = "relation") -> dict[str, Any]:
    """A record as the human-written test set has it."""
    return {"caption": caption, "label": label, "type": kind, "replaced": None}


def read(tmp_path: Path, released: dict[str, Any]) -> list[ImageCaptions]:
    path = tmp_path / "hnc.json"
    path.write_text(json.dumps(released))
    return list(read_captions(path))


def pairs(images: list[ImageCaptions]) -> list[tuple[str, str]]:
    """(positive, negative) texts, in order."""
    return [
        (group.positive, negative.caption)
        for image in images
        for group in image.groups
        for negative in group.negatives
    ]


# ------------------------------------------------------------------ the two layouts


def test_generated_files_pair_by_the_id_of_the_positive_wherever_it_stands(tmp_path):
    captions = {
        "7": record("The cat sits on the mat.", 0, of=9, replaced=["dog", "cat"]),
        "8": record("The dog sits under the mat. ", 0, of="9", type="relation_pred"),
        "9": record(" The dog sits on the mat.", 1),
    }
    assert read(tmp_path, {"2386621": {"captions": captions}}) == [
        ImageCaptions(
            "2386621",
            (
                CaptionGroup(
                    "The dog sits on the mat.",
                    "relation_subj",
                    (
                        Negative("The cat sits on the mat.", "relation_subj", ("dog", "cat")),
                        Negative("The dog sits under the mat.", "relation_pred", None),
                    ),
                ),
            ),
        )
    ]


def test_the_test_set_pairs_neighbours_and_its_ids_lose_their_suffix(tmp_path):
    released = {
        "n100552.jpg": {
            "0": neighbour("The bush is behind the elephant", 1),
            "1": neighbour("The bush is under the elephant", 0),
            "10": neighbour("There are two elephants.", 1, "object_count"),
            "11": neighbour("There are three elephants.", 0, "object_count"),
        }
    }
    images = read(tmp_path, released)
    assert [image.image_id for image in images] == ["n100552"]
    assert pairs(images) == [
        ("The bush is behind the elephant", "The bush is under the elephant"),
        ("There are two elephants.", "There are three elephants."),
    ]


@pytest.mark.parametrize("level", [True, False])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
@pytest.mark.parametrize("by_id", [True, False])
def test_every_mixture_of_the_layouts_reads_the_same(tmp_path, level, suffix, by_id):
    texts = ["A dog is on a mat.", "A cat is on a mat."]
    if by_id:
        captions = {"0": record(texts[0], 1), "1": record(texts[1], 0, of=0)}
    else:
        captions = {"0": neighbour(texts[0], 1), "1": neighbour(texts[1], 0)}
    images = read(tmp_path, {f"12{suffix}": {"captions": captions} if level else captions})

    assert [image.image_id for image in images] == ["12"]
    assert pairs(images) == [tuple(texts)]


@pytest.mark.parametrize("replaced", [None, [None, None], [[["red", "cup"]], "x"], ["a"], "ab"])
def test_replaced_words_that_are_not_two_strings_become_none(tmp_path, replaced):
    captions = {"0": record("A dog.", 1), "1": record("A cat.", 0, of=0, replaced=replaced)}
    (image,) = read(tmp_path, {"1": {"captions": captions}})
    assert image.groups[0].negatives[0].replaced is None


def test_positives_of_the_same_text_are_one_group(tmp_path):
    captions = {
        "0": record("The dog runs.", 1),
        "1": record("The cat runs.", 0, of=0),
        "2": record("The dog runs", 1, type="attribute"),
        "3": record("The dog sleeps.", 0, of=2, type="attribute"),
        "4": record("The cat runs. ", 0, of=2),
    }
    (image,) = read(tmp_path, {"1": {"captions": captions}})
    assert [(group.positive, group.type) for group in image.groups] == [
        ("The dog runs.", "relation_subj")
    ]
    assert [(negative.caption, negative.type) for negative in image.groups[0].negatives] == [
        ("The cat runs.", "relation_subj"),
        ("The dog sleeps.", "attribute"),
    ]


# ------------------------------------------------------------------ what is left out, and reported


def test_pairs_that_cannot_be_right_are_left_out_and_counted(tmp_path, capsys):
    captions = {
        "0": record("The dog is left of the cat.", 1),
        "1": record("the dog is left of the cat ", 0, of=0),
        "2": record("The cup is left of the cat.", 0, of=0),
        "3": record("The cow is left of the cat.", 0, of=0),
        "4": record("The cup is left of the cat.", 1),
        "5": record("The hat is left of the cat.", 0, of=99),
        "6": record("There are more cats than dogs.", 1, type="obj_comp_count"),
        "7": record("There are fewer cats than dogs.", 0, of=6, type="obj_comp_count"),
        "8": record("A dog.", 1),
        "9": record("  ", 0, of=8),
    }
    images = read(tmp_path, {"1": {"captions": captions}})

    assert pairs(images) == [("The dog is left of the cat.", "The cow is left of the cat.")]
    assert capsys.readouterr().out == (
        f"{tmp_path / 'hnc.json'}: 5 pairs of captions; left out: 1 empty text, "
        "1 negative is a true caption of the image, "
        "1 obj_comp_count whose boxes do not show what they count, 1 same text twice, "
        "2 true captions left without a negative, 1 without a partner\n"
    )


def test_a_mislabelled_count_does_not_make_another_negative_true(tmp_path):
    captions = {
        "0": record("There are two dogs.", 1, type="obj_comp_count"),
        "1": record("There is one dog.", 1, type="obj_count"),
        "2": record("There are two dogs.", 0, of=1, type="obj_count"),
    }
    assert pairs(read(tmp_path, {"1": {"captions": captions}})) == [
        ("There is one dog.", "There are two dogs.")
    ]


def test_comparisons_counted_by_humans_are_kept(tmp_path):
    captions = {
        "0": neighbour("There are more cats than dogs.", 1, "object_compare_count"),
        "1": neighbour("There are fewer cats than dogs.", 0, "object_compare_count"),
    }
    assert len(pairs(read(tmp_path, {"n1.jpg": captions}))) == 1


def test_neighbours_of_many_different_words_are_kept_and_reported(tmp_path, capsys):
    captions = {
        "0": neighbour("The white towels are in front of the porcelain sink.", 1),
        "1": neighbour("The old mirror is on top of a wooden counter.", 0),
        "2": neighbour("The dog is to the left of the cat.", 1),
        "3": neighbour("The dog is behind the cat.", 0),
    }
    assert len(pairs(read(tmp_path, {"n1.jpg": captions}))) == 2
    assert "left out: none; kept 1 that differ in more than 4 words" in capsys.readouterr().out


def test_neighbours_that_are_not_a_true_and_a_false_one_are_left_out(tmp_path, capsys):
    captions = {
        "0": neighbour("A dog.", 1),
        "2": neighbour("A cow.", 1),
        "1": neighbour("A cat.", 0, "other type"),
        "3": neighbour("A calf.", 0),
        "4": neighbour("A pig.", 0),
        "5": neighbour("A hen.", 0),
    }
    assert pairs(read(tmp_path, {"n1.jpg": captions})) == [("A cow.", "A calf.")]
    assert "3 without a partner" in capsys.readouterr().out


def test_an_image_without_usable_pairs_is_given_without_groups(tmp_path):
    assert read(tmp_path, {"1": {"captions": {}}, "2": {}}) == [
        ImageCaptions("1", ()),
        ImageCaptions("2", ()),
    ]


# ------------------------------------------------------------------ broken files


def test_truncated_json_names_the_place(tmp_path):
    path = tmp_path / "hnc.json"
    whole = json.dumps({name: {"0": neighbour("A dog.", 1)} for name in ("n1.jpg", "n2.jpg")})
    path.write_text(whole[:-30])
    with pytest.raises(UserError, match=r"hnc\.json: broken JSON at byte \d+: the file ends in"):
        list(read_captions(path))


def test_json_with_something_behind_it_is_broken(tmp_path):
    path = tmp_path / "hnc.json"
    path.write_text('{"n1.jpg": {}} {"n2.jpg": {}}')
    with pytest.raises(
        UserError, match=r"at byte 15: expected the end of the file; copy the file again$"
    ):
        list(read_captions(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"width": 640, "height": 480, "objects": {}}, r"Expected `object`"),
        (
            {"captions": {"0": {"caption": "A dog.", "label": 2, "type": "x"}}},
            r"2.*\$\[...\]\.label",
        ),
        ({"captions": {"0": {"label": 1, "type": "x"}}}, "`caption`"),
        ({"captions": [1]}, "Expected `object`"),
    ],
)
def test_another_layout_is_refused_with_the_image_and_the_field(tmp_path, content, reason):
    with pytest.raises(
        UserError, match=rf"image 2407890: not captions in HNC's layout \(.*{reason}"
    ):
        read(tmp_path, {"2407890": content})


# ------------------------------------------------------------------ real and large files


def test_the_human_written_excerpt_reads_pair_for_pair(tmp_path, capsys):
    """The released excerpt where it is at hand; else a few lines of its form."""
    form = {
        f"n{n}.jpg": {"0": neighbour("A is on B", 1), "1": neighbour("A is in B", 0)} for n in "12"
    }
    path = EXCERPT
    if not path.exists():
        path = tmp_path / "excerpt.json"
        path.write_text(json.dumps(form, indent=0))
    released = json.loads(path.read_text())

    images = list(read_captions(path))
    assert [image.image_id for image in images] == [name.removesuffix(".jpg") for name in released]
    assert sorted(pairs(images)) == sorted(
        (image[str(n)]["caption"].strip(), image[str(n + 1)]["caption"].strip())
        for image in released.values()
        for n in range(0, len(image), 2)
    )


IMAGES, PAIRS = 1000, 121  # 120 MB of JSON; the release has 121 pairs an image too
MEASURE = """
import resource, sys
from pathlib import Path
from hnc_ds.captions.formats.captions import read_captions

def peak():
    # Linux counts into ru_maxrss what the process was before it became this one: pytest.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    own = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return own[0] if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

at_start = peak()
images = negatives = 0
for image in read_captions(Path(sys.argv[1])):
    images += 1
    negatives += sum(len(group.negatives) for group in image.groups)
at_end = peak()
print(images, negatives, at_end, at_end - at_start)
"""


def write_large_release(path: Path) -> int:
    """A file in the layout of the training set; returns its bytes before compression."""
    boxes = {
        f"10584{n}": {"bbox": {"x": n, "y": 2, "w": 30, "h": 40}, "name": "man"} for n in "12345678"
    }
    subgraph = {"ambiguous": True, "count": 2, "subgraph": ["man", "to the left of", "light"]}
    captions = {}
    for pair in range(PAIRS):
        text = f"The man with number {pair} is to the left of the red traffic light."
        captions[str(2 * pair)] = record(text, 1)
        captions[str(2 * pair + 1)] = record(
            text.replace("man", "bus"), 0, of=2 * pair, bboxes=boxes, ambiguity=subgraph
        )
    image = json.dumps({"captions": captions}).encode()
    packed = gzip.compress(image)  # compressed once: a gzip file may have many members
    with path.open("wb") as file:
        file.write(gzip.compress(b"{"))
        for number in range(IMAGES):
            file.write(gzip.compress(b'%s"%d": ' % (b", " if number else b"", 2_000_000 + number)))
            file.write(packed)
        file.write(gzip.compress(b"}"))
    return IMAGES * len(image)


@pytest.mark.slow
def test_a_file_of_a_hundred_megabytes_is_read_within_little_memory(tmp_path):
    path = tmp_path / "large.json.gz"
    assert write_large_release(path) >= 115e6
    assert path.stat().st_size < 25e6

    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    path.unlink()

    images, negatives, peak_kib, grown_kib = map(int, done.stdout.splitlines()[-1].split())
    assert (images, negatives) == (IMAGES, IMAGES * PAIRS)
    assert peak_kib < 300 * 1024
    assert grown_kib < 40 * 1024
