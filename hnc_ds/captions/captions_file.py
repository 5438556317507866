"""Write captions.jsonl in parallel: resumable, the same bytes for any number of workers.

Worker processes make the captions of chunks of images with the function of a stage; parts.py keeps
finished parts if the run is killed. OUT.stats.json is written next to the file.
"""

import gc
import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count, islice
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from tqdm import tqdm

from hnc_ds.atomic_files import remove_leftovers
from hnc_ds.captions.caption_stats import Counts, stats_json, stats_path_of, summary
from hnc_ds.captions.coverage import Coverage
from hnc_ds.captions.parts import JoinedElsewhere, Parts, write_part
from hnc_ds.errors import UserError, counted
from hnc_ds.reading import decode_json
from hnc_ds.records import ImageCaptions
from hnc_ds.worker_processes import map_in_order

CHUNK_IMAGES = 64
PART_CHUNKS = 32
"""Chunks in a part: 64 * 32 images, seconds of work, are lost when a run is killed."""

COMPRESSION = 6
"""Gzip level; a higher one takes longer than making the captions and saves 2 %."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
Chunk = tuple[bytes, Counts]
"""Lines of some images, compressed if the file is, and their counts."""
Make = Callable[[list[_Item]], Chunk]
"""Makes a chunk; must be picklable for the workers."""


class Settings(Protocol):
    """Everything the captions depend on; a msgspec struct."""

    @property
    def source(self) -> str:
        """Name of the input file."""

    @property
    def types(self) -> tuple[str, ...]:
        """Negative types, in the order of reports."""


def check_name(out: Path) -> None:
    """Check the suffix of the output.

    Raises:
        UserError: It is neither .jsonl nor .jsonl.gz.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"out is {out}; its name must end in .jsonl or .jsonl.gz")


def check_output(out: Path, overwrite: bool) -> None:
    """Check the suffix of the output, and that it does not exist unless it is to be overwritten.

    Raises:
        UserError: Wrong suffix, or an existing file.
    """
    check_name(out)
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; pass --overwrite to replace it")


def open_parts(
    out: Path, settings: Settings, overwrite: bool, place: tuple[int, int] = (0, 1)
) -> Parts | None:
    """The parts of an output that is to be written; those of a killed run are kept.

    Processes that share the work may join the parts at any moment, so what is looked at first
    matters: with parts the output is unfinished; else it was there before, or is complete.

    Args:
        out: captions.jsonl or captions.jsonl.gz; the caller holds its lock.
        settings: Parts of other settings are removed.
        overwrite: Replace a file of other captions. Not needed to continue a killed run.
        place: Number of this process, and number of processes that share the work, which is not
            combined with ``overwrite``.

    Returns:
        The parts; None if the file holds these captions already.

    Raises:
        UserError: Wrong suffix, another file of that name, parts of other settings that are shared.
    """
    check_name(out)
    content, shared = msgspec.json.encode(settings), place[1] > 1
    resumed, before = Parts.unfinished(out, content), out.exists()
    if not overwrite and holds_captions_of(out, settings):
        return None
    if before and not (overwrite or resumed):
        raise UserError(f"{out}: exists already; pass --overwrite to replace it")
    remove_leftovers(out, alone=not shared)
    try:
        parts = Parts(out, content, shared, resumed)
    except JoinedElsewhere:
        if out.exists():
            return None
        raise UserError(f"{out}: its parts have been removed; run it again") from None
    if shared and not before and out.exists():
        parts.remove()  # of an output that was joined meanwhile
        return None
    return parts


def write_captions(
    parts: Parts,
    settings: Settings,
    items: Iterator[_Item],
    make: Make[_Item],
    workers: int,
    irregular: Counter[str],
    place: tuple[int, int] = (0, 1),
) -> Counts | None:
    """Write the file and its statistics; continues a killed run.

    Args:
        parts: Of ``open_parts``.
        settings: What the captions depend on.
        items: One per image, in input order; cheap, as this process iterates all of them.
        make: Makes a chunk, in a worker.
        workers: Number of processes; 1 works in this process.
        irregular: Counts that are complete when ``items`` is exhausted.
        place: Number of this process, and number of processes that share the work.

    Returns:
        The counts of the file; None if other processes have unfinished parts, or have joined the
        file.

    Raises:
        UserError: No images, full disk, a killed worker; as ``items`` and ``make``.
    """
    number = _write_parts(parts, items, make, workers, place)
    if len(parts.finished()) == number:
        with suppress(JoinedElsewhere):
            total = _join(parts, number, settings, irregular)
            print(summary(parts.out, settings.types, total))
            return total
    if Parts.unfinished(parts.out):
        print(f"{parts.out}: part {place[0]} of {place[1]} is done, others are not")
    else:
        print_joined_elsewhere(parts.out)
    return None


