"""THE TABLE of rules that refute claims, and the share of false statements that each decides.

    python experiments/rules.py train_sceneGraphs.json

``truth.holds.is_refuted`` decides the same faster, without naming a rule. A rule refutes a pair of
objects if the evidence of that rule alone does. It *decides* a statement together with other rules
that refute it too, in equal shares, and is *needed* if no other rule refutes it. Counted are the
changes that ``hnc-ds generate`` proposes, and the false captions that it writes, read back from
their text.

*Left out*: each annotated attribute and relation is removed from its graph. Of those about which a
rule has other evidence, how many does it refute? They are annotated, so it should refute none.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import tyro
from msgspec.structs import replace

from hnc_ds.captions.balance import Quotas
from hnc_ds.captions.first_pass import tally_of
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.language import predicates
from hnc_ds.captions.language.attribute_classes import ALIASES, classes_of, holds_of
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.captions.rewrite.parsing import readings
from hnc_ds.captions.rewrite.words import ImageWords
from hnc_ds.captions.truth import boxes
from hnc_ds.captions.truth.claims import Both, Claim, Either, HasAttribute, Not, Phrase, Related
from hnc_ds.captions.truth.holds import holds, is_refuted
from hnc_ds.captions.truth.indexed_graph import (
    FALSE,
    IndexedGraph,
    favouring,
    refuting,
    truth_of_pair,
)
from hnc_ds.config import GenerateConfig
from hnc_ds.errors import UserError
from hnc_ds.interruptions import run as run_command
from hnc_ds.records import Relation, SceneGraph, SceneObject

SEED = 0

RULES = {
    "direction": "Boxes clearly lie the other way: left, right, above, below, under.",
    "contact": "The boxes of objects that would touch lie apart.",
    "inside": "The box of what would be inside is much larger.",
    "support": "The box of what would lie or stand on an object begins below that object's box.",
    "one bearer": "Another being wears, rides or holds the object, which one does at a time.",
    "one object": "The being rides or wears another object, of which it has one at a time.",
    "posture": "The subject has a posture or movement that excludes the claimed one.",
    "relation": "An annotated relation between the two excludes the claimed one.",
    "converse": "An annotated relation in the other direction excludes the claimed one.",
    "value": "An annotated value excludes the claimed one, which is of the same class.",
    "description": "Every object of the name has an attribute that excludes the description.",
    "number": "The objects of the name are counted, and there are more or fewer.",
    "stated": "What the claim denies is annotated or shown by boxes; 'either' names two such.",
}
"""Name -> what refutes a claim."""

BITS = {
    "direction": boxes.LEFT | boxes.RIGHT | boxes.ABOVE | boxes.BELOW,
    "contact": boxes.APART | boxes.AWAY,
    "inside": boxes.TOO_LARGE,
    "support": boxes.LOWER,
}
"""Rules of boxes -> bits of ``boxes`` that they need."""

Proof = tuple[frozenset[str], ...]
"""Rules that refute each object or pair that a claim may mean."""


@dataclass(frozen=True)
class Settings:
    """Print the share of false statements that each rule decides."""

    scene_graphs: tyro.conf.Positional[Path]
    """JSON in the layout of GQA's scene graphs (also .gz)."""

    images: int = 300
    """Number of graphs, from the first."""

    examples: int = 0
    """Number of false captions that need a rule, and of annotations that it refutes, to print for
    each rule, drawn at random."""


class Evidence(NamedTuple):
    """What refutes a claim: each proof suffices, and needs one rule of each of its sets."""

    proofs: tuple[Proof, ...]

    def shares(self) -> Iterator[tuple[str, float]]:
        """Rules with their shares of the decision, 1 in total: equal shares of proofs, of the pairs
        of a proof, of the rules for a pair."""
        for proof in self.proofs:
            for rules in proof:
                for rule in sorted(rules):
                    yield rule, 1 / len(self.proofs) / len(proof) / len(rules)

    def needs(self, rule: str) -> bool:
        """Whether the claim would not be refuted without a rule."""
        return all({rule} in proof for proof in self.proofs)


def evidence(graph: IndexedGraph, claim: Claim) -> Evidence:
    """What refutes a claim; no proofs if nothing does."""
    return Evidence(tuple(_proofs(graph, claim)))


def _proofs(graph: IndexedGraph, claim: Claim) -> Iterator[Proof]:
    if isinstance(claim, Both):
        yield from _proofs(graph, claim.first)
        yield from _proofs(graph, claim.second)
    elif is_refuted(graph, claim):
        yield _proof(graph, claim)


