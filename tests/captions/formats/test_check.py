"""Whether a file of scene graphs is complete: whole files, and every fault."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.captions.formats import scene_graphs
from hnc_ds.captions.formats.scene_graphs import check_scene_graphs
from hnc_ds.captions.generate import generate
from hnc_ds.config import GenerateConfig
from hnc_ds.errors import UserError


def graphs(count: int, prefix: str = "") -> dict[str, Any]:
    thing = {"name": "cup", **dict.fromkeys("xywh", 3), "attributes": ["red"]}
    near = [{"name": "near", "object": "b"}]
    objects = {"a": thing | {"relations": near}, "b": thing | {"x": 50, "relations": []}}
    return {f"{prefix}{i}": {"width": 9, "height": 9, "objects": objects} for i in range(count)}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        check_scene_graphs(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.fixture
def small_gqa(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if GQA had five training images."""
    monkeypatch.setattr(scene_graphs, "GQA_IMAGES", {"train_sceneGraphs.json": 5})


def test_a_whole_file_is_complete_and_its_contents_are_reported(tmp_path: Path) -> None:
    summary = check_scene_graphs(write(tmp_path / "mine.json", graphs(3)))
    assert summary.endswith("mine.json: complete: 3 images, 6 objects, 3 relations")


def test_what_reading_would_fix_is_reported(tmp_path: Path) -> None:
    content = graphs(2)
    content["1"]["objects"]["b"]["name"] = " "
    summary = check_scene_graphs(write(tmp_path / "mine.json", content))
    assert "met 2 objects without a name, 2 relations to a missing object" in summary


@pytest.mark.usefixtures("small_gqa")
@pytest.mark.parametrize("name", ["train_sceneGraphs.json", "train_sceneGraphs.json.gz"])
def test_all_of_gqas_images_are_expected_of_a_file_of_its_name(tmp_path: Path, name: str) -> None:
    def written(count: int) -> Path:
        data = json.dumps(graphs(count)).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path / name

    assert "complete: 5 images, as GQA has" in check_scene_graphs(written(5))
    assert "4 images, but GQA's file of this name has 5" in refusal(written(4))
    assert "6 images, but GQA's file of this name has 5" in refusal(written(6))


@pytest.mark.usefixtures("small_gqa")
def test_rendered_scenes_of_the_same_file_name_are_not_compared_with_gqa(tmp_path: Path) -> None:
    path = write(tmp_path / "train_sceneGraphs.json", graphs(3, prefix="t00"))
    assert "complete: 3 images," in check_scene_graphs(path)


def test_gqas_own_numbers_are_those_published() -> None:
    assert scene_graphs.GQA_IMAGES == {
        "train_sceneGraphs.json": 74_942,
        "val_sceneGraphs.json": 10_696,
    }


def test_a_file_that_was_cut_off_anywhere_is_not_complete(tmp_path: Path) -> None:
    data = json.dumps(graphs(2)).encode()
    path = tmp_path / "mine.json"
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        assert "broken JSON at" in refusal(path), length
    path.write_bytes(data)
    assert "complete" in check_scene_graphs(path)


def test_a_gzip_file_that_was_cut_off_is_not_complete(tmp_path: Path) -> None:
    data = gzip.compress(json.dumps(graphs(40)).encode())
    path = tmp_path / "mine.json.gz"
    for length in (20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "truncated or broken gzip" in refusal(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{}", "holds no images"),
        (b"PK\x03\x04and so on", "a zip archive; unpack it first"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "only a Git LFS pointer"),
        (b'{"1": {"width": 3, "height": 3}}', "image '1': not a GQA scene graph"),
        (b'{"1": {"width": 3, "height": 3, "objects": {}}}}', "broken JSON at byte 47"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    assert expected in refusal(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.json")


def test_the_flag_of_generate_checks_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "mine.json", graphs(3))
    generate(GenerateConfig(check=source))
    assert "complete: 3 images" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
