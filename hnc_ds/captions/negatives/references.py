"""Referring expressions: noun phrases that mean one object and no other of the image."""

import re
from functools import lru_cache
from itertools import combinations, pairwise

from msgspec import Struct

from hnc_ds.captions.language.attribute_classes import (
    AttributeClass,
    class_of,
    classes_of,
    holds_of,
)
from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.language.wording import in_order
from hnc_ds.captions.truth.claims import Phrase
from hnc_ds.captions.truth.indexed_graph import TRUE, IndexedGraph

_SAYABLE = re.compile(r"[^\W_]+(?:[ '\-][^\W_]+){0,3}")

ClassedAttribute = tuple[str, AttributeClass]


class References(Struct, frozen=True):
    """The noun phrases for one object."""

    bare: Phrase | None
    """The name alone, if it means no other object."""
    described: tuple[Phrase, ...]
    """Unambiguous phrases with an attribute, or with two where fewer are ambiguous; colours
    first."""
    attributes: tuple[ClassedAttribute, ...]
    """Attributes that are certain and that captions mention."""
    any_one: Phrase | None = None
    """'a star', 'some stars', where the object is one of several."""
    any_described: tuple[Phrase, ...] = ()
    """The same with an attribute."""

    def plainest(self) -> Phrase | None:
        """The shortest unambiguous phrase, if there is one."""
        return self.bare or (self.described[0] if self.described else None)

    def plainest_or_any(self) -> Phrase | None:
        """The shortest unambiguous phrase, else 'a star'; None without either."""
        return self.plainest() or self.any_one


def references_of(graph: IndexedGraph, i: int) -> References:
    """The phrases for object i; none if its name does not consist of words."""
    name = graph.names[i]
    if not is_sayable(name):
        return References(None, (), ())
    bare = Phrase(name)
    attributes = _certain_attributes(graph.attributes[i], name)
    # Relations may contradict a posture: 'standing' of someone who sits on something.
    attributes = tuple([one for one in attributes if graph.attribute(i, one[0]) is TRUE])
    adjectives = _adjectives(name, attributes) if attributes else ()
    described = [Phrase(name, (a,)) for a in adjectives]
    described = [phrase for phrase in described if graph.candidates(phrase) == (i,)]
    if graph.bearers(name) == (i,):
        return References(bare, tuple(described), attributes)
    if not described and len(adjectives) > 1:
        pairs = (Phrase(name, in_order(pair)) for pair in combinations(adjectives, 2))
        described = [
            phrase
            for phrase in pairs
            if not reads_as_another(phrase) and graph.candidates(phrase) == (i,)
        ]
    if is_a(name, "grounds"):
        return References(None, tuple(described), attributes)  # not 'some sky'
    any_described = tuple([Phrase(name, (a,), definite=False) for a in adjectives])
    return References(None, tuple(described), attributes, Phrase(name, (), False), any_described)


def reads_as_another(phrase: Phrase) -> bool:
    """Whether two of its attributes together read as a third: dark and blue, 'dark blue'."""
    return len(phrase.attributes) > 1 and any(
        classes_of(f"{one} {other}") for one, other in pairwise(phrase.attributes)
    )


@lru_cache(maxsize=1 << 15)
def _certain_attributes(attributes: frozenset[str], name: str) -> tuple[ClassedAttribute, ...]:
    """Attributes of an object that are certain and that captions mention, with their classes."""
    found = []
    for attribute in sorted(attributes):
        cls = class_of(attribute, name)
        if cls is not None and holds_of(attributes, attribute) is True:
            found.append((attribute, cls))
    return tuple(found)


def fitting(name: str, attributes: tuple[str, ...], definite: bool = True) -> Phrase | None:
    """The phrase, or None if its attributes do not suit the noun."""
    for attribute in attributes:
        cls = class_of(attribute, name)
        if cls is None or not cls.before_noun or attribute in name.split(" "):
            return None
    return Phrase(name, in_order(attributes), definite)


@lru_cache(maxsize=1 << 15)
def _adjectives(name: str, attributes: tuple[ClassedAttribute, ...]) -> tuple[str, ...]:
    """The attributes that read well before the noun, colours first."""
    words = name.split(" ")  # not 'paper paper cup'
    found = sorted(
        (cls.name != "colour", attribute)
        for attribute, cls in attributes
        if cls.before_noun and attribute not in words
    )
    return tuple([attribute for _, attribute in found])


@lru_cache(maxsize=1 << 14)
def is_sayable(name: str) -> bool:
    """Whether a name consists of one to four words."""
    return _SAYABLE.fullmatch(name) is not None
