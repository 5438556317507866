"""Where a run is watched: tags, TensorBoard after a kill, wandb and trackio behind fake modules."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from hnc_ds.config import LossConfig, TrainConfig
from hnc_ds.config.checks import flat_settings
from hnc_ds.installing import pip_install
from hnc_ds.metrics import measure_similarities
from hnc_ds.monitor import TAGS, Cost, Monitor
from hnc_ds.objective.terms import objective
from hnc_ds.trackers import GROUP_OF, OFTEN_CONSTANT, OPENERS, SHOWN_SETTINGS, tag_of
from hnc_ds.train import main
from tests.objective.made import compared

RECORD = {
    "settings": {
        "run": "runs/first",
        "seed": 3,
        "loss": {"alpha": 2.0, "terms": {"contrastive": 1.0}},
        "data": {"shards": "a|b\n<i>"},
    },
    "deepspeed": {"train_batch_size": 6},
}


def opened(run: Path, start: int = 0, log_to: Sequence[str] = ("tensorboard",)) -> Monitor:
    run.mkdir(exist_ok=True)
    cpu = torch.device("cpu")
    return Monitor(run, start, 4, ("swap",), 6, Cost(1, 1), cpu, 77, (), log_to, RECORD)


def write(monitor: Monitor, step: int, **measures: float) -> None:
    made, alike = compared(), torch.zeros(3, 2, dtype=torch.bool)
    numbers = alike.long(), alike.long() - 1
    terms, found = objective(made, LossConfig(), 1.0), measure_similarities(made)
    used_BK = made.masks.negative_used_BK
    monitor.add(terms, found, used_BK, *numbers, *torch.ones(2, 5), alike_BK=alike)
    monitor.write(step, measures)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, without speeds."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("speed/")
    }


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("loss", "train/loss"),
        ("loss/text_to_image", "train/loss/text_to_image"),
        ("similarity/positive", "train/similarity/positive"),
        ("hard_negative_accuracy", "train/hard_negative_accuracy"),
        ("hard_negative_accuracy/swap", "types/hard_negative_accuracy/swap"),
        ("predicate_accuracy/on", "types/predicate_accuracy/on"),
        ("samples_per_second", "speed/samples_per_second"),
        ("padding_fraction", "data/padding_fraction"),
        ("eval/hnc-shards/pair_accuracy/all", "eval/hnc-shards/pair_accuracy"),
        ("eval/hnc-shards/ties/all", "types/eval/hnc-shards/ties/all"),
        ("eval/hnc-shards/pair_accuracy/swap", "types/eval/hnc-shards/pair_accuracy/swap"),
    ],
)
def test_names_of_the_log_are_tags_in_few_groups(name: str, tag: str) -> None:
    assert tag_of(name) == tag


def test_every_name_with_a_rule_is_one_of_the_log() -> None:
    assert {*GROUP_OF, *OFTEN_CONSTANT} <= TAGS.keys()
    groups = {tag_of(name).partition("/")[0] for name in TAGS}
    assert groups == {"train", "speed", "data", "types"}


def test_a_run_has_the_name_of_its_folder_a_card_of_settings_and_hyperparameters(
    tmp_path: Path,
) -> None:
    monitor = opened(tmp_path / "first")
    write(monitor, 1)
    monitor.close()
    assert [path.parent for path in tmp_path.rglob("events.*")] == [tmp_path / "first"]
    events = EventAccumulator(str(tmp_path / "first")).Reload()
    (card,) = events.Tensors("settings/text_summary")
    text = card.tensor_proto.string_val[0].decode()
    assert "| loss.alpha | 2.0 |" in text
    assert "| data.shards | a\\|b <i> |" in text
    assert "runs/first" not in text
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    shown = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert shown["alpha"].number_value == 2
    assert shown["batch"].number_value == 6
    assert shown["shards"].string_value == "a|b\n<i>"


def test_what_does_not_change_is_not_shown_until_it_does(tmp_path: Path) -> None:
    monitor = opened(tmp_path / "run")
    for step, alpha in ((1, 0.0), (2, 0.0), (3, 2.0), (4, 2.0)):
        write(monitor, step, alpha=alpha, temperature=0.07)
    monitor.close()
    shown = scalars(tmp_path / "run")
    assert shown["train/alpha"] == [(3, 2.0), (4, 2.0)]
    assert [step for step, _ in shown["train/loss"]] == [1, 2, 3, 4]  # constant here, and shown
    assert not [tag for tag in shown if tag.startswith("data/") or "temperature" in tag]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert [line["alpha"] for line in lines] == [0, 0, 2, 2]


def test_after_a_kill_tensorboard_shows_what_an_uninterrupted_run_shows(tmp_path: Path) -> None:
    alphas = {1: 0.0, 2: 0.0, 3: 0.5, 4: 1.0}
    rates = {1: 0.1, 2: 0.2, 3: 0.2, 4: 0.2}  # has changed before the kill
    whole = opened(tmp_path / "whole")
    for step, alpha in alphas.items():
        write(whole, step, alpha=alpha, learning_rate=rates[step])
    whole.close()
    killed = opened(tmp_path / "killed")
    for step, alpha in alphas.items():
        write(killed, step, alpha=alpha, learning_rate=rates[step])  # and no close
    resumed = opened(tmp_path / "killed", start=2)
    for step in (3, 4):
        write(resumed, step, alpha=alphas[step], learning_rate=rates[step])
    resumed.close()
    assert scalars(tmp_path / "killed") == scalars(tmp_path / "whole")
    assert scalars(tmp_path / "whole")["train/alpha"] == [(3, 0.5), (4, 1.0)]


def test_a_run_that_starts_over_keeps_nothing_of_before(tmp_path: Path) -> None:
    for _ in range(2):
        monitor = opened(tmp_path / "run")
        monitor.write_held_out(0, {"hnc-shards/pair_accuracy/all": 0.5}, None)
    monitor.close()
    assert scalars(tmp_path / "run") == {"eval/hnc-shards/pair_accuracy": [(0, 0.5)]}


class FakeRun:
    """A run of a fake library; ``step`` is wandb's next step."""

    def __init__(self, step: int | None) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.is_finished = False
        if step is not None:
            self.step = step

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.is_finished = True


