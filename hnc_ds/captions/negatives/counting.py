"""Negatives about numbers: counts, comparisons of counts, existence."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, product, zip_longest
from typing import TypeVar

from msgspec.structs import replace

from hnc_ds.captions.language.nouns import NUMBER_WORDS, is_countable, singular
from hnc_ds.captions.language.wording import (
    before_noun,
    counted,
    existence_sentence,
    existence_words,
    predicative,
    sentence,
)
from hnc_ds.captions.negatives.attributes import other_values, put_attribute, value_contexts
from hnc_ds.captions.negatives.changes import (
    DRAWN,
    Bundle,
    CaptionPair,
    Change,
    Proposal,
    about,
    exchanges,
    grouped,
    judged,
    may_be_more,
    some,
    sort_of,
)
from hnc_ds.captions.negatives.references import is_sayable
from hnc_ds.captions.negatives.relations import (
    both,
    in_turn,
    other_parts,
    predicate_exchanges,
    proposal_of,
    put_object,
    put_subject,
)
from hnc_ds.captions.negatives.statements import DescribedImage, Statement, objects_of
from hnc_ds.captions.truth import boxes
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
"""Numbers proposed in place of the true one."""
MAX_NUMBER = 6
"""The largest number that is proposed."""
COMPARISONS = 3
"""Maximum number of comparisons per image."""
CLEARLY_MORE = 2
"""Objects beyond which their number surely exceeds a single object's, even if one of those is not
annotated."""
STATEMENTS = 12
"""Maximum number of attribute statements per image that become existence captions."""
VALUES_OF_NONE = 3
"""Values proposed in place of one in existence captions."""

MUCH_LARGER = 4.0
"""Ratio of saliences from which on objects of a name may have further, smaller ones that are not
annotated."""

PAIRS_OF_EXISTENCE = 2
"""Pairs per change: the true and the false claim each give one, as both also occur with 'no'."""

_S = TypeVar("_S")
_Count = tuple[str, int]


def wrong_count(image: DescribedImage) -> Iterator[Bundle]:
    """'There are two stars.' -> 'There are three stars.', where there are three of another thing.

    Only numbers above one are exchanged, so nouns stay in the plural. With tables, half of the
    counts take a number drawn by how many images have that many; each is true as often as false.
    """
    counts = known_numbers(image)
    tables = image.options.tables
    if tables is not None:
        rng = image.stream("obj_count")
        drawn = [count for count in counts if rng.random() < DRAWN]
        for name, number in drawn:
            numbers = tables.counts.get(name, {})
            other = rng.choices([*numbers], [*numbers.values()])[0] if numbers else number
            change = judged(image, _with_number(Counted(name, number), other))
            if change is not None:
                yield (_count_pair(image, Counted(name, number), change),)
        counts = [count for count in counts if count not in drawn]
    many = [count for count in counts if count[1] > 1]
    for pairs in exchanges(image, many, _put_number):
        yield tuple(_count_pair(image, Counted(*count), change) for count, change in pairs)


def propose_count(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_count; near numbers are proposed more often.

    Also with an attribute: 'There are two white horses.' -> 'There are three white horses.' or
    'There are two black horses.'
    """
    rng = image.stream("obj_count")
    numbers = dict(known_numbers(image))
    claims = [Counted(name, number) for name, number in numbers.items()]
    claims += _counts_with_attributes(image, numbers)
    for place, claim in enumerate(claims):
        phrase = " ".join((*claim.attributes, claim.name))
        contexts = phrase, claim.name, sort_of(claim.name), ""
        least = 1 if claim.attributes else 2
        others = [n for n in range(least, MAX_NUMBER + 1) if n != claim.number]
        near = [1 / abs(n - claim.number) for n in others]
        for other in some(others, near, NUMBERS, rng):
            change = _with_number(claim, other)
            if change is not None and image.refutes(change.claim):
                words = NUMBER_WORDS[claim.number], NUMBER_WORDS[other]
                make_bundle = partial(_count_bundle, image, claim, change)
                yield Proposal(words, contexts, make_bundle, place, narrow=2)
    yield from _counts_of_others(image, claims[len(numbers) :], len(claims))


