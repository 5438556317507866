"""Flags that override DeepSpeed's JSON, a run without one, epochs, and the line on the console."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hnc_ds.checkpoint import to_json
from hnc_ds.config import ModelConfig, TrainConfig
from hnc_ds.engine import engine
from hnc_ds.engine.deepspeed_config import overridden
from hnc_ds.errors import UserError
from hnc_ds.monitor import console_line
from hnc_ds.shards.order import steps_of_epochs
from hnc_ds.train import main, parse
from hnc_ds.training import choices

PATH = Path("c.json")


@pytest.fixture
def arguments(scene_shards: Path, tmp_path: Path) -> list[str]:
    """96 images; no --deepspeed_config, default workers."""
    return ["--shards", str(scene_shards / "train"), "--run", str(tmp_path / "run")]


def record_of(run: Path) -> Any:
    return json.loads((run / "config.json").read_text())


def log_of(run: Path) -> list[Any]:
    lines = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    return line.removeprefix("train: ")


@pytest.mark.slow
def test_flags_override_the_shipped_json_and_are_recorded_and_reused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--lr 1e-3 --batch_size 32 --warmup_steps 2 --weight_decay 0.25 --epochs 1.5"
    assert main([*arguments, *flags.split(), "--log_every", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "train: --deepspeed_config cpu, as there is no GPU, and the weights are random: "
        "batch 32, lr 0.001\n"
    )
    record = record_of(tmp_path / "run")
    settings, deepspeed = record["settings"], record["deepspeed"]
    assert settings["deepspeed_config"] == "cpu"
    assert settings["optimizer"] == {
        "lr": 1e-3, "batch_size": 32, "warmup_steps": 2, "weight_decay": 0.25,
    }  # fmt: skip
    assert (settings["epochs"], settings["steps"]) == (1.5, 5)  # 144 of 96 images, 32 at once
    assert deepspeed["train_batch_size"] == 32
    assert deepspeed["optimizer"]["params"]["lr"] == 1e-3
    assert deepspeed["optimizer"]["params"]["weight_decay"] == 0.25
    assert deepspeed["scheduler"]["params"]["warmup_num_steps"] == 2
    assert deepspeed["scheduler"]["params"]["total_num_steps"] == 5
    rates = [line["learning_rate"] for line in log_of(tmp_path / "run")]
    assert rates[:2] == [0, 5e-4]  # DeepSpeed reports the rate of the last step
    assert max(rates) <= 1e-3
    same = ["--config", str(tmp_path / "run" / "config.json"), "--run", str(tmp_path / "same")]
    assert main(same) == 0
    again = record_of(tmp_path / "same")
    assert again["deepspeed"] == deepspeed
    own = {"run": None, "config": None}
    assert again["settings"] | own == settings | own
    shorter = ["--config", str(tmp_path / "run" / "config.json"), "--run", str(tmp_path / "less")]
    assert main([*shorter, "--steps", "1", "--lr", "2e-3"]) == 0
    settings = record_of(tmp_path / "less")["settings"]
    assert (settings["epochs"], settings["steps"], settings["optimizer"]["lr"]) == (None, 1, 2e-3)


@pytest.mark.slow
def test_a_resumed_run_of_epochs_continues_to_the_same_losses_and_keeps_its_batch(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its DeepSpeed JSON too, which was not the one of this machine."""
    flags = [*arguments, *"--batch_size 40 --log_every 1 --epochs".split()]
    chosen = ["--deepspeed_config", "zero1_fp32"]
    assert main([*flags, "2", *chosen, "--run", str(tmp_path / "whole")]) == 0
    whole = log_of(tmp_path / "whole")
    assert len(whole) == 5  # 192 images, 40 at once
    assert main([*flags, "2", *chosen, "--save_every", "2", "--keep_last", "9"]) == 0
    for step in ("step-000004", "step-000005"):
        folder = tmp_path / "run" / "checkpoints" / step
        folder.rename(tmp_path / step)
    capsys.readouterr()
    assert main([*flags, "2", "--resume"]) == 0
    assert "--deepspeed_config zero1_fp32, as before: batch 40, lr 1e-05" in capsys.readouterr().out
    assert [line["loss"] for line in log_of(tmp_path / "run")] == [line["loss"] for line in whole]
    line = refused([*flags, "1", "--resume"], capsys)
    assert line.endswith(
        "has done 5 steps already, more than the 3 of --epochs 1; raise --epochs to continue it, "
        "or choose another --run"
    )
    line = refused([*flags, "2", "--batch_size", "32", "--resume"], capsys)
    assert "was trained with train_batch_size 40, not 32" in line


@pytest.mark.parametrize(
    ("epochs", "positions", "batch", "steps"),
    [
        (1, 96, 32, 3),
        (1, 97, 32, 4),  # the last batch begins the next epoch
        (1.5, 96, 32, 5),
        (0.1, 30, 1, 3),  # 0.1 * 30 is 3.0000000000000004
        (0.001, 96, 32, 1),
        (3, 74942, 256, 879),
    ],
)
def test_epochs_are_the_fewest_steps_that_visit_as_many_images(
    epochs: float, positions: int, batch: int, steps: int
) -> None:
    assert steps_of_epochs(epochs, positions, batch) == steps


