"""Negatives about attributes: another attribute, or the same attribute of another object."""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from msgspec.structs import replace

from hnc_ds.captions.balance import Prior
from hnc_ds.captions.language.attribute_classes import COUNTS, AttributeClass, class_of, exclude
from hnc_ds.captions.language.wording import before_noun, in_order, noun_phrase, predicative
from hnc_ds.captions.negatives.changes import (
    DRAWN,
    Bundle,
    CaptionPair,
    Change,
    Proposal,
    caption_pair,
    exchanges,
    grouped,
    judged,
    some,
    sort_of,
)
from hnc_ds.captions.negatives.references import reads_as_another
from hnc_ds.captions.negatives.statements import (
    AttributeStatement,
    DescribedImage,
    RelationStatement,
    objects_of,
)
from hnc_ds.captions.truth.claims import HasAttribute, Phrase, Related

VALUES = 8
"""Values of an attribute's class proposed in its place."""
VALUES_BESIDE = 4
"""The same, for an attribute that is part of a relation."""

RARE = 20
"""Lower bound of the number of GQA objects with a value, in the weights of draws."""


def wrong_attribute(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is red.' -> 'The star is green.', where something else in the image is green.

    With tables, half of the statements take a value drawn by how often objects of that name have
    it. A draw of the true value gives no negative, so every value is true as often as false.
    """
    statements = image.attribute_statements
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
    """One's claim with the other's attribute of the same class."""
    return _with_value(one, other.claim.attribute)


def wrong_bearer(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is red.' -> 'The ring is red.'"""
    statements = image.attribute_statements
    for pairs in exchanges(image, statements, _put_bearer):
        yield tuple(_attribute_pair(s, change, "object") for s, change in pairs)


def wrong_described_subject(image: DescribedImage) -> Iterator[Bundle]:
    """'The red star is above the ring.' -> 'The green star is above the ring.'"""
    statements = image.relation_statements(True, False)
    for group in grouped(statements, lambda s: _last_class(s.claim.subject).name):
        for pairs in exchanges(image, group, _put_description):
            yield tuple(
                caption_pair(s.claim, "relation_attr", objects_of(s), c, "attribute_subg")
                for s, c in pairs
            )


def propose_attribute(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_attribute: 'The star is red.' -> 'The star is green.'"""
    for place, statement, value, prior in other_values(
        image, image.attribute_statements, "attribute"
    ):
        yield Proposal(
            (statement.claim.attribute, value),
            value_contexts(statement),
            partial(_attribute_bundle, statement, value),
            place,
            prior=prior,
        )


class OtherValue(NamedTuple):
    """A value that an object provably does not have."""

    place: int
    """Position of the statement among those of its type."""
    statement: AttributeStatement
    """The true statement."""
    value: str
    """The false value."""
    prior: Prior | None
    """GQA's counts for the change, if known."""


def other_values(
    image: DescribedImage,
    statements: Sequence[AttributeStatement],
    type_: str,
    limit: int = VALUES,
) -> Iterator[OtherValue]:
    """Values that objects provably do not have.

    Args:
        image: The image that the statements describe.
        statements: True statements, in drawn order.
        type_: Name of the random stream.
        limit: Maximum number of values proposed in place of one.
    """
    rng = image.stream(f"values {type_}")
    for place, statement in enumerate(statements):
        claim, cls = statement.claim, statement.cls
        values, weights = _values(cls, claim.subject.name, claim.attribute)
        for value in some(values, weights, limit, rng):
            if image.refutes(HasAttribute(claim.subject, value)):
                prior = _prior(cls, claim.attribute, value, limit)
                yield OtherValue(place, statement, value, prior)


def value_contexts(statement: AttributeStatement) -> tuple[str, ...]:
    """Contexts of a change of attribute: things of that name, of that sort, any things."""
    name = statement.claim.subject.name
    return name, sort_of(name), ""


def _attribute_bundle(statement: AttributeStatement, value: str) -> Bundle:
    claim = statement.claim
    words = predicative(claim.attribute), predicative(value)
    change = Change(HasAttribute(claim.subject, value), words, (statement.subject,))
    return (_attribute_pair(statement, change, "attribute"),)


def propose_bearer(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_bearer: 'The star is red.' -> 'The ring is red.'"""
    for place, statement in enumerate(image.attribute_statements):
        claim = statement.claim
        for i, phrase in image.things:
            if not (claim.subject.definite and phrase.definite):
                continue  # 'A ring is red.' is about any ring
            change = _put_on(statement, i, phrase)
            if change is None or not image.refutes(change.claim):
                continue
            yield Proposal(
                change.replaced,
                # No wider context: each name has its own values, so it would give the label away.
                (claim.attribute,),
                partial(_bearer_bundle, statement, change),
                place,
            )


def _bearer_bundle(statement: AttributeStatement, change: Change) -> Bundle:
    return (_attribute_pair(statement, change, "object"),)


def propose_described_subject(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_described_subject: 'The red star is above the ring.' -> 'The green star is ...'"""
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
                    partial(_described_bundle, statement, change),
                    place,
                    prior=_prior(cls, old, value, VALUES_BESIDE),
                )


def _described_bundle(statement: RelationStatement, change: Change) -> Bundle:
    objects = objects_of(statement)
    return (caption_pair(statement.claim, "relation_attr", objects, change, "attribute_subg"),)


@lru_cache(maxsize=1 << 14)
def _values(
    cls: AttributeClass, name: str, attribute: str
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Values of a class that exclude an attribute of things of a name, and their weights.

    The weights are GQA's frequencies: then more changes have a counterpart.
    """
    values = tuple(
        value
        for cell in cls.cells
        for value in sorted(cell)
        if class_of(value, name) is cls and exclude(cls, value, attribute)
    )
    return values, tuple([_weight(value) for value in values])


@lru_cache(maxsize=1 << 13)
def _prior(cls: AttributeClass, old: str, new: str, limit: int) -> Prior | None:
    """GQA's counts for a change, if ``limit`` values are proposed in place of one."""
    if old not in COUNTS or new not in COUNTS:
        return None
    values = [value for cell in cls.cells for value in cell]
    of_class = sum(COUNTS.get(value, 0) for value in values)

    def drawn(a: str, b: str) -> float:
        all_ = sum(_weight(value) for value in values if exclude(cls, value, a))
        return min(1.0, limit * _weight(b) / all_)

    shares = COUNTS[old] / of_class, COUNTS[new] / of_class
    return Prior((old, new), shares, (drawn(old, new), drawn(new, old)))


def _weight(value: str) -> float:
    """How often a value is proposed, relative to the others of its class."""
    return float(max(RARE, COUNTS.get(value, 0)))


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
    """The claim about object i, which the phrase ``subject`` means."""
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
    """The claim with another value as its subject's last attribute."""
    subject = one.claim.subject
    *kept, old = subject.attributes
    cls = _last_class(subject)
    if class_of(new, subject.name) is not cls or not exclude(cls, new, old):
        return None
    phrase = Phrase(subject.name, in_order((*kept, new)), subject.definite)
    of_object = replace(one.claim.object, definite=phrase.definite)
    if reads_as_another(phrase) or phrase == of_object:
        return None  # 'The red shirt is above the red shirt.'
    claim = Related(phrase, one.claim.predicate, one.claim.object)
    words = before_noun(old), before_noun(new)
    return Change(claim, words, objects_of(one), about=cls.name)


def _last_class(phrase: Phrase) -> AttributeClass:
    cls = class_of(phrase.attributes[-1], phrase.name)
    assert cls is not None  # only attributes with a class stand before a noun
    return cls


def _attribute_pair(statement: AttributeStatement, change: Change, type_: str) -> CaptionPair:
    return caption_pair(statement.claim, "attribute", (statement.subject,), change, type_)
