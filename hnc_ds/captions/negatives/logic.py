"""Negatives of captions that join two claims: both, and either (exactly one).

The false part comes from an exchange (exchange.py); the other claim is a true one of the image
and stands beside it in the true and in the false caption alike.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from typing import TypeVar

from hnc_ds.captions.language.kinds import may_be_the_same
from hnc_ds.captions.language.wording import before_noun, predicative
from hnc_ds.captions.negatives.attributes import other_values, put_attribute, value_contexts
from hnc_ds.captions.negatives.exchange import (
    Bundle,
    CaptionPair,
    Change,
    about,
    caption_pair,
    exchanges,
    grouped,
)
from hnc_ds.captions.negatives.proposals import Proposal
from hnc_ds.captions.negatives.relations import (
    bare_predicate_exchanges,
    counted_words,
    in_turn,
    object_exchanges,
    other_parts,
    put_object,
    relation_contexts,
    subject_exchanges,
)
from hnc_ds.captions.negatives.statements import (
    AttributeStatement,
    DescribedImage,
    RelationStatement,
    objects_of,
)
from hnc_ds.captions.truth.claims import Both, Claim, Either, HasAttribute, Related

_Statement = TypeVar("_Statement", AttributeStatement, RelationStatement)

COMPANIONS_TRIED = 6


def existing(image: DescribedImage) -> list[AttributeStatement]:
    """'a red star': there is one, whichever of several stars it is. In drawn order."""
    return [s for s in image.existences() if s.cls.before_noun]


def companions(
    image: DescribedImage, statements: Sequence[_Statement], rng: random.Random
) -> Iterator[tuple[_Statement, _Statement]]:
    """Each statement with another one about other things, if there is one."""
    for one in statements:
        other = _companion(image, one, one, statements, rng)
        if other is not None:
            yield one, other


def both_attributes(image: DescribedImage) -> Iterator[Bundle]:
    """'There is both a red star and a blue ring.' -> 'There is both a green star and a blue ring.'

    Source: Doenmez et al. 2023 (HNC), type "and_logic_attr"; the balance is ours.
    """
    for joined in _attributes_with_companions(image, image.stream("and_logic_attr")):
        yield tuple(
            _joined(s, change, companion, first, "and_logic_attr")
            for s, change, companion, first in joined
        )


def either_attribute(image: DescribedImage) -> Iterator[Bundle]:
    """'There is either a red star or a green ring.' (exactly one) -> '... or a blue ring.' (both)

    Source: Doenmez et al. 2023 (HNC), type "xor_logic_attr"; the balance is ours.
    """
    for joined in _attributes_with_companions(image, image.stream("xor_logic_attr")):
        if any(change.open_world for _, change, _, _ in joined):
            continue  # exactly one: the other one must be proven false
        yield tuple(
            _either(s, change, companion, first, "xor_logic_attr")
            for s, change, companion, first in joined
        )


def propose_both_attributes(image: DescribedImage) -> Iterator[Proposal]:
    """As both_attributes."""
    return _attributes_beside(image, "and_logic_attr", _joined)


def propose_either_attribute(image: DescribedImage) -> Iterator[Proposal]:
    """As either_attribute."""
    return _attributes_beside(image, "xor_logic_attr", _either)


def _attributes_beside(
    image: DescribedImage, type_: str, join: Callable[..., CaptionPair]
) -> Iterator[Proposal]:
    statements, rng = existing(image), image.stream(type_)
    for place, statement, value in other_values(image, statements, type_):
        companion = _companion(image, statement, statement, statements, rng)
        if companion is None:
            continue
        words = predicative(statement.claim.attribute), predicative(value)
        wrong = HasAttribute(statement.claim.subject, value)
        change = Change(wrong, words, (statement.subject,), about=statement.cls.name)
        speak = partial(_said, join, statement, change, companion, rng.random() < 0.5, type_)
        yield Proposal((statement.claim.attribute, value), value_contexts(statement), speak, place)


def propose_both_relations(image: DescribedImage) -> Iterator[Proposal]:
    """As both_relations."""
    type_ = "and_logic_rel"
    statements, rng = image.relation_statements(False, False), image.stream(type_)
    for changed in other_parts(image, statements, type_):
        statement, change = changed.statement, changed.change()
        companion = _companion(image, statement, statement, statements, rng, change)
        if companion is None:
            continue
        first = rng.choice(_orders(statement, companion, change))
        speak = partial(_said, _joined, statement, change, companion, first, type_)
        words = counted_words(changed)
        yield Proposal(words, relation_contexts(changed), speak, changed.place)


def _said(
    join: Callable[..., CaptionPair],
    statement: AttributeStatement | RelationStatement,
    change: Change,
    companion: AttributeStatement | RelationStatement,
    first: bool,
    type_: str,
) -> Bundle:
    return (join(statement, change, companion, first, type_),)


def both_relations(image: DescribedImage) -> Iterator[Bundle]:
    """'There is both a star above the ring and a cross on the box.' with one part exchanged.

    Of one thing: 'The star is both above the ring and to the left of the cross.'

    Source: Doenmez et al. 2023 (HNC), type "and_logic_rel"; the balance is ours.
    """
    rng = image.stream("and_logic_rel")
    statements = image.relation_statements(False, False)
    for pairs in in_turn(
        bare_predicate_exchanges(image), subject_exchanges(image), object_exchanges(image)
    ):
        bundle = []
        for statement, change in pairs:
            companion = _companion(image, statement, statement, statements, rng, change)
            if companion is None:
                break
            first = rng.choice(_orders(statement, companion, change))
            bundle.append(_joined(statement, change, companion, first, "and_logic_rel"))
        else:
            yield tuple(bundle)


def either_relation(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above either the ring or the box.' (exactly one) -> '... or the cross.' (both)

    Source: Doenmez et al. 2023 (HNC), type "xor_logic_rel"; the balance is ours.
    """
    for pairs in exchanges(image, fans(image), _put_second_object):
        if any(change.open_world for _, change in pairs):
            continue
        yield tuple(
            _either(second, change, first, True, "xor_logic_rel")
            for (first, second), change in pairs
        )


