"""Write one shard: a WebDataset tar of images and captions, and the index of its offsets.

The bytes depend on the images and captions alone: headers carry no time, owner or host. A file
appears under its name only when it is whole and on the disk; the index comes after its tar, so a
shard that has one is complete.
"""

import hashlib
import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.records import ImageCaptions, TrainingSample
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
CORRUPT = "corrupt JPEG"
"""Why an image is left out."""

LONGEST_ID = 200  # characters; file names end at 255 bytes


def write_shard(captions: Iterable[ImageCaptions], images: Path, shard: Path) -> ShardIndex:
    """Write ``shard`` and its index.

    Images are copied byte by byte, after each was decoded once. Those without captions, without a
    file, or that do not decode as JPEG are left out and listed in the index.

    Args:
        captions: The images, in the order in which they enter the tar.
        images: Folder of ID.jpg (or ID.jpeg, or ID where the id has a suffix itself).
        shard: Path of the tar; an existing one is replaced.

    Raises:
        UserError: An id that names no file of the folder, an unreadable image file, a full disk.
    """
    offsets: list[SampleOffsets] = []
    groups = 0
    negatives: Counter[str] = Counter()
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    with shard_file(shard) as file:
        tar = _Tar(file)
        for image in captions:
            try:
                offsets.append(_add_sample(tar, image, images))
            except _LeftOutError as reason:
                skipped[str(reason)].append(image.image_id)
                continue
            groups += len(image.groups)
            negatives.update(
                negative.type for group in image.groups for negative in group.negatives
            )
        tar.finish()
    index = ShardIndex(
        format=FORMAT_VERSION,
        summary=ShardSummary(shard.name, len(offsets), tar.size, tar.sha256.hexdigest()),
        samples=tuple(offsets),
        groups=groups,
        negatives=dict(sorted(negatives.items())),
        skipped={reason: tuple(ids) for reason, ids in sorted(skipped.items())},
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


def file_names(image_id: str) -> tuple[str, ...]:
    """The names that an image may have in its folder; the first that is there counts."""
    return f"{image_id}.jpg", f"{image_id}.jpeg", image_id


def _add_sample(tar: "_Tar", image: ImageCaptions, images: Path) -> SampleOffsets:
    if not image.groups:
        raise _LeftOutError(NO_CAPTIONS)
    data = _read_image(images, image.image_id)
    width, height = _checked_size(data)
    key = sample_key(image.image_id)
    sample = encode_sample(TrainingSample(image.image_id, width, height, image.groups))
    return SampleOffsets(
        key, tar.add(f"{key}.jpg", data), len(data), tar.add(f"{key}.json", sample), len(sample)
    )


def _read_image(images: Path, image_id: str) -> bytes:
    """The bytes of the file that an id names, which is always inside the folder."""
    outside = {"", ".", ".."} & {image_id} or {"/", "\\", "\0"} & set(image_id)
    if outside or len(image_id) > LONGEST_ID:
        raise UserError(
            f"image id {image_id[:LONGEST_ID]!r} of the captions names no file of {images}; "
            "ids are file names without '.jpg'"
        )
    for name in file_names(image_id):
        path = images / name
        try:
            if path.is_file():
                return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    raise _LeftOutError(NO_IMAGE)


def _checked_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels of a JPEG that decodes to its end."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            picture.load()
            return picture.width, picture.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _LeftOutError(CORRUPT) from error


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
