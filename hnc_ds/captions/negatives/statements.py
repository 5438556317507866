"""What can truly be said about one image, and in which words: the positives of all families.

An object is spoken of as "the star" or "the red star" only where these words can mean no other
object of the image. Choosing the words is part of the seeded draw, and so is choosing among the
statements: no predicate may crowd out the rest. Frames are worded only when a type asks for them.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from itertools import islice, tee
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import Struct

from hnc_ds.captions.language.attribute_classes import AttributeClass, class_of
from hnc_ds.captions.language.kinds import may_be_the_same
from hnc_ds.captions.language.nouns import NUMBER_WORDS
from hnc_ds.captions.language.predicates import inverse_said, is_said_of
from hnc_ds.captions.negatives.references import (
    References,
    is_sayable,
    references_of,
)
from hnc_ds.captions.negatives.salience import SIDES, largest, salience, shuffled
from hnc_ds.captions.tables import Tables
from hnc_ds.captions.truth.claims import Claim, HasAttribute, Phrase, Related
from hnc_ds.captions.truth.holds import is_refuted
from hnc_ds.captions.truth.indexed_graph import TRUE, IndexedGraph
from hnc_ds.records import SceneGraph

_Found = TypeVar("_Found")

FACTS = 24
"""Relations of an image that are spoken of, where words balance over the data set."""
ALIKE = 2
"""Of them, that are spoken of in the same words: 'a leg'."""
THINGS = 12
"""Objects of an image that they are about."""
TWO_ATTRIBUTES = 0.3
"""How often one attribute is said of a thing named with another: 'The white horse is large.'"""
FEWEST_SIDES = 2
"""Of them, relations to the left and right where there are no others."""


class Options(NamedTuple):
    """How an image is spoken of."""

    most: int = 48
    """Caption groups of an image."""
    by_colour: float = 2 / 3
    """How often a noun's attribute is its colour, where it has one."""
    open_world: bool = False
    """Whether negatives may be written that are not proven, tagged as such."""
    tables: Tables | None = None
    """Frequencies of the training graphs."""
    balance: Literal["data", "image"] = "image"
    """Whether words of true and false captions balance over the data set or in each image."""


class AttributeStatement(Struct, frozen=True):
    """'The star is red.'"""

    claim: HasAttribute
    subject: int
    cls: AttributeClass


class RelationStatement(Struct, frozen=True):
    """'The red star is above the blue ring.'"""

    claim: Related
    subject: int
    object: int


class Fact(Struct, frozen=True):
    """A relation that is true between two objects, not worded yet."""

    subject: int
    predicate: str
    object: int


