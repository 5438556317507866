"""The order of samples: a pure function of (seed, epoch, shard sizes, proportions of --mix).

Position p of an endless stream holds the same sample for any ranks, workers and restarts; step t of
a run with N samples a step takes positions t*N to t*N+N-1. Every epoch visits every sample once; a
step may straddle two epochs, so none has fewer samples.

MixedOrder takes the samples of several folders in the proportions of ``--mix``, each folder in its
own order.

PairedOrder puts a similar sample after each sample, for ``--similar``. The samples with the nearest
images are in the file of ``hnc-ds mine`` (hnc_ds/evaluation/mine.py). Safetensors:

    nearest    int32 [N, k]      samples, the nearest first; NO_NEIGHBOR for missing ones
    cosine     float32 [N, k]    0 for missing ones
    metadata   {"mined": JSON of Mined}; one entry, as the order of several is not fixed
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, reading
from hnc_ds.shards.reader import ShardReader

SHARDS, SAMPLES, PARTNERS = 0, 1, 2
"""Purposes of generators, so that no two draws share one."""

NO_NEIGHBOR = -1
"""Stands for a missing neighbour."""


class Visit(NamedTuple):
    """One position of the stream."""

    epoch: int
    sample: int
    """Number of the sample in the shard folder."""
    beside: int | None = None
    """The sample it was drawn for as a similar one; None otherwise."""

    def key(self, seed: int) -> str:
        """Seed for this visit's draws, unique in its epoch."""
        own = f"{seed}/{self.epoch}/{self.sample}"
        return own if self.beside is None else f"{own}/{self.beside}"


class SampleOrder:
    """The endless stream of visits.

    Shards are shuffled over the whole data set, samples within a moving block of
    ``shuffle_shards`` shards: few files are read at a time, by any number of workers.

    Args:
        shard_sizes: Samples in each shard.
        seed: Seed for the order.
        shuffle_shards: Shards in a block; 0 for one block of all.
        folder: Number of the folder, so that folders of equal sizes have different orders.
    """

    def __init__(
        self, shard_sizes: Sequence[int], seed: int, shuffle_shards: int, folder: int = 0
    ) -> None:
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.samples = int(self.shard_sizes.sum())
        self._firsts = np.cumsum(self.shard_sizes) - self.shard_sizes
        self._seed, self._folder = seed, folder
        self._block = shuffle_shards or len(shard_sizes)
        # A step touches at most two epochs and blocks; only these are cached.
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._blocks: dict[tuple[int, int], NDArray[np.int64]] = {}

    def visits(self, start: int, count: int) -> list[Visit]:
        """The visits at positions ``start`` to ``start + count - 1``."""
        found: list[Visit] = []
        while len(found) < count:
            epoch, place = divmod(start + len(found), self.samples)
            block, offset = self._find_block(epoch, place)
            samples = self._block_samples(epoch, block)[offset : offset + count - len(found)]
            found.extend(Visit(epoch, int(sample)) for sample in samples)
        return found

    def neighbours(self, position: int) -> NDArray[np.int64]:
        """The samples of the position's block, whose shards are open anyway."""
        epoch, place = divmod(position, self.samples)
        return self._block_samples(epoch, self._find_block(epoch, place)[0])

    def shards_ahead(self, position: int) -> list[int]:
        """The shards of the position's block and of the next block."""
        epoch, place = divmod(position, self.samples)
        block, _ = self._find_block(epoch, place)
        is_last = (block + 1) * self._block >= len(self.shard_sizes)
        following = (epoch + 1, 0) if is_last else (epoch, block + 1)
        both = [self._block_shards(epoch, block), self._block_shards(*following)]
        return [int(shard) for shard in np.concatenate(both)]

    def _block_shards(self, epoch: int, block: int) -> NDArray[np.int64]:
        return self._epoch_shards(epoch)[0][block * self._block : (block + 1) * self._block]

    def _find_block(self, epoch: int, place: int) -> tuple[int, int]:
        """Block and offset in it of a place in an epoch."""
        _, ends = self._epoch_shards(epoch)
        block = int(np.searchsorted(ends, place, side="right"))
        return block, place - (int(ends[block - 1]) if block else 0)

    def _epoch_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch's shards in order, and the end of each block."""
        if epoch not in self._epochs:
            _forget_oldest(self._epochs)
            self._epochs[epoch] = self._shuffle_shards(epoch)
        return self._epochs[epoch]

    def _block_samples(self, epoch: int, block: int) -> NDArray[np.int64]:
        """The samples of a block in order."""
        if (epoch, block) not in self._blocks:
            _forget_oldest(self._blocks)
            self._blocks[epoch, block] = self._shuffle_samples(epoch, block)
        return self._blocks[epoch, block]

    def _shuffle_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shards = self._generator(epoch, SHARDS, 0).permutation(len(self.shard_sizes))
        starts = np.arange(0, len(shards), self._block)
        return shards, np.cumsum(np.add.reduceat(self.shard_sizes[shards], starts))

    def _shuffle_samples(self, epoch: int, block: int) -> NDArray[np.int64]:
        shards = self._block_shards(epoch, block)
        samples = np.concatenate(
            [self._firsts[shard] + np.arange(self.shard_sizes[shard]) for shard in shards]
        )
        return self._generator(epoch, SAMPLES, block).permutation(samples)

    def _generator(self, epoch: int, what: int, which: int) -> np.random.Generator:
        return generator(self._seed, epoch, what, which, self._folder)


