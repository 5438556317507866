"""CLIP's towers in Hugging Face's form: names of weights, configuration, comparison of states.

The activation (quick_gelu or not) comes from the model's configuration. Two towers are equal if the
hidden states of every layer are, on the same images.

B images, N tokens (the class first), D width, L layers.

Source: the two implementations, open_clip's transformer.py and transformers' modeling_clip.py.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.images import CorruptImage, read_image_file
from hnc_ds.model.clip import Clip
from hnc_ds.reading import reading
from hnc_ds.shards.images import ImageSettings, decode_image, evaluation_view

Tensors = dict[str, torch.Tensor]

BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
BLOCK_OF = re.compile(r"encoder\.layers\.(\d+)\.")
"""A block's prefix in Hugging Face's names."""
IN_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
VISION = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # transformers' spelling
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
PROJECTION = "proj"


def vision_weights(clip: Clip) -> tuple[Tensors, torch.Tensor | None]:
    """The image tower's weights by CLIPVisionModel's names, and its projection [D, E].

    Raises:
        UserError: The tower is not one of CLIP's ViTs.
    """
    own = _below("visual.", clip.state_by_open_clip_name())
    projection = own.pop(PROJECTION, None)
    return _renamed(own, VISION, "the image tower"), projection


def text_weights(clip: Clip) -> tuple[Tensors, torch.Tensor | None]:
    """The text tower's weights by CLIPTextModel's names, and its projection [D, E].

    Raises:
        UserError: The tower is not CLIP's.
    """
    own = {
        name: tensor
        for name, tensor in clip.state_by_open_clip_name().items()
        if not name.startswith("visual.") and name not in ("logit_scale", "logit_bias")
    }
    projection = own.pop("text_projection", None)
    return _renamed(own, TEXT, "the text tower"), projection


def vision_settings(clip: Clip) -> dict[str, Any]:
    """Arguments of CLIPVisionConfig. Raises UserError where the tower is not a ViT."""
    return settings_of(clip.config["model_cfg"], clip.image_settings.size)


def settings_of(model: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Arguments of CLIPVisionConfig.

    Args:
        model: open_clip's configuration of a model.
        side: Side of the images in pixels.

    Raises:
        UserError: The tower is not a ViT.
    """
    vision = model["vision_cfg"]
    if not isinstance(vision.get("layers"), int) or "patch_size" not in vision:
        raise UserError("export: the image tower is not one of CLIP's ViTs, which this needs")
    width = vision["width"]
    return {
        "hidden_size": width,
        "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": width // vision.get("head_width", 64),
        "image_size": side,
        "patch_size": vision["patch_size"],
        "hidden_act": activation(model),
    }


def text_settings(clip: Clip) -> dict[str, Any]:
    """Arguments of CLIPTextConfig."""
    model, text = clip.config["model_cfg"], clip.config["model_cfg"]["text_cfg"]
    last = text.get("vocab_size", 49408) - 1
    return {
        "hidden_size": text["width"],
        "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
        "num_hidden_layers": text["layers"],
        "num_attention_heads": text["heads"],
        "vocab_size": text.get("vocab_size", 49408),
        "max_position_embeddings": text.get("context_length", 77),
        "hidden_act": activation(model),
        "bos_token_id": last - 1,
        "eos_token_id": last,
    }


SHAPES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
)
"""CLIPVisionConfig's values that decide what a tower computes."""


def full_settings(where: Path, vision: Mapping[str, Any]) -> dict[str, Any]:
    """SHAPES of a configuration, with CLIPVisionConfig's defaults.

    Args:
        where: The configuration's file, for messages.
        vision: CLIPVisionConfig's arguments, some of which may be absent.

    Raises:
        UserError: A value is not of its kind.
    """
    from transformers import CLIPVisionConfig

    with reading(where, "copy it from the original folder", by="transformers"):
        full = CLIPVisionConfig(**{name: vision[name] for name in SHAPES if name in vision})
    found = {name: getattr(full, name) for name in SHAPES}
    for name in ("image_size", "patch_size"):  # transformers also takes two sides, or none
        if not isinstance(found[name], int):
            raise UserError(f"{where}: {name} of the tower is {found[name]}; give one number")
    return found


POSITIONS = "embeddings.position_embedding.weight"


