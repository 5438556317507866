"""A tiny LLaVA in LLaVA's own layout (haotian-liu/LLaVA), and its tower as a folder."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
INSIDE = "model.vision_tower.vision_tower.vision_model."
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "gelu",
}


def clip_tower(folder: Path, **settings: Any) -> Tensors:
    """A folder as of a CLIP on the hub; returns the tower's weights."""
    torch.manual_seed(5)
    config = transformers.CLIPVisionConfig(**TOWER | settings)
    model = transformers.CLIPVisionModel(config)
    model.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return dict(model.state_dict())


def language_model() -> Tensors:
    torch.manual_seed(6)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))
    added = {
        "model.mm_projector.0.weight": torch.randn(32, 32),
        "model.mm_projector.0.bias": torch.randn(32),
        "model.mm_projector.2.weight": torch.randn(32, 32),
        "model.mm_projector.2.bias": torch.randn(32),
        "model.image_newline": torch.randn(32),
    }
    return {**model.state_dict(), **added}


def save_shards(folder: Path, state: Tensors, kind: str) -> None:
    """Two files and their index, the second with the tower and the connector."""
    stem, end = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    last = {n for n in state if "vision_tower" in n or "mm_projector" in n}
    files = {
        f"{stem}-00001-of-00002.{end}": {n: t for n, t in state.items() if n not in last},
        f"{stem}-00002-of-00002.{end}": {n: t for n, t in state.items() if n in last},
    }
    for name, part in files.items():
        if end == "bin":
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, {"format": "pt"})
    placed = {n: name for name, part in files.items() for n in part}
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))


def save_original(
    folder: Path, tower: Path, kind: str = "bin", inside: bool = False, **changed: Any
) -> None:
    """Write both folders.

    Args:
        folder: The LLaVA's.
        tower: The tower's, which config.json names as it is given here.
        kind: Of the weight files, bin or safetensors.
        inside: Whether these hold a tower too, whose weights are 0.01 larger.
        changed: Other values of config.json.
    """
    folder.mkdir()
    weights = clip_tower(tower)
    state = language_model()
    if inside:
        state |= {f"{INSIDE}{name}": tensor + 0.01 for name, tensor in weights.items()}
        state[f"{INSIDE}embeddings.position_ids"] = torch.arange(17)[None]
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    save_shards(folder, {n: t.contiguous() for n, t in half.items()}, kind)
    config = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        **TEXT,
        "rms_norm_eps": 1e-05,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": 32,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "unfreeze_mm_vision_tower": inside,
    }
    (folder / "config.json").write_text(json.dumps(config | changed))
    (folder / "tokenizer.model").write_bytes(b"\x0a\x01 a tokenizer")
    torch.save({"model.mm_projector.0.bias": torch.ones(2)}, folder / "mm_projector.bin")
