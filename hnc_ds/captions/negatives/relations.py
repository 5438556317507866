"""Negatives that replace the subject, the object or the predicate of a relation."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Literal, NamedTuple

from msgspec.structs import replace

from hnc_ds.captions.language.kinds import is_a, is_animate
from hnc_ds.captions.language.predicates import (
    has_verb,
    is_likely,
    is_order,
    is_said_of,
    needs_contact,
)
from hnc_ds.captions.language.wording import noun_phrase, spelled, with_article
from hnc_ds.captions.negatives.changes import (
    Bundle,
    Change,
    Proposal,
    caption_pair,
    exchanges,
    judged,
    some,
    sort_of,
)
from hnc_ds.captions.negatives.references import fitting
from hnc_ds.captions.negatives.statements import (
    DescribedImage,
    RelationStatement,
    are_mixed_up,
    mirrored,
    objects_of,
)
from hnc_ds.captions.truth.claims import Phrase, Related
from hnc_ds.captions.truth.indexed_graph import FALSE

PREDICATES = 3
"""Refuted predicates proposed in place of a true one."""
PREDICATES_BESIDE = 2
"""The same, for a relation that is part of a longer caption."""
STATEMENTS_BESIDE = 6
"""Statements of an image that become part of longer captions."""

COMMON = frozenset(
    (
        "to the left of", "to the right of", "above", "below", "on", "on top of", "in", "near",
        "wearing", "holding", "in front of", "behind", "next to", "under", "sitting on",
        "standing on", "riding",
    )
)  # fmt: skip
"""Predicates that annotators write most often."""
COMMON_WEIGHT = 3.0
"""How much more often a common predicate is proposed than another one."""

NARROW = 3
"""Number of narrow contexts of a change."""

Pairs = tuple[tuple[RelationStatement, Change], ...]
End = Literal["subject", "object"]


def wrong_subject(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the ring.' -> 'The cross is above the ring.'"""
    for pairs in subject_exchanges(image):
        yield _bundle(pairs, "relation", "relation_subj")


