"""Labels of captions checked against the graph alone, where no world is known: real graphs.

A caption is read with the words of its graphs (parsing.py, not strictly) and judged by rules and
lexicons of the tests' own (open_words.py). A label is WRONG if the graph contradicts it: a false
caption that annotations or boxes state, of any things that could bear its names; a true caption
that nothing annotated and no box supports, or that is not about one thing where it says "the". It
is UNPROVEN if the graph does not contradict it but the rules here do not find why it is right.
"""

from collections.abc import Iterable, Iterator
from itertools import product

from hnc_ds.records import CaptionGroup, SceneGraph, SceneObject
from tests.captions.worlds import open_words
from tests.captions.worlds.claims import Both, Claim, Compare, Does, Either, Is, Not, Number, Phrase
from tests.captions.worlds.findings import Finding, Label
from tests.captions.worlds.judging import Judge, Witnesses
from tests.captions.worlds.lexicon import Form
from tests.captions.worlds.open_words import could_be, exclude, follows, follows_back, one_of
from tests.captions.worlds.parsing import Grammar, Vocabulary
from tests.captions.worlds.placing import Box, centre, gap
from tests.captions.worlds.worlds import MAYBE, NO, YES, Verdict

SIDE = 0.01
"""By this share of an image's side one centre lies clearly beyond another."""
APART = 0.03
"""Boxes further apart than this share of the longer side do not touch."""
SIDEWAYS = ("to the left of", "to the right of")
SAME_PLACE = 0.5
"""Boxes that share this much of their union may be of one thing."""


def grammar_of(graphs: Iterable[SceneGraph]) -> Grammar:
    """Reads captions in the words of some graphs, and in those that follow from them."""
    names: set[str] = set()
    attributes: set[str] = set(open_words.ATTRIBUTES | open_words.MATERIALS)
    predicates: set[str] = set(open_words.PREDICATES | open_words.STATED)
    for graph in graphs:
        for found in graph.objects.values():
            names.add(found.name.lower())
            attributes |= {*found.attributes}
            predicates |= {relation.name for relation in found.relations}
    for predicate in sorted(predicates):
        predicates |= follows(predicate, True) | follows_back(predicate, True)
    same = open_words.SAME_ATTRIBUTE
    forms = {open_words.many_of(one_of(name)): Form(one_of(name), True) for name in sorted(names)}
    forms |= {
        one_of(name): Form(one_of(name), open_words.is_always_plural(name))
        for name in sorted(names)
    }
    known = frozenset(same.get(a, a) for a in attributes)
    return Grammar(
        Vocabulary(
            forms,
            frozenset(predicates),
            known,
            known,
            same,
            frozenset(),
            open_words.many_of,
            strict=False,
        )
    )


