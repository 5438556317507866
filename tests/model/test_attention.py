"""Attention of both towers' blocks: what open_clip's gives, without copies."""

from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hnc_ds.config import ModelConfig
from hnc_ds.model.attention import CAUSAL, TowerAttention, use_tower_attention
from hnc_ds.model.load import load_model

COPIES = {"aten.clone.default", "aten.copy_.default", "aten._to_copy.default"}


class Copies(TorchDispatchMode):
    """Counts operations that copy a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += str(func) in COPIES
        return func(*args, **kwargs or {})


def block_pair(**options: Any) -> tuple[nn.Module, nn.Module]:
    """Ours and open_clip's, with the same weights."""
    torch.manual_seed(0)
    ours = ResidualAttentionBlock(32, 2, **options).double()
    theirs = ResidualAttentionBlock(32, 2, **options).double()
    theirs.load_state_dict(ours.state_dict())
    use_tower_attention(nn.Sequential(ours))
    return ours, theirs


def learn(block: nn.Module, mask: Any) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn((3, 7, 32), generator=draw, dtype=torch.float64, requires_grad=True)
    out = block(x, attn_mask=mask)
    (out * torch.linspace(-1, 1, 32, dtype=torch.float64)).sum().backward()
    gradients = {n: p.grad for n, p in block.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"out": out.detach(), "x": x.grad, **gradients}


@pytest.mark.parametrize("masked", [False, True])
def test_a_block_learns_as_open_clips_does_and_copies_less(masked: bool) -> None:
    ours, theirs = block_pair()
    mask = torch.full((7, 7), float("-inf"), dtype=torch.float64).triu(1) if masked else None
    with Copies() as own:
        found = learn(ours, CAUSAL if masked else None)
    with Copies() as other:
        expected = learn(theirs, mask)
    assert isinstance(ours.attn, TowerAttention)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-12, rtol=1e-10, msg=name)
    assert own.count <= other.count - 4  # queries, keys, values; gradients of them


def test_a_mask_of_numbers_and_other_keys_are_torchs_own() -> None:
    ours, theirs = block_pair()
    window = torch.zeros((7, 7), dtype=torch.float64)
    window[:, 3:] = float("-inf")
    found, expected = learn(ours, window), learn(theirs, window)
    torch.testing.assert_close(found["out"], expected["out"])
    crossed, plain = block_pair(is_cross_attention=True)
    x, other = torch.randn((2, 3, 5, 32), dtype=torch.float64)
    torch.testing.assert_close(crossed(x, other, other), plain(x, other, other))


def test_the_image_tower_learns_as_open_clips_does() -> None:
    clip = load_model(ModelConfig(), seed=0)
    reference: Any = open_clip.create_model("tiny", nonscalar_logit_scale=True)
    reference.load_state_dict(clip.towers.state_dict())
    images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(251).byte()
    found = clip.encode_images(images)
    expected = reference.encode_image(clip.normalised(images), normalize=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for rows in (found, expected):
        (rows * torch.linspace(-1, 1, rows.shape[1])).sum().backward()
    theirs = {n: p.grad for n, p in reference.visual.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in clip.towers.visual.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
