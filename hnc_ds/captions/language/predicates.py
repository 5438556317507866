"""Semantics of predicates: entailment, exclusion, and the names that they apply to.

The lists are this project's own (vocabulary/predicates.json). A predicate is a place ("on"), a verb
and a place ("sitting on", which entails "on"), or anything else ("wearing"). An edge is evidence in
both directions: "cup on table" also excludes "table on cup". Functions are cached.
"""

from functools import cache, lru_cache
from typing import Literal

import msgspec

from hnc_ds.captions.language.kinds import groups_of, is_several
from hnc_ds.captions.language.vocabulary import read_lists


class _Usage(msgspec.Struct, frozen=True):
    """Groups of kinds.json to which predicates apply; an empty set stands for any name."""

    predicates: frozenset[str]
    subjects: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    not_subjects: frozenset[str] = frozenset()
    not_objects: frozenset[str] = frozenset()

    def fits(self, subject: frozenset[str], object_: frozenset[str]) -> bool:
        """Whether it applies to a subject and an object of these groups."""
        return (
            (not self.subjects or not self.subjects.isdisjoint(subject))
            and (not self.objects or not self.objects.isdisjoint(object_))
            and self.not_subjects.isdisjoint(subject)
            and self.not_objects.isdisjoint(object_)
        )


class _OneBearer(msgspec.Struct, frozen=True):
    """Actions on an object that only one being performs at a time."""

    done: frozenset[str]
    refutes: frozenset[str]
    """Predicates that are false for every other subject."""
    objects: frozenset[str]


class _OneObject(msgspec.Struct, frozen=True):
    """Actions that a being performs on one object of some groups at a time."""

    predicates: frozenset[str]
    objects: frozenset[str]


class _Lists(msgspec.Struct, frozen=True):
    """predicates.json."""

    synonyms: tuple[tuple[str, ...], ...]
    entails: dict[str, tuple[str, ...]]
    verbs_of_place: frozenset[str]
    """Verbs for which 'VERB PLACE' entails PLACE; their subjects may also be things."""
    inverse: tuple[tuple[str, str], ...]
    """Pairs (a, b) for which s -a-> o is the same fact as o -b-> s."""
    asymmetric: frozenset[str]
    """Predicates p for which s -p-> o excludes o -p-> s."""
    symmetric: frozenset[str]
    """Predicates that hold or may hold in both directions; never swapped."""
    exclusive: tuple[tuple[str, ...], ...]
    """Rows of predicates of which only one can hold between s and o."""
    postures: dict[str, frozenset[str]]
    """First word -> first words that it excludes for people and animals, whatever the object."""
    loose_postures_of_animals: frozenset[str]
    """'a/b': exceptions for animals: a lying cat is often called sitting."""
    attributes_of_verbs: dict[str, str]
    """Attribute -> first word with the same meaning, where the two differ."""
    stances: dict[str, frozenset[str]]
    """As ``postures``, for any subject."""
    one_bearer: tuple[_OneBearer, ...]
    one_object: tuple[_OneObject, ...]
    touch: frozenset[str]
    """Predicates that need contact."""
    upon: frozenset[str]
    """Predicates whose subject is not below the object's box. 'on' is not one: lamps hang."""
    places_said: frozenset[str]
    """Places that may follow 'is' as well as 'is standing'."""
    paths_said: frozenset[str]
    """Places that may only follow a verb."""
    said_of_things: frozenset[str]
    """Actions whose subject may be a thing: snow covers the ground."""
    particles: frozenset[str]
    """Words that may follow the verb of an action; with others, as in 'wearing blue', it is not
    said."""
    never_said: frozenset[str]
    usage: tuple[_Usage, ...]
    """Names to which predicates apply; predicates in no row apply to all names."""
    offered: tuple[_Usage, ...]
    """Names for which predicates are often true, so that they may replace others."""


_lists = read_lists("predicates.json", _Lists)

_OFFERED = frozenset(p for row in _lists.offered for p in row.predicates)

Body = Literal["thing", "animal", "person"]
"""Kinds of subjects that differ in their postures."""

_VERBS = frozenset(
    verb
    for table in (_lists.postures, _lists.stances)
    for known, others in table.items()
    for verb in (known, *others)
)

_INVERSES: dict[str, frozenset[str]] = {
    name: frozenset(b for a, b in _lists.inverse if a == name)
    | frozenset(a for a, b in _lists.inverse if b == name)
    for pair in _lists.inverse
    for name in pair
}
_SAID_TOO = frozenset(("above", "below", "holding", "in", "on"))
"""Entailed predicates worth a caption; others are too weak ('near') or synonyms."""

# The inverse of 'filled with' is 'in', but not the reverse: 'filled with' is more specific.
_ONE_WAY = {"in": "filled with"}
_EXCLUSIVE = frozenset(
    (a, b) for row in _lists.exclusive for a in row for b in row if a != b
)  # both orders


