"""hnc_ds.evaluate: the rows of 'hnc-ds evaluate'."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hnc_ds
from hnc_ds.cli import main
from hnc_ds.distributed import rank
from tests.cross_encoders import save_cross_encoder


@pytest.fixture
def rows_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict]]:
    """Rows of results.json of a command line."""

    def rows(model: Path | str, *flags: object) -> list[dict]:
        out = tmp_path / "results.json"
        words = ["hnc-ds", "evaluate", model, *flags, "--out", out]
        monkeypatch.setattr("sys.argv", [str(word) for word in words])
        assert main() == 0
        return json.loads(out.read_text())

    return rows


def test_they_are_those_of_the_command(
    runs: dict[str, Path],
    scene_shards: Path,
    rows_of: Callable[..., list[dict]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = rows_of(runs["tiny"], "--shards", scene_shards / "val")
    capsys.readouterr()
    assert len(expected) > 10
    loaded = hnc_ds.load(runs["tiny"])
    before = sorted(scene_shards.rglob("*"))
    assert hnc_ds.evaluate(loaded, scene_shards / "val") == expected
    assert hnc_ds.evaluate(str(runs["tiny"]), str(scene_shards / "val"), workers=0) == expected
    assert capsys.readouterr().out == ""
    assert sorted(scene_shards.rglob("*")) == before
    few = hnc_ds.evaluate(loaded, scene_shards / "val", benchmarks=["retrieval"], seed=2)
    assert {row["benchmark"] for row in few} == {"retrieval"}
    foggy = hnc_ds.evaluate(loaded, scene_shards / "val", corruptions=["fog:3"], workers=0)
    assert foggy[: len(expected)] == expected
    assert len(foggy) > len(expected)


def test_a_model_that_was_changed_is_measured_as_it_is(
    runs: dict[str, Path], scene_shards: Path
) -> None:
    loaded = hnc_ds.load(runs["tiny"])
    before = hnc_ds.evaluate(loaded, scene_shards / "val", benchmarks=["hnc-shards"], workers=0)
    loaded.model.train()
    with torch.no_grad():
        loaded.model.text_projection.copy_(loaded.model.text_projection.flip(0))
    after = hnc_ds.evaluate(loaded, scene_shards / "val", benchmarks=["hnc-shards"], workers=0)
    assert after != before
    assert [row["metric"] for row in after] == [row["metric"] for row in before]
    assert loaded.model.training


def test_a_released_benchmark_is_named_with_its_files(
    runs: dict[str, Path],
    tmp_path: Path,
    photo: object,
    rows_of: Callable[..., list[dict]],
) -> None:
    (tmp_path / "sugar").mkdir()
    (tmp_path / "coco").mkdir()
    photo.save(tmp_path / "coco" / "000000000001.jpg")
    questions = {
        str(number): {
            "filename": "000000000001.jpg",
            "caption": f"a bus and {number} cars",
            "negative_caption": f"a car and {number} buses",
        }
        for number in range(3)
    }
    (tmp_path / "sugar" / "swap_obj.json").write_text(json.dumps(questions))
    sugar, coco = tmp_path / "sugar", tmp_path / "coco"
    flags = ["--data", f"sugarcrepe={sugar}", "--images", f"coco2017={coco}", "--allow-missing"]
    expected = rows_of(runs["tiny"], *flags)
    named = {"allow_missing": True, "workers": 0}
    by_name = {"sugarcrepe": sugar}, {"coco2017": coco}
    assert hnc_ds.evaluate(runs["tiny"], by_name[0], images=by_name[1], **named) == expected
    as_flags = f"sugarcrepe={sugar}", f"coco2017={coco}"
    assert hnc_ds.evaluate(runs["tiny"], as_flags[0], images=as_flags[1], **named) == expected
    assert expected[0]["benchmark"] == "sugarcrepe"
    with pytest.raises(hnc_ds.UserError, match=r"the files of sugarcrepe\? give {'sugarcrepe': PA"):
        hnc_ds.evaluate(runs["tiny"], "sugarcrepe")
    with pytest.raises(hnc_ds.UserError, match="no benchmark 'sugarcrep'; did you mean"):
        hnc_ds.evaluate(runs["tiny"], f"sugarcrep={sugar}")
    with pytest.raises(hnc_ds.UserError, match="no such folder; make shards"):
        hnc_ds.evaluate(runs["tiny"], tmp_path / "nothing")


@pytest.mark.slow
def test_a_cross_encoder_is_measured_without_retrieval_unless_it_is_asked_for(
    tmp_path: Path, scene_shards: Path, rows_of: Callable[..., list[dict]]
) -> None:
    shards = hnc_ds.Shards(scene_shards / "val")
    words = [word for n in range(12) for g in shards.groups(n) for word in g.positive.split()]
    name = f"hf:{save_cross_encoder(tmp_path / 'blip', 'blip', words)}"
    expected = rows_of(name, "--shards", scene_shards / "val")
    loaded = hnc_ds.load(name)
    assert hnc_ds.evaluate(loaded, scene_shards / "val", workers=0) == expected
    assert {row["benchmark"] for row in expected} == {"hnc-shards"}
    asked = hnc_ds.evaluate(loaded, scene_shards / "val", benchmarks=["retrieval"], workers=0)
    assert {row["benchmark"] for row in asked} == {"retrieval"}


def ranks_agree(run: Path, shards: Path, expected: list[dict]) -> None:
    assert hnc_ds.evaluate(run, shards, workers=0) == expected, rank()


def test_ranks_share_the_work_and_have_the_same_rows(
    runs: dict[str, Path], scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    expected = hnc_ds.evaluate(runs["tiny"], scene_shards / "val", workers=0)
    run_on_ranks(2, ranks_agree, runs["tiny"], scene_shards / "val", expected)
