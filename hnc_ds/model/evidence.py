"""What a file of weights does not say: its activation, and how pictures were shown to the model.

A state dict of ViT-B-32 is the same with QuickGELU and with GELU, and names no mean, deviation,
interpolation or way to resize; with the wrong ones every number is silently another. So each is
decided by the first evidence that there is:

    a flag; the published weights that the user says the file is like (FILE:TAG);
    a configuration beside the file; all published weights of the architecture, where they agree;
    open_clip's own defaults, where none were published

and refused where there is none.
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
"""open_clip's, for what a configuration leaves out."""
QUICK = "-quickgelu"
"""End of the names of architectures that differ from another in the activation alone."""

Settings = Mapping[str, Any]


class Decided(NamedTuple):
    """The settings of KEYS, and why they are so."""

    settings: dict[str, Any]
    told: str


class Evidence(NamedTuple):
    """What is known of a file, the strongest first."""

    given: Settings
    """Flags."""
    like: Settings
    """Of the published weights that the file is like."""
    tag: str
    """Their tag, or none."""
    beside: Settings
    """Of the configuration beside the file."""
    tags: Mapping[str, Settings]
    """Of the architecture's published weights, by tag."""
    default: Settings
    """Of the architecture itself, as open_clip trains it; without what its name leaves open."""


def decide(model: str, file: str, evidence: Evidence) -> Decided:
    """Settle what the file does not say.

    Args:
        model: open_clip's name of the architecture.
        file: For messages.
        evidence: What is known.

    Raises:
        UserError: Something is open; it names the choices.
    """
    found = {key: _first(key, evidence) for key in KEYS}
    if still_open := [key for key, (source, _) in found.items() if not source]:
        raise UserError(_choices(model, file, still_open, evidence))
    by_source: dict[str, list[str]] = {}
    for key, (source, value) in found.items():
        by_source.setdefault(source, []).append(f"{key} {_shown(value)}")
    told = "; ".join(f"{', '.join(values)} ({source})" for source, values in by_source.items())
    return Decided({key: value for key, (_, value) in found.items()}, f"{model} of {file}: {told}")


def _first(key: str, evidence: Evidence) -> tuple[str, Any]:
    """Where a setting is known from and its value; nowhere where it is open."""
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
        f"model {model}, pretrained {file}: nothing tells its {' and '.join(still_open)}, and a "
        f"wrong one silently gives other numbers; say what it is like ({'; '.join(choices)}), put "
        f"its open_clip_config.json beside it, or train with {flags}"
    )


FLAG_OF = {"quick_gelu": "force_quick_gelu"} | {key: f"image_{key}" for key in VIEW}
"""As open_clip's own flags are called."""


def given_by(config: ModelConfig) -> dict[str, Any]:
    """What flags say, by the names of KEYS."""
    named = {key: getattr(config, flag) for key, flag in FLAG_OF.items()}
    return {key: value for key, value in named.items() if value is not None}


def of_file(model: str, file: Path, like: str | None, given: Settings) -> Evidence:
    """What is known of a file.

    Args:
        model: open_clip's name of the architecture.
        file: Of weights.
        like: Tag of the published weights that it is like.
        given: Flags, as ``given_by`` has them.

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
        said = open_clip.get_pretrained_cfg(model, tag)
        found[tag] = {key: _plain(said.get(key, DEFAULTS[key])) for key in KEYS}
        found[tag]["quick_gelu"] |= quick  # an architecture that has it keeps it
    return found


def beside(file: Path, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """What the configurations in the file's folder say, where they are of that architecture.

    open_clip's says everything, as it leaves out what is its default; else Hugging Face's.

    Raises:
        UserError: One of them is broken.
    """
    path = file.with_name("open_clip_config.json")
    said = read_json(path) if path.is_file() else None
    model = said.get("model_cfg") if isinstance(said, dict) else None
    if isinstance(said, dict) and isinstance(model, dict) and _is_of(model, architecture):
        view = said.get("preprocess_cfg") or {}
        known = {**view, "quick_gelu": bool(model.get("quick_gelu"))}
        return {key: _plain(known.get(key, DEFAULTS[key])) for key in KEYS}
    return _hugging_faces(file, architecture)


def _is_of(model: Mapping[str, Any], architecture: Mapping[str, Any]) -> bool:
    """Whether two configurations of open_clip's are of one architecture, but for KEYS."""
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
    """What preprocessor_config.json says of VIEW."""
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
