"""The first pass over all graphs: counts the proposed changes for the balance (balance.py).

    hnc-ds tables --scene-graphs train_sceneGraphs.json --out tables.json.gz

writes these counts, with frequencies of names, attributes and relations, for use on other splits.
"""

import gzip
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec
from tqdm import tqdm

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.captions.balance import Balance, Counts, Keys, Tally
from hnc_ds.captions.captions_file import in_order
from hnc_ds.captions.formats.json_members import Member
from hnc_ds.captions.formats.scene_graphs import (
    ReadCounts,
    decode_scene_graph,
    read_scene_graphs,
    scene_graph_members,
)
from hnc_ds.captions.groups import proposed_keys
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import Tables, count_tables, held_out
from hnc_ds.config import TablesConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.records import SceneGraph


def write_tables(config: TablesConfig) -> None:
    """Count a file of scene graphs and write the tables.

    Raises:
        UserError: A validation or test file; unreadable or broken input; an output that exists, has
            another extension or cannot be written.
    """
    _check(config)
    graphs = read_scene_graphs(config.scene_graphs)
    graphs = tqdm(graphs, desc="tables", unit=" images", disable=None)
    tables = count_tables(graphs, config.scene_graphs.name)
    if not tables.images:
        raise UserError(f"{config.scene_graphs}: holds no images")
    changes = count_changes(
        config.scene_graphs, DEFAULT_TYPES, 0, Options(balance="data"), config.workers
    )
    tables = msgspec.structs.replace(tables, changes=changes)
    content = msgspec.json.encode(tables)
    with writing(config.out):
        config.out.parent.mkdir(parents=True, exist_ok=True)
        if config.out.suffix == ".gz":
            content = gzip.compress(content, mtime=0)  # without a timestamp: reproducible bytes
        atomic_write(config.out, content)
    print(_summary(config.out, tables))


def count_changes(
    path: Path, types: tuple[str, ...], seed: int, options: Options, workers: int
) -> Balance:
    """The kept fraction of each change, so that words balance over the graphs of a file.

    Args:
        path: File of scene graphs.
        types: Negative types.
        seed: Seed for their draws.
        options: Settings of the captions.
        workers: Number of processes; does not affect the counts.

    Raises:
        UserError: Unreadable or broken graphs; a worker was killed.
    """
    members = scene_graph_members(path, ReadCounts())
    make = partial(_count_chunk, path, types, seed, options)
    total = Tally()
    with tqdm(desc="counts", unit=" images", disable=None) as progress:
        for images, keys_KL, counts_K2 in in_order(path, members, make, workers):
            total.add_counts(keys_KL, counts_K2)
            progress.update(images)
    return total.balance()


def tally_of(
    graphs: Iterable[SceneGraph], types: tuple[str, ...], seed: int, options: Options
) -> Tally:
    """Counts of the changes that graphs propose; the graphs are iterated once."""
    tally = Tally()
    for graph in graphs:
        tally.add(*proposed_keys(graph, types, seed, options))
    return tally


def _count_chunk(
    path: Path, types: tuple[str, ...], seed: int, options: Options, members: list[Member]
) -> tuple[int, Keys, Counts]:
    """Worker function: counts of a chunk of graphs."""
    irregular: Counter[str] = Counter()  # reported by the second pass
    graphs = (decode_scene_graph(path, member, irregular) for member in members)
    return (len(members), *tally_of(graphs, types, seed, options).counts())


def _check(config: TablesConfig) -> None:
    """Checks before any work starts."""
    if not config.out.name.endswith((".json", ".json.gz")):
        raise UserError(f"out is {config.out}; its name must end in .json or .json.gz")
    if not config.scene_graphs.is_file():
        raise UserError(f"{config.scene_graphs}: no such file; give GQA's train_sceneGraphs.json")
    if held_out(config.scene_graphs.name) and not config.any_split:
        raise UserError(
            f"{config.scene_graphs}: is a validation or test file by its name; tables come from "
            "training graphs, so that test images do not influence training captions; give the "
            "training file, or pass --any-split"
        )
    if config.out.exists() and not config.overwrite:
        raise UserError(f"{config.out}: exists already; pass --overwrite to replace it")


def _summary(out: Path, tables: Tables) -> str:
    pairs = sum(len(found) for found in tables.attributes.values())
    return (
        f"{out}: {counted(tables.images, 'image')}, {len(tables.attributes):,} names with "
        f"{pairs:,} attributes, {len(tables.subjects):,} predicates, {len(tables.counts):,} names "
        "counted"
    )
