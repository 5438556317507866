"""What can truly be said about one image, and in which words: the positives of all families.

An object is spoken of as "the star" or "the red star" only where these words can mean no other
object of the image. Choosing the words is part of the seeded draw, and so is choosing among the
statements: no predicate may crowd out the rest.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from hnc_ds.captions.attribute_classes import AttributeClass, class_of
from hnc_ds.captions.predicates import is_said_of
from hnc_ds.captions.truth import HasAttribute, IndexedGraph, Phrase, Related, Truth, holds
from hnc_ds.captions.wording import attribute_sentence, rank, relation_sentence
from hnc_ds.records import Negative, SceneGraph

SPARE = 1.25
"""Statements drawn for each one that is asked for: not all can be made false."""

NEGATIVES_OF_A_TYPE = 3
"""Most negatives of one type for one positive; a trainer draws few."""

_SAYABLE = re.compile(r"[^\W_]+(?:[ '\-][^\W_]+){0,3}")


class Naming(NamedTuple):
    """How a relation's ends are named, as shares of the draws."""

    described: float = 2 / 3
    """With an attribute, where they have one."""
    by_colour: float = 2 / 3
    """Of those, with a colour, where there is one."""


class AttributeStatement(NamedTuple):
    """'The star is red.'"""

    claim: HasAttribute
    text: str
    subject: int
    cls: AttributeClass


class RelationStatement(NamedTuple):
    """'The red star is above the blue ring.'"""

    claim: Related
    text: str
    subject: int
    object: int


Statement = AttributeStatement | RelationStatement


class CaptionPair(NamedTuple):
    """A true caption and one false one."""

    positive: str
    kind: str
    """'attribute' or 'relation': what the positive states."""
    negative: Negative


class References(NamedTuple):
    """The phrases that mean one object and no other."""

    bare: Phrase | None
    described: tuple[Phrase, ...]
    """With an attribute (with two, if one and none do not single it out), colours first."""

    def plainest(self) -> Phrase | None:
        """The shortest phrase, None if the object cannot be singled out."""
        return self.bare or (self.described[0] if self.described else None)


class DescribedImage:
    """An image's scene graph with the statements that were drawn from it."""

    def __init__(self, graph: SceneGraph, rng: random.Random, most: int, naming: Naming) -> None:
        """Draw at most ``SPARE * most`` statements; ``most`` bounds the caption groups."""
        self.graph = IndexedGraph(graph)
        self.references = tuple(_references(self.graph, i) for i in range(len(self.graph.names)))
        self.predicates = sorted({p for names in self.graph.edges.values() for p in names})
        """Predicates of its edges."""
        self.values = frozenset().union(*self.graph.attributes)
        """Attributes of its objects."""
        statements: list[Statement] = [
            *_attribute_statements(self, rng),
            *_relation_statements(self, rng, naming),
        ]
        self.statements = _draw(statements, rng, most)
        """In the order of the draw: whoever takes the first n takes a balanced choice."""

    def attribute_statements(self) -> Iterator[AttributeStatement]:
        """Those that say an attribute of an object."""
        return (s for s in self.statements if isinstance(s, AttributeStatement))

    def relation_statements(self) -> Iterator[RelationStatement]:
        """Those that relate two objects."""
        return (s for s in self.statements if isinstance(s, RelationStatement))


def _references(graph: IndexedGraph, i: int) -> References:
    name = graph.names[i]
    if not _SAYABLE.fullmatch(name):
        return References(None, ())
    bare = Phrase(name)
    said = _said_before(graph, i)
    described = [Phrase(name, (a,)) for a in said]
    described = [phrase for phrase in described if graph.candidates(phrase) == (i,)]
    if graph.candidates(bare) == (i,):
        return References(bare, tuple(described))
    if not described:
        pairs = (Phrase(name, _in_order(pair)) for pair in combinations(said, 2))
        described = [phrase for phrase in pairs if graph.candidates(phrase) == (i,)]
    return References(None, tuple(described))


def _said_before(graph: IndexedGraph, i: int) -> list[str]:
    """Attributes of an object that are certain and read well before its noun, colours first."""
    found = []
    for attribute in sorted(graph.attributes[i] - {*graph.names[i].split(" ")}):  # paper paper cup
        cls = class_of(attribute, graph.names[i])
        if cls and cls.before_noun and graph.attribute(i, attribute) is Truth.TRUE:
            found.append((cls.name != "colour", attribute))
    return [attribute for _, attribute in sorted(found)]


def _in_order(attributes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(attributes, key=lambda a: (rank(a), a)))


def _attribute_statements(
    image: DescribedImage, rng: random.Random
) -> Iterator[AttributeStatement]:
    graph = image.graph
    for i, name in enumerate(graph.names):
        for attribute in sorted(graph.attributes[i]):
            cls = class_of(attribute, name)
            if cls is None:
                continue
            phrases = [
                phrase
                for phrase in image.references[i].described
                if all(class_of(a, name) is not cls for a in phrase.attributes)
            ]
            bare = image.references[i].bare
            phrase = bare or (rng.choice(phrases) if phrases else None)
            if phrase is not None:
                claim = HasAttribute(phrase, attribute)
                if holds(graph, claim) is Truth.TRUE:
                    yield AttributeStatement(claim, attribute_sentence(claim), i, cls)


def _relation_statements(
    image: DescribedImage, rng: random.Random, naming: Naming
) -> Iterator[RelationStatement]:
    graph = image.graph
    for (i, j), names in sorted(graph.edges.items()):
        for predicate in sorted(set(names)):
            if not is_said_of(predicate, graph.names[i], graph.names[j]):
                continue
            phrases = _word_ends(image.references[i], image.references[j], rng, naming)
            if phrases is not None:
                claim = Related(phrases[0], predicate, phrases[1])
                if holds(graph, claim) is Truth.TRUE:
                    yield RelationStatement(claim, relation_sentence(claim), i, j)


def _word_ends(
    subject: References, object_: References, rng: random.Random, naming: Naming
) -> tuple[Phrase, Phrase] | None:
    """Both ends bare, or both with an attribute where they have one; None if one has no words."""
    bare, colour = rng.random() >= naming.described, rng.random() < naming.by_colour
    phrases = []
    for end in (subject, object_):
        phrase = end.plainest()
        if phrase is None:
            return None
        if end.described and not bare:
            phrase = end.described[0] if colour else rng.choice(end.described)
        phrases.append(phrase)
    return phrases[0], phrases[1]


def _draw(statements: Sequence[Statement], rng: random.Random, most: int) -> list[Statement]:
    """A balanced choice: one of each predicate (attribute class) in turn, none too often."""
    most = int(SPARE * most)
    by_topic: dict[str, list[Statement]] = {}
    for statement in statements:
        by_topic.setdefault(_topic(statement), []).append(statement)
    topics = sorted(by_topic)
    rng.shuffle(topics)
    piles = [by_topic[topic] for topic in topics]
    for pile in piles:
        rng.shuffle(pile)
        del pile[max(2, most // 6) :]
    drawn: dict[str, Statement] = {}
    for turn in range(max((len(pile) for pile in piles), default=0)):
        for pile in piles:
            if turn < len(pile):
                drawn.setdefault(pile[turn].text, pile[turn])
    return list(drawn.values())[:most]


def _topic(statement: Statement) -> str:
    if isinstance(statement, AttributeStatement):
        return f"attribute: {statement.cls.name}"
    return statement.claim.predicate
