"""Questions with images in files: found, cut, encoded once; what is missing is reported."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hnc_ds.config import EvaluateConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation import evaluate as evaluation
from hnc_ds.evaluation.encoder import Encoder, NamedModel
from hnc_ds.evaluation.inputs import read_image_folders
from hnc_ds.evaluation.released.images import ImageFiles
from hnc_ds.evaluation.released.measure import Encoded, encode_questions, scores_of
from hnc_ds.evaluation.released.rules import ImageRef, Question, choice
from hnc_ds.evaluation.results import AnsweredItem, read_items, read_results
from hnc_ds.images import CorruptImage
from hnc_ds.shards.images import cut_out, decode_image

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An image of each colour, and one that is red on its left and blue on its right."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.jpg", quality=95)
    both = Image.new("RGB", (32, 16), COLOURS["red"])
    both.paste(COLOURS["blue"], (16, 0, 32, 16))
    both.save(folder / "both.jpg", format="PNG")  # called .jpg all the same
    return folder


def colour(name: str, true: str, false: str, box: Any = None, id: str = "") -> Question:
    image = ImageRef("vg", f"{name}.jpg", box)
    return choice(id or f"{name}/{true}/{box}", image, f"it is {true}", f"it is {false}", "g")


def asked(
    model: Any, folder: Path, questions: list[Question], allow_missing: bool = False
) -> Encoded:
    return encode_questions(
        Encoder(model, torch.device("cpu"), batch=4, workers=1),
        questions,
        ImageFiles({"vg": (folder,)}),
        benchmark="some",
        allow_missing=allow_missing,
    )


def test_images_and_captions_are_encoded_once_and_cut_to_their_boxes(
    model: Any, images: Path
) -> None:
    left, right = (0, 0, 16, 16), (16, 0, 32, 16)
    questions = [
        colour("both", "red", "blue", left),
        colour("both", "blue", "red", right),
        colour("red", "red", "blue"),
        colour("red", "red", "lime"),
    ]
    answers = asked(model, images, questions)
    for scores in scores_of(answers):
        assert scores.image_text_IC[0, 0] == pytest.approx(1, abs=0.02)
        assert scores.image_text_IC[0, 1] == pytest.approx(0, abs=0.02)
    assert (answers.coverage.images, answers.coverage.captions) == (3, 3)
    assert sorted(model.encoded) == ["it is blue", "it is lime", "it is red"]


def test_a_missing_image_is_an_error_or_counted(model: Any, images: Path) -> None:
    questions = [colour("red", "red", "blue"), colour("pink", "red", "blue")]
    with pytest.raises(UserError) as raised:
        asked(model, images, questions)
    assert str(raised.value) == (
        "some: 1 of 2 images are missing, the first is vg/pink.jpg; name their folders: "
        "--images vg=DIR, or give --allow-missing to leave out 1 of 2 questions"
    )
    answers = asked(model, images, questions, allow_missing=True)
    assert [question.id for question in answers.questions] == [questions[0].id]
    assert answers.coverage.lost == {"g": 1}
    assert answers.coverage.missing == ("vg/pink.jpg",)
    with pytest.raises(UserError, match="1 of 1 images are missing"):
        asked(model, images, questions[1:], allow_missing=True)


def test_a_damaged_image_is_an_error_or_counted(model: Any, images: Path) -> None:
    (images / "torn.jpg").write_bytes((images / "red.jpg").read_bytes()[:60])
    questions = [colour("red", "red", "blue"), colour("torn", "red", "blue")]
    with pytest.raises(UserError, match=r"1 of 2 images cannot be decoded, the first is .*torn"):
        asked(model, images, questions)
    coverage = asked(model, images, questions, allow_missing=True).coverage
    assert coverage.unreadable == (str(images / "torn.jpg"),)
    assert coverage.lost == {"g": 1}


@pytest.mark.parametrize("side", [17_000, 40_000])
def test_an_image_that_would_fill_the_memory_is_refused_by_its_header(side: int) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
    png += struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(CorruptImage, match=f"{side} x {side} pixels|exceeds limit"):
        decode_image(png)


def test_a_box_beyond_the_edge_is_black_there_as_pillow_has_it() -> None:
    image = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    box = (2, -1, 6, 3)
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).crop(box)
    found = cut_out(image, box)
    assert found.permute(1, 2, 0).flatten().tolist() == list(expected.tobytes())
    with pytest.raises(CorruptImage, match="is empty"):
        cut_out(image, (2, 2, 2, 3))


def test_captions_beyond_the_context_are_counted(model: Any, images: Path) -> None:
    image = ImageRef("vg", "red.jpg")
    long = choice("long", image, "red " * 9, "blue", "g")
    assert asked(model, images, [long]).coverage.too_long == 1


def test_a_name_does_not_lead_out_of_its_folder(images: Path) -> None:
    files = ImageFiles({"vg": (images,)})
    for name in ("../images/red.jpg", str(images / "red.jpg")):
        with pytest.raises(UserError, match="leads out of its folder"):
            files.find(ImageRef("vg", name))


def test_folders_are_looked_through_in_their_order(images: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "pink.jpg").write_bytes(b"")
    folders = read_image_folders(f"vg={images}:{tmp_path / 'more'}")
    assert ImageFiles(folders).find(ImageRef("vg", "pink.jpg")) == tmp_path / "more" / "pink.jpg"
    for given, message in {
        "vg": "not of the form SOURCE=FOLDER",
        "vgg=.": "no source 'vgg'; did you mean 'vg'",
        f"vg={tmp_path / 'none'}": "no such folder",
        "vg=.,vg=.": "is given twice",
    }.items():
        with pytest.raises(UserError, match=message):
            read_image_folders(given)


@pytest.fixture
def crepe(tmp_path: Path) -> Path:
    """Two SugarCrepe questions, one of which a bag of colours cannot answer."""
    folder = tmp_path / "crepe"
    folder.mkdir()
    rows = [("it is red", "it is blue"), ("red on lime", "lime on red")]
    content = {
        str(n): {"filename": "red.jpg", "caption": true, "negative_caption": false}
        for n, (true, false) in enumerate(rows)
    }
    (folder / "swap_obj.json").write_text(json.dumps(content))
    return folder


def test_evaluate_writes_scores_items_and_coverage_and_prints_them(
    model: Any,
    images: Path,
    crepe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluation, "load_named_model", lambda _: NamedModel("colours", model))
    config = EvaluateConfig(
        models=("ViT:x",),
        out=tmp_path / "r.json",
        data=f"sugarcrepe={crepe}",
        images=f"coco2017={images}",
        allow_missing=True,
        corruptions=("contrast:1", "brightness:2"),
    )
    evaluation.evaluate(config)
    rows = {(row.metric, row.group): row.value for row in read_results(config.out)}
    assert rows == {
        ("accuracy", "all"): 0.5,
        ("ties", "all"): 0.5,
        ("accuracy", "contrast 1"): 0.5,  # a colour's name is still recognised
        ("accuracy", "brightness 2"): 0.5,
        ("accuracy", "mPC"): 0.5,
        ("accuracy", "rPC"): 1.0,
    }
    header, items = read_items(tmp_path / "r.items.jsonl")
    assert header.sets["sugarcrepe"].questions == 2
    assert [item.right for item in items if isinstance(item, AnsweredItem)] == [
        {"accuracy": True},
        {"accuracy": False},
    ]
    printed = capsys.readouterr().out
    assert "the release has 7,511 questions, these files 2" in printed
    assert "1 question is decided by a tie" in printed


def test_nothing_to_measure_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --shards, or --data and --images"):
        evaluation.evaluate(EvaluateConfig(models=("x",), out=tmp_path / "r.json"))
