"""Zero-shot classification: classes by folder, prompts by template."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.inputs import read_questions
from hnc_ds.evaluation.released.images import ImageFiles
from hnc_ds.evaluation.released.measure import Classes, Encoded, encode_questions
from hnc_ds.evaluation.released.rules import ImageRef
from hnc_ds.evaluation.released.zero_shot import class_names, prompts, sets_in, templates
from hnc_ds.evaluation.similarity import Cosines

CPU = torch.device("cpu")
COLOURS = {"a": ("red", (255, 0, 0)), "b": ("lime", (0, 255, 0)), "c": ("blue", (0, 0, 255))}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three images of red, one of lime, one of blue, and one of blue in the folder of lime."""
    for folder, (_, colour) in COLOURS.items():
        (tmp_path / folder).mkdir()
        for number in range(3 if folder == "a" else 1):
            Image.new("RGB", (8, 8), colour).save(tmp_path / folder / f"{number}.png")
    Image.new("RGB", (8, 8), (0, 0, 255)).save(tmp_path / "b" / "wrong.png")
    names = {folder: name for folder, (name, _) in COLOURS.items()}
    (tmp_path / "classnames.json").write_text(json.dumps(names))
    (tmp_path / "templates.json").write_text(json.dumps(["a photo of {c}", "{} thing"]))
    return tmp_path


def test_images_are_classified_and_classes_count_alike_in_their_mean(
    model: Any, place: Path
) -> None:
    encoder = Encoder(model, CPU, batch=4, workers=1)
    encoded = encode_questions(
        encoder,
        read_questions("zero-shot", place, False),
        ImageFiles({"zero-shot": (place,)}),
        benchmark="zero-shot",
        allow_missing=False,
    )
    classes = Classes(encoder, *sets_in(place))
    rows, ranks = classes.classify(encoded, 0)
    found = {metric: row.value for metric, _, row in rows}
    first = [ranks[question.id]["class"][0] == 0 for question in encoded.questions]
    assert np.mean(first) == found["acc1"]
    judged = {metric: one.right_Q.mean() for metric, one in classes.judge(encoded).items()}
    assert judged == {metric: found[metric] for metric in ("acc1", "acc5")}
    assert found["acc1"] == pytest.approx(5 / 6)
    assert found["acc5"] == 1
    assert found["mean_per_class_recall"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_a_class_is_the_mean_of_its_prompts_of_unit_length(model: Any) -> None:
    classify = Encoder(model, CPU, 4, 0).classifier([["red", "red lime lime"], ["lime", "lime"]])
    axes = Cosines(torch.eye(3), torch.empty(0, 3))
    each = np.array([[1, 0, 0], np.array([1, 2, 0]) / np.sqrt(5)]).mean(axis=0)
    found = classify(axes, [0, 1, 2]).rows(0, 3)
    assert found[:, 0].tolist() == pytest.approx((each / np.linalg.norm(each)).tolist(), abs=1e-6)
    assert found[:, 1].tolist() == [0, 1, 0]


def test_names_may_be_a_list_in_the_order_of_the_folders(place: Path) -> None:
    (place / "classnames.json").write_text(json.dumps(["x", "y", "z"]))
    assert class_names(place) == {"a": "x", "b": "y", "c": "z"}
    assert prompts(templates(place), "x") == ["a photo of x", "x thing"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classnames.json", ["x"], "1 names for 3 folders"),
        ("classnames.json", {"a": "x", "b": "y"}, "no name for the folder c"),
        (
            "classnames.json",
            {"a": "x", "b": "y", "c": "z", "d": "w"},
            "no image of the class 'w'",
        ),
        ("templates.json", ["a photo"], "'a photo' does not have one placeholder"),
        ("templates.json", [], "an empty list does not have one placeholder"),
    ],
)
def test_what_does_not_fit_is_reported(place: Path, file: str, content: Any, message: str) -> None:
    (place / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_questions("zero-shot", place, False)


def test_16_bits_are_seen_and_an_image_of_several_frames_is_named_or_left_out(
    model: Any, place: Path
) -> None:
    white = np.full((8, 8), 40_000, dtype=np.uint16)  # brighter than 8 bits can hold
    Image.fromarray(white).save(place / "a" / "deep.png")
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 200)]
    frames[0].save(place / "b" / "moving.gif", save_all=True, append_images=frames[1:])

    def asked(allow_missing: bool) -> Encoded:
        return encode_questions(
            Encoder(model, CPU, batch=4, workers=1),
            read_questions("zero-shot", place, allow_missing),
            ImageFiles({"zero-shot": (place,)}),
            benchmark="zero-shot",
            allow_missing=allow_missing,
        )

    with pytest.raises(UserError, match=r"moving\.gif .*\(a GIF of several frames; save one"):
        asked(allow_missing=False)
    encoded = asked(allow_missing=True)
    assert [Path(path).name for path in encoded.coverage.unreadable] == ["moving.gif"]
    row = encoded.image_row[ImageRef("zero-shot", "a/deep.png")]
    assert isinstance(encoded.similarity, Cosines)
    assert encoded.similarity.image_ND[row].tolist() == pytest.approx(
        [3**-0.5] * 3
    )  # grey, and not clipped