def print_joined_elsewhere(out: Path) -> None:
    """State that the file is complete, by another process."""
    print(f"{out}: joined by another process")


def holds_captions_of(out: Path, settings: Settings) -> bool:
    """Whether the file exists, is complete, and was made with these settings."""
    try:
        recorded = msgspec.json.decode(stats_path_of(out).read_bytes())["settings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # msgspec's are ValueErrors
        return False
    return (
        out.is_file()
        and not Parts.unfinished(out)
        and recorded == msgspec.json.decode(msgspec.json.encode(settings))
    )


def _join(parts: Parts, number: int, settings: Settings, irregular: Counter[str]) -> Counts:
    """Join the parts once all are finished."""
    total = Counts(irregular=dict(irregular))
    for part in range(number):
        again = "remove the folder, and run it again"
        total.add(decode_json(parts.stats(part), Counts, parts.folder, again))
    if not total.images:
        parts.remove()
        raise UserError(f"{settings.source}: holds no images; {parts.out} is not written")
    write_part(stats_path_of(parts.out), [stats_json(settings, settings.types, total)])
    parts.join(number)
    parts.remove()
    return total


def chunk_of(
    images: Iterable[tuple[ImageCaptions, Coverage]], irregular: Counter[str], compressed: bool
) -> Chunk:
    """The lines and counts of some images.

    Args:
        images: Captions and coverage of each; iterated once.
        irregular: Read after the images.
        compressed: Whether the file is gzipped.
    """
    lines = []
    groups: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    without = plain = 0
    coverage = Coverage()
    for captions, covered in images:
        lines.append(msgspec.json.encode(captions) + b"\n")
        without += not captions.groups
        groups.update([group.type for group in captions.groups])
        negatives.update([n.type for group in captions.groups for n in group.negatives])
        plain += sum(not group.negatives for group in captions.groups)
        coverage.add(covered)
    content = b"".join(lines)
    # Concatenated gzip files are one gzip file.
    written = gzip.compress(content, COMPRESSION, mtime=0) if compressed else content
    counts = Counts(len(lines), without, groups, negatives, dict(irregular), coverage, plain)
    return written, counts


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: it takes a tenth of the time, and captions make no cycles.

    Workers disable it for their whole life.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _write_parts(
    parts: Parts,
    items: Iterator[_Item],
    make: Make[_Item],
    workers: int,
    place: tuple[int, int],
) -> int:
    """Write the missing parts of this process; returns the number of all parts."""
    done, part_images = parts.finished(), PART_CHUNKS * CHUNK_IMAGES
    if done:
        print(
            f"{parts.out}: {counted(len(done), 'part is', 'parts are')} done already, of "
            f"{part_images:,} images each"
        )

    def is_ours(part: int) -> bool:
        return part % place[1] == place[0] and part not in done

    seen = 0

    def ours() -> Iterator[_Item]:
        nonlocal seen
        for item in items:
            if is_ours(seen // part_images):
                yield item
            seen += 1

    numbers = filter(is_ours, count())
    with tqdm(desc="captions", unit=" images", disable=None) as progress:
        chunks = in_order(parts.out, ours(), make, workers)
        while some := list(islice(chunks, PART_CHUNKS)):
            counts = Counts()
            for _, chunk_counts in some:
                counts.add(chunk_counts)
            content = (content for content, _ in some)
            parts.add(next(numbers), content, msgspec.json.encode(counts))
            progress.update(counts.images)
    return -(-seen // part_images)


def in_order(
    path: Path, items: Iterator[_Item], make: Callable[[list[_Item]], _Made], workers: int
) -> Iterator[_Made]:
    """Yield what workers make of chunks of items, in the order of the input.

    Args and errors as ``map_in_order``.
    """
    chunks = iter(lambda: list(islice(items, CHUNK_IMAGES)), [])
    with no_garbage_collection() if workers == 1 else nullcontext():
        yield from map_in_order(make, chunks, workers, path, initializer=gc.disable)
