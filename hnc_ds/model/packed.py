"""CLIP's text tower without padding: the captions' tokens one after the other, [P, W].

Layers see a single row of P tokens; attention alone knows where a caption begins and ends. As the
weights of a module are there only while it runs (ZeRO-3), attention does this inside of its own
forward; as activations may be computed again in the backward pass, the lengths come as an argument,
in the place of the mask that open_clip hands down to every block.

T captions, P tokens of all of them together, width W, H heads of d, n captions of one length.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

LONGEST = 256
"""open_clip casts the mask to the layers' precision: whole numbers up to here survive bfloat16."""

Varlen = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Queries, keys, values [P, H, d] and lengths [T] to outputs [P, H, d]."""


class PackedAttention(nn.MultiheadAttention):
    """Self-attention that takes the lengths of packed captions in place of a mask.

    With a mask of two dimensions, or none, it is torch's own.
    """

    def forward(self, query: torch.Tensor, *inputs: Any, **options: Any) -> Any:
        """Causal attention within each caption; (outputs, None) in the form of ``query``."""
        lengths_T = options.get("attn_mask")
        if lengths_T is None or lengths_T.ndim != 1:
            return super().forward(query, *inputs, **options)
        x_PW = query.reshape(-1, query.shape[-1])
        joined_P3W = F.linear(x_PW, self.in_proj_weight, self.in_proj_bias)
        q, k, v = joined_P3W.unflatten(1, (3, self.num_heads, self.head_dim)).unbind(1)
        out_PHd = attend(q, k, v, lengths_T)
        return self.out_proj(out_PHd.flatten(1)).view_as(query), None


def attend(
    q_PHd: torch.Tensor, k_PHd: torch.Tensor, v_PHd: torch.Tensor, lengths_T: torch.Tensor
) -> torch.Tensor:
    """Causal attention within packed captions that are sorted by length."""
    varlen = varlen_attention(q_PHd.device, q_PHd.dtype)
    if varlen is not None:
        return varlen(q_PHd, k_PHd, v_PHd, lengths_T)
    outputs, first = [], 0
    for length, count in _runs(lengths_T):
        rows = slice(first, first + count * length)
        parts = (part[rows].unflatten(0, (count, length)) for part in (q_PHd, k_PHd, v_PHd))
        q, k, v = (part.transpose(1, 2) for part in parts)  # [n, H, length, d]
        out = _causal(q, k, v)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
        first = rows.stop
    return torch.cat(outputs)


def _runs(lengths_T: torch.Tensor) -> list[tuple[int, int]]:
    """(length, captions of it) of sorted lengths."""
    length, count = lengths_T.long().unique_consecutive(return_counts=True)
    return list(zip(length.tolist(), count.tolist(), strict=True))


def pack_attention(towers: Any, context_length: int) -> bool:
    """Let a text tower's attention take packed captions; whether it can."""
    tower = getattr(towers, "text", towers)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None or context_length > LONGEST:
        return False
    attentions = [getattr(block, "attn", None) for block in blocks]
    if not all(type(a) is nn.MultiheadAttention and not a.dropout for a in attentions):
        return False
    for attention in attentions:
        attention.__class__ = PackedAttention
    return True


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention over packed captions is to be had, and quick, there.

    Without a kernel for it an accelerator would have to ask for the lengths in every block.
    """
    return device.type == "cpu" or varlen_attention(device, dtype) is not None


def packed_clip_text(towers: Any, token_TL: torch.Tensor) -> torch.Tensor:
    """Embeddings [T, D] of captions, no token of padding computed.

    Attention is causal and the feature is read at the end token, so nothing behind it counts.
    """
    tower = getattr(towers, "text", towers)
    used_T = token_TL.argmax(dim=1) + 1  # the end token is the largest
    order_T = used_T.argsort(stable=True)
    token_TL, used_T = token_TL[order_T], used_T[order_T]
    place_L = torch.arange(token_TL.shape[1], device=token_TL.device)
    kept_TL = place_L < used_T[:, None]
    place_P = place_L.expand_as(kept_TL)[kept_TL]
    dtype = tower.transformer.get_cast_dtype()
    x_PW = tower.token_embedding(token_TL[kept_TL]).to(dtype)
    # An embedding and not an index: the gradient of the latter is summed in any order by threads.
    x_PW = x_PW + F.embedding(place_P, tower.positional_embedding).to(dtype)
    x_PW = tower.transformer(x_PW[None], attn_mask=used_T)[0]
    end_T = used_T.cumsum(0) - 1
    return project(tower, tower.ln_final(x_PW[end_T])[order_T.argsort()])


def project(tower: Any, x_TW: torch.Tensor) -> torch.Tensor:
    """From the tower's width to the embedding, in whichever form open_clip has the projection."""
    projection = tower.text_projection
    if projection is None:
        return x_TW
    return cast(torch.Tensor, projection(x_TW) if callable(projection) else x_TW @ projection)


@lru_cache
def varlen_attention(device: torch.device, dtype: torch.dtype) -> Varlen | None:
    """torch's kernel for attention over sequences of several lengths, where it is there and right.

    It is checked once against plain attention, gradients included: a wrong one would train quietly.
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
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths_T: torch.Tensor
    ) -> torch.Tensor:
        ends_T = F.pad(lengths_T.int().cumsum(0, dtype=torch.int32), (1, 0))
        return cast(torch.Tensor, varlen_attn(q, k, v, ends_T, ends_T, LONGEST, LONGEST, **causal))

    return attention if _is_right(attention, device, dtype) else None


def _is_right(varlen: Varlen, device: torch.device, dtype: torch.dtype) -> bool:
    draw = torch.Generator(device).manual_seed(0)
    inputs = torch.randn((3, 9, 2, 64), generator=draw, device=device).to(dtype)
    lengths_T = torch.tensor([2, 2, 5], device=device)
    try:
        found = _with_gradient(varlen, inputs, lengths_T)
        expected = _with_gradient(_one_by_one, inputs.float(), lengths_T)
    except (RuntimeError, TypeError, ValueError):
        return False
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(ours.float(), plain, atol=0.1, rtol=0.05) for ours, plain in pairs)


def _with_gradient(
    attention: Varlen, inputs: torch.Tensor, lengths_T: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = inputs.detach().requires_grad_()
    out = attention(leaf[0], leaf[1], leaf[2], lengths_T)
    (gradient,) = torch.autograd.grad(out.float().square().sum(), leaf)
    return out.detach(), gradient


def _one_by_one(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths_T: torch.Tensor
) -> torch.Tensor:
    lengths = lengths_T.tolist()
    captions = zip(*(part.split(lengths) for part in (q, k, v)), strict=True)
    outs = [_causal(*(part.transpose(0, 1) for part in caption)) for caption in captions]
    return torch.cat([out.transpose(0, 1) for out in outs])


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
