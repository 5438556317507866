"""Negatives about how many there are: counts, comparisons of counts, some and none."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations

from hnc_ds.captions.language.nouns import NUMBER_WORDS, is_countable, singular
from hnc_ds.captions.language.wording import (
    counted,
    existence_sentence,
    existence_words,
    predicative,
    sentence,
)
from hnc_ds.captions.negatives.attributes import other_values, put_attribute, value_contexts
from hnc_ds.captions.negatives.exchange import (
    DRAWN,
    Bundle,
    CaptionPair,
    Change,
    about,
    exchanges,
    grouped,
    judged,
)
from hnc_ds.captions.negatives.proposals import Proposal, some, sort_of
from hnc_ds.captions.negatives.relations import (
    counted_words,
    in_turn,
    other_parts,
    predicate_exchanges,
    put_object,
    put_subject,
    relation_contexts,
)
from hnc_ds.captions.negatives.statements import (
    AttributeStatement,
    DescribedImage,
    RelationStatement,
    objects_of,
)
from hnc_ds.captions.truth.claims import (
    TURNED,
    Comparator,
    Compared,
    Counted,
    HasAttribute,
    Not,
    Phrase,
    Related,
)
from hnc_ds.records import Negative

NUMBERS = 2
"""That are proposed in place of one."""
MOST_COUNTED = 6
"""The largest number that is proposed."""

PAIRS_OF_EXISTENCE = 2
"""That one change gives: what is true and what is false are each said with 'no', too."""

_Count = tuple[str, int]


def wrong_count(image: DescribedImage) -> Iterator[Bundle]:
    """'There are two stars.' -> 'There are three stars.', where there are three of another thing.

    Numbers above one change places, so that nouns stay in the plural. With tables also a number
    drawn as often as images have so many of that name: one or more, each as often true as false.

    Source: Doenmez et al. 2023 (HNC), type "obj_count"; the balance is ours.
    """
    counts = image.counted_names()
    tables = image.options.tables
    if tables is not None:
        rng = image.stream("obj_count")
        drawn = [count for count in counts if rng.random() < DRAWN]
        for name, number in drawn:
            numbers = tables.counts.get(name, {})
            other = rng.choices([*numbers], [*numbers.values()])[0] if numbers else number
            change = judged(image, _with_number((name, number), other))
            if change is not None:
                yield (_count_pair(image, (name, number), change),)
        counts = [count for count in counts if count not in drawn]
    many = [count for count in counts if count[1] > 1]
    for pairs in exchanges(image, many, _put_number):
        yield tuple(_count_pair(image, count, change) for count, change in pairs)


def propose_count(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_count: another number of the same things, a near one more often. Not of a single
    one, as annotators often box one of several."""
    rng = image.stream("obj_count")
    many = [count for count in image.counted_names() if count[1] > 1]
    for place, (name, number) in enumerate(many):
        numbers = [n for n in range(2, MOST_COUNTED + 1) if n != number]
        near = [1 / abs(n - number) for n in numbers]
        for other in some(numbers, near, NUMBERS, rng):
            change = _with_number((name, number), other)
            if change is not None and image.refutes(change.claim):
                words = NUMBER_WORDS[number], NUMBER_WORDS[other]
                speak = partial(_say_count, image, (name, number), change)
                yield Proposal(words, (name, sort_of(name), ""), speak, place)


def _say_count(image: DescribedImage, count: _Count, change: Change) -> Bundle:
    return (_count_pair(image, count, change),)


