"""Steps of a training as a device likes them: it is waited for once a step, and not more."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds import metrics
from hnc_ds.model import text
from hnc_ds.shards.loader import Batch
from hnc_ds.train import main
from hnc_ds.training import grad_cache, loop

from .waiting import PlayedDevice

OBJECTIVES = {
    "own negatives": ["--negatives_from", "own_image"],
    "negatives of all images": ["--negatives_from", "all_images"],
    "no negatives, captions of others": ["--alpha", "0", "--unrelated_negatives", "2"],
    "everything, averaged": [
        *"--terms contrastive 1 margin 1 preference 1 distill 1 l2_sp 0.1".split(),
        *"--negatives_from all_images --ema 0.9 --grad_checkpointing".split(),
    ],
    "the average as reference, several positives": [
        *"--preset degla --positives 2".split(),
        *"--terms contrastive 1 hard_negative 1 text_grounded 1 feature_distill 1".split(),
        *"adaptive_margin 1 intra_modal 1".split(),
    ],
}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Waits of each step of the trainings that follow."""
    device, found = PlayedDevice(), list[list[str]]()
    begin, original, move = loop._Steps.run, loop._Steps._step, Batch.to

    def run(steps: Any) -> None:
        device.put_all()  # the model and its optimizer
        begin(steps)

    def step(steps: Any, number: int) -> bool:
        with device.watched() as waits:
            is_last = original(steps, number)
        found.append(waits)
        return is_last

    def to(batch: Batch, where: torch.device) -> Batch:
        moved = move(batch, where)
        tensors = {n: t for n, t in moved._asdict().items() if isinstance(t, torch.Tensor)}
        device.host.put(moved.used_T)
        copies = {name: device.copy(part) for name, part in tensors.items() if name != "used_T"}
        return moved._replace(**copies)

    def on_device(where: torch.device, host: torch.Tensor) -> torch.Tensor:
        return device.copy(host)

    for module in (text, grad_cache):
        monkeypatch.setattr(module, "on_device", on_device)
    monkeypatch.setattr(loop._Steps, "run", run)
    monkeypatch.setattr(loop._Steps, "_step", step)
    monkeypatch.setattr(Batch, "to", to)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_that_is_not_logged_waits_for_the_device_once(
    objective: list[str],
    parts: int,
    arguments: list[str],
    tmp_path: Path,
    played: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "KEPT_STEPS", 2)  # that are summed up between lines, too
    config = json.loads((tmp_path / "cpu.json").read_text())
    config["optimizer"]["params"]["fused"] = True
    config["gradient_accumulation_steps"] = parts
    (tmp_path / "cpu.json").write_text(json.dumps(config))
    few = ["--log_every", "10", "--save_every", "10", "--workers", "0"]
    assert main([*arguments, *few, *objective]) == 0
    assert len(played) == 4
    # What the ranks report of the step before; the first report is of none.
    assert played[:-1] == [[], ["tolist"], ["tolist"]]
    assert len(played[-1]) > 1  # it is logged and saved