class PairedOrder:
    """The endless stream of pairs: a visit of another order, then one of a similar sample.

    Position 2i holds the plain order's sample at i; position 2i + 1 one of the samples nearest to
    it, drawn anew in each epoch. So an epoch has twice as many positions. A pair may straddle ranks
    or steps; each position is computed independently.

    Args:
        order: The plain order.
        nearest_NK: Numbers of the samples nearest to each sample, or NO_NEIGHBOR.
        seed: Seed for the choice among them.

    Source: NegCLIP (Yuksekgonul et al. 2023) has each image's batch hold one of the 3 images
    nearest to it.
    """

    def __init__(self, order: SampleOrder, nearest_NK: NDArray[np.int32], seed: int) -> None:
        self._order, self._nearest, self._seed = order, nearest_NK, seed

    def visits(self, start: int, count: int) -> list[Visit]:
        """The visits at positions ``start`` to ``start + count - 1``."""
        first, end = start // 2, (start + count + 1) // 2
        pairs = [
            (visit, self._partner(first + place, visit))
            for place, visit in enumerate(self._order.visits(first, end - first))
        ]
        skipped = start - 2 * first
        return [visit for pair in pairs for visit in pair][skipped : skipped + count]

    def neighbours(self, position: int) -> NDArray[np.int64]:
        """As ``SampleOrder.neighbours``."""
        return self._order.neighbours(position // 2)

    def shards_ahead(self, position: int) -> list[int]:
        """As ``SampleOrder.shards_ahead``, for samples of the plain order."""
        return self._order.shards_ahead(position // 2)

    def _partner(self, place: int, visit: Visit) -> Visit:
        near = self._nearest[visit.sample]
        choice = near[near != NO_NEIGHBOR]
        if not len(choice):  # mine could not decode its image
            choice = self._order.neighbours(place)
        drawn = generator(self._seed, visit.epoch, PARTNERS, visit.sample).integers(len(choice))
        return Visit(visit.epoch, int(choice[drawn]), beside=visit.sample)


class MixedOrder:
    """The endless stream of the visits of several folders, in proportions.

    Each folder's samples come in the order of its own SampleOrder, whose epochs are here the
    folder's passes. Samples and shards are numbered one folder after the other.

    Args:
        folders: Samples in each shard of each folder.
        proportions: Whole numbers, one for each folder.
        seed: Seed for the orders.
        shuffle_shards: As of ``SampleOrder``, in each folder.
    """

    def __init__(
        self,
        folders: Sequence[Sequence[int]],
        proportions: Sequence[int],
        seed: int,
        shuffle_shards: int,
    ) -> None:
        self._orders = [
            SampleOrder(sizes, seed, shuffle_shards, folder) for folder, sizes in enumerate(folders)
        ]
        samples = [order.samples for order in self._orders]
        self._first_samples = np.cumsum([0, *samples])
        self._first_shards = np.cumsum([0, *(len(sizes) for sizes in folders)])
        self._proportion_F = np.asarray(proportions, dtype=np.int64)
        self._folder_P = interleaved(proportions)

    def visits(self, start: int, count: int) -> list[Visit]:
        """The visits at positions ``start`` to ``start + count - 1``."""
        folder_C = self._folder_P[np.arange(start, start + count) % len(self._folder_P)]
        count_F = np.bincount(folder_C, minlength=len(self._orders))
        streams = [
            iter(order.visits(int(first), int(number)))
            for order, first, number in zip(self._orders, self._had(start), count_F, strict=True)
        ]
        return [self._numbered(next(streams[folder]), folder) for folder in folder_C]

    def neighbours(self, position: int) -> NDArray[np.int64]:
        """As ``SampleOrder.neighbours``, of the position's folder."""
        folder = self._folder_P[position % len(self._folder_P)]
        around = self._orders[folder].neighbours(int(self._had(position)[folder]))
        return self._first_samples[folder] + around

    def shards_ahead(self, position: int) -> list[int]:
        """As ``SampleOrder.shards_ahead``, of each folder."""
        return [
            int(first) + shard
            for order, first, had in zip(
                self._orders, self._first_shards[:-1], self._had(position), strict=True
            )
            for shard in order.shards_ahead(int(had))
        ]

    def _had(self, position: int) -> NDArray[np.int64]:
        """Samples of each folder before a position."""
        periods, rest = divmod(position, len(self._folder_P))
        begun_F = np.bincount(self._folder_P[:rest], minlength=len(self._orders))
        return periods * self._proportion_F + begun_F

    def _numbered(self, visit: Visit, folder: int) -> Visit:
        return visit._replace(sample=int(self._first_samples[folder]) + visit.sample)


def interleaved(proportions: Sequence[int]) -> NDArray[np.int64]:
    """The folders at the positions of one period [P], which the stream repeats.

    Among any first positions, each folder has less than one more or fewer than its share: its n-th
    position, of those from 0, is in [floor(n / share), ceil((n + 1) / share)). Of the folders whose
    next interval has begun, the one whose interval ends first is taken.

    Args:
        proportions: Whole numbers of 1 or more.

    Source: the windows of Baruah, Cohen, Plaxton and Varvel 1996 (Proportionate progress), which
    earliest deadline first meets on one processor.
    """
    period, had, found = sum(proportions), [0] * len(proportions), []
    for position in range(period):
        ends = [
            (-(-(n + 1) * period // own), folder)
            for folder, (n, own) in enumerate(zip(had, proportions, strict=True))
            if n * period // own <= position
        ]
        _, folder = min(ends)
        had[folder] += 1
        found.append(folder)
    return np.array(found, dtype=np.int64)


class PlainOrder:
    """The endless stream of all samples in the order of their numbers.

    Args:
        shard_sizes: Samples in each shard.
    """

    def __init__(self, shard_sizes: Sequence[int]) -> None:
        self._ends = np.cumsum(np.asarray(shard_sizes, dtype=np.int64))
        self.samples = int(self._ends[-1])

    def visits(self, start: int, count: int) -> list[Visit]:
        """As ``SampleOrder.visits``."""
        return [Visit(*divmod(place, self.samples)) for place in range(start, start + count)]

    def neighbours(self, position: int) -> NDArray[np.int64]:
        """All samples."""
        return np.arange(self.samples, dtype=np.int64)

    def shards_ahead(self, position: int) -> list[int]:
        """The position's shard and the next one."""
        shard = int(np.searchsorted(self._ends, position % self.samples, side="right"))
        return [shard, (shard + 1) % len(self._ends)]


def epoch_positions(images: int, data: DataConfig) -> int:
    """Positions of the stream in one epoch: as many as there are images, with --similar twice."""
    return images if data.similar is None else 2 * images


def steps_of_epochs(epochs: float, positions: int, batch: int) -> int:
    """The fewest steps that take ``epochs`` times the positions of an epoch.

    Args:
        epochs: Taken as the decimal fraction that it is written as: 0.1 is exactly a tenth.
        positions: ``epoch_positions``.
        batch: Positions of a step.
    """
    return max(1, math.ceil(Fraction(str(epochs)) * positions / batch))


def generator(seed: int, epoch: int, what: int, which: int, folder: int = 0) -> np.random.Generator:
    """A counter-based generator for one purpose, epoch, block or sample, and folder."""
    key = seed + (folder << 64)  # the second of its two words
    return np.random.Generator(np.random.Philox(key=key, counter=[0, what, which, epoch]))


def _forget_oldest(cache: dict[Any, Any]) -> None:
    """Shrink a cache to one entry."""
    while len(cache) > 1:
        del cache[next(iter(cache))]


FORMAT_VERSION = 1


class Mined(msgspec.Struct, frozen=True):
    """Origin of the neighbours."""

    images: str
    """``images_fingerprint`` of the shards."""
    model: str
    """The model whose embeddings were compared."""
    k: int
    format: int = FORMAT_VERSION


@dataclass(frozen=True)
class Neighbours:
    """The nearest others of every sample."""

    nearest_NK: NDArray[np.int32]
    cosine_NK: NDArray[np.float32]
    mined: Mined

    def first(self, count: int) -> "Neighbours":
        """Only the ``count`` nearest of each sample."""
        return replace(
            self, nearest_NK=self.nearest_NK[:, :count], cosine_NK=self.cosine_NK[:, :count]
        )

    def mean_cosine(self) -> float:
        """Mean cosine of all neighbours."""
        return float(self.cosine_NK[self.nearest_NK != NO_NEIGHBOR].mean())

    def described(self) -> str:
        """A line on how similar neighbours are, and how many samples are a neighbour."""
        near = np.unique(self.nearest_NK[self.nearest_NK != NO_NEIGHBOR])
        return (
            f"{self.nearest_NK.shape[1]} nearest images by {self.mined.model}, {len(near)} of "
            f"{len(self.nearest_NK)} are near another; mean cosine {self.mean_cosine():.3f}"
        )


def images_fingerprint(*readers: ShardReader) -> str:
    """sha256 over the keys and file sizes of all images, in the order of their numbers.

    Independent of captions, so that shards with other captions of the same images match.

    Raises:
        UserError: A shard's index is missing or broken.
    """
    found = hashlib.sha256()
    for reader in readers:
        for shard in reader.index.shards:
            for at in reader.offsets(shard):
                found.update(f"{at.key} {at.image_bytes}\n".encode())
    return found.hexdigest()


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """Write the file atomically. Raises UserError where it cannot be written."""
    tensors = {"nearest": neighbours.nearest_NK, "cosine": neighbours.cosine_NK}
    metadata = {"mined": msgspec.json.encode(neighbours.mined).decode()}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(tensors, metadata))


def read_neighbours(path: Path, reader: ShardReader) -> Neighbours:
    """Read the neighbours of a folder's samples.

    Raises:
        UserError: The file is missing, broken, or of other images than the folder's.
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
            f"{path}: was mined from other images than those of {reader.location}; {again}"
        )
    if not _is_sound(neighbours, shape):
        raise UserError(f"{path}: does not hold neighbours of {shape[0]} samples; {again}")
    return neighbours


def sample_order(
    readers: Sequence[ShardReader], data: DataConfig, seed: int
) -> SampleOrder | PairedOrder | MixedOrder:
    """The sample order of the settings: of all folders as one, mixed, or paired with --similar.

    Raises:
        UserError: As ``read_neighbours``; --nearest is more than the file holds.
    """
    folders = [reader.shard_sizes for reader in readers]
    if data.mix:
        return MixedOrder(folders, data.proportions, seed, data.shuffle_shards)
    order = SampleOrder([size for sizes in folders for size in sizes], seed, data.shuffle_shards)
    if data.similar is None:
        return order
    (reader,) = readers
    neighbours = read_neighbours(data.similar, reader)
    if data.nearest > neighbours.mined.k:
        raise UserError(
            f"nearest is {data.nearest}, but {data.similar} holds {neighbours.mined.k} for each "
            f"image; choose fewer, or mine with --k {data.nearest}"
        )
    return PairedOrder(order, neighbours.first(data.nearest).nearest_NK, seed)


def _decode(path: Path) -> Neighbours:
    with safe_open(path, framework="numpy") as file:
        mined = decode_json((file.metadata() or {})["mined"].encode(), Mined, path)
        return Neighbours(file.get_tensor("nearest"), file.get_tensor("cosine"), mined)


def _is_sound(neighbours: Neighbours, shape: tuple[int, int]) -> bool:
    near = neighbours.nearest_NK
    return (
        near.shape == neighbours.cosine_NK.shape == shape
        and near.dtype == np.int32
        and bool(((near >= NO_NEIGHBOR) & (near < shape[0])).all())
    )
