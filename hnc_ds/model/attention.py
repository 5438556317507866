"""Self-attention of both towers' blocks, without the copies of torch's module.

torch.nn.MultiheadAttention copies queries, keys and values out of their joint projection, and with
open_clip's mask, a tensor, no flash kernel can run. Here heads are views, and the mask is None,
``CAUSAL`` or ``Packed``. open_clip passes it to every block in place of its mask, also when a block
is recomputed in the backward pass.

Under ZeRO-3 a module's weights exist only while it runs, so everything happens inside the module's
own forward. It has one input: with three, as torch's has, ZeRO-3 would wait for the gradient of
each before it releases the weights.

B rows of L tokens, P tokens of T packed captions, width W, H heads of d, n captions of one length.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

TILE = 64
"""Rows of a kernel's smallest tile. The longest caption is rounded up to it, which costs nothing
and keeps the number of kernel plans and compiled variants small."""


class Causal:
    """Stands for the causal mask of CLIP's text tower."""


CAUSAL = Causal()


class Packed:
    """Positions of packed captions; attention is causal within each.

    Args:
        lengths: Tokens of each caption, sorted.
        ends_T: int32 [T + 1] on the device: cumulative lengths.
        kernel: Result of ``varlen_attention``; if None, captions of equal length are computed
            together.
    """

    def __init__(
        self, lengths: list[int], ends_T: torch.Tensor, kernel: "Varlen | None" = None
    ) -> None:
        self.lengths = lengths
        self.ends_T = ends_T
        self.kernel = kernel
        self.longest = -(-lengths[-1] // TILE) * TILE


Varlen = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Packed], torch.Tensor]
"""Queries, keys, values [P, H, d] and the captions to outputs [P, H, d]."""


class TowerAttention(nn.MultiheadAttention):
    """torch's module with its names and weights, and another self-attention."""

    def forward(self, query: torch.Tensor, *inputs: Any, **options: Any) -> Any:
        """(outputs, None) in the shape of ``query``, which is keys and values as well.

        Calls torch's own forward for other inputs or for a tensor as mask.
        """
        seen = options.get("attn_mask")
        if inputs or not (seen is None or isinstance(seen, Causal | Packed)):
            return super().forward(query, *inputs or (query, query), **options)
        joined_BL3W = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        heads = joined_BL3W.unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        if isinstance(seen, Packed):
            q_PHd, k_PHd, v_PHd = (part.flatten(0, 1) for part in heads)
            out_BLHd = attend(q_PHd, k_PHd, v_PHd, seen).unflatten(0, query.shape[:2])
        else:
            q, k, v = (part.transpose(1, 2) for part in heads)  # [B, H, L, d]
            out = F.scaled_dot_product_attention(q, k, v, is_causal=seen is not None)
            out_BLHd = out.transpose(1, 2)
        return self.out_proj(out_BLHd.flatten(2)), None


class TowerBlock(ResidualAttentionBlock):
    """open_clip's block with its names and weights, around ``TowerAttention``."""

    def attention(
        self,
        q_x: torch.Tensor,
        k_x: torch.Tensor | None = None,
        v_x: torch.Tensor | None = None,
        attn_mask: Any = None,
    ) -> torch.Tensor:
        """Self-attention; open_clip's own for other keys or another attention module."""
        if k_x is not None or not isinstance(self.attn, TowerAttention):
            return cast(torch.Tensor, super().attention(q_x, k_x, v_x, attn_mask))
        mask = attn_mask.to(q_x.dtype) if isinstance(attn_mask, torch.Tensor) else attn_mask
        return cast(torch.Tensor, self.attn(q_x, need_weights=False, attn_mask=mask)[0])


def use_tower_attention(towers: nn.Module) -> None:
    """Replace the attention of an open_clip model's blocks, where the result is the same."""
    for block in towers.modules():
        if type(block) is ResidualAttentionBlock and _is_plain(block.attn):
            block.__class__ = TowerBlock
            block.attn.__class__ = TowerAttention


