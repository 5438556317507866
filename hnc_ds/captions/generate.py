"""Scene graphs -> captions.jsonl: parallel over images, resumable, reproducible to the byte.

    hnc-ds generate --scene-graphs train_sceneGraphs.json --out train.captions.jsonl.gz

Writes one line per image in the order of the input (records.ImageCaptions), and statistics to
OUT.stats.json. The main process splits the input into undecoded graphs and writes; workers decode,
generate and compress. The graphs are read twice, as the balance needs counts over the data set
(first_pass.py). An image's captions depend only on its graph, these counts, the settings and the
seed.
"""

from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import msgspec

from hnc_ds.captions.audit import audit, table
from hnc_ds.captions.balance import Balance, Quotas
from hnc_ds.captions.caption_stats import Counts, read_counts, stats_json, stats_path_of
from hnc_ds.captions.captions_file import (
    Chunk,
    check_name,
    chunk_of,
    holds_captions_of,
    open_parts,
    print_joined_elsewhere,
    write_captions,
)
from hnc_ds.captions.coverage import Coverage, coverage_of
from hnc_ds.captions.first_pass import count_changes
from hnc_ds.captions.formats.hnc_export import check_release_name, write_release
from hnc_ds.captions.formats.json_members import Member
from hnc_ds.captions.formats.scene_graphs import (
    ReadCounts,
    check_scene_graphs,
    decode_scene_graph,
    scene_graph_members,
)
from hnc_ds.captions.groups import captions_and_yields
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, FAMILIES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.parts import JoinedElsewhere, Parts, write_part
from hnc_ds.captions.tables import read_tables
from hnc_ds.captions.text_classifier import check_installed
from hnc_ds.config import GenerateConfig
from hnc_ds.config.checks import read_part
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.output_lock import only_writer
from hnc_ds.reading import sha256_of
from hnc_ds.records import ImageCaptions, SceneGraph

VERSION = 8
"""To be incremented when the same graphs give other captions; invalidates unfinished parts."""

AUDITED_IMAGES = 5000

COUNTS = "counts.json"
"""File of the first pass, in the folder of parts."""


class _Settings(msgspec.Struct, frozen=True):
    """Everything that determines the captions."""

    version: int
    source: str
    source_sha256: str
    types: tuple[str, ...]
    per_image: int
    seed: int
    by_colour: float
    open_world: bool
    tables_sha256: str
    compressed: bool
    balance: Literal["data", "image"] = "data"


def generate(config: GenerateConfig) -> None:
    """Write the captions of all images of a file of scene graphs, and their statistics.

    A killed run resumes when started again with the same settings.

    Raises:
        UserError: Unknown type, unreadable or broken input, existing output, disk full, output
            locked by another process.
    """
    if config.check is not None:
        print(check_scene_graphs(config.check))
        return
    types = _check(config)
    settings = _Settings(
        version=VERSION,
        source=config.scene_graphs.name,
        source_sha256=sha256_of(config.scene_graphs),
        types=types,
        per_image=config.per_image,
        seed=config.seed,
        by_colour=config.by_colour,
        open_world=config.open_world,
        tables_sha256=sha256_of(config.tables) if config.tables else "",
        compressed=config.out.suffix == ".gz",
        balance=config.balance,
    )
    follow_up = config.audit or config.hnc_json is not None
    if not (config.overwrite or follow_up) and holds_captions_of(config.out, settings):
        print(f"generate: {config.out} already contains these captions; nothing to do")
        return
    place = read_part(config.part)
    with only_writer(config.out, place):
        parts = open_parts(config.out, settings, config.overwrite, place)
        if parts is None:
            print(f"generate: {config.out} already contains these captions")
            _follow_up(config, settings, read_counts(config.out))
            return
        try:
            _write(config, settings, parts, place)
        except JoinedElsewhere:
            print_joined_elsewhere(config.out)


