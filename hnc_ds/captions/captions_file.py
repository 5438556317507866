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
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from tqdm import tqdm

from hnc_ds.captions.caption_stats import Counts, stats_json, stats_path_of, summary
from hnc_ds.captions.parts import Parts, write_part
from hnc_ds.errors import UserError
from hnc_ds.records import ImageCaptions

CHUNK_IMAGES = 64
PART_CHUNKS = 32
"""A part holds 64 * 32 images: seconds of work, which is what a kill can cost."""

CHUNKS_IN_FLIGHT = 4
"""Chunks per worker that wait or are being worked on; bounds the memory."""

COMPRESSION = 6
"""A higher level takes longer than making the captions and saves 2 %."""

_Item = TypeVar("_Item")
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


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse a name that tells no kind of file, and a file that is there.

    Raises:
        UserError: Either.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"out is {out}; its name must end in .jsonl or .jsonl.gz")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; pass --overwrite to make it anew")


def write_captions(
    out: Path,
    settings: Settings,
    items: Iterator[_Item],
    make: Make[_Item],
    workers: int,
    irregular: Counter[str],
) -> Counts:
    """Write the file and its statistics; a run that was killed goes on where it was.

    Args:
        out: captions.jsonl or captions.jsonl.gz.
        settings: Parts that were made with other ones are dropped.
        items: One for each image, in the order of the input; cheap, as they are all iterated.
        make: What a worker does.
        workers: Processes; 1 works in this one.
        irregular: What ``items`` met by the time that it is exhausted.

    Raises:
        UserError: No images, disk full, a worker was killed; as ``items`` and ``make``.
    """
    parts = Parts(out, msgspec.json.encode(settings))
    count = _write_parts(out, parts, items, make, workers)
    total = Counts(irregular=dict(irregular))
    for number in range(count):
        total.add(msgspec.json.decode(parts.stats(number), type=Counts))
    if not total.images:
        parts.remove()
        raise UserError(f"{settings.source}: holds no images; {out} is not written")
    write_part(stats_path_of(out), [stats_json(settings, settings.types, total)])
    parts.join(count)
    parts.remove()
    print(summary(out, settings.types, total))
    return total


def chunk_of(images: Iterable[ImageCaptions], irregular: Counter[str], compressed: bool) -> Chunk:
    """The lines and counts of some images.

    Args:
        images: Made while they are iterated.
        irregular: Is read after that.
        compressed: Whether the file is gzipped.
    """
    lines = []
    groups: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    without = 0
    for captions in images:
        lines.append(msgspec.json.encode(captions) + b"\n")
        without += not captions.groups
        groups.update([group.type for group in captions.groups])
        negatives.update([n.type for group in captions.groups for n in group.negatives])
    content = b"".join(lines)
    # Gzip files may be written one after the other: together they are one gzip file.
    written = gzip.compress(content, COMPRESSION, mtime=0) if compressed else content
    return written, Counts(len(lines), without, groups, negatives, dict(irregular))


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
    out: Path, parts: Parts, items: Iterator[_Item], make: Make[_Item], workers: int
) -> int:
    """Make the parts that are not there yet; gives the number of all."""
    part = parts.finished()
    skipped = sum(1 for _ in islice(items, part * PART_CHUNKS * CHUNK_IMAGES))
    if skipped:
        print(f"{out}: {skipped:,} images are done already, continuing after them")
    with tqdm(desc="captions", unit=" images", initial=skipped, disable=None) as progress:
        chunks = _in_order(out, items, make, workers)
        while some := list(islice(chunks, PART_CHUNKS)):
            counts = Counts()
            for _, found in some:
                counts.add(found)
            parts.add(part, (content for content, _ in some), msgspec.json.encode(counts))
            part += 1
            progress.update(counts.images)
    return part


def _in_order(
    out: Path, items: Iterator[_Item], make: Make[_Item], workers: int
) -> Iterator[Chunk]:
    """Finished chunks, in the order of the input, with few of them in memory."""
    lists = iter(lambda: list(islice(items, CHUNK_IMAGES)), [])
    if workers == 1:
        with no_garbage_collection():
            yield from map(make, lists)
        return
    waiting: deque[Future[Chunk]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=gc.disable) as pool:
        try:
            for some in lists:
                waiting.append(pool.submit(make, some))
                if len(waiting) >= CHUNKS_IN_FLIGHT * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{out}: a worker was killed, perhaps for lack of memory; run it again with "
                "fewer --workers, finished parts are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
