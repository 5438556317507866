"""The examples of README.md and docs/python.md run as they are written, on tiny data."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hnc_ds.evaluation.released.one_image import SUGARCREPE_FILES
from tests.cross_encoders import save_cross_encoder

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CAPTIONS = "the bus is on the road ."


def blocks(page: str) -> list[object]:
    """The Python of a page, with the line that it begins at as its name."""
    text = (ROOT / page).read_text()
    found = [(text[: match.start(1)].count("\n"), match[1]) for match in BLOCK.finditer(text)]
    return [pytest.param("\n" * above + code, id=f"{page}:{above + 1}") for above, code in found]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    make_run: Callable[[Path, str], Path],
    scene_shards: Path,
    photo: Image.Image,
) -> Path:
    """A folder with everything that the examples name."""
    folder = tmp_path_factory.mktemp("place")
    make_run(folder / "runs" / "first", "clip")
    save_cross_encoder(folder / "models" / "blip", "blip", CAPTIONS.split())
    photo.save(folder / "bus.jpg")
    (folder / "data" / "gqa").mkdir(parents=True)
    (folder / "data" / "gqa" / "shards").symlink_to(scene_shards)
    (folder / "gqa").symlink_to(scene_shards.parent)
    write_sugarcrepe(folder / "sugar-crepe" / "data", folder / "coco" / "val2017", photo)
    return folder


def write_sugarcrepe(data: Path, images: Path, photo: Image.Image) -> None:
    """Two questions in each of its files."""
    data.mkdir(parents=True)
    images.mkdir(parents=True)
    photo.save(images / "000000000001.jpg")
    for file in SUGARCREPE_FILES.values():
        words = {"caption": "a bus on a road", "negative_caption": "a road on a bus"}
        questions = {str(n): {"filename": "000000000001.jpg", **words} for n in range(2)}
        (data / file).write_text(json.dumps(questions))


def run(code: str, page: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    exec(compile(code, ROOT / page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("code", blocks("docs/python.md"))
def test_an_example_of_the_page_runs(
    code: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(code, "docs/python.md", monkeypatch, place)
    assert capsys.readouterr().out or "print(" not in code


@pytest.mark.parametrize("model", ["tiny", "clip"])
@pytest.mark.parametrize("code", blocks("README.md"))
def test_the_readmes_example_runs_with_the_default_model_too(
    code: str,
    model: str,
    place: Path,
    make_run: Callable[[Path, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(tmp_path / "runs" / "first", model)
    (tmp_path / "bus.jpg").symlink_to(place / "bus.jpg")
    run(code, "README.md", monkeypatch, tmp_path)
    found = re.findall(r"-?\d\.\d+", capsys.readouterr().out)
    assert len(found) == 2
    assert all(-1 <= float(cosine) <= 1 for cosine in found)


def test_the_pages_have_examples_of_every_name() -> None:
    code = "".join(BLOCK.findall((ROOT / "docs" / "python.md").read_text()))
    names = {"load", "captions_of", "hard_negative_loss", "Shards", "evaluate"}
    assert names == set(re.findall(r"hnc_ds\.(\w+)", code))
    assert len(blocks("README.md")) == 1
