"""Words whose exchange may leave a caption true: symmetric relations and synonyms.

Relations come from predicates.json ('symmetric' there), everything else from symmetric.json. An
ambiguous word is listed in the sense that permits fewer captions.
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
    """Actions that two people or animals can do to each other."""
    symmetric_too: frozenset[str]
    """Symmetric predicates beyond those of predicates.json."""
    object_or_place: dict[str, frozenset[str]]
    """Verb -> prepositions whose place may be exchanged with the object: one rides a wave on a
    surfboard, or a surfboard on a wave."""
    on_or_in: frozenset[str]
    """Prepositions that are interchangeable if one of two things is the ground."""
    joining: frozenset[str]
    places_of_several_words: tuple[str, ...]
    quantities: tuple[str, ...]
    """Words in the place of an article: 'lots of'."""
    fixed: tuple[str, ...]
    """Words that never change and belong to no phrase."""
    compounds: tuple[str, ...]
    """Nouns in which the tagger may see an adjective."""
    measure_nouns: frozenset[str]
    """'a cup of tea' is one phrase, about tea."""
    never_swapped_nouns: frozenset[str]
    """Nouns that are abstract or about the image itself."""
    wide_nouns: frozenset[str]
    """Hypernyms: 'animal', 'furniture'."""
    sides: frozenset[str]
    """Sides of things; not swapped either."""
    never_swapped_adjectives: frozenset[str]
    never_swapped_adverbs: frozenset[str]
    never_swapped_verbs: frozenset[str]
    """Verbs with little meaning of their own, or with a special complement."""
    alike_verbs: tuple[frozenset[str], ...]
    """Sets of verbs of which two may describe one scene."""
    alike_adjectives: tuple[frozenset[str], ...]
    light_or_dark: frozenset[str]
    people_endings: tuple[str, ...]
    not_people: frozenset[str]
    """Things whose names have such an ending."""


LISTS = read_lists("symmetric.json", _Lists)

COMPOUNDS = frozenset(LISTS.compounds).union(
    name for names in GROUPS.values() for name in names if " " in name
)
"""Nouns with several words: 'traffic light'."""


@lru_cache(maxsize=1 << 14)
def is_mutual(predicate: str, both_may_act: bool) -> bool:
    """Whether a predicate may hold from o to s if it holds from s to o.

    Args:
        predicate: 'walking with', 'next to', 'holding'.
        both_may_act: Whether both ends may be people or animals.
    """
    if implied(predicate) & LISTS.mutual_between_animals_only:
        return both_may_act
    return predicate in LISTS.symmetric_too or may_be_mutual(predicate)


@lru_cache(maxsize=1 << 14)
def may_act(noun: str) -> bool:
    """Whether a noun may mean people or animals: 'surfer', 'dogs'; not 'computer'."""
    word = singular(noun.rsplit(" ", 1)[-1])
    if is_animate(noun):
        return True
    known_thing = word in LISTS.not_people or any(
        is_a(noun, group) for group in GROUPS if group not in ("people", "animals", "groups")
    )
    return not known_thing and word.endswith(LISTS.people_endings)


@lru_cache(maxsize=1 << 16)
def same_thing(noun: str, other: str) -> bool:
    """Whether two nouns of one caption may mean the same object: 'man' and 'person', 'dog', 'dogs'.

    Stricter than ``may_be_the_same``: captions distinguish a fork from a knife and a couch from a
    chair, which annotators of graphs may confuse.
    """
    if singular(noun) == singular(other):
        return True
    wide = {singular(noun), singular(other)} & LISTS.wide_nouns
    return may_be_the_same(noun, other) and bool(wide or is_animate(noun) or is_animate(other))


@lru_cache(maxsize=1 << 14)
def verbs_alike(lemma: str, other: str) -> bool:
    """Whether two verbs may describe one scene: 'sit' and 'rest'."""
    return lemma == other or any(lemma in row and other in row for row in LISTS.alike_verbs)


@lru_cache(maxsize=1 << 14)
def adjectives_alike(adjective: str, other: str) -> bool:
    """Whether two adjectives may describe one object: 'big' and 'large'."""
    if adjective == other or set(adjective.split()) & set(other.split()):
        return True
    if any(adjective in row and other in row for row in LISTS.alike_adjectives):
        return True
    return any(
        adjective in cell and other in cell for cls in classes_of(adjective) for cell in cls.cells
    )


@lru_cache(maxsize=1 << 14)
def ing_forms(lemma: str) -> tuple[str, ...]:
    """Candidate spellings of the verb in -ing, for look-ups in the lists: 'ride' -> 'riding'."""
    stem = lemma[:-1] if lemma.endswith("e") else lemma
    return f"{stem}ing", f"{lemma}ing", f"{lemma}{lemma[-1:]}ing"
