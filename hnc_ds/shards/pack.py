"""Images and captions -> tar shards and their index: ``hnc-ds pack``.

Shard n takes the images n*S ... n*S+S-1 of the captions file, so its bytes do not depend on the
number of processes, nor on what became of other shards. A run that was stopped goes on with the
shards that are missing, as long as captions, images and settings are those that source.json
remembers; index.json replaces it when all is done. Several processes may share the work (--part);
whichever finds all shards done writes the index.
"""

import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tqdm import tqdm

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.negative_columns import NegativeColumns
from hnc_ds.config import PackConfig
from hnc_ds.config.checks import read_part
from hnc_ds.errors import UserError, counted
from hnc_ds.output_lock import only_writer
from hnc_ds.records import ImageCaptions
from hnc_ds.shards.abouts import OF_FOLDER, SeenAbouts
from hnc_ds.shards.check import check_pack
from hnc_ds.shards.folders import ImageFolders
from hnc_ds.shards.format import (
    FORMAT_VERSION,
    INDEX_NAME,
    DatasetIndex,
    ShardIndex,
    ShardSummary,
    read_shard_index,
    shard_index_path,
)
from hnc_ds.shards.source import SOURCE_NAME, fingerprint, is_finished, leave_no_trace, prepare
from hnc_ds.shards.write_shard import (
    NO_CAPTIONS,
    NO_IMAGE,
    shard_file,
    write_shard,
)
from hnc_ds.worker_processes import WorkerPool

LARGEST_SHARE_LEFT_OUT = 0.01
"""Of the images with captions, per reason; more means that something is wrong with the input."""
HOPELESS_SHARD = 100
"""A shard of so many images without one file means a wrong folder; nobody waits for the rest."""


def pack(config: PackConfig) -> None:
    """Pack every image that has captions, a JPEG with its original bytes, into tar shards.

    Args:
        config: Captions, images, and where the shards go.

    Raises:
        UserError: Missing, empty or broken input; an id twice or outside the image folder; more
            than 1 % of the images missing or corrupt (complete shards stay, without an index.json);
            a finished folder of another source; a full disk; another process packs into it.
    """
    if config.check:
        print(check_pack(config))
        return
    folders = ImageFolders(config.images)
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
    prepare(config.out, source, shared=parts > 1)
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
    print(_told(config.out, totals))


@dataclass(frozen=True)
class _Task:
    """One shard to write; captions are compressed JSON, for many tasks wait in memory."""

    shard: Path
    captions: tuple[bytes, ...]
    images: tuple[tuple[Path, ...], ...]
    """The files of each, as ``ImageFolders.find`` has them."""


@dataclass
class _Totals:
    """Sums over the shards so far."""

    shards: list[ShardSummary] = field(default_factory=list)
    groups: int = 0
    negatives: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """Per reason, the id of an image that was left out."""
    reencoded: int = 0
    abouts: SeenAbouts = field(default_factory=lambda: SeenAbouts(OF_FOLDER))

    def add(self, shard: ShardIndex) -> None:
        self.shards.append(shard.summary)
        self.groups += shard.groups
        self.negatives.update(shard.negatives)
        self.reencoded += shard.reencoded
        self.abouts.add_shard(shard.negatives, shard.about)
        for reason, ids in shard.skipped.items():
            self.skipped[reason] += len(ids)
            self.examples.setdefault(reason, ids[0])

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)