def settings_on_ranks(arguments: list[str], run: Path) -> None:
    assert main([*arguments, "--run", str(run)]) == 0


def test_ranks_agree_on_the_steps_of_epochs_and_on_the_json(
    run_on_ranks: Callable[..., None], arguments: list[str], tmp_path: Path
) -> None:
    flags = [*arguments, *"--epochs 1 --batch_size 40".split()]
    run_on_ranks(2, settings_on_ranks, flags, tmp_path / "two")
    record = record_of(tmp_path / "two")
    assert (record["ranks"], record["settings"]["steps"]) == (2, 3)
    assert record["deepspeed"]["train_micro_batch_size_per_gpu"] == 20
    assert record["deepspeed"]["scheduler"]["params"]["total_num_steps"] == 3


@pytest.mark.parametrize(
    ("accelerated", "bf16", "model", "name"),
    [
        (True, True, ModelConfig(), "zero1_bf16"),
        (True, False, ModelConfig(), "zero1_fp16"),
        (False, True, ModelConfig(), "cpu"),
        (False, True, ModelConfig(model="ViT-B-32", pretrained="openai"), "zero1_fp32"),
        (False, True, ModelConfig(model="local-dir:folder"), "zero1_fp32"),
    ],
)
def test_the_json_of_a_run_without_one_depends_on_the_machine_and_the_weights(
    accelerated: bool, bf16: bool, model: ModelConfig, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "is_accelerated", lambda: accelerated)
    monkeypatch.setattr(choices, "has_bf16", lambda: bf16)
    assert choices.shipped_for(TrainConfig(model=model))[0] == Path(name)


def test_a_gpu_that_only_emulates_bf16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(device_name=lambda: "cuda", is_bf16_supported=lambda: True)
    monkeypatch.setattr(engine, "_accelerator", lambda: gpu)
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert not engine.has_bf16()


def json_with(schedule: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    config = {"train_batch_size": 64, "optimizer": {"type": "AdamW", "params": {"lr": 1.0}}, **more}
    return config | ({"scheduler": schedule} if schedule else {})


def test_a_schedule_with_a_rate_of_its_own_follows_lr_and_0_warmup_steps_start_at_it() -> None:
    params = {"total_num_steps": "auto", "warmup_max_lr": 1.0, "warmup_num_steps": 10}
    given = json_with({"type": "WarmupDecayLR", "params": params})
    changed = overridden(given, PATH, lr=0.5, warmup_steps=0)
    assert given["scheduler"]["params"] == params  # a copy
    assert changed["optimizer"]["params"]["lr"] == 0.5
    assert changed["scheduler"]["params"] == {
        "total_num_steps": "auto", "warmup_max_lr": 0.5, "warmup_num_steps": 1,
        "warmup_min_lr": 0.5,
    }  # fmt: skip


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Learning rates with which DeepSpeed's engine has made its steps."""
    import deepspeed

    found, step = list[float](), deepspeed.DeepSpeedEngine.step

    def recording(of: Any, *arguments: Any, **others: Any) -> Any:
        found.append(of.optimizer.param_groups[0]["lr"])
        return step(of, *arguments, **others)

    monkeypatch.setattr(deepspeed.DeepSpeedEngine, "step", recording)
    return found


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, [1e-3, 1e-3, 5e-4, 0]), (2, [0, 5e-4, 5e-4, 0])]
)
def test_the_schedule_begins_at_the_first_step_and_the_log_has_the_rates_of_its_steps(
    arguments: list[str], tmp_path: Path, rates: list[float], warmup: int, expected: list[float]
) -> None:
    flags = f"--batch_size 16 --steps 4 --log_every 1 --lr 1e-3 --warmup_steps {warmup}"
    assert main([*arguments, *flags.split()]) == 0
    assert [line["learning_rate"] for line in log_of(tmp_path / "run")] == rates
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_resumed_run_continues_its_schedule(
    arguments: list[str], tmp_path: Path, rates: list[float]
) -> None:
    flags = "--batch_size 16 --log_every 1 --lr 1e-3 --warmup_steps 3 --save_every 2"
    assert main([*arguments, *flags.split(), "--steps", "6"]) == 0
    whole = [*rates]
    shutil.rmtree(tmp_path / "run/checkpoints/step-000006")
    rates.clear()
    assert main([*arguments, *flags.split(), "--steps", "6", "--resume"]) == 0
    assert rates == whole[4:]


def test_a_decay_has_the_peak_of_the_optimizer_and_of_the_flag(
    arguments: list[str], tmp_path: Path, rates: list[float]
) -> None:
    params = {"total_num_steps": "auto", "warmup_num_steps": 2, "warmup_type": "linear"}
    config = json_with({"type": "WarmupDecayLR", "params": params}, train_batch_size=16)
    config["optimizer"]["params"] = {"lr": 1e-4, "torch_adam": True}
    (tmp_path / "c.json").write_text(json.dumps(config))
    file = f"--steps 4 --deepspeed_config {tmp_path / 'c.json'}".split()
    assert main([*arguments, *file]) == 0
    assert max(rates) == pytest.approx(1e-4)
    rates.clear()
    other = ["--run", str(tmp_path / "other"), "--lr", "1e-5"]
    assert main([*arguments, *file, *other]) == 0
    assert max(rates) == pytest.approx(1e-5)


