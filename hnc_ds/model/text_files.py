"""What opens a Hugging Face text side again: the tower's configuration and the tokenizer's files.

    FOLDER/open_clip_config.json       hf_model_name is FOLDER/text_tower
    FOLDER/tokenizer.json ...          open_clip takes the tokenizer of local-dir:FOLDER from there
    FOLDER/text_tower/config.json      in a folder of its own, as a run has a config.json as well

open_clip knows the tower's configuration by a name or an absolute path alone. So the path stands in
the file, and the name under which the model came beside it; here the folder itself is always taken.
"""

import json
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from hnc_ds.whole_files import write_whole

TOWER_FOLDER = "text_tower"
NAMED = "text_tower"
"""Key of open_clip_config.json, beside model_cfg: the tower's name before it was saved here."""

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "spiece.model")


def text_files(towers: Any, tokenize: Any) -> dict[str, bytes]:
    """Files by their path in a folder; none for what is open_clip's own.

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
    """open_clip_config.json as it stands in a folder, for a configuration in memory.

    Args:
        config: With model_cfg and preprocess_cfg.
        folder: Where the file and ``text_files`` will lie.
    """
    name = config["model_cfg"]["text_cfg"].get("hf_model_name")
    if not name:
        return config
    here = deepcopy(config)
    here["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder.resolve() / TOWER_FOLDER)
    return here | {NAMED: name}


def read_config(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A folder's model_cfg: by the names that hold anywhere, and with the path that opens it now.

    Args:
        folder: Where it lies.
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
    """Write ``text_files`` to the disk.

    Raises:
        OSError: It is full, or cannot be written.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        write_whole(path, content)


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer of Hugging Face's lies in a folder, by the files that any has."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
