"""The step of ZeRO as devices like it: aligned parameters, few calls, no waits, none in vain."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import open_clip
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hnc_ds.config import ModelConfig, ScopeConfig
from hnc_ds.distributed import broadcast_object, rank, world_size
from hnc_ds.engine import engine as engine_module
from hnc_ds.engine.deepspeed_config import (
    SHIPPED_CONFIGS,
    find_deepspeed_config,
    read_deepspeed_config,
    resolve,
)
from hnc_ds.engine.engine import Engine, start_process_group
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.model.scope import choose_scope

ALIGNED = 16
"""Bytes: alignment that the fast kernels of matrix products need of a bias (cuBLAS)."""

SHIPPED = sorted(path.stem for path in SHIPPED_CONFIGS[1].glob("*.json"))
SPLIT_WEIGHTS = [name for name in SHIPPED if name.startswith("zero3")]
"""There a parameter's memory is there only while its layer runs."""


def shipped(name: str, ranks: int = 1, **sections: Any) -> dict[str, Any]:
    """A shipped configuration as a run resolves it, with sections of one's own."""
    config = read_deepspeed_config(find_deepspeed_config(Path(name)))
    if "offload_optimizer" in config["zero_optimization"]:  # its CPU Adam would be compiled
        config["optimizer"]["params"]["torch_adam"] = True
        config["zero_force_ds_cpu_optimizer"] = False
    config.pop("scheduler")  # whose first rate is 0
    return resolve(config | sections, Path(name), ranks, 100)


def cut(name: str) -> nn.Module:
    """A model of open_clip's with one block a tower and few words: the parameters of the whole one
    in their order and with their odd sizes."""
    config = cast(dict[str, Any], json.loads(json.dumps(open_clip.get_model_config(name))))
    vision, text = config["vision_cfg"], config["text_cfg"]
    text |= {"layers": 1, "vocab_size": 1001, "hf_tokenizer_name": None}
    if isinstance(vision.get("layers"), int):
        vision["layers"] = 1
    if "timm_model_name" in vision:
        vision["timm_model_name"] = "vit_tiny_patch16_224"
        vision["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "timm_model_name" in vision
    make = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    known = {key: value for key, value in config.items() if key != "tokenizer_kwargs"}
    return make(**known, nonscalar_logit_scale=True)


def tiny_with_lora() -> nn.Module:
    clip = load_model(ModelConfig(), 0)
    choose_scope(clip, ScopeConfig(lora_rank=3))
    return clip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ViT-B-32": lambda: cut("ViT-B-32"),
    "ViT-B-16-SigLIP": lambda: cut("ViT-B-16-SigLIP"),
    "RN50": lambda: cut("RN50"),
    "tiny": lambda: load_model(ModelConfig(), 0),
    "tiny + LoRA": tiny_with_lora,
}


def engine_of(model: nn.Module, config: dict[str, Any]) -> Engine:
    start_process_group()
    return Engine(model, Clip.parameter_groups(cast(Clip, model)), config)


def misaligned(module: nn.Module) -> list[str]:
    return [n for n, p in module.named_parameters() if p.numel() and p.data_ptr() % ALIGNED]


@pytest.mark.parametrize("config", [name for name in SHIPPED if name not in SPLIT_WEIGHTS])
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_where_fast_kernels_want_it(model: str, config: str) -> None:
    fp16 = pytest.MonkeyPatch()
    from deepspeed.accelerator import get_accelerator

    fp16.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
    made = MODELS[model]()
    assert any(p.numel() % 8 for p in made.parameters()), "no size is odd"
    engine = engine_of(made, shipped(config))
    fp16.undo()
    assert misaligned(engine.module) == []
    engine.close()


