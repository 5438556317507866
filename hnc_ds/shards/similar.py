"""The file of ``hnc-ds mine``: for every sample, the samples whose images are nearest to its own.

Written by hnc_ds/evaluation/mine.py, read for ``--similar``. Safetensors, so no pickle:

    nearest    int32 [N, k]      numbers of samples, the nearest first; NOBODY where there is none
    cosine     float32 [N, k]    0 where there is none
    metadata   {"mined": JSON of Mined}, one entry, as several would come in no fixed order
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, reading
from hnc_ds.shards.order import NOBODY, PairedOrder, SampleOrder
from hnc_ds.shards.reader import ShardReader
from hnc_ds.whole_files import write_whole, writing

FORMAT_VERSION = 1


class Mined(msgspec.Struct, frozen=True):
    """What the neighbours are of."""

    images: str
    """``images_fingerprint`` of the shards."""
    model: str
    """Whose embeddings were compared."""
    k: int
    format: int = FORMAT_VERSION


@dataclass(frozen=True)
class Neighbours:
    """The nearest others of every sample."""

    nearest_NK: NDArray[np.int32]
    cosine_NK: NDArray[np.float32]
    mined: Mined

    def first(self, count: int) -> "Neighbours":
        """Only so many of the nearest."""
        return replace(
            self, nearest_NK=self.nearest_NK[:, :count], cosine_NK=self.cosine_NK[:, :count]
        )

    def mean_cosine(self) -> float:
        """Of all that are there."""
        return float(self.cosine_NK[self.nearest_NK != NOBODY].mean())

    def described(self) -> str:
        """How similar they are, and how many samples are a neighbour of another at all."""
        near = np.unique(self.nearest_NK[self.nearest_NK != NOBODY])
        return (
            f"{self.nearest_NK.shape[1]} nearest images by {self.mined.model}, {len(near)} of "
            f"{len(self.nearest_NK)} are near another; mean cosine {self.mean_cosine():.3f}"
        )


def images_fingerprint(reader: ShardReader) -> str:
    """sha256 over the keys and file sizes of all images, in the order of their numbers.

    Not over captions: shards packed again with others of the same images keep their neighbours.

    Raises:
        UserError: An index of a shard that is missing or broken.
    """
    found = hashlib.sha256()
    for shard in reader.index.shards:
        for at in reader.offsets(shard):
            found.update(f"{at.key} {at.image_bytes}\n".encode())
    return found.hexdigest()


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """Write the file whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    tensors = {"nearest": neighbours.nearest_NK, "cosine": neighbours.cosine_NK}
    metadata = {"mined": msgspec.json.encode(neighbours.mined).decode()}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(tensors, metadata))


def read_neighbours(path: Path, reader: ShardReader) -> Neighbours:
    """The neighbours of a folder's samples.

    Raises:
        UserError: Missing, no such file, or of other images than the folder's.
    """
    again = f"make it with 'hnc-ds mine --shards {reader.location}'"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {again}")
    with reading(path, again, "not a file of neighbours", by="safetensors"):
        neighbours = _decode(path)
    mined, shape = neighbours.mined, (len(reader), neighbours.mined.k)
    if mined.format != FORMAT_VERSION:
        raise UserError(
            f"{path}: written in format {mined.format}, this version reads {FORMAT_VERSION}; "
            f"{again}"
        )
    if mined.images != images_fingerprint(reader):
        raise UserError(
            f"{path}: was mined from other images than {reader.location} holds; {again}"
        )
    if not _is_sound(neighbours, shape):
        raise UserError(f"{path}: its numbers are not those of {shape[0]} samples; {again}")
    return neighbours


def sample_order(reader: ShardReader, data: DataConfig, seed: int) -> SampleOrder | PairedOrder:
    """The order that the settings ask for: each sample by itself, or beside a similar one.

    Raises:
        UserError: As ``read_neighbours``, or more neighbours are asked for than the file has.
    """
    order = SampleOrder(reader.shard_sizes, seed, data.shuffle_shards)
    if data.similar is None:
        return order
    neighbours = read_neighbours(data.similar, reader)
    if data.nearest > neighbours.mined.k:
        raise UserError(
            f"nearest is {data.nearest}, but {data.similar} holds {neighbours.mined.k} for each "
            f"image; ask for fewer, or mine with --k {data.nearest}"
        )
    return PairedOrder(order, neighbours.first(data.nearest).nearest_NK, seed)


def _decode(path: Path) -> Neighbours:
    with safe_open(path, framework="numpy") as file:
        told = (file.metadata() or {})["mined"]
        mined = decode_json(told.encode(), Mined, path)
        return Neighbours(file.get_tensor("nearest"), file.get_tensor("cosine"), mined)


def _is_sound(neighbours: Neighbours, shape: tuple[int, int]) -> bool:
    near = neighbours.nearest_NK
    return (
        near.shape == neighbours.cosine_NK.shape == shape
        and near.dtype == np.int32
        and bool(((near >= NOBODY) & (near < shape[0])).all())
    )
