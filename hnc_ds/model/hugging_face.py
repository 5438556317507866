"""Folders in Hugging Face's layouts: its CLIPModel, and open_clip models with its text towers.

A CLIPModel, as on the hub and from ``export --to hf``:

    FOLDER/{config.json, preprocessor_config.json, model.safetensors or pytorch_model.bin}

Configuration and tokenizer of a text tower:

    FOLDER/open_clip_config.json       hf_model_name is FOLDER/text_tower
    FOLDER/tokenizer.json ...          where open_clip loads the tokenizer of local-dir:FOLDER from
    FOLDER/text_tower/config.json      in a subfolder, as a run has a config.json as well

open_clip accepts only a name or an absolute path for the tower's configuration. The file therefore
contains the path and, under another key, the original name; this project always uses the folder.
"""

import json
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg

from hnc_ds.atomic_files import atomic_write
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
"""transformers' defaults, which a configuration leaves out."""
BOTH = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder is a transformers model of any class, and not an open_clip model."""
    if (folder / OPEN_CLIPS).is_file() or not (folder / CONFIG).is_file():
        return False
    try:
        config = read_json(folder / CONFIG)
    except UserError:  # may be a run's, whose errors are reported elsewhere
        return False
    return isinstance(config, dict) and "model_type" in config


def load_clip_folder(
    folder: Path, given: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """An open_clip model with the folder's weights, its model_cfg and its preprocess_cfg.

    Args:
        folder: Where it lies.
        given: Activation and preprocessing from flags, by evidence's KEYS.

    Raises:
        UserError: It is of another class, incomplete, or has no open_clip equivalent.
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
        raise UserError(f"{folder}: has no {SEEN}, the preprocessing of images; copy it too")
    written = read_json(path)
    view = hugging_faces_view(written) if isinstance(written, dict) else {}
    sides = {_side(written.get(key, size)) for key in ("size", "crop_size")} if view else set()
    if sides != {size} or any(key not in view for key in VIEW):
        raise UserError(
            f"{path}: has a preprocessing without an open_clip equivalent; it must resize to "
            f"{size} pixels and crop the center or squash"
        )
    return {"size": size, "mode": "RGB", "fill_color": 0, **view}


def _side(size: Any) -> Any:
    if not isinstance(size, dict):
        return size
    height = size.get("height")
    return size.get("shortest_edge") or (height if height == size.get("width") else None)


TOWER_FOLDER = "text_tower"
NAMED = "text_tower"
"""Key of open_clip_config.json for the tower's original name."""

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "spiece.model")


def text_files(towers: Any, tokenize: Any) -> dict[str, bytes]:
    """Files by relative path; empty for open_clip's own text towers.

    Args:
        towers: An open_clip model.
        tokenize: Its open_clip tokenizer.
    """
    config: Any = getattr(getattr(towers, "text", None), "config", None)
    with tempfile.TemporaryDirectory() as made:
        if hasattr(tokenize, "save_pretrained"):
            tokenize.save_pretrained(made)
        if hasattr(config, "save_pretrained"):
            config.save_pretrained(Path(made) / TOWER_FOLDER)
        paths = sorted(path for path in Path(made).rglob("*") if path.is_file())
        return {path.relative_to(made).as_posix(): path.read_bytes() for path in paths}


def written_config(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Content of open_clip_config.json in a folder, for a configuration in memory.

    Args:
        config: With model_cfg and preprocess_cfg.
        folder: The folder of the file and of ``text_files``.
    """
    name = config["model_cfg"]["text_cfg"].get("hf_model_name")
    if not name:
        return config
    here = deepcopy(config)
    here["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder.resolve() / TOWER_FOLDER)
    return here | {NAMED: name}


def read_config(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A folder's model_cfg with the original name of its text tower, and with its current path.

    Args:
        folder: The folder.
        config: Its open_clip_config.json.
    """
    named, here = deepcopy(config["model_cfg"]), deepcopy(config["model_cfg"])
    if NAMED in config:
        named["text_cfg"]["hf_model_name"] = config[NAMED]
    if (folder / TOWER_FOLDER).is_dir():
        here["text_cfg"]["hf_model_name"] = str(folder / TOWER_FOLDER)
        here["text_cfg"]["hf_model_pretrained"] = False
    return named, here


def config_bytes(config: dict[str, Any], folder: Path) -> bytes:
    """``written_config`` as the content of the file."""
    return json.dumps(written_config(config, folder), indent=2).encode()


def write_beside(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``text_files`` to a folder.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, content)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder contains a Hugging Face tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
