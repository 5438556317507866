"""A batch taken in parts: all of it, and the same randomness in both passes."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hnc_ds.config import LossConfig, ModelConfig
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.objective.terms import LossInputs, LossTerms, objective
from hnc_ds.shards.loader import Batch
from hnc_ds.training import grad_cache
from hnc_ds.training.grad_cache import Embedded, gather_inputs

ROWS = 6


def made_batch(clip: Clip, captions: list[str]) -> Batch:
    """Six images, which share the captions if these are fewer."""
    number = torch.arange(len(captions))
    nothing = torch.zeros((ROWS, 0), dtype=torch.int64)
    token_TL = clip.tokenize(captions)
    return Batch(
        torch.arange(ROWS * 3 * 32 * 32).reshape(ROWS, 3, 32, 32).remainder(251).byte(),
        token_TL,
        torch.arange(ROWS) % len(captions),
        nothing,
        nothing,
        nothing,
        nothing,
        torch.arange(ROWS),
        number,
        clip.tokenize.used_tokens(token_TL),
        (),
    )


def loss_of(batch: Batch, embedded: Embedded) -> tuple[LossTerms, LossInputs]:
    compared = gather_inputs(embedded, batch, LossConfig())
    return objective(compared, LossConfig(), 1.0), compared


class InParts:
    """An engine of one process that only adds up gradients."""

    def __init__(self, clip: Clip, parts: int) -> None:
        self.module, self.micro_batches = clip, parts
        self.outputs: list[tuple[torch.Tensor, ...]] = []

    def forward(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        self.outputs.append(self.module(*inputs))
        return self.outputs[-1]

    def backward_and_step(self, loss: torch.Tensor) -> None:
        loss.backward()


def gradients(clip: Clip) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}
    clip.zero_grad()
    return found


@pytest.mark.parametrize("parts", [2, 3, 6])
@pytest.mark.parametrize("captions", [6, 4, 1])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(parts: int, captions: int) -> None:
    clip = load_model(ModelConfig(), seed=0).double()
    texts = ["a dog", "a", "a red star in a box", "two cats on a sofa", "the sea", "a b c d e"]
    batch = made_batch(clip, texts[:captions])
    loss_of(batch, Embedded(*clip(batch.images_B3RR, batch.token_TL)))[0].total.backward()
    expected = gradients(clip)
    engine: Any = InParts(clip, parts)
    grad_cache.step(engine, batch, partial(loss_of, batch), seed=0)
    found = gradients(clip)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-11, rtol=1e-9, msg=name)


def test_what_is_random_in_the_model_is_the_same_in_both_passes() -> None:
    clip = load_model(ModelConfig(), seed=0)
    clip.towers.visual.ln_pre.register_forward_hook(lambda _, __, out: F.dropout(out, 0.5))
    batch = made_batch(clip, ["a dog", "a cat", "the sea"])
    engine: Any = InParts(clip, 3)
    grad_cache.step(engine, batch, partial(loss_of, batch), seed=5)
    first, second = engine.outputs[:3], engine.outputs[3:]
    assert len(second) == 3
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one[0], two[0])
    assert not torch.equal(first[0][0], first[1][0])
    grad_cache.step(engine, batch, partial(loss_of, batch), seed=50)
    assert not torch.equal(engine.outputs[6][0], first[0][0])
