"""The layout of a shard folder, versioned: how a sample and its index are written and read.

    FOLDER/shard-000000.tar    WebDataset tar: KEY.jpg, KEY.json (TrainingSample)
    FOLDER/shard-000000.json   ShardIndex: byte offsets of every member, sha256 of the tar
    FOLDER/index.json          DatasetIndex: what lies in the folder; written last, so that a
                               folder without it is an unfinished one

KEY.jpg is the image's own file where that is a JPEG. Others are encoded anew as one (ENCODING), as
readers of such shards expect it and PNGs of photographs would be six times as large.

Offsets point at member data, so that any sample is one positioned read away and a resumed run
replays nothing. This file knows no tar writing (pack.py) and no order (order.py).
"""

from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import quote

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, read_bytes
from hnc_ds.records import TrainingSample

FORMAT_VERSION = 1
AGAIN = "pack the shards again"
LARGEST_INDEX = 1 << 28
"""Bytes of an index; those of 10,000 samples have 1 MB."""

INDEX_NAME = "index.json"


Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class SampleOffsets(msgspec.Struct, frozen=True, array_like=True):
    """Where one sample lies in its tar, in bytes from the start of the file."""

    key: str
    image_offset: Count
    image_bytes: Count
    json_offset: Count
    json_bytes: Count
    image_crc32: Count | None = None
    json_crc32: Count | None = None
    """None in shards of before; bytes that have another one are not used."""


class ShardSummary(msgspec.Struct, frozen=True):
    """One shard, as the dataset's index lists it."""

    file: str
    samples: Count
    bytes: Count
    sha256: str


class Abouts(msgspec.Struct, frozen=True):
    """What negatives turn on, see ``Negative.about``: how many there are of each, and of some of
    the images every group, by which a training finds how often it will draw what."""

    counts: dict[str, dict[str, Count]]
    """Hard negatives by type and by what they are about; '' where nothing is said of it."""
    kinds: tuple[tuple[str, str], ...]
    """Type and about, by the numbers in ``images``."""
    images: tuple[tuple[tuple[Count, ...], ...], ...]
    """Images spread evenly over all: of each its groups, of a group the kind of each negative."""
    every: Annotated[int, msgspec.Meta(ge=1, lt=2**53)] = 1
    """How far apart these images are."""


class ShardIndex(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything known of one shard. A shard whose index exists is complete."""

    format: int
    summary: ShardSummary
    samples: tuple[SampleOffsets, ...]
    groups: Count
    negatives: dict[str, Count]
    """Hard negatives in the shard, per negative type."""
    skipped: dict[str, tuple[str, ...]]
    """Ids of the images left out, per reason."""
    reencoded: int = 0
    """Images that were no JPEG, and are one here."""
    about: Abouts | None = None
    """None where no negative says what it is about, and in shards of before."""


class DatasetIndex(msgspec.Struct, frozen=True, omit_defaults=True):
    """index.json: the whole folder at a glance. Sums of its shards."""

    format: int
    shards: tuple[ShardSummary, ...]
    samples: Count
    groups: Count
    negatives: dict[str, Count]
    skipped: dict[str, Count]
    """Images left out, per reason."""
    source: dict[str, str]
    """What the shards were made from: settings and a fingerprint, for resuming."""
    reencoded: int = 0
    """Images that were no JPEG, and are one here."""
    about: Abouts | None = None
    """None where no negative says what it is about, and in shards of before."""


_Index = TypeVar("_Index", ShardIndex, DatasetIndex)


def sample_key(image_id: str) -> str:
    """The tar key of an image id. WebDataset cuts keys at the first dot and tar at slashes.

    Characters other than letters, digits, '-' and '_' are percent-encoded, so that keys are
    unique, and no id can name a path outside the folder a tar is unpacked to.
    """
    return quote(image_id, safe="").replace(".", "%2E").replace("~", "%7E")


def encode_sample(sample: TrainingSample) -> bytes:
    """The bytes of KEY.json."""
    return msgspec.json.encode(sample)


def decode_sample(data: bytes, where: str) -> TrainingSample:
    """Read KEY.json.

    Args:
        data: Its bytes.
        where: shard and key, for the error.

    Raises:
        UserError: Not a sample, or written by a newer version of the format.
    """
    sample = decode_json(data, TrainingSample, where, AGAIN, "not a training sample")
    if sample.format != FORMAT_VERSION:
        raise UserError(
            f"{where}: written in format {sample.format}, this version reads {FORMAT_VERSION}; "
            "pack the shards again"
        )
    return sample


def read_index(folder: Path, whole: bool = True) -> DatasetIndex:
    """Read and check a shard folder's index.json against the files beside it.

    Args:
        folder: What ``hnc-ds pack`` wrote.
        whole: Whether its shards must all be there.

    Raises:
        UserError: No folder, no index, no samples, a shard that is missing or whose size is not
            the one recorded.
    """
    path = folder / INDEX_NAME
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make shards with 'hnc-ds pack --out {folder}'")
    if not path.is_file():
        raise UserError(
            f"{folder}: holds no {INDEX_NAME}, so packing did not finish; "
            f"run 'hnc-ds pack --out {folder}' (again)"
        )
    index = _decode_index(path, DatasetIndex)
    if index.samples == 0:
        raise UserError(
            f"{folder}: holds no samples; check the captions and images it was packed from"
        )
    files = {shard.file for shard in index.shards}
    if index.samples != sum(s.samples for s in index.shards) or len(files) < len(index.shards):
        raise UserError(f"{path}: its sums are not those of its shards; {AGAIN}")
    for shard in index.shards:
        tar = folder / shard.file
        if tar.parent != folder:
            raise UserError(f"{path}: names '{shard.file}', which is outside the folder")
        if not whole:
            continue
        if not tar.is_file():
            raise UserError(f"{tar}: missing, but {INDEX_NAME} lists it; pack the shards again")
        if (size := tar.stat().st_size) != shard.bytes:
            raise UserError(
                f"{tar}: {size} bytes, but {INDEX_NAME} says {shard.bytes}; "
                "it is truncated or was changed, copy or pack it again"
            )
    return index


def read_shard_index(folder: Path, shard_file: str) -> ShardIndex:
    """Read the offsets of one shard of the folder.

    Raises:
        UserError: Missing or not a shard index.
    """
    return _decode_index(shard_index_path(folder / shard_file), ShardIndex)


def shard_index_path(shard: Path) -> Path:
    """The file of offsets that belongs to a tar."""
    return shard.with_suffix(".json")


def _decode_index(path: Path, kind: type[_Index]) -> _Index:
    if not path.exists():
        raise UserError(f"{path}: missing; pack the shards again")
    content = read_bytes(path, AGAIN, LARGEST_INDEX)
    index = decode_json(content, kind, path, AGAIN, "not a shard index")
    if index.format != FORMAT_VERSION:
        raise UserError(
            f"{path}: written in format {index.format}, this version reads {FORMAT_VERSION}; "
            "pack the shards again"
        )
    if index.about is not None and not _is_whole(index.about):
        raise UserError(f"{path}: 'about' has numbers of kinds that it does not list; {AGAIN}")
    return index


def _is_whole(abouts: Abouts) -> bool:
    """Whether every number is that of a kind."""
    return all(
        max(group, default=-1) < len(abouts.kinds) for image in abouts.images for group in image
    )
