"""Negatives that exchange parts of a caption: the same words, bound to each other wrongly."""

import random
from collections.abc import Iterator

from hnc_ds.captions.kinds import is_animate
from hnc_ds.captions.predicates import has_verb, is_said_of, may_be_mutual
from hnc_ds.captions.statements import CaptionPair, DescribedImage
from hnc_ds.captions.truth import Related, Truth, holds
from hnc_ds.captions.wording import noun_phrase, relation_sentence
from hnc_ds.records import Negative


def swapped_ends(image: DescribedImage, rng: random.Random) -> Iterator[CaptionPair]:
    """'The red star is above the blue ring.' -> 'The blue ring is above the red star.'

    Whole noun phrases change places, attributes and all. Never for predicates that hold in both
    directions or may do so (next to, with, holding): only if the exchange is provably false.

    Source: the ordering test of Yuksekgonul et al. 2023 (ARO), relations.
    """
    for statement in image.relation_statements():
        claim = statement.claim
        subject, object_ = claim.subject, claim.object
        if may_be_mutual(claim.predicate):
            continue
        if has_verb(claim.predicate) and is_animate(subject.name) != is_animate(object_.name):
            continue  # 'The hat is wearing the man.'
        wrong = Related(object_, claim.predicate, subject)
        if not is_said_of(claim.predicate, object_.name, subject.name):
            continue
        if holds(image.graph, wrong) is Truth.FALSE:
            words = noun_phrase(subject), noun_phrase(object_)
            yield CaptionPair(
                statement.text, "relation", Negative(relation_sentence(wrong), "swap", words)
            )
