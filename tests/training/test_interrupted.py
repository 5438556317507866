"""A run that ends before its last step leaves a checkpoint, and resumes exactly."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hnc_ds.checkpoint import complete_checkpoints
from hnc_ds.config import LossConfig, ModelConfig, TrainConfig
from hnc_ds.engine.engine import Engine
from hnc_ds.errors import UserError
from hnc_ds.model.load import load_model
from hnc_ds.train import main
from hnc_ds.training import grad_cache
from hnc_ds.training.setup import refuse_inexact

SETTINGS = {
    "plain": [],
    "compared with the start, LoRA, average": [
        *"--terms contrastive 1 distill 1 preference 1 l2_sp 0.1 --ema 0.9".split(),
        *"--lora_rank 2 --negatives_from all_images --alpha 1 --alpha_end 3".split(),
        *"--alpha_steps 4 --grad_checkpointing".split(),
    ],
    "the average as reference": [
        *"--preset degla --ema 0.9 --positives 2".split(),
        *"--grad_checkpointing".split(),
    ],
    "last blocks": ["--last_blocks", "1", "--no-train_temperature"],
}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def logged_steps(run: Path) -> list[int]:
    log = run / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line)["step"] for line in lines]


def to(run: Path, arguments: list[str]) -> list[str]:
    changed = list(arguments)
    changed[changed.index("--run") + 1] = str(run)
    return changed


def after_step(number: int, do: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when a step has been computed."""
    original, done = grad_cache.step, []

    def step(*given: Any) -> Any:
        found = original(*given)
        done.append(1)
        if len(done) == number:
            do()
        return found

    monkeypatch.setattr(grad_cache, "step", step)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "number"),
    [*((name, signal.SIGTERM) for name in SETTINGS), ("plain", signal.SIGUSR1)],
)
def test_a_signal_saves_and_the_resumed_run_has_the_losses_of_an_uninterrupted_one(
    settings: str,
    number: signal.Signals,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    begun = [*to(cut, arguments), *SETTINGS[settings]]
    assert main([*to(whole, arguments), *SETTINGS[settings]]) == 0
    with monkeypatch.context() as patch:
        after_step(1, lambda: os.kill(os.getpid(), number), patch)
        assert main(begun) == 128 + number
    assert f"stopped by {number.name} after step 1 of 4" in capsys.readouterr().err
    assert [path.name for path in complete_checkpoints(cut)] == ["step-000001"]
    assert main([*begun, "--resume"]) == 0
    assert losses(cut) == losses(whole)
    for name in ("model.safetensors", "optimizer.safetensors", "averages.safetensors"):
        last = Path("checkpoints") / "step-000004" / name
        if (whole / last).exists():
            found, expected = load_file(cut / last), load_file(whole / last)
            assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_a_checkpoint_with_low_rank_changes_is_a_plain_model(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--lora_rank", "2", "--ema", "0.9"]) == 0
    (last,) = complete_checkpoints(tmp_path / "run")[-1:]
    plain = set(dict(load_model(ModelConfig(), 0).towers.named_parameters()))
    start = dict(load_model(ModelConfig(), 0).towers.named_parameters())
    for folder in (last, last / "average"):
        weights = load_file(folder / "model.safetensors")
        assert set(weights) == plain
        name = "visual.transformer.resblocks.0.attn.in_proj_weight"
        assert not torch.equal(weights[name], start[name])


def test_other_start_weights_are_refused_where_they_are_compared_with(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "start.safetensors"
    state = dict(load_model(ModelConfig(), seed=3).towers.state_dict())
    save_file(state, weights)
    settings = ["--pretrained", str(weights), "--terms", "contrastive", "1", "distill", "1"]
    assert main([*arguments, *settings]) == 0
    state["logit_scale"] = state["logit_scale"] + 1
    save_file(state, weights)
    assert main([*arguments, *settings, "--resume", "--steps", "6"]) == 2
    assert "its initial weights have changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_reports_where_it_continues_and_never_starts_over_silently(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = [*arguments, "--workers", "1", "--resume"]
    assert main(flags) == 0
    first, last = complete_checkpoints(run)
    record = (run / "config.json").read_bytes()
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    assert main([*flags, "--steps", "3"]) == 2
    assert f"{run}: has done 4 steps already, more than --steps 3" in capsys.readouterr().err
    assert main([*flags, "--alpha", "9"]) == 0
    assert "is done already, step 4 of 4" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files

    os.truncate(last / "optimizer.safetensors", 100)
    assert main(flags) == 0
    printed = capsys.readouterr()
    assert "step-000004 is skipped: optimizer.safetensors has 100 bytes, not " in printed.err
    assert "using step-000002" in printed.err
    assert "steps 2 to 4" in printed.out
    assert complete_checkpoints(run) == [first, last]

    for checkpoint in (first, last):
        os.truncate(checkpoint / "model.safetensors", 100)
    log = (run / "log.jsonl").read_bytes()
    assert main(flags) == 2
    assert "no checkpoint is complete (step-000004 is skipped: model" in capsys.readouterr().err
    assert ((run / "config.json").read_bytes(), (run / "log.jsonl").read_bytes()) == (record, log)


def test_another_scope_is_refused_when_a_run_is_resumed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--towers", "text"]) == 0
    assert main([*arguments, "--resume", "--steps", "6"]) == 2
    assert "was trained with towers text, not both" in capsys.readouterr().err


def broken(number: int, patch: pytest.MonkeyPatch, gradient: bool = False) -> None:
    """Have a step's loss be NaN, or its gradient alone."""
    steps: list[Engine] = []
    original = Engine.forward

    def forward(engine: Engine, *inputs: Any) -> Any:
        steps.append(engine)
        image_BD, *others = original(engine, *inputs)
        if len(steps) == number and gradient:
            image_BD.register_hook(lambda gradient_BD: gradient_BD * torch.nan)
        elif len(steps) == number:
            image_BD = image_BD * torch.nan
        return (image_BD, *others)

    patch.setattr(Engine, "forward", forward)


@pytest.mark.parametrize(
    ("what", "number", "log_every"),
    [("loss", 1, 100), ("loss", 3, 1), ("gradient", 3, 100), ("gradient", 4, 100)],
)
def test_what_is_not_finite_ends_the_run_names_its_step_and_keeps_the_checkpoint_before(
    what: str,
    number: int,
    log_every: int,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where it is seen only after the step that follows, and where that step would save."""
    run = tmp_path / "run"
    flags = [*arguments, "--workers", "0"]
    flags[flags.index("--log_every") + 1] = str(log_every)
    with monkeypatch.context() as patch:
        broken(number, patch, what == "gradient")
        assert main([*flags, "--ema", "0.5"]) == 2
    assert f"the {what} is not finite at step {number}; lower" in capsys.readouterr().err
    saved = ["step-000002"] if number > 2 else []
    assert [path.name for path in complete_checkpoints(run)] == saved
    before = list(range(1, number)) if log_every == 1 else []
    assert logged_steps(run) == before
    if saved:
        assert main([*flags, "--ema", "0.5", "--resume"]) == 0
        weights = load_file(run / "checkpoints" / "step-000004" / "averages.safetensors")
        assert all(part.isfinite().all() for part in weights.values())


class Overflows:
    """DeepSpeed's engine when fp16 overflows with the smallest loss scale."""

    skipped_steps = 0

    def get_lr(self) -> list[float]:
        return [1e-3]

    def backward(self, loss: torch.Tensor, scale_wrt_gas: bool) -> None:
        pass

    def is_gradient_accumulation_boundary(self) -> bool:
        return True

    def step(self) -> None:
        raise Exception("Current loss scale already at minimum - cannot decrease scale anymore.")


@pytest.mark.parametrize(
    ("stage", "has_statistics", "expected"),
    [(3, False, "use stage 0, 1 or 2, or --reference start"), (2, True, "are not averaged")],
)
def test_an_average_as_reference_that_would_not_be_whole_is_refused(
    stage: int, has_statistics: bool, expected: str
) -> None:
    loss = LossConfig(terms={"contrastive": 1.0, "distill": 1.0}, reference="average")
    clip: Any = SimpleNamespace(has_batch_statistics=lambda: has_statistics)
    sections = {"zero_optimization": {"stage": stage}, "gradient_accumulation_steps": 1}
    with pytest.raises(UserError, match=expected):
        refuse_inexact(TrainConfig(loss=loss, ema=0.9), clip, sections)


def test_fp16_that_overflows_for_good_is_one_clear_line() -> None:
    engine = object.__new__(Engine)
    deepspeeds = {"_flat_step": None, "_fragments": SimpleNamespace(stage=1), "_skipped": False}
    engine.__dict__.update(_engine=Overflows(), _l2_sp=0.0, _decay=0.0, **deepspeeds)
    with pytest.raises(UserError, match="fp16 overflows even with the smallest loss scale; lower"):
        engine.backward_and_step(torch.zeros(()))


def test_batch_statistics_over_micro_batches_or_twice_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*arguments, "--model", "tiny-rn"]
    assert main([*flags, "--grad_checkpointing"]) == 2
    assert "would count each batch twice" in capsys.readouterr().err
    config = json.loads((tmp_path / "cpu.json").read_text())
    (tmp_path / "cpu.json").write_text(json.dumps(config | {"gradient_accumulation_steps": 2}))
    assert main(flags) == 2
    assert "batch normalization" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            "remove offload_optimizer, or use distill",
        ),
        ({"torch_autocast": {"enabled": True, "dtype": "float16"}}, "write bfloat16"),
    ],
)
def test_a_pull_on_gradients_that_are_elsewhere_is_refused(
    section: dict[str, Any], expected: str
) -> None:
    loss = LossConfig(terms={"contrastive": 1.0, "l2_sp": 1.0})
    clip: Any = SimpleNamespace(has_batch_statistics=lambda: False)
    with pytest.raises(UserError, match=expected):
        refuse_inexact(TrainConfig(loss=loss), clip, section | {"gradient_accumulation_steps": 1})
