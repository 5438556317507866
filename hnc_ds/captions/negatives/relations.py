"""Negatives that replace one part of a relation: its subject, its object or its predicate."""

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
from hnc_ds.captions.negatives.exchange import Bundle, Change, caption_pair, exchanges, judged
from hnc_ds.captions.negatives.proposals import Proposal, some, sort_of
from hnc_ds.captions.negatives.references import fitting
from hnc_ds.captions.negatives.statements import (
    DescribedImage,
    RelationStatement,
    are_mixed_up,
    mirrored,
)
from hnc_ds.captions.truth.claims import Phrase, Related
from hnc_ds.captions.truth.indexed_graph import FALSE

PREDICATES = 3
"""Of those that are refuted, proposed in place of one."""
PREDICATES_BESIDE = 2
"""The same, of a relation that stands beside something else."""
STATEMENTS_BESIDE = 6
"""Of an image, that do so."""

COMMON = frozenset(
    (
        "to the left of", "to the right of", "above", "below", "on", "on top of", "in", "near",
        "wearing", "holding", "in front of", "behind", "next to", "under", "sitting on",
        "standing on", "riding",
    )
)  # fmt: skip
"""Predicates that annotators write most often, as attributes.COMMON."""
COMMON_WEIGHT = 3.0

NARROW = 3
"""Of the contexts of a change."""

Pairs = tuple[tuple[RelationStatement, Change], ...]
End = Literal["subject", "object"]