def test_a_batch_of_a_flag_keeps_the_micro_batch() -> None:
    sizes = {"train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 8}
    changed = overridden(json_with(None, **sizes), PATH, batch_size=32)
    assert changed["train_batch_size"] == 32
    assert changed["train_micro_batch_size_per_gpu"] == 8
    assert "gradient_accumulation_steps" not in changed


@pytest.mark.parametrize(
    ("schedule", "flags", "message"),
    [
        (None, {"warmup_steps": 5}, "c.json: no scheduler section; leave out --warmup_steps"),
        ({"type": "OneCycle", "params": {}}, {"warmup_steps": 5}, "OneCycle, which has no warm-up"),
        ({"type": "OneCycle", "params": {}}, {"lr": 0.5}, "OneCycle has learning rates of its own"),
    ],
)
def test_a_flag_without_a_place_in_the_json_is_refused(
    schedule: dict[str, Any] | None, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        overridden(json_with(schedule), PATH, **flags)


def test_a_batch_that_ranks_do_not_divide_is_one_line_and_nothing_is_written(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([*arguments, *"--deepspeed_config cpu --warmup_steps -1".split()], capsys)
    assert line == "warmup_steps is -1; it must be 0 or more"
    assert not (tmp_path / "run").exists()


PARTS = {
    "step": "step 500/20000", "epoch": "epoch 1.71", "loss": "loss 1.2345",
    "neg acc": "neg acc 0.850", "lr": "lr 9.1e-06", "images/s": "2310 images/s",
    "wait": "wait 1%", "eta": "eta 1:12:30", "GiB": "38.2 GiB",
}  # fmt: skip


def test_the_least_important_parts_of_a_line_are_left_out_in_a_narrow_terminal() -> None:
    whole = console_line(PARTS, None)
    assert whole == "  ".join(PARTS.values())
    assert console_line(PARTS, 200) == whole
    assert console_line(PARTS, len(whole)) == whole.removesuffix("  38.2 GiB")
    assert console_line(PARTS, 80) == (
        "step 500/20000  epoch 1.71  loss 1.2345  neg acc 0.850  eta 1:12:30"
    )
    assert console_line(PARTS, 60) == "step 500/20000  loss 1.2345  neg acc 0.850  eta 1:12:30"
    assert console_line(PARTS, 5) == "step 500/20000"
    for columns in range(20, 130):
        assert len(console_line(PARTS, columns)) < columns


LINE = re.compile(
    r"step (\d+)/4  epoch (\d\.\d\d)  loss \d+\.\d{4}  neg acc [01]\.\d{3}  lr \d\.\de[+-]\d\d  "
    r"\d+ images/s  wait \d+%(  eta \d+:\d\d:\d\d)?"
)


@pytest.mark.slow
def test_a_line_on_the_console_has_its_parts_and_in_a_terminal_fits_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = "--batch_size 48 --log_every 1 --steps".split()
    monkeypatch.setenv("COLUMNS", "30")  # without effect where no terminal is
    assert main([*arguments, *flags, "4"]) == 0
    printed = capsys.readouterr().out.splitlines()
    found = [LINE.fullmatch(line) for line in printed if line.startswith("step ")]
    assert [match and match[1] for match in found] == ["1", "2", "3", "4"]
    assert [match and match[2] for match in found] == ["0.50", "1.00", "1.50", "2.00"]
    assert [bool(match and match[3]) for match in found] == [False, True, True, True]
    assert found[3] is not None
    assert found[3][3] == "  eta 0:00:00"
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((30, 24)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main([*arguments, *flags, "5", "--resume"]) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("step "))
    assert re.fullmatch(r"step 5/5  loss \d\.\d{4}", line)


@pytest.mark.parametrize(
    ("before", "flags"),
    [
        ({"eval_shards": "val"}, "--eval_every 2 --early_stopping_patience 3"),
        ({"ema": 0.9}, "--terms contrastive 1 distill 1 --reference average"),
        ({"shards": ("a", "b"), "mix": (3.0, 1.0)}, "--mix 6 2"),
        ({"lora_rank": 4}, "--lora_alpha 8"),
        ({"hard_negatives": 0}, "--preset hnc-sighted --hard_negatives 4"),
    ],
)
def test_flags_are_judged_with_the_settings_that_they_change(
    tmp_path: Path, before: dict[str, Any], flags: str
) -> None:
    words = list[str]()
    for name, value in before.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    old = parse([*words, "--run", str(tmp_path / "old")])
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text(json.dumps({"settings": to_json(old)}))
    new = parse(["--config", str(tmp_path / "old"), *flags.split()])
    assert to_json(new) != to_json(old)
    with pytest.raises(UserError):
        parse(flags.split() if "preset" not in flags else [*words, *flags.split()[:2]])
