"""Negatives that replace one part of a relation: its subject, its object or its predicate."""

from collections import deque
from collections.abc import Iterator
from functools import lru_cache

from msgspec.structs import replace

from hnc_ds.captions.language.kinds import is_a, is_animate
from hnc_ds.captions.language.predicates import has_verb, is_order, is_said_of, needs_contact
from hnc_ds.captions.language.wording import noun_phrase, spelled
from hnc_ds.captions.negatives.exchange import Bundle, Change, caption_pair, exchanges, judged
from hnc_ds.captions.negatives.references import fitting
from hnc_ds.captions.negatives.statements import DescribedImage, RelationStatement, mirrored
from hnc_ds.captions.truth.claims import Phrase, Related

Pairs = tuple[tuple[RelationStatement, Change], ...]


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
    return None if name == phrase.name else fitting(name, phrase.attributes)


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


@lru_cache(maxsize=1 << 17)
def _alike(name: str, other: str, predicate: str) -> bool:
    """Whether one may take the other's place without making nonsense."""
    if has_verb(predicate) and is_animate(name) != is_animate(other):
        return False
    return all(is_a(name, group) == is_a(other, group) for group in ("body_parts", "grounds"))


def _bundle(pairs: Pairs, kind: str, type_: str) -> Bundle:
    return tuple(
        caption_pair(s.claim, kind, (s.subject, s.object), change, type_) for s, change in pairs
    )
