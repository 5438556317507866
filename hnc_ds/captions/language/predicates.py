"""Facts about predicates: what follows from an edge, what it excludes, and of what it is said.

The lists are this project's own (vocabulary/predicates.json). A predicate is either a place ("on"),
a verb of place and a place ("sitting on", which entails "on"), or something else ("wearing").
An edge is evidence in both directions: "the cup is on the table" says something about the table
and the cup, too. Every function here is pure and cached by its words.
"""

from functools import cache, lru_cache
from typing import Literal

import msgspec

from hnc_ds.captions.language.kinds import groups_of, is_several
from hnc_ds.captions.language.vocabulary import read_lists


class _Usage(msgspec.Struct, frozen=True):
    """Of what some places or predicates are said, by groups of kinds.json; empty: of anything."""

    predicates: frozenset[str]
    subjects: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    not_subjects: frozenset[str] = frozenset()
    not_objects: frozenset[str] = frozenset()

    def fits(self, subject: frozenset[str], object_: frozenset[str]) -> bool:
        """Whether it is said of names of these groups."""
        return (
            (not self.subjects or not self.subjects.isdisjoint(subject))
            and (not self.objects or not self.objects.isdisjoint(object_))
            and self.not_subjects.isdisjoint(subject)
            and self.not_objects.isdisjoint(object_)
        )


class _OneBearer(msgspec.Struct, frozen=True):
    """What somebody does to a thing of some groups, so that nobody else does it."""

    done: frozenset[str]
    refutes: frozenset[str]
    """Of everybody else."""
    objects: frozenset[str]


class _OneObject(msgspec.Struct, frozen=True):
    """What somebody does to one thing of some groups at a time."""

    predicates: frozenset[str]
    objects: frozenset[str]


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
    postures: dict[str, frozenset[str]]
    """First words that exclude others, of people and animals, whatever the object."""
    loose_postures_of_animals: frozenset[str]
    """'a/b': not of animals: a cat that lies is often said to sit."""
    attributes_of_verbs: dict[str, str]
    """Attribute -> the first word that says the same, where they differ."""
    stances: dict[str, frozenset[str]]
    """As ``postures``, of anything."""
    one_bearer: tuple[_OneBearer, ...]
    one_object: tuple[_OneObject, ...]
    touch: frozenset[str]
    """Need contact."""
    upon: frozenset[str]
    """Need the subject above the lower end of what bears it; 'on' does not: lamps hang."""
    places_said: frozenset[str]
    """What may follow 'is' and, after a verb of place, 'is standing'."""
    paths_said: frozenset[str]
    """What may follow a verb of place only."""
    said_of_things: frozenset[str]
    """Deeds that things do, too: snow covers the ground."""
    never_said: frozenset[str]
    usage: tuple[_Usage, ...]
    """Where predicates are said at all; those of no row anywhere."""
    offered: tuple[_Usage, ...]
    """Where they are put in place of others: where they are often true."""


_lists = read_lists("predicates.json", _Lists)

_OFFERED = frozenset(p for row in _lists.offered for p in row.predicates)

Body = Literal["thing", "animal", "person"]
"""What a subject is, as far as its posture tells anything."""

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
"""Other places and deeds that follow say too little (near) or the same in other words."""

# 'filled with' and 'wearing' say more than the other side of their pair does.
_ONE_WAY = {"in": "filled with"}
_EXCLUSIVE = frozenset(
    (a, b) for row in _lists.exclusive for a in row for b in row if a != b
)  # both orders


@lru_cache(maxsize=1)
def known() -> tuple[str, ...]:
    """Every predicate that some list of predicates.json names."""
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
def entailed(predicate: str) -> tuple[str, ...]:
    """What it says besides and people say on its own, sorted: 'sitting on' -> 'on'."""
    return tuple(sorted((implied(predicate) & _SAID_TOO) - {predicate}))


@lru_cache(maxsize=1 << 14)
def inverse_said(predicate: str) -> tuple[str, ...]:
    """Predicates that say the same from the other end: 'above' -> 'below'."""
    place = place_of(predicate)
    return tuple(sorted(_INVERSES.get(predicate, ()))) if place == predicate else ()


@lru_cache(maxsize=1 << 16)
def excludes(known: str, claim: str, body: Body) -> bool:
    """Whether s -known-> o leaves no room for s -claim-> o.

    Args:
        known: A predicate that holds.
        claim: Another one.
        body: Of the subject.
    """
    if verbs_exclude(verb_of(known), verb_of(claim), body):
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


