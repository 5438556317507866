"""Negatives of captions that join two claims with "both ... and" or "either ... or" (exactly one).

One claim is changed and becomes false; the other one, its companion, is the same in the true and
the false caption. With balance in each image, changes come from exchanges (changes.py) and the
companion is true. With balance over the data set, "either" also occurs with a false companion:
then one claim of the true caption is true and none of the false caption.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, permutations
from typing import NamedTuple, TypeVar

from hnc_ds.captions.balance import Prior
from hnc_ds.captions.language.kinds import may_be_the_same
from hnc_ds.captions.language.wording import before_noun, predicative
from hnc_ds.captions.negatives.attributes import (
    OtherValue,
    other_values,
    put_attribute,
    value_contexts,
)
from hnc_ds.captions.negatives.changes import (
    Bundle,
    CaptionPair,
    Change,
    Proposal,
    about,
    caption_pair,
    exchanges,
    grouped,
    may_be_more,
)
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
    Statement,
    objects_of,
)
from hnc_ds.captions.truth.claims import Both, Claim, Either, HasAttribute, Related

_S = TypeVar("_S")
_StatementT = TypeVar("_StatementT", AttributeStatement, RelationStatement)

COMPANIONS_TRIED = 6
"""Maximum number of draws of a companion."""

STATEMENTS = 6
"""Maximum number of attribute statements per image that are changed, with balance over the data
set."""


def existing(image: DescribedImage) -> list[AttributeStatement]:
    """Existence statements whose attribute reads before its noun: 'a red star'. In drawn order."""
    return [s for s in image.existences if s.cls.before_noun]


def with_companions(
    image: DescribedImage, statements: Sequence[_StatementT], rng: random.Random
) -> Iterator[tuple[_StatementT, _StatementT]]:
    """Each statement with another one about other objects, if a draw finds one."""
    for one in statements:
        other = _draw_companion(image, one, one, statements, rng)
        if other is not None:
            yield one, other


def both_attributes(image: DescribedImage) -> Iterator[Bundle]:
    """'There is both a red star and a blue ring.' -> 'There is both a green star and ...'"""
    for joined in _attributes_with_companions(image, image.stream("and_logic_attr")):
        yield tuple(
            _joined(Both, statement, change, companion, "and_logic_attr")
            for statement, change, companion in joined
        )


def either_attribute(image: DescribedImage) -> Iterator[Bundle]:
    """'There is either a red star or a green ring.' (exactly one) -> '... a blue ring.' (both)"""
    for joined in _attributes_with_companions(image, image.stream("xor_logic_attr")):
        if any(change.open_world for _, change, _ in joined):
            continue  # "exactly one" needs a proof that the other one is false
        yield tuple(
            _either(statement, change, companion, "xor_logic_attr")
            for statement, change, companion in joined
        )


def propose_both_attributes(image: DescribedImage) -> Iterator[Proposal]:
    """As both_attributes. Also about one object ('The star is both red and large.') and about
    definite objects ('The star is red and the ring is blue.')."""
    rng = image.stream("and_logic_attr")
    for pool, found in _attributes_beside(image):
        for place, statement, value, prior in found:
            change = _with_value(statement, value)
            companion = _beside(image, statement, change, pool, True, rng)
            if companion is not None:
                words = statement.claim.attribute, value
                make_bundle = partial(_both_bundle, statement, change, companion, "and_logic_attr")
                # No wider context: 'green grass' would be true more often than 'green wall', and
                # one must not be the counterpart of the other.
                contexts = value_contexts(statement)[:2]
                yield Proposal(words, contexts, make_bundle, place, prior=prior)


def propose_either_attribute(image: DescribedImage) -> Iterator[Proposal]:
    """As either_attribute. Also about one object ('The star is either red or small.') and about
    definite objects ('Either the star is red or the ring is green.')."""
    rng, more = image.stream("xor_logic_attr"), may_be_more(image)
    for pool, found in _attributes_beside(image):
        refuted = [
            AttributeStatement(HasAttribute(s.claim.subject, value), s.subject, s.cls)
            for _, s, value, _ in found
            if _is_definite(s) or not more(s.claim.subject.name)
        ]
        for place, statement, value, prior in found:
            change = _with_value(statement, value)
            companions = [
                companion
                for is_true, others in ((True, pool), (False, refuted))
                if (companion := _beside(image, statement, change, others, is_true, rng))
            ]
            if companions:
                words = statement.claim.attribute, value
                bundle = partial(_either_bundle, statement, change, companions, "xor_logic_attr")
                contexts = value_contexts(statement)
                yield _either_proposal(words, contexts, companions, bundle, place, prior=prior)


def _attributes_beside(
    image: DescribedImage,
) -> Iterator[tuple[Sequence[AttributeStatement], list[OtherValue]]]:
    """Attribute statements and the false values of the first of them: once for statements about
    some object of a name, where all such objects are annotated; once for definite objects."""
    more = may_be_more(image)
    of_any = existing(image)
    sure = [s for s in of_any if not more(s.claim.subject.name)][:STATEMENTS]
    yield of_any, image.cached("values beside", lambda: other_values(image, sure, "beside"))
    definite = [s for s in image.attribute_statements if _is_definite(s)]
    values = image.cached(
        "values in clauses", lambda: other_values(image, definite[:STATEMENTS], "clauses")
    )
    yield definite, [value._replace(place=len(sure) + value.place) for value in values]


def _is_definite(statement: AttributeStatement) -> bool:
    """Whether it is about one definite object: from attribute_statements, not from existences."""
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
) -> "_Companion | None":
    """A companion from a pool: about another object, or about another attribute class of this one.

    It has neither value of the change, as equal values within a caption are more often true.
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
                _is_definite(one)
                and other.claim.subject == one.claim.subject
                and other.cls is not one.cls
            ):
                return _Companion(other, is_true, first)
        elif not may_be_the_same(name, other.claim.subject.name):
            return _Companion(other, is_true, first, _is_definite(one))
    return None


