"""Negatives about attributes: another attribute, or another thing that is said to have it."""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

from hnc_ds.captions.language.attribute_classes import COUNTS, AttributeClass, class_of, exclude
from hnc_ds.captions.language.wording import before_noun, noun_phrase, predicative
from hnc_ds.captions.negatives.exchange import (
    DRAWN,
    Bundle,
    CaptionPair,
    Change,
    caption_pair,
    exchanges,
    grouped,
    judged,
)
from hnc_ds.captions.negatives.proposals import Proposal, some, sort_of
from hnc_ds.captions.negatives.references import in_order, reads_as_another
from hnc_ds.captions.negatives.statements import (
    AttributeStatement,
    DescribedImage,
    RelationStatement,
)
from hnc_ds.captions.truth.claims import HasAttribute, Phrase, Related

VALUES = 8
"""Of an attribute's class, that are proposed in its place."""
VALUES_BESIDE = 4
"""The same, of an attribute in a relation."""

RARE = 20
"""Objects that a value is taken to have at least, of GQA's."""


def wrong_attribute(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is red.' -> 'The star is green.', where something else in the image is green.

    With tables also values that nothing in the image has: drawn as often as things of that name
    have them. A draw that hits the true value gives no negative, so that of each name every value
    is as often true as false.

    Source: Doenmez et al. 2023 (HNC), type "attribute"; the balance is ours.
    """
    statements = image.attribute_statements()
    if image.options.tables is not None:
        rng = image.stream("attribute")
        drawn = [s for s in statements if rng.random() < DRAWN]
        for statement in drawn:
            change = judged(image, _drawn_value(image, statement, rng))
            if change is not None:
                yield (_attribute_pair(statement, change, "attribute"),)
        statements = [s for s in statements if s not in drawn]
    for group in grouped(statements, lambda s: s.cls.name):
        for pairs in exchanges(image, group, put_attribute):
            yield tuple(_attribute_pair(s, change, "attribute") for s, change in pairs)


def put_attribute(one: AttributeStatement, other: AttributeStatement) -> Change | None:
    """One's claim with the other's attribute, both of one class."""
    return _with_value(one, other.claim.attribute)


def wrong_bearer(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is red.' -> 'The ring is red.'

    Source: Doenmez et al. 2023 (HNC), type "object"; the balance is ours.
    """
    statements = image.attribute_statements()
    for pairs in exchanges(image, statements, _put_bearer):
        yield tuple(_attribute_pair(s, change, "object") for s, change in pairs)


def wrong_described_subject(image: DescribedImage) -> Iterator[Bundle]:
    """'The red star is above the ring.' -> 'The green star is above the ring.'

    Source: Doenmez et al. 2023 (HNC), type "attribute_subg"; the balance is ours.
    """
    statements = image.relation_statements(True, False)
    for group in grouped(statements, lambda s: _last_class(s.claim.subject).name):
        for pairs in exchanges(image, group, _put_description):
            yield tuple(
                caption_pair(s.claim, "relation_attr", (s.subject, s.object), c, "attribute_subg")
                for s, c in pairs
            )


def propose_attribute(image: DescribedImage) -> Iterator[Proposal]:
    """'The star is red.' -> 'The star is green.', as wrong_attribute."""
    for place, statement, value in other_values(image, image.attribute_statements(), "attribute"):
        yield Proposal(
            (statement.claim.attribute, value),
            value_contexts(statement),
            partial(_say_attribute, statement, value),
            place,
        )


def other_values(
    image: DescribedImage,
    statements: Sequence[AttributeStatement],
    type_: str,
    most: int = VALUES,
) -> Iterator[tuple[int, AttributeStatement, str]]:
    """Values that a thing proves not to have: (place of the statement, statement, value).

    Args:
        image: Of the statements.
        statements: In drawn order.
        type_: Names the stream of the draws.
        most: Values that are proposed in place of one.
    """
    rng = image.stream(f"values {type_}")
    for place, statement in enumerate(statements):
        claim, cls = statement.claim, statement.cls
        values, weights = _values(cls, claim.subject.name, claim.attribute)
        for value in some(values, weights, most, rng):
            if image.refutes(HasAttribute(claim.subject, value)):
                yield place, statement, value


def value_contexts(statement: AttributeStatement) -> tuple[str, ...]:
    """Of things of that name, of that sort, of any."""
    name = statement.claim.subject.name
    return name, sort_of(name), ""


def _say_attribute(statement: AttributeStatement, value: str) -> Bundle:
    claim = statement.claim
    words = predicative(claim.attribute), predicative(value)
    change = Change(HasAttribute(claim.subject, value), words, (statement.subject,))
    return (_attribute_pair(statement, change, "attribute"),)


def propose_bearer(image: DescribedImage) -> Iterator[Proposal]:
    """'The star is red.' -> 'The ring is red.', as wrong_bearer."""
    for place, statement in enumerate(image.attribute_statements()):
        claim = statement.claim
        for i, phrase in image.things:
            if not (claim.subject.definite and phrase.definite):
                continue  # 'A ring is red.' speaks of rings
            change = _put_on(statement, i, phrase)
            if change is None or not image.refutes(change.claim):
                continue
            yield Proposal(
                change.replaced,
                # No wider: each thing has its own values, and tells which caption is true.
                (claim.attribute,),
                partial(_say_bearer, statement, change),
                place,
            )


def _say_bearer(statement: AttributeStatement, change: Change) -> Bundle:
    return (_attribute_pair(statement, change, "object"),)


def propose_described_subject(image: DescribedImage) -> Iterator[Proposal]:
    """'The red star is above the ring.' -> 'The green star is above the ring.', as
    wrong_described_subject."""
    rng = image.stream("values attribute_subg")
    for place, statement in enumerate(image.relation_statements(True, False)):
        subject = statement.claim.subject
        cls, old = _last_class(subject), subject.attributes[-1]
        values, weights = _values(cls, subject.name, old)
        for value in some(values, weights, VALUES_BESIDE, rng):
            change = _redescribed(statement, value)
            if change is not None and image.refutes(change.claim):
                yield Proposal(
                    (old, value),
                    (subject.name, sort_of(subject.name), ""),
                    partial(_say_described, statement, change),
                    place,
                )


def _say_described(statement: RelationStatement, change: Change) -> Bundle:
    ends = statement.subject, statement.object
    return (caption_pair(statement.claim, "relation_attr", ends, change, "attribute_subg"),)


@lru_cache(maxsize=1 << 14)
def _values(
    cls: AttributeClass, name: str, attribute: str
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Values of a class that exclude a value, said of things of a name, and their weights: what is
    drawn as often as it is true has a counterpart more often."""
    values = tuple(
        value
        for cell in cls.cells
        for value in sorted(cell)
        if class_of(value, name) is cls and exclude(cls, value, attribute)
    )
    return values, tuple([float(max(RARE, COUNTS.get(value, 0))) for value in values])


def _with_value(statement: AttributeStatement, value: str) -> Change | None:
    claim, cls = statement.claim, statement.cls
    if class_of(value, claim.subject.name) is not cls or not exclude(cls, value, claim.attribute):
        return None
    words = predicative(claim.attribute), predicative(value)
    return Change(HasAttribute(claim.subject, value), words, (statement.subject,))


def _drawn_value(
    image: DescribedImage, statement: AttributeStatement, rng: random.Random
) -> Change | None:
    assert image.options.tables is not None
    counts = image.options.tables.attributes.get(statement.claim.subject.name, {})
    values = [v for v in sorted(counts) if class_of(v, statement.claim.subject.name)]
    if not values:
        return None
    value = rng.choices(values, [counts[v] for v in values])[0]
    return _with_value(statement, value)


def _put_bearer(one: AttributeStatement, other: AttributeStatement) -> Change | None:
    return _put_on(one, other.subject, other.claim.subject)


def _put_on(statement: AttributeStatement, i: int, subject: Phrase) -> Change | None:
    """The claim about object i instead, in the words for that one."""
    attribute = statement.claim.attribute
    cls = class_of(attribute, subject.name)
    if cls is None or statement.subject == i or attribute in subject.name.split(" "):
        return None
    if any(class_of(a, subject.name) is cls for a in subject.attributes):
        return None  # 'The red bus is blue.'
    words = noun_phrase(statement.claim.subject), noun_phrase(subject)
    return Change(HasAttribute(subject, attribute), words, (i,))


def _put_description(one: RelationStatement, other: RelationStatement) -> Change | None:
    return _redescribed(one, other.claim.subject.attributes[-1])


def _redescribed(one: RelationStatement, new: str) -> Change | None:
    """The claim with another value in place of its subject's last attribute."""
    subject = one.claim.subject
    *kept, old = subject.attributes
    cls = _last_class(subject)
    if class_of(new, subject.name) is not cls or not exclude(cls, new, old):
        return None
    phrase = Phrase(subject.name, in_order((*kept, new)), subject.definite)
    if reads_as_another(phrase):
        return None
    claim = Related(phrase, one.claim.predicate, one.claim.object)
    words = before_noun(old), before_noun(new)
    return Change(claim, words, (one.subject, one.object), about=cls.name)


def _last_class(phrase: Phrase) -> AttributeClass:
    cls = class_of(phrase.attributes[-1], phrase.name)
    assert cls is not None  # or it would not stand before the noun
    return cls


def _attribute_pair(statement: AttributeStatement, change: Change, type_: str) -> CaptionPair:
    return caption_pair(statement.claim, "attribute", (statement.subject,), change, type_)
