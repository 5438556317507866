"""Mixtures of weights: the formula by hand, the ends bit for bit, what cannot be averaged."""

from decimal import Decimal

import pytest
import torch

from hnc_ds.config import ModelConfig
from hnc_ds.interpolation import interpolated
from hnc_ds.model.clip import own_state, set_weights, state_sha256
from hnc_ds.model.load import load_model

COEFFICIENTS = [Decimal(text) for text in ("0", "0.1", "0.3", "0.5", "0.7", "1")]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_half_way_lies_the_mean_and_a_quarter_of_the_way_a_quarter():
    start = {"w": torch.tensor([1.0, -2.0, 0.0]), "logit_scale": torch.tensor([2.0])}
    final = {"w": torch.tensor([3.0, 2.0, 8.0]), "logit_scale": torch.tensor([4.0])}
    half, quarter = (
        interpolated(start, final, Decimal(coefficient)) for coefficient in ("0.5", "0.25")
    )
    assert half["w"].tolist() == [2.0, 0.0, 4.0]
    assert half["logit_scale"].tolist() == [3.0]  # of the logarithm, not of 1 / tau
    assert quarter["w"].tolist() == [1.5, -1.0, 2.0]


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_any_coefficient_is_the_formula_in_float64_to_a_rounding_of_float32(coefficient):
    generator = torch.Generator().manual_seed(0)
    start, final = (torch.randn(10_000, generator=generator) for _ in range(2))
    found = interpolated({"w": start}, {"w": final}, coefficient)["w"]
    expected = (1 - float(coefficient)) * start.double() + float(coefficient) * final.double()
    largest = torch.maximum(start.abs(), final.abs()).double()
    assert found.dtype == torch.float32
    assert ((found.double() - expected).abs() <= 2**-22 * largest).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_endpoints_come_back_bit_for_bit_even_minus_zero_and_what_is_not_finite(dtype):
    start = {"w": torch.tensor([-0.0, 1e-7, 0.1, float("inf")], dtype=dtype)}
    final = {"w": torch.tensor([5.0, float("nan"), -0.3, -0.0], dtype=dtype)}
    assert bits(interpolated(start, final, Decimal("0.0"))["w"]) == bits(start["w"])
    assert bits(interpolated(start, final, Decimal("1.0"))["w"]) == bits(final["w"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_endpoints_are_interpolated_in_float32(dtype):
    start, final = (torch.tensor([value], dtype=dtype) for value in (1.0, 1.0078125))
    found = interpolated({"w": start}, {"w": final}, Decimal("0.5"))["w"]
    assert found.dtype == torch.float32
    assert found.item() == 1.00390625  # bfloat16 has nothing between the ends


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_what_both_endpoints_share_does_not_change(coefficient):
    frozen = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(interpolated({"w": frozen}, {"w": frozen.clone()}, coefficient)["w"], frozen)


def test_counts_are_those_of_the_final_model_but_at_the_start_and_variances_stay_positive():
    start = {"n": torch.tensor(3), "running_var": torch.tensor([0.25])}
    final = {"n": torch.tensor(10), "running_var": torch.tensor([0.75])}
    counts = [interpolated(start, final, coefficient)["n"].item() for coefficient in COEFFICIENTS]
    assert counts == [3, 10, 10, 10, 10, 10]
    assert interpolated(start, final, Decimal("0.5"))["running_var"].item() == 0.5


def test_a_model_takes_interpolated_weights_and_the_endpoints_do_not_change():
    models = [load_model(ModelConfig(), seed) for seed in (1, 2)]
    start, final = (own_state(model) for model in models)
    before = [{name: bits(tensor) for name, tensor in end.items()} for end in (start, final)]
    for coefficient in ("0.3", "1", "0", "0.5"):
        set_weights(models[1], interpolated(start, final, Decimal(coefficient)))
    weight = models[1].towers.visual.conv1.weight
    expected = (start["visual.conv1.weight"] + final["visual.conv1.weight"]) / 2
    assert torch.allclose(weight, expected, atol=1e-7, rtol=0)
    assert [{name: bits(t) for name, t in end.items()} for end in (start, final)] == before


def test_a_model_is_named_by_its_weights_and_its_configuration_not_by_its_precision():
    state = {"w": torch.tensor([0.5, 2.0]), "b": torch.tensor([1.0])}
    name = state_sha256(state, {"quick_gelu": True})
    assert (
        state_sha256({n: t.half() for n, t in reversed(state.items())}, {"quick_gelu": True})
        == name
    )
    others = [
        ({**state, "w": torch.tensor([0.5, 2.25])}, {"quick_gelu": True}),
        ({**state, "w": torch.tensor([[0.5, 2.0]])}, {"quick_gelu": True}),
        ({"w": state["w"], "c": state["b"]}, {"quick_gelu": True}),
        (state, {"quick_gelu": False}),
    ]
    assert len({name, *(state_sha256(*other) for other in others)}) == 5