def _counts_with_attributes(image: DescribedImage, numbers: dict[str, int]) -> Iterator[Counted]:
    """'two white horses', where the graph proves of each horse whether it is white."""
    if not numbers:
        return
    seen = set()
    for statement in image.existences:
        name, attribute = statement.claim.subject.name, statement.claim.attribute
        if name not in numbers or not statement.cls.before_noun or (name, attribute) in seen:
            continue
        seen.add((name, attribute))
        number = image.graph.count(name, (attribute,))
        if number is not None and number <= MAX_NUMBER:
            yield Counted(name, number, (attribute,))


def _counts_of_others(
    image: DescribedImage, claims: Sequence[Counted], start: int
) -> Iterator[Proposal]:
    """'There are two white horses.' -> 'There are two black horses.', where none is black."""
    by_name = {(claim.name, claim.attributes[0]): claim for claim in claims}
    statements = [
        statement
        for statement in image.existences
        if (statement.claim.subject.name, statement.claim.attribute) in by_name
    ]
    for place, statement, value, prior in other_values(image, statements, "obj_count"):
        name, old = statement.claim.subject.name, statement.claim.attribute
        claim = by_name[name, old]
        words = before_noun(old), before_noun(value)
        wrong = replace(claim, attributes=(value,))
        change = Change(wrong, words, image.graph.bearers(name), about=statement.cls.name)
        if image.refutes(wrong):
            make_bundle = partial(_count_bundle, image, claim, change)
            contexts = value_contexts(statement)
            yield Proposal((old, value), contexts, make_bundle, start + place, prior=prior)


def _count_bundle(image: DescribedImage, claim: Counted, change: Change) -> Bundle:
    return (_count_pair(image, claim, change),)


def known_numbers(image: DescribedImage) -> list[tuple[str, int]]:
    """Names with their number of objects, where it is known.

    With balance over the data set the graphs come from annotators, who may box one horse and not
    the one next to it; those who box two more often box all. So a name needs at least two objects,
    clearly apart and of similar salience, and must not be one that ``may_be_more``.
    """
    if image.options.balance == "image":
        return image.counted_names()
    graph, more = image.graph, may_be_more(image)
    several = sorted(name for name, boxed in Counter(graph.names).items() if boxed > 1)
    counts = [(name, graph.count(name)) for name in several if is_sayable(name) and not more(name)]
    return [
        (name, number)
        for name, number in counts
        if number is not None
        and number < len(NUMBER_WORDS)
        and _are_all_seen(image, graph.bearers(name))
    ]


def _single_ones(image: DescribedImage) -> list[_Count]:
    """Names with one annotated object that do not come in numbers."""
    graph, more = image.graph, may_be_more(image)
    single = sorted(name for name, boxed in Counter(graph.names).items() if boxed == 1)
    return [
        (name, 1) for name in single if is_sayable(name) and not more(name) and graph.count(name)
    ]


def _are_all_seen(image: DescribedImage, objects: tuple[int, ...]) -> bool:
    """Whether objects lie clearly apart and none is much less salient than another."""
    weights = [image.salience[i] for i in objects]
    places = image.graph.places
    aside = all(places[i][j] & _ASIDE for i in objects for j in objects if i < j)
    return aside and max(weights) < MUCH_LARGER * min(weights)


_ASIDE = boxes.LEFT | boxes.RIGHT | boxes.ABOVE | boxes.BELOW


