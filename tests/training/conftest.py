"""A short training of the tiny model, as flags."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def arguments(scene_shards: Path, tmp_path: Path) -> list[str]:
    """Four steps of 16 in this process, to TMP_PATH/run; checkpoints after two and four."""
    config = {
        "train_batch_size": 16,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": {"stage": 1},
    }
    (tmp_path / "cpu.json").write_text(json.dumps(config))
    flags = {
        "deepspeed_config": tmp_path / "cpu.json",
        "shards": scene_shards / "train",
        "run": tmp_path / "run",
        "steps": 4,
        "log_every": 1,
        "save_every": 2,
    }
    return [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
