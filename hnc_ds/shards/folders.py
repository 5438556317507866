"""The samples of the shard folders of a training, numbered one folder after the other."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, combinations
from pathlib import Path

from hnc_ds.errors import UserError, counted
from hnc_ds.records import TrainingSample
from hnc_ds.shards.format import Abouts
from hnc_ds.shards.negatives import OF_FOLDER, SeenAbouts
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import Cache


class ShardFolders:
    """One or several shard folders as one; with one, everything is as of its ``ShardReader``.

    Args:
        locations: Outputs of ``hnc-ds pack``: folders or URLs, at least one.
        cache: Cache of remote shards; by default that of the environment.

    Raises:
        UserError: As ``ShardReader``; two folders hold the same shards.
    """

    def __init__(self, locations: Sequence[Path | str], cache: Cache | None = None) -> None:
        self.readers = tuple([ShardReader(location, cache) for location in locations])
        _refuse_copies(self.readers)
        self.shard_sizes = [size for reader in self.readers for size in reader.shard_sizes]
        self._ends = list(accumulate(map(len, self.readers)))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def negative_types(self) -> tuple[str, ...]:
        """Types of the hard negatives, sorted."""
        return tuple(sorted({name for reader in self.readers for name in reader.index.negatives}))

    @property
    def about(self) -> Abouts | None:
        """What the negatives of all folders are about."""
        indexes = [reader.index for reader in self.readers]
        if len(indexes) == 1:
            return indexes[0].about
        seen = SeenAbouts(OF_FOLDER)
        for index in indexes:
            seen.add_shard(index.negatives, index.about)
        return seen.summary()

    @property
    def total_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for reader in self.readers for shard in reader.index.shards)

    @property
    def is_remote(self) -> bool:
        """Whether shards of any folder have to be fetched."""
        return any(reader.is_remote for reader in self.readers)

    def sample(self, sample: int) -> TrainingSample:
        """As ``ShardReader.sample``."""
        reader, own = self._find(sample)
        return reader.sample(own)

    def image_bytes(self, sample: int) -> bytes:
        """As ``ShardReader.image_bytes``."""
        reader, own = self._find(sample)
        return reader.image_bytes(own)

    def has_sum(self, sample: int) -> bool:
        """As ``ShardReader.has_sum``."""
        reader, own = self._find(sample)
        return reader.has_sum(own)

    def where(self, sample: int) -> str:
        """As ``ShardReader.where``."""
        reader, own = self._find(sample)
        return reader.where(own)

    def fetch_ahead(self, shards: Sequence[int]) -> None:
        """Prefetch remote shards that will be read next; folders share the cache equally.

        Args:
            shards: Numbers of shards, those of all folders one after the other.
        """
        first = 0
        for reader in self.readers:
            end = first + len(reader.shard_sizes)
            own = [shard - first for shard in shards if first <= shard < end]
            reader.fetch_ahead(own, 1 / len(self.readers))
            first = end

    def close(self) -> None:
        """As ``ShardReader.close``."""
        for reader in self.readers:
            reader.close()

    def described(self, proportions: Sequence[int]) -> Iterator[str]:
        """A line for each of several folders: its images, and how often they come.

        Args:
            proportions: Of --mix, as whole numbers; empty without it.
        """
        if len(self.readers) == 1:
            return
        for number, reader in enumerate(self.readers):
            images = f"{reader.location}, {counted(len(reader), 'image')}"
            if not proportions:
                yield f"from {images}"
                continue
            own, of = proportions[number], sum(proportions)
            times = own / of * len(self) / len(reader)
            yield f"{own:,} in {of:,} images from {images}, each {times:.2f} times an epoch"

    def _find(self, sample: int) -> tuple[ShardReader, int]:
        """The folder of a sample, and the sample's number in it."""
        folder = bisect_right(self._ends, sample)
        return self.readers[folder], sample - (self._ends[folder - 1] if folder else 0)


def _refuse_copies(readers: Sequence[ShardReader]) -> None:
    for one, other in combinations(readers, 2):
        if one.index.shards == other.index.shards:
            raise UserError(
                f"{one.location} and {other.location} hold the same shards; give them to --shards "
                "once, with a larger weight in --mix to draw them more often"
            )
