"""The number of English nouns, by rule and by lists of exceptions (vocabulary/nouns.json).

The names of scene graphs are common nouns, some of several words ("traffic lights"); only the
last word carries the number. Every function is pure and cached: the same few thousand names
come up again and again.
"""

from functools import lru_cache

import msgspec

from hnc_ds.captions.language.vocabulary import read_lists


class _Lists(msgspec.Struct, frozen=True):
    """nouns.json."""

    irregular_plurals: dict[str, str]
    """Last words: plural -> singular."""
    plural_only: frozenset[str]
    """Plural in form and agreement, without a singular that names one whole thing: 'jeans'."""
    singular_in_s: frozenset[str]
    unchanged: frozenset[str]
    """The same in both numbers: 'sheep'."""
    uncountable: frozenset[str]
    """Said without an article and never in the plural, on their own or as a last word: 'water'."""
    one_of_a_sort: frozenset[str]
    """Of the uncountable ones, those with an article after another word: 'a blue sky'."""
    capitals: tuple[str, ...]
    """Words that are not written in small letters."""


_lists = read_lists("nouns.json", _Lists)

CAPITALS = {word.lower(): word for word in _lists.capitals}
"""'tv' -> 'TV': names of scene graphs come in small letters."""


NUMBER_WORDS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"
)  # fmt: skip
"""Numbers that captions say; larger ones nobody counts at a glance."""

_PLURAL_OF = {one: many for many, one in _lists.irregular_plurals.items()}


@lru_cache(maxsize=1 << 14)
def is_plural(name: str) -> bool:
    """Whether a noun phrase takes a plural verb: 'people', 'jeans', 'traffic lights'.

    Nouns that do not show their number (sheep, fish) count as singular.
    """
    word = name.rsplit(" ", 1)[-1]
    if word in _lists.irregular_plurals or word in _lists.plural_only:
        return True
    if word in _lists.singular_in_s or len(word) < 3:
        return False
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


@lru_cache(maxsize=1 << 14)
def singular(name: str) -> str:
    """The singular of a noun phrase, perhaps itself: 'wine glasses' -> 'wine glass'.

    Of two names with the same singular, one is the other's plural.
    """
    head, space, word = name.rpartition(" ")
    return f"{head}{space}{_singular_word(word)}"


@lru_cache(maxsize=1 << 14)
def plural(name: str) -> str:
    """The plural of a noun phrase in the singular: 'wine glass' -> 'wine glasses'."""
    head, space, word = name.rpartition(" ")
    return f"{head}{space}{_plural_word(word)}"


def shows_number(name: str) -> bool:
    """Whether a noun tells one from many: not 'sheep', nor 'jeans'."""
    word = name.rsplit(" ", 1)[-1]
    return word not in _lists.unchanged and word not in _lists.plural_only


@lru_cache(maxsize=1 << 14)
def is_one_of_a_sort(words: str) -> bool:
    """Whether a noun takes an article because a word before it says which sort: 'a blue sky'."""
    return " " in words and words.rsplit(" ", 1)[-1] in _lists.one_of_a_sort


@lru_cache(maxsize=1 << 14)
def is_countable(name: str) -> bool:
    """Whether a name in the singular takes an article: not 'water' or 'grass'."""
    return name not in _lists.uncountable and name.rsplit(" ", 1)[-1] not in _lists.uncountable


def _plural_word(word: str) -> str:
    if not shows_number(word):
        return word
    if word in _PLURAL_OF:
        return _PLURAL_OF[word]
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith(("tato", "mato", "mango")):
        return word + "es"
    return word + "s"


def _singular_word(word: str) -> str:
    if word in _lists.irregular_plurals:
        return _lists.irregular_plurals[word]
    if word == "glasses":
        return "glass"
    if word in _lists.plural_only or not is_plural(word):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ouses", "auses", "fuses")):
        return word[:-1]
    if word.endswith(("sses", "uses", "ches", "shes", "xes", "zzes", "oes")):
        return word[:-2]
    return word[:-1]