def fans(image: DescribedImage) -> list["_Fan"]:
    """What stands in one relation to two things, and these in both orders."""
    found: dict[tuple[int, str], list[RelationStatement]] = {}
    for statement in image.relation_statements(False, False):
        found.setdefault((statement.subject, statement.claim.predicate), []).append(statement)
    return [two for fan in found.values() for two in permutations(fan, 2)]


_AttributePairs = tuple[tuple[AttributeStatement, Change], tuple[AttributeStatement, Change]]
_Fan = tuple[RelationStatement, RelationStatement]


def _put_second_object(one: _Fan, other: _Fan) -> Change | None:
    """One thing's relation to two others, the second of them exchanged."""
    if other[1].object == one[0].object:
        return None
    return put_object(one[1], other[1])


def _attributes_with_companions(
    image: DescribedImage, rng: random.Random
) -> Iterator[list[tuple[AttributeStatement, Change, AttributeStatement, bool]]]:
    """Exchanges of attributes, each side with a companion and whether that is said first."""
    statements = existing(image)
    for pairs in image.shared("attributes", lambda: _attribute_exchanges(image, statements)):
        joined = []
        for (statement, change), (partner, _) in (pairs, pairs[::-1]):
            companion = _companion(image, statement, partner, statements, rng)
            if companion is not None:
                joined.append((statement, change, companion, rng.random() < 0.5))
        if len(joined) == len(pairs):
            yield joined


def _attribute_exchanges(
    image: DescribedImage, statements: list[AttributeStatement]
) -> Iterator[_AttributePairs]:
    for group in grouped(statements, lambda s: s.cls.name):
        yield from exchanges(image, group, put_attribute)


