"""Frequencies of names, attributes and relations, written by ``hnc-ds tables`` (first_pass.py).

They weight the draws of captions. They are counted over training graphs alone, so that validation
images do not influence training captions.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from hnc_ds.captions.balance import Balance
from hnc_ds.captions.language.attribute_classes import ALIASES
from hnc_ds.captions.language.nouns import singular
from hnc_ds.errors import UserError
from hnc_ds.reading import decode_json, open_unzipped
from hnc_ds.records import SceneGraph

VERSION = 5
"""To be incremented when a field changes its meaning."""

MAX_BYTES = 1 << 28
"""Maximum size of a tables file; GQA's has 10 MB."""

HELD_OUT = frozenset(
    {"val", "valid", "validation", "trainval", "minival", "dev", "test", "testdev"}
)
"""Words in names of files that contain validation or test images."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # also cuts valSceneGraphs


class Tables(msgspec.Struct, frozen=True):
    """Counts over the graphs of one file, with sorted keys."""

    version: int
    source: str
    """Name of the counted file."""
    images: int
    """Number of its graphs."""
    attributes: dict[str, dict[str, int]]
    """Object name -> attribute (spelling variants merged) -> objects."""
    subjects: dict[str, dict[str, int]]
    """Predicate -> name of the subject -> edges."""
    objects: dict[str, dict[str, int]]
    """Predicate -> name of the object -> edges."""
    counts: dict[str, dict[int, int]]
    """Singular name -> number of such objects in an image -> images. Images with a box of the
    plural name are left out, as their number is unknown."""
    changes: Balance = Balance(0, ())
    """Kept fractions of proposed changes."""


def count_tables(graphs: Iterable[SceneGraph], source: str = "") -> Tables:
    """The tables of graphs.

    Args:
        graphs: The graphs; iterated once.
        source: Name of their file.
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
        UserError: Missing, broken or unrelated file; tables of another version.
    """
    again = "make it with 'hnc-ds tables'"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {again}")
    with open_unzipped(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: has more than {MAX_BYTES >> 20} MiB; {again}")
    tables = decode_json(content, Tables, path, again, "not tables of 'hnc-ds tables'")
    if tables.version != VERSION:
        raise UserError(
            f"{path}: tables of version {tables.version}, this program reads {VERSION}; {again}"
        )
    return tables


def held_out(name: str) -> bool:
    """Whether a file contains validation or test images, by its name."""
    return any(word.lower() in HELD_OUT for word in _WORD.findall(name))


def _numbers(graph: SceneGraph) -> Iterator[tuple[str, int]]:
    """(singular name, number) for the names whose number of objects is known."""
    boxes = Counter(found.name for found in graph.objects.values())
    in_groups = {singular(name) for name in boxes if singular(name) != name}
    for name, number in boxes.items():
        if singular(name) == name and name not in in_groups:
            yield name, number


def _sorted(table: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {key: dict(sorted(table[key].items())) for key in sorted(table) if table[key]}
