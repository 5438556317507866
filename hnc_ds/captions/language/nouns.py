"""Singular and plural of English nouns, by rule and by lists of exceptions (vocabulary/nouns.json).

The names of scene graphs are common nouns, some of several words ("traffic lights"), of which the
last one carries the number. Functions are cached, as the same few thousand names recur.
"""

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from hnc_ds.captions.language.vocabulary import read_lists


class _Lists(msgspec.Struct, frozen=True):
    """nouns.json."""

    irregular_plurals: dict[str, str]
    """Last word in the plural -> in the singular."""
    irregular_endings: dict[str, str]
    """Plural ending -> singular ending: 'firemen', 'bookshelves'."""
    regular_all_the_same: frozenset[str]
    """Regular words with the ending of an irregular one: 'human', 'specimen'."""
    plural_in_oes: frozenset[str]
    """Singulars; other words in -o have a plural in -os."""
    plural_only: frozenset[str]
    """Names or last words with a plural form and plural verb for one object: 'jeans'."""
    singular_in_s: frozenset[str]
    unchanged: frozenset[str]
    """Words with the same form in singular and plural: 'sheep'."""
    uncountable: frozenset[str]
    """Names or last words without article and plural: 'water'."""
    countable: frozenset[str]
    """Names that take an article although their last word is uncountable: 'lamp shade'."""
    one_of_a_sort: frozenset[str]
    """Uncountable words that take an article after another word: 'a blue sky'."""
    capitals: tuple[str, ...]
    """Words with capitals."""


_lists = read_lists("nouns.json", _Lists)

CAPITALS = {word.lower(): word for word in _lists.capitals}
"""'tv' -> 'TV', 'mickey mouse' -> 'Mickey Mouse'; names of scene graphs are in small letters."""


NUMBER_WORDS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"
)  # fmt: skip
"""Numbers in captions; people do not count larger ones at a glance."""

_PLURAL_OF = {one: many for many, one in _lists.irregular_plurals.items()}
_SINGULAR_OF = {f"{word}es": word for word in _lists.singular_in_s} | _lists.irregular_plurals

_HARD_CH = (
    "narch", "iarch", "rarch", "garch", "ptych", "stomach", "loch", "epoch", "eunuch", "tech",
    "czech",
)  # fmt: skip
"""Endings in which -ch is pronounced k: the plural is in -chs."""


@lru_cache(maxsize=1 << 14)
def is_plural(name: str) -> bool:
    """Whether a noun phrase takes a plural verb: 'people', 'jeans', 'traffic lights'.

    Nouns that do not show their number (sheep, fish) count as singular.
    """
    head = _head(name.lower())
    word = head.rsplit(" ", 1)[-1]
    if _is_plural_only(head) or _irregular_singular(word) is not None:
        return True
    if word in _lists.singular_in_s or len(word) < 3:
        return False
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def _head(name: str) -> str:
    """The part that carries the number: 'glass' of 'glass of water'."""
    return name.partition(" of ")[0]


def _is_plural_only(head: str) -> bool:
    return _ends_with_one_of(head, _lists.plural_only)


def _ends_with_one_of(name: str, names: frozenset[str]) -> bool:
    """Whether a name, or the end of it, is one of ``names``."""
    words = name.split(" ")
    return any(" ".join(words[start:]) in names for start in range(len(words)))


def _irregular_singular(word: str) -> str | None:
    if word in _SINGULAR_OF:
        return _SINGULAR_OF[word]
    return _with_other_ending(word, _lists.irregular_endings)


def _irregular_plural(word: str) -> str | None:
    if word in _PLURAL_OF:
        return _PLURAL_OF[word]
    if word in _lists.plural_in_oes:
        return f"{word}es"
    return _with_other_ending(word, _PLURAL_ENDINGS)


_PLURAL_ENDINGS = {one: many for many, one in _lists.irregular_endings.items()}


def _with_other_ending(word: str, endings: Mapping[str, str]) -> str | None:
    if word in _lists.regular_all_the_same:
        return None
    for ending, other in endings.items():
        if word.endswith(ending):
            return word.removesuffix(ending) + other
    return None


@lru_cache(maxsize=1 << 14)
def singular(name: str) -> str:
    """The singular of a noun phrase; a singular stays as it is: 'wine glasses' -> 'wine glass'."""
    head, of, rest = name.partition(" of ")
    before, space, word = head.rpartition(" ")
    if _is_plural_only(head) and word != "glasses":  # also the plural of a drinking glass
        return name
    return f"{before}{space}{_singular_word(word)}{of}{rest}"


@lru_cache(maxsize=1 << 14)
def plural(name: str) -> str:
    """The plural of a noun phrase in the singular: 'wine glass' -> 'wine glasses'."""
    if not shows_number(name):
        return name
    head, of, rest = name.partition(" of ")
    before, space, word = head.rpartition(" ")
    return f"{before}{space}{_plural_word(word)}{of}{rest}"


def shows_number(name: str) -> bool:
    """Whether singular and plural of a noun differ: not for 'sheep' or 'jeans'."""
    head = _head(name)
    return head.rsplit(" ", 1)[-1] not in _lists.unchanged and not _is_plural_only(head)


@lru_cache(maxsize=1 << 14)
def is_one_of_a_sort(words: str) -> bool:
    """Whether an uncountable noun takes an article after another word: 'a blue sky'."""
    return " " in words and words.lower().rsplit(" ", 1)[-1] in _lists.one_of_a_sort


@lru_cache(maxsize=1 << 14)
def is_countable(name: str) -> bool:
    """Whether a name in the singular takes an article: not 'water' or 'grass'."""
    head = _head(name.lower())
    if _ends_with_one_of(head, _lists.countable):
        return True
    return not _ends_with_one_of(head, _lists.uncountable)


def _plural_word(word: str) -> str:
    if (irregular := _irregular_plural(word)) is not None:
        return irregular
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "z", "ch", "sh")) and not word.endswith(_HARD_CH):
        return word + "es"
    return word + "s"


def _singular_word(word: str) -> str:
    if (irregular := _irregular_singular(word)) is not None:
        return irregular
    if not is_plural(word):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ouses", "auses", "fuses", "euses")):
        return word[:-1]
    if word.endswith(("sses", "uses", "ches", "shes", "xes", "zzes", "tzes", "oes")):
        return word[:-2]
    return word[:-1]