@lru_cache(maxsize=1)
def known() -> tuple[str, ...]:
    """All predicates of predicates.json that can be worded."""
    rows = [*_lists.synonyms, *_lists.inverse, *_lists.exclusive, *_lists.entails.values()]
    names = {name for row in rows for name in row} | {*_lists.entails, *_lists.places_said}
    names |= _lists.asymmetric | _lists.symmetric | _lists.touch
    verbs = "sitting", "standing", "lying", "walking", "parked", "hanging", "growing"
    places = "on", "in", "under", "in front of", "behind", "next to", "near"
    names |= {f"{verb} {place}" for verb in verbs for place in places}
    names.update(p for row in _lists.offered for p in row.predicates)
    return tuple(sorted(name for name in names if can_be_said(name)))


@lru_cache(maxsize=1 << 14)
def place_of(predicate: str) -> str:
    """The place in 'VERB PLACE' ('sitting on' -> 'on'), else the predicate itself."""
    verb, _, place = predicate.partition(" ")
    return place if place and verb in _lists.verbs_of_place else predicate


@lru_cache(maxsize=1 << 14)
def implied(predicate: str) -> frozenset[str]:
    """All predicates that s -predicate-> o implies from s to o, including itself."""
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
    """All predicates that s -predicate-> o implies from o to s: 'under' -> 'above'."""
    return frozenset(
        other
        for name in implied(predicate)
        for inverse in _INVERSES.get(name, ())
        if _ONE_WAY.get(name) != inverse
        for other in implied(inverse)
    )


@lru_cache(maxsize=1 << 14)
def is_order(predicate: str) -> bool:
    """Whether it is a linear order: a before b and b before c imply a before c."""
    return predicate in ("to the left of", "to the right of", "above", "below")


@lru_cache(maxsize=1 << 14)
def entailed(predicate: str) -> tuple[str, ...]:
    """Sorted predicates that it implies and that are worth a caption: 'sitting on' -> 'on'."""
    return tuple(sorted((implied(predicate) & _SAID_TOO) - {predicate}))


@lru_cache(maxsize=1 << 14)
def inverse_said(predicate: str) -> tuple[str, ...]:
    """Sorted inverse predicates: 'above' -> 'below'."""
    place = place_of(predicate)
    return tuple(sorted(_INVERSES.get(predicate, ()))) if place == predicate else ()


@lru_cache(maxsize=1 << 16)
def excludes(known: str, claim: str, body: Body) -> bool:
    """Whether s -known-> o excludes s -claim-> o.

    Args:
        known: A predicate that holds.
        claim: Another predicate.
        body: Kind of body of the subject.
    """
    return verbs_exclude(verb_of(known), verb_of(claim), body) or rows_exclude(known, claim)


@lru_cache(maxsize=1 << 16)
def rows_exclude(known: str, claim: str) -> bool:
    """Whether a row of ``exclusive`` holds both, or what they imply: 'on' and 'under'."""
    return any((a, b) in _EXCLUSIVE for a in implied(known) for b in implied(claim))


@lru_cache(maxsize=1 << 16)
def excludes_backwards(known: str, claim: str) -> bool:
    """Whether s -known-> o excludes o -claim-> s."""
    if implied(known) & implied(claim) & _lists.asymmetric:
        return True
    known_back, claim_back = implied_backwards(known), implied_backwards(claim)
    return any((a, b) in _EXCLUSIVE for a in known_back for b in implied(claim)) or any(
        (a, b) in _EXCLUSIVE for a in implied(known) for b in claim_back
    )


@lru_cache(maxsize=1 << 14)
def verb_of(predicate: str) -> str:
    """The posture or movement of the subject: 'sitting' of 'sitting on'; '' if there is none."""
    verb = predicate.partition(" ")[0]
    # Someone 'flying' a kite is on the ground.
    return verb if verb in _VERBS and predicate != "flying" else ""


@lru_cache(maxsize=1 << 14)
def verb_of_attribute(attribute: str) -> str:
    """The same for an attribute: 'sitting' of 'seated'."""
    verb = _lists.attributes_of_verbs.get(attribute, attribute)
    return verb if verb in _VERBS else ""


@lru_cache(maxsize=1 << 14)
def verbs_exclude(known: str, claim: str, body: Body) -> bool:
    """Whether two postures or movements of one body exclude each other."""
    pairs = (known, claim), (claim, known)
    if any(b in _lists.stances.get(a, ()) for a, b in pairs):
        return True
    if body == "thing" or not any(b in _lists.postures.get(a, ()) for a, b in pairs):
        return False
    loose = any(f"{a}/{b}" in _lists.loose_postures_of_animals for a, b in pairs)
    return body == "person" or not loose


