"""One image's scene graph, arranged for questions about single objects and pairs of them.

What is annotated, what the boxes refute and what annotated relations leave no room for meet here;
``truth.holds`` puts the answers together for whole claims. The same objects are asked about again
and again, so every answer is kept.
"""

from enum import Enum
from functools import lru_cache

from hnc_ds.captions.language import predicates
from hnc_ds.captions.language.attribute_classes import ALIASES, holds_of
from hnc_ds.captions.language.kinds import families, is_a, is_animate, may_be_the_same
from hnc_ds.captions.language.nouns import is_countable, is_plural, plural, shows_number, singular
from hnc_ds.captions.truth import boxes
from hnc_ds.captions.truth.claims import Phrase
from hnc_ds.records import SceneGraph, SceneObject


class Truth(Enum):
    """What a scene graph says about a claim."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


TRUE, FALSE, UNKNOWN = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN


class IndexedGraph:
    """A scene graph, arranged for questions. Objects are numbered by their ids in sorted order."""

    def __init__(self, graph: SceneGraph) -> None:
        ids = sorted(graph.objects)
        number = {object_id: i for i, object_id in enumerate(ids)}
        objects = [graph.objects[object_id] for object_id in ids]
        self.image_id = graph.image_id
        self.names = tuple([found.name for found in objects])
        self.attributes = tuple([_attributes(found) for found in objects])
        self.edges: dict[tuple[int, int], tuple[str, ...]] = {}
        for i, found in enumerate(objects):
            for relation in found.relations:
                pair = (i, number[relation.object])
                self.edges[pair] = (*self.edges.get(pair, ()), relation.name)
        self.places = _places(graph, objects)
        """Of each pair of objects: what its boxes say, as bits of ``boxes``."""
        self._animate = tuple([is_animate(name) for name in self.names])
        self._family: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            for family in families(name):
                self._family.setdefault(family, []).append(i)
        self._bearers: dict[str, tuple[int, ...]] = {}
        self._candidates: dict[Phrase, tuple[int, ...]] = {}
        self._states: dict[tuple[int, int], _State] = {}
        self._counts: dict[str, int | None] = {}

    def bearers(self, name: str) -> tuple[int, ...]:
        """Objects that the name may stand for, whatever their attributes."""
        found = self._bearers.get(name)
        if found is None:
            kin = {i for family in families(name) for i in self._family.get(family, ())}
            found = tuple([i for i in sorted(kin) if may_be_the_same(self.names[i], name)])
            self._bearers[name] = found
        return found

    def candidates(self, phrase: Phrase) -> tuple[int, ...]:
        """Objects that the phrase may mean: bearers of the name that no attribute rules out."""
        found = self._candidates.get(phrase)
        if found is None:
            found = self.bearers(phrase.name)
            for a in phrase.attributes:
                found = tuple([i for i in found if holds_of(self.attributes[i], a) is not False])
            self._candidates[phrase] = found
        return found

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
        state = self._states.get((i, j)) or self._state(i, j)
        return state.truth(predicate)

    def stated(self, i: int, j: int) -> tuple[str, ...]:
        """Predicates that are true from object i to object j and can be said, sorted: annotated
        ones, and above or below where nothing else is annotated."""
        state = self._states.get((i, j)) or self._state(i, j)
        return _stated(state, self.names[i], self.names[j])

    def refuted_predicates(self, i: int, j: int) -> tuple[str, ...]:
        """Predicates that could be said from object i to object j and are false, sorted."""
        state = self._states.get((i, j)) or self._state(i, j)
        return _refuted(state, self.names[i], self.names[j])

    def _state(self, i: int, j: int) -> "_State":
        facts = (
            self.edges.get((i, j), ()),
            self.edges.get((j, i), ()),
            self._animate[i],
            self.places[i][j],
            self.places[j][i],
        )
        found = self._states[i, j] = _state_of(facts)
        return found

    def count(self, name: str) -> int | None:
        """How many things of a name there are; None if the graph cannot tell.

        It can for names in the singular of things that are annotated one by one, if nothing else
        in the image could bear the name and no two of them lie in the same place.
        """
        if name not in self._counts:
            self._counts[name] = self._count(name)
        return self._counts[name]

    def _count(self, name: str) -> int | None:
        if not can_be_counted(name):
            return None
        # A number is said with the plural, and 'glasses' may be those on a nose.
        found = self.bearers(plural(name))
        if not found or any(self.names[i] != name for i in found):
            return None
        pairs = [self.places[i][j] for i in found for j in found if i < j]
        return None if any(self._may_be_one(place) for place in pairs) else len(found)

    def may_be_one(self, i: int, j: int) -> bool:
        """Whether two objects may be one thing, annotated twice."""
        named_alike = may_be_the_same(self.names[i], self.names[j])
        return named_alike and self._may_be_one(self.places[i][j])

    @staticmethod
    def _may_be_one(place: int) -> bool:
        """Whether two of a name may be one thing, boxed twice; boxes without area tell nothing."""
        return bool(place & boxes.DOUBLE) or not place & boxes.KNOWN


@lru_cache(maxsize=1 << 14)
def can_be_counted(name: str) -> bool:
    """Whether annotators box every single one: no plurals, stuff, parts or groups."""
    if is_plural(name) or singular(name) != name or not shows_number(name):
        return False
    if not is_countable(name):
        return False
    return not any(is_a(name, g) for g in ("stuff", "body_parts", "grounds", "groups", "parts"))


def _attributes(found: SceneObject) -> frozenset[str]:
    attributes = frozenset([ALIASES.get(a, a) for a in found.attributes])
    # One annotated colour of a zebra or a flag is no evidence against a second one.
    return attributes | {"patterned"} if is_a(found.name, "many_coloured") else attributes


def _places(graph: SceneGraph, objects: list[SceneObject]) -> list[list[int]]:
    drawn = [boxes.box_of(found) for found in objects]
    # A size that is not known must not make the margins small.
    width = max([graph.width, *[b.right for b in drawn if b]])
    height = max([graph.height, *[b.bottom for b in drawn if b]])
    found = boxes.places(drawn, width, height)
    # Boxes that lie apart tell nothing of what goes on beyond its box, or is held by a string.
    endless = [is_a(one.name, "stuff") for one in objects]
    far = [is_a(one.name, "held_from_afar") for one in objects]
    # Nor can the box of a ground or a sky show that it is over something.
    found[endless] &= ~(boxes.APART | boxes.OVER | boxes.UNDER)
    found[:, endless] &= ~(boxes.APART | boxes.OVER | boxes.UNDER)
    found[:, far] &= ~boxes.APART
    rows: list[list[int]] = found.tolist()
    return rows


_TRUTH_OF = {True: TRUE, False: FALSE, None: UNKNOWN}

_DIRECTIONS = {
    "to the left of": (boxes.LEFT, boxes.RIGHT),
    "to the right of": (boxes.RIGHT, boxes.LEFT),
    "above": (boxes.ABOVE, boxes.BELOW),
    "below": (boxes.BELOW, boxes.ABOVE),
}
"""What the boxes of a pair show if it is so, and if it is not."""


_PROVEN = {"above": boxes.OVER, "below": boxes.UNDER}
"""What the boxes of a pair show on their own, where nothing is annotated that says more."""


@lru_cache(maxsize=1 << 14)
def _refuting(predicate: str) -> int:
    """The bits of which one is enough against a predicate."""
    implied = predicates.implied(predicate)
    bits = sum(against for name, (_, against) in _DIRECTIONS.items() if name in implied)
    bits |= boxes.TOO_LARGE if "inside" in implied else 0
    return bits | (boxes.APART if predicates.needs_contact(predicate) else 0)


@lru_cache(maxsize=1 << 14)
def _favouring(predicate: str) -> int:
    implied = predicates.implied(predicate)
    return sum(bit for name, (bit, _) in _DIRECTIONS.items() if name in implied)


_Facts = tuple[tuple[str, ...], tuple[str, ...], bool, int, int]
"""Arguments of ``_judge`` but for the predicate."""


class _State:
    """All that is known of two objects, and what has been concluded from it. There are few
    different ones: pairs of many images share them."""

    def __init__(self, facts: _Facts) -> None:
        self.facts = facts
        self.truths: dict[str, Truth] = {}
        self.stated: tuple[str, ...] | None = None

    def truth(self, predicate: str) -> Truth:
        """Of a predicate from the first to the second."""
        found = self.truths.get(predicate)
        if found is None:
            found = self.truths[predicate] = _judge(*self.facts, predicate)
        return found


@lru_cache(maxsize=1 << 14)
def _state_of(facts: _Facts) -> _State:
    return _State(facts)


def _stated(state: _State, name: str, other: str) -> tuple[str, ...]:
    if state.stated is None:
        state.stated = _true_of(state)
    return tuple([p for p in state.stated if predicates.is_said_of(p, name, other)])


def _true_of(state: _State) -> tuple[str, ...]:
    forwards, backwards, _, place, _ = state.facts
    found = {*forwards}
    if not forwards and not backwards:
        found |= {"above"} if place & boxes.OVER else set()
        found |= {"below"} if place & boxes.UNDER else set()
    return tuple(sorted(p for p in found if state.truth(p) is TRUE))


@lru_cache(maxsize=1 << 14)
def _refuted(state: _State, name: str, other: str) -> tuple[str, ...]:
    return tuple([p for p in predicates.said_of(name, other) if state.truth(p) is FALSE])


def _judge(
    forwards: tuple[str, ...],
    backwards: tuple[str, ...],
    animate: bool,
    place: int,
    place_back: int,
    predicate: str,
) -> Truth:
    """Whether s -predicate-> o, from the edges between them and from their boxes.

    Args:
        forwards: Predicates of edges from s to o.
        backwards: Predicates of edges from o to s.
        animate: Whether s is a person or an animal.
        place: Bits of (s, o).
        place_back: Bits of (o, s).
        predicate: What is claimed.
    """
    refuted = place & _refuting(predicate)
    if not forwards and not backwards:
        if place & _PROVEN.get(predicate, 0):
            return TRUE
        return FALSE if refuted else UNKNOWN
    claimed = _says(forwards, backwards, predicate)
    if refuted and not claimed:
        return FALSE
    # An edge that the boxes contradict may be a slip of the hand: it proves nothing.
    forwards = tuple(p for p in forwards if not place & _refuting(p))
    backwards = tuple(p for p in backwards if not place_back & _refuting(p))
    excluded = _excludes(forwards, backwards, predicate, animate)
    if claimed:
        sure = not refuted and not excluded and _says(forwards, backwards, predicate)
        return TRUE if sure else UNKNOWN
    if not excluded or place & _favouring(predicate):
        return UNKNOWN
    # Where "behind" and "in front of" are both annotated, "standing behind" is open, too.
    disputed = any(
        _says(forwards, backwards, p) and _excludes(forwards, backwards, p, animate)
        for p in predicates.implied(predicate)
    )
    return UNKNOWN if disputed else FALSE


def _says(forwards: tuple[str, ...], backwards: tuple[str, ...], predicate: str) -> bool:
    """Whether edges from s to o, and from o to s, say that s -predicate-> o."""
    return any(predicate in predicates.implied(p) for p in forwards) or any(
        predicate in predicates.implied_backwards(p) for p in backwards
    )


def _excludes(
    forwards: tuple[str, ...], backwards: tuple[str, ...], predicate: str, animate: bool
) -> bool:
    """Whether edges from s to o, and from o to s, leave no room for s -predicate-> o."""
    return any(predicates.excludes(p, predicate, animate) for p in forwards) or any(
        predicates.excludes_backwards(p, predicate) for p in backwards
    )