class Many(nn.Module):
    """Parameters of odd sizes, any number of them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        sizes = [1 + number % 7 for number in range(count)]
        self.parts = nn.ParameterList([torch.randn(s, 5, generator=draw) for s in sizes])

    def forward(self, factor: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.square().sum() for part in self.parts]).sum() * factor


class Calls(TorchDispatchMode):
    """Counts calls of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.of = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def waits(self) -> int:
        """Calls for which a host waits for its device."""
        names = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
        return sum(self.of[name] for name in names)


def step(engine: Engine, factor: float = 1.0) -> None:
    loss = engine.forward(torch.tensor(factor, dtype=next(engine.module.parameters()).dtype))
    engine.backward_and_step(loss.float())


@contextmanager
def counted_steps(engine: Engine) -> Iterator[Calls]:
    """Calls in DeepSpeed's ``step`` alone."""
    counted, whole = Calls(), engine._engine.step

    def watched(*arguments: Any) -> None:
        with counted:
            whole(*arguments)

    engine._engine.step = watched
    yield counted
    engine._engine.step = whole


def calls_of_a_step(config: str, parameters: int, average: bool = False) -> Calls:
    engine = engine_of(Many(parameters), shipped(config))
    if average:
        engine.average(0.9, {})
        engine.pull_to_reference(
            0.1, {n: p.detach() for n, p in Many(parameters).named_parameters()}
        )
    step(engine)  # the first one makes the optimizer's state
    with counted_steps(engine) as counted:
        step(engine)
    engine.close()
    return counted


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("config", ["zero1_bf16", "zero2_bf16", "zero1_fp32"])
def test_a_step_calls_as_often_for_many_parameters_as_for_few(config: str, average: bool) -> None:
    few, many = (calls_of_a_step(config, parameters, average) for parameters in (20, 80))
    assert few.of == many.of
    assert sum(few.of.values()) < 80
    assert few.waits() == 0


