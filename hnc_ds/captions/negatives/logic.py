"""Negatives of captions that join two claims: both, and either (exactly one).

One part changes and is false; the other one, its companion, stands beside it in the true and in
the false caption alike. Where words balance in each image, the change comes from an exchange
(exchange.py) and the companion is true. Where they balance over the data set, "either" is also
said with a companion that is false, too: then the true caption holds what is true, and the false
one neither.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, permutations
from typing import NamedTuple, TypeVar

from hnc_ds.captions.language.kinds import may_be_the_same
from hnc_ds.captions.language.wording import before_noun, predicative
from hnc_ds.captions.negatives.attributes import other_values, put_attribute, value_contexts
from hnc_ds.captions.negatives.completeness import may_be_more
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
    NARROW,
    Changed,
    bare_predicate_exchanges,
    both,
    counted_words,
    in_turn,
    object_exchanges,
    other_parts,
    proposal_of,
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

_S = TypeVar("_S")
_Statement = TypeVar("_Statement", AttributeStatement, RelationStatement)
_Told = AttributeStatement | RelationStatement

COMPANIONS_TRIED = 6

STATEMENTS = 6
"""Attributes of an image that change beside something else, where words balance over the data
set."""


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
            _joined(Both, statement, change, way, "and_logic_attr")
            for statement, change, way in joined
        )


def either_attribute(image: DescribedImage) -> Iterator[Bundle]:
    """'There is either a red star or a green ring.' (exactly one) -> '... or a blue ring.' (both)

    Source: Doenmez et al. 2023 (HNC), type "xor_logic_attr"; the balance is ours.
    """
    for joined in _attributes_with_companions(image, image.stream("xor_logic_attr")):
        if any(change.open_world for _, change, _ in joined):
            continue  # exactly one: the other one must be proven false
        yield tuple(
            _either(statement, change, way, "xor_logic_attr") for statement, change, way in joined
        )


def propose_both_attributes(image: DescribedImage) -> Iterator[Proposal]:
    """As both_attributes. Also of one thing ('The star is both red and large.'), and of the very
    things ('The star is red and the ring is blue.'): there may be other stars."""
    rng = image.stream("and_logic_attr")
    for pool, found in _attributes_beside(image):
        for place, statement, value in found:
            change = _with_value(statement, value)
            way = _beside(image, statement, change, pool, True, rng)
            if way is not None:
                words = statement.claim.attribute, value
                speak = partial(_said_both, statement, change, way, "and_logic_attr")
                # No wider: an attribute stands next to its noun, and 'green grass' would be true
                # more often than 'green wall', were the one to make up for the other.
                yield Proposal(words, value_contexts(statement)[:2], speak, place)


def propose_either_attribute(image: DescribedImage) -> Iterator[Proposal]:
    """As either_attribute. Also of one thing ('The star is either red or small.'), and of the very
    things ('Either the star is red or the ring is green.')."""
    rng, more = image.stream("xor_logic_attr"), may_be_more(image)
    for pool, found in _attributes_beside(image):
        changed = [*found]
        refuted = [
            AttributeStatement(HasAttribute(s.claim.subject, value), s.subject, s.cls)
            for _, s, value in changed
            if _is_meant(s) or not more(s.claim.subject.name)
        ]
        for place, statement, value in changed:
            change = _with_value(statement, value)
            ways = [
                way
                for is_true, others in ((True, pool), (False, refuted))
                if (way := _beside(image, statement, change, others, is_true, rng)) is not None
            ]
            if ways:
                words = statement.claim.attribute, value
                speak = partial(_said_either, statement, change, ways, "xor_logic_attr")
                yield _either_proposal(words, value_contexts(statement), ways, speak, place)


_Values = Iterator[tuple[int, AttributeStatement, str]]


def _attributes_beside(
    image: DescribedImage,
) -> Iterator[tuple[Sequence[AttributeStatement], _Values]]:
    """Attributes of any thing of a name, where the image holds no more of them than are boxed, and
    of the very things: all of them, and other values of a few."""
    more = may_be_more(image)
    of_any = existing(image)
    sure = [s for s in of_any if not more(s.claim.subject.name)][:STATEMENTS]
    yield of_any, image.shared("values beside", lambda: other_values(image, sure, "beside"))
    meant = [s for s in image.attribute_statements() if _is_meant(s)]
    told = image.shared(
        "values in clauses", lambda: other_values(image, meant[:STATEMENTS], "clauses")
    )
    yield meant, ((len(sure) + place, statement, value) for place, statement, value in told)


def _is_meant(statement: AttributeStatement) -> bool:
    """Whether it speaks of the very thing: one of attribute_statements, not of existences."""
    return statement.claim.subject.definite


def _with_value(statement: AttributeStatement, value: str) -> Change:
    words = predicative(statement.claim.attribute), predicative(value)
    wrong = HasAttribute(statement.claim.subject, value)
    return Change(wrong, words, (statement.subject,), about=statement.cls.name)


def _beside(
    image: DescribedImage,
    one: AttributeStatement,
    change: Change,
    pool: Sequence[AttributeStatement],
    is_true: bool,
    rng: random.Random,
) -> "_Way | None":
    """A companion out of a pool: about another thing, or about the same one in another respect.

    It repeats neither value: what is alike in one image goes together in true captions.
    """
    assert isinstance(change.claim, HasAttribute)
    name, values = one.claim.subject.name, (one.claim.attribute, change.claim.attribute)
    for _ in range(min(COMPANIONS_TRIED, len(pool))):
        other = _drawn(pool, rng)
        if other.claim.attribute in values:
            continue
        first = rng.random() < 0.5
        if other.subject == one.subject:
            if (
                _is_meant(one)
                and other.claim.subject == one.claim.subject
                and other.cls is not one.cls
            ):
                return _Way(other, is_true, first)
        elif not may_be_the_same(name, other.claim.subject.name):
            return _Way(other, is_true, first, _is_meant(one))
    return None


def _drawn(pool: Sequence[_S], rng: random.Random) -> _S:
    """One of a pool, the first ones more often: they are what one sees first."""
    return pool[int(len(pool) * rng.random() ** 2)]


def propose_both_relations(image: DescribedImage) -> Iterator[Proposal]:
    """As both_relations. Also of the very things: 'The star is above the ring and ...'"""
    statements, rng = image.relation_statements(False, False), image.stream("and_logic_rel")
    more = may_be_more(image)
    for changed in _other_parts(image):
        said = []
        for one in both(changed):
            statement, change = one.statement, one.change()
            way = _related_beside(image, statement, change, True, statements, more, rng)
            if way is not None:
                said.append((one, partial(_said_both, statement, change, way, "and_logic_rel")))
        if said:
            yield proposal_of(*_together(changed, said))


def propose_either_relation(image: DescribedImage) -> Iterator[Proposal]:
    """As either_relation. Also with another predicate ('The star is either above the ring or below
    the box.'), of two things ('There is either a star above the ring or a box on the mat.'), and of
    the very things ('Either the star is above the ring or ...')."""
    rng, more = image.stream("xor_logic_rel"), may_be_more(image)
    found = [*_other_parts(image)]
    refuted = [RelationStatement(changed.wrong, *changed.objects) for changed in found]
    pools = (True, image.relation_statements(False, False)), (False, refuted)
    for changed in found:
        statement, change = changed.statement, changed.change()
        drawn = (
            _related_beside(image, statement, change, *pool, more, rng, True) for pool in pools
        )
        ways = [way for way in drawn if way is not None]
        if ways:
            words, contexts = counted_words(changed), relation_contexts(changed)
            speak = partial(_said_either, statement, change, ways, "xor_logic_rel")
            yield _either_proposal(words, contexts, ways, speak, changed.place, NARROW)


def _together(
    changed: Changed, said: Sequence[tuple[Changed, Callable[[], Bundle]]]
) -> tuple[Changed, Callable[[], Bundle]]:
    """Both ends of a change, or one of them alone where the other one cannot be said."""
    if len(said) == len(both(changed)):
        return changed, partial(_all_of, [speak for _, speak in said])
    one, speak = said[0]
    return one._replace(twin=None), speak


def _all_of(speak: Sequence[Callable[[], Bundle]]) -> Bundle:
    return tuple(chain.from_iterable(one() for one in speak))


def _other_parts(image: DescribedImage) -> Iterator[Changed]:
    """Of a few statements, for both types."""
    statements = image.relation_statements(False, False)
    return image.shared("parts beside", lambda: other_parts(image, statements, "beside"))


def _related_beside(
    image: DescribedImage,
    one: RelationStatement,
    change: Change,
    is_true: bool,
    pool: Sequence[RelationStatement],
    more: Callable[[str], bool],
    rng: random.Random,
    fan: bool = False,
) -> "_Way | None":
    """A companion out of a pool.

    Where the caption says that there is such a thing as the change claims, there may be no more of
    these than are boxed; else each is said of the very thing, in a clause of its own.

    Args:
        image: Of all of them.
        one: What is true.
        change: What is not.
        is_true: Whether the companion is to be.
        pool: True statements, or false ones.
        more: Of which names there may be more things than are boxed.
        rng: Of the draws.
        fan: Whether it is for "either", and one of the same subject with the same predicate is
            looked for first.
    """
    fitting = (other for other in pool if _same_but_for_object(one, other)) if fan else iter(())
    drawn = (_drawn(pool, rng) for _ in range(min(COMPANIONS_TRIED, len(pool))))
    for other in chain(islice(fitting, COMPANIONS_TRIED), drawn):
        if other.claim in (one.claim, change.claim):
            continue
        if not _stand_together(image, one, other, change):
            continue
        clauses = _in_clauses(one, change, other)
        if not clauses and _is_unsure(change, other, is_true, more):
            continue
        if not fan or _can_be_either(one.claim, change.claim, other.claim):
            first = rng.choice(_orders(one, other, change))
            return _Way(other, is_true, first, clauses)
    return None


def _is_unsure(
    change: Change, companion: RelationStatement, is_true: bool, more: Callable[[str], bool]
) -> bool:
    """Whether the caption will say of what is false that there is such a thing, and there may be
    more of these than are boxed."""
    assert isinstance(change.claim, Related)
    subject, other = change.claim.subject, companion.claim.subject
    return subject != other and (more(subject.name) or (not is_true and more(other.name)))


def _in_clauses(one: RelationStatement, change: Change, other: RelationStatement) -> bool:
    """Whether both are about different things that words single out, before and after."""
    assert isinstance(change.claim, Related)
    subjects = one.claim.subject, change.claim.subject
    return other.claim.subject.definite and all(
        subject.definite and subject != other.claim.subject for subject in subjects
    )


def _can_be_either(one: Related, wrong: Claim, other: Related) -> bool:
    """Whether "either" can say a claim, or its change, with another one of the same subject."""
    assert isinstance(wrong, Related)
    if one.subject != other.subject:
        return True
    # Not 'A leg is either on the mat or near the ring.': what of the other legs? And before and
    # after the change it is 'above either the ring or the box', or neither time.
    same = one.predicate == other.predicate
    return one.subject.definite and same == (wrong.predicate == other.predicate)


def _same_but_for_object(one: RelationStatement, other: RelationStatement) -> bool:
    return (
        one.subject == other.subject
        and one.claim.predicate == other.claim.predicate
        and one.object != other.object
    )


class _Way(NamedTuple):
    """How a change is said beside something else."""

    companion: _Told
    is_true: bool
    """Whether the companion is."""
    first: bool
    """Whether the companion is said first."""
    clauses: bool = False
    """Whether both are said in clauses of their own."""


def _either_proposal(
    words: tuple[str, str],
    contexts: tuple[str, ...],
    ways: Sequence[_Way],
    speak: Callable[[], Bundle],
    place: int,
    narrow: int = 1,
) -> Proposal:
    """Said both ways, each word stands in a true and in a false caption. Said in one of them, the
    true caption has the false word where the companion is true."""
    if len(ways) == 1 and ways[0].is_true:
        words = words[::-1]
    kind = "both" if len(ways) > 1 else "one"
    contexts = tuple([f"{kind} {context}" for context in contexts])
    return Proposal(words, contexts, speak, place, len(ways), narrow)


def _said_both(statement: _Told, change: Change, way: _Way, type_: str) -> Bundle:
    return (_joined(Both, statement, change, way, type_),)


def _said_either(statement: _Told, change: Change, ways: Sequence[_Way], type_: str) -> Bundle:
    return tuple(
        _either(statement, change, way, type_)
        if way.is_true
        else _joined(Either, statement, change, way, type_)
        for way in ways
    )


def both_relations(image: DescribedImage) -> Iterator[Bundle]:
    """'There is both a star above the ring and a cross on the box.' with one part exchanged.

    Of one thing: 'The star is both above the ring and to the left of the cross.'

    Source: Doenmez et al. 2023 (HNC), type "and_logic_rel"; the balance is ours.
    """
    rng, more = image.stream("and_logic_rel"), may_be_more(image)
    statements = image.relation_statements(False, False)
    for pairs in in_turn(
        bare_predicate_exchanges(image), subject_exchanges(image), object_exchanges(image)
    ):
        bundle = []
        for statement, change in pairs:
            companion = _companion(image, statement, statement, statements, rng, change)
            if companion is None or _is_unsure(change, companion, True, more):
                break
            way = _Way(companion, True, rng.choice(_orders(statement, companion, change)))
            bundle.append(_joined(Both, statement, change, way, "and_logic_rel"))
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
            _either(second, change, _Way(first, True, True), "xor_logic_rel")
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
) -> Iterator[list[tuple[AttributeStatement, Change, "_Way"]]]:
    """Exchanges of attributes, each side with a companion."""
    statements, more = existing(image), may_be_more(image)
    changed = [s for s in statements if not more(s.claim.subject.name)]
    for pairs in image.shared("attributes", lambda: _attribute_exchanges(image, changed)):
        joined = []
        for (statement, change), (partner, _) in (pairs, pairs[::-1]):
            companion = _companion(image, statement, partner, statements, rng)
            if companion is not None:
                joined.append((statement, change, _Way(companion, True, rng.random() < 0.5)))
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
    pair = other.subject, other.object
    if pair in ((one.subject, one.object), (one.object, one.subject)):
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
    if pair in (change.objects, change.objects[::-1]):
        return False  # '... both above the ring and below the ring.' gives itself away
    # 'The S is both ...' must not turn into 'There is both ...', nor the other way.
    same = one.claim.subject == other.claim.subject
    if same and one.subject != other.subject:
        return False  # 'A leg is both ...', and they are two
    return same == (wrong.subject == other.claim.subject) and bool(_orders(one, other, change))


def _orders(one: RelationStatement, other: RelationStatement, change: Change) -> list[bool]:
    """Whether the other may be said first, and whether last, before and after a change of the one.

    A thing is 'a woman' before it is 'the woman': not 'a gate near the woman and a woman ...'.
    """
    if one.subject == other.subject:
        return [True, False]
    subject, object_ = change.objects
    orders = []
    if other.object not in (one.subject, subject):
        orders.append(True)
    if other.subject not in (one.object, object_):
        orders.append(False)
    return orders


def _joined(
    join: type[Both] | type[Either], statement: _Told, change: Change, way: _Way, type_: str
) -> CaptionPair:
    """The statement beside its companion, true, and the change beside it, false.

    Both, with a companion that is true; or either, with one that is false: then exactly one is
    true, and after the change none. Whether "or" means exactly one does not matter to it.
    """
    right = join(*_in_order(statement.claim, way), way.clauses)
    wrong = join(*_in_order(change.claim, way), way.clauses)
    objects = (*objects_of(statement), *objects_of(way.companion))
    spoken = *change.objects, *objects_of(way.companion)
    turns_on = change.about or about(change.claim)
    joint = Change(wrong, _words(statement, change, way), spoken, change.open_world, turns_on)
    return caption_pair(right, type_, objects, joint, type_)


def _either(statement: _Told, change: Change, way: _Way, type_: str) -> CaptionPair:
    """Either the companion or the change: exactly one. Either the companion or the claim: both."""
    right = Either(*_in_order(change.claim, way), way.clauses)
    wrong = Either(*_in_order(statement.claim, way), way.clauses)
    objects = (*objects_of(statement), *objects_of(way.companion))
    turns_on = change.about or about(change.claim)
    turned = Change(wrong, _words(statement, change, way)[::-1], objects, about=turns_on)
    return caption_pair(right, type_, (*change.objects, *objects_of(way.companion)), turned, type_)


def _words(statement: _Told, change: Change, way: _Way) -> tuple[str, str]:
    """What was exchanged, as it stands before a noun ('wooden', not 'made of wood'), unless both
    parts are about one thing or clauses of their own."""
    if way.clauses or statement.claim.subject == way.companion.claim.subject:
        return change.replaced
    old, new = (word.removeprefix("made of ") for word in change.replaced)
    return before_noun(old), before_noun(new)


def _in_order(claim: Claim, way: _Way) -> tuple[HasAttribute | Related, HasAttribute | Related]:
    companion = way.companion.claim
    assert isinstance(claim, HasAttribute | Related)
    return (companion, claim) if way.first else (claim, companion)
