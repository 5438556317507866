"""What is spoken of first."""

import pytest

from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import SceneGraph
from tests.captions.negatives.small_scenes import thing


def facts_of(objects, seed):
    graph = SceneGraph("1", 400, 400, objects)
    image = DescribedImage(graph, f"{seed}/1", Options(balance="data"))
    found = [
        (image.graph.names[fact.subject], fact.predicate, image.graph.names[fact.object])
        for fact in image.facts()
    ]
    image.close()
    return found


@pytest.mark.parametrize("seed", range(10))
def test_the_largest_things_are_spoken_of_though_only_left_and_right_is_said_of_them(seed):
    small = ["cup", "plate", "bottle", "book", "vase", "lamp"]
    left = [("to the left of", name) for name in small]
    objects = {
        "taxi": thing("taxi", (0, 200, 150, 150), (), *left),
        "bus": thing("bus", (200, 200, 150, 150), (), ("to the right of", "taxi"), *left[:1]),
        "table": thing("table", (0, 360, 30, 30)),
    }
    for i, name in enumerate(small):
        others = [("to the left of", other) for other in small[i + 1 :]]
        objects[name] = thing(name, (160 + 5 * i, 360, 4, 4), (), ("near", "table"), *others)
    found = facts_of(objects, seed)
    spoken_of = {name for subject, _, object_ in found for name in (subject, object_)}
    assert {"taxi", "bus"} <= spoken_of
    sides = sum(predicate in SIDES for _, predicate, _ in found)
    assert sides <= 2 + sum(predicate not in SIDES for _, predicate, _ in found)