def test_in_zero_1_the_backward_pass_makes_no_calls_of_deepspeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against autograd alone, into gradients that are there."""
    found = []
    for parameters in (20, 80):
        plain = Many(parameters)
        for part in plain.parts:
            part.grad = torch.zeros_like(part)
        with Calls() as alone:
            plain(torch.tensor(1.0)).backward()
        engine = engine_of(Many(parameters), shipped("zero1_fp32"))
        step(engine)
        monkeypatch.setattr(engine._engine, "step", lambda: None)
        with Calls() as engines:
            step(engine)
        found.append(sum(engines.of.values()) - sum(alone.of.values()))
        engine.close()
    assert found[0] == found[1]


def everything_of(engine: Engine) -> dict[str, torch.Tensor]:
    state = engine.state()
    averages = {f"{name}/average": tensor for name, tensor in state.averages.items()}
    return {name: t.clone() for name, t in (state.weights | state.moments | averages).items()}


PRECISIONS = ("zero1_bf16", "zero2_bf16", "zero1_fp32", "zero3_bf16")


@pytest.mark.parametrize("config", PRECISIONS)
@pytest.mark.parametrize("fused", [True, False])
def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_reported(
    config: str, fused: bool
) -> None:
    settings = shipped(config)
    settings["optimizer"]["params"]["fused"] = fused
    engine = engine_of(Many(9), settings)
    engine.average(0.9, {})
    step(engine)
    assert float(engine.unsound()) == 0
    before = everything_of(engine)
    step(engine, float("inf"))
    assert float(engine.unsound()) == 1
    after = everything_of(engine)
    assert len(after) == 4 * len(list(Many(9).parameters()))
    assert all(torch.equal(before[name], after[name]) for name in before)
    step(engine)
    assert float(engine.unsound()) == 0
    assert not torch.equal(everything_of(engine)["parts.0"], before["parts.0"])
    engine.close()


def test_without_zero_a_step_whose_gradient_is_not_finite_changes_nothing() -> None:
    engine = engine_of(Many(9), shipped("zero1_fp32", zero_optimization={"stage": 0}))
    step(engine)
    before = everything_of(engine)
    step(engine, float("nan"))
    assert float(engine.unsound()) == 1
    after = everything_of(engine)
    assert all(torch.equal(before[name], after[name]) for name in before)
    engine.close()


def one_rank_meets_what_is_not_finite() -> None:
    squares = {n: 4 * p.detach() for n, p in Many(30).named_parameters()}  # of a mean factor of 2
    norm = torch.cat([gradient.flatten() for gradient in squares.values()]).norm()
    assert norm > 1  # so that gradients are clipped to 1
    for config in ("zero1_bf16", "zero2_bf16"):
        engine = engine_of(Many(30), shipped(config, world_size(), train_batch_size=255))
        assert misaligned(engine.module) == []
        step(engine, 1.0 + rank())
        before = broadcast_object(everything_of(engine))
        for name, gradient in squares.items():  # beta 0.9; bfloat16 has 8 bits
            moment = before[f"{name}/exp_avg"]
            assert torch.allclose(moment, 0.1 * gradient / norm, rtol=0.02, atol=1e-5), name
        step(engine, float("inf") if rank() == 1 else 1.0)
        assert float(engine.unsound()) == 1, config
        after = broadcast_object(everything_of(engine))
        assert all(torch.equal(before[name], after[name]) for name in before), config


def test_ranks_step_with_the_mean_gradient_and_not_at_all_where_one_rank_has_none_that_is_finite(
    run_on_ranks: Callable[..., None],
) -> None:
    run_on_ranks(3, one_rank_meets_what_is_not_finite)


def test_the_state_of_a_run_whose_parameters_were_not_aligned_is_loaded() -> None:
    """Checkpoints of before keep tensors by name, so that the layout may be another."""
    unaligned = shipped("zero1_bf16")
    unaligned["zero_optimization"]["parameter_alignment"] = False
    old = engine_of(Many(9), unaligned)
    assert misaligned(old.module)
    for _ in range(3):
        step(old)
    state = old.state()
    model = Many(9)
    model.load_state_dict(state.weights)
    new = engine_of(model, shipped("zero1_bf16"))
    new.restore(state.moments, state.scalars)
    for engine in (old, new):
        step(engine)
    found, expected = everything_of(new), everything_of(old)
    for name, tensor in expected.items():  # the norm is summed in another order
        assert torch.allclose(found[name], tensor, rtol=1e-5), name


@pytest.mark.parametrize(
    "asked",
    [
        {"communication_data_type": "fp32"},
        {"prescale_gradients": True},
        {"gradient_predivide_factor": 2.0},
    ],
)
def test_settings_of_how_gradients_are_sent_are_left_to_deepspeed(asked: dict[str, Any]) -> None:
    usual, other = (
        engine_of(Many(9), shipped("zero1_bf16", **sections)) for sections in ({}, asked)
    )
    for engine, own in ((usual, True), (other, False)):
        assert engine._flat_step is not None
        assert (engine._flat_step.gradients is not None) == own
        for _ in range(3):
            step(engine)
    found, expected = everything_of(other), everything_of(usual)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-5), name


@pytest.mark.parametrize("config", ["cpu", "zero2_bf16", "zero3_bf16"])
def test_an_attribute_that_deepspeed_no_longer_has_is_named_when_the_engine_starts(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"cpu": "engine", "zero2_bf16": "ZeRO 1 and 2 optimizer"}.get(config, "ZeRO 3 optimizer")
    names = (*engine_module.PRIVATE[kind], "_gone")
    monkeypatch.setitem(engine_module.PRIVATE, kind, names)
    with pytest.raises(UserError, match=rf"DeepSpeed [\d.]+.*: its {kind} has no _gone, which"):
        engine_of(Many(3), shipped(config))


def test_every_attribute_of_the_table_is_used() -> None:
    folder = Path(engine_module.__file__).parent
    names = ("engine.py", "zero.py")
    text = "".join((folder / name).read_text() for name in names)
    for of_kind in engine_module.PRIVATE.values():
        assert [name for name in of_kind if f".{name}" not in text] == []
