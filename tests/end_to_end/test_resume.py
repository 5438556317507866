"""A run killed in mid-epoch resumes to the same losses."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.train import main

from .conftest import ROOT, Command, deepspeed_command, environment

STEPS, SAVE_EVERY = 12, 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Batches of 32: three steps an epoch, so that the checkpoints lie inside of epochs."""
    path = tmp_path_factory.mktemp("config") / "cpu.json"
    cpu = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    path.write_text(json.dumps(cpu | {"train_batch_size": 32}))
    return path


def arguments(config: Path, shards: Path, run: Path) -> list[object]:
    settings = ["--steps", STEPS, "--save_every", SAVE_EVERY, "--log_every", 1, "--alpha", 2]
    return ["--deepspeed_config", config, "--shards", shards, "--run", run, *settings]


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in logged(run)]


def kill_after_step(command: list[str], run: Path, step: int) -> None:
    """Start training and kill -9 the launcher and every rank once a step is logged."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        log, patience = run / "log.jsonl", time.monotonic() + 200
        while not (log.exists() and log.read_text().count("\n") >= step):
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < patience, "training did not come so far in time"
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def trained(arguments: list[str]) -> None:
    assert main(arguments) == 0


def test_a_killed_run_resumes_to_the_losses_of_an_uninterrupted_one(
    scene_shards: Path,
    run_on_ranks: Callable[..., None],
    tmp_path: Path,
    config: Path,
    deepspeed: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shards = scene_shards / "train"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_on_ranks(2, trained, [*map(str, arguments(config, shards, whole))])  # without a launcher
    assert [step for step, _ in losses(whole)] == list(range(1, STEPS + 1))

    kill_after_step(deepspeed_command(2, *arguments(config, shards, killed)), killed, 6)
    assert len(losses(killed)) < STEPS
    again = deepspeed(2, *arguments(config, shards, killed), "--resume")
    assert again.returncode == 0, again.stderr
    assert losses(killed) == losses(whole)  # bit for bit, and every step logged once

    # The same checkpoint on one rank: the same samples, so the same losses up to rounding.
    for checkpoint in (killed / "checkpoints").iterdir():
        if checkpoint.name != "step-000008":
            subprocess.run(["rm", "-r", str(checkpoint)], check=True)
    again_alone = [*map(str, arguments(config, shards, killed)), "--resume"]
    assert main(again_alone) == 0
    for (step, found), (_, expected) in zip(losses(killed), losses(whole), strict=True):
        assert found == pytest.approx(expected, rel=1e-4), step

    assert main([*again_alone, "--seed", "1"]) == 2
    assert "was trained with seed 0, not 1" in capsys.readouterr().err
