"""A training on several shard folders, stopped and resumed."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.train import main
from tests.training.test_interrupted import after_step, logged_steps, losses, to


@pytest.fixture
def mixed(arguments: list[str], scene_shards: Path) -> list[str]:
    """96 and 12 images, three to one."""
    return [*arguments, *folders(scene_shards / "train", scene_shards / "val"), *mix(3, 1)]


def folders(*paths: Path) -> list[str]:
    return ["--shards", *map(str, paths)]


def mix(*weights: float) -> list[str]:
    return ["--mix", *map(str, weights)]


def settings_of(run: Path) -> Any:
    return json.loads((run / "config.json").read_text())


@pytest.mark.slow
def test_a_stopped_run_of_a_mix_resumes_to_the_losses_of_an_uninterrupted_one(
    mixed: list[str],
    scene_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train, val = scene_shards / "train", scene_shards / "val"
    assert main(to(whole, mixed)) == 0
    printed = capsys.readouterr().out
    assert f"train: 3 in 4 images from {train}, 96 images, each 0.84 times an epoch\n" in printed
    assert f"train: 1 in 4 images from {val}, 12 images, each 2.25 times an epoch\n" in printed
    assert " on 108 images, " in printed
    with monkeypatch.context() as patch:
        after_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        assert main(to(cut, mixed)) == 128 + signal.SIGTERM
    again = ["--config", str(cut / "config.json"), "--run", str(cut), "--resume"]
    assert main(again) == 0
    assert len(losses(whole)) == 4
    assert losses(cut) == losses(whole)
    record = settings_of(cut)
    assert record["settings"]["data"]["shards"] == [str(train), str(val)]
    assert record["settings"]["data"]["mix"] == [3.0, 1.0]
    assert len(set(record["shards"])) == 2


@pytest.mark.slow
def test_a_run_resumes_only_with_its_folders_in_their_order_and_its_weights(
    mixed: list[str],
    scene_shards: Path,
    plain_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, val, other = scene_shards / "train", scene_shards / "val", plain_shards / "some"
    run = tmp_path / "run"
    assert main([*mixed, "--steps", "2"]) == 0
    before = (run / "config.json").read_bytes()
    on_others = "was trained on other shards; pass those to --shards, at whatever path"
    cases = [
        (
            folders(val, train),
            "was trained on these folders in another order; give them to --shards in that of its "
            "config.json",
        ),
        (
            mix(1, 3),
            "was trained with mix [3.0, 1.0], not [1.0, 3.0]; resume with the same value, ",
        ),
        (["--mix"], "was trained with mix [3.0, 1.0], not []; resume with the same value, "),
        ([*folders(train), *mix(3)], "was trained with mix [3.0, 1.0], not [3.0]; "),
        (folders(train, other), on_others),
        ([*folders(train, val, other), *mix(3, 1)], "mix has 2 weights for 3 folders of --shards"),
        ([*folders(train, train)], f"{train} and {train} hold the same shards; "),
    ]
    for changed, message in cases:
        capsys.readouterr()
        assert main([*mixed, "--resume", *changed]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert (run / "config.json").read_bytes() == before
    link = tmp_path / "moved"
    link.symlink_to(train)
    assert main([*mixed, "--resume", *folders(link, val)]) == 0
    assert logged_steps(run) == [1, 2, 3, 4]


def train_on_a_rank(arguments: list[str]) -> None:
    assert main(arguments) == 0


def test_two_ranks_train_on_the_images_of_one_process(
    run_on_ranks: Callable[..., None], mixed: list[str], tmp_path: Path
) -> None:
    assert main(to(tmp_path / "one", mixed)) == 0
    run_on_ranks(2, train_on_a_rank, to(tmp_path / "two", mixed))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_folders_without_mix_are_one_data_set(
    arguments: list[str],
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whose epoch is the sum of the folders, as it is with --mix."""
    train, val = scene_shards / "train", scene_shards / "val"
    flags = arguments[: arguments.index("--steps")]  # --log_every and --save_every follow it
    flags += ["--epochs", "0.5", "--log_every", "1", *folders(train, val)]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert f"train: from {train}, 96 images\ntrain: from {val}, 12 images\n" in printed
    assert logged_steps(tmp_path / "run") == [1, 2, 3, 4]  # 54 of 108 images, 16 at once
    assert "mix" not in settings_of(tmp_path / "run")["settings"]["data"]
    assert main([*flags, "--resume", *folders(val, train), "--epochs", "1"]) == 2
    assert "in another order" in capsys.readouterr().err
    assert main([*to(tmp_path / "plan", flags), *mix(3, 1), "--dry_run"]) == 0
    assert "length       4 steps, 0.59 epochs of 108 images" in capsys.readouterr().out


def test_config_json_of_one_folder_is_as_before_there_were_several(
    arguments: list[str], scene_shards: Path, tmp_path: Path
) -> None:
    assert main([*arguments, "--steps", "1"]) == 0
    record = settings_of(tmp_path / "run")
    assert record["settings"]["data"]["shards"] == str(scene_shards / "train")
    assert "mix" not in record["settings"]["data"]
    assert isinstance(record["shards"], str)


def test_embeddings_of_a_frozen_tower_are_those_of_all_folders(
    mixed: list[str], tmp_path: Path
) -> None:
    frozen = [*mixed, "--towers", "text", "--crop", "1", "--encode_images_once"]
    assert main([*to(tmp_path / "once", frozen), "always"]) == 0
    assert main([*to(tmp_path / "each", frozen), "never"]) == 0
    once, each = losses(tmp_path / "once"), losses(tmp_path / "each")
    assert once == pytest.approx(each, abs=1e-5)
    assert len(list((tmp_path / "once").glob("image_embeddings-*.npy"))) == 1
