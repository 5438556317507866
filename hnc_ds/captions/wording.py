"""Claims in English: the only place that knows how a caption is put.

Sentences are built from claims alone, so that a true caption and the false ones beside it are
worded alike. Nouns and their number are in nouns.py.
"""

from functools import lru_cache

from hnc_ds.captions.attribute_classes import RANK, classes_of
from hnc_ds.captions.nouns import CAPITALS, is_plural
from hnc_ds.captions.truth import HasAttribute, Phrase, Related

_BEFORE_NOUN = {
    "wood": "wooden",
    "wool": "woolen",
    "long sleeved": "long-sleeved",
    "short sleeved": "short-sleeved",
}
_AFTER_VERB = {"long sleeved": "long-sleeved", "short sleeved": "short-sleeved"}

_AN = ("hour", "honest", "heir", "honor", "x-", "xbox", "suv", "mri", "lcd")
_A = ("uni", "use", "usu", "ute", "uto", "eu", "ewe", "one", "once", "u-", "ufo", "usb")
_AN_ALL_THE_SAME = ("unin", "unim", "unid")  # uninvited, unimportant, unidentified


@lru_cache(maxsize=1 << 14)
def indefinite(words: str) -> str:
    """With 'a' or 'an' by the sound; without, if plural: 'an hour', 'a uniform', 'jeans'."""
    if is_plural(words):
        return words
    lower = words.lower()
    if lower.startswith(_AN) or lower.startswith(_AN_ALL_THE_SAME):
        return f"an {words}"
    vowel = lower.startswith(tuple("aeiou")) and not lower.startswith(_A)
    return f"{'an' if vowel else 'a'} {words}"


@lru_cache(maxsize=1 << 16)
def noun_phrase(phrase: Phrase) -> str:
    """The phrase without its article: 'large red star', 'wooden table'."""
    adjectives = [_BEFORE_NOUN.get(attribute, attribute) for attribute in phrase.attributes]
    return " ".join([*adjectives, *(CAPITALS.get(w, w) for w in phrase.name.split(" "))])


@lru_cache(maxsize=1 << 14)
def predicative(attribute: str) -> str:
    """What follows 'is': 'red', 'made of wood'."""
    if any(cls.made_of for cls in classes_of(attribute)):
        return f"made of {attribute}"
    return _AFTER_VERB.get(attribute, attribute)


def before_noun(attribute: str) -> str:
    """The form that stands before a noun: 'wooden'."""
    return _BEFORE_NOUN.get(attribute, attribute)


@lru_cache(maxsize=1 << 14)
def rank(attribute: str) -> int:
    """Place of an adjective before its noun, from the front: 'large' before 'red'."""
    return min((RANK[cls.name] for cls in classes_of(attribute)), default=0)


def attribute_sentence(claim: HasAttribute) -> str:
    """'The star is red.'"""
    verb = "are" if is_plural(claim.subject.name) else "is"
    return f"The {noun_phrase(claim.subject)} {verb} {predicative(claim.attribute)}."


def relation_sentence(claim: Related) -> str:
    """'The red star is above the blue ring.'"""
    verb = "are" if is_plural(claim.subject.name) else "is"
    return (
        f"The {noun_phrase(claim.subject)} {verb} {claim.predicate} "
        f"the {noun_phrase(claim.object)}."
    )
