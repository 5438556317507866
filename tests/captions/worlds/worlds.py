"""Worlds in which everything is known: what each thing is, is like and does, and where it stands.

What is true is YES, what is false NO; MAYBE is what people could argue about (is the desk a
table?) or what no image shows. Predicates that nothing here knows are errors, not MAYBE.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from tests.captions.worlds.lexicon import (
    CONTACT,
    DEEDS,
    NOT_MEANWHILE,
    PLACES,
    PLURAL_ONLY,
    SIDES,
    SIZES,
    SOFT,
    STANCES,
    UNCOUNTED_GROUPS,
    VERBS,
    Kind,
    plural,
)
from tests.captions.worlds.placing import Box, centre

LOOSE_CONTACT = {
    "attached to", "connected to", "tied to", "leaning on", "leaning against",
    "covered in", "covered with", "wrapped around", "wrapped in", "stuck on",
    "reaching for", "hanging from", "topped with", "grabbing", "containing",
}  # fmt: skip
"""Arguable of two things that go with each other."""

SHAKE = 4
"""Pixels by which two hands together miss an edge."""

SIZE_IS_CLEAR = 4
"""So many times the area of another one's box."""


class Verdict(IntEnum):
    """How true something is; `min` is "and", `max` is "or"."""

    NO = 0
    MAYBE = 1
    YES = 2


NO, MAYBE, YES = Verdict


@dataclass
class Thing:
    """One thing of a world, or several of one kind that a plural name stands for."""

    kind: Kind
    number: int | None
    """How many; None for what is not countable."""
    box: Box
    depth: float
    values: dict[str, list[int]] = field(default_factory=dict)
    """Property -> numbers of the values it has."""
    posture: str = ""
    members: tuple[int, ...] = ()
    """Things of this world that it stands for once more: 'the dogs', beside each dog."""

    def __post_init__(self) -> None:
        if self.kind.group in UNCOUNTED_GROUPS or self.kind.name in PLURAL_ONLY:
            self.number = None

    def called(self, lemma: str) -> Verdict:
        """Whether a name, in the singular, is true of it."""
        if lemma in self.kind.names:
            return YES
        return MAYBE if lemma in self.kind.arguable else NO


