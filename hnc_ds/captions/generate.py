"""Scene graphs -> captions.jsonl: parallel over images, resumable, the same bytes every time.

    hnc-ds generate --scene-graphs train_sceneGraphs.json --out train.captions.jsonl.gz

One line per image, in the order of the input (records.ImageCaptions), and OUT.stats.json with
the counts. This process only cuts the input into undecoded graphs and writes; workers decode,
generate and compress. What one image gets depends on the seed and its id alone.
"""

import gzip
import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec
from tqdm import tqdm

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.json_members import Member
from hnc_ds.captions.negative_types import NEGATIVE_TYPES
from hnc_ds.captions.parts import Parts, write_part
from hnc_ds.captions.scene_graphs import ReadCounts, decode_scene_graph, scene_graph_members
from hnc_ds.captions.statements import Naming
from hnc_ds.config import GenerateConfig
from hnc_ds.errors import UserError, did_you_mean

VERSION = 1
"""Raise it when the same graphs would now give other captions: parts of older ones are dropped."""

CHUNK_IMAGES = 64
PART_CHUNKS = 32
"""A part holds 64 * 32 images: seconds of work, which is what a kill can cost."""

CHUNKS_IN_FLIGHT = 4
"""Chunks per worker that wait or are being worked on; bounds the memory."""


class _Settings(msgspec.Struct, frozen=True):
    """What the captions depend on."""

    version: int
    source: str
    source_sha256: str
    types: tuple[str, ...]
    per_image: int
    seed: int
    naming: Naming
    compressed: bool


class _Counts(msgspec.Struct):
    """What was made of some images."""

    images: int = 0
    images_without_captions: int = 0
    groups: dict[str, int] = {}
    """Per kind of positive."""
    negatives: dict[str, int] = {}
    """Per type."""
    irregular: dict[str, int] = {}
    """What the graphs held that had to be dropped or mended, per reason."""

    def add(self, other: "_Counts") -> None:
        self.images += other.images
        self.images_without_captions += other.images_without_captions
        self.groups = dict(Counter(self.groups) + Counter(other.groups))
        self.negatives = dict(Counter(self.negatives) + Counter(other.negatives))
        self.irregular = dict(Counter(self.irregular) + Counter(other.irregular))


class _Job(NamedTuple):
    path: Path
    settings: _Settings
    members: list[Member]


def generate(config: GenerateConfig) -> None:
    """Write the captions of all images of a file of scene graphs, and their statistics.

    A run that was killed continues where it was when started again with the same settings.

    Raises:
        UserError: Unknown type, unreadable or broken input, existing output, disk full.
    """
    types = _check(config)
    stats_path = stats_path_of(config.out)
    settings = _Settings(
        version=VERSION,
        source=config.scene_graphs.name,
        source_sha256=_sha256(config.scene_graphs),
        types=types,
        per_image=config.per_image,
        seed=config.seed,
        naming=Naming(config.described, config.by_colour),
        compressed=config.out.suffix == ".gz",
    )
    parts = Parts(config.out, msgspec.json.encode(settings))
    read = ReadCounts()
    count = _write_parts(config, settings, parts, read)
    total = _total(parts, count)
    total.add(_Counts(irregular=dict(read.irregular)))
    if not total.images:
        parts.remove()
        raise UserError(f"{config.scene_graphs}: holds no images")
    write_part(stats_path, [_stats_json(settings, total)])
    parts.join(count)
    parts.remove()
    print(_summary(config.out, types, total))


def stats_path_of(out: Path) -> Path:
    """train.captions.jsonl.gz -> train.captions.stats.json"""
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".stats.json")


def _check(config: GenerateConfig) -> tuple[str, ...]:
    """Everything that can be refused before work starts; gives the types in the table's order."""
    for name in config.types:
        if name not in NEGATIVE_TYPES:
            raise UserError(
                f"types: unknown negative type '{name}'{did_you_mean(name, NEGATIVE_TYPES)}; "
                f"there are {', '.join(NEGATIVE_TYPES)}"
            )
    if not config.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"out is {config.out}; its name must end in .jsonl or .jsonl.gz")
    if not config.scene_graphs.is_file():
        raise UserError(
            f"{config.scene_graphs}: no such file; give GQA's train_sceneGraphs.json or one of "
            "that layout"
        )
    if config.out.exists() and not config.overwrite:
        raise UserError(f"{config.out}: exists already; pass --overwrite to make it anew")
    return tuple(name for name in NEGATIVE_TYPES if not config.types or name in config.types)


