"""Under every ZeRO stage a step is the step of one process; state goes out and in whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hnc_ds.config import DataConfig, ModelConfig
from hnc_ds.deepspeed_config import resolve
from hnc_ds.distributed import from_rank_zero, rank, world_size
from hnc_ds.engine import Engine
from hnc_ds.loss import contrastive_loss
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.train import compare

BATCH, LEARNING_RATE = 16, 0.1


def start_model() -> Clip:
    return load_model(ModelConfig(), seed=0)


def batch_of(folder: Path, step: int, of_rank: int = 0, ranks: int = 1) -> Batch:
    clip = start_model()
    share = BATCH // ranks
    rows = range(of_rank * share, (of_rank + 1) * share)
    data = TrainingData(folder, DataConfig(), 0, BATCH, rows, clip.image_settings, clip.tokenize)
    return data.batch(step)


def loss_of(forward: Any, batch: Batch) -> torch.Tensor:
    features, columns, scale = compare(forward, batch)
    return contrastive_loss(features, columns, scale, alpha=1.5).total


def make_engine(clip: Clip, stage: int, optimizer: dict[str, Any], **sections: Any) -> Engine:
    config = {
        "train_batch_size": BATCH,
        "optimizer": optimizer,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,  # DeepSpeed clips at 1 when nothing is said
        **sections,
    }
    return Engine(clip, clip.parameter_groups(), resolve(config, Path("-"), world_size(), 10))


def one_sgd_step_equals(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    sgd = {"type": "SGD", "params": {"lr": LEARNING_RATE}}
    for stage in (0, 1, 2, 3):
        engine = make_engine(start_model(), stage, sgd)
        engine.backward_and_step(loss_of(engine.forward, batch_of(folder, 0, rank(), world_size())))
        weights = engine.state().weights
        if rank() == 0:
            before = dict(start_model().named_parameters())
            steps = torch.cat([(weights[n] - before[n]).detach().flatten() for n in expected])
            reference = torch.cat([step.flatten() for step in expected.values()])
            error = (steps - reference).norm() / reference.norm()
            assert error < 1e-5, f"stage {stage}: {error}"


def test_one_sgd_step_under_zero_0_to_3_is_that_of_one_process(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    clip = start_model()
    loss_of(clip.forward, batch_of(scene_shards / "train", 0)).backward()
    expected = {
        name: -LEARNING_RATE * parameter.grad
        for name, parameter in clip.named_parameters()
        if parameter.grad is not None
    }
    assert "towers.logit_scale" in expected
    run_on_ranks(2, one_sgd_step_equals, scene_shards / "train", expected)


ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
COSINE = {
    "type": "WarmupCosineLR",
    "params": {"total_num_steps": "auto", "warmup_num_steps": 2, "warmup_type": "linear"},
}


def losses(engine: Engine, folder: Path, steps: range) -> list[float]:
    found = []
    for step in steps:
        loss = loss_of(engine.forward, batch_of(folder, step, rank(), world_size()))
        engine.backward_and_step(loss)
        found.append(float(loss.detach()))
    return found


def clip_with(weights: dict[str, torch.Tensor]) -> Clip:
    clip = start_model()
    clip.load_state_dict(weights, strict=False)
    return clip


def state_continues_bit_for_bit(folder: Path) -> None:
    """Train five steps; and train three, move the state into a new engine, train two."""
    for stage, precision in ((1, {}), (3, {}), (2, {"bf16": {"enabled": True}})):
        engine = make_engine(start_model(), stage, ADAM, scheduler=COSINE, **precision)
        losses(engine, folder, range(3))
        state = from_rank_zero(engine.state())
        expected = losses(engine, folder, range(3, 5))
        resumed = make_engine(clip_with(state.weights), stage, ADAM, scheduler=COSINE, **precision)
        resumed.restore(state.moments, json.loads(json.dumps(state.scalars)))
        assert losses(resumed, folder, range(3, 5)) == expected, (stage, precision)
        assert resumed.measures()["learning_rate"] == engine.measures()["learning_rate"]
    # The last state, of ZeRO 2 in bf16, in another stage and precision: equal up to rounding.
    other = make_engine(clip_with(state.weights), 3, ADAM, scheduler=COSINE)
    other.restore(state.moments, state.scalars)
    for found, reference in zip(losses(other, folder, range(3, 5)), expected, strict=True):
        assert abs(found - reference) < 0.02 * reference


def test_state_moved_into_a_new_engine_continues_bit_for_bit(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    run_on_ranks(2, state_continues_bit_for_bit, scene_shards / "train")
