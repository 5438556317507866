"""Embeddings of a frozen image tower, made once: the same run, with other images per second."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hnc_ds.checkpoint import newest_checkpoint
from hnc_ds.shards.reader import ShardReader
from hnc_ds.train import main
from hnc_ds.training import image_embeddings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shards(scene_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose first image is not an image."""
    folder = tmp_path_factory.mktemp("frozen") / "shards"
    shutil.copytree(scene_shards / "train", folder)
    reader = ShardReader(folder)
    image = reader.image_bytes(0)
    tar = folder / reader.index.shards[0].file
    content = tar.read_bytes()
    assert content.count(image) == 1
    tar.write_bytes(content.replace(image, bytes(len(image))))
    return folder


def arguments(shards: Path, run: Path, parts: int = 1, **flags: Any) -> list[str]:
    settings = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    settings |= {"train_batch_size": 24, "gradient_accumulation_steps": parts}
    run.parent.mkdir(exist_ok=True, parents=True)
    (run.parent / "ds.json").write_text(json.dumps(settings))
    given = {
        "deepspeed_config": run.parent / "ds.json",
        "shards": shards,
        "run": run,
        "towers": "text",
        "crop": 1,
        "steps": 12,
        "log_every": 1,
        **flags,
    }
    return [word for name, value in given.items() for word in (f"--{name}", *str(value).split())]


def outcome(run: Path) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """The losses of the log, and the weights."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    kept = ("loss", "hard_negative_accuracy", "retrieval_r1", "corrupt_images", "gradient_norm")
    weights = load_file(newest_checkpoint(run) / "model.safetensors")
    return [[line.get(name) for name in kept] for line in lines], weights


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_is_the_same_bit_for_bit(
    shards: Path, tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hnc_ds.training.loop.MAX_CORRUPT_FRACTION", 0.5)
    again = ["--terms", "contrastive", "1", "distill", "0.5"]
    plain = [*arguments(shards, tmp_path / "plain", parts), *again, "--encode_images_once", "never"]
    assert main(plain) == 0
    assert main([*arguments(shards, tmp_path / "once", parts), *again]) == 0
    assert not [*(tmp_path / "plain").glob("image_embeddings*")]
    assert [*(tmp_path / "once").glob("image_embeddings-*.npy")]
    (losses, weights), (expected, others) = outcome(tmp_path / "once"), outcome(tmp_path / "plain")
    assert losses == expected
    assert losses[-1][3] == 1
    assert all(torch.equal(weights[name], others[name]) for name in others)


@pytest.mark.slow
def test_a_resumed_run_finds_the_embeddings_and_a_short_one_makes_none(
    scene_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = scene_shards / "train"
    assert main(arguments(shards, tmp_path / "short", steps=2)) == 0
    assert not [*(tmp_path / "short").glob("image_embeddings*")]
    assert (
        main([*arguments(shards, tmp_path / "run", steps=2), "--encode_images_once", "always"]) == 0
    )
    assert len([*(tmp_path / "run").glob("image_embeddings-*.npy")]) == 1

    def again(*_: object) -> None:
        raise AssertionError("encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(image_embeddings, "_encode", again)
        longer = [*arguments(shards, tmp_path / "run", steps=4), "--encode_images_once", "always"]
        assert main([*longer, "--resume"]) == 0
    whole = [*arguments(shards, tmp_path / "whole", steps=4), "--encode_images_once", "never"]
    assert main(whole) == 0
    weights, others = outcome(tmp_path / "run")[1], outcome(tmp_path / "whole")[1]
    assert all(torch.equal(weights[name], others[name]) for name in others)


@pytest.mark.parametrize(
    ("flags", "needs"),
    [
        ({"towers": "both"}, "a frozen image tower"),
        ({"crop": 0.9}, "--crop 1"),
        ({"towers": "image", "crop": 0.9}, "a frozen image tower (--towers text) and --crop 1"),
    ],
)
def test_unmet_requirements_are_reported(
    scene_shards: Path,
    tmp_path: Path,
    flags: dict[str, Any],
    needs: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [
        *arguments(scene_shards / "train", tmp_path / "run", **flags),
        "--encode_images_once",
        "always",
    ]
    assert main(given) == 2
    assert f"encode_images_once needs {needs}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