def _drawn(pool: Sequence[_S], rng: random.Random) -> _S:
    """An item of a pool; the first ones, which are more salient, are drawn more often."""
    return pool[int(len(pool) * rng.random() ** 2)]


def propose_both_relations(image: DescribedImage) -> Iterator[Proposal]:
    """As both_relations. Also about definite objects: 'The star is above the ring and ...'"""
    statements, rng = image.relation_statements(False, False), image.stream("and_logic_rel")
    more = may_be_more(image)
    for changed in _other_parts(image):
        bundles = []
        for one in both(changed):
            statement, change = one.statement, one.change()
            companion = _related_beside(image, statement, change, True, statements, more, rng)
            if companion is not None:
                bundle = partial(_both_bundle, statement, change, companion, "and_logic_rel")
                bundles.append((one, bundle))
        if bundles:
            yield proposal_of(*_together(changed, bundles))


def propose_either_relation(image: DescribedImage) -> Iterator[Proposal]:
    """As either_relation. Also with another predicate ('The star is either above the ring or below
    the box.'), about two objects ('There is either a star above the ring or a box on the mat.'),
    and about definite objects ('Either the star is above the ring or ...')."""
    rng, more = image.stream("xor_logic_rel"), may_be_more(image)
    found = _other_parts(image)
    refuted = [RelationStatement(changed.wrong, *changed.objects) for changed in found]
    pools = (True, image.relation_statements(False, False)), (False, refuted)
    for changed in found:
        statement, change = changed.statement, changed.change()
        drawn = (
            _related_beside(image, statement, change, *pool, more, rng, True) for pool in pools
        )
        companions = [companion for companion in drawn if companion is not None]
        if companions:
            words, contexts = counted_words(changed), relation_contexts(changed)
            bundle = partial(_either_bundle, statement, change, companions, "xor_logic_rel")
            yield _either_proposal(words, contexts, companions, bundle, changed.place, NARROW)


def _together(
    changed: Changed, bundles: Sequence[tuple[Changed, Callable[[], Bundle]]]
) -> tuple[Changed, Callable[[], Bundle]]:
    """A change and its twin, or one of them alone if the other has no companion."""
    if len(bundles) == len(both(changed)):
        return changed, partial(_all_of, [make_bundle for _, make_bundle in bundles])
    one, make_bundle = bundles[0]
    return one._replace(twin=None), make_bundle


def _all_of(bundles: Sequence[Callable[[], Bundle]]) -> Bundle:
    return tuple(chain.from_iterable(make_bundle() for make_bundle in bundles))


def _other_parts(image: DescribedImage) -> list[Changed]:
    statements = image.relation_statements(False, False)
    return image.cached("parts beside", lambda: other_parts(image, statements, "beside"))


