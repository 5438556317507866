"""How often things, attributes and relations occur: what ``hnc-ds tables`` counts (first_pass.py).

Written for draws that follow the data. They are counted over training graphs alone: a draw for a
training caption that follows numbers of the validation images would carry these into training.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from hnc_ds.captions.balance import Balance
from hnc_ds.captions.formats.gzipped import open_unzipped
from hnc_ds.captions.language.attribute_classes import ALIASES
from hnc_ds.captions.language.nouns import singular
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json
from hnc_ds.records import SceneGraph

VERSION = 4
"""Raised when a field changes its meaning."""

LARGEST = 1 << 28
"""Bytes of a file of tables; those of GQA have 10 MB."""

HELD_OUT = frozenset(
    {"val", "valid", "validation", "trainval", "minival", "dev", "test", "testdev"}
)
"""Words of a file's name that say that it is not, or not only, for training."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # also cuts valSceneGraphs


class Tables(msgspec.Struct, frozen=True):
    """Counts over the graphs of one file. Names are those of the graphs; keys are sorted."""

    version: int
    source: str
    """Name of the file that was counted."""
    images: int
    """Its graphs."""
    attributes: dict[str, dict[str, int]]
    """Object name -> attribute (other spellings as one) -> objects that carry it."""
    subjects: dict[str, dict[str, int]]
    """Predicate -> name of the subject -> edges."""
    objects: dict[str, dict[str, int]]
    """Predicate -> name of the object -> edges."""
    counts: dict[str, dict[int, int]]
    """Singular name -> how many of it an image has, at least one -> images. Images where some of
    them share one box under a plural name do not tell how many there are, and are not counted."""
    changes: Balance = Balance(0, ())
    """What captions could be changed into what, and how much of it is kept."""


def count_tables(graphs: Iterable[SceneGraph], source: str = "") -> Tables:
    """The tables of some graphs. Memory holds the tables alone.

    Args:
        graphs: Is iterated once.
        source: Name of the file they come from.
    """
    attributes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    subjects: defaultdict[str, Counter[str]] = defaultdict(Counter)
    objects: defaultdict[str, Counter[str]] = defaultdict(Counter)
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    images = 0
    for graph in graphs:
        images += 1
        for found in graph.objects.values():
            attributes[found.name].update({ALIASES.get(a, a) for a in found.attributes})
            for relation in found.relations:
                subjects[relation.name][found.name] += 1
                objects[relation.name][graph.objects[relation.object].name] += 1
        for name, number in _numbers(graph):
            counts[name][number] += 1
    return Tables(
        version=VERSION,
        source=source,
        images=images,
        attributes=_sorted(attributes),
        subjects=_sorted(subjects),
        objects=_sorted(objects),
        counts={name: dict(sorted(counts[name].items())) for name in sorted(counts)},
    )


def read_tables(path: Path) -> Tables:
    """Read what ``first_pass.write_tables`` wrote.

    Raises:
        UserError: Missing, broken or other content, or tables of another version.
    """
    again = "make it with 'hnc-ds tables'"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {again}")
    with open_unzipped(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path}: has more than {LARGEST >> 20} MiB; {again}")
    tables = decode_json(content, Tables, path, again, "not tables of frequencies")
    if tables.version != VERSION:
        raise UserError(
            f"{path}: tables of version {tables.version}, this program reads {VERSION}; {again}"
        )
    return tables


def held_out(name: str) -> bool:
    """Whether a file's name says that it holds validation or test images."""
    return any(word.lower() in HELD_OUT for word in _WORD.findall(name))


def _numbers(graph: SceneGraph) -> Iterator[tuple[str, int]]:
    """(singular name, how many) for the names whose number the image tells."""
    boxes = Counter(found.name for found in graph.objects.values())
    in_groups = {singular(name) for name in boxes if singular(name) != name}
    for name, number in boxes.items():
        if singular(name) == name and name not in in_groups:
            yield name, number


def _sorted(table: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {key: dict(sorted(table[key].items())) for key in sorted(table) if table[key]}
