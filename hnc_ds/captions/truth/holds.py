"""Is a claim true of an image, false of it, or can its scene graph not tell?

Annotations are incomplete, so nothing is false because it is not annotated. FALSE has to be
earned for everything that the words could mean: an attribute that excludes the claimed one, boxes
that lie clearly the other way or too far apart, an annotated relation that leaves no room for the
claimed one, a number that the names allow to be counted. TRUE needs an annotation that nothing
contradicts. All else is UNKNOWN.

A noun phrase means any object that could bear it: "The man ..." is true if it holds for some man,
and false only if it holds for none - nor for any person who might be a man.
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
    """What the graph says about a claim, read existentially.

    TRUE if it is annotated of objects that the phrases surely fit; FALSE if it is refuted for
    every object (pair of objects) that the phrases may mean. A phrase whose name no object bears
    makes the claim UNKNOWN. Negation, "both" and "either" (exactly one) follow three-valued logic.
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
    """Whether ``holds`` says FALSE: the quicker question, which is asked of every change."""
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
