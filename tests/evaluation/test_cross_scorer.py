"""Cross-encoders in evaluate: scores of pairs depend on the pair alone, rules on the scores."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hnc_ds.config import EvaluateConfig
from hnc_ds.distributed import join_ranks, rank
from hnc_ds.errors import UserError
from hnc_ds.evaluation.cross_scorer import CrossScorer, Matches
from hnc_ds.evaluation.embed import Corruption, ShardImages
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import read_measurement
from hnc_ds.model.cross_encoder import load_cross_encoder
from hnc_ds.shards.images import evaluation_view
from hnc_ds.shards.reader import ShardReader
from tests.cross_encoders import MADE, save_cross_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(scene_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of every kind, which knows the words of the scenes."""
    base = tmp_path_factory.mktemp("models")
    words = sorted({word for caption in captions_of(scene_shards) for word in split(caption)})
    return {kind: save_cross_encoder(base / kind, kind, words) for kind in MADE}


def split(caption: str) -> list[str]:
    return caption.replace(".", " .").split()


def captions_of(scene_shards: Path) -> list[str]:
    reader = ShardReader(scene_shards / "val")
    groups = (group for n in range(len(reader)) for group in reader.sample(n).groups)
    texts = (text for g in groups for text in (g.positive, *(n.caption for n in g.negatives)))
    return list(dict.fromkeys(texts))


def matches(
    folder: Path, scene_shards: Path, batch: int = 64, workers: int = 0
) -> tuple[Matches, ShardReader]:
    reader = ShardReader(scene_shards / "val")
    scorer = CrossScorer(load_cross_encoder(str(folder)), CPU, batch, workers, "some")
    found, too_long = scorer.similarity(scorer.shards(reader), captions_of(scene_shards))
    assert too_long == 0
    assert isinstance(found, Matches)
    return found, reader


def some_pairs(found: Matches, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, len(found.images.samples), count)
    return images, random.integers(0, len(found.captions), count)


@pytest.mark.parametrize("kind", MADE)
def test_the_score_of_a_pair_is_that_of_the_pair_alone(
    folders: dict[str, Path], scene_shards: Path, kind: str
) -> None:
    found, _ = matches(folders[kind], scene_shards)
    images, texts = some_pairs(found, 150)
    together = found.pairs(images, texts)
    assert len(np.unique(together)) > 100
    for place in (0, 1, 77, 149):
        alone = found.pairs(images[place : place + 1], texts[place : place + 1])
        assert alone[0] == together[place]
    backwards = found.pairs(images[::-1], texts[::-1])
    assert np.array_equal(backwards[::-1], together)
    other, _ = matches(folders[kind], scene_shards, batch=1, workers=2)
    assert np.array_equal(other.pairs(images, texts), together)


def test_a_score_is_the_models_own_of_image_and_caption(
    folders: dict[str, Path], scene_shards: Path
) -> None:
    found, reader = matches(folders["blip"], scene_shards)
    encoder = found.scorer.model
    images, texts = some_pairs(found, 5)
    for image, text, score in zip(images, texts, found.pairs(images, texts), strict=True):
        pixels = ShardImages(reader).image(found.images.samples[image])
        view = evaluation_view(pixels, encoder.image_settings)[None]
        ids = torch.tensor([found.ids[text]])
        with torch.inference_mode():
            expected = encoder.match(encoder.see(view), ids, torch.ones_like(ids))
        assert score == pytest.approx(expected.item(), abs=1e-4)


def test_a_grid_holds_the_scores_of_all_pairs(folders: dict[str, Path], scene_shards: Path) -> None:
    found, _ = matches(folders["vilt"], scene_shards)
    grid = found.grid([3, 0], [5, 1, 2])
    expected = found.pairs(np.array([3, 3, 3, 0, 0, 0]), np.array([5, 1, 2, 5, 1, 2]))
    assert np.array_equal(grid.rows(0, 2).numpy(), expected.reshape(2, 3))
    assert torch.equal(grid.transposed().rows(0, 3), grid.rows(0, 2).T)


