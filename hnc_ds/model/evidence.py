"""Activation and preprocessing, which a file of weights does not contain.

A state dict of ViT-B-32 is the same with QuickGELU and with GELU, and has no mean, deviation,
interpolation or resize mode; wrong ones silently change every result. Each is taken from the first
of these sources that has it:

    a flag; the published weights that the user names (FILE:TAG); a configuration in the file's
    folder; all published weights of the architecture, if they agree; open_clip's defaults, if none
    were published

and it is an error if none has it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.reading import read_json

VIEW = ("mean", "std", "interpolation", "resize_mode")
KEYS = ("quick_gelu", *VIEW)
DEFAULTS: dict[str, Any] = {
    "quick_gelu": False,
    "mean": OPENAI_DATASET_MEAN,
    "std": OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
"""open_clip's defaults, which a configuration leaves out."""
QUICK = "-quickgelu"
"""Suffix of architectures that differ from another only in the activation."""

Settings = Mapping[str, Any]


class Decided(NamedTuple):
    """The settings of KEYS, and a message with their sources."""

    settings: dict[str, Any]
    message: str


class Evidence(NamedTuple):
    """What is known of a file, in order of precedence."""

    given: Settings
    """Flags."""
    like: Settings
    """Settings of the published weights that the user names."""
    tag: str
    """Their tag, or an empty string."""
    beside: Settings
    """Settings of the configuration in the file's folder."""
    tags: Mapping[str, Settings]
    """Settings of the architecture's published weights, by tag."""
    default: Settings
    """Settings of the architecture in open_clip, without those that its name leaves open."""


def decide(model: str, file: str, evidence: Evidence) -> Decided:
    """Decide on the settings that the file does not contain.

    Args:
        model: open_clip's name of the architecture.
        file: For messages.
        evidence: What is known.

    Raises:
        UserError: A setting has no source; names the choices.
    """
    found = {key: _first(key, evidence) for key in KEYS}
    if still_open := [key for key, (source, _) in found.items() if not source]:
        raise UserError(_choices(model, file, still_open, evidence))
    by_source: dict[str, list[str]] = {}
    for key, (source, value) in found.items():
        by_source.setdefault(source, []).append(f"{key} {_shown(value)}")
    message = "; ".join(f"{', '.join(values)} ({source})" for source, values in by_source.items())
    return Decided(
        {key: value for key, (_, value) in found.items()}, f"{model} of {file}: {message}"
    )


def _first(key: str, evidence: Evidence) -> tuple[str, Any]:
    """Source and value of a setting; an empty source if there is none."""
    sources = {
        "as given": evidence.given,
        f"as {evidence.tag} has it": evidence.like,
        "from the configuration beside it": evidence.beside,
    }
    for source, settings in sources.items():
        if settings.get(key) is not None:
            return source, settings[key]
    if not evidence.tags:
        return "open_clip's default" if key in evidence.default else "", evidence.default.get(key)
    values = {_plain(settings[key]) for settings in evidence.tags.values()}
    which = f"all {len(evidence.tags)}" if len(evidence.tags) > 1 else next(iter(evidence.tags))
    agreed = f"as its published weights have it: {which}" if len(values) == 1 else ""
    return agreed, next(iter(values))


def _choices(model: str, file: str, still_open: list[str], evidence: Evidence) -> str:
    kinds: dict[str, list[str]] = {}
    for tag, settings in evidence.tags.items():
        named = ", ".join(f"{key} {_shown(settings[key])}" for key in still_open)
        kinds.setdefault(named, []).append(tag)
    choices = [f"{file}:{tags[0]} has {named}" for named, tags in kinds.items()]
    if not kinds:
        choices = [f"{model}{QUICK} has quick_gelu True", "--force_quick_gelu False"]
    flags = " ".join(f"--{FLAG_OF[key]}" for key in still_open)
    return (
        f"model {model}, pretrained {file}: its {' and '.join(still_open)} cannot be inferred, and "
        f"a wrong one silently changes results; name similar weights ({'; '.join(choices)}), "
        f"put its open_clip_config.json into its folder, or train with {flags}"
    )


FLAG_OF = {"quick_gelu": "force_quick_gelu"} | {key: f"image_{key}" for key in VIEW}
"""Flags, with open_clip's names."""