class DescribedImage:
    """An image's scene graph with what can truly be said of it, drawn when asked for.

    Args:
        graph: What is annotated.
        seed: Of all draws; every kind of statement has a stream of its own.
        options: How it is spoken of.
        types: How many negative types are to share the image's caption groups.
    """

    def __init__(self, graph: SceneGraph, seed: str, options: Options, types: int = 1) -> None:
        self.graph = IndexedGraph(graph)
        self.options = options
        self.quota = max(2, (4 if options.balance == "data" else 2) * options.most // types)
        """Negatives of one type."""
        self._seed = seed
        self.references = tuple([references_of(self.graph, i) for i in range(len(graph.objects))])
        self.salience = salience(graph) if options.balance == "data" else ()
        self.largest = largest(graph) if options.balance == "data" else ()
        self._things: list[tuple[int, Phrase]] | None = None
        self.fitting_things: dict[str, list[tuple[int, Phrase]]] = {}
        self._facts: list[Fact] | None = None
        self._attributes: list[AttributeStatement] | None = None
        self._existences: list[AttributeStatement] | None = None
        self._existing: list[RelationStatement] | None = None
        self._framed: dict[tuple[bool, bool], list[RelationStatement]] = {}
        self._shared: dict[str, Iterator[Any]] = {}
        self.tried = 0
        """Changes that were judged so far."""
        self.refuted = 0
        """Those of them that the graph refutes."""

    def refutes(self, claim: Claim) -> bool:
        """Whether the graph refutes a change of a statement; counts it."""
        self.tried += 1
        is_false = is_refuted(self.graph, claim)
        self.refuted += is_false
        return is_false

    def stream(self, purpose: str) -> random.Random:
        """Random numbers for one purpose: the same whatever else is drawn."""
        # A string seeds through its bytes, not through hash(): the same in every process.
        return random.Random(f"{self._seed}/{purpose}")

    def shared(self, name: str, find: Callable[[], Iterator[_Found]]) -> Iterator[_Found]:
        """What ``find`` gives, for several types: found once, as far as it is asked for.

        It holds the image, and the image holds it until ``close``.
        """
        if name not in self._shared:
            self._shared[name] = tee(find(), 1)[0]
        return copy(self._shared[name])

    def close(self) -> None:
        """Let go of what is shared, so that the image leaves no cycle behind."""
        self._shared.clear()

    def attribute_statements(self) -> list[AttributeStatement]:
        """Those that say an attribute of an object, in drawn order."""
        if self._attributes is None:
            rng = self.stream("attributes")
            self._attributes = self._in_drawn_order(list(_attribute_statements(self, rng)), rng)
        return self._attributes

    def existences(self) -> list[AttributeStatement]:
        """As attribute_statements, but of any thing of the name: 'there is a red star'."""
        if self._existences is None:
            rng = self.stream("existences")
            self._existences = self._in_drawn_order(list(_existences(self)), rng)
        return self._existences

    @property
    def things(self) -> list[tuple[int, Phrase]]:
        """The objects that relations are about, with words that single them out: the largest ones
        and others by what one sees first. All changes are between these, so that where one takes
        another's place the reverse is likely to be proposed, too."""
        if self._things is None:
            told = {i: found.plainest_or_any() for i, found in enumerate(self.references)}
            said = [i for i, phrase in told.items() if phrase is not None]
            order = shuffled(said, [self.salience[i] for i in said], self.stream("things"))
            order.sort(key=lambda i: (i not in self.largest, not _is_the(told[i])))
            self._things = []
            alike: Counter[Phrase] = Counter()
            for i in order:
                phrase = told[i]
                if phrase is None or alike[phrase] == ALIKE or len(self._things) == THINGS:
                    continue
                alike[phrase] += 1
                self._things.append((i, phrase))
        return self._things

    def _in_drawn_order(
        self, statements: list[AttributeStatement], rng: random.Random
    ) -> list[AttributeStatement]:
        """What one sees first comes first, where words balance over the data set."""
        if self.options.balance == "data":
            return shuffled(statements, [self.salience[s.subject] for s in statements], rng)
        rng.shuffle(statements)
        return statements

    def facts(self) -> list[Fact]:
        """Relations that are true and can be said, in drawn order: no predicate too often."""
        if self._facts is None:
            rng = self.stream("relations")
            if self.options.balance == "data":
                self._facts = salient_facts(self, rng, FACTS)
                return self._facts
            most = max(4, self.options.most // 2)
            self._facts = list(islice(_facts(self, rng, max(2, most // 4)), most))
        return self._facts

    def existing_relations(self) -> list[RelationStatement]:
        """As relation_statements, but of any thing of the name: 'a star that is above the ring'."""
        if self._existing is None:
            rng = self.stream("existing relations")
            if self.options.balance == "data":
                found = self.facts()
            else:
                facts = _facts(self, rng, max(2, self.quota // 2), any_subject=True)
                found = list(islice(facts, 2 * self.quota))
            self._existing = [_of_any(self, fact) for fact in found]
        return self._existing

    def relation_statements(self, subject: bool, object_: bool) -> list[RelationStatement]:
        """Those that relate two objects, the ends named with or without an attribute.

        A bare end still gets an attribute where it needs one to be singled out.

        Args:
            subject: Whether the subject is named with an attribute.
            object_: Whether the object is.
        """
        key = (subject, object_)
        if key not in self._framed:
            rng = self.stream(f"relations {subject} {object_}")
            self._framed[key] = list(_worded(self, subject, object_, rng))
        return self._framed[key]

    def is_usual(self, claim: Claim) -> bool:
        """Whether the tables, where there are some, have met such a claim about such things."""
        tables = self.options.tables
        if tables is None:
            return True
        if isinstance(claim, HasAttribute):
            return claim.attribute in tables.attributes.get(claim.subject.name, ())
        if isinstance(claim, Related):
            return claim.subject.name in tables.subjects.get(
                claim.predicate, ()
            ) and claim.object.name in tables.objects.get(claim.predicate, ())
        return True

    def counted_names(self) -> list[tuple[str, int]]:
        """Names whose number is known and small enough to be said, with that number."""
        names = sorted({*self.graph.names})
        counts = [(name, self.graph.count(name)) for name in names if is_sayable(name)]
        return [(name, n) for name, n in counts if n is not None and n < len(NUMBER_WORDS)]


def _is_the(phrase: Phrase | None) -> bool:
    return phrase is not None and phrase.definite


def _attribute_statements(
    image: DescribedImage, rng: random.Random
) -> Iterator[AttributeStatement]:
    over_data = image.options.balance == "data"
    for i, references in enumerate(image.references):
        plainest = references.plainest_or_any() if over_data else references.plainest()
        if plainest is None:
            continue
        for attribute, cls in references.told:
            phrase = references.any_one if references.plainest() is None else references.bare
            if phrase is None or (over_data and rng.random() < TWO_ATTRIBUTES):
                others = [p for p in references.described if _is_silent(p, cls)]
                phrase = rng.choice(others) if others else phrase
            if phrase is not None:
                yield AttributeStatement(HasAttribute(phrase, attribute), i, cls)


def _existences(image: DescribedImage) -> Iterator[AttributeStatement]:
    for i, (name, references) in enumerate(zip(image.graph.names, image.references, strict=True)):
        phrase = Phrase(name, definite=False)
        for attribute, cls in references.told:
            if attribute not in name.split(" "):
                yield AttributeStatement(HasAttribute(phrase, attribute), i, cls)


def _is_silent(phrase: Phrase, cls: AttributeClass) -> bool:
    """Whether a phrase gives no attribute of a class away."""
    return all(class_of(a, phrase.name) is not cls for a in phrase.attributes)


def _facts(
    image: DescribedImage, rng: random.Random, most: int, any_subject: bool = False
) -> Iterator[Fact]:
    """One of each predicate in turn, at most ``most`` of any.

    Objects can be singled out in words, and subjects too, unless any one of a name will do.
    """
    graph = image.graph
    single = [found.plainest() is not None for found in image.references]
    subjects = [is_sayable(name) for name in graph.names] if any_subject else single
    piles: dict[str, list[tuple[int, int]]] = {}
    for (i, j), told in sorted(graph.edges.items()):
        if subjects[i] and single[j]:
            for predicate in {*told}:
                piles.setdefault(predicate, []).append((i, j))
    names = [name for name in sorted(piles) if piles[name]]
    rng.shuffle(names)
    for name in names:
        rng.shuffle(piles[name])
    left = dict.fromkeys(names, most)
    while left:
        for predicate in list(left):
            fact = _next_fact(graph, predicate, piles[predicate])
            left[predicate] -= 1
            if fact is None or not left[predicate]:
                del left[predicate]
            if fact is not None:
                yield fact


def salient_facts(image: DescribedImage, rng: random.Random, most: int) -> list[Fact]:
    """Relations of what one sees first. Predicates take turns, and each of an image's largest
    things comes at least once where something is said of it; left and right are at most as many
    as all others.

    Args:
        image: With what is stated of it.
        rng: Of the draws.
        most: Facts, at most.
    """
    graph, weights = image.graph, image.salience
    piles: dict[str, list[Fact]] = {}
    for i, subject in image.things:
        for j, object_ in image.things:
            if i != j and not are_mixed_up(subject, object_):
                for predicate in graph.stated(i, j):
                    piles.setdefault(predicate, []).append(Fact(i, predicate, j))
    for predicate in sorted(piles):
        pile = piles[predicate]
        drawn = [weights[fact.subject] * weights[fact.object] for fact in pile]
        piles[predicate] = shuffled(pile, drawn, rng)
    names = sorted(piles)
    rng.shuffle(names)
    names.sort(key=SIDES.__contains__)
    chosen = _Facts()
    others = [name for name in names if name not in SIDES]
    for thing in image.largest:
        for name in names:
            about = (fact for fact in piles[name] if thing in (fact.subject, fact.object))
            if any(map(chosen.add, about)):
                break
    waiting = {name: iter(piles[name]) for name in names}
    _take_turns(chosen, {name: waiting[name] for name in others}, most // 2)
    said = sum(fact.predicate in SIDES for fact in chosen.facts)
    sides = max(FEWEST_SIDES, min(len(chosen.facts) - said, most // 2))
    _take_turns(
        chosen,
        {name: waiting[name] for name in names if name in SIDES},
        len(chosen.facts) + sides - said,
    )
    _take_turns(chosen, {name: waiting[name] for name in others}, most)
    return chosen.facts


def _take_turns(chosen: "_Facts", piles: dict[str, Iterator[Fact]], most: int) -> None:
    """One of each predicate in turn, until there are so many."""
    waiting = {**piles}
    while waiting and len(chosen.facts) < most:
        for name in list(waiting):
            if len(chosen.facts) < most and not any(map(chosen.add, waiting[name])):
                del waiting[name]


class _Facts:
    """Facts as they are chosen: of two things one of a kind, from either end."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._known: set[tuple[int, int, str]] = set()

    def add(self, fact: Fact) -> bool:
        """Take it, if nothing like it is there."""
        kind = min(fact.predicate, *inverse_said(fact.predicate), key=str)
        key = (min(fact.subject, fact.object), max(fact.subject, fact.object), kind)
        if key in self._known:
            return False
        self._known.add(key)
        self.facts.append(fact)
        return True


def _next_fact(graph: IndexedGraph, predicate: str, pile: list[tuple[int, int]]) -> Fact | None:
    while pile:
        i, j = pile.pop()
        said = is_said_of(predicate, graph.names[i], graph.names[j])
        if said and graph.relation(i, predicate, j) is TRUE:
            return Fact(i, predicate, j)
    return None


def _of_any(image: DescribedImage, fact: Fact) -> RelationStatement:
    object_ = image.references[fact.object].plainest_or_any()
    assert object_ is not None
    subject = Phrase(image.graph.names[fact.subject])
    return RelationStatement(Related(subject, fact.predicate, object_), fact.subject, fact.object)


def _worded(
    image: DescribedImage, subject: bool, object_: bool, rng: random.Random
) -> Iterator[RelationStatement]:
    over_data = image.options.balance == "data"
    for fact in image.facts():
        phrases = [
            _name_end(image.references[i], described, image.options.by_colour, rng, over_data)
            for i, described in ((fact.subject, subject), (fact.object, object_))
        ]
        if phrases[0] is not None and phrases[1] is not None:
            claim = Related(phrases[0], fact.predicate, phrases[1])
            yield RelationStatement(claim, fact.subject, fact.object)


def _name_end(
    references: References, described: bool, by_colour: float, rng: random.Random, any_one: bool
) -> Phrase | None:
    if not described:
        return references.plainest_or_any() if any_one else references.plainest()
    phrases = references.described or (references.any_described if any_one else ())
    if not phrases:
        return None
    if len(phrases) == 1 or rng.random() < by_colour:
        return phrases[0]
    return rng.choice(phrases)


def are_mixed_up(one: Phrase, other: Phrase) -> bool:
    """Whether a sentence about both would leave open which is which: 'a star above the star'."""
    if one.definite and other.definite:
        return one == other
    return may_be_the_same(one.name, other.name)


def mirrored(image: DescribedImage, statement: RelationStatement) -> RelationStatement | None:
    """The same fact said from the other end, if that is English: 'left of' -> 'right of'."""
    claim = statement.claim
    if image.graph.candidates(claim.subject) != (statement.subject,):
        return None  # as the object it would be 'the star', and there are several
    for predicate in inverse_said(claim.predicate):
        if not is_said_of(predicate, claim.object.name, claim.subject.name):
            continue
        if image.graph.relation(statement.object, predicate, statement.subject) is TRUE:
            turned = Related(claim.object, predicate, claim.subject)
            return RelationStatement(turned, statement.object, statement.subject)
    return None


def objects_of(statement: AttributeStatement | RelationStatement) -> tuple[int, ...]:
    """What a statement speaks of."""
    if isinstance(statement, RelationStatement):
        return statement.subject, statement.object
    return (statement.subject,)