def _write(
    config: GenerateConfig, settings: _Settings, parts: Parts, place: tuple[int, int]
) -> None:
    """Write the captions, or a part of them.

    Raises:
        JoinedElsewhere: Other processes had all the work, and have finished.
    """
    counts = None
    if config.balance == "data":
        counts = config.tables or _counted(config, settings, parts)
    read = ReadCounts()
    members = scene_graph_members(config.scene_graphs, read)
    make = partial(_make_chunk, config.scene_graphs, config.tables, counts, settings)
    total = write_captions(parts, settings, members, make, config.workers, read.irregular, place)
    if total is not None:
        _follow_up(config, settings, total)


def _counted(config: GenerateConfig, settings: _Settings, parts: Parts) -> Path:
    """The counts of the first pass, in the folder of parts; computed unless an earlier run did.

    Jobs of an array may all compute the same counts, as none can wait for another.
    """
    path = parts.folder / COUNTS
    if path.is_file():
        return path
    options = _options(settings, None)
    found = count_changes(
        config.scene_graphs, settings.types, settings.seed, options, config.workers
    )
    return parts.keep(COUNTS, msgspec.json.encode(found))


def _follow_up(config: GenerateConfig, settings: _Settings, total: Counts) -> None:
    """Optional outputs that are made from the finished captions."""
    if config.hnc_json is not None:
        write_release(config.out, config.scene_graphs, config.hnc_json)
    if config.audit:
        found = audit(config.out, AUDITED_IMAGES, config.seed)
        write_part(stats_path_of(config.out), [stats_json(settings, settings.types, total, found)])
        print(table(found))


def _check(config: GenerateConfig) -> tuple[str, ...]:
    """Checks before any work starts; returns the types in the table's order."""
    types = named_types(config.types)
    if not config.scene_graphs.is_file():
        raise UserError(
            f"{config.scene_graphs}: no such file; give GQA's train_sceneGraphs.json or a file in "
            "its format"
        )
    check_name(config.out)
    if config.tables is not None:
        read_tables(config.tables)
    if config.hnc_json is not None:
        check_release_name(config.hnc_json)
        if config.hnc_json.exists() and not config.overwrite:
            raise UserError(f"{config.hnc_json}: exists already; pass --overwrite to replace it")
    if config.audit:
        check_installed()
    return types


def named_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """The types of the given names and families, in the table's order; the default types for none.

    Raises:
        UserError: There is no such type.
    """
    known = [*NEGATIVE_TYPES, *FAMILIES]
    chosen: set[str] = set()
    for name in names:
        if name not in known:
            raise UserError(
                f"types: unknown negative type '{name}'{did_you_mean(name, known)}; "
                f"there are {', '.join(NEGATIVE_TYPES)}, and the families {', '.join(FAMILIES)}"
            )
        chosen |= {*FAMILIES.get(name, (name,))}
    return tuple(name for name in NEGATIVE_TYPES if name in (chosen or DEFAULT_TYPES))


@lru_cache(maxsize=1)
def _options(settings: _Settings, tables: Path | None) -> Options:
    """Cached per worker, so that tables are read once and not sent with every chunk."""
    return Options(
        max_groups=settings.per_image,
        by_colour=settings.by_colour,
        open_world=settings.open_world,
        tables=read_tables(tables) if tables and settings.balance == "image" else None,
        balance=settings.balance,
    )


@lru_cache(maxsize=1)
def _quotas(counts: Path, is_tables: bool) -> Quotas:
    """Cached per worker."""
    if is_tables:
        return Quotas(read_tables(counts).changes)
    return Quotas(msgspec.json.decode(counts.read_bytes(), type=Balance))


def _make_chunk(
    path: Path, tables: Path | None, counts: Path | None, settings: _Settings, members: list[Member]
) -> Chunk:
    """Worker function: captions of a chunk of graphs."""
    irregular: Counter[str] = Counter()
    options = _options(settings, tables)
    quotas = _quotas(counts, counts == tables) if counts else None
    graphs = (decode_scene_graph(path, member, irregular) for member in members)

    def captions_of(graph: SceneGraph) -> tuple[ImageCaptions, Coverage]:
        captions, yields = captions_and_yields(
            graph, settings.types, settings.seed, options, quotas
        )
        return captions, coverage_of(graph, captions, yields)

    return chunk_of(map(captions_of, graphs), irregular, settings.compressed)
