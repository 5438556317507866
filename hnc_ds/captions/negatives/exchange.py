"""False captions that hold the same words as true ones: statements exchange a part.

"The dog is brown." and "The cat is black." give "The dog is black." and "The cat is brown.". Each
word stands as often in the true captions as in the false ones, image by image, so that no text-
only model can tell them apart by their words, and every false caption takes knowing which word
belongs to what. A bundle of pairs is written whole or not at all.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from hnc_ds.captions.language.attribute_classes import class_of
from hnc_ds.captions.language.wording import sentence
from hnc_ds.captions.negatives.references import reads_as_another
from hnc_ds.captions.negatives.statements import DescribedImage
from hnc_ds.captions.truth.claims import Claim, HasAttribute, Not, Related
from hnc_ds.captions.truth.holds import holds
from hnc_ds.captions.truth.indexed_graph import TRUE
from hnc_ds.records import Negative

TRIES = 8
"""Partners of a statement whose exchange is judged."""

DRAWN = 0.5
"""Share of the statements that are changed by a draw from the tables, where there are some. A draw
follows how often a thing of that name has each value; one that hits the true value gives nothing.
So each value is drawn for each other one as often as the reverse."""

_S = TypeVar("_S")


class CaptionPair(Struct, frozen=True):
    """A true caption and one false one."""

    positive: str
    kind: str
    """What the positive states: 'attribute', 'relation', 'obj_count' ..."""
    objects: tuple[int, ...]
    """What the positive speaks of."""
    negative: Negative
    about: str = ""
    """What the positive turns on, as Negative.about."""


Bundle = tuple[CaptionPair, ...]
"""Pairs that balance each other's words."""


class Change(Struct, frozen=True):
    """A claim with one part exchanged, not judged yet."""

    claim: Claim
    replaced: tuple[str, str]
    """(words before, words after)."""
    objects: tuple[int, ...]
    """What the changed claim speaks of."""
    open_world: bool = False
    """Set by ``judged``: whether it is not proven false."""
    about: str = ""
    """As Negative.about, where the claim does not say it by itself."""


def judged(image: DescribedImage, change: Change | None) -> Change | None:
    """The change if it may be written as a negative: false, or unproven where that is wanted."""
    if change is None or _is_ambiguous(change.claim):
        return None
    if image.refutes(change.claim):
        return change
    if not image.options.open_world or holds(image.graph, change.claim) is TRUE:
        return None
    return replace(change, open_world=True)


def _is_ambiguous(claim: Claim) -> bool:
    """Whether a phrase of the claim can be read in another way."""
    return isinstance(claim, Related) and (
        reads_as_another(claim.subject) or reads_as_another(claim.object)
    )


Put = Callable[[_S, _S], Change | None]
"""(statement, partner) -> the statement's claim with the partner's part; None if no English."""


def exchanges(
    image: DescribedImage, statements: Sequence[_S], put: Put[_S]
) -> Iterator[tuple[tuple[_S, Change], tuple[_S, Change]]]:
    """Pairs of statements that become false by taking each other's part; each in one pair.

    Args:
        image: What the statements are true of.
        statements: Any number, in drawn order.
        put: Makes the change of the first statement.
    """
    waiting = [*statements]
    while len(waiting) > 1:
        one = waiting.pop()
        tries = TRIES
        for place in range(len(waiting) - 1, -1, -1):
            other = waiting[place]
            change = put(one, other)
            if change is None or not image.is_usual(change.claim):
                continue
            mine = judged(image, change)
            theirs = judged(image, put(other, one)) if mine is not None else None
            if mine is not None and theirs is not None:
                del waiting[place]
                yield (one, mine), (other, theirs)
                break
            tries -= 1
            if not tries:
                break


def grouped(statements: Iterable[_S], key: Callable[[_S], str]) -> list[list[_S]]:
    """Statements among which parts may be exchanged, by a key; groups of one are left out."""
    groups: dict[str, list[_S]] = {}
    for statement in statements:
        groups.setdefault(key(statement), []).append(statement)
    return [groups[name] for name in sorted(groups) if len(groups[name]) > 1]


def caption_pair(
    claim: Claim, kind: str, objects: tuple[int, ...], change: Change, type_: str
) -> CaptionPair:
    """A true claim and its change, in words."""
    negative = Negative(
        sentence(change.claim),
        type_,
        change.replaced,
        change.open_world,
        change.objects,
        change.about or about(change.claim),
    )
    return CaptionPair(sentence(claim), kind, objects, negative, about(claim))


def about(claim: Claim) -> str:
    """What a claim turns on, as Negative.about."""
    if isinstance(claim, Not):
        return about(claim.claim)
    if isinstance(claim, Related):
        return claim.predicate
    if isinstance(claim, HasAttribute):
        cls = class_of(claim.attribute, claim.subject.name)
        return cls.name if cls else ""
    return ""