def given_by(config: ModelConfig) -> dict[str, Any]:
    """Settings from flags, by the names of KEYS."""
    named = {key: getattr(config, flag) for key, flag in FLAG_OF.items()}
    return {key: value for key, value in named.items() if value is not None}


def of_file(model: str, file: Path, like: str | None, given: Settings) -> Evidence:
    """What is known of a file.

    Args:
        model: open_clip's name of the architecture.
        file: Of weights.
        like: Tag of the published weights that the user names.
        given: Result of ``given_by``.

    Raises:
        UserError: A configuration beside it is broken.
    """
    tags = published(model)
    own = open_clip.get_model_config(model)
    default = DEFAULTS | {"quick_gelu": bool(own.get("quick_gelu", False))}
    if f"{model}{QUICK}" in open_clip.list_models():
        del default["quick_gelu"]
    of_tag = tags.get(like or "", {})
    return Evidence(given, of_tag, like or "", beside(file, own), tags, default)


def published(model: str) -> dict[str, dict[str, Any]]:
    """The settings of an architecture's published weights by tag, as open_clip opens them."""
    quick = bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))
    found: dict[str, dict[str, Any]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(model):
        published_cfg = open_clip.get_pretrained_cfg(model, tag)
        found[tag] = {key: _plain(published_cfg.get(key, DEFAULTS[key])) for key in KEYS}
        found[tag]["quick_gelu"] |= quick  # an architecture that has it keeps it
    return found


def beside(file: Path, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration in the file's folder, if it is of that architecture: open_clip's
    has all of them, as it leaves out defaults; else Hugging Face's.

    Raises:
        UserError: One of them is broken.
    """
    path = file.with_name("open_clip_config.json")
    config = read_json(path) if path.is_file() else None
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if isinstance(config, dict) and isinstance(model, dict) and _is_of(model, architecture):
        view = config.get("preprocess_cfg") or {}
        known = {**view, "quick_gelu": bool(model.get("quick_gelu"))}
        return {key: _plain(known.get(key, DEFAULTS[key])) for key in KEYS}
    return _hugging_faces(file, architecture)


def _is_of(model: Mapping[str, Any], architecture: Mapping[str, Any]) -> bool:
    """Whether two open_clip configurations have the same architecture, apart from KEYS."""
    if model.get("embed_dim") != architecture.get("embed_dim"):
        return False
    for tower, names in SHAPE.items():
        one, other = model.get(tower) or {}, architecture.get(tower) or {}
        if any(one.get(name) != other.get(name) for name in names):
            return False
    return True


SHAPE = {
    "vision_cfg": ("image_size", "layers", "width", "patch_size", "timm_model_name"),
    "text_cfg": ("layers", "width", "heads"),
}


def _hugging_faces(file: Path, architecture: Mapping[str, Any]) -> dict[str, Any]:
    path, view_path = file.with_name("config.json"), file.with_name("preprocessor_config.json")
    config = read_json(path) if path.is_file() else None
    if not isinstance(config, dict) or config.get("model_type") != "clip":
        return {}
    vision, own = config.get("vision_config") or {}, architecture["vision_cfg"]
    widths = (vision.get("hidden_size", 768), vision.get("patch_size", 32))
    if widths != (own.get("width", 768), own.get("patch_size", 16)):
        return {}
    # CLIPVisionConfig leaves out what is its default.
    found: dict[str, Any] = {"quick_gelu": vision.get("hidden_act", "quick_gelu") == "quick_gelu"}
    view = read_json(view_path) if view_path.is_file() else {}
    return found | (hugging_faces_view(view) if isinstance(view, dict) else {})


def hugging_faces_view(view: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of VIEW in a preprocessor_config.json."""
    found: dict[str, Any] = {
        key: view.get(f"image_{key}", DEFAULTS[key]) for key in ("mean", "std")
    }
    found["interpolation"] = {2: "bilinear", 3: "bicubic"}.get(view.get("resample", 3))
    size, crops = view.get("size", 224), view.get("do_center_crop", True)
    if isinstance(size, dict) and "height" in size:
        found["resize_mode"] = "squash"
    elif crops:
        found["resize_mode"] = "shortest"
    return {key: _plain(value) for key, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "/".join(f"{part:.3g}" for part in value)
    return str(value)
