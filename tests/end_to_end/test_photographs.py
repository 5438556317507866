"""Real photographs: packed, trained on for a few DeepSpeed steps, evaluated."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from hnc_ds.shards.reader import ShardReader

from .conftest import ROOT, Command

SHARED = ROOT.parent / "shared" / "data"


def thing(name: str, box: tuple[int, int, int, int], *facts: Any) -> dict[str, Any]:
    attributes = [fact for fact in facts if isinstance(fact, str)]
    relations = [{"name": p, "object": o} for p, o in (f for f in facts if not isinstance(f, str))]
    x, y, w, h = box
    return {
        "name": name,
        "x": x,
        "y": y,
        "w": w,
        "h": h,
        "attributes": attributes,
        "relations": relations,
    }


GRAPHS: dict[str, dict[str, Any]] = {
    "china": {
        "temple": thing("temple", (150, 60, 400, 250), "red", ("in front of", "sky")),
        "sky": thing("sky", (0, 0, 640, 200), "blue", ("above", "stairs"), ("behind", "temple")),
        "stairs": thing("stairs", (200, 320, 300, 100), "gray", ("below", "sky")),
    },
    "flower": {
        "flower": thing("flower", (170, 60, 330, 300), "red", ("in front of", "leaf")),
        "leaf": thing("leaf", (0, 250, 200, 170), "green", ("behind", "flower")),
        "stem": thing("stem", (330, 330, 40, 97), "green", ("below", "flower")),
    },
    "000000000785": {
        "woman": thing("woman", (280, 45, 218, 346), ("wearing", "jacket"), ("on", "snow")),
        "jacket": thing("jacket", (330, 90, 120, 110), "red"),
        "snow": thing("snow", (0, 100, 640, 325), "white", ("below", "woman")),
    },
}
"""Written by hand while looking at the images; GQA's layout, extra fields included."""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with images/ID.jpg and scene_graphs.json."""
    (tmp_path / "images").mkdir()
    samples = load_sample_images()
    for name, pixels in zip(samples.filenames, samples.images, strict=True):
        source = Path(name)
        target = tmp_path / "images" / f"{source.stem}.jpg"
        if source.is_file():
            shutil.copy(source, target)
        else:
            Image.fromarray(pixels).save(target, quality=92)
    if (coco := SHARED / "000000000785.jpg").is_file():
        shutil.copy(coco, tmp_path / "images" / coco.name)
    graphs = {}
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as image:
            width, height = image.size
        graphs[path.stem] = {
            "width": width,
            "height": height,
            "location": "outdoors",
            "objects": GRAPHS[path.stem],
        }
    assert len(graphs) >= 2
    (tmp_path / "scene_graphs.json").write_text(json.dumps(graphs))
    return tmp_path


def small_batch(folder: Path, batch: int) -> Path:
    config = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    (folder / "cpu.json").write_text(json.dumps(config | {"train_batch_size": batch}))
    return folder / "cpu.json"


def test_photographs_with_hand_written_graphs_go_through_every_stage(
    photographs: Path, hnc_ds: Command, deepspeed: Command
) -> None:
    captions, shards = photographs / "captions.jsonl.gz", photographs / "shards"
    graphs = photographs / "scene_graphs.json"
    for stage in (
        ("generate", "--scene-graphs", graphs, "--out", captions),
        ("pack", "--captions", captions, "--images", photographs / "images", "--out", shards),
    ):
        done = hnc_ds(*stage)
        assert done.returncode == 0, done.stderr
    reader = ShardReader(shards)
    originals = {path.stem: path.read_bytes() for path in (photographs / "images").iterdir()}
    packed = {reader.sample(i).image_id: reader.image_bytes(i) for i in range(len(reader))}
    assert packed == originals
    texts = {group.positive for i in range(len(reader)) for group in reader.sample(i).groups}
    assert "The temple is red." in texts or "The red temple is in front of the blue sky." in texts

    run, results = photographs / "run", photographs / "results.json"
    trained = deepspeed(
        1,
        *("--deepspeed_config", small_batch(photographs, len(reader))),
        *("--shards", shards, "--run", run, "--steps", 3, "--log_every", 1),
    )
    assert trained.returncode == 0, trained.stderr
    assert len((run / "log.jsonl").read_text().splitlines()) == 3
    measured = hnc_ds("evaluate", run, "--shards", shards, "--out", results)
    assert measured.returncode == 0, measured.stderr
    rows = json.loads(results.read_text())
    counted = {row["group"]: row["count"] for row in rows if row["metric"] == "pair_accuracy"}
    negatives = sum(
        len(group.negatives) for i in range(len(reader)) for group in reader.sample(i).groups
    )
    assert counted["all"] == negatives


def test_the_released_human_test_layout_is_packed_and_evaluated(
    photographs: Path, tmp_path: Path, hnc_ds: Command
) -> None:
    """The layout of the released test set, on photographs of our own; its excerpt where it is."""
    release = SHARED / "hnc_human_test_excerpt.json"
    by_image = json.loads(release.read_text()) if release.is_file() else {}
    records = list(by_image.values())[:2] or [human_captions(), human_captions()]
    renamed = {f"{name}.jpg": part for name, part in zip(("china", "flower"), records, strict=True)}
    (tmp_path / "human.json").write_text(json.dumps(renamed))
    shards = tmp_path / "human-shards"
    images = photographs / "images"
    release_file = tmp_path / "human.json"
    done = hnc_ds("pack", "--captions", release_file, "--images", images, "--out", shards)
    assert done.returncode == 0, done.stderr
    reader = ShardReader(shards)
    assert sorted(reader.sample(i).image_id for i in range(len(reader))) == ["china", "flower"]
    assert all(group.negatives for i in range(2) for group in reader.sample(i).groups)


def human_captions() -> dict[str, Any]:
    """Pairs are neighbours with labels 1, 0; typography is loose."""
    texts = [
        ("relation", "The temple is behind the stairs.", "The temple is below the stairs."),
        ("object_count", "There are two lanterns ", "There are five lanterns."),
    ]
    rows = [
        {"caption": text, "label": label, "type": kind, "replaced": None}
        for kind, true, false in texts
        for text, label in ((true, 1), (false, 0))
    ]
    return {str(number): row for number, row in enumerate(rows)}
