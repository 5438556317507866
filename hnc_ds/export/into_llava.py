"""Replace the image tower of a LLaVA folder; every other tensor and file stays byte for byte.

Weights are patched in the files, so a language model of any size is copied, never loaded; the copy
is our own code, as safetensors' save_file holds a whole file in memory and reorders tensors. The
tower's tensors get the hub's names (vision_tower.vision_model...), which all versions of
transformers, vLLM and SGLang read. A folder in LLaVA's own layout gets the tower's folder as well
(original_llava.py).
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hnc_ds.atomic_files import atomic_file, atomic_folder, atomic_write, writing
from hnc_ds.errors import UserError
from hnc_ds.export.llava_files import (
    NEXT_PROCESSORS,
    PADDING,
    REPLACED,
    check_processor,
    load_tokenizer,
    prove_padding,
    write_padding,
)
from hnc_ds.export.original_llava import (
    CONFIG,
    ORIGINAL,
    TOWER_FOLDER,
    NamedTower,
    is_original,
    name_tower,
    named_tower,
    write_tower,
)
from hnc_ds.export.tensor_files import copy_with, read_tensor, tensor_names
from hnc_ds.export.tower import SHAPES, Tensors, full_settings
from hnc_ds.reading import read_json, reading
from hnc_ds.shards.images import ImageSettings

INDEX = "model.safetensors.index.json"
BIN_INDEX, BINS = "pytorch_model.bin.index.json", "pytorch_model*.bin"
MODEL_TYPES = {
    "LlavaForConditionalGeneration": "llava",
    "LlavaNextForConditionalGeneration": "llava_next",
}
"""config.json's model_type by architecture: LLaVA-1.5, and LLaVA-NeXT (LLaVA-1.6)."""
ARCHITECTURE, NEXT = MODEL_TYPES
SUCH_AS = "give a folder such as llava-1.5-7b-hf"
TOWER = re.compile(r"((?:model\.)?vision_tower\.(?:vision_tower\.)?)(vision_model\.)?(.+)")
"""The tower's tensor names: on the hub, and in transformers since 5.6; in LLaVA's own layout
vision_tower occurs twice."""

BUFFERS = ("embeddings.position_ids",)
"""Buffers in older files; they are not weights."""


@dataclass(frozen=True)
class LlavaFolder:
    """A LLaVA folder; weights are not loaded."""

    path: Path
    config: dict[str, Any]
    weight_files: tuple[str, ...]
    tower: dict[str, tuple[str, str]]
    """File and tensor name of each of the tower's tensors, by CLIPVisionModel's name."""
    vision: dict[str, Any]
    """CLIPVisionConfig's values of SHAPES."""
    named: NamedTower | None = None
    """In LLaVA's own layout, the tower that config.json names."""

    @property
    def is_next(self) -> bool:
        """Whether it is LLaVA-NeXT, which sees tiles of an image by its own image processor."""
        return bool(self.config.get("model_type") == MODEL_TYPES[NEXT])

    @property
    def feature_layer(self) -> Any:
        """The hidden state, or list of them, that the connector takes, as config.json has it."""
        key = "vision_feature_layer" if self.named is None else "mm_vision_select_layer"
        return self.config.get(key, -2)

    @property
    def layer(self) -> int:
        """Index of the last hidden state that the language model sees; 1 is the first block's
        output."""
        chosen = self.feature_layer
        layers = chosen if isinstance(chosen, list) else [chosen]
        count: int = self.vision["num_hidden_layers"]
        return max(layer if layer >= 0 else count + 1 + layer for layer in layers)

    def weights(self) -> Tensors:
        """The tower's weights in the weight files as float32; none where they hold no tower."""
        return {
            name: read_tensor(self.path / file, key).float()
            for name, (file, key) in self.tower.items()
        }

    def towers(self) -> Iterator[Tensors]:
        """Weights of each copy of the tower: in the weight files, and in the folder of LLaVA's own
        layout."""
        if self.tower:
            yield self.weights()
        if self.named is not None and (weights := self.named.weights()) is not None:
            yield weights

    def old_weights(self) -> Tensors | None:
        """The tower's weights as LLaVA loads them; None if they are not on this machine."""
        return next(self.towers(), None)