def propose_existence(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_existence."""
    type_ = "obj_verify_count"
    statements = [s for s in image.existing_relations() if _is_one_of_some(s.claim.subject)]
    for changed in other_parts(image, statements, type_):
        if _is_one_of_some(changed.wrong.subject):
            pairs = ((changed.statement, changed.change()),)
            speak = partial(_say_verified, pairs, type_)
            words = counted_words(changed)
            yield Proposal(
                words, relation_contexts(changed), speak, changed.place, PAIRS_OF_EXISTENCE
            )


def propose_attribute_existence(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_attribute_existence."""
    type_ = "obj_verify_count_attr"
    statements = [s for s in image.existences() if _is_one_of_some(s.claim.subject)]
    for place, statement, value in other_values(image, statements, type_):
        words = predicative(statement.claim.attribute), predicative(value)
        change = Change(HasAttribute(statement.claim.subject, value), words, (statement.subject,))
        yield Proposal(
            (statement.claim.attribute, value),
            value_contexts(statement),
            partial(_say_verified, ((statement, change),), type_),
            place,
            PAIRS_OF_EXISTENCE,
        )


def _say_verified(pairs: "_Pairs", type_: str) -> Bundle:
    return next(_verified(pairs, type_), ())


def wrong_comparison(image: DescribedImage) -> Iterator[Bundle]:
    """'There are more stars than rings.' -> 'There are fewer stars than rings.'

    The same two are also told the other way round ('fewer rings than stars'); 'as many' changes
    places with either.

    Source: Doenmez et al. 2023 (HNC), type "obj_comp_count"; the published "fewer" had its nouns
    exchanged.
    """
    counts = image.counted_names()
    pairs = list(combinations(counts, 2))
    image.stream("obj_comp_count").shuffle(pairs)
    equal = [_compared(*pair) for pair in pairs if pair[0][1] == pair[1][1]]
    unequal = [_compared(*pair) for pair in pairs if pair[0][1] != pair[1][1]]
    for claim in unequal[len(equal) :]:
        turned = Compared(claim.other, TURNED[claim.comparator], claim.name)
        yield _comparisons(image, (claim, turned.comparator), (turned, claim.comparator))
    for same, other in zip(equal, unequal, strict=False):
        yield _comparisons(image, (same, other.comparator), (other, "as many"))


def wrong_existence(image: DescribedImage) -> Iterator[Bundle]:
    """'There is at least one star that is above the ring.' -> 'There is no star that is ...'

    And the reverse with what an exchange makes false: 'There is no star that is below the ring.'

    Source: Doenmez et al. 2023 (HNC), type "obj_verify_count"; the balance is ours.
    """
    statements = [s for s in image.existing_relations() if _is_one_of_some(s.claim.subject)]
    for pairs in in_turn(
        predicate_exchanges(image, statements),
        exchanges(image, statements, put_subject),
        exchanges(image, statements, put_object),
    ):
        yield from _verified(pairs, "obj_verify_count")


def wrong_attribute_existence(image: DescribedImage) -> Iterator[Bundle]:
    """'There is at least one star that is red.' -> 'There is no star that is red.'

    And the reverse with what an exchange makes false: 'There is no star that is green.'

    Source: Doenmez et al. 2023 (HNC), type "obj_verify_count_attr"; the balance is ours.
    """
    statements = [s for s in image.existences() if _is_one_of_some(s.claim.subject)]
    for group in grouped(statements, lambda s: s.cls.name):
        for pairs in exchanges(image, group, put_attribute):
            yield from _verified(pairs, "obj_verify_count_attr")


def _is_one_of_some(phrase: Phrase) -> bool:
    """Whether there can be one of it: not 'at least one water'."""
    return is_countable(singular(phrase.name))


def _put_number(one: _Count, other: _Count) -> Change | None:
    return _with_number(one, other[1])


def _with_number(count: _Count, new: int) -> Change | None:
    name, number = count
    if number == new or new >= len(NUMBER_WORDS):
        return None
    words = (NUMBER_WORDS[number], NUMBER_WORDS[new])
    if 1 in (number, new):
        words = (counted(name, number), counted(name, new))  # the noun and its verb change, too
    return Change(Counted(name, new), words, ())


def _count_pair(image: DescribedImage, count: _Count, change: Change) -> CaptionPair:
    claim = Counted(*count)
    objects = image.graph.bearers(count[0])
    negative = Negative(
        sentence(change.claim), "obj_count", change.replaced, change.open_world, objects
    )
    return CaptionPair(sentence(claim), "obj_count", objects, negative)


def _compared(one: _Count, other: _Count) -> Compared:
    (name, number), (other_name, other_number) = one, other
    comparator: Comparator = "as many"
    if number != other_number:
        comparator = "more" if number > other_number else "fewer"
    return Compared(name, comparator, other_name)


def _comparisons(image: DescribedImage, *changes: tuple[Compared, Comparator]) -> Bundle:
    """Each claim with another comparator. Counts are known here, so all of them are false."""
    bundle = []
    for claim, comparator in changes:
        wrong = Compared(claim.name, comparator, claim.other)
        objects = (*image.graph.bearers(claim.name), *image.graph.bearers(claim.other))
        negative = Negative(
            sentence(wrong), "obj_comp_count", _joint(claim, comparator), False, objects
        )
        bundle.append(CaptionPair(sentence(claim), "obj_comp_count", objects, negative))
    return tuple(bundle)


def _joint(claim: Compared, comparator: Comparator) -> tuple[str, str]:
    return claim.comparator, comparator


_Pairs = tuple[tuple[AttributeStatement | RelationStatement, Change], ...]


def _verified(pairs: _Pairs, type_: str) -> Iterator[Bundle]:
    """'At least one' of what is true, 'no' of what is false, and both the wrong way round.

    With both statements of an exchange, so that "no" goes with each word as often truly as falsely.
    """
    bundle = []
    for statement, change in pairs:
        assert isinstance(change.claim, HasAttribute | Related)
        right, wrong, none = statement.claim, change.claim, "no"
        objects = objects_of(statement)
        if change.open_world or not _is_one_of_some(right.subject):
            return  # 'no' must be proven
        some = existence_words(right.subject.name)
        bundle.append(
            _quantified(
                existence_sentence(right),
                sentence(Not(right)),
                (some, none),
                objects,
                type_,
                about(right),
            )
        )
        some = existence_words(wrong.subject.name)
        bundle.append(
            _quantified(
                sentence(Not(wrong)),
                existence_sentence(wrong),
                (none, some),
                change.objects,
                type_,
                about(wrong),
            )
        )
    yield tuple(bundle)


def _quantified(
    right: str,
    wrong: str,
    words: tuple[str, str],
    objects: tuple[int, ...],
    type_: str,
    turns_on: str,
) -> CaptionPair:
    negative = Negative(wrong, type_, words, False, objects, turns_on)
    return CaptionPair(right, type_, objects, negative, turns_on)