@dataclass
class World:
    """Things, and what holds between two of them."""

    things: list[Thing] = field(default_factory=list)
    attributes: list[dict[str, Verdict]] = field(default_factory=list)
    """Of each thing: attribute -> verdict; NO for all others."""
    facts: dict[tuple[int, int], dict[str, Verdict]] = field(default_factory=dict)
    """(subject, object) -> predicate -> verdict, where things do something with each other."""
    links: set[tuple[int, int]] = field(default_factory=set)
    """Pairs that touch each other, in both orders."""
    nested: set[tuple[int, int]] = field(default_factory=set)
    """Pairs of which one is inside the other, in both orders."""

    def has(self, i: int, attribute: str) -> Verdict:
        found = self.attributes[i].get(attribute, NO)
        return min(found, self._does(i, attribute)) if found is MAYBE else found

    def related(self, i: int, predicate: str, j: int) -> Verdict:
        if i == j:
            return NO
        known = self.facts.get((i, j), {}).get(predicate, NO)
        if known is MAYBE and predicate in ("above", "below"):
            if self._is_straight(i, predicate, j):
                return YES
            lower = centre(self.things[i].box)[1] > centre(self.things[j].box)[1]
            if lower == (predicate == "above"):
                return NO
        if known is MAYBE and predicate == "inside" and not self._could_be_inside(i, j):
            return NO
        verb, _, place = predicate.partition(" ")
        if known is MAYBE and verb in VERBS and place in PLACES:
            return min(known, self._does(i, verb))
        if known is not NO:
            return known
        if predicate in SIDES:
            return self._side(i, predicate, j)
        if predicate in SIZES:
            return self._size(i, SIZES[predicate], j)
        if verb in VERBS and place in PLACES and predicate not in CONTACT:
            return min(self._does(i, verb), self.related(i, place, j))
        if predicate in SOFT or predicate in CONTACT:
            return MAYBE if self._can_be_argued(i, predicate, j) else NO
        assert predicate in DEEDS, predicate
        return NO

    def _does(self, i: int, verb: str) -> Verdict:
        """Whether a thing does so, which can be argued about unless it does something else."""
        own, stance = self.things[i].posture, STANCES.get(verb)
        if own and verb == own:
            return YES
        if any(frozenset({verb, other}) in NOT_MEANWHILE for other in self._doing(i)):
            return NO
        at_rest = own in ("standing", "sitting", "lying")
        return NO if at_rest and stance is not None and own != stance else MAYBE

    def _doing(self, i: int) -> set[str]:
        """First words of what a thing surely does, to whatever other one."""
        deeds = [facts for (one, _), facts in self.facts.items() if one == i]
        found = {p.split(" ")[0] for facts in deeds for p, sure in facts.items() if sure is YES}
        return found | {self.things[i].posture}

    def _is_straight(self, i: int, predicate: str, j: int) -> bool:
        """Whether it is undeniable: one is over the other, and both have bounds."""
        upper, lower = (i, j) if predicate == "above" else (j, i)
        (x, y, w, h), (other_x, other_y, other_w, _) = (
            self.things[upper].box,
            self.things[lower].box,
        )
        bounded = all(self.things[k].kind.group not in ("grounds", "skies") for k in (i, j))
        return (
            bounded and y + h <= other_y + SHAKE and min(x + w, other_x + other_w) > max(x, other_x)
        )

    def _could_be_inside(self, i: int, j: int) -> bool:
        """Whether one thing has an inside, and the other one its middle there."""
        (middle_x, middle_y), (x, y, w, h) = centre(self.things[i].box), self.things[j].box
        hollow = self.things[j].kind.group in ("containers", "vehicles", "boats", "seats")
        return hollow and x < middle_x < x + w and y < middle_y < y + h

    def _size(self, i: int, larger: bool, j: int) -> Verdict:
        """By boxes: clear where one is several times the other."""
        (_, _, w, h), (_, _, other_w, other_h) = self.things[i].box, self.things[j].box
        ratio = w * h / max(1, other_w * other_h)
        if 1 / SIZE_IS_CLEAR < ratio < SIZE_IS_CLEAR:
            return MAYBE
        return YES if (ratio > 1) == larger else NO

    def number(self, lemma: str) -> int | None:
        """How many things bear a name; None if that can be argued about."""
        total = 0
        for thing in self.things:
            called = thing.called(lemma)
            # Two glasses, where one thing is to drink from and the other one is worn?
            written_alike = called is NO and thing.called(plural(lemma)) is not NO
            if called is MAYBE or written_alike or (called is YES and thing.number is None):
                return None
            total += thing.number or 0 if called is YES else 0
        return total

    def state(self, i: int, predicate: str, j: int, verdict: Verdict = YES) -> None:
        """Note what holds between two things; what is certain stays so."""
        facts = self.facts.setdefault((i, j), {})
        facts[predicate] = max(verdict, facts.get(predicate, NO))

    def _can_be_argued(self, i: int, predicate: str, j: int) -> bool:
        """Whether it is arguable of two things of which nothing of the sort was drawn."""
        inside, linked = (i, j) in self.nested, (i, j) in self.links
        lower = centre(self.things[i].box)[1] > centre(self.things[j].box)[1]
        if predicate in ("over", "under", "underneath", "beneath"):
            return not (inside or linked) and lower == (predicate != "over")
        if predicate in SOFT:
            return not (inside and predicate in ("outside", "outside of"))
        if predicate in LOOSE_CONTACT and linked and self._does(i, predicate.split(" ")[0]):
            return self.facts.get((j, i), {}).get(predicate) is not YES
        # The ground extends beyond its box: what is not stated to be elsewhere may stand on it.
        if linked or self.things[j].kind.group != "grounds":
            return False
        posture, _, place = predicate.rpartition(" ")
        own = self.things[i].posture
        could = {"", own} | (
            {"walking", "standing"} if own in ("", "standing", "walking") else set()
        )
        return place in ("on", "in") and posture in could

    def _side(self, i: int, predicate: str, j: int) -> Verdict:
        if (i, j) in self.nested:
            return NO
        a, b = self.things[i], self.things[j]
        (ax, ay), (bx, by) = centre(a.box), centre(b.box)
        holds = {
            "to the left of": ax < bx,
            "to the right of": ax > bx,
            "above": ay < by,
            "below": ay > by,
            "in front of": a.depth < b.depth,
            "behind": a.depth > b.depth,
        }[predicate]
        # Which of two things is in front where one holds the other can be argued about.
        arguable = (i, j) in self.links and predicate in ("in front of", "behind")
        return YES if holds else MAYBE if arguable else NO