def _write_parts(
    config: GenerateConfig, settings: _Settings, parts: Parts, read: ReadCounts
) -> int:
    """Make the parts that are not there yet; gives the number of all."""
    part = parts.finished()
    members = scene_graph_members(config.scene_graphs, read)
    skipped = sum(1 for _ in islice(members, part * PART_CHUNKS * CHUNK_IMAGES))
    if skipped:
        print(f"{config.out}: {skipped:,} images are done already, continuing after them")
    with tqdm(desc="captions", unit=" images", initial=skipped, disable=None) as progress:
        results = _results(config, settings, members)
        while chunk := list(islice(results, PART_CHUNKS)):
            counts = _Counts()
            for _, found in chunk:
                counts.add(found)
            parts.add(part, (content for content, _ in chunk), msgspec.json.encode(counts))
            part += 1
            progress.update(counts.images)
    return part


def _results(
    config: GenerateConfig, settings: _Settings, members: Iterator[Member]
) -> Iterator[tuple[bytes, _Counts]]:
    """Finished chunks, in the order of the input, with few chunks in memory."""
    jobs = _jobs(config.scene_graphs, settings, members)
    if config.workers == 1:
        yield from map(_make_chunk, jobs)
        return
    waiting: deque[Future[tuple[bytes, _Counts]]] = deque()
    with ProcessPoolExecutor(config.workers, get_context("spawn")) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(_make_chunk, job))
                if len(waiting) >= CHUNKS_IN_FLIGHT * config.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{config.out}: a worker was killed, perhaps for lack of memory; run it again with "
                "fewer --workers, finished parts are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _jobs(path: Path, settings: _Settings, members: Iterator[Member]) -> Iterator[_Job]:
    while chunk := list(islice(members, CHUNK_IMAGES)):
        yield _Job(path, settings, chunk)


def _make_chunk(job: _Job) -> tuple[bytes, _Counts]:
    """The lines of some images, compressed if wanted, and what was counted on the way."""
    lines = []
    groups: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    irregular: Counter[str] = Counter()
    without = 0
    settings = job.settings
    for member in job.members:
        graph = decode_scene_graph(job.path, member, irregular)
        captions = caption_groups(
            graph, settings.types, settings.seed, settings.per_image, settings.naming
        )
        lines.append(msgspec.json.encode(captions) + b"\n")
        without += not captions.groups
        groups.update(group.type for group in captions.groups)
        negatives.update(n.type for group in captions.groups for n in group.negatives)
    counts = _Counts(len(lines), without, groups, negatives, irregular)
    content = b"".join(lines)
    # Gzip files may be written one after the other: together they are one gzip file.
    return gzip.compress(content, mtime=0) if settings.compressed else content, counts


def _total(parts: Parts, count: int) -> _Counts:
    total = _Counts()
    for number in range(count):
        total.add(msgspec.json.decode(parts.stats(number), type=_Counts))
    return total


def _stats_json(settings: _Settings, counts: _Counts) -> bytes:
    groups = {"all": sum(counts.groups.values()), **dict(sorted(counts.groups.items()))}
    content = {
        "settings": settings,
        "images": counts.images,
        "images_without_captions": counts.images_without_captions,
        "groups": groups,
        "negatives": {name: counts.negatives.get(name, 0) for name in settings.types},
        "irregular": dict(sorted(counts.irregular.items())),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _summary(out: Path, types: tuple[str, ...], counts: _Counts) -> str:
    negatives = ", ".join(f"{name} {counts.negatives.get(name, 0):,}" for name in types)
    met = sorted(counts.irregular.items())
    irregular = ", ".join(f"{number:,} {reason}" for reason, number in met)
    told = f"; met {irregular}" if irregular else ""
    return (
        f"{out}: {counts.images:,} images, {sum(counts.groups.values()):,} caption groups; "
        f"negatives: {negatives}{told}"
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
