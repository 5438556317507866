"""What an exchange of words leaves true, or may: relations that hold in both directions, synonyms.

Relations come from predicates.json ('symmetric' there), whatever else from symmetric.json. Where a
word can be understood in two ways, it is taken in the way that lets fewer captions be written.
"""

from functools import lru_cache

import msgspec

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.kinds import GROUPS, is_a, is_animate, may_be_the_same
from hnc_ds.captions.language.nouns import singular
from hnc_ds.captions.language.predicates import implied, may_be_mutual
from hnc_ds.captions.language.vocabulary import read_lists


class _Lists(msgspec.Struct, frozen=True):
    """symmetric.json."""

    mutual_between_animals_only: frozenset[str]
    """Both can do it to each other, if both are people or animals."""
    symmetric_too: frozenset[str]
    """Besides those of predicates.json."""
    object_or_place: dict[str, frozenset[str]]
    """Verbs whose object and a place with such a preposition may be told the other way round: one
    rides a wave on a surfboard, and a surfboard on a wave."""
    on_or_in: frozenset[str]
    """Of which one is as good as another where one of two things is the ground of all."""
    joining: frozenset[str]
    places_of_several_words: tuple[str, ...]
    quantities: tuple[str, ...]
    """Stand where an article does: 'lots of'."""
    fixed: tuple[str, ...]
    """Left as they are, and no part of a phrase."""
    compounds: tuple[str, ...]
    """One noun, though the tagger may see an adjective in it."""
    measure_nouns: frozenset[str]
    """'a cup of tea' is one phrase, about tea."""
    never_swapped_nouns: frozenset[str]
    """Abstract, or about the picture itself."""
    wide_nouns: frozenset[str]
    """Stand for many others: 'animal', 'furniture'."""
    sides: frozenset[str]
    """Of things; not swapped either."""
    never_swapped_adjectives: frozenset[str]
    never_swapped_adverbs: frozenset[str]
    never_swapped_verbs: frozenset[str]
    """Mean little without their object, or need one thing more than others."""
    alike_verbs: tuple[frozenset[str], ...]
    """Of which two may be said of one scene."""
    alike_adjectives: tuple[frozenset[str], ...]
    light_or_dark: frozenset[str]
    people_endings: tuple[str, ...]
    not_people: frozenset[str]
    """Things whose names end like that."""


LISTS = read_lists("symmetric.json", _Lists)

COMPOUNDS = frozenset(LISTS.compounds).union(
    name for names in GROUPS.values() for name in names if " " in name
)
"""Nouns of several words: 'traffic light'."""


@lru_cache(maxsize=1 << 14)
def is_mutual(predicate: str, both_may_act: bool) -> bool:
    """Whether s -predicate-> o may hold from o to s as well.

    Args:
        predicate: 'walking with', 'next to', 'holding'.
        both_may_act: Whether both ends may be people or animals.
    """
    said = implied(predicate)
    if said & LISTS.mutual_between_animals_only:
        return both_may_act
    return predicate in LISTS.symmetric_too or may_be_mutual(predicate)


@lru_cache(maxsize=1 << 14)
def may_act(noun: str) -> bool:
    """Whether a noun may stand for people or animals: 'surfer', 'dogs'; not 'computer'."""
    word = singular(noun.rsplit(" ", 1)[-1])
    if is_animate(noun):
        return True
    known_thing = word in LISTS.not_people or any(
        is_a(noun, group) for group in GROUPS if group not in ("people", "animals", "groups")
    )
    return not known_thing and word.endswith(LISTS.people_endings)


@lru_cache(maxsize=1 << 16)
def same_thing(noun: str, other: str) -> bool:
    """Whether two nouns of one caption may speak of one thing: 'man' and 'person', 'dog', 'dogs'.

    A caption tells a fork from a knife and a couch from a chair, though a graph may confuse them.
    """
    if singular(noun) == singular(other):
        return True
    wide = {singular(noun), singular(other)} & LISTS.wide_nouns
    return may_be_the_same(noun, other) and bool(wide or is_animate(noun) or is_animate(other))


@lru_cache(maxsize=1 << 14)
def verbs_alike(lemma: str, other: str) -> bool:
    """Whether two verbs may be said of one scene: 'sit' and 'rest'."""
    return lemma == other or any(lemma in row and other in row for row in LISTS.alike_verbs)


@lru_cache(maxsize=1 << 14)
def adjectives_alike(adjective: str, other: str) -> bool:
    """Whether two adjectives may be said of one thing of one sort: 'big' and 'large'."""
    if adjective == other or set(adjective.split()) & set(other.split()):
        return True
    if any(adjective in row and other in row for row in LISTS.alike_adjectives):
        return True
    return any(
        adjective in cell and other in cell for cls in classes_of(adjective) for cell in cls.cells
    )


@lru_cache(maxsize=1 << 14)
def ing_forms(lemma: str) -> tuple[str, ...]:
    """How the verb may be spelt in -ing, to find it in the lists: 'ride' -> 'riding'."""
    stem = lemma[:-1] if lemma.endswith("e") else lemma
    return f"{stem}ing", f"{lemma}ing", f"{lemma}{lemma[-1:]}ing"
