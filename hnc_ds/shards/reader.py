"""Random access to the samples of a local or remote shard folder, by the offsets of its index.

A sample takes two positioned reads, so a resumed run replays nothing. Few tars are open at a time.
"""

import os
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.records import TrainingSample
from hnc_ds.shards.format import (
    AGAIN,
    SampleOffsets,
    ShardSummary,
    decode_sample,
    read_index,
    read_shard_index,
)
from hnc_ds.shards.remote import Cache, RemoteFolder, cache_of, is_url


class ShardReader:
    """All samples of a folder, numbered in shard order from 0.

    Picklable: files are opened on first use, in the process that reads.

    Args:
        location: Output of ``hnc-ds pack``: a folder or a URL.
        cache: Cache of remote shards; by default that of the environment.
        max_open: Maximum number of open tars and offset tables.

    Raises:
        UserError: As ``read_index``; the URL cannot be opened.
    """

    def __init__(
        self, location: Path | str, cache: Cache | None = None, max_open: int = 32
    ) -> None:
        self._remote: RemoteFolder | None = None
        if isinstance(location, str) and is_url(location):
            self._remote = RemoteFolder(location, cache or cache_of(None, None))
        self.folder = self._remote.folder if self._remote else Path(location)
        self.location = self._remote.url if self._remote else str(self.folder)
        self.index = read_index(self.folder, whole=self._remote is None)
        self.shard_sizes = [shard.samples for shard in self.index.shards]
        self._ends = list(accumulate(self.shard_sizes))
        self._max_open = max_open
        self._open: OrderedDict[int, tuple[int, tuple[SampleOffsets, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return self.index.samples

    def key(self, sample: int) -> str:
        """The tar key of a sample."""
        return self._locate(sample)[1].key

    def sample(self, sample: int) -> TrainingSample:
        """Id, size and caption groups of a sample.

        Raises:
            UserError: It cannot be read, has another CRC, or has no caption group.
        """
        file, at = self._locate(sample)
        data = self._read(file, at.json_offset, at.json_bytes, sample)
        if at.json_crc32 not in (None, zlib.crc32(data)):
            raise UserError(
                f"{self.where(sample)}: its captions differ from those that were packed; {AGAIN}"
            )
        found = decode_sample(data, self.where(sample))
        if not found.groups:
            raise UserError(
                f"{self.where(sample)}: has no captions; pack the shards again with 'hnc-ds pack', "
                "which leaves such images out"
            )
        return found

    def image_bytes(self, sample: int) -> bytes:
        """A sample's JPEG. Empty, and so corrupt, if its CRC differs: a flipped bit could change
        pixels silently."""
        file, at = self._locate(sample)
        data = self._read(file, at.image_offset, at.image_bytes, sample)
        return data if at.image_crc32 in (None, zlib.crc32(data)) else b""

    def has_sum(self, sample: int) -> bool:
        """Whether the image has a CRC, which proves that pack decoded the same bytes."""
        return self._locate(sample)[1].image_crc32 is not None

    def where(self, sample: int) -> str:
        """``FOLDER/SHARD:KEY``, for messages."""
        shard = bisect_right(self._ends, sample)
        return f"{self.location}/{self.index.shards[shard].file}:{self.key(sample)}"

    def location_from(self, folder: Path) -> str:
        """The shards' path relative to a folder, in POSIX form, or their URL."""
        if self._remote is not None:
            return self.location
        return Path(os.path.relpath(self.folder, folder)).as_posix()

    def fetch(self, shard: int) -> Path:
        """Path of a shard's tar, fetched if it is remote."""
        if self._remote is not None:
            self._remote.fetch(self.index.shards[shard])
        return self.folder / self.index.shards[shard].file

    def offsets(self, shard: ShardSummary) -> tuple[SampleOffsets, ...]:
        """Offsets of a shard's samples.

        Raises:
            UserError: They are missing, or of another shard.
        """
        if self._remote is not None:
            self._remote.fetch_offsets(shard)
        found = read_shard_index(self.folder, shard.file)
        if found.summary != shard:
            raise UserError(
                f"{self.location}/{shard.file}: its offsets and index.json disagree; "
                "pack the shards again"
            )
        self._check(shard, found.samples)
        return found.samples

    def _check(self, shard: ShardSummary, samples: tuple[SampleOffsets, ...]) -> None:
        ends = [max(s.image_offset + s.image_bytes, s.json_offset + s.json_bytes) for s in samples]
        keys = {sample.key for sample in samples}
        if len(keys) != shard.samples or len(samples) != shard.samples or max(ends) > shard.bytes:
            raise UserError(
                f"{self.location}/{shard.file}: its offsets are not of {shard.samples} samples in "
                f"{shard.bytes} bytes; pack the shards again"
            )

    @property
    def is_remote(self) -> bool:
        """Whether shards have to be fetched."""
        return self._remote is not None

    def fetch_ahead(self, shards: Sequence[int], share: float = 1.0) -> None:
        """Prefetch remote shards that will be read next, into a share of the cache."""
        if self._remote is not None:
            self._remote.fetch_ahead([self.index.shards[shard] for shard in shards], share)

    def close(self) -> None:
        """Close all open tars; reading opens them again."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _locate(self, sample: int) -> tuple[int, SampleOffsets]:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        shard = bisect_right(self._ends, sample)
        file, offsets = self._shard(shard)
        return file, offsets[sample - (self._ends[shard] - self.shard_sizes[shard])]

    def _shard(self, shard: int) -> tuple[int, tuple[SampleOffsets, ...]]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        summary = self.index.shards[shard]
        self.fetch(shard)
        offsets = self.offsets(summary)
        if len(self._open) >= self._max_open:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[shard] = (self._open_tar(summary), offsets)
        return self._open[shard]

    def _open_tar(self, shard: ShardSummary) -> int:
        while True:
            try:
                return os.open(self.folder / shard.file, os.O_RDONLY)
            except FileNotFoundError:
                if self._remote is None:
                    raise UserError(
                        f"{self.folder / shard.file}: was removed meanwhile; pack the shards again"
                    ) from None
                self._remote.fetch(shard)  # another process evicted it in between

    def _read(self, file: int, offset: int, size: int, sample: int) -> bytes:
        data = os.pread(file, size, offset)
        if len(data) != size:
            raise UserError(
                f"{self.where(sample)}: the tar ends before the sample does; "
                "it was truncated, copy or pack it again"
            )
        return data

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}  # file descriptors stay behind
