"""True statements about one image: the positives of all negative types.

An object is called "the star" or "the red star" only where these words fit no other object of the
image. Both the words and the statements are drawn with the seed; predicates take turns, so no
predicate crowds out the rest. Statements are computed when a negative type first needs them.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice, tee
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import Struct

from hnc_ds.captions.language.attribute_classes import AttributeClass, class_of
from hnc_ds.captions.language.kinds import may_be_the_same
from hnc_ds.captions.language.nouns import NUMBER_WORDS
from hnc_ds.captions.language.predicates import inverse_said, is_order, is_said_of
from hnc_ds.captions.negatives.references import References, is_sayable, references_of
from hnc_ds.captions.negatives.salience import SIDES, largest, salience, shuffled
from hnc_ds.captions.tables import Tables
from hnc_ds.captions.truth.claims import Claim, HasAttribute, Phrase, Related
from hnc_ds.captions.truth.holds import is_refuted
from hnc_ds.captions.truth.indexed_graph import TRUE, IndexedGraph
from hnc_ds.records import SceneGraph

_Item = TypeVar("_Item")

FACTS = 24
"""Maximum number of relations per image, with balance over the data set."""
THINGS = 12
"""Maximum number of objects that these relations are about."""
ALIKE = 2
"""Maximum number of these objects with the same phrase: 'a leg'."""
MIN_SIDES = 2
"""Left and right relations of an image that has no other relations."""
TWO_ATTRIBUTES = 0.3
"""Probability that the subject of an attribute statement carries a second attribute: 'The white
horse is large.'"""


class Options(NamedTuple):
    """Settings of the captions of one image."""

    max_groups: int = 48
    """Maximum number of caption groups."""
    by_colour: float = 2 / 3
    """Probability that a described noun carries its colour, if it has one."""
    open_world: bool = False
    """Whether to also write negatives that the graph does not refute, tagged as such."""
    tables: Tables | None = None
    """Frequencies counted over the training graphs."""
    balance: Literal["data", "image"] = "image"
    """Whether words balance between true and false captions over the data set or in each image."""


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


Statement = AttributeStatement | RelationStatement


class Fact(Struct, frozen=True):
    """A true relation between two objects, without its phrases."""

    subject: int
    predicate: str
    object: int


