"""The vocabulary of captions of one image, with meanings.

It is closed: names of the image's scene graph, attributes and predicates of the package or the
graph, and their other forms (wooden, wears, worn by, left of). A caption with any other word cannot
be proven.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from hnc_ds.captions.language.attribute_classes import ALIASES, CLASSES
from hnc_ds.captions.language.nouns import plural
from hnc_ds.captions.language.predicates import can_be_said, place_of
from hnc_ds.captions.language.vocabulary import read_lists
from hnc_ds.captions.language.wording import before_noun, predicative
from hnc_ds.captions.truth.indexed_graph import IndexedGraph, can_be_counted

_Meaning = TypeVar("_Meaning")
Words = tuple[str, ...]
"""The lowercase words of a caption; commas are words."""


class _Verbs(msgspec.Struct, frozen=True):
    """verbs.json: gerund -> (base form, participle). Only verbs with a passive have a
    participle."""

    verbs: dict[str, tuple[str, str | None]]


_VERBS = read_lists("verbs.json", _Verbs).verbs

_PLACES = (
    "to the left of", "to the right of", "above", "below", "over", "under", "underneath", "beneath",
    "on", "on top of", "atop", "in", "inside", "outside", "outside of", "in front of", "behind",
    "near", "close to", "next to", "beside", "by", "alongside", "around", "at", "on the side of",
    "on the front of", "on the back of", "on the edge of", "on the other side of", "attached to",
    "connected to", "tied to", "worn on", "covered by", "surrounded by", "followed by", "pulled by",
    "pushed by", "larger than", "bigger than", "smaller than", "taller than", "shorter than",
    "longer than", "along", "across", "against", "through", "down", "up", "with",
)  # fmt: skip
"""Predicates that follow 'is' or a verb of place."""

_OTHER_PLACES = {
    f"{before}{side}{after} of": f"to the {side} of"
    for side in ("left", "right")
    for before in ("", "to the ", "on the ")
    for after in ("", " side", "-hand side", " hand side")
}
"""Variants such as 'on the left side of'."""


class Phrasebook(Generic[_Meaning]):
    """Phrases of one or more words with one or more meanings each."""

    def __init__(self, entries: Iterable[tuple[str, _Meaning]]) -> None:
        self._found: dict[Words, tuple[_Meaning, ...]] = {}
        for phrase, meaning in entries:
            key = tuple(phrase.lower().split())
            known = self._found.get(key, ())
            if meaning not in known:
                self._found[key] = (*known, meaning)
        self._longest = max(map(len, self._found), default=0)
        self.words = frozenset(word for key in self._found for word in key)

    def at(self, words: Words, start: int) -> Iterator[tuple[_Meaning, int]]:
        """Meanings of the phrases that begin at ``start``, each with the end of its phrase."""
        for end in range(start + 1, min(start + self._longest, len(words)) + 1):
            for meaning in self._found.get(words[start:end], ()):
                yield meaning, end


def _third_person(base: str) -> str:
    """'carry' -> 'carries'."""
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


_VALUES = sorted({value for cls in CLASSES for cell in cls.cells for value in cell})


def _adjectives(values: Iterable[str]) -> Iterator[tuple[str, str]]:
    for value in values:
        yield value, value
        yield before_noun(value), value
    yield from ALIASES.items()


def _complements(values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Attributes as they follow 'is'."""
    yield from _adjectives(values)
    for value in values:
        yield predicative(value), value


_ADJECTIVES = Phrasebook(_adjectives(_VALUES))
_COMPLEMENTS = Phrasebook(_complements(_VALUES))

PRESENT: dict[str, tuple[str, bool]] = {
    form: (gerund, many)
    for gerund, (base, _) in _VERBS.items()
    for form, many in ((_third_person(base), False), (base, True))
}
"""'wears' -> ('wearing', whether the subject is plural)."""

PASSIVE = Phrasebook(
    (f"{participle} by", gerund) for gerund, (_, participle) in _VERBS.items() if participle
)
"""'worn by' -> 'wearing'."""

_STATIC = Phrasebook(
    [
        *((place, place) for place in _PLACES),
        *_OTHER_PLACES.items(),
        *((gerund, gerund) for gerund, (_, participle) in _VERBS.items() if participle),
        *(
            (f"{gerund} {words}", f"{gerund} {place}")
            for gerund in _VERBS
            for words, place in (*((p, p) for p in _PLACES), *_OTHER_PLACES.items())
            if place_of(f"{gerund} {place}") == place
        ),
    ]
)

_GRAMMAR = frozenset(
    "a an the some is are not that which who there at least one no more fewer as many than both "
    "either and or , exactly only located situated positioned seen can be by two three four five "
    "six seven eight nine ten".split()
)
"""Function words of the grammar in parsing.py."""


class ImageWords:
    """The vocabulary of one image.

    Args:
        graph: Graph of the image.
    """

    def __init__(self, graph: IndexedGraph) -> None:
        names = sorted({*graph.names})
        self._names = Phrasebook((name, name) for name in names)
        self._numbered = Phrasebook(
            entry
            for name in names
            if can_be_counted(name)
            for entry in ((name, (name, False)), (plural(name), (name, True)))
        )
        own = sorted({a for attributes in graph.attributes for a in attributes} - {*_VALUES})
        self._own_adjectives = Phrasebook(_adjectives(own))
        self._own_complements = Phrasebook(_complements(own))
        edges = sorted({p for edge in graph.edges.values() for p in edge if can_be_said(p)})
        self._own_predicates = Phrasebook((p, p) for p in edges)

    def names(self, words: Words, start: int) -> set[tuple[str, int]]:
        """Names that begin at ``start``, each with its end."""
        return set(self._names.at(words, start))

    def counted_names(self, words: Words, start: int) -> set[tuple[tuple[str, bool], int]]:
        """Names of countable things: ((singular, whether it is plural here), end)."""
        return set(self._numbered.at(words, start))

    def adjectives(self, words: Words, start: int) -> set[tuple[str, int]]:
        """Attributes as they stand before a noun."""
        return {*_ADJECTIVES.at(words, start), *self._own_adjectives.at(words, start)}

    def complements(self, words: Words, start: int) -> set[tuple[str, int]]:
        """Attributes as they follow 'is'."""
        return {*_COMPLEMENTS.at(words, start), *self._own_complements.at(words, start)}

    def predicates(self, words: Words, start: int) -> set[tuple[str, int]]:
        """Predicates as they follow 'is' or a noun: 'wearing', 'to the left of'."""
        return {*_STATIC.at(words, start), *self._own_predicates.at(words, start)}

    def is_predicate(self, phrase: str) -> bool:
        """Whether a phrase is a predicate under its name in claims."""
        words = tuple(phrase.split(" "))
        return (phrase, len(words)) in self.predicates(words, 0)

    def knows(self, word: str) -> bool:
        """Whether a word may occur in a caption."""
        books = (
            self._names, self._numbered, self._own_adjectives, self._own_complements,
            self._own_predicates, _ADJECTIVES, _COMPLEMENTS, PASSIVE, _STATIC,
        )  # fmt: skip
        return word in _GRAMMAR or word in PRESENT or any(word in book.words for book in books)
