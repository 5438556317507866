"""The number of English nouns, by rule and by lists of exceptions (vocabulary/nouns.json).

The names of scene graphs are common nouns, some of several words ("traffic lights"); only the
last word carries the number. Every function is pure and cached: the same few thousand names
come up again and again.
"""

from functools import lru_cache
from importlib.resources import files

import msgspec


class _Lists(msgspec.Struct, frozen=True):
    """nouns.json."""

    irregular_plurals: dict[str, str]
    """Last words: plural -> singular."""
    plural_only: frozenset[str]
    """Plural in form and agreement, without a singular that names one whole thing: 'jeans'."""
    singular_in_s: frozenset[str]
    capitals: tuple[str, ...]
    """Words that are not written in small letters."""


_lists = msgspec.json.decode(
    files("hnc_ds.captions.vocabulary").joinpath("nouns.json").read_bytes(), type=_Lists
)

CAPITALS = {word.lower(): word for word in _lists.capitals}
"""'tv' -> 'TV': names of scene graphs come in small letters."""


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
