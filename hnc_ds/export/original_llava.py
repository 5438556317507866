"""LLaVA's own layout (haotian-liu/LLaVA), whose tower is a folder of its own.

``mm_vision_tower`` in config.json is the folder's path or a name on the hub. LLaVA opens it with
CLIPVisionModel and CLIPImageProcessor; a path must exist, from the directory that LLaVA runs in.
The weight files hold the tower only where it was trained with the language model
(``unfreeze_mm_vision_tower``, as in LLaVA-1.6), and then replace the folder's weights.

Source: LLaVA's model/llava_arch.py and model/multimodal_encoder/{builder,clip_encoder}.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from hnc_ds.atomic_files import atomic_write
from hnc_ds.errors import UserError
from hnc_ds.export.tower import Tensors, full_settings, hf_view, settings_of
from hnc_ds.model.load import WEIGHTS_NAME, architecture_config
from hnc_ds.reading import read_json, reading
from hnc_ds.shards.images import ImageSettings

CONFIG = "config.json"
ORIGINAL = ("LlavaLlamaForCausalLM", "LlavaMistralForCausalLM")
"""Architectures in LLaVA's own layout."""

NAMED = "mm_vision_tower"
TOWER_FOLDER = "clip-vision-tower"
"""The tower's folder in the output; SGLang takes a path with 'clip' in it for a CLIP."""

PUBLISHED = {
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336-quickgelu",
    "openai/clip-vit-large-patch14": "ViT-L-14-quickgelu",
    "openai/clip-vit-base-patch16": "ViT-B-16-quickgelu",
    "openai/clip-vit-base-patch32": "ViT-B-32-quickgelu",
}
"""open_clip's models of OpenAI's towers, whose shapes are known without their files."""


