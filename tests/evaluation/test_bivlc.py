"""BiVLC: captions and images in parquet files, and what each picks."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.inputs import find_images, read_questions
from hnc_ds.evaluation.released.measure import encode_questions, scores_of
from hnc_ds.evaluation.released.rules import EACH_ITS_OWN, ImageRef, Question, Scores

COLOURS = ("red", "lime", "blue")


def image(colour: str) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "JPEG", quality=95)
    return {"bytes": file.getvalue(), "path": None}


def row(one: str, other: str, **changed: Any) -> dict[str, Any]:
    return {
        "image": image(one),
        "caption": f"it is {one}",
        "negative_caption": f"it is {other}",
        "negative_image": image(other),
        "type": "swap",
        "subtype": "att",
        **changed,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)


def test_captions_and_images_come_from_the_rows_of_all_files(model: Any, tmp_path: Path) -> None:
    pairs = list(itertools.permutations(COLOURS, 2))
    write(tmp_path / "data" / "test-0.parquet", [row(*pair) for pair in pairs[:5]])
    write(tmp_path / "data" / "test-1.parquet", [row(*pairs[5], type="add", subtype="obj")])
    questions = read_questions("bivlc", tmp_path, False)
    assert [q.id for q in questions[-2:]] == ["data/test-0.parquet/4", "data/test-1.parquet/0"]
    assert [q.group for q in questions[-2:]] == ["swap_att", "add_obj"]
    encoded = encode_questions(
        Encoder(model, torch.device("cpu"), batch=64, workers=1),
        questions,
        find_images("", {"bivlc": tmp_path}),
        benchmark="bivlc",
        allow_missing=False,
    )
    for scores in scores_of(encoded):
        assert np.allclose(scores.image_text_IC, np.eye(2), atol=0.02)


def test_each_image_and_caption_picks_strictly_as_in_the_authors_code() -> None:
    images = (ImageRef("bivlc", "0"), ImageRef("bivlc", "1"))
    question = Question("0", images, ("a", "b"), EACH_ITS_OWN, "swap_att")
    rule = RELEASED["bivlc"].rule
    assert rule is not None
    for i0c0, i0c1, i1c0, i1c1 in itertools.product((0.1, 0.2, 0.3), repeat=4):
        found = rule(
            question, Scores(np.array([[i0c0, i0c1], [i1c0, i1c1]], np.float32), np.eye(2))
        )
        picks = {
            "Ipos_2T": i0c0 > i0c1,
            "Ineg_2T": i1c1 > i1c0,
            "Tpos_2I": i0c0 > i1c0,
            "Tneg_2I": i1c1 > i0c1,
        }
        i2t, t2i = (picks[f"{a}pos_2{b}"] and picks[f"{a}neg_2{b}"] for a, b in ("IT", "TI"))
        assert found.right == {**picks, "I2T": i2t, "T2I": t2i, "group": i2t and t2i}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": None}, r"t\.parquet: row 1: caption is not text"),
        ({"image": {"bytes": None, "path": "x.jpg"}}, r"1 of 4 images .*t\.parquet: row 1 has no"),
    ],
)
def test_a_row_that_lacks_something_is_reported(
    model: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write(tmp_path / "t.parquet", [row("red", "blue"), row("red", "lime", **change)])
    with pytest.raises(UserError, match=message):
        encode_questions(
            Encoder(model, torch.device("cpu"), batch=64, workers=1),
            read_questions("bivlc", tmp_path, False),
            find_images("", {"bivlc": tmp_path}),
            benchmark="bivlc",
            allow_missing=False,
        )


def test_files_of_something_else_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \*\.parquet"):
        read_questions("bivlc", tmp_path, False)
    write(tmp_path / "t.parquet", [{"text": "x"}])
    with pytest.raises(UserError, match="no column caption, negative_caption, type, subtype"):
        read_questions("bivlc", tmp_path, False)
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:100])
    with pytest.raises(UserError, match=r"t\.parquet: cannot be read as parquet"):
        read_questions("bivlc", tmp_path, False)
