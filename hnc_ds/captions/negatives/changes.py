"""Changes of true statements that the graph refutes: judged, exchanged and proposed.

*Exchanges*: two true statements become false by taking a part of each other. "The dog is brown."
and "The cat is black." give "The dog is black." and "The cat is brown.". Every word occurs as often
in the true captions of an image as in its false ones, so a text-only model cannot separate them by
their words. A bundle of such pairs is written whole or not at all.

*Proposals* are the input of the balance over the data set. A negative type proposes changes a -> b
without making captions yet. balance.py counts over all images how often each is proposed and in the
second pass keeps as many a -> b as b -> a; only these become captions. The balance is exact for any
distribution of the proposals; the distribution only decides how many of them have a counterpart.

*Completeness*: annotators of GQA box some doors, windows or people of a photograph and leave out
others. A claim about the annotated door stays provable, but "There is no open door." and numbers
are not.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from hnc_ds.captions.balance import Prior
from hnc_ds.captions.language.attribute_classes import class_of
from hnc_ds.captions.language.kinds import is_a, is_animate
from hnc_ds.captions.language.nouns import is_plural, singular
from hnc_ds.captions.language.wording import sentence
from hnc_ds.captions.negatives.references import reads_as_another
from hnc_ds.captions.negatives.statements import DescribedImage
from hnc_ds.captions.truth.claims import Claim, HasAttribute, Not, Related
from hnc_ds.captions.truth.holds import holds
from hnc_ds.captions.truth.indexed_graph import TRUE
from hnc_ds.records import Negative

TRIES = 8
"""Maximum number of partners tried for a statement."""

DRAWN = 0.5
"""Fraction of the statements that, with tables, get a value drawn by its frequency for that name. A
draw of the true value gives no negative, so a -> b is drawn as often as b -> a."""

SCATTERED = frozenset(
    """apartment book bottle box building chimney cone container door fence flag gate house lamp
    leaf letter light logo outlet picture pole post shelf shop sign speaker statue tower umbrella
    vase""".split()
)
"""Last words of names whose objects usually come in numbers, of which annotators box only some."""

_S = TypeVar("_S")


class CaptionPair(Struct, frozen=True):
    """A true caption and one false one."""

    positive: str
    kind: str
    """Kind of the positive: 'attribute', 'relation', 'obj_count' ..."""
    objects: tuple[int, ...]
    """The objects that the positive is about."""
    negative: Negative
    about: str = ""
    """The positive's counterpart of Negative.about."""


Bundle = tuple[CaptionPair, ...]
"""Pairs that balance each other's words."""


class Change(Struct, frozen=True):
    """A claim with one part replaced, not yet checked against the graph."""

    claim: Claim
    replaced: tuple[str, str]
    """(words before, words after)."""
    objects: tuple[int, ...]
    """The objects that the changed claim is about."""
    open_world: bool = False
    """Whether the graph does not refute it; set by ``judged``."""
    about: str = ""
    """As Negative.about; derived from the claim when empty."""


def judged(image: DescribedImage, change: Change | None) -> Change | None:
    """The change if it may become a negative: refuted, or open-world if the options allow it."""
    if change is None or _is_ambiguous(change.claim):
        return None
    if image.refutes(change.claim):
        return change
    if not image.options.open_world or holds(image.graph, change.claim) is TRUE:
        return None
    return replace(change, open_world=True)


def _is_ambiguous(claim: Claim) -> bool:
    """Whether a phrase of the claim has a second reading."""
    return isinstance(claim, Related) and (
        reads_as_another(claim.subject) or reads_as_another(claim.object)
    )


Put = Callable[[_S, _S], Change | None]
"""(statement, partner) -> the statement's claim with the partner's part; None if it makes no sense
in English."""


