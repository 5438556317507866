"""What the names of objects stand for: which of them may name the same thing, and what is stuff.

The lists are this project's own (vocabulary/kinds.json), with everyday English in mind. Where a
name can be understood in two ways, they take the way that lets fewer captions be written.
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
    """Names for one sort of thing, e.g. 'people'."""
    parted: dict[str, tuple[Axis, ...]]
    """Any two names of these groups may name one thing, unless an axis parts them: has them in
    different cells. A name in no cell of an axis is silent about it (a skier: man or woman?)."""
    may_be_the_same: tuple[frozenset[str], ...]
    """Sets of which any two names may name one thing."""


_lists = read_lists("kinds.json", _Lists)

GROUPS = _lists.groups
"""Group -> its names: people, animals, vehicles, food, clothing, stuff, body_parts ..."""


@lru_cache(maxsize=1 << 17)
def may_be_the_same(name: str, other: str) -> bool:
    """Whether one object could bear both names: plurals, wider and narrower names, synonyms.

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
    """Names that may stand for one thing have some of these in common; others may, too."""
    facets = _facets(name)
    sets = [f"set {number}" for number in facets.sets]
    return facets.endings | {facets.singular, *sets, *facets.cells}


class _Facets(NamedTuple):
    """All that matters about a name when it is compared: found once for each name."""

    singular: str
    endings: frozenset[str]
    """'dining room table' -> 'table', 'room table'."""
    sets: frozenset[int]
    """Which sets of may_be_the_same it is in."""
    cells: dict[str, tuple[int | None, ...]]
    """Its cell on each axis of each parted group that it belongs to."""


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
    """The groups that a name belongs to. Names of the same ones share one set: there are few
    hundred different sets, however many names."""
    names = {name, singular(name)}  # 'glasses' are worn, though one of several is a glass
    words = names | {word.rsplit(" ", 1)[-1] for word in names}
    return _shared(frozenset(g for g, members in GROUPS.items() if not members.isdisjoint(words)))


@cache
def _shared(groups: frozenset[str]) -> frozenset[str]:
    return groups


def is_a(name: str, group: str) -> bool:
    """Whether a name, in either number and perhaps after other words, is one of a group's."""
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
    """Whether the name stands for more than one thing: 'hats', but neither 'jeans' nor 'glasses',
    of which one is worn."""
    return is_plural(name) and singular(name) != name and name not in GROUPS["worn_by_one"]