class DescribedImage:
    """The scene graph of an image with the true statements about it, each kind computed once.

    Args:
        graph: The annotations.
        seed: Seed for all draws; every kind of statement has its own random stream.
        options: Settings of the captions.
        types: Number of negative types that share the image's caption groups.
    """

    def __init__(self, graph: SceneGraph, seed: str, options: Options, types: int = 1) -> None:
        self.graph = IndexedGraph(graph)
        self.options = options
        self.quota = max(2, (4 if options.balance == "data" else 2) * options.max_groups // types)
        """Maximum number of negatives of one type."""
        self._seed = seed
        self.references = tuple([references_of(self.graph, i) for i in range(len(graph.objects))])
        self.salience = salience(graph) if options.balance == "data" else ()
        self.largest = largest(graph) if options.balance == "data" else ()
        self.fitting_things: dict[str, list[tuple[int, Phrase]]] = {}
        self._worded: dict[tuple[bool, bool], list[RelationStatement]] = {}
        self._lists: dict[str, list[Any]] = {}
        self._exchanges: dict[str, Iterator[Any]] = {}
        self.tried = 0
        """Number of changes checked against the graph so far."""
        self.refuted = 0
        """Number of these that the graph refutes."""

    def refutes(self, claim: Claim) -> bool:
        """Whether the graph refutes a changed statement; counts the check."""
        self.tried += 1
        is_false = is_refuted(self.graph, claim)
        self.refuted += is_false
        return is_false

    def stream(self, purpose: str) -> random.Random:
        """A random generator for one purpose, independent of all other draws."""
        # A string seeds through its bytes, not through hash(): the same in every process.
        return random.Random(f"{self._seed}/{purpose}")

    def cached(self, name: str, find: Callable[[], Iterator[_Item]]) -> list[_Item]:
        """The items of ``find``, computed once for all negative types that use them."""
        if name not in self._lists:
            self._lists[name] = [*find()]
        return self._lists[name]

    def exchanged(self, name: str, find: Callable[[], Iterator[_Item]]) -> Iterator[_Item]:
        """As ``cached``, computed only as far as some type consumes it.

        A type stops at its quota, which usually leaves most exchanges untried. The iterators refer
        to the image until ``close``.
        """
        mine, self._exchanges[name] = tee(self._exchanges.get(name) or find())
        return mine

    def close(self) -> None:
        """Break the reference cycles of ``exchanged``: workers run without garbage collection."""
        self._exchanges.clear()

    @cached_property
    def attribute_statements(self) -> list[AttributeStatement]:
        """Statements that an object has an attribute, in drawn order."""
        rng = self.stream("attributes")
        return self._in_drawn_order(list(_attribute_statements(self, rng)), rng)

    @cached_property
    def existences(self) -> list[AttributeStatement]:
        """Statements that some object of a name has an attribute, in drawn order: 'there is a red
        star'."""
        return self._in_drawn_order(list(_existences(self)), self.stream("existences"))

    @cached_property
    def things(self) -> list[tuple[int, Phrase]]:
        """The objects that relations are about, with their phrases: the largest objects first, then
        a draw by salience. All changes are between these objects, so the reverse of a change is
        likely to be proposed as well."""
        phrases = {i: found.plainest_or_any() for i, found in enumerate(self.references)}
        named = [i for i, phrase in phrases.items() if phrase is not None]
        order = shuffled(named, [self.salience[i] for i in named], self.stream("things"))
        order.sort(key=lambda i: (i not in self.largest, not _is_definite(phrases[i])))
        things: list[tuple[int, Phrase]] = []
        alike: Counter[Phrase] = Counter()
        for i in order:
            phrase = phrases[i]
            if phrase is None or alike[phrase] == ALIKE or len(things) == THINGS:
                continue
            alike[phrase] += 1
            things.append((i, phrase))
        return things

    def _in_drawn_order(
        self, statements: list[AttributeStatement], rng: random.Random
    ) -> list[AttributeStatement]:
        """Salient objects tend to come first, with balance over the data set."""
        if self.options.balance == "data":
            return shuffled(statements, [self.salience[s.subject] for s in statements], rng)
        rng.shuffle(statements)
        return statements

    @cached_property
    def facts(self) -> list[Fact]:
        """True relations that have English words, in drawn order; predicates take turns."""
        rng = self.stream("relations")
        if self.options.balance == "data":
            return salient_facts(self, rng, FACTS)
        limit = max(4, self.options.max_groups // 2)
        return list(islice(_facts(self, rng, max(2, limit // 4)), limit))

    @cached_property
    def existing_relations(self) -> list[RelationStatement]:
        """Relations of some object of a name: 'a star that is above the ring'."""
        if self.options.balance == "data":
            return [_of_any(self, fact) for fact in self.facts]
        rng = self.stream("existing relations")
        facts = _facts(self, rng, max(2, self.quota // 2), any_subject=True)
        return [_of_any(self, fact) for fact in islice(facts, 2 * self.quota)]

    def relation_statements(self, subject: bool, object_: bool) -> list[RelationStatement]:
        """Relations between two objects.

        An object that its name does not single out always carries an attribute.

        Args:
            subject: Whether the subject carries an attribute.
            object_: Whether the object carries an attribute.
        """
        key = (subject, object_)
        if key not in self._worded:
            rng = self.stream(f"relations {subject} {object_}")
            self._worded[key] = list(_worded(self, subject, object_, rng))
        return self._worded[key]

    def is_usual(self, claim: Claim) -> bool:
        """Whether the tables contain such a claim about such things; True without tables."""
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
        """Names with their number of objects, where it is known and has a number word."""
        names = sorted({*self.graph.names})
        counts = [(name, self.graph.count(name)) for name in names if is_sayable(name)]
        return [(name, n) for name, n in counts if n is not None and n < len(NUMBER_WORDS)]


def _is_definite(phrase: Phrase | None) -> bool:
    return phrase is not None and phrase.definite


def _attribute_statements(
    image: DescribedImage, rng: random.Random
) -> Iterator[AttributeStatement]:
    over_data = image.options.balance == "data"
    for i, references in enumerate(image.references):
        plainest = references.plainest_or_any() if over_data else references.plainest()
        if plainest is None:
            continue
        for attribute, cls in references.attributes:
            phrase = references.any_one if references.plainest() is None else references.bare
            if phrase is None or (over_data and rng.random() < TWO_ATTRIBUTES):
                others = [p for p in references.described if _is_silent(p, cls)]
                phrase = rng.choice(others) if others else phrase
            if phrase is not None:
                yield AttributeStatement(HasAttribute(phrase, attribute), i, cls)


def _existences(image: DescribedImage) -> Iterator[AttributeStatement]:
    for i, (name, references) in enumerate(zip(image.graph.names, image.references, strict=True)):
        phrase = Phrase(name, definite=False)
        for attribute, cls in references.attributes:
            if attribute not in name.split(" "):
                yield AttributeStatement(HasAttribute(phrase, attribute), i, cls)


def _is_silent(phrase: Phrase, cls: AttributeClass) -> bool:
    """Whether a phrase contains no attribute of a class."""
    return all(class_of(a, phrase.name) is not cls for a in phrase.attributes)


def _facts(
    image: DescribedImage, rng: random.Random, per_predicate: int, any_subject: bool = False
) -> Iterator[Fact]:
    """Facts whose objects have a definite phrase; predicates take turns.

    Args:
        image: The image.
        rng: Random generator.
        per_predicate: Maximum number of facts with the same predicate.
        any_subject: Whether subjects need no definite phrase.
    """
    graph = image.graph
    single = [found.plainest() is not None for found in image.references]
    subjects = [is_sayable(name) for name in graph.names] if any_subject else single
    piles: dict[str, list[tuple[int, int]]] = {}
    for (i, j), edges in sorted(graph.edges.items()):
        if subjects[i] and single[j]:
            for predicate in {*edges}:
                piles.setdefault(predicate, []).append((i, j))
    names = [name for name in sorted(piles) if piles[name]]
    rng.shuffle(names)
    for name in names:
        rng.shuffle(piles[name])
    left = dict.fromkeys(names, per_predicate)
    while left:
        for predicate in list(left):
            fact = _next_fact(graph, predicate, piles[predicate])
            left[predicate] -= 1
            if fact is None or not left[predicate]:
                del left[predicate]
            if fact is not None:
                yield fact


def salient_facts(image: DescribedImage, rng: random.Random, limit: int) -> list[Fact]:
    """Facts drawn by salience.

    First comes one fact of each of the image's largest objects, then predicates take turns. Left
    and right are at most half of the facts, or MIN_SIDES facts.

    Facts are about ``image.things``, but for annotated relations other than left, right, above and
    below: there are about five of these in an image, so they are all candidates.

    Args:
        image: The image.
        rng: Random generator.
        limit: Maximum number of facts.
    """
    graph, weights = image.graph, image.salience
    piles: dict[str, list[Fact]] = {}
    for i, subject in image.things:
        for j, object_ in image.things:
            if i != j and not are_mixed_up(subject, object_):
                for predicate in graph.stated(i, j):
                    piles.setdefault(predicate, []).append(Fact(i, predicate, j))
    for fact in _annotated_of_others(image):
        piles.setdefault(fact.predicate, []).append(fact)
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
    _take_turns(chosen, {name: waiting[name] for name in others}, limit // 2)
    taken = sum(fact.predicate in SIDES for fact in chosen.facts)
    sides = max(MIN_SIDES, min(len(chosen.facts) - taken, limit // 2))
    _take_turns(
        chosen,
        {name: waiting[name] for name in names if name in SIDES},
        len(chosen.facts) + sides - taken,
    )
    _take_turns(chosen, {name: waiting[name] for name in others}, limit)
    return chosen.facts


def _annotated_of_others(image: DescribedImage) -> Iterator[Fact]:
    """Annotated relations, other than orders, of pairs that are not both in ``image.things``."""
    graph, things = image.graph, {i for i, _ in image.things}
    for (i, j), annotated in sorted(graph.edges.items()):
        if (i in things and j in things) or all(map(is_order, annotated)):
            continue
        subject, object_ = (image.references[end].plainest_or_any() for end in (i, j))
        if subject is None or object_ is None or are_mixed_up(subject, object_):
            continue
        for predicate in graph.stated(i, j):
            if not is_order(predicate):
                yield Fact(i, predicate, j)


def _take_turns(chosen: "_Facts", piles: dict[str, Iterator[Fact]], limit: int) -> None:
    """Add one fact of each predicate in turn, until there are ``limit`` facts."""
    waiting = {**piles}
    while waiting and len(chosen.facts) < limit:
        for name in list(waiting):
            if len(chosen.facts) < limit and not any(map(chosen.add, waiting[name])):
                del waiting[name]


class _Facts:
    """Chosen facts: one per pair of objects and predicate, a predicate and its inverse counting
    as the same."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._known: set[tuple[int, int, str]] = set()

    def add(self, fact: Fact) -> bool:
        """Add a fact unless an equivalent one is present; returns whether it was added."""
        kind = min((fact.predicate, *inverse_said(fact.predicate)))
        key = (min(fact.subject, fact.object), max(fact.subject, fact.object), kind)
        if key in self._known:
            return False
        self._known.add(key)
        self.facts.append(fact)
        return True


def _next_fact(graph: IndexedGraph, predicate: str, pile: list[tuple[int, int]]) -> Fact | None:
    while pile:
        i, j = pile.pop()
        if not is_said_of(predicate, graph.names[i], graph.names[j]):
            continue
        if graph.relation(i, predicate, j) is TRUE:
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
    for fact in image.facts:
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
    """Whether a sentence with both phrases is ambiguous: 'a star above the star'."""
    if one.definite and other.definite:
        return one == other
    return may_be_the_same(one.name, other.name)


def mirrored(image: DescribedImage, statement: RelationStatement) -> RelationStatement | None:
    """The same fact with subject and object exchanged, if English has an inverse predicate: 'left
    of' -> 'right of'."""
    claim = statement.claim
    if image.graph.candidates(claim.subject) != (statement.subject,):
        return None  # as an object the phrase would be definite, but several things fit it
    for predicate in inverse_said(claim.predicate):
        if not is_said_of(predicate, claim.object.name, claim.subject.name):
            continue
        if image.graph.relation(statement.object, predicate, statement.subject) is TRUE:
            turned = Related(claim.object, predicate, claim.subject)
            return RelationStatement(turned, statement.object, statement.subject)
    return None


def objects_of(statement: Statement) -> tuple[int, ...]:
    """The objects that a statement is about."""
    if isinstance(statement, RelationStatement):
        return statement.subject, statement.object
    return (statement.subject,)
