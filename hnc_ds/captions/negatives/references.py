"""Words for one object: phrases that can mean it and no other thing of the image."""

import re
from collections.abc import Iterable
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
from hnc_ds.captions.language.wording import rank
from hnc_ds.captions.truth.claims import Phrase
from hnc_ds.captions.truth.indexed_graph import TRUE, IndexedGraph

_SAYABLE = re.compile(r"[^\W_]+(?:[ '\-][^\W_]+){0,3}")


ToldAttribute = tuple[str, AttributeClass]


class References(Struct, frozen=True):
    """The phrases that mean one object and no other."""

    bare: Phrase | None
    described: tuple[Phrase, ...]
    """With an attribute (with two, if one and none do not single it out), colours first."""
    told: tuple[ToldAttribute, ...]
    """What is certain of it and is spoken of, whether or not that singles it out."""
    any_one: Phrase | None = None
    """'a star', 'some stars', where it is one of several."""
    any_described: tuple[Phrase, ...] = ()
    """The same with an attribute."""

    def plainest(self) -> Phrase | None:
        """The shortest phrase, None if the object cannot be singled out."""
        return self.bare or (self.described[0] if self.described else None)

    def plainest_or_any(self) -> Phrase | None:
        """As plainest; else 'a star', None for what has no words of either kind."""
        return self.plainest() or self.any_one


def references_of(graph: IndexedGraph, i: int) -> References:
    """The phrases for object i; none if its name is not made of words."""
    name = graph.names[i]
    if not is_sayable(name):
        return References(None, (), ())
    bare = Phrase(name)
    told = _told_attributes(graph.attributes[i], name)
    # Who is said to stand, and to sit on something, is not spoken of as standing.
    told = tuple([one for one in told if graph.attribute(i, one[0]) is TRUE])
    said = _said_before(name, told) if told else ()
    described = [Phrase(name, (a,)) for a in said]
    described = [phrase for phrase in described if graph.candidates(phrase) == (i,)]
    if graph.bearers(name) == (i,):
        return References(bare, tuple(described), told)
    if not described and len(said) > 1:
        pairs = (Phrase(name, in_order(pair)) for pair in combinations(said, 2))
        described = [
            phrase
            for phrase in pairs
            if not reads_as_another(phrase) and graph.candidates(phrase) == (i,)
        ]
    if is_a(name, "grounds"):
        return References(None, tuple(described), told)  # not 'some sky'
    any_described = tuple([Phrase(name, (a,), definite=False) for a in said])
    return References(None, tuple(described), told, Phrase(name, (), False), any_described)


def reads_as_another(phrase: Phrase) -> bool:
    """Whether two of its attributes together say a third: what is dark and blue, 'dark blue'."""
    return len(phrase.attributes) > 1 and any(
        classes_of(f"{one} {other}") for one, other in pairwise(phrase.attributes)
    )


@lru_cache(maxsize=1 << 15)
def _told_attributes(attributes: frozenset[str], name: str) -> tuple[ToldAttribute, ...]:
    """Attributes of an object that are certain and that captions speak of, with their classes."""
    found = []
    for attribute in sorted(attributes):
        cls = class_of(attribute, name)
        if cls is not None and holds_of(attributes, attribute) is True:
            found.append((attribute, cls))
    return tuple(found)


def fitting(name: str, attributes: tuple[str, ...], definite: bool = True) -> Phrase | None:
    """A phrase, if people would say these attributes of such a thing before its noun."""
    for attribute in attributes:
        cls = class_of(attribute, name)
        if cls is None or not cls.before_noun or attribute in name.split(" "):
            return None
    return Phrase(name, in_order(attributes), definite)


@lru_cache(maxsize=1 << 15)
def _said_before(name: str, told: tuple[ToldAttribute, ...]) -> tuple[str, ...]:
    """Of the attributes of a thing of a name, those that read well before it, colours first."""
    words = name.split(" ")  # paper paper cup
    found = sorted(
        (cls.name != "colour", attribute)
        for attribute, cls in told
        if cls.before_noun and attribute not in words
    )
    return tuple([attribute for _, attribute in found])


@lru_cache(maxsize=1 << 14)
def is_sayable(name: str) -> bool:
    """Whether a name is made of words, and not of marks or a sentence."""
    return _SAYABLE.fullmatch(name) is not None


def in_order(attributes: Iterable[str]) -> tuple[str, ...]:
    """Attributes in the order in which they stand before a noun."""
    return tuple(sorted(attributes, key=lambda a: (rank(a), a)))
