"""Claims as English sentences; the only module that words captions.

Sentences are built from claims alone, so true and false captions have the same wording. The number
of nouns is in nouns.py.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from hnc_ds.captions.language.attribute_classes import RANK, classes_of
from hnc_ds.captions.language.nouns import (
    CAPITALS,
    NUMBER_WORDS,
    is_countable,
    is_one_of_a_sort,
    is_plural,
    plural,
    singular,
)
from hnc_ds.captions.truth.claims import (
    Both,
    Claim,
    Compared,
    Counted,
    Either,
    HasAttribute,
    Not,
    Phrase,
    Related,
)

_BEFORE_NOUN = {
    "wood": "wooden",
    "wool": "woolen",
    "long sleeved": "long-sleeved",
    "short sleeved": "short-sleeved",
}
_AFTER_VERB = {"long sleeved": "long-sleeved", "short sleeved": "short-sleeved"}

_AN = re.compile(
    r"hour|honest|heir|hono|hors d|8|1[18]\b|[fhlmnrsx]-|xbox"
    r"|(suv|mri|lcd|led|mp3|hd|hdtv|hp|rv|nfl|nba|nhl|mlb|ny|nyc|fbi|fm|lg|sd|rc|m&m|x)s?\b"
    r"|uni(?=n|m|d|r)"  # uninvited, unimportant, unidentified, unironed
)
_A = re.compile(
    r"uni|us[aeu]|ut[eio]|uri|uk[ru]|ubi|eu|ewe|one|once|ouija|u-"
    r"|(us|uk|ups|usps|ufo|usb|uv)s?\b"
)
"""Beginnings of words whose article follows their sound, not their letter; _AN takes precedence."""


@lru_cache(maxsize=1 << 14)
def indefinite(words: str) -> str:
    """The words with 'a' or 'an', or with no article if plural: 'an hour', 'a uniform', 'jeans'."""
    if is_plural(words) or not (is_countable(words) or is_one_of_a_sort(words)):
        return words
    lower = words.lower()
    vowel = lower.startswith(tuple("aeiou")) and _A.match(lower) is None
    return f"{'an' if vowel or _AN.match(lower) else 'a'} {words}"


@lru_cache(maxsize=1 << 16)
def noun_phrase(phrase: Phrase) -> str:
    """The phrase without its article: 'large red star', 'wooden table'."""
    adjectives = [before_noun(attribute) for attribute in phrase.attributes]
    return " ".join([*adjectives, spelled(phrase.name)])


@lru_cache(maxsize=1 << 16)
def with_article(phrase: Phrase) -> str:
    """'the large red star', 'a star', 'some stars', 'some water'."""
    words = noun_phrase(phrase)
    if phrase.definite:
        return f"the {words}"
    one = indefinite(words)
    return f"some {words}" if one == words else one


def _capitalized(words: str) -> str:
    return words[0].upper() + words[1:]


@lru_cache(maxsize=1 << 14)
def spelled(name: str) -> str:
    """A name with its English capitals: 'tv stand' -> 'TV stand', 'tvs' -> 'TVs'."""
    return CAPITALS.get(name) or " ".join([_capital(word) for word in name.split(" ")])


def _capital(word: str) -> str:
    one = singular(word)
    if word not in CAPITALS and one in CAPITALS and word.startswith(one):
        return CAPITALS[one] + word[len(one) :]
    return CAPITALS.get(word, word)


@lru_cache(maxsize=1 << 14)
def predicative(attribute: str) -> str:
    """The form after 'is': 'red', 'made of wood'."""
    if any(cls.made_of for cls in classes_of(attribute)):
        return f"made of {attribute}"
    return _AFTER_VERB.get(attribute, attribute)


def before_noun(attribute: str) -> str:
    """The form before a noun: 'wooden'."""
    return _BEFORE_NOUN.get(attribute, attribute)


@lru_cache(maxsize=1 << 14)
def _rank(attribute: str) -> int:
    return min((RANK[cls.name] for cls in classes_of(attribute)), default=0)


def in_order(attributes: Iterable[str]) -> tuple[str, ...]:
    """Adjectives in the order in which they stand before a noun: 'large' before 'red'."""
    return tuple(sorted(attributes, key=lambda a: (_rank(a), a)))


@lru_cache(maxsize=1 << 12)  # one true caption has many false ones
def sentence(claim: Claim) -> str:
    """A claim as a sentence.

    In "both" and "either" an attribute stands before its noun ('There is both a red star and ...'),
    unless both parts are about the same object: 'The star is both red and large.'
    """
    match claim:
        case Related(subject, predicate, object_):
            start = _capitalized(with_article(subject))
            return f"{start} {_is(subject.name)} {predicate} {with_article(object_)}."
        case HasAttribute(subject, attribute):
            start = _capitalized(with_article(subject))
            return f"{start} {_is(subject.name)} {predicative(attribute)}."
        case Counted(name, number, attributes):
            return f"There {counted(name, number, attributes)}."
        case Compared(name, comparator, other):
            joint = "as" if comparator == "as many" else "than"
            return f"There are {comparator} {_many(name)} {joint} {_many(other)}."
        case Not(part):
            return _existence(part, "no")
        case Both(first, second, True):
            return f"{_capitalized(_clause(first))} and {_clause(second)}."
        case Either(first, second, True):
            return f"Either {_clause(first)} or {_clause(second)}."
        case Both(first, second):
            return _pair_sentence(first, "both", second, "and")
        case Either(first, second):
            return _pair_sentence(first, "either", second, "or")


def existence_sentence(claim: HasAttribute | Related) -> str:
    """'There is at least one star that is above the ring.'"""
    return _existence(claim, existence_words(claim.subject.name))


def existence_words(name: str) -> str:
    """'at least one' dog, 'some' dogs."""
    return "some" if is_plural(name) else "at least one"


@lru_cache(maxsize=1 << 14)
def counted(name: str, number: int, attributes: tuple[str, ...] = ()) -> str:
    """'is one dog', 'are two black dogs'. ``name`` is in the singular, ``number`` 1 to 10."""
    start = "is one" if number == 1 else f"are {NUMBER_WORDS[number]}"
    noun = spelled(name) if number == 1 else _many(name)
    return " ".join([start, *map(before_noun, attributes), noun])


def _existence(claim: HasAttribute | Related, quantifier: str) -> str:
    subject, verb = claim.subject, _is(claim.subject.name)
    return f"There {verb} {quantifier} {noun_phrase(subject)} that {verb} {_rest(claim)}."


def _rest(claim: HasAttribute | Related) -> str:
    """The predicate of the sentence without its verb."""
    if isinstance(claim, HasAttribute):
        return predicative(claim.attribute)
    return f"{claim.predicate} {with_article(claim.object)}"


def _clause(claim: HasAttribute | Related) -> str:
    return f"{with_article(claim.subject)} {_is(claim.subject.name)} {_rest(claim)}"


def _pair_sentence(
    first: HasAttribute | Related, word: str, second: HasAttribute | Related, joint: str
) -> str:
    if first.subject == second.subject:
        return _one_subject(first, word, second, joint)
    parts = f"{_thing(first)} {joint} {_thing(second)}"
    return f"There {_is(first.subject.name)} {word} {parts}."


def _one_subject(
    first: HasAttribute | Related, word: str, second: HasAttribute | Related, joint: str
) -> str:
    start = f"{_capitalized(with_article(first.subject))} {_is(first.subject.name)}"
    match word, first, second:
        case "either", Related(_, predicate, one), Related(_, same, other) if predicate == same:
            return f"{start} {predicate} either {with_article(one)} or {with_article(other)}."
    return f"{start} {word} {_rest(first)} {joint} {_rest(second)}."


def _thing(claim: HasAttribute | Related) -> str:
    """'a red star', 'a star above the ring'."""
    if isinstance(claim, Related):
        return f"{indefinite(noun_phrase(claim.subject))} {_rest(claim)}"
    subject = claim.subject
    attributes = in_order((*subject.attributes, claim.attribute))
    return indefinite(noun_phrase(Phrase(subject.name, attributes)))


@lru_cache(maxsize=1 << 14)
def _is(name: str) -> str:
    return "are" if is_plural(name) else "is"


@lru_cache(maxsize=1 << 14)
def _many(name: str) -> str:
    return spelled(plural(name))
