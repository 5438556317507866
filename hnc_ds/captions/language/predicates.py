"""Facts about predicates: what follows from an edge, what it excludes, and of what it is said.

The lists are this project's own (vocabulary/predicates.json). A predicate is either a place ("on"),
a verb of place and a place ("sitting on", which entails "on"), or something else ("wearing").
An edge is evidence in both directions: "the cup is on the table" says something about the table
and the cup, too. Every function here is pure and cached by its words.
"""

from functools import lru_cache

import msgspec

from hnc_ds.captions.language.kinds import is_a, is_animate
from hnc_ds.captions.language.vocabulary import read_lists


class _Usage(msgspec.Struct, frozen=True):
    """Of what some places or predicates are said, by groups of kinds.json; empty: of anything."""

    predicates: frozenset[str]
    subjects: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    not_subjects: tuple[str, ...] = ()
    not_objects: tuple[str, ...] = ()


class _Lists(msgspec.Struct, frozen=True):
    """predicates.json."""

    synonyms: tuple[tuple[str, ...], ...]
    entails: dict[str, tuple[str, ...]]
    verbs_of_place: frozenset[str]
    """'VERB PLACE' entails PLACE; these verbs are said of things, too."""
    inverse: tuple[tuple[str, str], ...]
    """s -a-> o is the same fact as o -b-> s."""
    asymmetric: frozenset[str]
    """Of s -p-> o and o -p-> s only one can hold."""
    symmetric: frozenset[str]
    """Hold in both directions, or may well: never swapped."""
    exclusive: tuple[tuple[str, ...], ...]
    """Of two predicates of a row only one can hold between s and o."""
    postures: tuple[frozenset[str], ...]
    """First words that exclude each other, of people and animals."""
    touch: frozenset[str]
    """Need contact."""
    places_said: frozenset[str]
    """What may follow 'is' and, after a verb of place, 'is standing'."""
    paths_said: frozenset[str]
    """What may follow a verb of place only."""
    never_said: frozenset[str]
    usage: tuple[_Usage, ...]


_lists = read_lists("predicates.json", _Lists)

_INVERSES: dict[str, frozenset[str]] = {
    name: frozenset(b for a, b in _lists.inverse if a == name)
    | frozenset(a for a, b in _lists.inverse if b == name)
    for pair in _lists.inverse
    for name in pair
}
# 'filled with' and 'wearing' say more than the other side of their pair does.
_ONE_WAY = {"in": "filled with"}
_EXCLUSIVE = frozenset(
    (a, b) for row in _lists.exclusive for a in row for b in row if a != b
)  # both orders


@lru_cache(maxsize=1)
def _known() -> tuple[str, ...]:
    """Every predicate that some list of predicates.json names."""
    rows = [*_lists.synonyms, *_lists.inverse, *_lists.exclusive, *_lists.entails.values()]
    names = {name for row in rows for name in row} | {*_lists.entails, *_lists.places_said}
    names |= _lists.asymmetric | _lists.symmetric | _lists.touch
    verbs = "sitting", "standing", "lying", "walking", "parked", "hanging", "growing"
    places = "on", "in", "under", "in front of", "behind", "next to", "near"
    names |= {f"{verb} {place}" for verb in verbs for place in places}
    return tuple(sorted(name for name in names if can_be_said(name)))


@lru_cache(maxsize=1 << 14)
def place_of(predicate: str) -> str:
    """The place in 'VERB PLACE' ('sitting on' -> 'on'), else the predicate itself."""
    verb, _, place = predicate.partition(" ")
    return place if place and verb in _lists.verbs_of_place else predicate


@lru_cache(maxsize=1 << 14)
def implied(predicate: str) -> frozenset[str]:
    """Everything that s -predicate-> o says in the same direction, itself included."""
    found: set[str] = set()
    pending = [predicate]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        pending += [place_of(name), *_lists.entails.get(name, ())]
        for row in _lists.synonyms:
            if name in row:
                pending += row
    return frozenset(found)


@lru_cache(maxsize=1 << 14)
def implied_backwards(predicate: str) -> frozenset[str]:
    """What s -predicate-> o says of o and s: 'under' -> 'above'."""
    return frozenset(
        other
        for name in implied(predicate)
        for inverse in _INVERSES.get(name, ())
        if _ONE_WAY.get(name) != inverse
        for other in implied(inverse)
    )


