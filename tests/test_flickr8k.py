"""The comparison on photographs: every stage on a few drawn images, and what its page says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import flickr8k
from experiments.flickr8k import Settings, change, page, run
from hnc_ds.errors import UserError
from hnc_ds.evaluation.paired import PairedValues
from tests.model.tiny_models import KINDS, save_tiny

CAPTIONS = ("A red dog chases a blue cat.", "A small boy throws a large ball to a tall girl.")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Twelve images as Karpathy lists them, of which four are the test split."""
    (tmp_path / "images").mkdir()
    listed = []
    for number in range(12):
        colour = tuple(int(c) for c in np.random.default_rng(number).integers(0, 256, 3))
        Image.new("RGB", (48, 48), colour).save(tmp_path / "images" / f"{number}.jpg")
        sentences = [{"raw": caption.replace(".", f" {number}.")} for caption in CAPTIONS]
        split = "test" if number < 4 else "train"
        listed.append({"filename": f"{number}.jpg", "split": split, "sentences": sentences})
    captions = tmp_path / "dataset_flickr8k.json"
    captions.write_text(json.dumps({"images": listed}))
    return Settings(
        captions=captions,
        images=tmp_path / "images",
        model=f"local-dir:{tmp_path / 'start'}",
        out=tmp_path / "out",
        steps=2,
        batch=4,
        seeds=(0,),
        only=("clip", "clip+sighted-3"),
    )


@pytest.mark.slow
def test_objectives_are_trained_measured_and_compared_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, forked_hnc_ds: Callable[..., None]
) -> None:
    monkeypatch.setattr(flickr8k, "hnc_ds", forked_hnc_ds)
    save_tiny(Path(settings.model.removeprefix("local-dir:")), KINDS["CLIP"])
    run(settings)
    written = (settings.out / "FLICKR8K.md").read_text()
    lines = written.splitlines()
    assert (
        sum(line.startswith(("| start | ", "| clip | ", "| clip+sighted-3 | ")) for line in lines)
        == 4
    )
    assert "    clip                    seeds: 1  --preset clip" in lines
    assert "## Differences from `clip`" in lines
    assert "    clip+sighted-3          seeds: 1  weights: 0.2 clip + 0.8 sighted-3" in lines
    runs = [settings.run(name, seed) for name in ("clip", "sighted-3") for seed in settings.seeds]
    kept = [*(settings.out / "image_embeddings").iterdir()]
    assert len(kept) == 1  # encoded once for all
    assert all((each / kept[0].name).samefile(kept[0]) for each in runs)

    def never(*_: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(flickr8k, "prepare", lambda *_: None)
    monkeypatch.setattr(flickr8k, "hnc_ds", never)
    run(settings)
    assert (settings.out / "FLICKR8K.md").read_text() == written
    assert page(settings, ("clip",)) != written


def test_a_difference_is_of_the_means_over_the_seeds_with_an_interval_over_images() -> None:
    rng = np.random.default_rng(0)
    cluster_N = np.repeat(np.arange(200), 5)
    seen_N = rng.random(200)[cluster_N]  # images differ, and both models with them
    of_seeds = [
        PairedValues(
            rng.random(1000) < 0.8 * seen_N, rng.random(1000) < 0.8 * seen_N + 0.1, cluster_N
        )
        for _ in range(3)
    ]
    value, low, high = (
        float(part.strip("()")) for part in change(of_seeds).replace(" to ", " ").split(" ")
    )
    assert low < 10 < high
    assert high - low < 8
    expected = np.mean([values.second_N.mean() - values.first_N.mean() for values in of_seeds])
    assert value == pytest.approx(100 * expected, abs=0.051)
    assert change([]) == "-"


def test_an_unknown_objective_is_named(settings: Settings) -> None:
    with pytest.raises(UserError, match=r"no objective 'hnc-sightd'.*'hnc-sighted'"):
        Settings(settings.captions, settings.images, "m", only=("hnc-sightd",))
