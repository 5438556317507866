"""Which sample comes when: a pure function of (seed, epoch, shard sizes).

Nothing here knows ranks, workers or restarts: position p of an endless stream holds the same
sample for all of them, and step t of a run with N samples a step takes positions t*N to t*N+N-1.
Every epoch visits every sample once; a step may straddle two epochs, so none has fewer samples.

PairedOrder puts a similar sample after each of them, for batches that hold similar images.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARDS, SAMPLES, PARTNERS = 0, 1, 2
"""What a generator is for, so that no two draws share one."""

NOBODY = -1
"""In place of a neighbour's number: there is none."""


class Visit(NamedTuple):
    """One place in the stream."""

    epoch: int
    sample: int
    """Number of the sample in the shard folder."""
    beside: int | None = None
    """The sample it was chosen for, being similar to it; None where it comes by itself."""

    def key(self, seed: int) -> str:
        """What the draws of this visit hang on; another for each visit that an epoch makes."""
        own = f"{seed}/{self.epoch}/{self.sample}"
        return own if self.beside is None else f"{own}/{self.beside}"


class SampleOrder:
    """The endless stream of visits.

    Shards are shuffled over the whole data set, samples within a moving block of
    ``shuffle_shards`` shards: few files are read at a time, by any number of workers.

    Args:
        shard_sizes: Samples in each shard.
        seed: Of the order.
        shuffle_shards: Shards in a block; 0 for one block of all.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, shuffle_shards: int) -> None:
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.samples = int(self.shard_sizes.sum())
        self._firsts = np.cumsum(self.shard_sizes) - self.shard_sizes
        self._seed = seed
        self._block = shuffle_shards or len(shard_sizes)
        # A step touches one or two epochs and blocks; no more are kept.
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._blocks: dict[tuple[int, int], NDArray[np.int64]] = {}

    def visits(self, start: int, count: int) -> list[Visit]:
        """What lies at positions ``start`` to ``start + count - 1`` of the stream."""
        found: list[Visit] = []
        while len(found) < count:
            epoch, place = divmod(start + len(found), self.samples)
            block, offset = self._find_block(epoch, place)
            samples = self._block_samples(epoch, block)[offset : offset + count - len(found)]
            found.extend(Visit(epoch, int(sample)) for sample in samples)
        return found

    def neighbours(self, position: int) -> NDArray[np.int64]:
        """The samples mixed with the one at a position: those whose shards are open anyway."""
        epoch, place = divmod(position, self.samples)
        return self._block_samples(epoch, self._find_block(epoch, place)[0])

    def shards_ahead(self, position: int) -> list[int]:
        """The shards that are read from a position on: those of its block, and of the next."""
        epoch, place = divmod(position, self.samples)
        block, _ = self._find_block(epoch, place)
        is_last = (block + 1) * self._block >= len(self.shard_sizes)
        following = (epoch + 1, 0) if is_last else (epoch, block + 1)
        both = [self._block_shards(epoch, block), self._block_shards(*following)]
        return [int(shard) for shard in np.concatenate(both)]

    def _block_shards(self, epoch: int, block: int) -> NDArray[np.int64]:
        return self._epoch_shards(epoch)[0][block * self._block : (block + 1) * self._block]

    def _find_block(self, epoch: int, place: int) -> tuple[int, int]:
        """(block, offset in it) of a place in an epoch."""
        _, ends = self._epoch_shards(epoch)
        block = int(np.searchsorted(ends, place, side="right"))
        return block, place - (int(ends[block - 1]) if block else 0)

    def _epoch_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch's shards in order, and where each block of them ends."""
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
        shards = generator(self._seed, epoch, SHARDS, 0).permutation(len(self.shard_sizes))
        starts = np.arange(0, len(shards), self._block)
        return shards, np.cumsum(np.add.reduceat(self.shard_sizes[shards], starts))

    def _shuffle_samples(self, epoch: int, block: int) -> NDArray[np.int64]:
        shards = self._block_shards(epoch, block)
        samples = np.concatenate(
            [self._firsts[shard] + np.arange(self.shard_sizes[shard]) for shard in shards]
        )
        return generator(self._seed, epoch, SAMPLES, block).permutation(samples)


class PairedOrder:
    """The endless stream of pairs: a visit of another order, then one of a similar sample.

    Position 2i holds what the plain order has at i; position 2i + 1 holds one of the samples
    nearest to that, drawn anew in each epoch. An epoch is twice as long as the plain one: every
    sample comes by itself once, and as often again as it is drawn beside others. A pair may
    straddle ranks or steps; both positions are reached without each other.

    Args:
        order: Of the samples that come by themselves.
        nearest_NK: Numbers of the samples similar to each sample, or NOBODY.
        seed: Of the choice among them.

    Source: NegCLIP (Yuksekgonul et al. 2023) has each image's batch hold one of the 3 images
    nearest to it.
    """

    def __init__(self, order: SampleOrder, nearest_NK: NDArray[np.int32], seed: int) -> None:
        self._order, self._nearest, self._seed = order, nearest_NK, seed

    def visits(self, start: int, count: int) -> list[Visit]:
        """What lies at positions ``start`` to ``start + count - 1`` of the stream."""
        first, end = start // 2, (start + count + 1) // 2
        pairs = [
            (visit, self._partner(first + place, visit))
            for place, visit in enumerate(self._order.visits(first, end - first))
        ]
        skipped = start - 2 * first
        return [visit for pair in pairs for visit in pair][skipped : skipped + count]

    def neighbours(self, position: int) -> NDArray[np.int64]:
        """The samples mixed with the pair at a position, as ``SampleOrder.neighbours``."""
        return self._order.neighbours(position // 2)

    def shards_ahead(self, position: int) -> list[int]:
        """As ``SampleOrder.shards_ahead``, of the samples that come by themselves."""
        return self._order.shards_ahead(position // 2)

    def _partner(self, place: int, visit: Visit) -> Visit:
        near = self._nearest[visit.sample]
        choice = near[near != NOBODY]
        if not len(choice):  # its picture could not be decoded when neighbours were looked for
            choice = self._order.neighbours(place)
        drawn = generator(self._seed, visit.epoch, PARTNERS, visit.sample).integers(len(choice))
        return Visit(visit.epoch, int(choice[drawn]), beside=visit.sample)


def generator(seed: int, epoch: int, what: int, which: int) -> np.random.Generator:
    """A generator of its own for one purpose, epoch and block or sample.

    Counter-based: any of them is reached without drawing those before it.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, what, which, epoch]))


def _forget_oldest(cache: dict[Any, Any]) -> None:
    """Make room for one more of two entries."""
    while len(cache) > 1:
        del cache[next(iter(cache))]
