"""Negatives that replace one part of a relation: its subject, its object or its predicate."""

import random
from collections.abc import Iterable, Iterator
from typing import TypeVar

from hnc_ds.captions.kinds import is_a, is_animate
from hnc_ds.captions.predicates import has_verb, is_said_of, needs_contact, opposites
from hnc_ds.captions.statements import (
    NEGATIVES_OF_A_TYPE,
    CaptionPair,
    DescribedImage,
    RelationStatement,
)
from hnc_ds.captions.truth import Phrase, Related, Truth, holds
from hnc_ds.captions.wording import noun_phrase, relation_sentence
from hnc_ds.records import Negative

_Change = TypeVar("_Change")


def wrong_subject(image: DescribedImage, rng: random.Random) -> Iterator[CaptionPair]:
    """'The red star is above the blue ring.' -> 'The green cross is above the blue ring.'

    The new subject is another object of the image of which the relation is provably false.

    Source: Doenmez et al. 2023 (HNC), type "relation_subj"; the proof is ours.
    """
    for statement in image.relation_statements():
        claim = statement.claim
        phrases = _other_phrases(image, statement, statement.subject, claim.subject, rng)
        wrongs = (
            (phrase, Related(phrase, claim.predicate, claim.object))
            for phrase in phrases
            if is_said_of(claim.predicate, phrase.name, claim.object.name)
        )
        for phrase, wrong in _first_false(image, wrongs):
            words = noun_phrase(claim.subject), noun_phrase(phrase)
            negative = Negative(relation_sentence(wrong), "relation_subj", words)
            yield CaptionPair(statement.text, "relation", negative)


def wrong_object(image: DescribedImage, rng: random.Random) -> Iterator[CaptionPair]:
    """'The red star is above the blue ring.' -> 'The red star is above the green cross.'

    Source: Doenmez et al. 2023 (HNC), type "relation_obj"; the proof is ours.
    """
    for statement in image.relation_statements():
        claim = statement.claim
        phrases = _other_phrases(image, statement, statement.object, claim.object, rng)
        wrongs = (
            (phrase, Related(claim.subject, claim.predicate, phrase))
            for phrase in phrases
            if is_said_of(claim.predicate, claim.subject.name, phrase.name)
        )
        for phrase, wrong in _first_false(image, wrongs):
            words = noun_phrase(claim.object), noun_phrase(phrase)
            negative = Negative(relation_sentence(wrong), "relation_obj", words)
            yield CaptionPair(statement.text, "relation", negative)


def wrong_predicate(image: DescribedImage, rng: random.Random) -> Iterator[CaptionPair]:
    """'The red star is above the blue ring.' -> 'The red star is below the blue ring.'

    The predicate's plain opposite comes first, then other predicates of the image's own graph.

    Source: Doenmez et al. 2023 (HNC), type "relation_pred"; the proof and the opposites are ours.
    """
    for statement in image.relation_statements():
        claim = statement.claim
        others = list(image.predicates)
        rng.shuffle(others)
        others = [p for p in others if _same_sort(p, claim.predicate)]
        tried = dict.fromkeys([*opposites(claim.predicate), *others])
        wrongs = (
            (predicate, Related(claim.subject, predicate, claim.object))
            for predicate in tried
            if is_said_of(predicate, claim.subject.name, claim.object.name)
        )
        for predicate, wrong in _first_false(image, wrongs):
            words = claim.predicate, predicate
            negative = Negative(relation_sentence(wrong), "relation_pred", words)
            yield CaptionPair(statement.text, "relation", negative)


def _other_phrases(
    image: DescribedImage,
    statement: RelationStatement,
    replaced: int,
    phrase: Phrase,
    rng: random.Random,
) -> Iterator[Phrase]:
    """Phrases for the other objects of the image, of the replaced one's sort and style."""
    names = image.graph.names
    others = [i for i in range(len(names)) if i not in (statement.subject, statement.object)]
    rng.shuffle(others)
    matters = has_verb(statement.claim.predicate)
    for i in others:
        references = image.references[i]
        found = references.plainest()
        if found is None or not _alike(names[i], names[replaced], matters):
            continue
        if phrase.attributes and references.described:
            found = rng.choice(references.described)
        yield found


def _same_sort(predicate: str, replaced: str) -> bool:
    """Whether one predicate may take another's place: 'on' that of 'in', not of 'near'."""
    if needs_contact(predicate) and not needs_contact(replaced):
        return False
    return has_verb(replaced) or not has_verb(predicate)


def _alike(name: str, other: str, life_matters: bool) -> bool:
    """Whether one may take the other's place without making nonsense."""
    if life_matters and is_animate(name) != is_animate(other):
        return False
    return all(is_a(name, group) == is_a(other, group) for group in ("body_parts", "grounds"))


def _first_false(
    image: DescribedImage, wrongs: Iterable[tuple[_Change, Related]]
) -> Iterator[tuple[_Change, Related]]:
    """The first of the claims that are provably false, with what was changed in them."""
    found = 0
    for change, wrong in wrongs:
        if holds(image.graph, wrong) is Truth.FALSE:
            yield change, wrong
            found += 1
            if found == NEGATIVES_OF_A_TYPE:
                return
