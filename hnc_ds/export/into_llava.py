"""A LLaVA folder with another picture tower; every other tensor and file stays byte for byte.

Weights are patched in the files, so a language model of any size is copied, never loaded. Tensors
of the tower get the names that LLaVA has on the hub (vision_tower.vision_model...), which
transformers of every age, vLLM and SGLang read; where they had them, names stay.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hnc_ds.errors import UserError
from hnc_ds.export.llava_tokenizer import load_tokenizer
from hnc_ds.export.processor import check_processor, prove_padding, write_padding
from hnc_ds.export.safetensors_file import Header, copy_with, read_header, read_tensor
from hnc_ds.export.tower import Tensors
from hnc_ds.reading import read_json, reading
from hnc_ds.whole_files import whole_file, whole_folder, write_whole

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
ARCHITECTURE = "LlavaForConditionalGeneration"
MODEL_TYPE = "llava"
SUCH_AS = "give a folder such as llava-1.5-7b-hf"
TOWER = re.compile(r"((?:model\.)?vision_tower\.)(vision_model\.)?(.+)")
"""As transformers has called a tower's tensors: on the hub, and since 5.6."""

BUFFERS = ("embeddings.position_ids",)
"""In files of old; they are no weights."""

SHAPES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
)


@dataclass(frozen=True)
class LlavaFolder:
    """What lies in a LLaVA folder, by its headers."""

    path: Path
    config: dict[str, Any]
    headers: dict[str, Header]
    """By name of a file of weights."""
    tower: dict[str, tuple[str, str]]
    """File and name of each of the tower's tensors, by CLIPVisionModel's name."""
    vision: dict[str, Any]
    """Of CLIPVisionConfig, all of SHAPES."""

    @property
    def layer(self) -> int:
        """Number of hidden states before the one that the language model sees; 1 is the first
        block's output."""
        told = self.config.get("vision_feature_layer", -2)
        layers = told if isinstance(told, list) else [told]
        count: int = self.vision["num_hidden_layers"]
        return max(layer if layer >= 0 else count + 1 + layer for layer in layers)

    def weights(self) -> Tensors:
        """The tower's, as float32."""
        return {
            name: read_tensor(self.path / file, self.headers[file], key).float()
            for name, (file, key) in self.tower.items()
        }


def read_llava_config(path: Path) -> dict[str, Any]:
    """The configuration of a LLaVA folder.

    Raises:
        UserError: It is none.
    """
    try:
        config: Any = read_json(path / CONFIG)
    except UserError as error:
        raise UserError(
            f"{path}: no LLaVA folder of Hugging Face's ({error}); {SUCH_AS}"
        ) from error
    told = config if isinstance(config, dict) else {}
    if ARCHITECTURE not in (told.get("architectures") or ()):
        raise UserError(f"{path}: is {told.get('architectures')}, no {ARCHITECTURE}; {SUCH_AS}")
    if told.get("model_type") != MODEL_TYPE:
        raise UserError(
            f"{path / CONFIG}: model_type is {told.get('model_type')}, not {MODEL_TYPE}: "
            "transformers would take another tokenizer, which makes other tokens around <image>; "
            "copy the file of the original folder"
        )
    return told


def read_llava_folder(path: Path) -> LlavaFolder:
    """Look into a LLaVA folder.

    Raises:
        UserError: It is none, has no CLIP tower, or lacks files.
    """
    again = "copy the folder again"
    with reading(path, again, "not a LLaVA's configuration", by="transformers"):
        return _looked_into(path)


def _looked_into(path: Path) -> LlavaFolder:
    config = read_llava_config(path)
    vision = config.get("vision_config") or {}
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise UserError(f"{path}: has a tower of kind {vision['model_type']}, which is not CLIP's")
    headers = {file.name: read_header(file) for file in weight_files(path)}
    tower = {
        name: (file, key)
        for file, header in headers.items()
        for key in header.tensors
        if (name := _tower_name(key)) is not None
    }
    if not tower:
        raise UserError(f"{path}: its weights hold no vision_tower")
    settings = _vision(path, vision)
    check_processor(path, settings["image_size"])
    load_tokenizer(path, config)
    return LlavaFolder(path, config, headers, tower, settings)