def _is_plain(attention: Any) -> bool:
    return bool(
        type(attention) is nn.MultiheadAttention
        and attention.batch_first
        and attention._qkv_same_embed_dim
        and not attention.dropout
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def has_tower_attention(text_tower: Any) -> bool:
    """Whether every block of a text tower accepts ``CAUSAL`` and ``Packed`` as mask."""
    blocks = getattr(getattr(text_tower, "transformer", None), "resblocks", None)
    attentions = [getattr(block, "attn", None) for block in blocks or ()]
    return bool(attentions) and all(isinstance(own, TowerAttention) for own in attentions)


def attend(
    q_PHd: torch.Tensor, k_PHd: torch.Tensor, v_PHd: torch.Tensor, captions: Packed
) -> torch.Tensor:
    """Causal attention within packed captions that are sorted by length."""
    if captions.kernel is not None:
        return captions.kernel(q_PHd, k_PHd, v_PHd, captions)
    alike = [(len(list(same)), length) for length, same in groupby(captions.lengths)]  # sorted
    tokens = [count * length for count, length in alike]
    # Not slices: the backward pass of each fills a tensor of all tokens.
    rows = zip(*(part.split(tokens) for part in (q_PHd, k_PHd, v_PHd)), strict=True)
    outputs = []
    for shape, parts in zip(alike, rows, strict=True):
        q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in parts)  # [n, H, length, d]
        outputs.append(_causal(q, k, v).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


@lru_cache
def varlen_attention(device: torch.device, dtype: torch.dtype) -> Varlen | None:
    """torch's kernel for attention over sequences of different lengths; None if it is missing or
    wrong.

    It is checked once against plain attention, with gradients, as an error would be silent.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    named = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = (
        {"is_causal": True} if "is_causal" in named else {"window_size": (-1, 0)}
    )

    def attention(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, captions: Packed
    ) -> torch.Tensor:
        ends_T, longest = captions.ends_T, captions.longest
        return cast(torch.Tensor, varlen_attn(q, k, v, ends_T, ends_T, longest, longest, **causal))

    return attention if _is_right(attention, device, dtype) else None


@lru_cache
def compiles_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel exists and is correct in compiled code without graph breaks."""
    kernel = varlen_attention(device, dtype)
    if kernel is None:
        return False
    compiled = cast(Varlen, torch.compile(kernel, dynamic=True, fullgraph=True))
    return _is_right(compiled, device, dtype)


@torch.inference_mode(False)  # an evaluation may be in it, and it has no gradients
def _is_right(varlen: Varlen, device: torch.device, dtype: torch.dtype) -> bool:
    draw = torch.Generator(device).manual_seed(0)
    inputs = torch.randn((3, 9, 2, 64), generator=draw, device=device).to(dtype)
    ends_T = torch.tensor([0, 2, 4, 9], dtype=torch.int32, device=device)
    captions = Packed([2, 2, 5], ends_T)
    try:
        found = _with_gradient(varlen, inputs, captions)
        expected = _with_gradient(_one_by_one, inputs.float(), captions)
    except Exception:  # of the kernel or its compiler, on this device
        return False
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(ours.float(), plain, atol=0.1, rtol=0.05) for ours, plain in pairs)


def _with_gradient(
    attention: Varlen, inputs: torch.Tensor, captions: Packed
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        out = attention(leaf[0], leaf[1], leaf[2], captions)
        (gradient,) = torch.autograd.grad(out.float().square().sum(), leaf)
    return out.detach(), gradient


def _one_by_one(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, captions: Packed
) -> torch.Tensor:
    rows = zip(*(part.split(captions.lengths) for part in (q, k, v)), strict=True)
    outs = [_causal(*(part.transpose(0, 1) for part in caption)) for caption in rows]
    return torch.cat([out.transpose(0, 1) for out in outs])


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