def wrong_object(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the ring.' -> 'The star is above the cross.'"""
    for pairs in object_exchanges(image):
        yield _bundle(pairs, "relation", "relation_obj")


def wrong_predicate(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the ring.' -> 'The star is below the ring.'"""
    for pairs in bare_predicate_exchanges(image):
        yield _bundle(pairs, "relation", "relation_pred")


def wrong_described_bearer(image: DescribedImage) -> Iterator[Bundle]:
    """'The red star is above the ring.' -> 'The red cross is above the ring.'"""
    statements = image.relation_statements(True, False)
    for pairs in exchanges(image, statements, _put_subject_noun):
        yield _bundle(pairs, "relation_attr", "relation_attr_subj")


def wrong_described_object(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the blue ring.' -> 'The star is above the blue cross.'"""
    statements = image.relation_statements(False, True)
    for pairs in exchanges(image, statements, _put_object_noun):
        yield _bundle(pairs, "relation_attr", "relation_attr_obj")


def wrong_described_predicate(image: DescribedImage) -> Iterator[Bundle]:
    """'The red star is above the blue ring.' -> 'The red star is below the blue ring.'"""
    for pairs in predicate_exchanges(image, image.relation_statements(True, True)):
        yield _bundle(pairs, "relation_attr", "relation_attr_pred")


def subject_exchanges(image: DescribedImage) -> Iterator[Pairs]:
    """Exchanges of subjects between statements without attributes."""
    statements = image.relation_statements(False, False)
    return image.exchanged("subjects", lambda: exchanges(image, statements, put_subject))


def object_exchanges(image: DescribedImage) -> Iterator[Pairs]:
    """Exchanges of objects between statements without attributes."""
    statements = image.relation_statements(False, False)
    return image.exchanged("objects", lambda: exchanges(image, statements, put_object))


def bare_predicate_exchanges(image: DescribedImage) -> Iterator[Pairs]:
    """Exchanges of predicates between statements without attributes."""
    statements = image.relation_statements(False, False)
    return image.exchanged("predicates", lambda: predicate_exchanges(image, statements))


def in_turn(*kinds: Iterator[Pairs]) -> Iterator[Pairs]:
    """Yields one exchange of each kind in turn."""
    waiting = deque(kinds)
    while waiting:
        kind = waiting.popleft()
        pairs = next(kind, None)
        if pairs is not None:
            waiting.append(kind)
            yield pairs


def predicate_exchanges(
    image: DescribedImage, statements: list[RelationStatement]
) -> Iterator[Pairs]:
    """Exchanges of predicates: first between a statement and its inverse, then between any two."""
    seen: set[tuple[int, str, int]] = set()
    for statement in statements:
        if (statement.subject, statement.claim.predicate, statement.object) in seen:
            continue
        other = mirrored(image, statement)
        pairs = _both_changed(image, statement, other) if other is not None else None
        if other is not None and pairs is not None:
            seen.add((other.subject, other.claim.predicate, other.object))
            yield pairs
    yield from exchanges(image, statements, put_predicate)


def propose_predicate(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_predicate: 'The star is above the ring.' -> 'The star is below the ring.'"""
    statements = image.relation_statements(False, False)
    return _proposals(other_predicates(image, statements, "relation_pred"), "relation_pred")


def propose_subject(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_subject: 'The star is above the ring.' -> 'The cross is above the ring.'"""
    return _proposals(_plain_ends(image, "subject"), "relation_subj")


def propose_object(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_object: 'The star is above the ring.' -> 'The star is above the cross.'"""
    return _proposals(_plain_ends(image, "object"), "relation_obj")


def propose_described_predicate(image: DescribedImage) -> Iterator[Proposal]:
    """'The red star is above the blue ring.' -> 'The red star is below the blue ring.'"""
    statements = image.relation_statements(True, True)
    found = other_predicates(image, statements, "relation_attr_pred")
    return _proposals(found, "relation_attr_pred")


def propose_described_bearer(image: DescribedImage) -> Iterator[Proposal]:
    """'The red star is above the ring.' -> 'The red cross is above the ring.'"""
    statements = image.relation_statements(True, False)
    found = other_ends(image, statements, "subject", noun_alone=True)
    return _proposals(found, "relation_attr_subj")


def propose_described_object(image: DescribedImage) -> Iterator[Proposal]:
    """'The star is above the blue ring.' -> 'The star is above the blue cross.'"""
    statements = image.relation_statements(False, True)
    found = other_ends(image, statements, "object", noun_alone=True)
    return _proposals(found, "relation_attr_obj")


class Changed(NamedTuple):
    """A true relation and a refuted one made from it."""

    place: int
    """Position of the statement among those of its type."""
    statement: RelationStatement
    wrong: Related
    objects: tuple[int, int]
    """The objects that the refuted relation is about."""
    words: tuple[str, str]
    """(words before, words after)."""
    twin: "Changed | None" = None
    """The inverse relation with the opposite change: 'The ring is below the star.' -> 'The ring is
    above the star.' The words of both balance."""

    def change(self) -> Change:
        """The same as a Change."""
        return Change(self.wrong, self.words, self.objects)


def _plain_ends(image: DescribedImage, end: End) -> list[Changed]:
    """Statements without attributes that get another subject or object; several types use them."""
    statements = image.relation_statements(False, False)
    return image.cached(f"other {end}s", lambda: other_ends(image, statements, end))


def other_parts(
    image: DescribedImage, statements: Sequence[RelationStatement], type_: str
) -> Iterator[Changed]:
    """The first statements with another predicate, subject or object, for types whose captions
    have a relation as one of their parts."""
    few = statements[:STATEMENTS_BESIDE]
    yield from other_predicates(image, few, type_, PREDICATES_BESIDE)
    if statements is image.relation_statements(False, False):
        ends = chain(_plain_ends(image, "subject"), _plain_ends(image, "object"))
        yield from (changed for changed in ends if changed.place < STATEMENTS_BESIDE)
    else:
        yield from other_ends(image, few, "subject")
        yield from other_ends(image, few, "object")


def other_predicates(
    image: DescribedImage,
    statements: Sequence[RelationStatement],
    type_: str,
    limit: int = PREDICATES,
) -> Iterator[Changed]:
    """Statements with another, refuted predicate.

    Args:
        image: The image that the statements describe.
        statements: True relations, in drawn order.
        type_: Name of the random stream.
        limit: Maximum number of predicates proposed in place of one.
    """
    rng = image.stream(f"predicates {type_}")
    for place, statement in enumerate(statements):
        claim, ends = statement.claim, (statement.subject, statement.object)
        turned = _turned(image, place, statement)
        if turned is not None:
            yield turned
        found = _in_place_of(claim.predicate, image.graph.refuted_predicates(*ends))
        for predicate in some(found, _weights(found), limit, rng):
            if turned is not None and predicate == turned.wrong.predicate:
                continue
            wrong = Related(claim.subject, predicate, claim.object)
            if image.refutes(wrong):  # also for other objects that the phrases may mean
                yield Changed(place, statement, wrong, ends, (claim.predicate, predicate))


def _turned(image: DescribedImage, place: int, statement: RelationStatement) -> Changed | None:
    """The statement and its inverse, each with the other's predicate."""
    other = mirrored(image, statement)
    if other is None:
        return None
    changed = []
    for one, predicate in ((other, statement.claim.predicate), (statement, other.claim.predicate)):
        subject, object_ = one.claim.subject, one.claim.object
        wrong = Related(subject, predicate, object_)
        if not is_said_of(predicate, subject.name, object_.name) or not image.refutes(wrong):
            return None
        ends, words = (one.subject, one.object), (one.claim.predicate, predicate)
        changed.append(Changed(place, one, wrong, ends, words))
    return changed[1]._replace(twin=changed[0])


def other_ends(
    image: DescribedImage,
    statements: Sequence[RelationStatement],
    end: End,
    noun_alone: bool = False,
) -> Iterator[Changed]:
    """Statements with another subject or object, as other_predicates.

    Args:
        image: The image that the statements describe.
        statements: True relations, in drawn order.
        end: Which part is replaced.
        noun_alone: Whether only the noun is replaced and its attributes stay.
    """
    for place, statement in enumerate(statements):
        claim, ends = statement.claim, (statement.subject, statement.object)
        old = claim.subject if end == "subject" else claim.object
        for k, thing in _may_take_its_place(image, claim, end):
            i, j = (k, ends[1]) if end == "subject" else (ends[0], k)
            if k in ends or not _may_be_false(image, i, claim.predicate, j, noun_alone):
                continue
            new = _renamed(old, thing.name) if noun_alone else thing
            if new is None:
                continue
            subject, object_ = (new, claim.object) if end == "subject" else (claim.subject, new)
            wrong = Related(subject, claim.predicate, object_)
            if not are_mixed_up(subject, object_) and image.refutes(wrong):
                words = _nouns(old, new) if noun_alone else (noun_phrase(old), noun_phrase(new))
                yield Changed(place, statement, wrong, (i, j), words)


def _may_take_its_place(
    image: DescribedImage, claim: Related, end: End
) -> list[tuple[int, Phrase]]:
    """Objects that make sense at one end of a claim; cached for all types of the image."""
    key = f"{end} {claim.predicate} {claim.subject.name} {claim.object.name}"
    found: list[tuple[int, Phrase]] | None = image.fitting_things.get(key)
    if found is None:
        old = claim.subject.name if end == "subject" else claim.object.name
        found = [
            (i, thing)
            for i, thing in image.things
            if _alike(old, thing.name, claim.predicate)
            and (
                is_likely(claim.predicate, thing.name, claim.object.name)
                if end == "subject"
                else is_likely(claim.predicate, claim.subject.name, thing.name)
            )
        ]
        image.fitting_things[key] = found
    return found


def _may_be_false(image: DescribedImage, i: int, predicate: str, j: int, noun_alone: bool) -> bool:
    """A quick check before ``refutes``: whether the claim about this pair of objects is false.

    With ``noun_alone`` the new noun follows attributes of another object, so the phrase may not
    mean this object and the check always passes.
    """
    if noun_alone or image.graph.relation(i, predicate, j) is FALSE:
        return True
    image.tried += 1
    return False


def counted_words(changed: Changed, noun_alone: bool = False) -> tuple[str, str]:
    """The words that balance: whole phrases with their articles, unless only nouns change."""
    claim, wrong = changed.statement.claim, changed.wrong
    for one, other in ((claim.subject, wrong.subject), (claim.object, wrong.object)):
        if one != other and not noun_alone:
            return with_article(one), with_article(other)
    return changed.words


def _proposals(found: Iterable[Changed], type_: str) -> Iterator[Proposal]:
    kind = "relation_attr" if type_.startswith("relation_attr") else "relation"
    for changed in found:
        make_bundle = partial(_changed_bundle, changed, kind, type_)
        yield proposal_of(changed, make_bundle, kind == "relation_attr")


def proposal_of(
    changed: Changed, make_bundle: Callable[[], Bundle], noun_alone: bool = False, pairs: int = 1
) -> Proposal:
    """The proposal of a change, together with its twin if it has one.

    Args:
        changed: The change.
        make_bundle: Makes its caption pairs.
        noun_alone: As in other_ends.
        pairs: Number of caption pairs per change.
    """
    if changed.twin is not None:
        return Proposal(("", ""), (), make_bundle, changed.place, 2 * pairs)
    words = counted_words(changed, noun_alone)
    return Proposal(words, relation_contexts(changed), make_bundle, changed.place, pairs, NARROW)


def _changed_bundle(changed: Changed, kind: str, type_: str) -> Bundle:
    return _bundle([(one.statement, one.change()) for one in both(changed)], kind, type_)


def both(changed: Changed) -> tuple[Changed, ...]:
    """The change and its twin, if it has one."""
    return (changed,) if changed.twin is None else (changed, changed.twin)


def relation_contexts(changed: Changed) -> tuple[str, ...]:
    """Contexts in which a change of one part balances: the two other parts, as names, then as
    sorts."""
    claim, wrong = changed.statement.claim, changed.wrong
    subject, object_ = claim.subject.name, claim.object.name
    if wrong.predicate != claim.predicate:
        wide = sort_of(subject), sort_of(object_)
        return f"{subject}|{object_}", f"{subject}|{wide[1]}", "|".join(wide), ""
    if wrong.object != claim.object:
        kept, fixed, letter = subject, claim.object.attributes, "o"
    else:
        kept, fixed, letter = object_, claim.subject.attributes, "s"
    context = f"{letter}|{claim.predicate}|{' '.join(fixed)}"
    return f"{context}|{kept}", f"{context}|{sort_of(kept)}", context, letter


@lru_cache(maxsize=1 << 14)
def _in_place_of(predicate: str, refuted: tuple[str, ...]) -> tuple[str, ...]:
    """The refuted predicates that may replace a predicate."""
    return tuple([p for p in refuted if p != predicate and _same_sort(p, predicate)])


@lru_cache(maxsize=1 << 14)
def _weights(predicates: tuple[str, ...]) -> tuple[float, ...]:
    return tuple([COMMON_WEIGHT if p in COMMON else 1.0 for p in predicates])


def _both_changed(
    image: DescribedImage, one: RelationStatement, other: RelationStatement
) -> Pairs | None:
    mine = judged(image, put_predicate(one, other))
    theirs = judged(image, put_predicate(other, one))
    return None if mine is None or theirs is None else ((one, mine), (other, theirs))


def put_subject(one: RelationStatement, other: RelationStatement) -> Change | None:
    """One's claim with the other's subject."""
    claim, subject = one.claim, other.claim.subject
    if other.subject in (one.subject, one.object) or _in_one_order(one, other):
        return None
    if not _alike(claim.subject.name, subject.name, claim.predicate):
        return None
    if not is_said_of(claim.predicate, subject.name, claim.object.name):
        return None
    words = noun_phrase(claim.subject), noun_phrase(subject)
    wrong = Related(subject, claim.predicate, claim.object)
    return Change(wrong, words, (other.subject, one.object))


def put_object(one: RelationStatement, other: RelationStatement) -> Change | None:
    """One's claim with the other's object."""
    claim, object_ = one.claim, other.claim.object
    if other.object in (one.subject, one.object) or _in_one_order(one, other):
        return None
    if not _alike(claim.object.name, object_.name, claim.predicate):
        return None
    if not is_said_of(claim.predicate, claim.subject.name, object_.name):
        return None
    words = noun_phrase(claim.object), noun_phrase(object_)
    wrong = Related(claim.subject, claim.predicate, object_)
    return Change(wrong, words, (one.subject, other.object))


def put_predicate(one: RelationStatement, other: RelationStatement) -> Change | None:
    """One's claim with the other's predicate."""
    claim, predicate = one.claim, other.claim.predicate
    if predicate == claim.predicate or not _same_sort(predicate, claim.predicate):
        return None
    if not is_said_of(predicate, claim.subject.name, claim.object.name):
        return None
    wrong = Related(claim.subject, predicate, claim.object)
    return Change(wrong, (claim.predicate, predicate), (one.subject, one.object))


def _put_subject_noun(one: RelationStatement, other: RelationStatement) -> Change | None:
    """One's claim with the noun of the other's subject after its own attributes."""
    change = put_subject(one, other)
    phrase = _renamed(one.claim.subject, other.claim.subject.name)
    if change is None or phrase is None:
        return None
    wrong = Related(phrase, one.claim.predicate, one.claim.object)
    return replace(change, claim=wrong, replaced=_nouns(one.claim.subject, phrase))


def _put_object_noun(one: RelationStatement, other: RelationStatement) -> Change | None:
    change = put_object(one, other)
    phrase = _renamed(one.claim.object, other.claim.object.name)
    if change is None or phrase is None:
        return None
    wrong = Related(one.claim.subject, one.claim.predicate, phrase)
    return replace(change, claim=wrong, replaced=_nouns(one.claim.object, phrase))


def _renamed(phrase: Phrase, name: str) -> Phrase | None:
    """The phrase with another noun; None if its attributes do not suit that noun."""
    return None if name == phrase.name else fitting(name, phrase.attributes, phrase.definite)


def _nouns(before: Phrase, after: Phrase) -> tuple[str, str]:
    return spelled(before.name), spelled(after.name)


def _in_one_order(one: RelationStatement, other: RelationStatement) -> bool:
    """Whether an exchange cannot make both statements false: a left of b, c left of d."""
    return one.claim.predicate == other.claim.predicate and is_order(one.claim.predicate)


def _same_sort(predicate: str, replaced: str) -> bool:
    """Whether a predicate may replace another one: 'on' may replace 'in', but not 'near'."""
    if needs_contact(predicate) and not needs_contact(replaced):
        return False
    return has_verb(replaced) or not has_verb(predicate)


@lru_cache(maxsize=1 << 15)
def _alike(name: str, other: str, predicate: str) -> bool:
    """Whether one name may replace the other and still make sense."""
    if has_verb(predicate) and is_animate(name) != is_animate(other):
        return False
    return all(is_a(name, group) == is_a(other, group) for group in ("body_parts", "grounds"))


def _bundle(pairs: Iterable[tuple[RelationStatement, Change]], kind: str, type_: str) -> Bundle:
    return tuple(caption_pair(s.claim, kind, objects_of(s), change, type_) for s, change in pairs)