class Fake(ModuleType):
    """A library with wandb's interface."""

    def __init__(self, name: str, step: int | None = 0) -> None:
        super().__init__(name)
        self.next_step = step
        self.runs: list[FakeRun] = []
        self.started: list[dict[str, Any]] = []
        self.Error = type("Error", (Exception,), {})
        self.Histogram = lambda values: ("histogram", np.asarray(values).shape)
        self.Image = lambda image: ("image", image.shape)

    def init(self, **settings: Any) -> FakeRun:
        self.started.append(settings)
        self.runs.append(FakeRun(self.next_step))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


def test_wandb_gets_settings_values_histograms_and_images_by_the_same_tags(
    wandb: Fake, tmp_path: Path
) -> None:
    monitor = opened(tmp_path / "first", log_to=("wandb",))
    write(monitor, 1, alpha=2.0)
    monitor.write_held_out(1, {"s/m/all": 0.5, "s/m/rare": 0.1}, np.zeros((4, 5, 3)), ["s/m/rare"])
    monitor.close()
    (started,) = wandb.started
    assert started["config"] == RECORD
    assert (started["project"], started["name"]) == ("hnc-ds", "first")
    assert started["resume"] == "allow"
    assert started["dir"] == str(tmp_path / "first")
    (run,) = wandb.runs
    assert run.is_finished
    steps, values = zip(*run.logged, strict=True)
    assert set(steps) == {1}
    assert values[0]["train/alpha"] == 2.0  # constants as well
    assert "step" not in values[0]
    assert {"train/similarities/positive": ("histogram", (3,))} in values
    assert {"eval/s/m": 0.5} in values
    assert {"eval/worst_pairs": ("image", (4, 5, 3))} in values
    assert not list((tmp_path / "first").glob("events.*"))


