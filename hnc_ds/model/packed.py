"""CLIP's text tower without padding: the captions' tokens one after the other, [P, W].

Layers see a single row of P tokens; attention alone knows where a caption begins and ends
(attention.py). Lengths are known on the host, so that no shape has to be asked of a device.

T captions, P tokens of all of them together, width W.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F

from hnc_ds.model.attention import Packed, compiles_varlen, varlen_attention

SPARED_ON_DEVICE = 8192
"""Tokens of padding from which on an accelerator computes the packed form. A step of few captions
is bound by launches, of which the packed form has more. Not measured but set between two sizes that
were, on an H100 with L/14's text tower, before lengths were known on the host: 309 captions took 42
ms packed and 35 trimmed to 24 tokens (some 3,000 of padding, if captions have 14 on average), 2,300
were quicker packed (some 23,000)."""


def can_pack(device: torch.device, dtype: torch.dtype, is_compiled: bool = False) -> bool:
    """Whether attention over packed captions is quick there: with a kernel for it, and on CPUs, if
    not compiled, where a loop over the lengths is quick, too."""
    if is_compiled:
        return compiles_varlen(device, dtype)
    return device.type == "cpu" or varlen_attention(device, dtype) is not None


def spares_enough(device: torch.device, padded: int, packed: int) -> bool:
    """Whether the padding is worth the packed form.

    Args:
        device: Where it is computed.
        padded: Tokens of all captions, padding included.
        packed: Tokens without it.
    """
    return padded - packed >= (1 if device.type == "cpu" else SPARED_ON_DEVICE)


def packed_clip_text(towers: Any, token_TL: torch.Tensor, used_T: torch.Tensor) -> torch.Tensor:
    """Embeddings [T, D] of captions, no token of padding computed.

    Attention is causal and the feature is read at the end token, so nothing behind it counts.

    Args:
        towers: An open_clip model with CLIP's text tower and ``TowerAttention``.
        token_TL: Captions, on any device.
        used_T: int64, on the host: tokens of each, up to its end token.
    """
    tower = getattr(towers, "text", towers)
    length_T, order_T = used_T.sort(stable=True)
    lengths, device = length_T.tolist(), token_TL.device
    total = sum(lengths)
    length_T, order_T, own_T = on_device(
        device, torch.stack((length_T, order_T, order_T.argsort()))
    )
    ends_T = F.pad(length_T.cumsum(0), (1, 0))
    # Each caption's shift from its place among the P tokens to that among those of token_TL.
    shift_T = torch.stack((ends_T[:-1], order_T * token_TL.shape[1] - ends_T[:-1]))
    shift_P = shift_T.repeat_interleave(length_T, dim=1, output_size=total)
    at_P = torch.arange(total, device=device)
    dtype = tower.transformer.get_cast_dtype()
    x_PW = tower.token_embedding(token_TL.take(at_P + shift_P[1])).to(dtype)
    # An embedding and not an index: the gradient of the latter is summed in any order by threads.
    place_PW = F.embedding(at_P - shift_P[0], tower.positional_embedding)
    captions = Packed(lengths, ends_T.int(), varlen_attention(device, dtype))
    x_1PW = x_PW[None] + place_PW.to(dtype)  # no view, for which code would be compiled apart
    x_PW = tower.transformer(x_1PW, attn_mask=captions)[0]
    return project(tower, tower.ln_final(x_PW.index_select(0, (ends_T[1:] - 1)[own_T])))


def on_device(device: torch.device, host: torch.Tensor) -> torch.Tensor:
    """A tensor of the host on a device, without waiting for the device."""
    if device.type == "cuda":  # out of other memory the driver would wait for its queue
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def project(tower: Any, x_TW: torch.Tensor) -> torch.Tensor:
    """From the tower's width to the embedding, in whichever form open_clip has the projection."""
    projection = tower.text_projection
    if projection is None:
        return x_TW
    return cast(torch.Tensor, projection(x_TW) if callable(projection) else x_TW @ projection)