@lru_cache(maxsize=1 << 14)
def denied_to_others(predicate: str, object_: str) -> frozenset[str]:
    """Predicates that are false for other subjects because someone performs an action on the
    object: a hat has one wearer."""
    if is_several(object_):
        return frozenset()
    groups, implies = groups_of(object_), implied(predicate)
    rows = (row for row in _lists.one_bearer if not row.objects.isdisjoint(groups))
    return frozenset(p for row in rows if not row.done.isdisjoint(implies) for p in row.refutes)


@lru_cache(maxsize=1 << 16)
def denied_elsewhere(predicate: str, object_: str, other: str) -> frozenset[str]:
    """Predicates that are false for another object because the subject performs an action on this
    one: a rider rides one horse."""
    if is_several(object_) or is_several(other):
        return frozenset()
    groups, others, implies = groups_of(object_), groups_of(other), implied(predicate)
    rows = (
        row
        for row in _lists.one_object
        if not row.objects.isdisjoint(groups) and not row.objects.isdisjoint(others)
    )
    return frozenset(
        p for row in rows if not row.predicates.isdisjoint(implies) for p in row.predicates
    )


@lru_cache(maxsize=1 << 14)
def is_upon(predicate: str) -> bool:
    """Whether the object carries the subject's weight."""
    return not implied(predicate).isdisjoint(_lists.upon)


@lru_cache(maxsize=1 << 14)
def needs_contact(predicate: str) -> bool:
    """Whether it cannot hold between objects that lie apart."""
    return not implied(predicate).isdisjoint(_lists.touch)


@lru_cache(maxsize=1 << 14)
def may_be_mutual(predicate: str) -> bool:
    """Whether it holds or may hold in both directions; such predicates are never swapped."""
    return not implied(predicate).isdisjoint(_lists.symmetric)


@lru_cache(maxsize=1 << 14)
def is_action(predicate: str) -> bool:
    """Whether it is an action, not a place: 'riding', but not 'parked on' or 'standing on'."""
    verb, _, place = predicate.partition(" ")
    return verb.endswith("ing") and not (place and verb in _lists.verbs_of_place)


@lru_cache(maxsize=1 << 14)
def has_verb(predicate: str) -> bool:
    """Whether it contains a verb: 'standing on', 'wearing'."""
    return is_action(predicate) or place_of(predicate) != predicate


@lru_cache(maxsize=1 << 14)
def can_be_said(predicate: str) -> bool:
    """Whether 'The S is PREDICATE the O.' is correct English."""
    if predicate in _lists.never_said:
        return False
    if predicate in _lists.places_said:
        return True
    if is_action(predicate):
        return _lists.particles.issuperset(predicate.split(" ")[1:])
    place = place_of(predicate)
    return place != predicate and place in _lists.places_said | _lists.paths_said


@lru_cache(maxsize=1 << 14)
def is_said_of(predicate: str, subject: str, object_: str) -> bool:
    """Whether it makes sense for these names: not 'the sky is near the nose'."""
    return _fits(predicate, groups_of(subject), groups_of(object_))


def _fits(predicate: str, subject: frozenset[str], object_: frozenset[str]) -> bool:
    if not can_be_said(predicate):
        return False
    of_beings = is_action(predicate) and predicate not in _lists.said_of_things
    if of_beings and subject.isdisjoint(("people", "animals")):
        return False
    return all(usage.fits(subject, object_) for usage in _usage_of(predicate))


@lru_cache(maxsize=1 << 12)
def _usage_of(predicate: str) -> tuple[_Usage, ...]:
    names = {predicate, place_of(predicate)}
    return tuple([usage for usage in _lists.usage if not usage.predicates.isdisjoint(names)])


class Offer:
    """Predicates that are often true for a pair of names. Equal ones are one object, hashed by
    identity."""

    __slots__ = ("predicates",)

    def __init__(self, predicates: tuple[str, ...]) -> None:
        self.predicates = predicates


@lru_cache(maxsize=1 << 15)
def is_likely(predicate: str, subject: str, object_: str) -> bool:
    """Whether it is often true for these names: not 'the mirror is in the toothbrush'. Predicates
    that never replace others are likely wherever they make sense."""
    if not is_said_of(predicate, subject, object_):
        return False
    return predicate not in _OFFERED or predicate in offer(subject, object_).predicates


@lru_cache(maxsize=1 << 15)
def offer(subject: str, object_: str) -> Offer:
    """Sorted predicates that are often true for these names and may replace a true predicate."""
    return _offer_of(groups_of(subject), groups_of(object_))


def _offer_of(subject: frozenset[str], object_: frozenset[str]) -> Offer:
    found = {p for row in _lists.offered if row.fits(subject, object_) for p in row.predicates}
    return _one_of_a_kind(tuple(sorted(p for p in found if _fits(p, subject, object_))))


@cache
def _one_of_a_kind(predicates: tuple[str, ...]) -> Offer:
    return Offer(predicates)
