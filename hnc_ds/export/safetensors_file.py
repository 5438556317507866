"""Safetensors files by their bytes: a header, and where each tensor lies.

A file is copied with some tensors in place of others of the same size, without reading the rest.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from hnc_ds.errors import UserError
from hnc_ds.reading import kind_of, parse_json

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LARGEST_HEADER = 100_000_000
_AT_ONCE = 2**22


class Placed(NamedTuple):
    """A tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """In bytes from the end of the header."""
    end: int


class Header(NamedTuple):
    """What stands at the beginning of a file."""

    tensors: dict[str, Placed]
    metadata: dict[str, str]
    data_start: int


def read_header(path: Path) -> Header:
    """Where the tensors of a file lie.

    Raises:
        UserError: It is no safetensors file, or cut off.
    """
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > LARGEST_HEADER:
                raise ValueError(f"a header of {size} bytes")
            content: dict[str, Any] = parse_json(file.read(size), path)
        metadata = content.pop("__metadata__", {})
        tensors = {
            name: Placed(told["dtype"], tuple(told["shape"]), *told["data_offsets"])
            for name, told in content.items()
        }
        end = max((tensor.end for tensor in tensors.values()), default=0)
        if path.stat().st_size != 8 + size + end:
            raise ValueError("cut off")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        told = kind_of(path) or f"{error}; copy it again"
        raise UserError(f"{path}: no whole safetensors file ({told})") from error
    return Header(tensors, metadata, 8 + size)


def read_tensor(path: Path, header: Header, name: str) -> torch.Tensor:
    """One tensor, in its own type.

    Raises:
        UserError: It is of a type that weights of a tower do not have.
    """
    placed = header.tensors[name]
    if placed.dtype not in DTYPES:
        raise UserError(f"{path}: {name} is {placed.dtype}; weights are {', '.join(DTYPES)}")
    with path.open("rb") as file:
        file.seek(header.data_start + placed.start)
        data = bytearray(file.read(placed.end - placed.start))
    return torch.frombuffer(data, dtype=DTYPES[placed.dtype]).reshape(placed.shape)


def copy_with(
    source: Path,
    target: BinaryIO,
    replaced: Mapping[str, torch.Tensor],
    rename: Callable[[str], str],
) -> None:
    """Write a file anew with some tensors replaced; every other byte of data is the same.

    Args:
        source: The file.
        target: Where it goes.
        replaced: By the names in the source, of its shapes and types.
        rename: Of all tensors; gives most of them their own name.
    """
    header = read_header(source)
    told: dict[str, Any] = {"__metadata__": header.metadata} if header.metadata else {}
    for name, placed in header.tensors.items():
        offsets = [placed.start, placed.end]
        shape = list(placed.shape)
        told[rename(name)] = {"dtype": placed.dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(struct.pack("<Q", len(text)) + text)
    with source.open("rb") as file:
        for name, placed in sorted(header.tensors.items(), key=lambda entry: entry[1].start):
            if name in replaced:
                target.write(_bytes_of(replaced[name].to(DTYPES[placed.dtype])))
            else:
                _copy(file, header.data_start + placed.start, placed.end - placed.start, target)


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _copy(source: BinaryIO, start: int, length: int, target: BinaryIO) -> None:
    source.seek(start)
    while length:
        block = source.read(min(length, _AT_ONCE))
        target.write(block)
        length -= len(block)