class GraphFacts:
    """A scene graph: what it states, what it rules out, and what it leaves open."""

    def __init__(self, graph: SceneGraph) -> None:
        self.graph = graph
        self.objects = [graph.objects[one] for one in sorted(graph.objects)]
        self.names = [one_of(found.name.lower()) for found in self.objects]
        self.boxes = [_box_of(found) for found in self.objects]
        self.attributes = [
            {open_words.SAME_ATTRIBUTE.get(a, a) for a in found.attributes}
            for found in self.objects
        ]
        place = {one: i for i, one in enumerate(sorted(graph.objects))}
        self.edges: dict[tuple[int, int], set[str]] = {}
        for i, found in enumerate(self.objects):
            for relation in found.relations:
                self.edges.setdefault((i, place[relation.object]), set()).add(relation.name)
        rights = [b[0] + b[2] for b in self.boxes if b] + [graph.width]
        bottoms = [b[1] + b[3] for b in self.boxes if b] + [graph.height]
        self.width, self.height = max(rights), max(bottoms)

    def __len__(self) -> int:
        return len(self.objects)

    def called(self, i: int, lemma: str) -> Verdict:
        own = self.names[i]
        if own == lemma or own.endswith(" " + lemma):
            return YES
        return MAYBE if could_be(own, lemma) else NO

    def has(self, i: int, attribute: str) -> Verdict:
        if attribute in self.attributes[i]:
            return YES
        excluded = any(exclude(known, attribute) for known in self.attributes[i])
        return NO if excluded else MAYBE

    def related(self, i: int, predicate: str, j: int) -> Verdict:
        if i == j:
            return NO
        if self.annotated(i, predicate, j):
            return MAYBE if self._contradicted(i, predicate, j) else YES
        refuted = self.refuted(i, predicate, j)
        if self.boxed(i, predicate, j):
            return MAYBE if refuted else YES
        return NO if refuted else MAYBE

    def _contradicted(self, i: int, predicate: str, j: int) -> bool:
        """Whether what is annotated contradicts the boxes, implausibly, or edges."""
        needs = follows(predicate)
        if any(self._side(i, side, j) < 0 and self._apart_along(i, side, j) for side in needs):
            return True
        far = needs & open_words.TOUCHING and self._apart(i, j, 2 * APART)
        return bool(far) or self._ruled_out(i, predicate, j)

    def number(self, lemma: str) -> int | None:
        found = [i for i in range(len(self)) if self.called(i, lemma) is not NO]
        if any(self.objects[i].name.lower() != lemma for i in found):
            return None
        doubled = any(self._overlap(i, j) > 0.9 for i in found for j in found if i < j)
        return None if doubled else len(found)

    def size(self, i: int) -> int:
        return 1

    def annotated(self, i: int, predicate: str, j: int, loosely: bool = False) -> bool:
        """Whether an edge between two things states it."""
        return any(predicate in follows(p, loosely) for p in self.edges.get((i, j), ())) or any(
            predicate in follows_back(p, loosely) for p in self.edges.get((j, i), ())
        )

    def boxed(self, i: int, predicate: str, j: int) -> bool:
        """Whether the boxes show it: sides alone, and only where no annotation contradicts."""
        if self._side(i, predicate, j) <= 0 or self._ruled_out(i, predicate, j):
            return False
        return predicate in SIDEWAYS or self._straight(i, predicate, j)

    def _straight(self, i: int, predicate: str, j: int) -> bool:
        """Whether one box is wholly higher than the other, and not beside it."""
        upper, lower = (i, j) if predicate == "above" else (j, i)
        a, b = self.boxes[upper], self.boxes[lower]
        assert a is not None
        assert b is not None
        least = 0.1 * min(a[3], b[3])
        return a[1] + a[3] - least <= b[1] and min(a[0] + a[2], b[0] + b[2]) > max(a[0], b[0])

    def refuted(self, i: int, predicate: str, j: int) -> bool:
        """Whether there is a reason why it cannot be so."""
        needs = follows(predicate)
        if any(self._side(i, one, j) < 0 for one in needs):
            return True
        if needs & open_words.TOUCHING and self._apart(i, j):
            return True
        if "inside" in needs and self._too_large(i, j):
            return True
        return self._ruled_out(i, predicate, j) or self._taken(i, predicate, j)

    def _ruled_out(self, i: int, predicate: str, j: int) -> bool:
        """Whether what is annotated between two things leaves no room for it."""
        needs = follows(predicate)
        forwards, backwards = self.edges.get((i, j), set()), self.edges.get((j, i), set())
        if any(open_words.rules_out(known, predicate) for known in forwards):
            return True
        if any(follows(known) & needs & open_words.ONE_WAY for known in backwards):
            return True
        return any(
            open_words.rules_out(turned, predicate)
            for known in backwards
            for turned in follows_back(known)
        )

    def _taken(self, i: int, predicate: str, j: int) -> bool:
        """Whether another one does so, where only one can."""
        theirs = [name for name in follows(predicate) if name in open_words.ONE_BEARER]
        return any(
            (k, other) != (i, j)
            and other == j
            and not (could_be(self.names[i], self.names[k]) and self._overlap(i, k) > SAME_PLACE)
            and any({*theirs} & follows(known) for known in predicates)
            for (k, other), predicates in self.edges.items()
        )

    def _side(self, i: int, predicate: str, j: int) -> int:
        """1 if boxes show a side, -1 if they show the other one, 0 if they show neither."""
        a, b = self.boxes[i], self.boxes[j]
        axis = {"to the left of": 0, "to the right of": 0, "above": 1, "below": 1}.get(predicate)
        if a is None or b is None or axis is None:
            return 0
        ahead = centre(b)[axis] - centre(a)[axis]
        if abs(ahead) < SIDE * (self.width, self.height)[axis]:
            return 0
        toward = 1 if predicate in ("to the left of", "above") else -1
        return toward if ahead > 0 else -toward

    def _apart_along(self, i: int, side: str, j: int) -> bool:
        """Whether two boxes share no part of the axis that a side is on."""
        a, b = self.boxes[i], self.boxes[j]
        axis = 0 if side in SIDEWAYS else 1
        assert a is not None
        assert b is not None
        return a[axis] + a[axis + 2] <= b[axis] or b[axis] + b[axis + 2] <= a[axis]

    def _apart(self, i: int, j: int, least: float = APART) -> bool:
        a, b = self.boxes[i], self.boxes[j]
        if a is None or b is None or {self.names[i], self.names[j]} & open_words.UNBOUNDED:
            return False
        return gap(a, b) > least * max(self.width, self.height)

    def _too_large(self, i: int, j: int) -> bool:
        a, b = self.boxes[i], self.boxes[j]
        return a is not None and b is not None and a[2] > b[2] and a[3] > b[3]

    def _overlap(self, i: int, j: int) -> float:
        """Intersection over union; 1 where a box is not known."""
        a, b = self.boxes[i], self.boxes[j]
        if a is None or b is None:
            return 1.0
        w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        shared = max(w, 0) * max(h, 0)
        return shared / (a[2] * a[3] + b[2] * b[3] - shared)


