"""Negatives that put another attribute in an attribute's place."""

import random
from collections.abc import Iterator

from hnc_ds.captions.attribute_classes import AttributeClass, class_of, exclude
from hnc_ds.captions.statements import (
    NEGATIVES_OF_A_TYPE,
    CaptionPair,
    DescribedImage,
    RelationStatement,
)
from hnc_ds.captions.truth import HasAttribute, Phrase, Related, Truth, holds
from hnc_ds.captions.wording import (
    attribute_sentence,
    before_noun,
    predicative,
    relation_sentence,
)
from hnc_ds.records import Negative

TYPE = "attribute"

OWN_VALUES = 2
"""How many of the other values are first sought among those that occur in the image."""


def wrong_attribute(image: DescribedImage, rng: random.Random) -> Iterator[CaptionPair]:
    """'The star is red.' -> 'The star is green.'; also within a noun phrase.

    'The red star is above the blue ring.' -> 'The green star is above the blue ring.', if every
    star is provably not green, or a green one provably not above the blue ring. The false
    attribute is of the same class (colour for colour) and excluded by what is annotated.

    Source: Doenmez et al. 2023 (HNC), types "attribute" and "attribute_subg".
    """
    for statement in image.attribute_statements():
        claim = statement.claim
        found = 0
        for value in _other_values(image, statement.cls, claim.attribute, rng):
            wrong = HasAttribute(claim.subject, value)
            if holds(image.graph, wrong) is Truth.FALSE:
                words = predicative(claim.attribute), predicative(value)
                negative = Negative(attribute_sentence(wrong), TYPE, words)
                yield CaptionPair(statement.text, "attribute", negative)
                found += 1
                if found == NEGATIVES_OF_A_TYPE:
                    break
    for relation in image.relation_statements():
        yield from _wrong_in_phrases(image, relation, rng)


def _wrong_in_phrases(
    image: DescribedImage, statement: RelationStatement, rng: random.Random
) -> Iterator[CaptionPair]:
    claim = statement.claim
    changes = [
        (end, old, new)
        for end in (claim.subject, claim.object)
        for old in end.attributes
        if (cls := class_of(old, end.name)) is not None
        for new in _other_values(image, cls, old, rng)[:NEGATIVES_OF_A_TYPE]
    ]
    rng.shuffle(changes)
    found = 0
    for end, old, new in changes:
        phrase = Phrase(end.name, tuple(new if a == old else a for a in end.attributes))
        wrong = (
            Related(phrase, claim.predicate, claim.object)
            if end is claim.subject
            else Related(claim.subject, claim.predicate, phrase)
        )
        if holds(image.graph, wrong) is Truth.FALSE:
            negative = Negative(
                relation_sentence(wrong), TYPE, (before_noun(old), before_noun(new))
            )
            yield CaptionPair(statement.text, "relation", negative)
            found += 1
            if found == NEGATIVES_OF_A_TYPE:
                return


def _other_values(
    image: DescribedImage, cls: AttributeClass, value: str, rng: random.Random
) -> list[str]:
    """Values that exclude this one: first some of the image's own, then the class's."""
    others = [v for v in cls.said if exclude(cls, v, value)]
    rng.shuffle(others)
    own = [v for v in others if v in image.values][:OWN_VALUES]
    return own + [v for v in others if v not in own]