def test_corrupted_images_have_other_scores(folders: dict[str, Path], scene_shards: Path) -> None:
    found, reader = matches(folders["flava"], scene_shards)
    worse = found.scorer.corrupted(found, ShardImages(reader), Corruption("gaussian_noise", 5, 0))
    pairs = some_pairs(found, 20)
    assert not np.array_equal(worse.pairs(*pairs), found.pairs(*pairs))
    again = found.scorer.corrupted(found, ShardImages(reader), Corruption("gaussian_noise", 5, 0))
    assert np.array_equal(worse.pairs(*pairs), again.pairs(*pairs))


def test_a_score_that_is_not_finite_is_named(folders: dict[str, Path], scene_shards: Path) -> None:
    found, _ = matches(folders["blip"], scene_shards)
    with torch.no_grad():
        found.scorer.model.towers.itm_head.weight[1, 0] = torch.inf
    with pytest.raises(UserError, match=r"some: the score of .* with '.*' is not finite"):
        found.pairs(*some_pairs(found, 3))


def results(out: Path) -> dict[tuple[str, str, str], float]:
    return {key: row.value for key, row in read_measurement(out).rows.items()}


@pytest.fixture(scope="module")
def evaluated(
    folders: dict[str, Path], scene_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "blip.json"
    models, shards = (f"hf:{folders['blip']}",), str(scene_shards / "val")
    names = ("hnc-shards", "retrieval")
    evaluate(EvaluateConfig(models=models, shards=shards, benchmarks=names, out=out, workers=0))
    return out


def test_scores_of_shards_are_counted_from_the_items(evaluated: Path) -> None:
    rows = results(evaluated)
    items = [json.loads(line) for line in evaluated.with_suffix(".items.jsonl").open()][1:]
    pairs = [item for item in items if "positive_score" in item]
    right = [item["positive_score"] > item["negative_score"] for item in pairs]
    assert rows["hnc-shards", "pair_accuracy", "all"] == pytest.approx(np.mean(right))
    matched = [(i["positive_score"] > 0) / 2 + (i["negative_score"] <= 0) / 2 for i in pairs]
    assert rows["hnc-shards", "match_accuracy", "all"] == pytest.approx(np.mean(matched))
    assert 0 < rows["hnc-shards", "auroc", "all"] < 1
    assert 0 <= rows["hnc-shards", "blind_accuracy", "all"] <= 1
    assert ("retrieval", "image_to_text_R@1", "all") in rows


@pytest.mark.slow
def test_retrieval_on_shards_is_made_on_request(
    folders: dict[str, Path],
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, shards = tmp_path / "blip.json", str(scene_shards / "val")
    evaluate(EvaluateConfig(models=(f"hf:{folders['blip']}",), shards=shards, out=out))
    assert "--benchmarks hnc-shards retrieval has it" in capsys.readouterr().out
    assert not any(benchmark == "retrieval" for benchmark, *_ in results(out))


def test_two_ranks_give_the_bytes_of_one(
    folders: dict[str, Path],
    scene_shards: Path,
    evaluated: Path,
    tmp_path: Path,
    run_on_ranks: Callable[..., None],
) -> None:
    run_on_ranks(2, evaluate_on_ranks, str(folders["blip"]), str(scene_shards / "val"), tmp_path)
    for name in ("blip.json", "blip.items.jsonl"):
        assert (tmp_path / name).read_bytes() == (evaluated.parent / name).read_bytes()


def evaluate_on_ranks(folder: str, shards: str, out: Path) -> None:
    join_ranks()
    names = ("hnc-shards", "retrieval")
    config: Any = EvaluateConfig(
        models=(f"hf:{folder}",), shards=shards, benchmarks=names, out=out / "blip.json", workers=0
    )
    evaluate(config)
    assert rank() in (0, 1)


def asked(folder: Path, out: Path, data: str, images: str) -> EvaluateConfig:
    return EvaluateConfig(
        models=(f"hf:{folder}",),
        data=data,
        images=images,
        allow_missing=True,
        out=out,
        workers=0,
    )


def test_released_benchmarks_keep_their_rules(folders: dict[str, Path], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "000000000001.jpg")
    question = {"filename": "000000000001.jpg", "caption": "red star", "negative_caption": "blue"}
    (tmp_path / "swap_obj.json").write_text(json.dumps({"0": question, "1": question}))
    data, images = f"sugarcrepe={tmp_path}", f"coco2017={tmp_path}"
    evaluate(asked(folders["bridgetower"], tmp_path / "out.json", data, images))
    rows = results(tmp_path / "out.json")
    (item, _) = [json.loads(line) for line in (tmp_path / "out.items.jsonl").open()][1:]
    true, false = item["scores"][0]
    assert rows["sugarcrepe", "accuracy", "all"] == float(true > false)
    assert ("sugarcrepe", "blind_accuracy", "all") not in rows  # there is no other image


def test_classes_are_scored_by_the_mean_of_their_prompts(
    folders: dict[str, Path], scene_shards: Path
) -> None:
    found, _ = matches(folders["blip"], scene_shards)
    prompts = [["red star", "a red star"], ["blue ring", "a blue ring"], ["ring", "a ring"]]
    scores = found.scorer.classifier(prompts)(found, [2, 0]).rows(0, 2)
    each, _ = found.scorer.similarity(found.images, [text for own in prompts for text in own])
    expected = each.grid([2, 0], range(6)).rows(0, 2).view(2, 3, 2).mean(dim=2)
    assert scores.std() > 1e-3
    assert torch.equal(scores, expected)


def test_images_are_classified(folders: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "set"
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (place / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(place / name / "1.png")
    (place / "classnames.json").write_text(json.dumps({"red": "red star", "blue": "blue ring"}))
    (place / "templates.json").write_text(json.dumps(["a {}", "the {}"]))
    evaluate(asked(folders["blip"], tmp_path / "out.json", f"zero-shot={place}", ""))
    rows = results(tmp_path / "out.json")
    assert rows["zero-shot", "acc1", "all"] in (0, 0.5, 1)
    assert rows["zero-shot", "mean_per_class_recall", "all"] == rows["zero-shot", "acc1", "all"]


@pytest.mark.slow
def test_captions_are_judged_at_the_threshold_of_validation_data(
    folders: dict[str, Path], scene_shards: Path, evaluated: Path, tmp_path: Path
) -> None:
    """The threshold with the fewest mistakes in one file judges scores of another: those of other
    weights of the same name."""
    words = sorted({word for caption in captions_of(scene_shards) for word in split(caption)})
    other = save_cross_encoder(tmp_path / "blip", "blip", words, seed=1)
    config = EvaluateConfig(
        models=(f"hf:{other}",),
        shards=str(scene_shards / "val"),
        benchmarks=("hnc-shards",),
        out=tmp_path / "blip.json",
        workers=0,
        threshold_from=evaluated,
    )
    evaluate(config)

    def scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
        items = [json.loads(line) for line in path.with_suffix(".items.jsonl").open()][1:]
        pairs = [item for item in items if "positive_score" in item]
        names = ("positive_score", "negative_score")
        first, second = (np.array([pair[name] for pair in pairs]) for name in names)
        return first, second

    def accuracy(threshold: float, true: np.ndarray, false: np.ndarray) -> float:
        return float(((true >= threshold).mean() + (false < threshold).mean()) / 2)

    validated = scores(evaluated)
    chosen = max(np.concatenate(validated), key=lambda t: accuracy(t, *validated))
    found = results(tmp_path / "blip.json")["hnc-shards", "threshold_accuracy", "all"]
    assert found == pytest.approx(accuracy(chosen, *scores(tmp_path / "blip.json")))
    header = json.loads((tmp_path / "blip.items.jsonl").read_text().splitlines()[0])
    assert header["thresholds"] == {"threshold_accuracy": pytest.approx(chosen)}
    with pytest.raises(UserError, match=r"blip\.json is of blip, not of vilt"):
        evaluate(replace(config, models=(f"hf:{folders['vilt']}",)))
    with pytest.raises(UserError, match=r"--threshold_from is .*; name a file"):
        evaluate(replace(config, threshold_from=tmp_path))