@lru_cache(maxsize=1 << 14)
def verb_of(predicate: str) -> str:
    """What the subject's body does: 'sitting' of 'sitting on'; '' where it does not say."""
    verb = predicate.partition(" ")[0]
    # Who flies a kite stands below it.
    return verb if verb in _VERBS and predicate != "flying" else ""


@lru_cache(maxsize=1 << 14)
def verb_of_attribute(attribute: str) -> str:
    """The same of an attribute: 'sitting' of 'seated'."""
    verb = _lists.attributes_of_verbs.get(attribute, attribute)
    return verb if verb in _VERBS else ""


@lru_cache(maxsize=1 << 14)
def verbs_exclude(known: str, claim: str, body: Body) -> bool:
    """Whether something whose body does one thing cannot do another one meanwhile."""
    pairs = (known, claim), (claim, known)
    if any(b in _lists.stances.get(a, ()) for a, b in pairs):
        return True
    if body == "thing" or not any(b in _lists.postures.get(a, ()) for a, b in pairs):
        return False
    loose = any(f"{a}/{b}" in _lists.loose_postures_of_animals for a, b in pairs)
    return body == "person" or not loose


@lru_cache(maxsize=1 << 14)
def denied_to_others(predicate: str, object_: str) -> frozenset[str]:
    """What nobody else does to a thing of a name, as somebody does one thing to it: one hat has
    one wearer."""
    if is_several(object_):
        return frozenset()
    groups, said = groups_of(object_), implied(predicate)
    rows = (row for row in _lists.one_bearer if not row.objects.isdisjoint(groups))
    return frozenset(p for row in rows if not row.done.isdisjoint(said) for p in row.refutes)


@lru_cache(maxsize=1 << 16)
def denied_elsewhere(predicate: str, object_: str, other: str) -> frozenset[str]:
    """What somebody does not do to another thing, as he does one thing to the object: he rides one
    horse."""
    if is_several(object_) or is_several(other):
        return frozenset()
    groups, others, said = groups_of(object_), groups_of(other), implied(predicate)
    rows = (
        row
        for row in _lists.one_object
        if not row.objects.isdisjoint(groups) and not row.objects.isdisjoint(others)
    )
    return frozenset(
        p for row in rows if not row.predicates.isdisjoint(said) for p in row.predicates
    )


@lru_cache(maxsize=1 << 14)
def is_upon(predicate: str) -> bool:
    """Whether the subject has its weight on the object."""
    return not implied(predicate).isdisjoint(_lists.upon)


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


@lru_cache(maxsize=1 << 14)
def is_said_of(predicate: str, subject: str, object_: str) -> bool:
    """Whether people would say it of things with these names: not 'the sky is near the nose'."""
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
    said = {predicate, place_of(predicate)}
    return tuple([usage for usage in _lists.usage if not usage.predicates.isdisjoint(said)])


class Offer:
    """Predicates that are often true of some pairs of names; there is one of the same ones."""

    __slots__ = ("predicates",)

    def __init__(self, predicates: tuple[str, ...]) -> None:
        self.predicates = predicates


@lru_cache(maxsize=1 << 15)
def is_likely(predicate: str, subject: str, object_: str) -> bool:
    """Whether it is often true of things with these names: not 'the mirror is in the toothbrush'.
    A predicate that is never put in another's place is, wherever it is said."""
    if not is_said_of(predicate, subject, object_):
        return False
    return predicate not in _OFFERED or predicate in offer(subject, object_).predicates


@lru_cache(maxsize=1 << 15)
def offer(subject: str, object_: str) -> Offer:
    """Predicates that are often true of things with these names, sorted: those that may take the
    place of one that is true of them. The same ones are one object, to look up what became of
    them."""
    return _offer_of(groups_of(subject), groups_of(object_))


def _offer_of(subject: frozenset[str], object_: frozenset[str]) -> Offer:
    found = {p for row in _lists.offered if row.fits(subject, object_) for p in row.predicates}
    return _one_of_a_kind(tuple(sorted(p for p in found if _fits(p, subject, object_))))


@cache
def _one_of_a_kind(predicates: tuple[str, ...]) -> Offer:
    return Offer(predicates)
