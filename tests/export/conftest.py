"""Tiny CLIPs as open_clip builds them, and a LLaVA folder that their towers fit into."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers

from hnc_ds.interpolation import save_interpolated
from hnc_ds.llava.tiny_model import make_llava, make_tokenizer, save_llava
from hnc_ds.shards.images import ImageSettings

VIEW = ImageSettings(
    size=32, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
SMALL = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 32,
        "head_width": 8,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


UNFIT = [
    ({"image_size": 20, "patch_size": 10}, "image_size 20 in place of 32, patch_size 10 in"),
    ({"quick_gelu": True}, "hidden_act quick_gelu in place of gelu"),
    ({"layers": 2}, "num_hidden_layers 2 in place of 3"),
    ({"patch_size": 16}, "patch_size 16 in place of 8"),
    ({"width": 64, "head_width": 16}, "hidden_size 64 in place of 32"),
]


@pytest.fixture(params=UNFIT, ids=lambda case: " ".join(case[0]))
def unfit(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str]:
    """Settings of a tower that fits into no LLaVA here, and what the refusal says of it."""
    found: tuple[dict[str, Any], str] = request.param
    return found


def model_cfg(quick_gelu: bool = False, **vision: Any) -> dict[str, Any]:
    return {
        **SMALL,
        "vision_cfg": {**SMALL["vision_cfg"], **vision},
        **({"quick_gelu": True} if quick_gelu else {}),
    }


def save_clip(folder: Path, cfg: dict[str, Any], seed: int = 0) -> Path:
    """A checkpoint folder with random weights, wide enough that activations differ."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" not in name and name != "logit_scale":
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    state.pop("attn_mask", None)
    preprocess = {
        "size": [32, 32],
        "mode": "RGB",
        "mean": list(VIEW.mean),
        "std": list(VIEW.std),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    save_interpolated(folder, state, {"model_cfg": cfg, "preprocess_cfg": preprocess}, {})
    return folder


@pytest.fixture
def clip_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes one: quick_gelu or not, with other settings of the image tower."""

    def make(name: str = "clip", seed: int = 0, **settings: Any) -> Path:
        return save_clip(tmp_path / name, model_cfg(**settings), seed)

    return make


@pytest.fixture
def llava_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes one with a tower of the small CLIP's shape."""

    def make(name: str = "llava", **settings: Any) -> Path:
        words = make_tokenizer(["what is the colour of the star"])
        model = make_llava(model_cfg(**settings), words, width=32, layers=1, heads=2, seed=3)
        save_llava(tmp_path / name, model, words, VIEW)
        return tmp_path / name

    return make


@pytest.fixture
def llava_next_folder(llava_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Makes a LLaVA-NeXT with a tower of the small CLIP's shape: of Llama's kind as Vicuna, or of
    Mistral's."""

    def make(language_model: str) -> Path:
        folder = llava_folder("next")
        plain = transformers.LlavaConfig.from_pretrained(folder)
        text = plain.text_config.to_dict()
        kinds = {"vicuna": transformers.LlamaConfig, "mistral": transformers.MistralConfig}
        text.pop("model_type")
        config = transformers.LlavaNextConfig(
            vision_config=plain.vision_config,
            text_config=kinds[language_model](**text),
            image_token_index=plain.image_token_index,
            image_grid_pinpoints=[[32, 64], [64, 32]],
        )
        torch.manual_seed(1)
        (folder / "model.safetensors").unlink()
        transformers.LlavaNextForConditionalGeneration(config).save_pretrained(folder)
        processor = {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
            "image_mean": list(VIEW.mean),
            "image_std": list(VIEW.std),
            "image_grid_pinpoints": [[32, 64], [64, 32]],
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        return folder

    return make
