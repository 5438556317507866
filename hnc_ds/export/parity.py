"""Do two towers compute the same? Hidden states of every layer on the same pictures.

B pictures, N tokens (the class first), D width, L layers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.images import CorruptImage, read_image_file
from hnc_ds.model.clip import Clip
from hnc_ds.shards.images import ImageSettings, decode_image, evaluation_view

PROBES = 8
TOLERANCE = 1e-4
"""Of the largest hidden state: rounding stays below 1e-5 of it; the slightest mistake, another
GELU, is above 1e-3."""


def probe_pictures(view: ImageSettings, folder: Path | None) -> torch.Tensor:
    """uint8 [B, 3, R, R]: the user's own, or coloured patches and noise that follow from a seed.

    Args:
        view: Of the model.
        folder: Of the user's pictures; None for made-up ones.

    Raises:
        UserError: The folder holds no picture.
    """
    if folder is None:
        return torch.stack([_made_up(number, view.size) for number in range(PROBES)])
    found: list[torch.Tensor] = []
    for path in sorted(folder.iterdir()):
        if len(found) == PROBES:
            break
        try:
            found.append(evaluation_view(decode_image(read_image_file(path)), view))
        except (CorruptImage, OSError):
            continue
    if not found:
        raise UserError(f"--probe {folder}: holds no picture that can be decoded")
    return torch.stack(found)


def _made_up(number: int, side: int) -> torch.Tensor:
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(256, size=(6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    noisy = smooth + random.normal(0, 12, size=smooth.shape)
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def as_seen(images_B3RR: torch.Tensor, view: ImageSettings) -> torch.Tensor:
    """float32, normalised."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (view.mean, view.std))
    return (images_B3RR.float() / 255 - mean) / std


@torch.inference_mode()
def open_clip_states(clip: Clip, pixels_B3RR: torch.Tensor) -> list[torch.Tensor]:
    """[B, N, D] before the first block and after each, L + 1 of them."""
    visual: Any = clip.towers.visual
    states: list[torch.Tensor] = []
    modules = [visual.ln_pre, *visual.transformer.resblocks]
    hooks = [m.register_forward_hook(lambda *call: states.append(call[-1])) for m in modules]
    try:
        visual(pixels_B3RR)
    finally:
        for hook in hooks:
            hook.remove()
    if getattr(visual.transformer, "batch_first", True):
        return states
    return [states[0], *(state.transpose(0, 1) for state in states[1:])]


@torch.inference_mode()
def hf_states(
    settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor], pixels_B3RR: torch.Tensor
) -> list[torch.Tensor]:
    """The same of a CLIPVisionModel.

    Args:
        settings: Of CLIPVisionConfig.
        weights: By its names without a prefix; all of them.
        pixels_B3RR: As ``as_seen`` gives them.

    Raises:
        UserError: Weights are missing, left over or of another shape.
    """
    model = vision_model(settings, weights)
    return list(model(pixels_B3RR, output_hidden_states=True).hidden_states)


def vision_model(settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Any:
    """A CLIPVisionModel in evaluation mode. Raises UserError as ``hf_states`` does."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    model = CLIPVisionModel(CLIPVisionConfig(**settings)).eval()
    known = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [name for name in sorted({*known, *given}) if known.get(name) != given.get(name)]
    if wrong:
        raise UserError(
            f"export: {len(wrong)} of {len(known)} tensors do not fit, the first is {wrong[0]}: "
            f"{given.get(wrong[0], 'missing')} in place of {known.get(wrong[0], 'none')}"
        )
    model.load_state_dict(dict(weights))
    return model


def refuse_broken_states(states: list[torch.Tensor], what: str) -> None:
    """Look through hidden states before others are compared with them.

    Raises:
        UserError: One is not finite; names the first layer.
    """
    broken = [layer for layer, state in enumerate(states) if not state.isfinite().all()]
    if broken:
        raise UserError(
            f"export: hidden states of {what} are not finite (NaN or infinity) from layer "
            f"{broken[0]} on, so its weights are damaged; copy it again"
        )


def refuse_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor], what: str) -> float:
    """Compare layer by layer.

    Returns:
        The largest difference, in parts of the largest hidden state of its layer.

    Raises:
        UserError: It is beyond rounding.
    """
    if len(ours) != len(theirs):
        raise UserError(f"export: {what} has {len(theirs) - 1} layers in place of {len(ours) - 1}")
    parts = [
        float((one - other).abs().max() / one.abs().max())
        for one, other in zip(ours, theirs, strict=True)
    ]
    first = next((n for n, part in enumerate(parts) if not part <= TOLERANCE), None)  # NaN too
    if first is not None:
        raise UserError(
            f"export: {what} computes something else from layer {first} on, by {parts[first]:.1e} "
            f"of its largest value; nothing was written"
        )
    return max(parts)
