"""Each rule of the table decides a statement, and together they decide as ``holds`` does."""

import random
from collections import Counter

import pytest

from experiments import rules as script
from experiments.rules import RULES, evidence
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.language import predicates
from hnc_ds.captions.language.attribute_classes import CLASSES
from hnc_ds.captions.truth.claims import (
    Both,
    Compared,
    Counted,
    Either,
    HasAttribute,
    Not,
    Phrase,
    Related,
)
from hnc_ds.captions.truth.holds import is_refuted
from hnc_ds.captions.truth.indexed_graph import IndexedGraph
from hnc_ds.records import SceneGraph
from tests.captions.test_generate import dense_scene_graphs
from tests.captions.truth.test_holds import LEFT_BOX, RIGHT_BOX, image, is_, rel, thing
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.drawing import draw_world

MAN, WOMAN, HAT = (10, 20, 30, 60), (42, 20, 30, 60), (20, 15, 20, 10)
RED_STAR = thing("star", attributes=["red"])
ON = {"a": thing("cup", b="on"), "b": thing("table")}
APART = {"a": thing("cup", LEFT_BOX), "b": thing("table", RIGHT_BOX)}

EXAMPLES = {
    "direction": (
        image(a=thing("star", LEFT_BOX), b=thing("ring", RIGHT_BOX)),
        rel("star", "to the right of", "ring"),
    ),
    "contact": (image(**APART), rel("cup", "on", "table")),
    "inside": (
        image(a=thing("box", (0, 0, 100, 100)), b=thing("bag", (40, 40, 20, 20))),
        rel("box", "inside", "bag"),
    ),
    "support": (
        image(a=thing("cat", (40, 32, 20, 20)), b=thing("table", (40, 10, 20, 20))),
        rel("cat", "sitting on", "table"),
    ),
    "one bearer": (
        image(a=thing("man", MAN, c="wearing"), b=thing("woman", WOMAN), c=thing("hat", HAT)),
        rel("woman", "wearing", "hat"),
    ),
    "one object": (
        image(a=thing("man", b="riding"), b=thing("horse"), c=thing("elephant")),
        rel("man", "riding", "elephant"),
    ),
    "posture": (
        image(a=thing("man", b="sitting on"), b=thing("bench"), c=thing("chair")),
        rel("man", "standing on", "chair"),
    ),
    "relation": (image(**ON), rel("cup", "under", "table")),
    "converse": (image(**ON), rel("table", "on", "cup")),
    "value": (image(a=RED_STAR), is_("star", "blue")),
    "description": (image(a=RED_STAR, b=thing("ring")), rel("blue_star", "near", "ring")),
    "number": (image(a=thing("dog")), Counted("dog", 2)),
    "stated": (image(a=RED_STAR), Not(is_("star", "red"))),
}


def rules_of(graph, claim):
    return {rule for rule, _ in evidence(graph, claim).shares()}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_decides_an_example_alone(rule):
    graph, claim = EXAMPLES[rule]
    assert rules_of(graph, claim) == {rule}
    assert [other for other in RULES if evidence(graph, claim).needs(other)] == [rule]


def test_a_rule_is_needed_unless_another_refutes_the_same():
    graph = image(a=thing("cup", LEFT_BOX, ["red"]), b=thing("table", RIGHT_BOX, a="under"))
    both = evidence(graph, rel("table", "on", "cup"))
    assert dict(both.shares()) == {"contact": 0.5, "relation": 0.5}
    assert not any(map(both.needs, RULES))
    side = rel("cup", "to the right of", "table")
    one_part = evidence(graph, Both(side, is_("cup", "red")))
    assert one_part.needs("direction")
    two_parts = evidence(graph, Both(side, is_("cup", "blue")))
    assert dict(two_parts.shares()) == {"direction": 0.5, "value": 0.5}
    assert not any(map(two_parts.needs, RULES))
    neither = evidence(graph, Either(side, is_("cup", "blue")))
    assert neither.needs("direction")
    assert neither.needs("value")
    stated = Either(rel("table", "under", "cup"), is_("cup", "red"))
    assert rules_of(graph, stated) == {"stated"}
    assert rules_of(graph, Compared("cup", "more", "table")) == {"number"}
    assert not evidence(graph, is_("cup", "red")).proofs


def test_each_object_that_the_words_may_mean_is_refuted_by_a_rule():
    graph = image(a=thing("dog", attributes=["sitting"]), b=thing("dog", attributes=["red"]))
    assert not evidence(graph, is_("dog", "standing")).proofs
    graph = image(a=thing("dog", attributes=["sitting"], c="on"), b=thing("bench"), c=thing("mat"))
    assert rules_of(graph, rel("dog", "standing on", "bench")) == {"posture"}


def claims(graph, rng):
    """Simple claims about an image, true and false ones."""
    values = [value for cls in CLASSES for cell in cls.cells for value in sorted(cell)]
    phrases = [Phrase(name) for name in graph.names]
    phrases += [
        Phrase(name, (rng.choice(sorted(found)),))
        for name, found in zip(graph.names, graph.attributes, strict=True)
        if found
    ]
    for subject in phrases:
        for value in rng.sample(values, 30):
            yield HasAttribute(subject, value)
        for object_ in phrases:
            for predicate in rng.sample(predicates.known(), 12):
                yield Related(subject, predicate, object_)


def test_the_rules_refute_what_holds_refutes():
    rng = random.Random(3)
    refuted = 0
    for number in range(12):
        graph = IndexedGraph(annotate(rng, draw_world(rng), str(number)))
        for claim in claims(graph, rng):
            found = evidence(graph, claim)
            assert bool(found.proofs) == is_refuted(graph, claim)
            if found.proofs:
                refuted += 1
                assert all(rules for proof in found.proofs for rules in proof), claim
                assert sum(share for _, share in found.shares()) == pytest.approx(1)
    assert refuted > 1000


def test_the_script_shows_every_rule_and_its_shares_add_up(tmp_path, capsys):
    graphs = dense_scene_graphs(tmp_path / "g.json", 6)
    script.measure(script.Settings(graphs, examples=1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("6 images: ")
    rows = dict(zip(RULES, lines[3:], strict=False))
    assert all(row.startswith(rule) for rule, row in rows.items())
    for column in (-4, -2):
        shares = [float(row.split()[column].rstrip("%")) for row in rows.values()]
        assert sum(shares) == pytest.approx(100, abs=0.1)
    assert any(line.startswith("value: ") for line in lines)
    known = {str(graph.image_id) for graph in read_scene_graphs(graphs)}
    assert any(line.strip().partition(":")[0] in known for line in lines)


def test_annotations_that_are_left_out_show_what_a_rule_refutes_wrongly():
    objects = {
        "a": thing("cup", LEFT_BOX, ["red", "blue"], b="on"),
        "b": thing("table", RIGHT_BOX, a="under"),
        "c": thing("man", d="sitting on", b="near"),
        "d": thing("chair", c="under"),
    }
    wrong = [
        (rule, text) for rule, text, is_refuted in script.left_out(image_of(objects)) if is_refuted
    ]
    assert wrong == [
        ("value", "cup: ('red', 'blue'), red"),
        ("value", "cup: ('red', 'blue'), blue"),
        ("contact", "cup on table"),
    ]
    judged = Counter(rule for rule, _, _ in script.left_out(image_of(objects)))
    assert judged == {"value": 2, "contact": 1, "direction": 1, "converse": 4}


def image_of(objects):
    return SceneGraph("1", 100, 100, objects)