def wrong_subject(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the ring.' -> 'The cross is above the ring.'

    Source: Doenmez et al. 2023 (HNC), type "relation_subj"; the proof and the balance are ours.
    """
    for pairs in subject_exchanges(image):
        yield _bundle(pairs, "relation", "relation_subj")


def wrong_object(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the ring.' -> 'The star is above the cross.'

    Source: Doenmez et al. 2023 (HNC), type "relation_obj"; the proof and the balance are ours.
    """
    for pairs in object_exchanges(image):
        yield _bundle(pairs, "relation", "relation_obj")


def wrong_predicate(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the ring.' -> 'The star is below the ring.'

    Source: Doenmez et al. 2023 (HNC), type "relation_pred"; the proof and the balance are ours.
    """
    for pairs in bare_predicate_exchanges(image):
        yield _bundle(pairs, "relation", "relation_pred")


def wrong_described_bearer(image: DescribedImage) -> Iterator[Bundle]:
    """'The red star is above the ring.' -> 'The red cross is above the ring.'

    Source: Doenmez et al. 2023 (HNC), type "relation_attr_subj"; the proof and the balance are
    ours.
    """
    statements = image.relation_statements(True, False)
    for pairs in exchanges(image, statements, _put_subject_noun):
        yield _bundle(pairs, "relation_attr", "relation_attr_subj")


def wrong_described_object(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above the blue ring.' -> 'The star is above the blue cross.'

    Source: Doenmez et al. 2023 (HNC), type "relation_attr_obj"; the proof and the balance are
    ours.
    """
    statements = image.relation_statements(False, True)
    for pairs in exchanges(image, statements, _put_object_noun):
        yield _bundle(pairs, "relation_attr", "relation_attr_obj")


def wrong_described_predicate(image: DescribedImage) -> Iterator[Bundle]:
    """'The red star is above the blue ring.' -> 'The red star is below the blue ring.'

    Source: Doenmez et al. 2023 (HNC), type "relation_attr_pred"; the proof and the balance are
    ours.
    """
    for pairs in predicate_exchanges(image, image.relation_statements(True, True)):
        yield _bundle(pairs, "relation_attr", "relation_attr_pred")


def subject_exchanges(image: DescribedImage) -> Iterator[Pairs]:
    """Of the plainest statements."""
    statements = image.relation_statements(False, False)
    return image.shared("subjects", lambda: exchanges(image, statements, put_subject))


def object_exchanges(image: DescribedImage) -> Iterator[Pairs]:
    """Of the plainest statements."""
    statements = image.relation_statements(False, False)
    return image.shared("objects", lambda: exchanges(image, statements, put_object))


def bare_predicate_exchanges(image: DescribedImage) -> Iterator[Pairs]:
    """Of the plainest statements."""
    statements = image.relation_statements(False, False)
    return image.shared("predicates", lambda: predicate_exchanges(image, statements))


def in_turn(*kinds: Iterator[Pairs]) -> Iterator[Pairs]:
    """Exchanges of several kinds, one of each in turn."""
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
    """A fact and the same fact said from its other end exchange predicates; then two facts do."""
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
    """'The star is above the ring.' -> 'The star is below the ring.', as wrong_predicate."""
    statements = image.relation_statements(False, False)
    return _proposals(other_predicates(image, statements, "relation_pred"), "relation_pred")


def propose_subject(image: DescribedImage) -> Iterator[Proposal]:
    """'The star is above the ring.' -> 'The cross is above the ring.', as wrong_subject."""
    return _proposals(_plain_ends(image, "subject"), "relation_subj")


def propose_object(image: DescribedImage) -> Iterator[Proposal]:
    """'The star is above the ring.' -> 'The star is above the cross.', as wrong_object."""
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
    """A relation that is refuted, made of one that is true."""

    place: int
    """Of the statement, among its type's."""
    statement: RelationStatement
    wrong: Related
    objects: tuple[int, int]
    """What the wrong one speaks of."""
    words: tuple[str, str]
    """(words before, words after)."""
    twin: "Changed | None" = None
    """The same fact said from its other end, changed alike: 'The ring is below the star.' -> 'The
    ring is above the star.' The words of both balance."""

    def change(self) -> Change:
        """As for an exchange."""
        return Change(self.wrong, self.words, self.objects)


def _plain_ends(image: DescribedImage, end: End) -> Iterator[Changed]:
    """Of the plainest statements, for several types."""
    statements = image.relation_statements(False, False)
    return image.shared(f"other {end}s", lambda: other_ends(image, statements, end))


def other_parts(
    image: DescribedImage, statements: Sequence[RelationStatement], type_: str
) -> Iterator[Changed]:
    """Statements with another predicate, subject or object, of a few of them: for types that put
    a relation beside something else."""
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
    most: int = PREDICATES,
) -> Iterator[Changed]:
    """Statements with another predicate.

    Args:
        image: Of the statements.
        statements: In drawn order.
        type_: Names the stream of the draws.
        most: Predicates that are proposed in place of one.
    """
    rng = image.stream(f"predicates {type_}")
    for place, statement in enumerate(statements):
        claim, ends = statement.claim, (statement.subject, statement.object)
        turned = _turned(image, place, statement)
        if turned is not None:
            yield turned
        found = _in_place_of(claim.predicate, image.graph.refuted_predicates(*ends))
        for predicate in some(found, _weights(found), most, rng):
            if turned is not None and predicate == turned.wrong.predicate:
                continue
            wrong = Related(claim.subject, predicate, claim.object)
            if image.refutes(wrong):  # of any other subject of the name as well
                yield Changed(place, statement, wrong, ends, (claim.predicate, predicate))


def _turned(image: DescribedImage, place: int, statement: RelationStatement) -> Changed | None:
    """The statement and its mirror image, each with the other's predicate."""
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
        image: Of the statements.
        statements: In drawn order.
        end: Which of both is changed.
        noun_alone: Whether its attributes stay before the other noun.
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
    """Things that would make sense at an end of a claim. Kept for the image: it is asked again
    for each type."""
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
    """Whether it may be that the claim about this very pair is false: asked first, as it is quick.
    After other attributes than its own, the thing itself may not be meant."""
    if noun_alone or image.graph.relation(i, predicate, j) is FALSE:
        return True
    image.tried += 1
    return False


def counted_words(changed: Changed, noun_alone: bool = False) -> tuple[str, str]:
    """Of whole phrases with their articles, which balance, too."""
    claim, wrong = changed.statement.claim, changed.wrong
    for one, other in ((claim.subject, wrong.subject), (claim.object, wrong.object)):
        if one != other and not noun_alone:
            return with_article(one), with_article(other)
    return changed.words


def _proposals(found: Iterator[Changed], type_: str) -> Iterator[Proposal]:
    kind = "relation_attr" if type_.startswith("relation_attr") else "relation"
    for changed in found:
        speak = partial(_say, changed, kind, type_)
        yield proposal_of(changed, speak, kind == "relation_attr")


def proposal_of(
    changed: Changed, speak: Callable[[], Bundle], noun_alone: bool = False, pairs: int = 1
) -> Proposal:
    """The proposal of a change, which says the twin, too, where there is one.

    Args:
        changed: What changes.
        speak: Words it.
        noun_alone: As counted_words.
        pairs: Of one change.
    """
    if changed.twin is not None:
        return Proposal(("", ""), (), speak, changed.place, 2 * pairs)
    words = counted_words(changed, noun_alone)
    return Proposal(words, relation_contexts(changed), speak, changed.place, pairs, NARROW)


def _say(changed: Changed, kind: str, type_: str) -> Bundle:
    return _bundle([(one.statement, one.change()) for one in both(changed)], kind, type_)


def both(changed: Changed) -> tuple[Changed, ...]:
    """The change and its twin."""
    return (changed,) if changed.twin is None else (changed, changed.twin)


def relation_contexts(changed: Changed) -> tuple[str, ...]:
    """In which a change of one part is to balance: beside the two others, from words to sorts."""
    claim, wrong = changed.statement.claim, changed.wrong
    subject, object_ = claim.subject.name, claim.object.name
    if wrong.predicate != claim.predicate:
        wide = sort_of(subject), sort_of(object_)
        return f"{subject}|{object_}", f"{subject}|{wide[1]}", "|".join(wide), ""
    if wrong.object != claim.object:
        kept, fixed, letter = subject, claim.object.attributes, "o"
    else:
        kept, fixed, letter = object_, claim.subject.attributes, "s"
    said = f"{letter}|{claim.predicate}|{' '.join(fixed)}"
    return f"{said}|{kept}", f"{said}|{sort_of(kept)}", said, letter


@lru_cache(maxsize=1 << 14)
def _in_place_of(predicate: str, refuted: tuple[str, ...]) -> tuple[str, ...]:
    """Of the refuted predicates those that may take its place."""
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
    """One's claim with the other's noun after its own attributes."""
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
    """Another noun after the same attributes, if they are said of such things."""
    return None if name == phrase.name else fitting(name, phrase.attributes, phrase.definite)


def _nouns(before: Phrase, after: Phrase) -> tuple[str, str]:
    return spelled(before.name), spelled(after.name)


def _in_one_order(one: RelationStatement, other: RelationStatement) -> bool:
    """Whether an exchange cannot be false both ways: a left of b, c left of d."""
    return one.claim.predicate == other.claim.predicate and is_order(one.claim.predicate)


def _same_sort(predicate: str, replaced: str) -> bool:
    """Whether one predicate may take another's place: 'on' that of 'in', not of 'near'."""
    if needs_contact(predicate) and not needs_contact(replaced):
        return False
    return has_verb(replaced) or not has_verb(predicate)


@lru_cache(maxsize=1 << 15)
def _alike(name: str, other: str, predicate: str) -> bool:
    """Whether one may take the other's place without making nonsense."""
    if has_verb(predicate) and is_animate(name) != is_animate(other):
        return False
    return all(is_a(name, group) == is_a(other, group) for group in ("body_parts", "grounds"))


def _bundle(pairs: Iterable[tuple[RelationStatement, Change]], kind: str, type_: str) -> Bundle:
    return tuple(
        caption_pair(s.claim, kind, (s.subject, s.object), change, type_) for s, change in pairs
    )
