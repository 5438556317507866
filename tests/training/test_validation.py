"""Held-out scores while training: the best checkpoint is kept, and training may end early."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hnc_ds.checkpoint import complete_checkpoints, newest_checkpoint
from hnc_ds.config import EvaluateConfig, ModelConfig, TrainConfig
from hnc_ds.errors import Stopped, UserError
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import ItemsHeader, PairItem
from hnc_ds.model.load import load_model
from hnc_ds.shards.reader import ShardReader
from hnc_ds.train import main
from hnc_ds.training import checkpointing
from hnc_ds.training.checkpointing import Best, HeldOut, Validation, read_best

METRIC = "hnc-shards/pair_accuracy/all"


def scores(run: Path) -> list[tuple[int, float]]:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()
    ]
    return [(line["step"], line[f"eval/{METRIC}"]) for line in lines if f"eval/{METRIC}" in line]


@pytest.fixture
def arguments(arguments: list[str], few_scenes: Path) -> list[str]:
    return [*arguments, "--keep_last", "1", "--eval_shards", str(few_scenes)]


def test_a_run_that_ended_early_is_at_its_end(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.9, 0.2, 0.1])
    monkeypatch.setattr(Validation, "_measure", lambda *_: held_out(next(values)))
    flags = "--steps 9 --eval_every 1 --early_stopping_patience".split()
    assert main([*arguments, *flags, "2"]) == 0
    assert newest_checkpoint(tmp_path / "run").name == "step-000002"
    assert main([*arguments, *flags, "2", "--resume"]) == 0
    assert newest_checkpoint(tmp_path / "run").name == "step-000002"
    values = iter([0.1])
    assert main([*arguments, *flags, "3", "--resume"]) == 0
    assert newest_checkpoint(tmp_path / "run").name == "step-000003"


@pytest.mark.slow
def test_the_start_and_every_due_checkpoint_are_measured_as_evaluate_measures_them(
    arguments: list[str], few_scenes: Path, tmp_path: Path
) -> None:
    assert main(arguments) == 0
    found = dict(scores(tmp_path / "run"))
    assert list(found) == [0, 2, 4]
    out = tmp_path / "later.json"
    evaluate(EvaluateConfig(models=(str(tmp_path / "run"),), shards=few_scenes, out=out))
    row = next(
        row
        for row in json.loads(out.read_text())
        if (row["benchmark"], row["metric"], row["group"]) == tuple(METRIC.split("/"))
    )
    assert found[4] == row["value"]
    kept = json.loads((tmp_path / "run" / "results" / "step-000004.json").read_text())
    nameless = [
        [{key: value for key, value in row.items() if key != "model"} for row in rows]
        for rows in (kept, json.loads(out.read_text()))
    ]
    assert nameless[0] == nameless[1]
    best = read_best(tmp_path / "run")
    assert best is not None
    assert best.value == max(found.values())


@pytest.mark.slow
def test_a_measurement_that_a_signal_cut_short_is_repeated_when_the_run_is_resumed(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [*arguments]
    whole[whole.index(str(tmp_path / "run"))] = str(tmp_path / "whole")
    assert main(whole) == 0
    run, measure = tmp_path / "run", Validation.measure_checkpoint
    for step in (2, 4):
        resumed = ["--resume"] if step == 4 else []
        with monkeypatch.context() as patch:

            def cut_short(self: Validation, number: int, at: int = step) -> HeldOut:
                if number == at:
                    raise Stopped("as the process would end", 143)
                return measure(self, number)

            patch.setattr(Validation, "measure_checkpoint", cut_short)
            assert main([*arguments, *resumed]) == 143
        assert complete_checkpoints(run)[-1].name == f"step-00000{step}"
        assert step not in dict(scores(run))
    assert main([*arguments, "--resume"]) == 0
    assert scores(run) == scores(tmp_path / "whole")
    assert read_best(run) == read_best(tmp_path / "whole")


@pytest.mark.slow
def test_measuring_does_not_change_what_is_trained(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--eval_every", "1"]) == 0
    place = arguments.index("--eval_shards")
    plain = arguments[:place] + arguments[place + 2 :]
    plain[plain.index(str(tmp_path / "run"))] = str(tmp_path / "plain")
    assert main(plain) == 0

    def losses(run: Path) -> list[float]:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    assert losses(tmp_path / "run") == losses(tmp_path / "plain")


@pytest.mark.slow
def test_tensorboard_shows_the_pairs_that_are_most_wrong(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main(arguments) == 0
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0})
    events.Reload()
    images = events.Images("eval/worst_pairs")
    assert [image.step for image in images] == [0, 2, 4]
    assert images[0].width > 1500


def pair(image: int, positive_score: float, negative_score: float) -> PairItem:
    return PairItem(
        image=image,
        key=str(image),
        statement="relation",
        type="swap",
        positive="The red ring is above the blue star.",
        negative="The blue star is above the red ring.",
        positive_score=positive_score,
        negative_score=negative_score,
    )


def test_the_worst_pairs_are_of_different_images_and_shown_with_their_margins(
    scene_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    original = checkpointing.drawn_sheet

    def drawn(cards: list[Any], seed: int) -> Any:
        shown.extend(sample.image_id for _, sample in cards)
        return original(cards, seed)

    monkeypatch.setattr(checkpointing, "drawn_sheet", drawn)
    leads = [(0, 0.1), (0, -0.4), (0, -0.3), (1, 0.2), (2, -0.2), (3, 0.3)]
    items = [pair(image, 0.5 + lead, 0.5) for image, lead in leads]
    image = checkpointing.draw_worst(items, ShardReader(scene_shards / "val"))
    assert shown == ["0   margin -0.400", "2   margin -0.200", "1   margin +0.200"]
    assert image is not None
    assert image.dtype == np.uint8
    assert checkpointing.draw_worst([], ShardReader(scene_shards / "val")) is None


def test_a_model_whose_weights_are_nan_is_not_measured_while_training(
    scene_shards: Path, tmp_path: Path
) -> None:
    config = TrainConfig(eval_shards=scene_shards / "val", eval_every=10, steps=1000)
    clip = load_model(ModelConfig(), seed=0)
    with torch.no_grad():
        clip.towers.visual.conv1.weight[0] = float("nan")
    message = (
        r"^step-0: the image embedding of \S+ is not finite .* its weight visual\.conv1\.weight is"
    )
    with pytest.raises(UserError, match=message):
        Validation(config, tmp_path, torch.device("cpu")).measure_initial(clip)


def judged(tmp_path: Path, scene_shards: Path, values: list[float], **settings: Any) -> list[bool]:
    config = TrainConfig(eval_shards=scene_shards / "val", eval_every=10, steps=1000, **settings)
    judge = Validation(config, tmp_path, torch.device("cpu"))
    return [judge.is_enough(10 * n, {METRIC: value}) for n, value in enumerate(values)]


def test_training_ends_after_so_many_measurements_without_a_better_one(
    scene_shards: Path, tmp_path: Path
) -> None:
    values = [0.5, 0.4, 0.6, 0.6, 0.55]
    assert judged(tmp_path, scene_shards, values, early_stopping_patience=2) == [False] * 4 + [True]
    best = read_best(tmp_path)
    assert best is not None
    assert (best.step, best.value) == (20, 0.6)  # the first of equals


def test_without_a_limit_training_continues(scene_shards: Path, tmp_path: Path) -> None:
    assert not any(judged(tmp_path, scene_shards, [0.5, *[0.1] * 30]))


def held_out(value: float) -> HeldOut:
    return HeldOut({METRIC: value}, None, [], ItemsHeader(model="m"))


def test_the_best_checkpoint_outlives_later_ones(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.1, 0.9, 0.2, 0.3, 0.3])
    monkeypatch.setattr(Validation, "_measure", lambda *_: held_out(next(values)))
    assert main([*arguments, "--eval_every", "1"]) == 0
    kept = [path.name for path in complete_checkpoints(tmp_path / "run")]
    assert kept == ["step-000001", "step-000004"]


@pytest.mark.slow
def test_a_run_that_resumes_before_its_best_checkpoint_forgets_it(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, values = tmp_path / "run", iter([0.1, 0.2, 0.3, 0.9, 0.15])
    monkeypatch.setattr(Validation, "_measure", lambda *_: held_out(next(values)))
    flags = [*arguments, "--steps", "3", "--eval_every", "1", "--workers", "1"]
    assert main(flags) == 0
    assert read_best(run) == Best(3, METRIC, 0.9)
    os.truncate(run / "checkpoints" / "step-000003" / "model.safetensors", 10)
    assert main([*flags, "--resume"]) == 0
    assert read_best(run) == Best(2, METRIC, 0.3)


@pytest.mark.slow
def test_an_average_is_measured_in_place_of_the_weights(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    original = checkpointing.load_folder

    def load(folder: Path) -> Any:
        loaded.append(folder.name)
        return original(folder)

    monkeypatch.setattr(checkpointing, "load_folder", load)
    assert main([*arguments, "--ema", "0.5"]) == 0
    assert loaded == ["average", "average"]


@pytest.fixture
def crepe(tmp_path: Path) -> tuple[str, str]:
    """A released benchmark and its images, as flags name them."""
    folder = tmp_path / "crepe"
    folder.mkdir()
    rows = {}
    for number, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (32, 32), colour).save(folder / f"{number}.png")
        other = {"filename": f"{number}.png", "negative_caption": "It is pink."}
        rows[str(number)] = {**other, "caption": f"It is {colour}."}
    (folder / "swap_obj.json").write_text(json.dumps(rows))
    whole = {"replace_att", "replace_obj", "replace_rel", "swap_att", "add_att", "add_obj"}
    for name in whole:
        (folder / f"{name}.json").write_text(json.dumps({"0": rows["0"]}))
    return f"sugarcrepe={folder}", f"coco2017={folder}"


@pytest.mark.slow
def test_released_benchmarks_are_measured_while_training_with_the_scores_of_evaluate(
    arguments: list[str], crepe: tuple[str, str], tmp_path: Path
) -> None:
    place = arguments.index("--eval_shards")
    del arguments[place : place + 2]
    data, images = crepe
    assert main([*arguments, "--eval", data, "--eval_images", images]) == 0
    best, out = read_best(tmp_path / "run"), tmp_path / "later.json"
    assert best is not None
    assert best.metric == "sugarcrepe/accuracy/all"  # the first one, as none was named
    model = (str(tmp_path / "run"),)
    evaluate(EvaluateConfig(models=model, data=data, images=images, out=out))
    later = {(row["metric"], row["group"]): row["value"] for row in json.loads(out.read_text())}
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "eval/sugarcrepe/accuracy/all" in line][-1]
    assert last["step"] == 4
    for (metric, group), value in later.items():
        assert last[f"eval/sugarcrepe/{metric}/{group}"] == value


def test_an_unknown_score_is_refused_before_there_is_a_run(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--eval_metric", "hnc-shards/pair_acuracy/all"]) == 2
    line = capsys.readouterr().err
    assert "did you mean 'hnc-shards/pair_accuracy/all'" in line
    assert not (tmp_path / "run").exists()


def test_settings_of_measuring_need_something_to_measure() -> None:
    with pytest.raises(UserError, match="give --eval_shards or --eval"):
        TrainConfig(early_stopping_patience=2)