@dataclass(frozen=True)
class NamedTower:
    """The tower that config.json names."""

    name: str
    """As in config.json."""
    folder: Path | None
    """Its folder on this machine; None where there is none."""
    settings: dict[str, Any]
    """CLIPVisionConfig's values of SHAPES."""

    def weights(self) -> Tensors | None:
        """Its weights as float32 by CLIPVisionModel's names; None if they are not on this machine.

        Raises:
            UserError: They are damaged, or not a CLIP tower's.
        """
        folder = self.folder
        if folder is None or not any([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            return None
        return _tower_weights(folder)


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of LLaVA's own layout."""
    return any(name in ORIGINAL for name in config.get("architectures") or ())


def named_tower(path: Path, config: Mapping[str, Any]) -> NamedTower:
    """The tower of a folder in LLaVA's own layout.

    Args:
        path: The LLaVA folder.
        config: Its config.json.

    Raises:
        UserError: It names none, one that is unknown here or not CLIP's, or one that does not fit
            its connector.
    """
    name = config.get(NAMED)
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{path / CONFIG}: {NAMED} is {json.dumps(name)}, not a tower's name or folder; copy "
            "the file of the original folder"
        )
    folder = _on_this_machine(name)
    settings = _settings(path / CONFIG, name, folder)
    _check_connector(path / CONFIG, config, settings)
    return NamedTower(name, folder, settings)


def _check_connector(where: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise UserError unless the connector takes a layer of this tower, in its width."""
    again = "copy the file of the original folder"
    if config.get("s2"):
        raise UserError(
            f"{where}: s2 is set, a tower at several scales, which export does not support"
        )
    width, own = config.get("mm_hidden_size"), settings["hidden_size"]
    if width != own:
        raise UserError(
            f"{where}: mm_hidden_size is {width}, but {config[NAMED]} has width {own}; {again}"
        )
    layer, count = config.get("mm_vision_select_layer", -2), settings["num_hidden_layers"]
    if not isinstance(layer, int) or not -count - 1 <= layer <= count:
        raise UserError(
            f"{where}: mm_vision_select_layer is {layer}, but {config[NAMED]} has {count} layers; "
            f"{again}"
        )


def _on_this_machine(name: str) -> Path | None:
    """The folder of a path, or of a name in Hugging Face's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).is_dir():
        return Path(name)
    try:
        cached = try_to_load_from_cache(name, CONFIG)
    except HFValidationError:  # a path
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _settings(where: Path, name: str, folder: Path | None) -> dict[str, Any]:
    if folder is not None:
        return _settings_in(folder / CONFIG)
    if name not in PUBLISHED:
        raise UserError(
            f"{where}: {NAMED} {name} is neither a folder nor in Hugging Face's cache; run "
            f"'hf download {name}', or put the tower's folder there"
        )
    model = architecture_config(PUBLISHED[name])
    return full_settings(where, settings_of(model, model["vision_cfg"]["image_size"]))


def _settings_in(path: Path) -> dict[str, Any]:
    """Settings in config.json of a CLIPVisionModel or a CLIPModel."""
    config: Any = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in ("clip", "clip_vision_model"):
        raise UserError(f"{path}: is a tower of kind {kind}, which is not CLIP's")
    vision = config.get("vision_config") if kind == "clip" else config
    return full_settings(path, vision if isinstance(vision, dict) else {})


def _tower_weights(folder: Path) -> Tensors:
    import torch
    from transformers import CLIPVisionModel

    with reading(f"{folder}, the old tower", by="transformers"):
        model, found = CLIPVisionModel.from_pretrained(
            folder,
            local_files_only=True,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if lacking := sorted(found["missing_keys"]):
        raise UserError(f"{folder}: its weights lack {lacking[0]}, so it is no whole CLIP tower")
    return dict(model.state_dict())


def write_tower(
    folder: Path, settings: Mapping[str, Any], weights: Tensors, view: ImageSettings
) -> None:
    """Write a folder that CLIPVisionModel and CLIPImageProcessor open, of any version.

    Args:
        folder: Output folder, within one that is written atomically.
        settings: CLIPVisionConfig's arguments.
        weights: By CLIPVisionModel's names without a prefix.
        view: The tower's preprocessing. The shorter side is resized, as LLaVA's code expects; its
            images are squares by then.
    """
    from transformers import CLIPVisionConfig

    folder.mkdir()
    hf_view(replace(view, resize_mode="shortest")).save_pretrained(folder)
    config = CLIPVisionConfig(**settings, architectures=["CLIPVisionModel"])
    config.save_pretrained(folder)
    # Older versions of transformers need the prefix; clones, as q, k and v may share memory.
    whole = {f"vision_model.{name}": tensor.clone() for name, tensor in weights.items()}
    atomic_write(folder / WEIGHTS_NAME, save(whole, {"format": "pt"}))


def name_tower(folder: Path, out: Path) -> str:
    """Put the tower's path into a folder's config.json.

    Args:
        folder: The folder while it is written.
        out: Its final place.

    Returns:
        A description of the path, for a line of the summary.
    """
    tower = out.resolve() / TOWER_FOLDER
    config = read_json(folder / CONFIG)
    config[NAMED] = str(tower)
    atomic_write(folder / CONFIG, json.dumps(config, indent=2).encode())
    return (
        f"{NAMED} in config.json is {tower}: an absolute path, so set it anew when the folder moves"
    )


def loading_warning(out: Path, config: Mapping[str, Any]) -> str | None:
    """A warning if LLaVA's load_pretrained_model, which goes by a folder's name, would load it as
    another kind of model; else None."""
    needed = ("llava", "mistral") if ORIGINAL[1] in config["architectures"] else ("llava",)
    others = [word for word in ("mistral", "mpt", "lora") if word not in needed]
    name = out.resolve().name.lower()
    if all(word in name for word in needed) and not any(word in name for word in others):
        return None
    return (
        f"warning: LLaVA's own code goes by the folder's name, which must contain "
        f"{' and '.join(needed)}, not {' or '.join(others)}; rename {out.name}, or give LLaVA "
        "such a model_name"
    )