@lru_cache(maxsize=1 << 14)
def is_order(predicate: str) -> bool:
    """Whether it puts things in one line: a before b and b before c make a before c."""
    return predicate in ("to the left of", "to the right of", "above", "below")


@lru_cache(maxsize=1 << 14)
def inverse_said(predicate: str) -> tuple[str, ...]:
    """Predicates that say the same from the other end: 'above' -> 'below'."""
    place = place_of(predicate)
    return tuple(sorted(_INVERSES.get(predicate, ()))) if place == predicate else ()


@lru_cache(maxsize=1 << 16)
def excludes(known: str, claim: str, animate: bool) -> bool:
    """Whether s -known-> o leaves no room for s -claim-> o.

    Args:
        known: A predicate that holds.
        claim: Another one.
        animate: Whether the subject is a person or an animal; only those have one posture.
    """
    if animate and _postures_differ(known, claim):
        return True
    return any((a, b) in _EXCLUSIVE for a in implied(known) for b in implied(claim))


@lru_cache(maxsize=1 << 16)
def excludes_backwards(known: str, claim: str) -> bool:
    """Whether s -known-> o leaves no room for o -claim-> s."""
    if implied(known) & implied(claim) & _lists.asymmetric:
        return True
    known_back, claim_back = implied_backwards(known), implied_backwards(claim)
    return any((a, b) in _EXCLUSIVE for a in known_back for b in implied(claim)) or any(
        (a, b) in _EXCLUSIVE for a in implied(known) for b in claim_back
    )


def _postures_differ(known: str, claim: str) -> bool:
    a, b = (
        next((i for i, verbs in enumerate(_lists.postures) if p.split(" ", 1)[0] in verbs), None)
        for p in (known, claim)
    )
    return a is not None and b is not None and a != b


@lru_cache(maxsize=1 << 14)
def needs_contact(predicate: str) -> bool:
    """Whether it cannot hold between things that lie apart."""
    return not implied(predicate).isdisjoint(_lists.touch)


@lru_cache(maxsize=1 << 14)
def may_be_mutual(predicate: str) -> bool:
    """Whether it holds in both directions or may do so; such predicates are never swapped."""
    return not implied(predicate).isdisjoint(_lists.symmetric)


@lru_cache(maxsize=1 << 14)
def is_action(predicate: str) -> bool:
    """Whether only people and animals do it: 'riding', but not 'parked on' or 'standing on'."""
    verb, _, place = predicate.partition(" ")
    return verb.endswith("ing") and not (place and verb in _lists.verbs_of_place)


@lru_cache(maxsize=1 << 14)
def has_verb(predicate: str) -> bool:
    """Whether it tells more than a place: 'standing on', 'wearing'."""
    return is_action(predicate) or place_of(predicate) != predicate


@lru_cache(maxsize=1 << 14)
def can_be_said(predicate: str) -> bool:
    """Whether 'The S is PREDICATE the O.' is English."""
    if predicate in _lists.never_said:
        return False
    if predicate in _lists.places_said or is_action(predicate):
        return True
    place = place_of(predicate)
    return place != predicate and place in _lists.places_said | _lists.paths_said


@lru_cache(maxsize=1 << 15)
def is_said_of(predicate: str, subject: str, object_: str) -> bool:
    """Whether people would say it of things with these names: not 'the sky is near the nose'."""
    return _is_said_of(predicate, subject, object_)


def _is_said_of(predicate: str, subject: str, object_: str) -> bool:
    if not can_be_said(predicate) or (is_action(predicate) and not is_animate(subject)):
        return False
    for usage in _lists.usage:
        if predicate in usage.predicates or place_of(predicate) in usage.predicates:
            if usage.subjects and not any(is_a(subject, g) for g in usage.subjects):
                return False
            if usage.objects and not any(is_a(object_, g) for g in usage.objects):
                return False
            if any(is_a(subject, g) for g in usage.not_subjects):
                return False
            if any(is_a(object_, g) for g in usage.not_objects):
                return False
    return True


@lru_cache(maxsize=1 << 14)
def said_of(subject: str, object_: str) -> tuple[str, ...]:
    """All known predicates that people would say of things with these names, sorted."""
    return tuple([p for p in _known() if _is_said_of(p, subject, object_)])