def read_llava_config(path: Path, architectures: Sequence[str] = (ARCHITECTURE,)) -> dict[str, Any]:
    """config.json of a LLaVA folder.

    Args:
        path: The folder.
        architectures: Keys of MODEL_TYPES and ORIGINAL that are allowed; others are refused.

    Raises:
        UserError: Not such a LLaVA folder.
    """
    try:
        config: Any = read_json(path / CONFIG)
    except UserError as error:
        raise UserError(
            f"{path}: no LLaVA folder of Hugging Face's ({error}); {SUCH_AS}"
        ) from error
    config = config if isinstance(config, dict) else {}
    found = [name for name in architectures if name in (config.get("architectures") or ())]
    if not found:
        names = " or ".join(architectures)
        raise UserError(f"{path}: is {config.get('architectures')}, no {names}; {SUCH_AS}")
    if found[0] not in ORIGINAL and config.get("model_type") != MODEL_TYPES[found[0]]:
        raise UserError(
            f"{path / CONFIG}: model_type is {config.get('model_type')}, not "
            f"{MODEL_TYPES[found[0]]}: "
            "transformers would use another tokenizer, with other tokens around <image>; "
            "copy the file of the original folder"
        )
    return config


def read_llava_folder(path: Path) -> LlavaFolder:
    """Read a LLaVA folder without its weights.

    Raises:
        UserError: Not a LLaVA folder, not a CLIP tower, or files are missing.
    """
    again = "copy the folder again"
    with reading(path, again, "not a LLaVA's configuration", by="transformers"):
        return _read_folder(path)


def _read_folder(path: Path) -> LlavaFolder:
    config = read_llava_config(path, (*MODEL_TYPES, *ORIGINAL))
    if is_original(config):
        named = named_tower(path, config)
        files = weight_files(path, or_bin=True)
        names = tuple(file.name for file in files)
        return LlavaFolder(path, config, names, _tower_places(files), named.settings, named)
    vision = config.get("vision_config") or {}
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise UserError(f"{path}: has a tower of kind {vision['model_type']}, which is not CLIP's")
    files = weight_files(path)
    tower = _tower_places(files)
    if not tower:
        raise UserError(f"{path}: its weights hold no vision_tower")
    settings = full_settings(path / CONFIG, vision)
    load_tokenizer(path, config)
    folder = LlavaFolder(path, config, tuple(file.name for file in files), tower, settings)
    check_processor(path, settings["image_size"], NEXT_PROCESSORS if folder.is_next else REPLACED)
    return folder


def _tower_places(files: Sequence[Path]) -> dict[str, tuple[str, str]]:
    return {
        name: (file.name, key)
        for file in files
        for key in tensor_names(file)
        if (name := _tower_name(key)) is not None
    }


def weight_files(path: Path, or_bin: bool = False) -> list[Path]:
    """Weight files of a LLaVA folder.

    Args:
        path: The folder.
        or_bin: Take pytorch_model*.bin where there are no safetensors, as transformers does.

    Raises:
        UserError: Some are missing.
    """
    safe = (path / INDEX).is_file() or any(path.glob("model*.safetensors"))
    name, pattern = (INDEX, "*.safetensors") if safe or not or_bin else (BIN_INDEX, BINS)
    index = path / name
    if index.is_file():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index}: not an index of weights ({error})") from error
        if leads := [str(name) for name in names if Path(str(name)).name != name]:
            raise UserError(f"{index}: '{leads[0]}' is not a file name in its folder")
        files = [path / str(name) for name in names]
    else:
        files = sorted(path.glob(pattern))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(
            f"{path}: {', '.join(missing) or f'its {pattern}'} are missing; copy the whole folder"
        )
    return files


def _tower_name(key: str) -> str | None:
    found = TOWER.fullmatch(key)
    return found[3] if found and found[3] not in BUFFERS else None


def check_fit(folder: LlavaFolder, settings: Mapping[str, Any], weights: Tensors) -> None:
    """Raise UserError for a tower of another shape or activation."""
    other = [name for name in SHAPES if folder.vision[name] != settings[name]]
    if other:
        difference = ", ".join(f"{n} {settings[n]} in place of {folder.vision[n]}" for n in other)
        raise UserError(f"export: the tower does not fit into {folder.path}: {difference}")
    if folder.named is not None and not folder.tower:
        return
    if missing := sorted(set(weights) - set(folder.tower)):
        raise UserError(f"{folder.path}: its tower lacks {missing[0]}, so it is not CLIP's")
    if unknown := sorted(set(folder.tower) - set(weights)):
        raise UserError(f"{folder.path}: its tower has {unknown[0]}, so it is not CLIP's")


