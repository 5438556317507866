"""Classes of attributes whose values exclude each other: an annotated "red" refutes "blue".

The lists are this project's own (vocabulary/attributes.json). Values that people may both use for
one object (gray and silver) are in the same cell or compatible, so they never refute each other.
Scores are grouped by class, or by predicate (``Negative.about``).
"""

from functools import lru_cache

import msgspec

from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.language.vocabulary import read_lists


class AttributeClass(msgspec.Struct, frozen=True, eq=False):
    """A set of values of which an object usually has one, such as colours."""

    name: str
    cells: tuple[frozenset[str], ...]
    """Values of different cells exclude each other; values of one cell do not."""
    compatible: frozenset[str] = frozenset()
    """'a/b': values of different cells that do not exclude each other."""
    unless: frozenset[str] = frozenset()
    """Attributes that make a second value likely: a striped shirt has two colours."""
    several: bool = False
    """Whether an object can have two values (a red and white bus); two values then exclude no third
    one."""
    made_of: bool = False
    """Whether the sentence reads 'is made of wood' instead of 'is wood'."""
    before_noun: bool = True
    """Whether values read well before a noun: 'the red bus', but not 'the on lamp'."""
    of: tuple[str, ...] = ()
    """Groups of kinds.json to which the class applies; empty for all."""
    not_of: tuple[str, ...] = ()
    """Groups to which the class does not apply."""


class _Lists(msgspec.Struct, frozen=True):
    """attributes.json."""

    classes: tuple[AttributeClass, ...]
    aliases: dict[str, str]
    counts: dict[str, int]
    only_of: dict[str, tuple[str, ...]]
    not_of: dict[str, tuple[str, ...]]


_lists = read_lists("attributes.json", _Lists)

CLASSES = _lists.classes
"""All classes, in the order of adjectives before a noun: 'the large red wooden box'."""

ALIASES = _lists.aliases
"""Spelling variant -> value."""

COUNTS = _lists.counts
"""Value -> number of objects in GQA's training graphs that have it."""

_ONLY_OF = _lists.only_of
"""Value -> the only groups of kinds.json to which it applies, whatever its class."""

_NOT_OF = _lists.not_of
"""Value -> groups to which it does not apply. A floor of denim would be an implausible negative."""

RANK = {c.name: rank for rank, c in enumerate(CLASSES)}
"""Class name -> position before a noun, from the front."""

_CLASSES_OF: dict[str, tuple[AttributeClass, ...]] = {
    value: tuple(c for c in CLASSES if any(value in cell for cell in c.cells))
    for c in CLASSES
    for cell in c.cells
    for value in sorted(cell)
}


def classes_of(attribute: str) -> tuple[AttributeClass, ...]:
    """The classes that contain an attribute; () if it is in none."""
    return _CLASSES_OF.get(attribute, ())


@lru_cache(maxsize=1 << 16)
def class_of(attribute: str, name: str) -> AttributeClass | None:
    """The class of an attribute for objects of a name; None if it does not apply to them.

    'thin' is about a man's build, but about a pole's thickness.
    """
    only_of = _ONLY_OF.get(attribute)
    if only_of and not any(is_a(name, group) for group in only_of):
        return None
    if any(is_a(name, group) for group in _NOT_OF.get(attribute, ())):
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
    """Whether an object with these annotated attributes has an attribute; None if unknown.

    True if it is annotated and no other annotation excludes it; False if the annotated values of
    one of its classes all exclude it and no second value is likely.
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


PREDICATE, ATTRIBUTE = "predicate", "attribute"
KINDS = (PREDICATE, ATTRIBUTE)

_BETWEEN = ": "


def kind_of(about: str) -> str:
    """PREDICATE or ATTRIBUTE."""
    return ATTRIBUTE if about in RANK else PREDICATE


def group_of(about: str) -> str:
    """The name of a group: 'predicate: on', 'attribute: colour'."""
    return f"{kind_of(about)}{_BETWEEN}{about}"


def about_of(group: str) -> str | None:
    """The inverse of ``group_of``; None for the name of another group."""
    kind, between, about = group.partition(_BETWEEN)
    return about if between and kind in KINDS else None
