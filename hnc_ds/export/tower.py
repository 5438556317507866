"""CLIP's towers by Hugging Face's names: weights and configuration.

The activation is not in the weights, so it comes from the model's configuration: quick_gelu or not.

Source: the two implementations, open_clip's transformer.py and transformers' modeling_clip.py.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip

Tensors = dict[str, torch.Tensor]

BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
BLOCK_OF = re.compile(r"encoder\.layers\.(\d+)\.")
"""In Hugging Face's names."""
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
    "ln_pre.weight": "pre_layrnorm.weight",  # so misspelt there
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
    """The picture tower as CLIPVisionModel has it, without a prefix, and its projection [D, E].

    Raises:
        UserError: It is no ViT of CLIP's kind.
    """
    own = _below("visual.", clip.state_by_open_clip_name())
    projection = own.pop(PROJECTION, None)
    return _renamed(own, VISION, "the picture tower"), projection


def text_weights(clip: Clip) -> tuple[Tensors, torch.Tensor | None]:
    """The text tower as CLIPTextModel has it, without a prefix, and its projection [D, E].

    Raises:
        UserError: It is not CLIP's own.
    """
    own = {
        name: tensor
        for name, tensor in clip.state_by_open_clip_name().items()
        if not name.startswith("visual.") and name not in ("logit_scale", "logit_bias")
    }
    projection = own.pop("text_projection", None)
    return _renamed(own, TEXT, "the text tower"), projection


def vision_settings(clip: Clip) -> dict[str, Any]:
    """What CLIPVisionConfig is told.

    Raises:
        UserError: The tower is no ViT.
    """
    model, vision = clip.config["model_cfg"], clip.config["model_cfg"]["vision_cfg"]
    if not isinstance(vision.get("layers"), int) or "patch_size" not in vision:
        raise UserError("export: the picture tower is no ViT of CLIP's kind, which this needs")
    width = vision["width"]
    return {
        "hidden_size": width,
        "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": width // vision.get("head_width", 64),
        "image_size": clip.image_settings.size,
        "patch_size": vision["patch_size"],
        "hidden_act": activation(model),
    }


def text_settings(clip: Clip) -> dict[str, Any]:
    """What CLIPTextConfig is told."""
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


def activation(model: Mapping[str, Any]) -> str:
    """As Hugging Face calls it."""
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
    if unknown or not found:
        named = ", ".join(sorted(unknown)[:3]) or "it has no weights"
        raise UserError(f"export: {what} is not CLIP's own ({named}), so it has no such form")
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _in_block(layer: str, name: str, tensor: torch.Tensor, unknown: list[str]) -> Tensors:
    """One weight of a block; the joint one of queries, keys and values is cut in this order."""
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip("qkv", tensor.chunk(3, dim=0), strict=True)
        return {f"{layer}.self_attn.{part}_proj.{kind}": rows for part, rows in parts}
    module, _, kind = name.rpartition(".")
    if module not in IN_BLOCK:
        unknown.append(f"{layer}.{name}")
        return {}
    return {f"{layer}.{IN_BLOCK[module]}.{kind}": tensor}
