"""Write captions.jsonl in parallel: resumable, the same bytes for any number of workers.

What a stage makes of single images is its own matter. Here chunks of images go to worker processes
and come back in order, and parts.py keeps what is finished through a kill. Beside the file lies
OUT.stats.json.
"""

import gc
import gzip
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from tqdm import tqdm

from hnc_ds.captions.caption_stats import Counts, stats_json, stats_path_of, summary
from hnc_ds.captions.coverage import Coverage
from hnc_ds.captions.parts import PARTS_SUFFIX, JoinedElsewhere, Parts, write_part
from hnc_ds.errors import UserError, counted
from hnc_ds.reading import decode_json
from hnc_ds.records import ImageCaptions
from hnc_ds.whole_files import remove_leftovers
from hnc_ds.worker_processes import WorkerPool

CHUNK_IMAGES = 64
PART_CHUNKS = 32
"""A part holds 64 * 32 images: seconds of work, which is what a kill can cost."""

CHUNKS_IN_FLIGHT = 4
"""Chunks per worker that wait or are being worked on; bounds the memory."""

COMPRESSION = 6
"""A higher level takes longer than making the captions and saves 2 %."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
Chunk = tuple[bytes, Counts]
"""Lines of some images, compressed if wanted, and what they hold."""
Make = Callable[[list[_Item]], Chunk]
"""Makes a chunk; goes to the workers, so it is a function of a module or a partial of one."""


class Settings(Protocol):
    """What the captions depend on: a msgspec struct, so that it can be written down."""

    @property
    def source(self) -> str:
        """Name of the file they are made from."""

    @property
    def types(self) -> tuple[str, ...]:
        """Negative types, in the order of reports."""


def check_name(out: Path) -> None:
    """Refuse a name that tells no kind of file.

    Raises:
        UserError: It does not.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"out is {out}; its name must end in .jsonl or .jsonl.gz")


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse a name that tells no kind of file, and a file that is there.

    Raises:
        UserError: Either.
    """
    check_name(out)
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; pass --overwrite to make it anew")


def write_captions(
    out: Path,
    settings: Settings,
    items: Iterator[_Item],
    make: Make[_Item],
    workers: int,
    irregular: Counter[str],
    place: tuple[int, int] = (0, 1),
) -> Counts | None:
    """Write the file and its statistics; a run that was killed goes on where it was.

    Args:
        out: captions.jsonl or captions.jsonl.gz; the caller holds its lock.
        settings: Parts that were made with other ones are dropped.
        items: One for each image, in the order of the input; cheap, as they are all iterated.
        make: What a worker does.
        workers: Processes; 1 works in this one.
        irregular: What ``items`` met by the time that it is exhausted.
        place: Number of this process, and how many share the work on a shared disk.

    Returns:
        What the file holds; None where other processes have parts to make yet, or have put the
        file together.

    Raises:
        UserError: No images, disk full, a worker was killed; as ``items`` and ``make``.
    """
    remove_leftovers(out, alone=place[1] == 1)
    parts = Parts(out, msgspec.json.encode(settings), shared=place[1] > 1)
    number = _write_parts(out, parts, items, make, workers, place)
    total = None
    if len(parts.finished()) == number:
        with suppress(JoinedElsewhere):
            total = _join(out, parts, number, settings, irregular)
    if total is not None:
        print(summary(out, settings.types, total))
    elif out.exists():
        print(f"{out}: put together by another process")
    else:
        print(f"{out}: part {place[0]} of {place[1]} is done, others are not")
    return total


def holds_captions_of(out: Path, settings: Settings) -> bool:
    """Whether the file is there, whole, and was made with these settings."""
    try:
        told = msgspec.json.decode(stats_path_of(out).read_bytes())["settings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # msgspec's are ValueErrors
        return False
    unfinished = out.with_name(out.name + PARTS_SUFFIX).exists()
    return (
        out.is_file()
        and not unfinished
        and told == msgspec.json.decode(msgspec.json.encode(settings))
    )


def _join(
    out: Path, parts: Parts, number: int, settings: Settings, irregular: Counter[str]
) -> Counts:
    """Put the parts together, once all are there."""
    total = Counts(irregular=dict(irregular))
    for part in range(number):
        again = "remove the folder, and run it again"
        total.add(decode_json(parts.stats(part), Counts, parts.folder, again))
    if not total.images:
        parts.remove()
        raise UserError(f"{settings.source}: holds no images; {out} is not written")
    write_part(stats_path_of(out), [stats_json(settings, settings.types, total)])
    parts.join(number)
    parts.remove()
    return total


def chunk_of(
    images: Iterable[tuple[ImageCaptions, Coverage]], irregular: Counter[str], compressed: bool
) -> Chunk:
    """The lines and counts of some images.

    Args:
        images: With what they cover; made while they are iterated.
        irregular: Is read after that.
        compressed: Whether the file is gzipped.
    """
    lines = []
    groups: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    without = 0
    coverage = Coverage()
    for captions, covered in images:
        lines.append(msgspec.json.encode(captions) + b"\n")
        without += not captions.groups
        groups.update([group.type for group in captions.groups])
        negatives.update([n.type for group in captions.groups for n in group.negatives])
        coverage.add(covered)
    content = b"".join(lines)
    # Gzip files may be written one after the other: together they are one gzip file.
    written = gzip.compress(content, COMPRESSION, mtime=0) if compressed else content
    return written, Counts(len(lines), without, groups, negatives, dict(irregular), coverage)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """What an image leaves behind has no cycles; to look for some takes a tenth of the time.

    Workers do without it for good. One that started anew after each chunk would look through all
    that is kept, such as the caches of words.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def sha256_of(path: Path) -> str:
    """Of a file's bytes.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _write_parts(
    out: Path,
    parts: Parts,
    items: Iterator[_Item],
    make: Make[_Item],
    workers: int,
    place: tuple[int, int],
) -> int:
    """Make those of this process's parts that are not there yet; gives the number of all."""
    done, part_images = parts.finished(), PART_CHUNKS * CHUNK_IMAGES
    if done:
        print(
            f"{out}: {counted(len(done), 'part is', 'parts are')} done already, of "
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
        chunks = in_order(out, ours(), make, workers)
        while some := list(islice(chunks, PART_CHUNKS)):
            counts = Counts()
            for _, found in some:
                counts.add(found)
            content = (content for content, _ in some)
            parts.add(next(numbers), content, msgspec.json.encode(counts))
            progress.update(counts.images)
    return -(-seen // part_images)


def in_order(
    path: Path, items: Iterator[_Item], make: Callable[[list[_Item]], _Made], workers: int
) -> Iterator[_Made]:
    """What workers make of chunks of items, in the order of the input, with few in memory.

    Args:
        path: Of the file that the work is about, for messages.
        items: Cheap, as this process iterates them.
        make: Goes to the workers.
        workers: Processes; 1 works in this one.

    Raises:
        UserError: A worker was killed; as ``items`` and ``make``.
    """
    lists = iter(lambda: list(islice(items, CHUNK_IMAGES)), [])
    if workers == 1:
        with no_garbage_collection():
            yield from map(make, lists)
        return
    waiting: deque[Future[_Made]] = deque()
    with WorkerPool(workers, gc.disable) as pool:
        try:
            for some in lists:
                waiting.append(pool.submit(make, some))
                if len(waiting) >= CHUNKS_IN_FLIGHT * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{path}: a worker was killed, perhaps for lack of memory; run it again with "
                "fewer --workers, finished parts are kept"
            ) from error
