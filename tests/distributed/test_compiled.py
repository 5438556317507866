"""Compiled blocks under every ZeRO stage: the steps of the same model, not compiled."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from hnc_ds.distributed import rank, world_size
from hnc_ds.model.compiled import compile_blocks
from hnc_ds.training import grad_cache
from tests.distributed.test_zero import CASES, batch_of, make_engine, of_case, start_model

SGD = {"type": "SGD", "params": {"lr": 0.1}}
STEPS = 2
STAGES = {
    "every term, in parts, with activations computed again": (1, 2),
    "low-rank changes of one tower, in parts": (3,),
    "last blocks, temperature off": (3,),
}


def weights_after_steps(
    folder: Path, name: str, stage: int, compiled: bool
) -> dict[str, torch.Tensor]:
    """How far each weight has moved after two steps; on rank 0."""
    case = CASES[name]
    clip, start = start_model(case)
    names = list(clip.towers.state_dict())
    before = {n: p.detach().clone() for n, p in clip.named_parameters()}
    if compiled:
        backend = "aot_eager" if stage == 3 else "eager"  # what is kept for the backward pass, too
        assert compile_blocks(clip, backend) == {"image": 8, "text": 4}  # the start model's, too
    engine = make_engine(clip, stage, SGD, case.parts)
    if weight := case.loss.weights().get("l2_sp"):
        engine.pull_to_reference(weight, start)
    for step in range(STEPS):
        batch = batch_of(folder, step, rank(), world_size())
        grad_cache.step(engine, batch, partial(of_case, case, batch), seed=0)
    weights = engine.state().weights
    assert list(clip.towers.state_dict()) == names
    engine.close()
    return {n: weights[n] - before[n] for n in weights}


def compiled_steps_are_eager_ones(folder: Path) -> None:
    for name, stages in STAGES.items():
        expected = weights_after_steps(folder, name, 1, compiled=False)
        for stage in stages:
            found = weights_after_steps(folder, name, stage, compiled=True)
            for weight, moved in expected.items():
                error = (found[weight] - moved).norm()
                assert error <= 1e-4 * moved.norm() + 1e-7, f"{name}, stage {stage}: {weight}"
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"], counters["graph_break"]


def test_steps_of_compiled_blocks_are_those_of_eager_ones(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    run_on_ranks(2, compiled_steps_are_eager_ones, scene_shards / "train")
