"""Which objects captions mention first."""

import pytest

from hnc_ds.captions.language.predicates import is_order
from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import SceneGraph
from tests.captions.negatives.small_scenes import thing

LARGE = (
    "bus", "taxi", "table", "bench", "horse", "cow", "dog", "tree", "box", "bed", "truck", "desk",
    "sofa",
)  # fmt: skip
"""More of them than relations are about."""


def facts_of(objects, seed):
    graph = SceneGraph("1", 400, 400, objects)
    image = DescribedImage(graph, f"{seed}/1", Options(balance="data"))
    names = image.graph.names
    return [(names[fact.subject], fact.predicate, names[fact.object]) for fact in image.facts]


@pytest.mark.parametrize("seed", range(10))
def test_the_largest_things_are_mentioned_even_if_only_left_and_right_are_annotated(seed):
    small = ["cup", "plate", "bottle", "book", "vase", "lamp", "phone", "clock"]
    objects = {
        "taxi": thing("taxi", (0, 200, 90, 90), (), ("to the left of", "cup")),
        "bus": thing("bus", (100, 200, 90, 90), (), ("to the left of", "cup")),
        "table": thing("table", (0, 360, 80, 30)),
    }
    for i, name in enumerate(small):
        others = [("to the left of", other) for other in small[i + 1 :]]
        near = [("near", "table")] if i < 3 else []
        objects[name] = thing(name, (210 + 20 * i, 350, 15, 15), (), *near, *others)
    found = facts_of(objects, seed)
    spoken_of = {name for subject, _, object_ in found for name in (subject, object_)}
    assert {"taxi", "bus"} <= spoken_of
    sides = sum(predicate in SIDES for _, predicate, _ in found)
    assert sides <= 2 + sum(predicate not in SIDES for _, predicate, _ in found)


def test_every_relation_of_two_objects_is_a_fact_once():
    cat = thing("cat", (0, 0, 90, 90), (), ("leaning on", "chair"), ("next to", "chair"))
    chair = thing("chair", (50, 50, 90, 90), (), ("larger than", "cat"))
    found = facts_of({"cat": cat, "chair": chair}, 0)
    assert ("cat", "leaning on", "chair") in found
    assert ("cat", "next to", "chair") in found
    # One of an inverse pair.
    assert sum("than" in predicate for _, predicate, _ in found) == 1


def test_annotated_relations_of_small_things_are_facts_but_not_their_positions():
    objects = {name: thing(name, (30 * i, 0, 25, 25)) for i, name in enumerate(LARGE)}
    objects["frisbee"] = thing(
        "frisbee", (0, 300, 5, 5), (), ("in", "mouth"), ("to the left of", "bus")
    )
    objects["mouth"] = thing("mouth", (0, 299, 8, 8))
    found = facts_of(objects, 0)
    assert ("frisbee", "in", "mouth") in found
    assert not any(fact[0] == "frisbee" and is_order(fact[1]) for fact in found)
