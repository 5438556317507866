"""Read and patch single tensors of weight files: safetensors, and torch.save's pytorch_model.bin.

No file is held in memory as a whole, and no code of a file is run: a .bin is mapped and unpickled
by torch's weights_only.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from hnc_ds.errors import UserError
from hnc_ds.model.weights_file import reading_weights
from hnc_ds.reading import reading

BIN = ".bin"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_AT_ONCE = 2**22


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    again, what = "copy it again", "no whole safetensors file, cut off or damaged"
    with reading(path, again, what, by="safetensors"), safe_open(path, framework="pt") as file:
        yield file


def tensor_names(path: Path) -> list[str]:
    """Names of a file's tensors. Raises UserError where it is damaged or of another kind."""
    if path.suffix == BIN:
        return list(_read_bin(path))
    with _opened(path) as file:
        return list(file.keys())


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """One tensor. Raises UserError for a dtype that a tower's weights do not have."""
    if path.suffix == BIN:
        return _known(path, name, _read_bin(path)[name])
    with _opened(path) as file:
        dtype = file.get_slice(name).get_dtype()
        if dtype not in DTYPES:
            raise UserError(f"{path}: {name} is {dtype}; weights are {', '.join(DTYPES)}")
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def copy_with(
    source: Path,
    target: BinaryIO,
    replaced: Mapping[str, torch.Tensor],
    rename: Callable[[str], str],
) -> None:
    """Copy a file with some tensors replaced; all other tensors keep their bytes.

    In safetensors they keep their offsets too; a file of torch.save is written anew.

    Args:
        source: A file that ``tensor_names`` has read.
        target: Output file.
        replaced: Tensors by their names in the source, of the same shapes; cast to its dtypes.
        rename: Maps each tensor's name to its new name.
    """
    if source.suffix == BIN:
        torch.save(dict(_patched(_read_bin(source), replaced, rename)), target)
        return
    with source.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(size))
        renamed = {
            name if name == "__metadata__" else rename(name): header[name] for name in header
        }
        text = json.dumps(renamed, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        target.write(struct.pack("<Q", len(text)) + text)
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            if name in replaced:
                tensor = replaced[name].to(DTYPES[entry["dtype"]])
                target.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
                continue
            file.seek(8 + size + start)
            for at in range(start, end, _AT_ONCE):
                target.write(file.read(min(_AT_ONCE, end - at)))


def _read_bin(path: Path) -> dict[str, torch.Tensor]:
    with reading_weights(path):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    tensors = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise UserError(f"{path}: holds other things than tensors by name; copy it again")
    return {str(name): tensor for name, tensor in content.items()}


def _patched(
    state: Mapping[str, torch.Tensor],
    replaced: Mapping[str, torch.Tensor],
    rename: Callable[[str], str],
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in state.items():
        new = replaced.get(name)  # copied, as torch.save writes all of a view's memory
        yield rename(name), tensor if new is None else new.to(tensor.dtype, copy=True)


def _known(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype not in DTYPES.values():
        raise UserError(f"{path}: {name} is {tensor.dtype}; weights are {', '.join(DTYPES)}")
    return tensor