def weight_files(path: Path) -> list[Path]:
    """Files of weights of a LLaVA folder.

    Raises:
        UserError: Some are not there.
    """
    index = path / INDEX
    if index.is_file():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index}: no index of weights ({error})") from error
        if leads := [str(name) for name in names if Path(str(name)).name != name]:
            raise UserError(f"{index}: '{leads[0]}' is no name of a file beside it")
        files = [path / str(name) for name in names]
    else:
        files = sorted(path.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(
            f"{path}: {', '.join(missing) or 'its *.safetensors'} are not there; copy the whole "
            "folder"
        )
    return files


def _tower_name(key: str) -> str | None:
    found = TOWER.fullmatch(key)
    return found[3] if found and found[3] not in BUFFERS else None


def _vision(path: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """With CLIPVisionConfig's own values for what the file leaves out."""
    from transformers import CLIPVisionConfig

    with reading(path / CONFIG, "copy it from the original folder", by="transformers"):
        full = CLIPVisionConfig(**{name: told[name] for name in SHAPES if name in told})
    return {name: getattr(full, name) for name in SHAPES}


def check_fit(folder: LlavaFolder, settings: Mapping[str, Any], weights: Tensors) -> None:
    """Refuse a tower of another shape or activation.

    Raises:
        UserError: It is one.
    """
    other = [name for name in SHAPES if folder.vision[name] != settings[name]]
    if other:
        told = ", ".join(f"{n} {settings[n]} in place of {folder.vision[n]}" for n in other)
        raise UserError(f"export: the tower does not fit into {folder.path}: {told}")
    if missing := sorted(set(weights) - set(folder.tower)):
        raise UserError(f"{folder.path}: its tower lacks {missing[0]}, so it is another one")
    if unknown := sorted(set(folder.tower) - set(weights)):
        raise UserError(f"{folder.path}: its tower has {unknown[0]}, which CLIP's has not")


def write_into(folder: LlavaFolder, weights: Tensors, out: Path) -> str:
    """Write the folder with the tower, whole or not at all.

    Args:
        folder: That is copied.
        weights: Of the tower, by CLIPVisionModel's names.
        out: Where; what is there is replaced.

    Returns:
        The image processor that the folder had, in words.

    Raises:
        UserError: transformers would not pad images; the disk is full or cannot be written.
    """
    needed = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    out.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(out.parent).free < needed:
        raise UserError(f"{out}: needs {needed / 2**30:.1f} GiB, which its disk does not have")
    try:
        with whole_folder(out) as target:
            for file in _plain_files(folder):
                copy = target / file.relative_to(folder.path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            for name in folder.headers:
                _write_weights(folder, name, weights, target / name)
            _write_index(folder, target)
            before = write_padding(target)
            prove_padding(target)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); make room, or choose another --out"
        ) from error
    return before


def _plain_files(folder: LlavaFolder) -> Iterator[Path]:
    for file in sorted(folder.path.rglob("*")):
        if file.is_file() and file.name not in folder.headers:
            yield file


def _write_weights(folder: LlavaFolder, name: str, weights: Tensors, target: Path) -> None:
    own = {key: weights[tower] for tower, (file, key) in folder.tower.items() if file == name}
    if not own:
        shutil.copyfile(folder.path / name, target)
        return
    with whole_file(target) as file:
        copy_with(folder.path / name, file, own, _hub_name)


def _hub_name(key: str) -> str:
    found = TOWER.fullmatch(key)
    return f"{found[1]}vision_model.{found[3]}" if found else key


def _write_index(folder: LlavaFolder, target: Path) -> None:
    """With the tower's names as they are in the files now; untouched where they were so before."""
    path = folder.path / INDEX
    if not path.is_file():
        return
    index = json.loads(path.read_bytes())
    named = {_hub_name(key): file for key, file in index["weight_map"].items()}
    if named != index["weight_map"]:
        told = {**index, "weight_map": named}
        write_whole(target / INDEX, json.dumps(told, indent=2, sort_keys=True).encode())


def drift(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float, float]:
    """How far features [B, N, D] moved: mean and least cosine of a patch, relative L2."""
    patches = (before[:, 1:], after[:, 1:])
    cosine = torch.nn.functional.cosine_similarity(*patches, dim=-1)
    moved = (patches[1] - patches[0]).norm() / patches[0].norm()
    return float(cosine.mean()), float(cosine.min()), float(moved)
