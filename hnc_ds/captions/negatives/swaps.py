"""Negatives that swap two parts of one caption: the same words in another order.

Predicates that hold or may hold in both directions ('walking with', 'next to'; `symmetric` in
vocabulary/predicates.json) are never swapped.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from hnc_ds.captions.language.kinds import is_animate
from hnc_ds.captions.language.predicates import has_verb, is_said_of, may_be_mutual
from hnc_ds.captions.language.wording import before_noun, noun_phrase, spelled
from hnc_ds.captions.negatives.changes import Bundle, Change, caption_pair, judged
from hnc_ds.captions.negatives.logic import existing, with_companions
from hnc_ds.captions.negatives.references import fitting
from hnc_ds.captions.negatives.relations import put_subject
from hnc_ds.captions.negatives.statements import DescribedImage, RelationStatement, objects_of
from hnc_ds.captions.truth.claims import Both, HasAttribute, Phrase, Related


def swapped_ends(image: DescribedImage, type_: str = "swap") -> Iterator[Bundle]:
    """'The red star is above the blue ring.' -> 'The blue ring is above the red star.'

    Whole noun phrases are swapped, with attributes where both objects have one.

    Source: the ordering test of Yuksekgonul et al. 2023 (ARO), relations; the exchange of subject
    and object in Huang et al. 2024 (Structure-CLIP).
    """
    for statement in described_or_bare(image):
        claim = statement.claim
        change = judged(image, _with_ends(claim, claim.object, claim.subject, statement))
        if change is not None:
            words = noun_phrase(claim.subject), noun_phrase(claim.object)
            yield _bundle(statement, replace(change, replaced=words), type_)


def swapped_nouns(image: DescribedImage, type_: str = "negclip_noun") -> Iterator[Bundle]:
    """'The red star is above the blue ring.' -> 'The red ring is above the blue star.'

    Source: Yuksekgonul et al. 2023 (NegCLIP), two nouns of a caption exchanged; the proof is ours.
    """
    for statement in image.relation_statements(True, True):
        claim = statement.claim
        subject = fitting(claim.object.name, claim.subject.attributes, claim.subject.definite)
        object_ = fitting(claim.subject.name, claim.object.attributes, claim.object.definite)
        if subject is None or object_ is None or subject == claim.subject:
            continue
        change = judged(image, _with_ends(claim, subject, object_, statement))
        if change is not None:
            words = spelled(claim.subject.name), spelled(claim.object.name)
            yield _bundle(statement, replace(change, replaced=words), type_)


def swapped_attributes(image: DescribedImage, type_: str = "swap_attribute") -> Iterator[Bundle]:
    """'The red star is above the blue ring.' -> 'The blue star is above the red ring.'

    Also 'There is both a red star and a blue ring.' -> 'There is both a blue star and a red ring.'

    Source: Huang et al. 2024 (Structure-CLIP), attributes of two nouns exchanged; the adjectives
    of Yuksekgonul et al. 2023 (NegCLIP). The proof is ours.
    """
    for statement in image.relation_statements(True, True):
        claim = statement.claim
        ends = _attributes_exchanged(claim.subject, claim.object)
        if ends is None:
            continue
        wrong = Related(ends[0], claim.predicate, ends[1])
        words = _last(claim.subject), _last(claim.object)
        change = judged(image, Change(wrong, words, objects_of(statement)))
        if change is not None:
            yield _bundle(statement, change, type_)
    yield from _swapped_in_a_pair(image, type_)


def swapped_verb_phrases(image: DescribedImage) -> Iterator[Bundle]:
    """'There is both a man riding the horse and a dog near the car.' -> '... a man near the car
    and a dog riding the horse.', if one of the two is proven false.

    Source: Yuksekgonul et al. 2023 (NegCLIP), two verb phrases exchanged; the proof is ours.
    """
    for one, other in with_companions(
        image, image.relation_statements(False, False), image.stream("negclip_verb")
    ):
        first, second = put_subject(other, one), put_subject(one, other)
        if first is None or second is None:
            continue
        assert isinstance(first.claim, Related)
        assert isinstance(second.claim, Related)
        objects = one.subject, one.object, other.subject, other.object
        words = noun_phrase(one.claim.subject), noun_phrase(other.claim.subject)
        change = judged(image, Change(Both(first.claim, second.claim), words, objects))
        if change is not None:
            claim = Both(one.claim, other.claim)
            yield (caption_pair(claim, "and_logic_rel", objects, change, "negclip_verb"),)


def described_or_bare(image: DescribedImage) -> list[RelationStatement]:
    """Relations, with attributes where both objects have one."""
    described = image.relation_statements(True, True)
    known = {(s.subject, s.claim.predicate, s.object) for s in described}
    bare = image.relation_statements(False, False)
    return [*described, *(s for s in bare if (s.subject, s.claim.predicate, s.object) not in known)]


def _with_ends(
    claim: Related, subject: Phrase, object_: Phrase, statement: RelationStatement
) -> Change | None:
    """The claim with other ends; None if that makes no sense or may be true."""
    predicate = claim.predicate
    if may_be_mutual(predicate):
        return None
    if has_verb(predicate) and is_animate(subject.name) != is_animate(object_.name):
        return None  # 'The hat is wearing the man.'
    if not is_said_of(predicate, subject.name, object_.name):
        return None
    return Change(Related(subject, predicate, object_), ("", ""), objects_of(statement))


def _attributes_exchanged(one: Phrase, other: Phrase) -> tuple[Phrase, Phrase] | None:
    """Both phrases, each with the other's last attribute."""
    mine, theirs = one.attributes[-1], other.attributes[-1]
    if mine in other.attributes or theirs in one.attributes:
        return None
    first = fitting(one.name, (*one.attributes[:-1], theirs), one.definite)
    second = fitting(other.name, (*other.attributes[:-1], mine), other.definite)
    return None if first is None or second is None else (first, second)


def _last(phrase: Phrase) -> str:
    return before_noun(phrase.attributes[-1])


def _swapped_in_a_pair(image: DescribedImage, type_: str) -> Iterator[Bundle]:
    for one, other in with_companions(image, existing(image), image.stream(type_)):
        names = one.claim.subject.name, other.claim.subject.name
        values = one.claim.attribute, other.claim.attribute
        if values[0] == values[1] or names[0] == names[1]:
            continue
        if fitting(names[0], (values[1],)) is None or fitting(names[1], (values[0],)) is None:
            continue
        wrong = Both(
            HasAttribute(one.claim.subject, values[1]), HasAttribute(other.claim.subject, values[0])
        )
        objects = one.subject, other.subject
        words = before_noun(values[0]), before_noun(values[1])
        change = judged(image, Change(wrong, words, objects))
        if change is not None:
            claim = Both(one.claim, other.claim)
            yield (caption_pair(claim, "and_logic_attr", objects, change, type_),)


def _bundle(statement: RelationStatement, change: Change, type_: str) -> Bundle:
    kind = "relation_attr" if statement.claim.subject.attributes else "relation"
    return (caption_pair(statement.claim, kind, objects_of(statement), change, type_),)