def _proof(graph: IndexedGraph, claim: Claim) -> Proof:
    """The proof of a refuted claim."""
    match claim:
        case HasAttribute(subject, attribute):
            found = [of_attribute(graph, i, attribute) for i in graph.candidates(subject)]
        case Related(subject, predicate, object_):
            found = [of_pair(graph, i, predicate, j) for i, j in _pairs(graph, subject, object_)]
        case Either(first, second):
            if holds(graph, first) is not FALSE:
                return (frozenset(("stated",)),)
            found = [*_proof(graph, first), *_proof(graph, second)]
        case _:
            return (frozenset(("stated" if isinstance(claim, Not) else "number",)),)
    return tuple(found) or (frozenset(("description",)),)


def _pairs(graph: IndexedGraph, subject: Phrase, object_: Phrase) -> Iterator[tuple[int, int]]:
    for i in graph.candidates(subject):
        yield from ((i, j) for j in graph.candidates(object_) if i != j)


def of_attribute(graph: IndexedGraph, i: int, attribute: str) -> frozenset[str]:
    """Rules that refute an attribute of object i."""
    by_value = holds_of(graph.attributes[i], attribute) is False
    return frozenset(("value" if by_value else "posture",))


def of_pair(graph: IndexedGraph, i: int, predicate: str, j: int) -> frozenset[str]:
    """Rules that refute a relation from object i to object j, which is refuted."""
    forwards, backwards, body, place, place_back, poses, denied = graph.facts(i, j)
    found = {rule for rule, bits in BITS.items() if place & bits & refuting(predicate)}
    if place & favouring(predicate):  # then only boxes refute it
        return frozenset(found)
    implied = predicates.implied(predicate)
    if denied and not implied.isdisjoint(graph.denied_by_others(i, j)):
        found.add("one bearer")
    if denied and not implied.isdisjoint(graph.denied_elsewhere(i, j)):
        found.add("one object")
    nothing: frozenset[str] = frozenset()
    if truth_of_pair((), (), body, 0, 0, poses, nothing, predicate) is FALSE:
        found.add("posture")
    # Edges that boxes contradict prove nothing.
    forwards = tuple([p for p in forwards if not place & refuting(p)])
    backwards = tuple([p for p in backwards if not place_back & refuting(p)])
    if truth_of_pair(forwards, backwards, body, 0, 0, nothing, nothing, predicate) is FALSE:
        verb = predicates.verb_of(predicate)
        excluding = {
            "posture": any(
                predicates.verbs_exclude(predicates.verb_of(p), verb, body) for p in forwards
            ),
            "relation": any(predicates.rows_exclude(p, predicate) for p in forwards),
            "converse": any(predicates.excludes_backwards(p, predicate) for p in backwards),
        }
        found.update(rule for rule, excludes in excluding.items() if excludes)
    return frozenset(found)


@dataclass
class Shares:
    """Counts over statements."""

    statements: int = 0
    decides: dict[str, float] = field(default_factory=lambda: dict.fromkeys(RULES, 0.0))
    """Rule -> sum of its shares."""
    needed: Counter[str] = field(default_factory=Counter)

    def add(self, graph: IndexedGraph, claim: Claim) -> list[str]:
        """Count a false statement; returns the rules it needs."""
        found = evidence(graph, claim)
        assert found.proofs, claim
        self.statements += 1
        for rule, share in found.shares():
            self.decides[rule] += share
        needs = [rule for rule in RULES if found.needs(rule)]
        self.needed.update(needs)
        return needs


class _Recorded(DescribedImage):
    """An image that keeps the changes that its graph refutes."""

    def __init__(self, graph: SceneGraph, options: Options) -> None:
        super().__init__(graph, f"{SEED}/{graph.image_id}", options, len(DEFAULT_TYPES))
        self.false_claims: list[Claim] = []

    def refutes(self, claim: Claim) -> bool:
        is_false = super().refutes(claim)
        if is_false:
            self.false_claims.append(claim)
        return is_false


def proposed(graph: SceneGraph, options: Options) -> list[Claim]:
    """The refuted changes of an image."""
    image = _Recorded(graph, options)
    for name in DEFAULT_TYPES:
        type_ = NEGATIVE_TYPES[name]
        for _ in (type_.proposals or type_.bundles)(image):
            pass
    image.close()
    return image.false_claims


def written(graph: SceneGraph, options: Options, quotas: Quotas) -> Iterator[tuple[str, str]]:
    """The pairs of captions of an image."""
    for group in caption_groups(graph, DEFAULT_TYPES, SEED, options, quotas).groups:
        yield from ((group.positive, negative.caption) for negative in group.negatives)