class _Stated(Judge):
    """Whether what is claimed is stated of any things that the phrases could mean."""

    def __init__(self, facts: GraphFacts) -> None:
        super().__init__(facts)
        self.graph = facts

    def meant(self, phrase: Phrase) -> Witnesses:
        return dict.fromkeys(super().meant(phrase), YES)

    def _witnesses(self, claim: Is | Does) -> Witnesses:
        return {pair[0]: YES for pair in self.pairs(claim)}

    def pairs(self, claim: Is | Does) -> list[tuple[int, ...]]:
        """The things, or the pairs of them, that a claim is stated of."""
        graph = self.graph
        if isinstance(claim, Is):
            # Of "a green ring" the attribute is what is claimed; of "the green ring ..." it is not.
            needed = {claim.attribute} if claim.attribute else claim.subject.attributes
            return [(i,) for i in self.meant(claim.subject) if needed <= graph.attributes[i]]
        return [
            (i, j)
            for i, j in product(self.meant(claim.subject), self.meant(claim.object))
            if i != j
            and (
                graph.annotated(i, claim.predicate, j, loosely=True)
                or graph.boxed(i, claim.predicate, j)
            )
        ]


class GraphJudge:
    """Judges the labels of one image's captions by its graph."""

    def __init__(self, graph: SceneGraph, grammar: Grammar) -> None:
        self.grammar = grammar
        self.facts = GraphFacts(graph)
        self.proof = Judge(self.facts)
        self.stated = _Stated(self.facts)

    def findings(self, group: CaptionGroup) -> Iterator[Finding]:
        """A finding for each caption of a group."""
        label, why = self._true(group.positive)
        yield Finding(label, group.positive, True, group.type, why)
        for negative in group.negatives:
            label, why = self._false(negative.caption)
            yield Finding(label, negative.caption, False, negative.type, why, group.positive)

    def _true(self, caption: str) -> tuple[Label, str]:
        claim, definite = self.grammar.parse(caption)
        for phrase in definite:
            if len(self._namesakes(phrase)) != 1:
                return Label.WRONG, f"not about one thing, {self._told(self._namesakes(phrase))}"
        verdict = self.proof.verdict(claim)
        if verdict is YES:
            return Label.RIGHT, ""
        if verdict is NO:
            return Label.WRONG, "ruled out"
        if isinstance(claim, Not) and self._is_stated(claim.claim):
            return Label.WRONG, f"the opposite is stated, {self._witness(claim.claim)}"
        if isinstance(claim, Not):
            return Label.UNPROVEN, "nothing rules out the opposite"
        if isinstance(claim, Either):
            return self._exactly_one(claim)
        return Label.WRONG, "nothing states it"

    def _exactly_one(self, claim: Either) -> tuple[Label, str]:
        parts = claim.first, claim.second
        surely = [part for part in parts if self.proof.verdict(part) is YES]
        perhaps = [part for part in parts if self._is_stated(part)]
        if len(surely) == 1 and len(perhaps) == 1:
            return Label.UNPROVEN, "nothing rules out the other one"
        return Label.WRONG, "not exactly one is stated"

    def _both_or_neither(self, claim: Either) -> tuple[Label, str]:
        stated = [part for part in (claim.first, claim.second) if self._is_stated(part)]
        if len(stated) == 1:
            return Label.WRONG, f"stated, {self._witness(stated[0])}"
        return Label.UNPROVEN, "nothing rules it out" if not stated else "not stated for sure"

    def _false(self, caption: str) -> tuple[Label, str]:
        claim = self.grammar.parse(caption).claim
        if self.proof.verdict(claim) is NO:
            return Label.RIGHT, ""
        if isinstance(claim, Not):
            return Label.WRONG, "nothing states the opposite"
        if isinstance(claim, Either):
            return self._both_or_neither(claim)
        if self._is_stated(claim):
            return Label.WRONG, f"stated, {self._witness(claim)}"
        return Label.UNPROVEN, "nothing rules it out"

    def _is_stated(self, claim: Claim) -> bool:
        match claim:
            case Is() | Does():
                return self.stated.verdict(claim) is YES
            case Both(first, second, one_subject):
                ones = self.stated._witnesses(first), self.stated._witnesses(second)
                return any((i == j) == one_subject for i, j in product(*ones))
            case Number() | Compare():
                return self.proof.verdict(claim) is YES
            case _:
                return False

    def _witness(self, claim: Claim) -> str:
        """Of what a claim is stated."""
        parts = [claim.first, claim.second] if isinstance(claim, Both | Either) else [claim]
        found = []
        for part in parts:
            if isinstance(part, Is | Does):
                pairs = self.stated.pairs(part)
                found.append("; ".join(self._told(pair) for pair in pairs[:2]))
        return " and ".join(found)

    def _told(self, objects: Iterable[int]) -> str:
        """Some objects as they are annotated."""
        facts = self.facts
        return ", ".join(
            f"{facts.objects[i].name} {sorted(facts.attributes[i])} {facts.boxes[i]}"
            for i in objects
        )

    def _namesakes(self, phrase: Phrase) -> list[int]:
        """Things of that very name that nothing distinguishes from the phrase."""
        return [
            i
            for i, name in enumerate(self.facts.names)
            if name == phrase.name
            and all(self.facts.has(i, a) is not NO for a in phrase.attributes)
        ]


def _box_of(found: SceneObject) -> Box | None:
    return (found.x, found.y, found.w, found.h) if min(found.w, found.h) > 0 else None