def at_size(
    settings: Mapping[str, Any], weights: Tensors, side: int
) -> tuple[dict[str, Any], Tensors]:
    """Settings and weights of a tower for images of another size.

    Positions of patches are interpolated as open_clip does, bicubic with antialiasing; the class's
    stays.

    Args:
        settings: CLIPVisionConfig's arguments.
        weights: By CLIPVisionModel's names.
        side: Side of the images in pixels, a multiple of the patch size.
    """
    before_ND, patch = weights[POSITIONS], settings["patch_size"]
    old, new = settings["image_size"] // patch, side // patch
    grid_1DHW = before_ND[1:].T.reshape(1, -1, old, old)
    grown_1DHW = torch.nn.functional.interpolate(
        grid_1DHW, size=(new, new), mode="bicubic", antialias=True, align_corners=False
    )
    after_ND = torch.cat([before_ND[:1], grown_1DHW.flatten(2)[0].T]).contiguous()
    return {**settings, "image_size": side}, {**weights, POSITIONS: after_ND}


def activation(model: Mapping[str, Any]) -> str:
    """Hugging Face's name of the activation."""
    return "quick_gelu" if model.get("quick_gelu") else "gelu"


def _below(prefix: str, state: Mapping[str, torch.Tensor]) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _renamed(own: Tensors, names: Mapping[str, str], what: str) -> Tensors:
    found: Tensors = {}
    unknown: list[str] = []
    for name, tensor in own.items():
        plain = tensor.detach().to("cpu", torch.float32)
        block = BLOCK.fullmatch(name)
        if name in names:
            found[names[name]] = plain
        elif block is not None:
            found |= _in_block(f"encoder.layers.{block[1]}", block[2], plain, unknown)
        else:
            unknown.append(name)
    lacking = [] if unknown else [f"no {name}" for name in names if name not in own]
    if unknown or lacking:
        named = ", ".join(sorted(unknown or lacking)[:3])
        raise UserError(f"export: {what} is not CLIP's own ({named}), so it has no such form")
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _in_block(layer: str, name: str, tensor: torch.Tensor, unknown: list[str]) -> Tensors:
    """Rename one weight of a block; the joint projection is split into q, k and v."""
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip("qkv", tensor.chunk(3, dim=0), strict=True)
        return {f"{layer}.self_attn.{part}_proj.{kind}": rows for part, rows in parts}
    module, _, kind = name.rpartition(".")
    if module not in IN_BLOCK:
        unknown.append(f"{layer}.{name}")
        return {}
    return {f"{layer}.{IN_BLOCK[module]}.{kind}": tensor}


RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""PIL's numbers."""


def hf_view(view: ImageSettings) -> Any:
    """The preprocessing as a CLIPImageProcessor."""
    from transformers import CLIPImageProcessor

    side = {"height": view.size, "width": view.size}
    shortest = {"shortest_edge": view.size}
    return CLIPImageProcessor(
        size=shortest if view.resize_mode == "shortest" else side,
        crop_size=side,
        resample=RESAMPLE[view.interpolation],
        image_mean=list(view.mean),
        image_std=list(view.std),
    )


PROBES = 8
TOLERANCE = 1e-4
"""Relative to the largest hidden state. Rounding is below 1e-5; the smallest mistake, another GELU,
is above 1e-3."""


def probe_images(view: ImageSettings, folder: Path | None) -> torch.Tensor:
    """Test images, uint8 [B, 3, R, R].

    Args:
        view: The model's preprocessing.
        folder: Folder of images; None for generated ones.

    Raises:
        UserError: The folder holds no image.
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
        raise UserError(f"--probe {folder}: holds no image that can be decoded")
    return torch.stack(found)


def _made_up(number: int, side: int) -> torch.Tensor:
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(256, size=(6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    noisy = smooth + random.normal(0, 12, size=smooth.shape)
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def as_seen(images_B3RR: torch.Tensor, view: ImageSettings) -> torch.Tensor:
    """Images as float32, normalized by mean and standard deviation."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (view.mean, view.std))
    return (images_B3RR.float() / 255 - mean) / std


@torch.inference_mode()
def open_clip_states(clip: Clip, pixels_B3RR: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states [B, N, D] before the first block and after each block, L + 1 in all."""
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
    """Hidden states of a CLIPVisionModel, as ``open_clip_states``.

    Args:
        settings: CLIPVisionConfig's arguments.
        weights: All weights, by the model's names without a prefix.
        pixels_B3RR: From ``as_seen``.

    Raises:
        UserError: Weights are missing, unexpected or of another shape.
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
    """Raise UserError for hidden states that are not finite; names the first layer."""
    broken = [layer for layer, state in enumerate(states) if not state.isfinite().all()]
    if broken:
        raise UserError(
            f"export: hidden states of {what} are not finite (NaN or infinity) from layer "
            f"{broken[0]} on, so its weights are damaged; copy it again"
        )


def refuse_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor], what: str) -> float:
    """Compare hidden states layer by layer.

    Returns:
        The largest difference, relative to the largest hidden state of its layer.

    Raises:
        UserError: A difference exceeds TOLERANCE.
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
