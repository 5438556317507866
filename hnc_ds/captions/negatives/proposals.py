"""Changes of true statements that the graph refutes, offered to the balance over the data set.

A type proposes changes a -> b and does not word them yet. balance.py counts over all images how
often each is proposed, and in the second pass keeps as many a -> b as b -> a; only those are put
into words. Which changes of a statement are proposed is drawn. How it is drawn does not matter to
the balance, which counts what is drawn; it decides how many of them find their counterpart.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TypeVar

from msgspec import Struct

from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.negatives.exchange import Bundle

_T = TypeVar("_T")


class Proposal(Struct, frozen=True):
    """One change of one true statement."""

    words: tuple[str, str]
    """(a, b): what stands in the true caption, and what in the false one in its place."""
    contexts: tuple[str, ...]
    """From narrow to wide: within each a -> b is to be as frequent as b -> a. None: the bundle
    is balanced by itself."""
    speak: Callable[[], Bundle]
    """Words it."""
    of: int = 0
    """Which of the type's statements it changes: none has a second false caption before the others
    have one."""
    pairs: int = 1
    """How many it gives."""
    narrow: int = 1
    """How many of its contexts are narrow: those that hold the words next to which a and b stand,
    so that pairs of words balance, too."""


def balanced(bundles: Iterator[Bundle]) -> Iterator[Proposal]:
    """Bundles whose words balance, as proposals that need no other."""
    for place, bundle in enumerate(bundles):
        speak = partial(_whole, bundle)
        yield Proposal(("", ""), (), speak, place, len(bundle))


def _whole(bundle: Bundle) -> Bundle:
    return bundle


def some(items: Sequence[_T], weights: Sequence[float], count: int, rng: random.Random) -> list[_T]:
    """At most so many different ones, drawn by their weights."""
    if len(items) <= count:
        return [*items]
    # Of u ** (1 / w) the largest: draws without replacement (Efraimidis and Spirakis 2006).
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
    """The group of a name, for contexts that are wider than the name."""
    return next((group for group in _SORTS if is_a(name, group)), "things")
