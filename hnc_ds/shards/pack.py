"""``hnc-ds pack``: images and captions -> WebDataset tar shards and their index.

Shard n takes the images n*S ... n*S+S-1 of the captions file, so its bytes depend neither on the
number of processes nor on other shards; headers carry no time, owner or host. Files are written
atomically, a shard's index after its tar, so that a shard with an index is complete.

A stopped run resumes with the missing shards, as long as captions, images and settings are those in
source.json; index.json replaces it at the end. Several processes may share the work (--part); the
one that finds all shards done writes the index.
"""

import hashlib
import io
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from tqdm import tqdm

from hnc_ds.captions.caption_stats import without_negatives
from hnc_ds.captions.formats.caption_rows import NegativeColumns
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.config import PackConfig
from hnc_ds.config.checks import read_part
from hnc_ds.errors import UserError, counted
from hnc_ds.images import JPEG, CorruptImage, as_rgb, open_image
from hnc_ds.output_lock import only_writer
from hnc_ds.records import ImageCaptions, TrainingSample
from hnc_ds.shards.format import (
    FORMAT_VERSION,
    INDEX_NAME,
    DatasetIndex,
    SampleOffsets,
    ShardIndex,
    ShardSummary,
    encode_sample,
    read_shard_index,
    sample_key,
    shard_file,
    shard_index_path,
)
from hnc_ds.shards.image_folders import ImageFile, ImageFolders, read_image, same_image
from hnc_ds.shards.inputs import (
    SOURCE_NAME,
    check_pack,
    fingerprint,
    folders_of,
    is_finished,
    leave_no_trace,
    prepare,
)
from hnc_ds.shards.negatives import OF_FOLDER, OF_SHARD, SeenAbouts
from hnc_ds.worker_processes import map_in_order

NO_CAPTIONS = "no captions"
NO_IMAGE = "no image"
"""Reasons for leaving out an image, in addition to CorruptImage's faults."""

ENCODING: dict[str, Any] = {"quality": 95, "subsampling": 0}
"""JPEG settings for other formats: full chroma, without visible loss."""


def write_shard(
    captions: Iterable[tuple[ImageCaptions, Sequence[ImageFile]]], shard: Path
) -> ShardIndex:
    """Write ``shard`` and its index.

    JPEGs are decoded once and copied byte for byte; other images are encoded as JPEG. Images
    without captions, without a file, or that cannot be decoded are left out and listed in the
    index.

    Args:
        captions: Images and their files (``ImageFolders.find``), in the order of the tar.
        shard: Path of the tar; an existing one is replaced.

    Raises:
        UserError: Files of one image differ, a file cannot be read, or the disk is full.
    """
    offsets: list[SampleOffsets] = []
    groups = plain = reencoded = 0
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
            plain += sum(not group.negatives for group in image.groups)
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
        about=abouts.summary(),
        groups_without_negatives=plain,
    )
    with shard_file(shard_index_path(shard)) as file:
        file.write(msgspec.json.encode(index))
    return index


class _LeftOutError(Exception):
    """An image is left out of the shard; the text is the reason."""


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


def _read_image(
    image: ImageCaptions, files: Sequence[ImageFile]
) -> tuple[bytes, bool, tuple[int, int]]:
    """JPEG bytes for the tar, whether they are the file's own, and (width, height)."""
    if not image.groups:
        raise _LeftOutError(NO_CAPTIONS)
    if not files:
        raise _LeftOutError(NO_IMAGE)
    try:
        if (data := read_image(same_image(files))) is None:
            raise _LeftOutError(NO_IMAGE)
        return as_jpeg(data)
    except CorruptImage as error:
        raise _LeftOutError(error.fault) from error
    except OSError as error:
        raise UserError(f"{files[0]}: cannot be read ({error.strerror})") from error


def as_jpeg(data: bytes) -> tuple[bytes, bool, tuple[int, int]]:
    """An image as JPEG, whether it was one, and its (width, height) in pixels.

    Raises:
        CorruptImage: It cannot be decoded completely, or is of an unsupported format.
    """
    image = open_image(data)
    rgb = as_rgb(image)
    if image.format in JPEG:
        return data, True, image.size
    file = io.BytesIO()
    rgb.save(file, "JPEG", **ENCODING)
    return file.getvalue(), False, image.size