def _related_beside(
    image: DescribedImage,
    one: RelationStatement,
    change: Change,
    is_true: bool,
    pool: Sequence[RelationStatement],
    more: Callable[[str], bool],
    rng: random.Random,
    fan: bool = False,
) -> "_Companion | None":
    """A companion from a pool of relations.

    A caption of the form "There is both a ..." needs a name whose objects are all annotated;
    otherwise both claims must be about definite objects, in clauses of their own.

    Args:
        image: The image that the statements describe.
        one: The true statement.
        change: Its change.
        is_true: Whether the statements of the pool are true.
        pool: The statements to choose from.
        more: Whether a name may have objects that are not annotated.
        rng: Random generator.
        fan: Whether it is for "either", which prefers a companion with the same subject and
            predicate.
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
            return _Companion(other, is_true, first, clauses)
    return None


def _is_unsure(
    change: Change, companion: RelationStatement, is_true: bool, more: Callable[[str], bool]
) -> bool:
    """Whether the caption claims the existence of an object that may be there without being
    annotated, which would make a false claim true."""
    assert isinstance(change.claim, Related)
    subject, other = change.claim.subject, companion.claim.subject
    return subject != other and (more(subject.name) or (not is_true and more(other.name)))


def _in_clauses(one: RelationStatement, change: Change, other: RelationStatement) -> bool:
    """Whether both statements are about different definite objects, before and after the change."""
    assert isinstance(change.claim, Related)
    subjects = one.claim.subject, change.claim.subject
    return other.claim.subject.definite and all(
        subject.definite and subject != other.claim.subject for subject in subjects
    )


def _can_be_either(one: Related, wrong: Claim, other: Related) -> bool:
    """Whether "either" can join a claim, and its change, with another claim."""
    assert isinstance(wrong, Related)
    if one.subject != other.subject:
        return True
    # Not 'A leg is either on the mat or near the ring.', which leaves the other legs open. And the
    # form 'above either the ring or the box' must be possible before and after, or at neither time.
    same = one.predicate == other.predicate
    return one.subject.definite and same == (wrong.predicate == other.predicate)


def _same_but_for_object(one: RelationStatement, other: RelationStatement) -> bool:
    return (
        one.subject == other.subject
        and one.claim.predicate == other.claim.predicate
        and one.object != other.object
    )


class _Companion(NamedTuple):
    """The second claim of a caption and its place in the sentence."""

    statement: Statement
    is_true: bool
    first: bool
    """Whether it comes before the changed claim."""
    clauses: bool = False
    """Whether each claim is a clause of its own."""


def _either_proposal(
    words: tuple[str, str],
    contexts: tuple[str, ...],
    companions: Sequence[_Companion],
    make_bundle: Callable[[], Bundle],
    place: int,
    narrow: int = 1,
    prior: Prior | None = None,
) -> Proposal:
    """A proposal for "either" with one or two companions.

    With a true and a false companion each word occurs in a true and in a false caption. With a true
    companion alone, the true caption contains the false claim, so the words are reversed.
    """
    if len(companions) == 1 and companions[0].is_true:
        words = words[::-1]
    kind = "both" if len(companions) > 1 else "one"
    contexts = tuple([f"{kind} {context}" for context in contexts])
    return Proposal(words, contexts, make_bundle, place, len(companions), narrow, prior)


def _both_bundle(statement: Statement, change: Change, companion: _Companion, type_: str) -> Bundle:
    return (_joined(Both, statement, change, companion, type_),)


def _either_bundle(
    statement: Statement, change: Change, companions: Sequence[_Companion], type_: str
) -> Bundle:
    return tuple(
        _either(statement, change, companion, type_)
        if companion.is_true
        else _joined(Either, statement, change, companion, type_)
        for companion in companions
    )


def both_relations(image: DescribedImage) -> Iterator[Bundle]:
    """'There is both a star above the ring and a cross on the box.' with one part exchanged.

    About one object: 'The star is both above the ring and to the left of the cross.'
    """
    rng, more = image.stream("and_logic_rel"), may_be_more(image)
    statements = image.relation_statements(False, False)
    for pairs in in_turn(
        bare_predicate_exchanges(image), subject_exchanges(image), object_exchanges(image)
    ):
        bundle = []
        for statement, change in pairs:
            other = _draw_companion(image, statement, statement, statements, rng, change)
            if other is None or _is_unsure(change, other, True, more):
                break
            companion = _Companion(other, True, rng.choice(_orders(statement, other, change)))
            bundle.append(_joined(Both, statement, change, companion, "and_logic_rel"))
        else:
            yield tuple(bundle)


def either_relation(image: DescribedImage) -> Iterator[Bundle]:
    """'The star is above either the ring or the box.' (exactly one) -> '... the cross.' (both)"""
    for pairs in exchanges(image, fans(image), _put_second_object):
        if any(change.open_world for _, change in pairs):
            continue
        yield tuple(
            _either(second, change, _Companion(first, True, True), "xor_logic_rel")
            for (first, second), change in pairs
        )


def fans(image: DescribedImage) -> list["_Fan"]:
    """Pairs of relations with the same subject and predicate, in both orders."""
    found: dict[tuple[int, str], list[RelationStatement]] = {}
    for statement in image.relation_statements(False, False):
        found.setdefault((statement.subject, statement.claim.predicate), []).append(statement)
    return [two for fan in found.values() for two in permutations(fan, 2)]


_AttributePairs = tuple[tuple[AttributeStatement, Change], tuple[AttributeStatement, Change]]
_Fan = tuple[RelationStatement, RelationStatement]


def _put_second_object(one: _Fan, other: _Fan) -> Change | None:
    """The second relation of ``one`` with the object of the other's second relation."""
    if other[1].object == one[0].object:
        return None
    return put_object(one[1], other[1])