def test_a_resumed_run_continues_at_wandb_and_does_not_repeat_steps(
    wandb: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    first = opened(tmp_path / "run", log_to=("wandb",))
    for step in (1, 2, 3):
        write(first, step)
    wandb.next_step = 4
    again = opened(tmp_path / "run", start=2, log_to=("wandb",))
    for step in (3, 4):
        write(again, step)
    before, after = wandb.started
    assert before["id"] == after["id"]
    assert before["project"] == "mine"
    assert len(before["id"]) == 8
    assert {step for step, _ in wandb.runs[1].logged} == {4}
    other = opened(tmp_path / "other", log_to=("wandb",))
    other.close()
    assert wandb.started[2]["id"] != before["id"]


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake("trackio", step=None)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_trackio_resumes_by_name(trackio: Fake, tmp_path: Path) -> None:
    for start in (0, 2):
        monitor = opened(tmp_path / "run", start, log_to=("trackio",))
        write(monitor, start + 1)
        monitor.close()
    settings = [(s["project"], s["name"], s["resume"]) for s in trackio.started]
    assert settings == [("hnc-ds", "run", "never"), ("hnc-ds", "run", "allow")]
    assert [run.logged[0][0] for run in trackio.runs] == [1, 3]
    assert all(run.is_finished for run in trackio.runs)


def flags(shards: Path, run: Path, *log_to: str) -> list[str]:
    return [
        *("--deepspeed_config", "cpu", "--shards", str(shards / "train")),
        *("--run", str(run), "--steps", "2", "--log_every", "1", "--log_to", *log_to),
    ]


def test_several_trackers_are_chosen_on_the_command_line(
    wandb: Fake, scene_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(flags(scene_shards, run, "wandb", "tensorboard")) == 0
    assert capsys.readouterr().out.endswith(f"\ntrain: done; tensorboard --logdir {tmp_path}\n")
    assert [step for step, values in wandb.runs[0].logged if "train/loss" in values] == [1, 2]
    assert [step for step, _ in scalars(run)["train/loss"]] == [1, 2]
    written = json.loads((run / "config.json").read_text())
    assert written["settings"]["log_to"] == ["wandb", "tensorboard"]
    assert wandb.started[0]["config"] == written
    # Every column of hyperparameters is a setting.
    assert set(SHOWN_SETTINGS.values()) <= flat_settings(written).keys()


def test_the_last_line_names_the_trackers_that_were_chosen(
    trackio: Fake, scene_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(scene_shards, tmp_path / "run", "trackio")) == 0
    assert capsys.readouterr().out.endswith("\ntrain: done; trackio show --project hnc-ds\n")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_library_that_is_not_installed_is_refused_before_anything_is_written(
    name: str,
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(flags(scene_shards, tmp_path / "run", "tensorboard", name)) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("train: ")]
    assert line.startswith(f"train: --log_to {name}: {name} is not installed (")
    assert line.endswith(f"; {pip_install(name)}")
    assert not (tmp_path / "run").exists()


def test_a_refusal_of_wandb_is_one_line(
    wandb: Fake,
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.Error("No API key configured. Use `wandb login` to log in.\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    assert main(flags(scene_shards, tmp_path / "run", "wandb")) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("train: --log_to")]
    assert line == (
        "train: --log_to wandb: No API key configured. Use `wandb login` to log in. "
        f"WANDB_MODE=offline writes to {tmp_path / 'run'}/wandb alone"
    )


def test_the_values_of_log_to_are_those_that_can_be_opened() -> None:
    assert TrainConfig().log_to == ("tensorboard",)
    assert set(OPENERS) == {"tensorboard", "wandb", "trackio"}
