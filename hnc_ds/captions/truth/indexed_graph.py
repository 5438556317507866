"""A scene graph, indexed for queries about single objects and pairs of objects.

Combines the annotations, the evidence of the boxes and what annotated relations exclude;
``truth.holds`` builds on it for whole claims. Results are cached, as many captions share them.
"""

from enum import Enum
from functools import lru_cache

import numpy as np

from hnc_ds.captions.language import predicates
from hnc_ds.captions.language.attribute_classes import ALIASES, holds_of
from hnc_ds.captions.language.kinds import (
    families,
    groups_of,
    is_a,
    is_one_being,
    may_be_the_same,
)
from hnc_ds.captions.language.nouns import is_countable, is_plural, plural, shows_number, singular
from hnc_ds.captions.truth import boxes
from hnc_ds.captions.truth.claims import Phrase
from hnc_ds.records import SceneGraph, SceneObject


class Truth(Enum):
    """Truth of a claim according to a scene graph."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


TRUE, FALSE, UNKNOWN = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN


class IndexedGraph:
    """An indexed scene graph. Objects are numbered in the order of their sorted ids."""

    def __init__(self, graph: SceneGraph) -> None:
        ids = sorted(graph.objects)
        number = {object_id: i for i, object_id in enumerate(ids)}
        objects = [graph.objects[object_id] for object_id in ids]
        self.image_id = graph.image_id
        self.names = tuple([found.name for found in objects])
        self.attributes = tuple([_attributes(found) for found in objects])
        self.edges: dict[tuple[int, int], tuple[str, ...]] = {}
        self._deeds: list[list[tuple[str, int]]] = [[] for _ in objects]
        """Per object: (predicate, other object) of its relations, without directions, which are
        nine relations in ten."""
        for i, found in enumerate(objects):
            for relation in found.relations:
                j = number[relation.object]
                if relation.name not in _DIRECTIONS:
                    self._deeds[i].append((relation.name, j))
                self.edges[i, j] = (*self.edges.get((i, j), ()), relation.name)
        self.places = _places(graph, objects, [self._is_raised(i) for i in range(len(objects))])
        """Per pair of objects: bits of ``boxes``."""
        self._poses = tuple([self._poses_of(i) for i in range(len(self.names))])
        self._one_bearer, self._one_object = self._restricting_edges()
        self._family: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            for family in families(name):
                self._family.setdefault(family, []).append(i)
        self._bearers: dict[str, tuple[int, ...]] = {}
        self._candidates: dict[Phrase, tuple[int, ...]] = {}
        self._states: dict[tuple[int, int], _State] = {}
        self._counts: dict[str, int | None] = {}

    def _is_raised(self, i: int) -> bool:
        """Whether a higher box means that object i is above something; for objects that stand on
        the ground it may mean that they are further away."""
        deeds = self._deeds[i]
        if deeds and any(_is_put_down(p, self.names[j]) for p, j in deeds):
            return False
        if any(predicates.verb_of(p) in _UP for p, _ in deeds):
            return True
        return not _stands(self.names[i])

    def bearers(self, name: str) -> tuple[int, ...]:
        """Objects that may have the name, whatever their attributes."""
        found = self._bearers.get(name)
        if found is None:
            kin = {i for family in families(name) for i in self._family.get(family, ())}
            found = tuple([i for i in sorted(kin) if may_be_the_same(self.names[i], name)])
            self._bearers[name] = found
        return found

    def candidates(self, phrase: Phrase) -> tuple[int, ...]:
        """Objects that the phrase may mean: bearers of the name without excluding attributes."""
        found = self._candidates.get(phrase)
        if found is None:
            found = self.bearers(phrase.name)
            for a in phrase.attributes:
                found = tuple([i for i in found if holds_of(self.attributes[i], a) is not False])
            self._candidates[phrase] = found
        return found

    def certain(self, phrase: Phrase) -> tuple[int, ...]:
        """Objects that the phrase surely fits: of exactly that name, all attributes annotated."""
        return tuple(
            i
            for i in self.candidates(phrase)
            if self.names[i] == phrase.name
            and all(holds_of(self.attributes[i], a) is True for a in phrase.attributes)
        )

    def attribute(self, i: int, attribute: str) -> Truth:
        """Whether object i has the attribute."""
        found = _TRUTH_OF[holds_of(self.attributes[i], attribute)]
        poses = self._poses[i]
        if not poses or found is FALSE:
            return found
        return _in_pose(poses, _body(self.names[i]), attribute, found)

    def relation(self, i: int, predicate: str, j: int) -> Truth:
        """Whether the relation from object i to object j holds."""
        state = self._states.get((i, j)) or self._state(i, j)
        return state.truth(predicate)

    def stated(self, i: int, j: int) -> tuple[str, ...]:
        """Sorted predicates with English words that hold from object i to object j: annotated ones,
        those that follow from them, and 'above' or 'below' if the boxes prove it."""
        state = self._states.get((i, j)) or self._state(i, j)
        true = state.true_ones
        if true is None:
            true = state.true_ones = _true_ones(state)
        if not true:
            return ()
        name, other = self.names[i], self.names[j]
        return tuple([p for p in true if predicates.is_said_of(p, name, other)])

    def refuted_predicates(self, i: int, j: int) -> tuple[str, ...]:
        """Sorted predicates that suit objects i and j and are false."""
        state = self._states.get((i, j)) or self._state(i, j)
        offer = predicates.offer(self.names[i], self.names[j])
        found = state.refuted.get(offer)
        if found is None:
            found = state.refuted[offer] = _refuted(state, offer.predicates)
        return found

    def facts(self, i: int, j: int) -> "Facts":
        """Everything on which the truth of relations from object i to object j depends."""
        return (self._states.get((i, j)) or self._state(i, j)).facts

    def _state(self, i: int, j: int) -> "_State":
        name = self.names[i]
        facts = (
            self.edges.get((i, j), ()),
            self.edges.get((j, i), ()),
            _body(name),
            self.places[i][j],
            self.places[j][i],
            self._poses[i],
            self._denied(i, j) if is_one_being(name) else _NOTHING,
        )
        found = self._states[i, j] = _state_of(facts)
        return found

    def _poses_of(self, i: int) -> frozenset[str]:
        """Postures and movements of object i by its attributes and relations; none for plurals."""
        name = self.names[i]
        if not _is_single(name):
            return _NOTHING
        found = {predicates.verb_of_attribute(a) for a in self.attributes[i]}
        for predicate, j in self._deeds[i]:
            verb = predicates.verb_of(predicate)
            if verb and not self.places[i][j] & refuting(predicate):
                found.add(verb)
        found.discard("")
        if "perched" in found:  # perched birds are also called sitting or standing
            found -= {"sitting", "standing"}
        return frozenset(found) if found else _NOTHING

    def _restricting_edges(self) -> tuple["_Edges", "_Edges"]:
        """Edges of single beings that exclude relations of other subjects, by their object; and
        those that exclude relations to other objects, by their subject."""
        of_object: _Edges = {}
        of_subject: _Edges = {}
        for i, deeds in enumerate(self._deeds):
            if not deeds or not is_one_being(self.names[i]):
                continue
            for predicate, j in deeds:
                if self.places[i][j] & refuting(predicate):
                    continue
                if predicates.denied_to_others(predicate, self.names[j]):
                    of_object.setdefault(j, []).append((i, predicate))
                if predicates.denied_elsewhere(predicate, self.names[j], self.names[j]):
                    of_subject.setdefault(i, []).append((j, predicate))
        return of_object, of_subject

    def _denied(self, i: int, j: int) -> frozenset[str]:
        """Predicates from the being i to j that other relations exclude."""
        if j not in self._one_bearer and i not in self._one_object:
            return _NOTHING
        found = self.denied_by_others(i, j) | self.denied_elsewhere(i, j)
        return frozenset(found) if found else _NOTHING

    def denied_by_others(self, i: int, j: int) -> set[str]:
        """Predicates from the being i to j that are excluded because another being does it to j."""
        found: set[str] = set()
        # A second person on a board that someone rides may also ride it.
        is_on = any(p == "on" or predicates.is_upon(p) for p in self.edges.get((i, j), ()))
        for other, predicate in self._one_bearer.get(j, ()) if not is_on else ():
            if self._are_two(i, other):
                found |= predicates.denied_to_others(predicate, self.names[j])
        return found

    def denied_elsewhere(self, i: int, j: int) -> set[str]:
        """Predicates from the being i to j that are excluded because i does it to another one."""
        found: set[str] = set()
        for other, predicate in self._one_object.get(i, ()):
            if self._are_two(j, other):
                found |= predicates.denied_elsewhere(predicate, self.names[other], self.names[j])
        return found

    def _are_two(self, i: int, j: int) -> bool:
        """Whether two objects are surely different, not one object boxed under two names."""
        if i == j:
            return False
        apart = boxes.LEFT | boxes.RIGHT | boxes.APART
        if self.places[i][j] & apart:
            return True
        return not may_be_the_same(self.names[i], self.names[j]) and not (
            self.places[i][j] & boxes.DOUBLE
        )

    def count(self, name: str, attributes: tuple[str, ...] = ()) -> int | None:
        """Number of objects of a name, with attributes; None if it is unknown.

        It is known for singular names of objects that are annotated one by one, if no other object
        may have the name and no two boxes coincide; with attributes, if each object surely has all
        of them or surely lacks one.
        """
        if name not in self._counts:
            self._counts[name] = self._count(name)
        if not attributes or self._counts[name] is None:
            return self._counts[name]
        phrase = Phrase(name, attributes)
        certain = self.certain(phrase)
        return len(certain) if certain == self.candidates(phrase) else None

    def _count(self, name: str) -> int | None:
        if not can_be_counted(name):
            return None
        # A number takes the plural, and 'glasses' may also be spectacles.
        found = self.bearers(plural(name))
        if not found or any(self.names[i] != name for i in found):
            return None
        pairs = [self.places[i][j] for i in found for j in found if i < j]
        return None if any(self._may_be_one(place) for place in pairs) else len(found)

    def may_be_one(self, i: int, j: int) -> bool:
        """Whether two objects may be one, annotated twice."""
        named_alike = may_be_the_same(self.names[i], self.names[j])
        return named_alike and self._may_be_one(self.places[i][j])

    @staticmethod
    def _may_be_one(place: int) -> bool:
        """The same for two objects of one name; boxes without area prove nothing."""
        return bool(place & boxes.DOUBLE) or not place & boxes.KNOWN


@lru_cache(maxsize=1 << 14)
def can_be_counted(name: str) -> bool:
    """Whether annotators box objects of a name one by one: no plurals, stuff, parts or groups."""
    if is_plural(name) or singular(name) != name or not shows_number(name):
        return False
    if not is_countable(name):
        return False
    return not any(is_a(name, g) for g in ("stuff", "body_parts", "grounds", "groups", "parts"))


def _attributes(found: SceneObject) -> frozenset[str]:
    attributes = frozenset([ALIASES.get(a, a) for a in found.attributes])
    # One annotated colour of a zebra or a flag is no evidence against a second one.
    return attributes | {"patterned"} if is_a(found.name, "many_coloured") else attributes


def _places(graph: SceneGraph, objects: list[SceneObject], raised: list[bool]) -> list[list[int]]:
    drawn = [boxes.box_of(found) for found in objects]
    # An unknown image size must not make the margins small.
    width = max([graph.width, *[b.right for b in drawn if b]])
    height = max([graph.height, *[b.bottom for b in drawn if b]])
    found = boxes.places(drawn, width, height)
    # Separate boxes prove nothing for stuff, which continues beyond its box, nor for kites.
    endless = [is_a(one.name, "stuff") for one in objects]
    far = [is_a(one.name, "held_from_afar") for one in objects]
    # The box of a ground or of the sky cannot prove that it is over something.
    bounded = boxes.APART | boxes.OVER | boxes.UNDER | boxes.LOWER
    found[endless] &= ~bounded
    found[:, endless] &= ~bounded
    held = found[:, far]
    found[:, far] = np.where(held & boxes.APART, held & ~boxes.APART | boxes.AWAY, held)
    low = [not up for up in raised]
    found[low] &= ~boxes.OVER
    found[:, low] &= ~boxes.UNDER
    rows: list[list[int]] = found.tolist()
    return rows


_TRUTH_OF = {True: TRUE, False: FALSE, None: UNKNOWN}

_DIRECTIONS = {
    "to the left of": (boxes.LEFT, boxes.RIGHT),
    "to the right of": (boxes.RIGHT, boxes.LEFT),
    "above": (boxes.ABOVE, boxes.BELOW),
    "below": (boxes.BELOW, boxes.ABOVE),
}
"""Predicate -> (bit that supports it, bit that refutes it)."""


_PROVEN = {"above": boxes.OVER, "below": boxes.UNDER}
"""Predicate -> bit that proves it, unless a more specific relation is annotated."""


@lru_cache(maxsize=1 << 14)
def refuting(predicate: str) -> int:
    """Bits each of which refutes a predicate."""
    implied = predicates.implied(predicate)
    bits = sum(against for name, (_, against) in _DIRECTIONS.items() if name in implied)
    bits |= boxes.TOO_LARGE if "inside" in implied else 0
    bits |= boxes.LOWER if predicates.is_upon(predicate) else 0
    if not predicates.needs_contact(predicate):
        return bits
    return bits | boxes.APART | (0 if "holding" in implied else boxes.AWAY)


@lru_cache(maxsize=1 << 14)
def favouring(predicate: str) -> int:
    implied = predicates.implied(predicate)
    return sum(bit for name, (bit, _) in _DIRECTIONS.items() if name in implied)


Facts = tuple[
    tuple[str, ...], tuple[str, ...], predicates.Body, int, int, frozenset[str], frozenset[str]
]
"""Arguments of ``truth_of_pair`` without the predicate."""
_Edges = dict[int, list[tuple[int, str]]]
"""Object -> (object at the other end, predicate)."""

_NOTHING: frozenset[str] = frozenset()
_UP = frozenset(("hanging", "hung", "mounted", "flying"))
"""Verbs of objects above the ground."""
_STANDING = (
    "people", "animals", "vehicles", "plants", "seats", "supports", "grounds", "mounts", "entered",
    "rooms", "standing",
)  # fmt: skip
_BESIDE = frozenset(
    ("to the left of", "to the right of", "near", "next to", "by", "beside", "close to")
)
"""Predicates that leave open which of two objects is higher."""


@lru_cache(maxsize=1 << 14)
def _body(name: str) -> predicates.Body:
    groups = groups_of(name)
    if "animals" in groups:
        return "animal"
    return "person" if "people" in groups else "thing"


@lru_cache(maxsize=1 << 14)
def _is_single(name: str) -> bool:
    """Whether a name stands for one object with one posture at a time."""
    return not is_plural(name) and not any(is_a(name, g) for g in ("groups", "stuff", "plants"))


@lru_cache(maxsize=1 << 14)
def _stands(name: str) -> bool:
    """Whether objects of a name stand on the ground: they neither hang nor belong to others."""
    return not is_a(name, "raised") and any(is_a(name, group) for group in _STANDING)


@lru_cache(maxsize=1 << 14)
def _is_put_down(predicate: str, other: str) -> bool:
    """Whether a relation to ``other`` means to lie or stand on it."""
    if not predicates.is_upon(predicate) and predicate != "on":
        return False
    return is_a(other, "supports") and not is_a(other, "hosts")


@lru_cache(maxsize=1 << 16)
def _in_pose(poses: frozenset[str], body: predicates.Body, attribute: str, found: Truth) -> Truth:
    """The truth of an attribute, corrected by the postures that the object's relations imply."""
    verb = predicates.verb_of_attribute(attribute)
    if not verb or not any(predicates.verbs_exclude(known, verb, body) for known in poses):
        return found
    sure = _surely_exclude(poses, verb, body)
    return UNKNOWN if found is TRUE or verb in poses or not sure else FALSE


