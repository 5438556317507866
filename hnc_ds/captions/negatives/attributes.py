"""Negatives about attributes: another attribute, or another thing that is said to have it."""

import random
from collections.abc import Iterator

from hnc_ds.captions.language.attribute_classes import AttributeClass, class_of, exclude
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
from hnc_ds.captions.negatives.references import in_order
from hnc_ds.captions.negatives.statements import (
    AttributeStatement,
    DescribedImage,
    RelationStatement,
)
from hnc_ds.captions.truth.claims import HasAttribute, Phrase, Related


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
    subject, attribute = other.claim.subject, one.claim.attribute
    cls = class_of(attribute, subject.name)
    if cls is None or one.subject == other.subject or attribute in subject.name.split(" "):
        return None
    if any(class_of(a, subject.name) is cls for a in subject.attributes):
        return None  # 'The red bus is blue.'
    words = noun_phrase(one.claim.subject), noun_phrase(subject)
    return Change(HasAttribute(subject, attribute), words, (other.subject,))


def _put_description(one: RelationStatement, other: RelationStatement) -> Change | None:
    subject = one.claim.subject
    *kept, old = subject.attributes
    new = other.claim.subject.attributes[-1]
    cls = _last_class(subject)
    if class_of(new, subject.name) is not cls or not exclude(cls, new, old):
        return None
    phrase = Phrase(subject.name, in_order((*kept, new)))
    claim = Related(phrase, one.claim.predicate, one.claim.object)
    return Change(claim, (before_noun(old), before_noun(new)), (one.subject, one.object))


def _last_class(phrase: Phrase) -> AttributeClass:
    cls = class_of(phrase.attributes[-1], phrase.name)
    assert cls is not None  # or it would not stand before the noun
    return cls


def _attribute_pair(statement: AttributeStatement, change: Change, type_: str) -> CaptionPair:
    return caption_pair(statement.claim, "attribute", (statement.subject,), change, type_)
