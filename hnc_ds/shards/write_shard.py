"""Write one shard: a WebDataset tar of images and captions, and the index of its offsets.

The bytes depend on the images and captions alone: headers carry no time, owner or host. A file
appears under its name only when it is whole and on the disk; the index comes after its tar, so a
shard that has one is complete.
"""

import hashlib
import io
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.images import JPEG, CorruptImage, as_rgb, open_image, read_image_file
from hnc_ds.records import ImageCaptions, TrainingSample
from hnc_ds.shards.abouts import OF_SHARD, SeenAbouts
from hnc_ds.shards.folders import same_image
from hnc_ds.shards.format import (
    FORMAT_VERSION,
    SampleOffsets,
    ShardIndex,
    ShardSummary,
    encode_sample,
    sample_key,
    shard_index_path,
)
from hnc_ds.whole_files import whole_file

NO_CAPTIONS = "no captions"
NO_IMAGE = "no image"
"""Why an image is left out, besides the faults of CorruptImage."""

ENCODING: dict[str, Any] = {"quality": 95, "subsampling": 0}
"""Of images that are no JPEG: full colour, as far as the eye sees without loss."""


def write_shard(
    captions: Iterable[tuple[ImageCaptions, Sequence[Path]]], shard: Path
) -> ShardIndex:
    """Write ``shard`` and its index.

    JPEGs are copied byte by byte, after each was decoded once; other images are encoded as JPEG.
    Those without captions, without a file, or that cannot be decoded are left out and listed in the
    index.

    Args:
        captions: The images and the files of each, as ``ImageFolders.find`` has them, in the order
            in which they enter the tar.
        shard: Path of the tar; an existing one is replaced.

    Raises:
        UserError: Files of one image that differ, an unreadable image file, a full disk.
    """
    offsets: list[SampleOffsets] = []
    groups = reencoded = 0
    negatives: Counter[str] = Counter()
    abouts = SeenAbouts(OF_SHARD)
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    with shard_file(shard) as file:
        tar = _Tar(file)
        for image, files in captions:
            try:
                data, was_jpeg, size = _read_image(image, files)
            except _LeftOutError as reason:
                skipped[str(reason)].append(image.image_id)
                continue
            offsets.append(_add_sample(tar, image, data, size))
            reencoded += not was_jpeg
            groups += len(image.groups)
            negatives.update(
                negative.type for group in image.groups for negative in group.negatives
            )
            abouts.add(image.groups)
        tar.finish()
    index = ShardIndex(
        format=FORMAT_VERSION,
        summary=ShardSummary(shard.name, len(offsets), tar.size, tar.sha256.hexdigest()),
        samples=tuple(offsets),
        groups=groups,
        negatives=dict(sorted(negatives.items())),
        skipped={reason: tuple(ids) for reason, ids in sorted(skipped.items())},
        reencoded=reencoded,
        about=abouts.told(),
    )
    with shard_file(shard_index_path(shard)) as file:
        file.write(msgspec.json.encode(index))
    return index


class _LeftOutError(Exception):
    """An image does not enter the shard; the text is the reason."""


@contextmanager
def shard_file(path: Path) -> Iterator[BinaryIO]:
    """A file of a shard folder, written whole or not at all.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    try:
        with whole_file(path) as file:
            yield file
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write {path.name} ({error.strerror}); complete shards are "
            "kept, so make room or mend the folder and run the same command again"
        ) from error


def _add_sample(
    tar: "_Tar", image: ImageCaptions, data: bytes, size: tuple[int, int]
) -> SampleOffsets:
    key = sample_key(image.image_id)
    sample = encode_sample(TrainingSample(image.image_id, *size, image.groups))
    return SampleOffsets(
        key,
        *(tar.add(f"{key}.jpg", data), len(data)),
        *(tar.add(f"{key}.json", sample), len(sample)),
        *(zlib.crc32(data), zlib.crc32(sample)),
    )


def _read_image(image: ImageCaptions, files: Sequence[Path]) -> tuple[bytes, bool, tuple[int, int]]:
    """What enters the tar, whether it is the file's own, and (width, height) in pixels."""
    if not image.groups:
        raise _LeftOutError(NO_CAPTIONS)
    if not files:
        raise _LeftOutError(NO_IMAGE)
    try:
        return as_jpeg(read_image_file(same_image(files)))
    except CorruptImage as error:
        raise _LeftOutError(error.fault) from error
    except OSError as error:
        raise UserError(f"{files[0]}: cannot be read ({error.strerror})") from error


def as_jpeg(data: bytes) -> tuple[bytes, bool, tuple[int, int]]:
    """An image as JPEG, whether it was one, and its (width, height) in pixels.

    Raises:
        CorruptImage: It cannot be decoded to its end, or is none that is read.
    """
    image = open_image(data)
    rgb = as_rgb(image)
    if image.format in JPEG:
        return data, True, image.size
    file = io.BytesIO()
    rgb.save(file, "JPEG", **ENCODING)
    return file.getvalue(), False, image.size


class _Tar:
    """A tar that knows where its members' bytes lie; ustar headers, PAX ones for long names."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a file; returns the offset of its data."""
        member = tarfile.TarInfo(name)  # time, user and group are 0 and nameless
        member.size = len(data)
        member.mode = 0o644
        self._write(member.tobuf(tarfile.PAX_FORMAT))
        offset = self.size
        self._write(data)
        self._pad_to(tarfile.BLOCKSIZE)
        return offset

    def finish(self) -> None:
        """The end mark: two empty blocks, filled up to a record."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad_to(tarfile.RECORDSIZE)

    def _pad_to(self, unit: int) -> None:
        self._write(bytes(-self.size % unit))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
