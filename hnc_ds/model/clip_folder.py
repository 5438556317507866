"""Folders of Hugging Face's CLIPModel, as others release models and ``export --to hf`` writes them.

FOLDER/{config.json, preprocessor_config.json, model.safetensors or pytorch_model.bin}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg

from hnc_ds.errors import UserError
from hnc_ds.model.evidence import VIEW, hugging_faces_view
from hnc_ds.model.weights_file import check_fit, fit, read_weights
from hnc_ds.reading import read_json

OPEN_CLIPS = "open_clip_config.json"
CONFIG, SEEN = "config.json", "preprocessor_config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
ACTIVATIONS = {"quick_gelu": True, "gelu": False}
TOWERS: dict[str, dict[str, Any]] = {
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "text_config": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    },
}
"""What transformers leaves out of a configuration: its defaults."""
BOTH = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder is a model of transformers' and none of open_clip's; of whatever class."""
    if (folder / OPEN_CLIPS).is_file() or not (folder / CONFIG).is_file():
        return False
    try:
        config = read_json(folder / CONFIG)
    except UserError:  # may be that of a run, which is read with words of its own
        return False
    return isinstance(config, dict) and "model_type" in config


def load_clip_folder(
    folder: Path, given: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """An open_clip model with the folder's weights, its model_cfg and its preprocess_cfg.

    Args:
        folder: Where it lies.
        given: What flags say of the activation and preprocessing, by evidence's KEYS.

    Raises:
        UserError: It is of another class, something is missing or open_clip has no such form.
    """
    settings = _settings(folder)
    settings["quick_gelu"] = given.get("quick_gelu", settings["quick_gelu"])
    view = _view(folder, settings["vision_cfg"]["image_size"])
    view |= {key: value for key, value in given.items() if key in VIEW}
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: has neither {' nor '.join(FILES)}; copy the folder again")
    state = read_weights(file)
    with torch.device("meta"):
        check_fit(open_clip.CLIP(**settings).state_dict(), state, str(folder))
    towers = open_clip.CLIP(**settings, nonscalar_logit_scale=True)
    fit(towers, state, str(folder))
    set_model_preprocess_cfg(towers, view)
    return towers, settings, view


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    config = read_json(path)
    if config["model_type"] != "clip":
        raise UserError(
            f"{path}: model_type is {config['model_type']!r}; of Hugging Face's own models "
            "CLIPModel alone opens, others in open_clip's layout"
        )
    vision, text = (_tower(path, config, name) for name in TOWERS)
    if vision["hidden_act"] != text["hidden_act"] or vision["hidden_act"] not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act must be quick_gelu or gelu, in both towers the same")
    if text["vocab_size"] > CLIP_VOCABULARY:
        raise UserError(f"{path}: vocab_size is {text['vocab_size']}; its tokenizer is not CLIP's")
    return {
        "embed_dim": _number(path, config, "projection_dim", 512),
        "quick_gelu": ACTIVATIONS[vision["hidden_act"]],
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "layers": text["num_hidden_layers"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
        },
    }


def _tower(path: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    given = config.get(name) or {}
    if not isinstance(given, dict):
        raise UserError(f"{path}: {name} is no object")
    found = BOTH | {key: given.get(key, default) for key, default in BOTH.items()}
    if found["layer_norm_eps"] != BOTH["layer_norm_eps"]:
        raise UserError(f"{path}: {name}.layer_norm_eps is not that of CLIP, which open_clip has")
    return found | {key: _number(path, given, key, usual) for key, usual in TOWERS[name].items()}


def _number(path: Path, given: dict[str, Any], key: str, usual: int) -> int:
    value = given.get(key, usual)
    if not isinstance(value, int) or not 0 < value <= LARGEST:
        raise UserError(f"{path}: {key} is {value!r}; copy the folder again")
    return value


LARGEST = 1 << 20
CLIP_VOCABULARY = 49408


def _view(folder: Path, size: int) -> dict[str, Any]:
    path = folder / SEEN
    if not path.is_file():
        raise UserError(f"{folder}: has no {SEEN}, which tells how images are shown; copy it too")
    said = read_json(path)
    view = hugging_faces_view(said) if isinstance(said, dict) else {}
    sides = {_side(said.get(key, size)) for key in ("size", "crop_size")} if view else set()
    if sides != {size} or any(key not in view for key in VIEW):
        raise UserError(
            f"{path}: shows images in a way that open_clip has no form for; it must resize to "
            f"{size} pixels and crop the centre or squash"
        )
    return {"size": size, "mode": "RGB", "fill_color": 0, **view}


def _side(size: Any) -> Any:
    if not isinstance(size, dict):
        return size
    return size.get("shortest_edge") or (size.get("height") if _is_square(size) else None)


def _is_square(size: dict[str, Any]) -> bool:
    return bool(size.get("height") == size.get("width"))