def _write_missing_shards(
    config: PackConfig, folders: ImageFolders, part: int, parts: int
) -> tuple[_Totals, int]:
    """Write those of one part of the shards; gives their sums, and the number of all shards."""
    totals = _Totals()
    shards = 0

    def ours() -> Iterator[_Task]:
        nonlocal shards
        for task in _tasks(config, folders):
            if shards % parts == part:
                yield task
            shards += 1

    with tqdm(desc="pack", unit=" images", disable=None) as bar:
        for shard in _run(ours(), config.workers):
            missing = len(shard.skipped.get(NO_IMAGE, ()))
            seen = shard.summary.samples + sum(map(len, shard.skipped.values()))
            if missing == seen >= HOPELESS_SHARD:
                raise UserError(
                    f"{folders}: none of the {seen} images of {shard.summary.file} is there, "
                    f"e.g. {shard.skipped[NO_IMAGE][0]}.jpg; check --images and --captions"
                )
            totals.add(shard)
            bar.update(seen)
    return totals, shards


def _all_shards(config: PackConfig, shards: int) -> _Totals | None:
    """The sums of what all parts wrote; None as long as a shard is missing."""
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
    """Read the captions once and cut them into shards."""
    known: set[str] = set()
    waiting: list[tuple[bytes, tuple[Path, ...]]] = []
    number = 0
    columns = NegativeColumns(config.negative_columns, config.negative_type)

    def task() -> _Task:
        captions, images = zip(*waiting, strict=True)
        return _Task(_shard_path(config, number), captions, images)

    for image in read_captions(config.captions, columns):
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


def _run(tasks: Iterable[_Task], workers: int) -> Iterator[ShardIndex]:
    """Do the tasks, ``workers`` at a time; results come in the order of the tasks."""
    if workers == 1:
        yield from map(_do, tasks)
        return
    waiting: deque[Future[ShardIndex]] = deque()
    with WorkerPool(workers) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(_do, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "pack: a worker process died, perhaps for want of memory; "
                "run the same command again, with fewer --workers"
            ) from error


def _do(task: _Task) -> ShardIndex:
    if shard := _complete(task.shard):
        return shard
    captions = (
        msgspec.json.decode(zlib.decompress(image), type=ImageCaptions) for image in task.captions
    )
    return write_shard(zip(captions, task.images, strict=True), task.shard)


def _complete(shard: Path) -> ShardIndex | None:
    """The index of a shard that an earlier run completed; its tar came first, so it is whole."""
    try:
        index = read_shard_index(shard.parent, shard.name)
        return index if shard.stat().st_size == index.summary.bytes else None
    except (UserError, FileNotFoundError):
        return None


def _remove_empty_shards(out: Path, totals: _Totals) -> None:
    """Of shards all of whose images were left out, none is kept."""
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
                f"{LARGEST_SHARE_LEFT_OUT:.0%}; mend the images, or check --images"
            )


def _finish(out: Path, totals: _Totals, source: dict[str, str]) -> None:
    """Write index.json, which makes the folder a finished one."""
    index = DatasetIndex(
        format=FORMAT_VERSION,
        shards=tuple(totals.shards),
        samples=totals.samples,
        groups=totals.groups,
        negatives=dict(sorted(totals.negatives.items())),
        skipped=dict(sorted(totals.skipped.items())),
        source=source,
        reencoded=totals.reencoded,
        about=totals.abouts.told(),
    )
    with shard_file(out / INDEX_NAME) as file:
        file.write(msgspec.json.encode(index))
    (out / SOURCE_NAME).unlink(missing_ok=True)


def _told(out: Path, totals: _Totals) -> str:
    shards = totals.shards
    megabytes = sum(shard.bytes for shard in shards) / 1e6
    reasons = ", ".join(
        f"{count} {reason}, e.g. {totals.examples[reason]}"
        for reason, count in sorted(totals.skipped.items())
    )
    return (
        f"pack: {counted(totals.samples, 'image')}, {counted(totals.groups, 'group')}, "
        f"{counted(totals.negatives.total(), 'negative')} in {counted(len(shards), 'shard')} "
        f"({megabytes:.1f} MB) in {out}; {totals.skipped.total()} skipped"
        + (f" ({reasons})" if reasons else "")
        + (f"; {totals.reencoded} that were no JPEG are one now" if totals.reencoded else "")
    )