def exchanges(
    image: DescribedImage, statements: Sequence[_S], put: Put[_S]
) -> Iterator[tuple[tuple[_S, Change], tuple[_S, Change]]]:
    """Pairs of statements that both become false by an exchange; each statement is used once.

    Args:
        image: The image that the statements describe.
        statements: True statements, in drawn order.
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
    """Statements grouped by a key, without groups of one."""
    groups: dict[str, list[_S]] = {}
    for statement in statements:
        groups.setdefault(key(statement), []).append(statement)
    return [groups[name] for name in sorted(groups) if len(groups[name]) > 1]


def caption_pair(
    claim: Claim, kind: str, objects: tuple[int, ...], change: Change, type_: str
) -> CaptionPair:
    """The captions of a true claim and of its change."""
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
    """The predicate of a claim or the class of its attribute, as Negative.about; '' for others."""
    if isinstance(claim, Not):
        return about(claim.claim)
    if isinstance(claim, Related):
        return claim.predicate
    if isinstance(claim, HasAttribute):
        cls = class_of(claim.attribute, claim.subject.name)
        return cls.name if cls else ""
    return ""


def may_be_more(image: DescribedImage) -> Callable[[str], bool]:
    """Returns a predicate: whether the image may have objects of a name beyond the annotated ones.

    True for things that come in numbers or are boxed as groups, for stuff and parts, and for
    clothing and body parts where there are several people or animals. Always False with balance in
    each image, which also serves rendered scenes, whose graphs are complete.
    """
    if image.options.balance == "image":
        return lambda name: False
    return partial(_may_be_more, sum(map(is_animate, image.graph.names)) > 1)


@lru_cache(maxsize=1 << 14)
def _may_be_more(several_bodies: bool, name: str) -> bool:
    if _comes_in_numbers(name):
        return True
    return several_bodies and any(is_a(name, group) for group in ("clothing", "body_parts"))


def _comes_in_numbers(name: str) -> bool:
    if is_plural(name) and singular(name) != name:
        return True
    if is_a(name, "grounds"):
        return False  # there is one floor, one sky
    last = singular(name).rsplit(" ", 1)[-1]
    return last in SCATTERED or any(is_a(name, group) for group in ("stuff", "parts", "groups"))


class Proposal(Struct, frozen=True):
    """One change of one true statement."""

    words: tuple[str, str]
    """(a, b): the words in the true caption and those that replace them in the false one."""
    contexts: tuple[str, ...]
    """Contexts from narrow to wide, within which a -> b is kept as often as b -> a. Empty if the
    bundle is balanced by itself."""
    make_bundle: Callable[[], Bundle]
    """Makes the caption pairs."""
    of: int = 0
    """Index of the changed statement: every statement gets one false caption before any gets a
    second one."""
    pairs: int = 1
    """Number of caption pairs."""
    narrow: int = 1
    """Number of narrow contexts: those with the neighbouring words of a and b, so that pairs of
    words balance as well."""
    prior: Prior | None = None
    """GQA's counts for the change, if known."""


def balanced(bundles: Iterator[Bundle]) -> Iterator[Proposal]:
    """Bundles that are balanced by themselves, as proposals."""
    for place, bundle in enumerate(bundles):
        yield Proposal(("", ""), (), partial(tuple, bundle), place, len(bundle))


def some(items: Sequence[_S], weights: Sequence[float], count: int, rng: random.Random) -> list[_S]:
    """At most ``count`` items, drawn by weight without replacement."""
    if len(items) <= count:
        return [*items]
    # The largest u ** (1 / w) are such a draw (Efraimidis and Spirakis 2006).
    order = sorted(
        range(len(items)), key=lambda place: rng.random() ** (1 / weights[place]), reverse=True
    )
    return [items[place] for place in order[:count]]


_SORTS = (
    "people", "animals", "clothing", "body_parts", "vehicles", "food", "seats", "grounds", "stuff",
    "parts", "plants", "drinks", "readables",
)  # fmt: skip


@lru_cache(maxsize=1 << 14)
def sort_of(name: str) -> str:
    """The group of a name in kinds.json, for contexts wider than the name; 'things' if none."""
    return next((group for group in _SORTS if is_a(name, group)), "things")
