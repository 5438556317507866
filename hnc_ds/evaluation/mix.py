"""Weights between two models: theta(a) = (1 - a) * start + a * final, tensor by tensor.

Source: WiSE-FT, Wortsman et al. 2022, "Robust fine-tuning of zero-shot models". Every point is
computed in float32 from the two untouched ends, never from another point.

* The temperature is a weight like any other: what is mixed is its logarithm, as models keep it.
* Running means and variances of batch norms are mixed too, as in WiSE-FT's own code. Those of a
  mixture are other ones, strictly; at the ends they are right, and between them a variance stays
  positive.
* Whole numbers (counts of batches, positions) have nothing between them: those of the final model
  are taken, but at a = 0.
"""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import torch

from hnc_ds.model.clip import Clip

State = Mapping[str, torch.Tensor]
"""Parameters and buffers by open_clip's names, on the CPU."""


def own_state(model: Clip) -> dict[str, torch.Tensor]:
    """A copy of a model's state that stays when the model changes."""
    state = model.state_by_open_clip_name()
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def mixed(start: State, final: State, share: Decimal) -> dict[str, torch.Tensor]:
    """The weights at a share of the final ones; 0 and 1 give the ends themselves, bit for bit."""
    if share in (0, 1):
        return dict(final if share else start)
    return {name: _between(start[name], final[name], float(share)) for name in final}


def _between(start: torch.Tensor, final: torch.Tensor, share: float) -> torch.Tensor:
    if not final.is_floating_point():
        return final
    # Rounds by the difference of the ends, not by their size: what is equal in both stays as it is.
    return torch.lerp(start.float(), final.float(), share)


@torch.no_grad()
def set_weights(model: Clip, state: State) -> None:
    """Write a state into a model, wherever it lies."""
    for name, tensor in model.state_by_open_clip_name().items():
        tensor.copy_(state[name])


def state_sha256(state: State, config: dict[str, Any]) -> str:
    """Names a model: sha256 over its configuration and the names, shapes and bytes of its state.

    Floating tensors count as float32, so weights kept in 16 bits are the same model.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        plain = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"\n{name} {tuple(plain.shape)}\n".encode())
        digest.update(plain.contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()