def propose_existence(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_existence, also with an attribute: 'There is no red star that is below the ring.'"""
    type_ = "obj_verify_count"
    described = [s for s in image.relation_statements(True, False) if s.claim.subject.attributes]
    statements = [*_in_turn(image.existing_relations, described)]
    can_be_none = _can_be_none(image)
    statements = [s for s in statements if can_be_none(s.claim.subject)]
    for changed in other_parts(image, statements, type_):
        if can_be_none(changed.wrong.subject):
            if changed.twin is not None and not can_be_none(changed.twin.wrong.subject):
                changed = changed._replace(twin=None)
            pairs = tuple([(one.statement, one.change()) for one in both(changed)])
            make_bundle = partial(_existence_bundle, pairs, type_)
            yield proposal_of(changed, make_bundle, pairs=PAIRS_OF_EXISTENCE)


def propose_attribute_existence(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_attribute_existence, also with another attribute: 'There is no large star that is
    green.'"""
    type_ = "obj_verify_count_attr"
    described = [s for s in image.attribute_statements if s.claim.subject.attributes]
    can_be_none = _can_be_none(image)
    statements = [s for s in _in_turn(image.existences, described) if can_be_none(s.claim.subject)]
    for place, statement, value, prior in other_values(
        image, statements[:STATEMENTS], type_, VALUES_OF_NONE
    ):
        words = predicative(statement.claim.attribute), predicative(value)
        change = Change(HasAttribute(statement.claim.subject, value), words, (statement.subject,))
        yield Proposal(
            (statement.claim.attribute, value),
            value_contexts(statement),
            partial(_existence_bundle, ((statement, change),), type_),
            place,
            PAIRS_OF_EXISTENCE,
            prior=prior,
        )


def _in_turn(*lists: Iterable[_S]) -> Iterator[_S]:
    """Yields one item of each list in turn."""
    for items in zip_longest(*lists):
        yield from (item for item in items if item is not None)


def wrong_comparison(image: DescribedImage) -> Iterator[Bundle]:
    """'There are more stars than rings.' -> 'There are fewer stars than rings.'

    Each comparison also occurs with its nouns exchanged ('fewer rings than stars'); 'as many' is
    exchanged with 'more' or 'fewer'.

    The released files have the nouns of
    "fewer" the wrong way round.
    """
    pairs = comparable(image)
    image.stream("obj_comp_count").shuffle(pairs)
    equal = [_compared(*pair) for pair in pairs if pair[0][1] == pair[1][1]]
    unequal = [_compared(*pair) for pair in pairs if pair[0][1] != pair[1][1]]
    for claim in unequal[len(equal) :]:
        yield _said_both_ways(image, claim)
    for same, other in zip(equal, unequal, strict=False):
        yield _comparisons(image, (same, other.comparator), (other, "as many"))


def propose_comparison(image: DescribedImage) -> Iterator[Proposal]:
    """As wrong_comparison. A comparison in both directions balances word by word; the contexts also
    make each of two names the more frequent one equally often."""
    rng = image.stream("obj_comp_count")
    pairs = comparable(image)
    for place, pair in enumerate(some(pairs, [1.0] * len(pairs), COMPARISONS, rng)):
        one, other = pair if rng.random() < 0.5 else pair[::-1]
        names = one[0], other[0]
        contexts = "|".join(names), "|".join(map(sort_of, names)), ""
        claim = _compared(one, other)
        if claim.comparator == "as many":
            comparator: Comparator = rng.choice(("more", "fewer"))
            make_bundle = partial(_comparisons, image, (claim, comparator))
            yield Proposal(("as many", comparator), contexts, make_bundle, place)
            continue
        make_bundle = partial(_comparisons, image, (claim, "as many"))
        yield Proposal((claim.comparator, "as many"), contexts, make_bundle, place)
        first = _compared(*sorted((one, other)))
        names = first.name, first.other
        contexts = "|".join(names), "|".join(map(sort_of, names)), ""
        turned = first.comparator, TURNED[first.comparator]
        yield Proposal(turned, contexts, partial(_said_both_ways, image, first), place, 2)


def comparable(image: DescribedImage) -> list[tuple[_Count, _Count]]:
    """Pairs of names whose numbers can be compared.

    With balance over the data set, also three annotated cups with one annotated dog: annotators may
    leave out a second dog, but hardly two more.
    """
    known = known_numbers(image)
    if image.options.balance == "image":
        return list(combinations(known, 2))
    many = [count for count in known if count[1] > CLEARLY_MORE]
    return [*combinations(known, 2), *product(many, _single_ones(image))]


def _said_both_ways(image: DescribedImage, claim: Compared) -> Bundle:
    turned = Compared(claim.other, TURNED[claim.comparator], claim.name)
    return _comparisons(image, (claim, turned.comparator), (turned, claim.comparator))


def wrong_existence(image: DescribedImage) -> Iterator[Bundle]:
    """'There is at least one star that is above the ring.' -> 'There is no star that is ...'

    And the reverse for the claim that an exchange makes false: 'There is no star that is below the
    ring.' -> 'There is at least one star that is ...'
    """
    can_be_none = _can_be_none(image)
    statements = [s for s in image.existing_relations if can_be_none(s.claim.subject)]
    for pairs in in_turn(
        predicate_exchanges(image, statements),
        exchanges(image, statements, put_subject),
        exchanges(image, statements, put_object),
    ):
        if bundle := _existence_bundle(pairs, "obj_verify_count"):
            yield bundle


def wrong_attribute_existence(image: DescribedImage) -> Iterator[Bundle]:
    """'There is at least one star that is red.' -> 'There is no star that is red.'

    And the reverse for the claim that an exchange makes false: 'There is no star that is green.'
    -> 'There is at least one star that is green.'
    """
    can_be_none = _can_be_none(image)
    statements = [s for s in image.existences if can_be_none(s.claim.subject)]
    for group in grouped(statements, lambda s: s.cls.name):
        for pairs in exchanges(image, group, put_attribute):
            if bundle := _existence_bundle(pairs, "obj_verify_count_attr"):
                yield bundle


def _can_be_none(image: DescribedImage) -> Callable[[Phrase], bool]:
    """Returns a predicate: whether the graph can prove that there is no such object."""
    more = may_be_more(image)
    return lambda phrase: _is_one_of_some(phrase) and not more(phrase.name)


def _is_one_of_some(phrase: Phrase) -> bool:
    """Whether the noun is countable: not 'at least one water'."""
    return is_countable(singular(phrase.name))


def _put_number(one: _Count, other: _Count) -> Change | None:
    return _with_number(Counted(*one), other[1])


def _with_number(claim: Counted, new: int) -> Change | None:
    if claim.number == new or new >= len(NUMBER_WORDS):
        return None
    wrong = replace(claim, number=new)
    words = (NUMBER_WORDS[claim.number], NUMBER_WORDS[new])
    if 1 in (claim.number, new):  # the noun and its verb change, too
        words = (
            counted(claim.name, claim.number, claim.attributes),
            counted(claim.name, new, claim.attributes),
        )
    return Change(wrong, words, ())


def _count_pair(image: DescribedImage, claim: Counted, change: Change) -> CaptionPair:
    objects = image.graph.candidates(Phrase(claim.name, claim.attributes))
    negative = Negative(
        sentence(change.claim),
        "obj_count",
        change.replaced,
        change.open_world,
        change.objects or objects,
        change.about,
    )
    return CaptionPair(sentence(claim), "obj_count", objects, negative, change.about)


def _compared(one: _Count, other: _Count) -> Compared:
    (name, number), (other_name, other_number) = one, other
    comparator: Comparator = "as many"
    if number != other_number:
        comparator = "more" if number > other_number else "fewer"
    return Compared(name, comparator, other_name)


def _comparisons(image: DescribedImage, *changes: tuple[Compared, Comparator]) -> Bundle:
    """Each claim with another comparator, which is false as the counts are known."""
    bundle = []
    for claim, comparator in changes:
        wrong = Compared(claim.name, comparator, claim.other)
        objects = (*image.graph.bearers(claim.name), *image.graph.bearers(claim.other))
        words: tuple[str, str] = claim.comparator, comparator
        negative = Negative(sentence(wrong), "obj_comp_count", words, False, objects)
        bundle.append(CaptionPair(sentence(claim), "obj_comp_count", objects, negative))
    return tuple(bundle)


def _existence_bundle(pairs: Iterable[tuple[Statement, Change]], type_: str) -> Bundle:
    """'At least one' for the true claims and 'no' for the false ones, each against its opposite.

    Both statements of an exchange are in the bundle, so "no" occurs with each word as often in true
    captions as in false ones. Empty if a claim is not proven false.
    """
    bundle = []
    for statement, change in pairs:
        right, wrong = statement.claim, change.claim
        assert isinstance(wrong, HasAttribute | Related)
        if change.open_world or not _is_one_of_some(right.subject):
            return ()
        for claim, objects, is_true in (
            (right, objects_of(statement), True),
            (wrong, change.objects, False),
        ):
            captions = existence_sentence(claim), sentence(Not(claim))
            words = existence_words(claim.subject.name), "no"
            if not is_true:
                captions, words = captions[::-1], words[::-1]
            negative = Negative(captions[1], type_, words, False, objects, about(claim))
            bundle.append(CaptionPair(captions[0], type_, objects, negative, about(claim)))
    return tuple(bundle)
