"""The folder of rendered scenes: its layout, its bytes, and what happens on a second call."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hnc_ds.config import ScenesConfig
from hnc_ds.errors import UserError
from hnc_ds.scenes.write import write_scenes


def small(out: Path, **changes: object) -> ScenesConfig:
    return replace(ScenesConfig(out=out, train=5, val=2, size=32, workers=1), **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_holds_gqa_graphs_and_one_image_for_each(tmp_path: Path) -> None:
    write_scenes(small(tmp_path / "scenes"))
    train = json.loads((tmp_path / "scenes/train_sceneGraphs.json").read_text())
    val = json.loads((tmp_path / "scenes/val_sceneGraphs.json").read_text())
    assert (len(train), len(val), len(train | val)) == (5, 2, 7)
    images = {path.stem: path for path in (tmp_path / "scenes/images").iterdir()}
    assert images.keys() == train.keys() | val.keys()
    for image_id, graph in (train | val).items():
        assert graph.keys() == {"width", "height", "objects"}
        with Image.open(images[image_id]) as image:
            assert image.size == (graph["width"], graph["height"])
        for thing in graph["objects"].values():
            assert thing.keys() == {"name", "x", "y", "w", "h", "attributes", "relations"}
            for relation in thing["relations"]:
                assert relation.keys() == {"name", "object"}
                assert relation["object"] in graph["objects"]


def test_an_empty_split_is_an_empty_object(tmp_path: Path) -> None:
    write_scenes(small(tmp_path, val=0))
    assert json.loads((tmp_path / "val_sceneGraphs.json").read_text()) == {}


def test_bytes_depend_on_the_seed_and_not_on_the_number_of_workers(tmp_path: Path) -> None:
    # Each spawned worker has its own hash seed, so this also rules out an order of sets.
    alone = small(tmp_path / "one", train=62)
    write_scenes(alone)
    write_scenes(replace(alone, out=tmp_path / "two", workers=2))
    write_scenes(replace(alone, out=tmp_path / "other", seed=1))
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one)


def test_training_and_held_out_scenes_differ(tmp_path: Path) -> None:
    write_scenes(small(tmp_path))
    images = list(contents(tmp_path / "images").values())
    assert len(set(images)) == len(images) == 7


def test_a_second_call_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small(tmp_path / "scenes")
    write_scenes(config)
    times = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    capsys.readouterr()
    write_scenes(replace(config, workers=2))
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == times
    assert "nothing to do" in capsys.readouterr().out


def test_an_interrupted_call_is_finished_with_the_same_bytes(tmp_path: Path) -> None:
    config = small(tmp_path / "scenes")
    write_scenes(config)
    whole = contents(config.out)
    (config.out / "scenes.json").rename(config.out / "scenes.unfinished.json")
    (config.out / "val_sceneGraphs.json").unlink()
    (config.out / "images/v000001.jpg").unlink()
    cut = config.out / "images/t000003.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    write_scenes(config)
    assert contents(config.out) == whole


@pytest.mark.parametrize("present", ["images/holiday.jpg", "train_sceneGraphs.json"])
def test_a_folder_of_other_files_is_refused_untouched(tmp_path: Path, present: str) -> None:
    foreign = tmp_path / "scenes" / present
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(UserError, match="other files"):
        write_scenes(small(tmp_path / "scenes"))
    assert contents(tmp_path / "scenes") == {present: b"mine"}


def test_scenes_of_other_settings_are_refused_untouched(tmp_path: Path) -> None:
    config = small(tmp_path / "scenes")
    write_scenes(config)
    before = contents(config.out)
    with pytest.raises(UserError, match="other settings"):
        write_scenes(replace(config, seed=1))
    assert contents(config.out) == before


def test_more_shapes_than_there_are_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shapes is 99"):
        write_scenes(small(tmp_path / "scenes", shapes=99))
    assert not (tmp_path / "scenes").exists()