class _Tar:
    """A tar writer that reports member offsets; ustar headers, PAX ones for long names."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a file; returns the offset of its data."""
        member = tarfile.TarInfo(name)  # time, user and group are 0
        member.size = len(data)
        member.mode = 0o644
        self._write(member.tobuf(tarfile.PAX_FORMAT))
        offset = self.size
        self._write(data)
        self._pad_to(tarfile.BLOCKSIZE)
        return offset

    def finish(self) -> None:
        """Write the end mark: two empty blocks, padded to a record."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad_to(tarfile.RECORDSIZE)

    def _pad_to(self, unit: int) -> None:
        self._write(bytes(-self.size % unit))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)


LARGEST_SHARE_LEFT_OUT = 0.01
"""Allowed share of images with captions that are left out for one reason."""
HOPELESS_SHARD = 100
"""Packing stops at a shard of at least so many images without any file: the folder is wrong."""


def pack(config: PackConfig) -> None:
    """Pack every image that has captions into tar shards; JPEGs keep their bytes.

    Raises:
        UserError: Input is missing, empty or broken; an id occurs twice or leaves the image folder;
            more than 1 % of the images are missing or corrupt (complete shards are kept, without an
            index.json); --out is of another source or in use; the disk is full.
    """
    if config.check:
        print(check_pack(config))
        return
    folders = folders_of(config)
    source = fingerprint(config, folders.digest)
    if is_finished(config, source):
        print(f"pack: {config.out} already holds these captions and images; nothing to do")
        return
    place = read_part(config.part)
    with only_writer(config.out, place):
        _pack(config, folders, source, *place)


def _pack(
    config: PackConfig, folders: ImageFolders, source: dict[str, str], part: int, parts: int
) -> None:
    if not prepare(config.out, source, shared=parts > 1):
        print(f"pack: {config.out}: finished by another process")
        return
    try:
        own, shards = _write_missing_shards(config, folders, part, parts)
        totals = own if parts == 1 else _all_shards(config, shards)
        if totals is None:
            print(f"pack: {config.out}: part {part} of {parts} is done, others are not")
            return
        _remove_empty_shards(config.out, totals)
        _refuse_if_hopeless(config, folders, totals)
    except UserError:
        if parts == 1:
            leave_no_trace(config.out)
        raise
    _finish(config.out, totals, source)
    print(_summary(config.out, totals))


@dataclass(frozen=True)
class _Task:
    """One shard to write; captions are compressed JSON, as many tasks wait in memory."""

    shard: Path
    captions: tuple[bytes, ...]
    images: tuple[tuple[ImageFile, ...], ...]
    """The files of each image (``ImageFolders.find``)."""


@dataclass
class _Totals:
    """Sums over the shards so far."""

    shards: list[ShardSummary] = field(default_factory=list)
    groups: int = 0
    negatives: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """The id of one left-out image per reason."""
    reencoded: int = 0
    abouts: SeenAbouts = field(default_factory=lambda: SeenAbouts(OF_FOLDER))
    plain: int = 0
    """Groups without negatives."""

    def add(self, shard: ShardIndex) -> None:
        self.shards.append(shard.summary)
        self.groups += shard.groups
        self.negatives.update(shard.negatives)
        self.reencoded += shard.reencoded
        self.abouts.add_shard(shard.negatives, shard.about)
        self.plain += shard.groups_without_negatives
        for reason, ids in shard.skipped.items():
            self.skipped[reason] += len(ids)
            self.examples.setdefault(reason, ids[0])

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)


def _write_missing_shards(
    config: PackConfig, folders: ImageFolders, part: int, parts: int
) -> tuple[_Totals, int]:
    """Write the missing shards of one part; returns their sums, and the number of all shards."""
    totals = _Totals()
    shards = 0

    def ours() -> Iterator[_Task]:
        nonlocal shards
        for task in _tasks(config, folders):
            if shards % parts == part:
                yield task
            shards += 1

    with tqdm(desc="pack", unit=" images", disable=None) as bar:
        for shard in map_in_order(_do, ours(), config.workers, config.out, in_flight=2):
            missing = len(shard.skipped.get(NO_IMAGE, ()))
            seen = shard.summary.samples + sum(map(len, shard.skipped.values()))
            if missing == seen >= HOPELESS_SHARD:
                raise UserError(
                    f"{folders}: has none of the {seen} images of {shard.summary.file}, "
                    f"e.g. {shard.skipped[NO_IMAGE][0]}.jpg; check --images and --captions"
                )
            totals.add(shard)
            bar.update(seen)
    return totals, shards


def _all_shards(config: PackConfig, shards: int) -> _Totals | None:
    """Sums over the shards of all parts; None while a shard is missing."""
    totals = _Totals()
    for number in range(shards):
        shard = _complete(_shard_path(config, number))
        if shard is None:
            return None
        totals.add(shard)
    return totals


def _shard_path(config: PackConfig, number: int) -> Path:
    return config.out / f"shard-{number:06}.tar"


def _tasks(config: PackConfig, folders: ImageFolders) -> Iterator[_Task]:
    """Read the captions and split them into shards."""
    known: set[str] = set()
    waiting: list[tuple[bytes, tuple[ImageFile, ...]]] = []
    number = 0
    columns = NegativeColumns(config.negative_columns, config.negative_type)

    def task() -> _Task:
        captions, images = zip(*waiting, strict=True)
        return _Task(_shard_path(config, number), captions, images)

    for image in read_captions(config.captions, columns, config.split):
        if image.image_id in known:
            raise UserError(f"{config.captions}: image {image.image_id} occurs twice")
        known.add(image.image_id)
        captions = zlib.compress(msgspec.json.encode(image), level=1)
        waiting.append((captions, folders.find(image.image_id)))
        if len(waiting) == config.samples_per_shard:
            yield task()
            number, waiting = number + 1, []
    if waiting:
        yield task()


def _do(task: _Task) -> ShardIndex:
    if shard := _complete(task.shard):
        return shard
    captions = (
        msgspec.json.decode(zlib.decompress(image), type=ImageCaptions) for image in task.captions
    )
    return write_shard(zip(captions, task.images, strict=True), task.shard)


def _complete(shard: Path) -> ShardIndex | None:
    """The index of a shard that an earlier run completed."""
    try:
        index = read_shard_index(shard.parent, shard.name)
        return index if shard.stat().st_size == index.summary.bytes else None
    except (UserError, FileNotFoundError):
        return None


def _remove_empty_shards(out: Path, totals: _Totals) -> None:
    """Remove shards all of whose images were left out."""
    for shard in totals.shards:
        if shard.samples == 0:
            shard_index_path(out / shard.file).unlink(missing_ok=True)
            (out / shard.file).unlink(missing_ok=True)
    totals.shards = [shard for shard in totals.shards if shard.samples]


def _refuse_if_hopeless(config: PackConfig, folders: ImageFolders, totals: _Totals) -> None:
    images = totals.samples + totals.skipped.total() - totals.skipped[NO_CAPTIONS]
    if images == 0:
        raise UserError(f"{config.captions}: holds no captions, so there is nothing to pack")
    for reason in sorted(set(totals.skipped) - {NO_CAPTIONS}):
        if totals.skipped[reason] > LARGEST_SHARE_LEFT_OUT * images:
            raise UserError(
                f"{folders}: {totals.skipped[reason]} of {images} images left out for "
                f"'{reason}' (e.g. {totals.examples[reason]}), more than "
                f"{LARGEST_SHARE_LEFT_OUT:.0%}; repair the images, or check --images"
            )


def _finish(out: Path, totals: _Totals, source: dict[str, str]) -> None:
    """Write index.json, which marks the folder as finished."""
    index = DatasetIndex(
        format=FORMAT_VERSION,
        shards=tuple(totals.shards),
        samples=totals.samples,
        groups=totals.groups,
        negatives=dict(sorted(totals.negatives.items())),
        skipped=dict(sorted(totals.skipped.items())),
        source=source,
        reencoded=totals.reencoded,
        about=totals.abouts.summary(),
        groups_without_negatives=totals.plain,
    )
    with shard_file(out / INDEX_NAME) as file:
        file.write(msgspec.json.encode(index))
    (out / SOURCE_NAME).unlink(missing_ok=True)


def _summary(out: Path, totals: _Totals) -> str:
    shards = totals.shards
    megabytes = sum(shard.bytes for shard in shards) / 1e6
    reasons = ", ".join(
        f"{count} {reason}, e.g. {totals.examples[reason]}"
        for reason, count in sorted(totals.skipped.items())
    )
    return (
        f"pack: {counted(totals.samples, 'image')}, {counted(totals.groups, 'group')}"
        f"{without_negatives(totals.plain)}, "
        f"{counted(totals.negatives.total(), 'negative')} in {counted(len(shards), 'shard')} "
        f"({megabytes:.1f} MB) in {out}; {totals.skipped.total()} skipped"
        + (f" ({reasons})" if reasons else "")
        + (f"; {totals.reencoded} encoded as JPEG" if totals.reencoded else "")
    )
