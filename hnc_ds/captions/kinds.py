"""What the names of objects stand for: which of them may name the same thing, and what is stuff.

The lists are this project's own (vocabulary/kinds.json), with everyday English in mind. Where a
name can be understood in two ways, they take the way that lets fewer captions be written.
"""

from functools import lru_cache
from importlib.resources import files

import msgspec

from hnc_ds.captions.nouns import singular

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


_lists = msgspec.json.decode(
    files("hnc_ds.captions.vocabulary").joinpath("kinds.json").read_bytes(), type=_Lists
)

GROUPS = _lists.groups
"""Group -> its names: people, animals, vehicles, food, clothing, stuff, body_parts ..."""

STUFF = GROUPS["stuff"]
"""What has no clear bounds: seldom annotated as a whole, often behind all else."""


@lru_cache(maxsize=1 << 16)
def may_be_the_same(name: str, other: str) -> bool:
    """Whether one object could bear both names: plurals, wider and narrower names, synonyms.

    'dogs' and 'dog', 'man' and 'person', 'palm tree' and 'tree'; not 'man' and 'woman'.
    """
    a, b = singular(name), singular(other)
    if a == b or a.endswith(f" {b}") or b.endswith(f" {a}"):
        return True
    if any(a in names and b in names for names in _lists.may_be_the_same):
        return True
    return any(
        a in GROUPS[group] and b in GROUPS[group] and not any(_parts(axis, a, b) for axis in axes)
        for group, axes in _lists.parted.items()
    )


def _parts(axis: Axis, a: str, b: str) -> bool:
    cell_a = next((cell for cell in axis if a in cell), None)
    cell_b = next((cell for cell in axis if b in cell), None)
    return cell_a is not None and cell_b is not None and cell_a is not cell_b


@lru_cache(maxsize=1 << 16)
def is_a(name: str, group: str) -> bool:
    """Whether a name, in either number and perhaps after other words, is one of a group's."""
    word = singular(name)
    return word in GROUPS[group] or word.rsplit(" ", 1)[-1] in GROUPS[group]


@lru_cache(maxsize=1 << 14)
def is_animate(name: str) -> bool:
    """Whether the name stands for people or animals."""
    return is_a(name, "people") or is_a(name, "animals")