def left_out(graph: SceneGraph) -> Iterator[tuple[str, str, bool]]:
    """Annotated statements that are removed one at a time: a rule that has other evidence about it,
    the statement, and whether the rule refutes it."""
    ids = sorted(graph.objects)
    for i, key in enumerate(ids):
        found = graph.objects[key]
        for attribute in found.attributes:
            rest = tuple(a for a in found.attributes if a != attribute)
            indexed = IndexedGraph(_with(graph, key, replace(found, attributes=rest)))
            refuted = indexed.attribute(i, attribute) is FALSE
            value = ALIASES.get(attribute, attribute)
            if {*classes_of(value)} & {c for a in indexed.attributes[i] for c in classes_of(a)}:
                rules = of_attribute(indexed, i, value) if refuted else frozenset()
                yield "value", f"{found.name}: {found.attributes}, {value}", "value" in rules
        for relation in found.relations:
            j = ids.index(relation.object)
            indexed = IndexedGraph(_without_edge(graph, key, relation))
            refuted = indexed.relation(i, relation.name, j) is FALSE
            rules = of_pair(indexed, i, relation.name, j) if refuted else frozenset()
            text = f"{found.name} {relation.name} {graph.objects[relation.object].name}"
            for rule in _applicable(indexed, i, relation.name, j):
                yield rule, text, rule in rules


def _with(graph: SceneGraph, key: str, found: SceneObject) -> SceneGraph:
    return replace(graph, objects=graph.objects | {key: found})


def _without_edge(graph: SceneGraph, key: str, relation: Relation) -> SceneGraph:
    """The graph without a relation and those that state the same from the other end."""
    found, other = graph.objects[key], graph.objects[relation.object]
    same = {relation.name, *predicates.inverse_said(relation.name)}
    ours = tuple(r for r in found.relations if r != relation)
    theirs = tuple(r for r in other.relations if not (r.object == key and r.name in same))
    graph = _with(graph, relation.object, replace(other, relations=theirs))
    return _with(graph, key, replace(found, relations=ours))


def _applicable(graph: IndexedGraph, i: int, predicate: str, j: int) -> Iterator[str]:
    """Rules with evidence about a relation."""
    forwards, backwards, _, place, _, poses, denied = graph.facts(i, j)
    for rule, bits in BITS.items():
        if refuting(predicate) & bits and place & boxes.KNOWN:
            yield rule
    if denied and graph.denied_by_others(i, j):
        yield "one bearer"
    if denied and graph.denied_elsewhere(i, j):
        yield "one object"
    if poses and predicates.verb_of(predicate):
        yield "posture"
    if forwards:
        yield "relation"
    if backwards:
        yield "converse"


def measure(settings: Settings) -> None:
    """Print the table, and examples.

    Raises:
        UserError: Unreadable scene graphs.
    """
    if not settings.scene_graphs.is_file():
        raise UserError(f"{settings.scene_graphs}: no such file; give scene graphs as GQA's")
    graphs = list(islice(read_scene_graphs(settings.scene_graphs), settings.images))
    if not graphs:
        raise UserError(f"{settings.scene_graphs}: holds no images")
    options = Options(max_groups=GenerateConfig.per_image, balance="data")
    quotas = Quotas(tally_of(graphs, DEFAULT_TYPES, SEED, options).balance())
    changes, captions, unread = Shares(), Shares(), 0
    known: Counter[str] = Counter()
    wrong: dict[str, list[str]] = defaultdict(list)
    examples: dict[str, list[str]] = defaultdict(list)
    for graph in graphs:
        indexed = IndexedGraph(graph)
        words = ImageWords(indexed)
        for claim in proposed(graph, options):
            changes.add(indexed, claim)
        for true, false in written(graph, options, quotas):
            claims = [c for c in readings(false, words) if evidence(indexed, c).proofs]
            unread += not claims
            for claim in claims[:1]:
                for rule in captions.add(indexed, claim):
                    examples[rule].append(f"{graph.image_id}: {true} / {false}")
        for rule, text, found_false in left_out(graph):
            known[rule] += 1
            if found_false:
                wrong[rule].append(f"{graph.image_id}: {text}")
    print("\n".join(_table(len(graphs), changes, captions, unread)))
    for rule in RULES:
        if known[rule]:
            print(f"left out, {rule}: {len(wrong[rule])} of {known[rule]} are refuted")
    rng = random.Random(SEED)
    for rule in RULES if settings.examples else ():
        print(f"\n{rule}: {RULES[rule]}")
        for found in (examples[rule], wrong[rule]):
            some = rng.sample(found, min(settings.examples, len(found)))
            print("".join(f"  {example}\n" for example in sorted(some)))


def _table(images: int, changes: Shares, captions: Shares, unread: int) -> Iterator[str]:
    yield (
        f"{images:,} images: {changes.statements:,} proposed changes, "
        f"{captions.statements:,} false captions ({unread:,} more are not read back)"
    )
    yield f"{'':14}{'proposed changes':>20}{'false captions':>20}"
    yield f"{'rule':14}" + f"{'decides':>10}{'needed':>10}" * 2
    for rule in RULES:
        yield f"{rule:14}" + "".join(
            f"{count[rule] / max(1, found.statements):>10.2%}"
            for found in (changes, captions)
            for count in (found.decides, found.needed)
        )


if __name__ == "__main__":
    run_command("rules.py", lambda: measure(tyro.cli(Settings, description=__doc__)))
