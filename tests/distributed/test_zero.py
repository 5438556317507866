"""Under every ZeRO stage a step is the step of one process; state goes out and in whole."""

import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hnc_ds.config import DataConfig, LossConfig, ModelConfig, ScopeConfig
from hnc_ds.distributed import broadcast_object, rank, world_size
from hnc_ds.engine.deepspeed_config import resolve
from hnc_ds.engine.engine import Engine
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.model.scope import choose_scope
from hnc_ds.objective.terms import TERMS, LossInputs, LossTerms, objective
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training import grad_cache
from hnc_ds.training.grad_cache import Embedded, embed, gather_inputs
from hnc_ds.training.image_embeddings import image_embeddings, with_embeddings

BATCH, LEARNING_RATE, ALPHA = 16, 0.1, 1.5


class Case(NamedTuple):
    """What is trained, and how."""

    loss: LossConfig = LossConfig()
    scope: ScopeConfig = ScopeConfig()
    parts: int = 1
    checkpointing: bool = False


EVERY_TERM = dict.fromkeys(TERMS, 1.0)
CASES = {
    "plain": Case(),
    "every term, in parts, with activations computed again": Case(
        LossConfig(
            terms=EVERY_TERM | {"l2_sp": 0.05}, negatives_from="all_images", distill_tau=0.5
        ),
        parts=2,
        checkpointing=True,
    ),
    "low-rank changes of one tower, in parts": Case(
        LossConfig(terms={"contrastive": 1.0, "distill": 1.0}),
        ScopeConfig(towers="text", lora_rank=2),
        parts=4,
        checkpointing=True,
    ),
    "last blocks, temperature off": Case(
        LossConfig(terms={"contrastive": 1.0, "l2_sp": 0.1}),
        ScopeConfig(last_blocks=1, train_temperature=False),
    ),
}


def start_model(case: Case = CASES["plain"]) -> tuple[Clip, dict[str, torch.Tensor]]:
    """A model that has moved from its start, and the start weights of what trains."""
    clip = load_model(ModelConfig(), seed=0)
    torch.manual_seed(3)
    choose_scope(clip, case.scope)
    if case.loss.trains_bias():
        clip.train_bias(None)
    clip.keep_reference()
    start = {n: p.detach().clone() for n, p in clip.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            if name in start and parameter.ndim > 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    if case.checkpointing:
        clip.towers.set_grad_checkpointing(True)
    return clip, start


@cache
def batch_of(folder: Path, step: int, of_rank: int = 0, ranks: int = 1) -> Batch:
    clip, _ = start_model()
    share = BATCH // ranks
    rows = range(of_rank * share, (of_rank + 1) * share)
    data = TrainingData(folder, DataConfig(), 0, BATCH, rows, clip.image_settings, clip.tokenize)
    return data.batch(step)


def of_case(case: Case, batch: Batch, embedded: Embedded) -> tuple[LossTerms, LossInputs]:
    compared = gather_inputs(embedded, batch, case.loss)
    return objective(compared, case.loss, ALPHA), compared


def make_engine(
    clip: Clip, stage: int, optimizer: dict[str, Any], parts: int = 1, **sections: Any
) -> Engine:
    config = {
        "train_batch_size": BATCH,
        "gradient_accumulation_steps": parts,
        "optimizer": optimizer,
        # Many buckets: gradients travel while others are computed, cut where a rank's part ends.
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 20_000},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,  # DeepSpeed clips at 1 by default
        **sections,
    }
    return Engine(clip, clip.parameter_groups(), resolve(config, Path("-"), world_size(), 10))


def one_sgd_step_equals(folder: Path, expected: dict[str, dict[str, torch.Tensor]]) -> None:
    sgd = {"type": "SGD", "params": {"lr": LEARNING_RATE}}
    batch = batch_of(folder, 0, rank(), world_size())
    for name, steps in expected.items():
        case = CASES[name]
        for stage in (0, 1, 2, 3):
            clip, start = start_model(case)
            before = {n: p.detach().clone() for n, p in clip.named_parameters()}
            engine = make_engine(clip, stage, sgd, case.parts)
            if weight := case.loss.weights().get("l2_sp"):
                engine.pull_to_reference(weight, start)
            grad_cache.step(engine, batch, partial(of_case, case, batch), seed=0)
            weights = engine.state().weights
            if rank() == 0:
                taken = torch.cat([(weights[n] - before[n]).flatten() for n in steps])
                reference = torch.cat([step.flatten() for step in steps.values()])
                error = (taken - reference).norm() / reference.norm()
                assert error < 1e-5, f"{name}, stage {stage}: {error}"
                still = [n for n in weights if n not in steps]
                assert all(torch.equal(weights[n], before[n]) for n in still), (name, stage)