def _companion(
    image: DescribedImage,
    statement: _Statement,
    partner: _Statement,
    statements: Sequence[_Statement],
    rng: random.Random,
    change: Change | None = None,
) -> _Statement | None:
    """Another true statement to stand beside one."""
    names = {statement.claim.subject.name, partner.claim.subject.name}
    for _ in range(min(COMPANIONS_TRIED, len(statements))):
        other = statements[rng.randrange(len(statements))]
        if isinstance(other, RelationStatement) and isinstance(statement, RelationStatement):
            if _stand_together(image, statement, other, change):
                return other
        elif not any(may_be_the_same(name, other.claim.subject.name) for name in names):
            return other
    return None


def _stand_together(
    image: DescribedImage, one: RelationStatement, other: RelationStatement, change: Change | None
) -> bool:
    """Whether a sentence can say both, worded alike before and after a change of the first."""
    if {one.subject, one.object} == {other.subject, other.object}:
        return False
    if one.claim == other.claim:  # of two things in the same words: 'both above a star and ...'
        return False
    if one.subject != other.subject:
        # Not 'A woman is both ...' of two women, nor 'both a man ... and a guy ...' of one man.
        said_alike = one.claim.subject == other.claim.subject
        if said_alike or image.graph.may_be_one(one.subject, other.subject):
            return False
    if change is None:
        return one.subject != other.subject
    wrong = change.claim
    assert isinstance(wrong, Related)
    if {*change.objects} == {other.subject, other.object}:
        return False  # '... both above the ring and below the ring.' gives itself away
    # 'The S is both ...' must not turn into 'There is both ...', nor the other way.
    same = one.claim.subject == other.claim.subject
    return same == (wrong.subject == other.claim.subject) and bool(_orders(one, other, change))


def _orders(one: RelationStatement, other: RelationStatement, change: Change) -> list[bool]:
    """Whether the other may be said first, and whether last, before and after a change of the one.

    A thing is 'a woman' before it is 'the woman': not 'a gate near the woman and a woman ...'.
    """
    if one.subject == other.subject:
        return [True, False]
    subjects, objects = zip((one.subject, one.object), change.objects, strict=True)
    return [
        first
        for first, said_before in (
            (True, other.object in subjects),
            (False, other.subject in objects),
        )
        if not said_before
    ]


def _joined(
    statement: _Statement, change: Change, companion: _Statement, companion_first: bool, type_: str
) -> CaptionPair:
    """The statement and its companion, true, and the change and the companion, false."""
    right = _in_order(statement.claim, companion.claim, companion_first)
    wrong = _in_order(change.claim, companion.claim, companion_first)
    objects = (*objects_of(statement), *objects_of(companion))
    spoken = *change.objects, *objects_of(companion)
    turns_on = change.about or about(change.claim)
    joint = Change(Both(*wrong), _words(change), spoken, change.open_world, turns_on)
    return caption_pair(Both(*right), type_, objects, joint, type_)


def _either(
    statement: _Statement, change: Change, companion: _Statement, companion_first: bool, type_: str
) -> CaptionPair:
    """Either the companion or the change: exactly one. Either the companion or the claim: both."""
    right = _in_order(change.claim, companion.claim, companion_first)
    wrong = _in_order(statement.claim, companion.claim, companion_first)
    objects = (*objects_of(statement), *objects_of(companion))
    turns_on = change.about or about(change.claim)
    turned = Change(Either(*wrong), _words(change)[::-1], objects, about=turns_on)
    return caption_pair(
        Either(*right), type_, (*change.objects, *objects_of(companion)), turned, type_
    )


def _words(change: Change) -> tuple[str, str]:
    """What was exchanged, as it stands before a noun: 'wooden', not 'made of wood'."""
    old, new = (word.removeprefix("made of ") for word in change.replaced)
    return before_noun(old), before_noun(new)


def _in_order(
    claim: Claim, companion: Claim, companion_first: bool
) -> tuple[HasAttribute | Related, HasAttribute | Related]:
    assert isinstance(claim, HasAttribute | Related)
    assert isinstance(companion, HasAttribute | Related)
    return (companion, claim) if companion_first else (claim, companion)