def write_into(folder: LlavaFolder, weights: Tensors, view: ImageSettings, out: Path) -> str:
    """Write a copy of the folder with another tower, atomically.

    Args:
        folder: The LLaVA folder.
        weights: The new tower, by CLIPVisionModel's names.
        view: The new tower's preprocessing, at the LLaVA's image size.
        out: Output folder; an existing one is replaced.

    Returns:
        A description of the image processor, for a line of the summary.

    Raises:
        UserError: transformers would not pad LLaVA-1.5's images; the disk is full or cannot be
            written.
    """
    needed = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    needed += 0 if folder.named is None else sum(tensor.nbytes for tensor in weights.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(out.parent).free < needed:
        raise UserError(f"{out}: needs {needed / 2**30:.1f} GiB, which its disk does not have")
    with writing(out), atomic_folder(out) as target:
        for file in _plain_files(folder):
            copy = target / file.relative_to(folder.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        for name in folder.weight_files:
            _write_weights(folder, name, weights, target / name)
        _write_index(folder, target)
        if folder.named is not None:
            write_tower(target / TOWER_FOLDER, folder.vision, weights, view)
            return name_tower(target, out)
        if folder.is_next:
            return "the image processor stays LLaVA-NeXT's own"
        before = write_padding(target)
        prove_padding(target)
    return (
        f"images are padded to squares, as LLaVA-1.5 was trained ({PADDING} with do_pad; it was "
        f"{before})"
    )


def _plain_files(folder: LlavaFolder) -> Iterator[Path]:
    """All files but weights; a tower's folder of a former export is not copied."""
    for file in sorted(folder.path.rglob("*")):
        own = folder.named is not None and file.is_relative_to(folder.path / TOWER_FOLDER)
        if file.is_file() and not own and file.name not in folder.weight_files:
            yield file


def _write_weights(folder: LlavaFolder, name: str, weights: Tensors, target: Path) -> None:
    own = {key: weights[tower] for tower, (file, key) in folder.tower.items() if file == name}
    if not own:
        shutil.copyfile(folder.path / name, target)
        return
    with atomic_file(target) as file:
        copy_with(folder.path / name, file, own, _hub_name)


def _hub_name(key: str) -> str:
    found = TOWER.fullmatch(key)
    return f"{found[1]}vision_model.{found[3]}" if found else key


def _write_index(folder: LlavaFolder, target: Path) -> None:
    """Rename the tower's tensors in the index, if any name changes."""
    for path in (folder.path / INDEX, folder.path / BIN_INDEX):
        if not path.is_file():
            continue
        index = json.loads(path.read_bytes())
        named = {_hub_name(key): file for key, file in index["weight_map"].items()}
        if named != index["weight_map"]:
            index["weight_map"] = named
            atomic_write(target / path.name, json.dumps(index, indent=2, sort_keys=True).encode())


CONNECTOR = re.compile(r"(?:model\.)?multi_modal_projector\.(.+)")
"""Names of the connector's tensors in a LLaVA folder."""


def write_connector(path: Path, weights: Tensors, out: Path) -> None:
    """Write a copy of a LLaVA folder with another connector, atomically.

    Args:
        path: The LLaVA folder.
        weights: All of the connector's tensors, by their names in it.
        out: Output folder; an existing one is replaced.

    Raises:
        UserError: The folder lacks one of the tensors; the disk is full or cannot be written.
    """
    files = weight_files(path)
    keys = {
        found[1]: key
        for file in files
        for key in tensor_names(file)
        if (found := CONNECTOR.fullmatch(key))
    }
    if lacking := sorted(set(weights) ^ set(keys)):
        raise UserError(
            f"{path}: its connector has not the tensors of the trained one ({lacking[0]})"
        )
    replaced = {keys[name]: tensor for name, tensor in weights.items()}
    with writing(out), atomic_folder(out) as target:
        shutil.copytree(
            path, target, dirs_exist_ok=True, ignore=lambda *_: {file.name for file in files}
        )
        for file in files:
            with atomic_file(target / file.name) as copy:
                copy_with(file, copy, replaced, lambda key: key)


def drift(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float, float]:
    """Change of features [B, N, D]: mean and minimum cosine of a patch, relative L2 distance."""
    patches = (before[:, 1:], after[:, 1:])
    cosine = torch.nn.functional.cosine_similarity(*patches, dim=-1)
    moved = (patches[1] - patches[0]).norm() / patches[0].norm()
    return float(cosine.mean()), float(cosine.min()), float(moved)