def _attributes_with_companions(
    image: DescribedImage, rng: random.Random
) -> Iterator[list[tuple[AttributeStatement, Change, "_Companion"]]]:
    """Exchanges of attributes, each statement with a companion."""
    statements, more = existing(image), may_be_more(image)
    changed = [s for s in statements if not more(s.claim.subject.name)]
    for pairs in image.exchanged("attributes", lambda: _attribute_exchanges(image, changed)):
        joined = []
        for (statement, change), (partner, _) in (pairs, pairs[::-1]):
            other = _draw_companion(image, statement, partner, statements, rng)
            if other is not None:
                joined.append((statement, change, _Companion(other, True, rng.random() < 0.5)))
        if len(joined) == len(pairs):
            yield joined


def _attribute_exchanges(
    image: DescribedImage, statements: list[AttributeStatement]
) -> Iterator[_AttributePairs]:
    for group in grouped(statements, lambda s: s.cls.name):
        yield from exchanges(image, group, put_attribute)


def _draw_companion(
    image: DescribedImage,
    statement: _StatementT,
    partner: _StatementT,
    statements: Sequence[_StatementT],
    rng: random.Random,
    change: Change | None = None,
) -> _StatementT | None:
    """A true statement that can be joined with ``statement``."""
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
    """Whether a sentence can join both, in the same form before and after a change of the first."""
    pair = other.subject, other.object
    if pair in ((one.subject, one.object), (one.object, one.subject)):
        return False
    if one.claim == other.claim:  # different objects, same words: 'both above a star and ...'
        return False
    if one.subject != other.subject:
        # Not 'A woman is both ...' for two women, nor 'both a man ... and a guy ...' for one man.
        same_words = one.claim.subject == other.claim.subject
        if same_words or image.graph.may_be_one(one.subject, other.subject):
            return False
    if change is None:
        return one.subject != other.subject
    wrong = change.claim
    assert isinstance(wrong, Related)
    if pair in (change.objects, change.objects[::-1]):
        return False  # '... both above the ring and below the ring.' is obviously false
    # The form 'The S is both ...' must not become 'There is both ...', nor the reverse.
    same = one.claim.subject == other.claim.subject
    if same and one.subject != other.subject:
        return False  # 'A leg is both ...' for two legs
    return same == (wrong.subject == other.claim.subject) and bool(_orders(one, other, change))


def _orders(one: RelationStatement, other: RelationStatement, change: Change) -> list[bool]:
    """Possible values of ``_Companion.first``, valid before and after the change.

    Not 'a gate near the woman and a woman ...': an object is introduced before it is definite.
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
    join: type[Both] | type[Either],
    statement: Statement,
    change: Change,
    companion: _Companion,
    type_: str,
) -> CaptionPair:
    """The statement joined with its companion (true) and the change joined with it (false).

    "Both" takes a true companion, "either" a false one: exactly one claim is true before the change
    and none after it, so the labels also hold for an inclusive "or".
    """
    right = join(*_in_order(statement.claim, companion), companion.clauses)
    wrong = join(*_in_order(change.claim, companion), companion.clauses)
    others = objects_of(companion.statement)
    joint = Change(
        wrong,
        _words(statement, change, companion),
        (*change.objects, *others),
        change.open_world,
        change.about or about(change.claim),
    )
    return caption_pair(right, type_, (*objects_of(statement), *others), joint, type_)


def _either(statement: Statement, change: Change, companion: _Companion, type_: str) -> CaptionPair:
    """The change joined with a true companion (exactly one is true) and the statement joined with
    it (both are, so the caption is false)."""
    right = Either(*_in_order(change.claim, companion), companion.clauses)
    wrong = Either(*_in_order(statement.claim, companion), companion.clauses)
    others = objects_of(companion.statement)
    reverse = Change(
        wrong,
        _words(statement, change, companion)[::-1],
        (*objects_of(statement), *others),
        about=change.about or about(change.claim),
    )
    return caption_pair(right, type_, (*change.objects, *others), reverse, type_)


def _words(statement: Statement, change: Change, companion: _Companion) -> tuple[str, str]:
    """The replaced words in the form that the sentence has: before a noun ('wooden') unless the
    claims are clauses or share their subject ('made of wood')."""
    if companion.clauses or statement.claim.subject == companion.statement.claim.subject:
        return change.replaced
    old, new = (word.removeprefix("made of ") for word in change.replaced)
    return before_noun(old), before_noun(new)


def _in_order(
    claim: Claim, companion: _Companion
) -> tuple[HasAttribute | Related, HasAttribute | Related]:
    assert isinstance(claim, HasAttribute | Related)
    other = companion.statement.claim
    return (other, claim) if companion.first else (claim, other)
