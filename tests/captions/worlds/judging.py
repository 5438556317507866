"""The verdict on a parsed caption: three-valued logic over a judge of single things.

Two know: a drawn world (worlds.py), where everything is YES or NO but for what can be argued
about, and a scene graph taken at its word, where what is annotated is YES and all else MAYBE.
"""

from itertools import product
from typing import Protocol

from hnc_ds.records import SceneGraph
from tests.captions.worlds.claims import Both, Claim, Compare, Does, Either, Is, Not, Number, Phrase
from tests.captions.worlds.lexicon import FORMS, INVERSE, KINDS
from tests.captions.worlds.open_words import follows
from tests.captions.worlds.properties import SAME_ATTRIBUTE
from tests.captions.worlds.worlds import MAYBE, NO, YES, Verdict, World


class Facts(Protocol):
    """What single things are, and what holds between two of them."""

    def __len__(self) -> int: ...
    def called(self, i: int, lemma: str) -> Verdict: ...
    def has(self, i: int, attribute: str) -> Verdict: ...
    def related(self, i: int, predicate: str, j: int) -> Verdict: ...
    def number(self, lemma: str) -> int | None: ...
    def size(self, i: int) -> int: ...


Witnesses = dict[int, Verdict]
"""Things of which something may be true."""


class Judge:
    """Judges captions about one image; remembers whom a phrase can mean."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._meant: dict[Phrase, Witnesses] = {}

    def verdict(self, claim: Claim) -> Verdict:
        match claim:
            case Is() | Does():
                return max(self._witnesses(claim).values(), default=NO)
            case Not(part):
                return Verdict(2 - self.verdict(part))
            case Both():
                return self._both(claim)
            case Either(first, second):
                return _exactly_one(self.verdict(first), self.verdict(second))
            case Number(counted, number):
                return _as_counted(self._number(counted), lambda found: found == number)
            case Compare(counted, comparator, other):
                ours, theirs = self._number(counted), self._number(other)
                if theirs is None:
                    return MAYBE
                return _as_counted(
                    ours,
                    lambda found: {
                        "more": found > theirs,
                        "fewer": found < theirs,
                        "as many": found == theirs,
                    }[comparator],
                )

    def _number(self, counted: Phrase) -> int | None:
        """How many things a phrase fits; None if that can be argued about."""
        total = self.facts.number(counted.name)
        if total is None or not counted.attributes:
            return total
        fits = self.meant(counted).items()
        if any(verdict is MAYBE for _, verdict in fits):
            return None
        return sum(self.facts.size(i) for i, _ in fits)

    def meant(self, phrase: Phrase) -> Witnesses:
        """The things that a phrase fits or could fit."""
        if phrase not in self._meant:
            self._meant[phrase] = {
                i: fits
                for i in range(len(self.facts))
                if (
                    fits := min(
                        self.facts.called(i, phrase.name),
                        *(self.facts.has(i, a) for a in phrase.attributes),
                        YES,
                    )
                )
            }
        return self._meant[phrase]

    def _witnesses(self, claim: Is | Does) -> Witnesses:
        """The subjects of which a claim holds or could hold."""
        if isinstance(claim, Is):
            if claim.attribute is None:
                return self.meant(claim.subject)
            has = {i: self.facts.has(i, claim.attribute) for i in self.meant(claim.subject)}
            return _holding({i: min(fits, has[i]) for i, fits in self.meant(claim.subject).items()})
        found: Witnesses = {}
        for i, subject in self.meant(claim.subject).items():
            for j, object_ in self.meant(claim.object).items():
                holds = min(subject, object_, self.facts.related(i, claim.predicate, j))
                if holds > found.get(i, NO):
                    found[i] = holds
        return found

    def _both(self, claim: Both) -> Verdict:
        """Of one thing where stated, else of two different ones; anything else is arguable."""
        first, second = self._witnesses(claim.first), self._witnesses(claim.second)
        if not first or not second:
            return NO
        pairs = (
            min(first[i], second[j])
            for i, j in product(first, second)
            if (i == j) == claim.one_subject
        )
        return max(MAYBE, max(pairs, default=MAYBE))


class WorldFacts:
    """A world, of which all is known."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.has = world.has
        self.related = world.related
        self.number = world.number

    def __len__(self) -> int:
        return len(self.world.things)

    def called(self, i: int, lemma: str) -> Verdict:
        return self.world.things[i].called(lemma)

    def size(self, i: int) -> int:
        """How many it is. Groups that stand for things once more are none."""
        return self.world.things[i].number or 0


class AnnotatedFacts:
    """A scene graph: its annotations are true, all else may be true."""

    def __init__(self, graph: SceneGraph) -> None:
        self.objects = list(graph.objects.values())
        self.names = [FORMS[found.name] for found in self.objects]
        place = {object_id: i for i, object_id in enumerate(graph.objects)}
        self.edges = {
            (i, name, place[relation.object])
            for i, found in enumerate(self.objects)
            for relation in found.relations
            for name in follows(relation.name)
        }
        self.attributes = [
            {SAME_ATTRIBUTE.get(a, a) for a in found.attributes} for found in self.objects
        ]

    def __len__(self) -> int:
        return len(self.objects)

    def called(self, i: int, lemma: str) -> Verdict:
        own = self.names[i].lemma
        if own == lemma or (own in KINDS and lemma in KINDS[own].names):
            return YES
        return MAYBE if any({own, lemma} <= k.names | k.arguable for k in KINDS.values()) else NO

    def has(self, i: int, attribute: str) -> Verdict:
        return YES if attribute in self.attributes[i] else MAYBE

    def related(self, i: int, predicate: str, j: int) -> Verdict:
        if i == j:
            return NO
        inverse = INVERSE.get(predicate, "")
        annotated = (i, predicate, j) in self.edges or (j, inverse, i) in self.edges
        return YES if annotated or self._boxes_say(i, predicate, j) else MAYBE

    def _boxes_say(self, i: int, predicate: str, j: int) -> bool:
        """Whether one box is wholly over the other one."""
        if predicate not in ("above", "below"):
            return False
        upper, lower = (i, j) if predicate == "above" else (j, i)
        a, b = self.objects[upper], self.objects[lower]
        beside = min(a.x + a.w, b.x + b.w) <= max(a.x, b.x)
        return min(a.w, a.h, b.w, b.h) > 0 and a.y + a.h <= b.y and not beside

    def number(self, lemma: str) -> int | None:
        """Of things annotated one by one, if no other could bear the name."""
        found = [i for i in range(len(self)) if self.called(i, lemma) is not NO]
        single = all(self.names[i] == (lemma, False) for i in found)
        return len(found) if single else None

    def size(self, i: int) -> int:
        return 1


def _holding(witnesses: Witnesses) -> Witnesses:
    return {i: verdict for i, verdict in witnesses.items() if verdict}


def _exactly_one(first: Verdict, second: Verdict) -> Verdict:
    if MAYBE in (first, second):
        return MAYBE
    return NO if first is second else YES


def _as_counted(number: int | None, holds) -> Verdict:
    if number is None:
        return MAYBE
    return YES if holds(number) else NO
