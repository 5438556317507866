"""Compare claims, and prove them by the graph: same meaning, exactly one change, true or false.

parsing.py reads captions as claims.
"""

from collections.abc import Iterator

from hnc_ds.captions.language.attribute_classes import class_of
from hnc_ds.captions.language.predicates import implied, implied_backwards, is_said_of
from hnc_ds.captions.language.wording import before_noun, noun_phrase
from hnc_ds.captions.negatives.references import reads_as_another
from hnc_ds.captions.truth.claims import (
    TURNED,
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
from hnc_ds.captions.truth.holds import holds
from hnc_ds.captions.truth.indexed_graph import FALSE, TRUE, IndexedGraph


def rewords(new: Claim, old: Claim) -> bool:
    """Whether a claim has the meaning of another one.

    Both entail each other, and a definite phrase of the new one is definite in the old one, as 'a
    star' may be one of several. Truth plays no role, so true and false captions pass the same test.
    """
    return _same(new, old) and _definite(new) <= _definite(old)


def _same(a: Claim, b: Claim) -> bool:
    match a, b:
        case HasAttribute(), HasAttribute():
            return a.subject.name == b.subject.name and _attributes(a) == _attributes(b)
        case Related(), Related():
            return _same_relation(a, b)
        case Counted(), Counted():
            return a == b
        case Compared(), Compared():
            turned = Compared(b.other, TURNED[b.comparator], b.name)
            return a in (b, turned)
        case Not(), Not():
            return _same(a.claim, b.claim)
        case Both(), Both():
            return _same_two(a, b)
        case Either(), Either():
            return _same_two(a, b)
    return False


def _same_two(a: Both | Either, b: Both | Either) -> bool:
    straight = _same(a.first, b.first) and _same(a.second, b.second)
    return straight or (_same(a.first, b.second) and _same(a.second, b.first))


def _attributes(claim: HasAttribute) -> frozenset[str]:
    return frozenset((*claim.subject.attributes, claim.attribute))


def _named(phrase: Phrase) -> tuple[str, frozenset[str]]:
    return phrase.name, frozenset(phrase.attributes)


def _same_relation(a: Related, b: Related) -> bool:
    ends = _named(a.subject), _named(a.object)
    if ends == (_named(b.subject), _named(b.object)):
        return a.predicate in implied(b.predicate) and b.predicate in implied(a.predicate)
    if ends != (_named(b.object), _named(b.subject)):
        return False
    return a.predicate in implied_backwards(b.predicate) and b.predicate in implied_backwards(
        a.predicate
    )


def _definite(claim: Claim) -> set[tuple[str, frozenset[str]]]:
    return {_named(phrase) for phrase in phrases(claim) if phrase.definite}


def phrases(claim: Claim) -> Iterator[Phrase]:
    """The noun phrases of a claim, in order."""
    match claim:
        case HasAttribute(subject):
            yield subject
        case Related(subject, _, object_):
            yield from (subject, object_)
        case Not(part):
            yield from phrases(part)
        case Both(first, second) | Either(first, second):
            yield from phrases(first)
            yield from phrases(second)


def is_proven_true(graph: IndexedGraph, claim: Claim) -> bool:
    """Whether the graph proves it true, and each definite phrase has exactly one referent."""
    return holds(graph, claim) is TRUE and _is_clear(graph, claim)


def is_proven_false(graph: IndexedGraph, claim: Claim) -> bool:
    """Whether the graph proves it false, for every referent of its definite phrases.

    Refutation covers all referents. A negation, and an 'either' whose parts are both true, are
    false because something is true; then definite phrases must have exactly one referent.
    """
    if holds(graph, claim) is not FALSE:
        return False
    is_neither = isinstance(claim, Either) and holds(graph, claim.first) is FALSE
    return is_neither or not isinstance(claim, Not | Either) or _is_clear(graph, claim)


def _is_clear(graph: IndexedGraph, claim: Claim) -> bool:
    named = [*phrases(claim)]
    if any(reads_as_another(phrase) for phrase in named):
        return False
    return all(len(graph.candidates(phrase)) == 1 for phrase in named if phrase.definite)


def is_sensible(claim: Claim) -> bool:
    """Whether it is plausible for things of these names: not 'the wall wears a hat'."""
    match claim:
        case HasAttribute(subject, attribute):
            attributes = (*subject.attributes, attribute)
            return all(class_of(a, subject.name) is not None for a in attributes)
        case Related(subject, predicate, object_):
            described = all(
                class_of(a, phrase.name) is not None
                for phrase in (subject, object_)
                for a in phrase.attributes
            )
            return described and is_said_of(predicate, subject.name, object_.name)
        case Not(part):
            return is_sensible(part)
        case Both(first, second) | Either(first, second):
            return is_sensible(first) and is_sensible(second)
    return True


def change_between(old: Claim, new: Claim) -> tuple[str, str] | None:
    """(words before, words after), if exactly one part differs or two are swapped."""
    before, after = [*_parts(old)], [*_parts(new)]
    if type(old) is not type(new) or [kind for kind, _ in before] != [kind for kind, _ in after]:
        return None
    changed = [
        (a, b) for (_, a), (_, b) in zip(before, after, strict=True) if a.lower() != b.lower()
    ]
    if len(changed) == 1:
        return changed[0]
    if len(changed) == 2 and changed[0] == changed[1][::-1]:
        return changed[0]
    return None


def _parts(claim: Claim) -> Iterator[tuple[str, str]]:
    """The parts of a claim: (kind, words)."""
    match claim:
        case HasAttribute(subject):
            # A set: 'the red star is large' means 'there is a large red star'.
            yield "name", subject.name
            yield from (("attribute", before_noun(a)) for a in sorted(_attributes(claim)))
        case Related(subject, predicate, object_):
            yield from _phrase_parts(subject)
            yield "predicate", predicate
            yield from _phrase_parts(object_)
        case Counted(name, number):
            yield from (("name", name), ("number", str(number)))
        case Compared(name, comparator, other):
            yield from (("name", name), ("comparator", comparator), ("name", other))
        case Not(part):
            yield "not", ""
            yield from _parts(part)
        case Both(first, second) | Either(first, second):
            yield from _parts(first)
            yield "joint", ""
            yield from _parts(second)


def _phrase_parts(phrase: Phrase) -> Iterator[tuple[str, str]]:
    yield from (("attribute", before_noun(a)) for a in phrase.attributes)
    yield "name", noun_phrase(Phrase(phrase.name))


def about(claim: Claim) -> str:
    """``Negative.about`` of a claim: its predicate or the class of its attribute."""
    match claim:
        case Related(_, predicate, _):
            return predicate
        case HasAttribute(subject, attribute):
            cls = class_of(attribute, subject.name)
            return cls.name if cls else ""
    return ""


def objects(graph: IndexedGraph, claim: Claim) -> tuple[int, ...]:
    """The numbers of the objects to which a claim refers unambiguously."""
    candidates = [graph.candidates(phrase) for phrase in phrases(claim)]
    return tuple(dict.fromkeys(i for found in candidates if len(found) == 1 for i in found))
