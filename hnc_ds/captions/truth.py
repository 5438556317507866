"""Is a claim true of an image, false of it, or can its scene graph not tell?

Annotations are incomplete, so nothing is false because it is not annotated. FALSE has to be
earned for everything that the words could mean: an attribute that excludes the claimed one, boxes
that lie clearly the other way or too far apart, an annotated relation that leaves no room for the
claimed one. TRUE needs an annotation that nothing contradicts. All else is UNKNOWN.

A noun phrase means any object that could bear it: "The man ..." is true if it holds for some man,
and false only if it holds for none - nor for any person who might be a man.
"""

from collections.abc import Callable
from enum import Enum
from functools import lru_cache

import msgspec

from hnc_ds.captions import boxes, predicates
from hnc_ds.captions.attribute_classes import ALIASES, holds_of
from hnc_ds.captions.boxes import Box
from hnc_ds.captions.kinds import is_a, is_animate, may_be_the_same
from hnc_ds.records import SceneGraph, SceneObject


class Truth(Enum):
    """What a scene graph says about a claim."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Phrase(msgspec.Struct, frozen=True):
    """A noun phrase: a name and attributes, in the order in which they are said."""

    name: str
    attributes: tuple[str, ...] = ()


class HasAttribute(msgspec.Struct, frozen=True):
    """The claim that something has an attribute: 'The star is red.'"""

    subject: Phrase
    attribute: str


class Related(msgspec.Struct, frozen=True):
    """The claim that a relation holds: 'The red star is above the ring.'"""

    subject: Phrase
    predicate: str
    object: Phrase


Claim = HasAttribute | Related


class IndexedGraph:
    """A scene graph, arranged for questions. Objects are numbered by their ids in sorted order."""

    def __init__(self, graph: SceneGraph) -> None:
        ids = sorted(graph.objects)
        number = {object_id: i for i, object_id in enumerate(ids)}
        objects = [graph.objects[object_id] for object_id in ids]
        self.image_id = graph.image_id
        self.names = tuple(found.name for found in objects)
        self.attributes = tuple(_attributes(found) for found in objects)
        self.boxes = tuple(boxes.box_of(found) for found in objects)
        # A size that is not known must not make the margins small.
        self.width = max([graph.width, *(b.right for b in self.boxes if b)])
        self.height = max([graph.height, *(b.bottom for b in self.boxes if b)])
        self.edges: dict[tuple[int, int], tuple[str, ...]] = {}
        for i, found in enumerate(objects):
            for relation in found.relations:
                pair = (i, number[relation.object])
                self.edges[pair] = (*self.edges.get(pair, ()), relation.name)
        self._bearers: dict[str, tuple[int, ...]] = {}
        self._candidates: dict[Phrase, tuple[int, ...]] = {}
        self._relations: dict[tuple[int, str, int], Truth] = {}

    def bearers(self, name: str) -> tuple[int, ...]:
        """Objects that the name may stand for, whatever their attributes."""
        if name not in self._bearers:
            self._bearers[name] = tuple(
                i for i, other in enumerate(self.names) if may_be_the_same(other, name)
            )
        return self._bearers[name]

    def candidates(self, phrase: Phrase) -> tuple[int, ...]:
        """Objects that the phrase may mean: bearers of the name that no attribute rules out."""
        if not phrase.attributes:
            return self.bearers(phrase.name)
        if phrase not in self._candidates:
            self._candidates[phrase] = tuple(
                i
                for i in self.bearers(phrase.name)
                if all(holds_of(self.attributes[i], a) is not False for a in phrase.attributes)
            )
        return self._candidates[phrase]

    def certain(self, phrase: Phrase) -> tuple[int, ...]:
        """Objects that the phrase surely fits: of that very name, all attributes annotated."""
        return tuple(
            i
            for i in self.candidates(phrase)
            if self.names[i] == phrase.name
            and all(holds_of(self.attributes[i], a) is True for a in phrase.attributes)
        )

    def attribute(self, i: int, attribute: str) -> Truth:
        """Whether object i has the attribute."""
        return _TRUTH_OF[holds_of(self.attributes[i], attribute)]

    def relation(self, i: int, predicate: str, j: int) -> Truth:
        """Whether object i stands in a relation to object j."""
        key = (i, predicate, j)
        if key not in self._relations:
            self._relations[key] = self._judge(i, predicate, j)
        return self._relations[key]

    def _judge(self, i: int, predicate: str, j: int) -> Truth:
        forwards, backwards = self.edges.get((i, j), ()), self.edges.get((j, i), ())
        claimed = _says(forwards, backwards, predicate)
        refuted = self._boxes_refute(i, predicate, j)
        if refuted and not claimed:
            return Truth.FALSE
        # An edge that the boxes contradict may be a slip of the hand: it proves nothing.
        forwards = tuple(p for p in forwards if not self._boxes_refute(i, p, j))
        backwards = tuple(p for p in backwards if not self._boxes_refute(j, p, i))
        excluded = _excludes(forwards, backwards, predicate, is_animate(self.names[i]))
        if claimed:
            sure = not refuted and not excluded and _says(forwards, backwards, predicate)
            return Truth.TRUE if sure else Truth.UNKNOWN
        if excluded and not self._boxes_favour(i, predicate, j):
            return Truth.FALSE
        return Truth.UNKNOWN

    def _boxes_refute(self, i: int, predicate: str, j: int) -> bool:
        a, b = self.boxes[i], self.boxes[j]
        if a is None or b is None:
            return False
        if any(test(b, a, self) for test in _direction_tests(predicate)):
            return True
        if "inside" in predicates.implied(predicate) and boxes.is_larger(a, b):
            return True
        return (
            predicates.needs_contact(predicate)
            and _is_bounded(self.names[i])
            and _is_bounded(self.names[j])
            and not is_a(self.names[j], "held_from_afar")
            and boxes.are_apart(a, b, max(self.width, self.height))
        )

    def _boxes_favour(self, i: int, predicate: str, j: int) -> bool:
        a, b = self.boxes[i], self.boxes[j]
        if a is None or b is None:
            return False
        return any(test(a, b, self) for test in _direction_tests(predicate))


def holds(graph: IndexedGraph, claim: Claim) -> Truth:
    """What the graph says about a claim, read existentially.

    TRUE if it is annotated of objects that the phrases surely fit; FALSE if it is refuted for
    every object (pair of objects) that the phrases may mean. A phrase whose name no object bears
    makes the claim UNKNOWN.
    """
    if isinstance(claim, HasAttribute):
        return _holds_attribute(graph, claim)
    return _holds_relation(graph, claim)


def _holds_attribute(graph: IndexedGraph, claim: HasAttribute) -> Truth:
    if not graph.bearers(claim.subject.name):
        return Truth.UNKNOWN
    if any(graph.attribute(i, claim.attribute) is Truth.TRUE for i in graph.certain(claim.subject)):
        return Truth.TRUE
    refuted = all(
        graph.attribute(i, claim.attribute) is Truth.FALSE for i in graph.candidates(claim.subject)
    )
    return Truth.FALSE if refuted else Truth.UNKNOWN


def _holds_relation(graph: IndexedGraph, claim: Related) -> Truth:
    if not _names_a_pair(graph.bearers(claim.subject.name), graph.bearers(claim.object.name)):
        return Truth.UNKNOWN
    refuted = True
    for i in graph.candidates(claim.subject):
        for j in graph.candidates(claim.object):
            if i != j and graph.relation(i, claim.predicate, j) is not Truth.FALSE:
                refuted = False
                break
    if refuted:
        return Truth.FALSE
    annotated = any(
        i != j and graph.relation(i, claim.predicate, j) is Truth.TRUE
        for i in graph.certain(claim.subject)
        for j in graph.certain(claim.object)
    )
    return Truth.TRUE if annotated else Truth.UNKNOWN


def _names_a_pair(subjects: tuple[int, ...], objects: tuple[int, ...]) -> bool:
    return bool(subjects and objects) and len({*subjects, *objects}) > 1


def _attributes(found: SceneObject) -> frozenset[str]:
    attributes = frozenset(ALIASES.get(a, a) for a in found.attributes)
    # One annotated colour of a zebra or a flag is no evidence against a second one.
    return attributes | {"patterned"} if is_a(found.name, "many_coloured") else attributes


_TRUTH_OF = {True: Truth.TRUE, False: Truth.FALSE, None: Truth.UNKNOWN}

_DirectionTest = Callable[[Box, Box, IndexedGraph], bool]

_DIRECTIONS: dict[str, _DirectionTest] = {
    "to the left of": lambda a, b, graph: boxes.is_left(a, b, graph.width),
    "to the right of": lambda a, b, graph: boxes.is_left(b, a, graph.width),
    "above": lambda a, b, graph: boxes.is_above(a, b, graph.height),
    "below": lambda a, b, graph: boxes.is_above(b, a, graph.height),
}
"""Whether a clearly lies in that direction of b."""


@lru_cache(maxsize=1 << 14)
def _direction_tests(predicate: str) -> tuple[_DirectionTest, ...]:
    implied = predicates.implied(predicate)
    return tuple(test for name, test in _DIRECTIONS.items() if name in implied)


@lru_cache(maxsize=1 << 14)
def _is_bounded(name: str) -> bool:
    """Whether the box shows all of what the name stands for."""
    return not is_a(name, "stuff")


@lru_cache(maxsize=1 << 16)
def _says(forwards: tuple[str, ...], backwards: tuple[str, ...], predicate: str) -> bool:
    """Whether edges from s to o, and from o to s, say that s -predicate-> o."""
    return any(predicate in predicates.implied(p) for p in forwards) or any(
        predicate in predicates.implied_backwards(p) for p in backwards
    )


@lru_cache(maxsize=1 << 16)
def _excludes(
    forwards: tuple[str, ...], backwards: tuple[str, ...], predicate: str, animate: bool
) -> bool:
    """Whether edges from s to o, and from o to s, leave no room for s -predicate-> o."""
    return any(predicates.excludes(p, predicate, animate) for p in forwards) or any(
        predicates.excludes_backwards(p, predicate) for p in backwards
    )
