"""Which attributes exclude each other: "red" is evidence against "blue", silence is not.

The lists are this project's own (vocabulary/attributes.json), in everyday English. Values that a
person could well see in one thing (gray and silver) stand in one cell or among the compatible
pairs, and never refute each other.
"""

from functools import lru_cache

import msgspec

from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.language.vocabulary import read_lists


class AttributeClass(msgspec.Struct, frozen=True, eq=False):
    """Values of which a thing has one."""

    name: str
    cells: tuple[frozenset[str], ...]
    """Values of different cells exclude each other; those of one cell do not."""
    compatible: frozenset[str] = frozenset()
    """'a/b': values from different cells that may hold of one thing all the same."""
    unless: frozenset[str] = frozenset()
    """Attributes that make a second value likely: a striped shirt has two colours."""
    several: bool = False
    """Whether a thing can have two values (a red and white bus); those two exclude no third."""
    made_of: bool = False
    """Whether the predicate reads 'made of wood'."""
    before_noun: bool = True
    """Whether it reads well before the noun: 'the red bus', but not 'the on lamp'."""
    of: tuple[str, ...] = ()
    """Groups of kinds.json of which captions say values of this class; all when empty."""
    not_of: tuple[str, ...] = ()
    """Groups of which they do not."""


class _Lists(msgspec.Struct, frozen=True):
    """attributes.json."""

    classes: tuple[AttributeClass, ...]
    aliases: dict[str, str]
    counts: dict[str, int]
    only_of: dict[str, tuple[str, ...]]


_lists = read_lists("attributes.json", _Lists)

CLASSES = _lists.classes
"""In the order in which their values stand before a noun: 'the large red wooden box'."""

ALIASES = _lists.aliases
"""Other spellings of a value -> the value."""

COUNTS = _lists.counts
"""Value -> how many objects of GQA's training graphs carry it."""

_ONLY_OF = _lists.only_of
"""Value -> the groups of kinds.json of which alone captions say it, whatever its class."""

RANK = {c.name: rank for rank, c in enumerate(CLASSES)}
"""Class name -> its place before a noun, counted from the front."""

_CLASSES_OF: dict[str, tuple[AttributeClass, ...]] = {
    value: tuple(c for c in CLASSES if any(value in cell for cell in c.cells))
    for c in CLASSES
    for cell in c.cells
    for value in sorted(cell)
}


def classes_of(attribute: str) -> tuple[AttributeClass, ...]:
    """The classes an attribute is a value of; () for one that nothing is known about."""
    return _CLASSES_OF.get(attribute, ())


@lru_cache(maxsize=1 << 16)
def class_of(attribute: str, name: str) -> AttributeClass | None:
    """The class in which captions speak of an attribute of things of a name, if there is one.

    'thin' of a man is about his build, of a pole about its thickness.
    """
    only_of = _ONLY_OF.get(attribute)
    if only_of and not any(is_a(name, group) for group in only_of):
        return None
    for cls in classes_of(attribute):
        if cls.of and not any(is_a(name, group) for group in cls.of):
            continue
        if not any(is_a(name, group) for group in cls.not_of):
            return cls
    return None


@lru_cache(maxsize=1 << 16)
def exclude(cls: AttributeClass, a: str, b: str) -> bool:
    """Whether two values of a class exclude each other."""
    if f"{a}/{b}" in cls.compatible or f"{b}/{a}" in cls.compatible:
        return False
    return not any(a in cell and b in cell for cell in cls.cells)


@lru_cache(maxsize=1 << 17)
def holds_of(annotated: frozenset[str], attribute: str) -> bool | None:
    """Whether a thing with these annotated attributes has an attribute; None if they do not tell.

    True only if it is annotated and nothing else annotated excludes it; False only if annotated
    values of one of its classes all exclude it and no second value is likely.
    """
    excluded = [
        _excluded_by(cls, annotated - {attribute}, attribute) for cls in classes_of(attribute)
    ]
    if attribute in annotated:
        return None if any(excluded) and not _may_have_several(attribute) else True
    return False if any(excluded) else None


def _may_have_several(attribute: str) -> bool:
    return all(cls.several for cls in classes_of(attribute))


def _excluded_by(cls: AttributeClass, annotated: frozenset[str], attribute: str) -> bool:
    values = [value for value in annotated if cls in classes_of(value)]
    if not values or not all(exclude(cls, value, attribute) for value in values):
        return False
    return not cls.several or (len(values) == 1 and not (annotated & cls.unless))
