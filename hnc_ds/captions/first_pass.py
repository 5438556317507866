"""The first pass over all graphs: counts what captions could be changed into what (balance.py).

    hnc-ds tables --scene-graphs train_sceneGraphs.json --out tables.json.gz

keeps these counts for other splits, with how often things, attributes and relations occur.
"""

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from tqdm import tqdm

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
from hnc_ds.whole_files import write_whole, writing


def write_tables(config: TablesConfig) -> None:
    """Count a file of scene graphs and write the tables.

    Raises:
        UserError: A file that is not for training, unreadable or broken input, an output that
            exists, has another ending or cannot be written.
    """
    _check(config)
    graphs = _shown(read_scene_graphs(config.scene_graphs))
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
        # Without a time in the header the same tables are the same bytes.
        write_whole(config.out, gzip.compress(content, mtime=0) if _zipped(config.out) else content)
    print(_summary(config.out, tables))


def count_changes(
    path: Path, types: tuple[str, ...], seed: int, options: Options, workers: int
) -> Balance:
    """How much of each change is to be kept, so that words balance over the graphs of a file.

    Args:
        path: Of the scene graphs.
        types: Negative types that are to be made.
        seed: Of their draws.
        options: Of their captions.
        workers: Processes. The counts do not depend on it.

    Raises:
        UserError: As reading the graphs; a worker was killed.
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
    """What some graphs propose. Is iterated once."""
    tally = Tally()
    for graph in graphs:
        tally.add(*proposed_keys(graph, types, seed, options))
    return tally


def _count_chunk(
    path: Path, types: tuple[str, ...], seed: int, options: Options, members: list[Member]
) -> tuple[int, Keys, Counts]:
    """What a worker counts in some graphs."""
    irregular: Counter[str] = Counter()  # is told by the second pass
    graphs = (decode_scene_graph(path, member, irregular) for member in members)
    return (len(members), *tally_of(graphs, types, seed, options).counts())


def _check(config: TablesConfig) -> None:
    """Everything that can be refused before work starts."""
    if not config.out.name.endswith((".json", ".json.gz")):
        raise UserError(f"out is {config.out}; its name must end in .json or .json.gz")
    if not config.scene_graphs.is_file():
        raise UserError(f"{config.scene_graphs}: no such file; give GQA's train_sceneGraphs.json")
    if held_out(config.scene_graphs.name) and not config.any_split:
        raise UserError(
            f"{config.scene_graphs}: is not for training by its name; tables are counted over "
            "training graphs only, or draws for training would follow the images that a model is "
            "tested on; give the training file, or pass --any-split"
        )
    if config.out.exists() and not config.overwrite:
        raise UserError(f"{config.out}: exists already; pass --overwrite to make it anew")


def _shown(graphs: Iterator[SceneGraph]) -> Iterator[SceneGraph]:
    yield from tqdm(graphs, desc="tables", unit=" images", disable=None)


def _zipped(out: Path) -> bool:
    return out.suffix == ".gz"


def _summary(out: Path, tables: Tables) -> str:
    pairs = sum(len(found) for found in tables.attributes.values())
    return (
        f"{out}: {counted(tables.images, 'image')}, {len(tables.attributes):,} names with "
        f"{pairs:,} "
        f"attributes, {len(tables.subjects):,} predicates, {len(tables.counts):,} names counted"
    )