def _surely_exclude(poses: frozenset[str], verb: str, body: predicates.Body) -> bool:
    """Whether poses exclude a verb even if one of two contradicting poses is an annotation error:
    'sitting' and 'standing' together leave 'walking' open."""
    against = [known for known in poses if predicates.verbs_exclude(known, verb, body)]
    return any(
        all(other in against for other in poses if predicates.verbs_exclude(known, other, "person"))
        for known in against
    )


class _State:
    """The facts about a pair of objects and cached conclusions; pairs of many images share it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.truths: dict[str, Truth] = {}
        self.has_edges = bool(facts[0] or facts[1])
        self.true_ones: tuple[str, ...] | None = None
        self.refuted: dict[predicates.Offer, tuple[str, ...]] = {}

    def truth(self, predicate: str) -> Truth:
        """The truth of a predicate from the first object to the second."""
        found = self.truths.get(predicate)
        if found is None:
            found = self.truths[predicate] = truth_of_pair(*self.facts, predicate)
        return found


@lru_cache(maxsize=1 << 14)
def _state_of(facts: Facts) -> _State:
    return _State(facts)


def _true_ones(state: _State) -> tuple[str, ...]:
    """Sorted predicates that are annotated, that follow from these or that boxes prove."""
    forwards, backwards, _, place, *_ = state.facts
    found = {*forwards}
    found.update(p for known in forwards for p in predicates.entailed(known))
    found.update(p for known in backwards for p in predicates.inverse_said(known))
    found |= {"above"} if place & boxes.OVER else set()
    found |= {"below"} if place & boxes.UNDER else set()
    return tuple([p for p in sorted(found) if state.truth(p) is TRUE])


def _refuted(state: _State, offered: tuple[str, ...]) -> tuple[str, ...]:
    if state.has_edges:
        return tuple([p for p in offered if state.truth(p) is FALSE])
    _, _, _, place, _, poses, denied = state.facts
    if not poses and not denied:  # a shortcut of ``truth_of_pair`` for most pairs
        return tuple([p for p in offered if place & refuting(p)])
    return tuple([p for p in offered if state.truth(p) is FALSE])


def truth_of_pair(
    forwards: tuple[str, ...],
    backwards: tuple[str, ...],
    body: predicates.Body,
    place: int,
    place_back: int,
    poses: frozenset[str],
    denied: frozenset[str],
    predicate: str,
) -> Truth:
    """The truth of s -predicate-> o by the edges between them, their boxes and the postures of s.

    Args:
        forwards: Predicates of edges from s to o.
        backwards: Predicates of edges from o to s.
        body: Kind of body of s.
        place: Bits of (s, o).
        place_back: Bits of (o, s).
        poses: Postures of s; empty for plurals.
        denied: Predicates that edges to other objects exclude.
        predicate: The claimed predicate.
    """
    refuted = bool(place & refuting(predicate))
    claimed = _implies(forwards, backwards, predicate)
    elsewhere = _is_elsewhere(poses, denied, body, predicate, claimed)
    if not claimed and (refuted or (elsewhere and not place & favouring(predicate))):
        return FALSE
    annotated = forwards + backwards
    # An edge that the boxes contradict may be an annotation error and proves nothing.
    forwards = tuple([p for p in forwards if not place & refuting(p)])
    backwards = tuple([p for p in backwards if not place_back & refuting(p)])
    excluded = _excludes(forwards, backwards, predicate, body)
    if claimed:
        sure = not (refuted or excluded or elsewhere) and _implies(forwards, backwards, predicate)
        return TRUE if sure else UNKNOWN
    if place & _PROVEN.get(predicate, 0) and not excluded:
        return TRUE if _BESIDE.issuperset(annotated) else UNKNOWN
    if not excluded or place & favouring(predicate):
        return UNKNOWN
    # If "behind" and "in front of" are both annotated, "standing behind" is open as well.
    disputed = any(
        _implies(forwards, backwards, p) and _excludes(forwards, backwards, p, body)
        for p in predicates.implied(predicate)
    )
    return UNKNOWN if disputed else FALSE


@lru_cache(maxsize=1 << 16)
def _is_elsewhere(
    poses: frozenset[str],
    denied: frozenset[str],
    body: predicates.Body,
    predicate: str,
    claimed: bool,
) -> bool:
    """Whether other relations of s exclude a predicate; ``claimed`` if an edge annotates it."""
    if denied and not denied.isdisjoint(predicates.implied(predicate)):
        return True
    verb = predicates.verb_of(predicate) if poses else ""
    # With both 'sitting' and 'standing' annotated, either may belong to another object.
    if not verb or (verb in poses and not claimed):
        return False
    if not claimed:
        return _surely_exclude(poses, verb, body)
    return any(predicates.verbs_exclude(known, verb, body) for known in poses)


def _implies(forwards: tuple[str, ...], backwards: tuple[str, ...], predicate: str) -> bool:
    """Whether edges from s to o, or from o to s, imply s -predicate-> o."""
    return any(predicate in predicates.implied(p) for p in forwards) or any(
        predicate in predicates.implied_backwards(p) for p in backwards
    )


def _excludes(
    forwards: tuple[str, ...], backwards: tuple[str, ...], predicate: str, body: predicates.Body
) -> bool:
    """Whether edges from s to o, or from o to s, exclude s -predicate-> o."""
    return any(predicates.excludes(p, predicate, body) for p in forwards) or any(
        predicates.excludes_backwards(p, predicate) for p in backwards
    )
