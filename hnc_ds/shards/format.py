"""The versioned layout of a shard folder.

    FOLDER/shard-000000.tar    WebDataset tar: KEY.jpg, KEY.json (TrainingSample)
    FOLDER/shard-000000.json   ShardIndex: byte offsets of every member, sha256 of the tar
    FOLDER/index.json          DatasetIndex: totals; written last, so that a folder without it is
                               unfinished

KEY.jpg is the original file if it is a JPEG. Other images are encoded as JPEG (ENCODING), as
readers of such shards expect; PNGs of photographs would be six times as large. Offsets point at
member data, so that any sample can be read directly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar
from urllib.parse import quote

import msgspec

from hnc_ds.atomic_files import atomic_file, writing
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, read_bytes
from hnc_ds.records import TrainingSample

FORMAT_VERSION = 1
AGAIN = "pack the shards again"
LARGEST_INDEX = 1 << 28
"""Maximum bytes of an index; 10,000 samples take 1 MB."""

INDEX_NAME = "index.json"


Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class SampleOffsets(msgspec.Struct, frozen=True, array_like=True):
    """Position of a sample in its tar, in bytes from the start of the file."""

    key: str
    image_offset: Count
    image_bytes: Count
    json_offset: Count
    json_bytes: Count
    image_crc32: Count | None = None
    json_crc32: Count | None = None
    """None in older shards; bytes with another CRC are not used."""


class ShardSummary(msgspec.Struct, frozen=True):
    """A shard's entry in index.json."""

    file: str
    samples: Count
    bytes: Count
    sha256: str


class Abouts(msgspec.Struct, frozen=True):
    """Statistics of what negatives are about (``Negative.about``): counts, and a sample of images
    with all groups, from which negatives.py computes how often each kind is drawn."""

    counts: dict[str, dict[str, Count]]
    """Hard negatives by type and about; '' without one."""
    kinds: tuple[tuple[str, str], ...]
    """Type and about; ``images`` refers to them by index."""
    images: tuple[tuple[tuple[Count, ...], ...], ...]
    """An even sample of images: for each group, the kind of each negative."""
    every: Annotated[int, msgspec.Meta(ge=1, lt=2**53)] = 1
    """Every n-th image is in the sample."""


class ShardIndex(msgspec.Struct, frozen=True, omit_defaults=True):
    """Index of one shard. A shard whose index exists is complete."""

    format: int
    summary: ShardSummary
    samples: tuple[SampleOffsets, ...]
    groups: Count
    negatives: dict[str, Count]
    """Hard negatives in the shard, per negative type."""
    skipped: dict[str, tuple[str, ...]]
    """Ids of the images left out, per reason."""
    reencoded: int = 0
    """Images that were encoded as JPEG."""
    about: Abouts | None = None
    """None if no negative has an about, and in older shards."""
    groups_without_negatives: Count = 0


class DatasetIndex(msgspec.Struct, frozen=True, omit_defaults=True):
    """index.json: sums over the folder's shards."""

    format: int
    shards: tuple[ShardSummary, ...]
    samples: Count
    groups: Count
    negatives: dict[str, Count]
    skipped: dict[str, Count]
    """Images left out, per reason."""
    source: dict[str, str]
    """Settings and fingerprints of the inputs, for resuming."""
    reencoded: int = 0
    """Images that were encoded as JPEG."""
    about: Abouts | None = None
    """None if no negative has an about, and in older shards."""
    groups_without_negatives: Count = 0


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
    """Decode KEY.json.

    Args:
        data: Content of the file.
        where: Shard and key, for messages.

    Raises:
        UserError: Not a sample, or of another version of the format.
    """
    sample = decode_json(data, TrainingSample, where, AGAIN, "not a training sample")
    if sample.format != FORMAT_VERSION:
        raise UserError(
            f"{where}: written in format {sample.format}, this version reads {FORMAT_VERSION}; "
            "pack the shards again"
        )
    return sample


def read_index(folder: Path, whole: bool = True) -> DatasetIndex:
    """Read a shard folder's index.json and check it against the shards.

    Args:
        folder: Output folder of ``hnc-ds pack``.
        whole: Whether all shards must exist.

    Raises:
        UserError: Folder, index or samples are missing, or a shard is missing or of another size.
    """
    path = folder / INDEX_NAME
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make shards with 'hnc-ds pack --out {folder}'")
    if not path.is_file():
        if not any(folder.glob("shard-*")):
            raise UserError(
                f"{folder}: holds no {INDEX_NAME}, so 'hnc-ds pack' did not write it; tars and "
                "tables of others are packed first: hnc-ds pack --captions THEM --out SHARDS"
            )
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
    """The index file of a tar."""
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
    """Whether every index is that of a kind."""
    return all(
        max(group, default=-1) < len(abouts.kinds) for image in abouts.images for group in image
    )


@contextmanager
def shard_file(path: Path) -> Iterator[BinaryIO]:
    """A file of a shard folder, written atomically.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    then = "run the same command again, complete shards are kept"
    with writing(path, then), atomic_file(path) as file:
        yield file
