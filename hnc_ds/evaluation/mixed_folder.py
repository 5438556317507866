"""A mixture of two models as a folder in open_clip's local-dir layout, whole or not at all.

    FOLDER/{model.safetensors, open_clip_config.json, origin.json}

To evaluate or to start a training from; there is no optimizer state to resume with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hnc_ds.checkpoint import Contents, write_files
from hnc_ds.errors import UserError
from hnc_ds.model.load import CONFIG_NAME, WEIGHTS_NAME
from hnc_ds.whole_files import whole_folder, write_whole

ORIGIN_NAME = "origin.json"
"""What the weights were mixed of."""


def write_mixed(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    origin: Mapping[str, Any],
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write the folder, in place of one that ``refuse_existing`` lets pass.

    Args:
        folder: Where.
        weights: Parameters and buffers by open_clip's names, on the CPU.
        config: open_clip_config.json.
        origin: JSON values that say what they were mixed of.
        beside: Files that open a Hugging Face text side; ``Clip.text_files``.

    Raises:
        UserError: The disk is full or cannot be written.
    """
    try:
        with whole_folder(folder) as partial:
            made = Contents({WEIGHTS_NAME: dict(weights)}, config, {}, beside or {})
            write_files(partial, made, folder)
            names = sorted(path.name for path in partial.iterdir())
            told = json.dumps({**origin, "files": names}, indent=2)
            write_whole(partial / ORIGIN_NAME, told.encode())
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{folder}: cannot be written ({why}); make room, or choose another place"
        ) from error


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Keep what exists, unless it is a mixture and is to be replaced.

    Raises:
        UserError: It is to be kept.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise UserError(f"{folder}: exists; choose another --save-to, or add --overwrite")
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != _ours(folder):
        raise UserError(
            f"{folder}: holds something other than mixed weights, so it is not overwritten; "
            "choose another --save-to"
        )


def _ours(folder: Path) -> set[str]:
    """Names in a folder of a mixture; a mixture of a Hugging Face text side lists its files."""
    try:
        listed = json.loads((folder / ORIGIN_NAME).read_bytes())["files"]
        return {*map(str, listed), ORIGIN_NAME}
    except (OSError, ValueError, KeyError, TypeError):
        return {WEIGHTS_NAME, CONFIG_NAME, ORIGIN_NAME}