def steps_of_one_process(case: Case, batch: Batch) -> dict[str, torch.Tensor]:
    clip, start = start_model(case._replace(checkpointing=False))
    total = of_case(case, batch, embed(clip.forward, batch))[0].total
    trained = {n: p for n, p in clip.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        apart = (parameter - start[name]).square().sum()
        total = total + case.loss.weights().get("l2_sp", 0.0) * apart
    total.backward()
    return {n: -LEARNING_RATE * p.grad for n, p in trained.items() if p.grad is not None}


def test_one_sgd_step_under_zero_0_to_3_is_that_of_one_process(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    batch = batch_of(scene_shards / "train", 0)
    expected = {name: steps_of_one_process(case, batch) for name, case in CASES.items()}
    assert "towers.logit_scale" in expected["plain"]
    assert any("up_Or" in name for name in expected["low-rank changes of one tower, in parts"])
    assert len(expected["last blocks, temperature off"]) < len(expected["plain"]) / 2
    run_on_ranks(2, one_sgd_step_equals, scene_shards / "train", expected)


def test_one_sgd_step_of_four_ranks_is_that_of_one_process(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    name = "every term, in parts, with activations computed again"
    batch = batch_of(scene_shards / "train", 0)
    expected = {name: steps_of_one_process(CASES[name], batch)}
    run_on_ranks(4, one_sgd_step_equals, scene_shards / "train", expected)


BEYOND = 0.5
"""How far the temperature's parameter is beyond its bound."""
OF_SCALE = 1e-3
"""What the loss is times 1 / tau."""
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "fp16, dynamic": {"fp16": {"enabled": True, "initial_scale_power": 12}},
    "fp16, static": {"fp16": {"enabled": True, "loss_scale": 512}},
}


PULLED = ((1, "bf16", 1), (2, "fp16, dynamic", 1), (3, "fp16, static", 4), (0, "fp32", 4))
"""ZeRO's stage, the precision, and in how many parts."""


def of_temperature(batch: Batch, embedded: Embedded) -> tuple[LossTerms, LossInputs]:
    compared = gather_inputs(embedded, batch, LossConfig())
    terms = objective(compared, LossConfig(), 1.0)
    return terms._replace(total=0 * terms.total + OF_SCALE * embedded.scale.sum()), compared


def temperature_is_pulled_back_alike(folder: Path) -> None:
    """The gradient of OF_SCALE * exp(min(x, log 100)), passed on, and x - log 100, once a step."""
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: True  # DeepSpeed refuses what is only slow
    batch = batch_of(folder, 0, rank(), world_size())
    expected = LEARNING_RATE * (OF_SCALE * 100 + BEYOND)
    for stage, precision, parts in PULLED:
        clip = load_model(ModelConfig(), seed=0)
        with torch.no_grad():
            clip.towers.logit_scale.fill_(math.log(100) + BEYOND)
        sgd = {"type": "SGD", "params": {"lr": LEARNING_RATE}}
        engine = make_engine(clip, stage, sgd, parts, **PRECISIONS[precision])
        grad_cache.step(engine, batch, partial(of_temperature, batch), seed=0)
        weights = engine.state().weights
        if rank() == 0:
            taken = math.log(100) + BEYOND - float(weights["towers.logit_scale"])
            # bfloat16 has a number every 1/32 there.
            near = abs(taken - expected) < LEARNING_RATE / 32
            assert near, (stage, precision, parts, taken, expected)


def test_the_temperature_is_clamped_alike_in_every_precision_and_number_of_micro_batches(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    run_on_ranks(2, temperature_is_pulled_back_alike, scene_shards / "train")


ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
COSINE = {
    "type": "WarmupCosineLR",
    "params": {"total_num_steps": "auto", "warmup_num_steps": 2, "warmup_type": "linear"},
}


def losses(engine: Engine, folder: Path, steps: range) -> list[float]:
    found = []
    for step in steps:
        batch = batch_of(folder, step, rank(), world_size())
        terms, _ = grad_cache.step(engine, batch, partial(of_case, Case(), batch), seed=step)
        found.append(float(terms.total.detach()))
    return found


def clip_with(weights: dict[str, torch.Tensor]) -> Clip:
    clip, _ = start_model()
    clip.load_state_dict(weights, strict=False)
    return clip


def state_continues_bit_for_bit(folder: Path) -> None:
    """Train five steps; and train three, move the state into a new engine, train two."""
    for stage, precision in ((1, {}), (3, {}), (2, {"bf16": {"enabled": True}})):
        engine = make_engine(start_model()[0], stage, ADAM, scheduler=COSINE, **precision)
        engine.average(0.5, {})
        losses(engine, folder, range(3))
        state = broadcast_object(engine.state())
        expected = losses(engine, folder, range(3, 5))
        resumed = make_engine(clip_with(state.weights), stage, ADAM, scheduler=COSINE, **precision)
        resumed.restore(state.moments, json.loads(json.dumps(state.scalars)))
        resumed.average(0.5, state.averages)
        assert losses(resumed, folder, range(3, 5)) == expected, (stage, precision)
        assert resumed.measures()["learning_rate"] == engine.measures()["learning_rate"]
        both = engine.state().averages, resumed.state().averages
        assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    # The last state, of ZeRO 2 in bf16, in another stage and precision: equal up to rounding.
    other = make_engine(clip_with(state.weights), 3, ADAM, scheduler=COSINE)
    other.restore(state.moments, state.scalars)
    for found, reference in zip(losses(other, folder, range(3, 5)), expected, strict=True):
        assert abs(found - reference) < 0.02 * reference


def reference_is_the_average(folder: Path) -> None:
    """After three steps, in the precision of the model; and in a new engine with that state."""
    case = Case(LossConfig(terms={"contrastive": 1.0, "distill": 1.0}, reference="average"))
    bf16 = {"bf16": {"enabled": True}}
    for stage, precision in ((0, {}), (1, {}), (2, {}), (1, bf16), (2, bf16)):
        engine = make_engine(start_model(case)[0], stage, ADAM, **precision)
        engine.average(0.5, {})
        engine.reference_follows()
        for step in range(3):
            batch = batch_of(folder, step, rank(), world_size())
            grad_cache.step(engine, batch, partial(of_case, case, batch), seed=step)
        state = broadcast_object(engine.state())
        other = make_engine(clip_with(state.weights), stage, ADAM, **precision)
        other.average(0.5, state.averages)
        other.reference_follows()
        for made in (engine, other):
            found = dict(made.module.reference.named_parameters())
            for name, average in state.averages.items():
                assert torch.equal(found[name], average.to(found[name].dtype)), (stage, name)
                assert not torch.equal(average, state.weights[name]), (stage, name)


def test_under_zero_0_to_2_the_reference_model_is_the_moving_average_bit_for_bit(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    run_on_ranks(2, reference_is_the_average, scene_shards / "train")


def test_state_moved_into_a_new_engine_continues_bit_for_bit(
    scene_shards: Path, run_on_ranks: Callable[..., None]
) -> None:
    run_on_ranks(2, state_continues_bit_for_bit, scene_shards / "train")


def images_are_encoded_as_by_one_process(shards: Path, folder: Path) -> None:
    """Two ranks of 8 rows, as one process in two parts of 8: products of one height."""
    adam = {"type": "AdamW", "params": {"lr": LEARNING_RATE, "torch_adam": True}}
    share = BATCH // world_size()
    for stage in (1, 3):
        clip = load_model(ModelConfig(), seed=0)
        choose_scope(clip, ScopeConfig(towers="text"))
        rows = range(rank() * share, (rank() + 1) * share)
        view, tokenize = clip.image_settings, clip.tokenize
        data = TrainingData(shards, DataConfig(crop=1.0), 0, BATCH, rows, view, tokenize)
        engine = make_engine(clip, stage, adam, parts=2 // world_size())
        found = image_embeddings(folder, f"{world_size()}-{stage}", engine, data, workers=0)
        embedded = embed(engine.forward, with_embeddings(data.batch(0), found, pin=False))
        engine.backward_and_step(embedded.text_TD.sum() + embedded.image_BD.sum())
        assert np.isfinite(found).all()


def test_ranks_encode_all_images_once_to_what_one_process_makes_of_them(
    scene_shards: Path, tmp_path: Path, run_on_ranks: Callable[..., None]
) -> None:
    for ranks in (1, 2):
        run_on_ranks(ranks, images_are_encoded_as_by_one_process, scene_shards / "train", tmp_path)
    made = {path.stem[-3:]: np.load(path) for path in tmp_path.glob("image_embeddings-*.npy")}
    assert {len(rows) for rows in made.values()} == {96}
    for stage in (1, 3):  # stage 3 keeps weights elsewhere in memory, and products round with it
        assert np.array_equal(made[f"1-{stage}"], made[f"2-{stage}"])
    np.testing.assert_allclose(made["1-1"], made["1-3"], atol=1e-6)
