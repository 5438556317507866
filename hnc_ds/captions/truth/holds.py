"""Three-valued truth of a claim, according to the scene graph of an image.

Annotations are incomplete, so a missing annotation proves nothing. FALSE needs evidence for every
object that the words could mean: an attribute that excludes the claimed one, boxes that lie the
other way or too far apart, a relation that excludes the claimed one, a number of objects that can
be counted. TRUE needs an annotation that nothing contradicts. Everything else is UNKNOWN.

A noun phrase means any object that may have the name: "The man ..." is true if it holds for some
man and false only if it is refuted for all men and for every person who might be one.
"""

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
from hnc_ds.captions.truth.indexed_graph import FALSE, TRUE, UNKNOWN, IndexedGraph, Truth

__all__ = ["Truth", "holds", "is_refuted"]

_NEGATION = {TRUE: FALSE, FALSE: TRUE, UNKNOWN: UNKNOWN}


def holds(graph: IndexedGraph, claim: Claim) -> Truth:
    """The truth of a claim, read existentially.

    TRUE if it is annotated for objects that the phrases surely fit; FALSE if it is refuted for
    every object (or pair) that the phrases may mean; UNKNOWN if no object has the name. Negation,
    "both" and "either" (exactly one) follow three-valued logic.
    """
    match claim:
        case Related():
            return _holds_relation(graph, claim)
        case HasAttribute():
            return _holds_attribute(graph, claim)
        case Not(part):
            return _NEGATION[holds(graph, part)]
        case Both(first, second, _):
            return _both(holds(graph, first), holds(graph, second))
        case Either(first, second, _):
            return _either(holds(graph, first), holds(graph, second))
        case Counted(name, number, attributes):
            count = graph.count(name, attributes)
            return UNKNOWN if count is None else _as_truth(count == number)
        case Compared():
            return _holds_comparison(graph, claim)


def is_refuted(graph: IndexedGraph, claim: Claim) -> bool:
    """Whether ``holds`` returns FALSE; faster, as every change of a statement is checked."""
    if isinstance(claim, Related):
        return _refutes_relation(graph, claim)
    if isinstance(claim, HasAttribute):
        attribute = claim.attribute
        for i in graph.candidates(claim.subject):
            if graph.attribute(i, attribute) is not FALSE:
                return False
        return bool(graph.bearers(claim.subject.name))
    if isinstance(claim, Both):
        return is_refuted(graph, claim.first) or is_refuted(graph, claim.second)
    return holds(graph, claim) is FALSE


def _refutes_relation(graph: IndexedGraph, claim: Related) -> bool:
    predicate, objects = claim.predicate, graph.candidates(claim.object)
    for i in graph.candidates(claim.subject):
        for j in objects:
            if i != j and graph.relation(i, predicate, j) is not FALSE:
                return False
    return _names_a_pair(graph, claim.subject, claim.object)


def _holds_attribute(graph: IndexedGraph, claim: HasAttribute) -> Truth:
    if is_refuted(graph, claim):
        return FALSE
    found = graph.certain(claim.subject)
    return TRUE if any(graph.attribute(i, claim.attribute) is TRUE for i in found) else UNKNOWN


def _holds_relation(graph: IndexedGraph, claim: Related) -> Truth:
    if is_refuted(graph, claim):
        return FALSE
    annotated = any(
        i != j and graph.relation(i, claim.predicate, j) is TRUE
        for i in graph.certain(claim.subject)
        for j in graph.certain(claim.object)
    )
    return TRUE if annotated else UNKNOWN


def _names_a_pair(graph: IndexedGraph, subject: Phrase, object_: Phrase) -> bool:
    subjects, objects = graph.bearers(subject.name), graph.bearers(object_.name)
    return bool(subjects and objects) and (len(subjects) > 1 or subjects != objects)


def _holds_comparison(graph: IndexedGraph, claim: Compared) -> Truth:
    ours, theirs = graph.count(claim.name), graph.count(claim.other)
    if ours is None or theirs is None:
        return UNKNOWN
    holds_so = {"more": ours > theirs, "fewer": ours < theirs, "as many": ours == theirs}
    return _as_truth(holds_so[claim.comparator])


def _both(first: Truth, second: Truth) -> Truth:
    if FALSE in (first, second):
        return FALSE
    return TRUE if first is second is TRUE else UNKNOWN


def _either(first: Truth, second: Truth) -> Truth:
    if UNKNOWN in (first, second):
        return UNKNOWN
    return _as_truth(first is not second)


def _as_truth(value: bool) -> Truth:
    return TRUE if value else FALSE
