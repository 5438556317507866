"""Random access to the samples of a shard folder, by the byte offsets of its index.

A sample costs two positioned reads, wherever it lies, so a resumed run replays nothing. Few tars
are open at a time; the file knows nothing of order, decoding or tensors.
"""

import os
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.records import TrainingSample
from hnc_ds.shards.format import (
    SampleOffsets,
    decode_sample,
    read_index,
    read_shard_index,
)


class ShardReader:
    """All samples of a folder, numbered in shard order from 0.

    Picklable: files are opened on first use, in the process that reads.

    Args:
        folder: What ``hnc-ds pack`` wrote.
        max_open: Tars and offset tables kept open at a time.

    Raises:
        UserError: As ``read_index``.
    """

    def __init__(self, folder: Path, max_open: int = 32) -> None:
        self.folder = folder
        self.index = read_index(folder)
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
        """Identity, size and caption groups of a sample."""
        file, at = self._locate(sample)
        data = self._read(file, at.json_offset, at.json_bytes, sample)
        return decode_sample(data, self.where(sample))

    def image_bytes(self, sample: int) -> bytes:
        """The original file of a sample's image."""
        file, at = self._locate(sample)
        return self._read(file, at.image_offset, at.image_bytes, sample)

    def where(self, sample: int) -> str:
        """``FOLDER/SHARD:KEY``, for messages."""
        shard = bisect_right(self._ends, sample)
        return f"{self.folder / self.index.shards[shard].file}:{self.key(sample)}"

    def close(self) -> None:
        """Close what is open; reading opens it again."""
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
        shard_index = read_shard_index(self.folder, summary.file)
        if shard_index.summary != summary:
            raise UserError(
                f"{self.folder / summary.file}: its offsets and index.json disagree; "
                "pack the shards again"
            )
        if len(self._open) >= self._max_open:
            os.close(self._open.popitem(last=False)[1][0])
        file = os.open(self.folder / summary.file, os.O_RDONLY)
        self._open[shard] = (file, shard_index.samples)
        return self._open[shard]

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
