"""Groups of object names (people, vehicles, stuff ...) and names that may mean the same object.

The lists are this project's own (vocabulary/kinds.json). An ambiguous name is listed in the sense
that permits fewer captions.
"""

from functools import cache, lru_cache
from typing import NamedTuple

import msgspec

from hnc_ds.captions.language.nouns import is_plural, singular
from hnc_ds.captions.language.vocabulary import read_lists

Axis = tuple[frozenset[str], ...]


class _Lists(msgspec.Struct, frozen=True):
    """kinds.json. All names are in the singular."""

    groups: dict[str, frozenset[str]]
    """Group -> names: 'people' -> 'man', 'girl' ..."""
    parted: dict[str, tuple[Axis, ...]]
    """Group -> axes. Any two names of the group may mean one object, unless an axis has them in
    different cells. A name in no cell of an axis is open on it (a skier: man or woman?)."""
    may_be_the_same: tuple[frozenset[str], ...]
    """Sets of names of which any two may mean one object."""


_lists = read_lists("kinds.json", _Lists)

GROUPS = _lists.groups
"""Group -> its names: people, animals, vehicles, food, clothing, stuff, body_parts ..."""


@lru_cache(maxsize=1 << 17)
def may_be_the_same(name: str, other: str) -> bool:
    """Whether one object may have both names: plurals, hypernyms, synonyms.

    'dogs' and 'dog', 'man' and 'person', 'palm tree' and 'tree'; not 'man' and 'woman'.
    """
    a, b = _facets(name), _facets(other)
    if a.singular == b.singular or a.singular in b.endings or b.singular in a.endings:
        return True
    if not a.sets.isdisjoint(b.sets):
        return True
    return any(
        group in b.cells and not _parted(cells, b.cells[group]) for group, cells in a.cells.items()
    )


@lru_cache(maxsize=1 << 14)
def families(name: str) -> frozenset[str]:
    """Index keys of a name: two names without a common key cannot mean the same object."""
    facets = _facets(name)
    sets = [f"set {number}" for number in facets.sets]
    return facets.endings | {facets.singular, *sets, *facets.cells}


class _Facets(NamedTuple):
    """The properties of a name that ``may_be_the_same`` compares."""

    singular: str
    endings: frozenset[str]
    """'dining room table' -> 'table', 'room table'."""
    sets: frozenset[int]
    """Indices of its sets in ``may_be_the_same``."""
    cells: dict[str, tuple[int | None, ...]]
    """Parted group -> its cell on each axis."""


@lru_cache(maxsize=1 << 14)
def _facets(name: str) -> _Facets:
    word = singular(name)
    words = word.split(" ")
    return _Facets(
        word,
        frozenset(" ".join(words[start:]) for start in range(1, len(words))),
        frozenset(i for i, names in enumerate(_lists.may_be_the_same) if {word, name} & names),
        {
            group: tuple(
                next((i for i, cell in enumerate(axis) if word in cell), None) for axis in axes
            )
            for group, axes in _lists.parted.items()
            if word in GROUPS[group]
        },
    )


def _parted(cells: tuple[int | None, ...], others: tuple[int | None, ...]) -> bool:
    """Whether some axis has two names in different cells."""
    return any(
        a is not None and b is not None and a != b for a, b in zip(cells, others, strict=True)
    )


@lru_cache(maxsize=1 << 14)
def groups_of(name: str) -> frozenset[str]:
    """The groups of a name. Equal sets are one object, as there are only a few hundred of them."""
    names = {name, singular(name)}  # 'glasses' are worn, but a 'glass' is not
    words = names | {word.rsplit(" ", 1)[-1] for word in names}
    return _shared(frozenset(g for g, members in GROUPS.items() if not members.isdisjoint(words)))


@cache
def _shared(groups: frozenset[str]) -> frozenset[str]:
    return groups


def is_a(name: str, group: str) -> bool:
    """Whether a name or its last word, in singular or plural, is in a group."""
    return group in groups_of(name)


@lru_cache(maxsize=1 << 14)
def is_animate(name: str) -> bool:
    """Whether the name stands for people or animals."""
    return is_a(name, "people") or is_a(name, "animals")


@lru_cache(maxsize=1 << 14)
def is_one_being(name: str) -> bool:
    """Whether the name stands for a single person or animal: not 'people', nor 'crowd'."""
    return is_animate(name) and not is_plural(name) and not is_a(name, "groups")


@lru_cache(maxsize=1 << 14)
def is_several(name: str) -> bool:
    """Whether the name means more than one object: 'hats', but neither 'jeans' nor 'glasses'."""
    return is_plural(name) and singular(name) != name and name not in GROUPS["worn_by_one"]
