"""What is counted, and what is not."""

from collections import Counter

import pytest

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import count_tables
from hnc_ds.records import SceneGraph
from tests.captions.negatives.small_scenes import (
    in_a_row,
    over_seeds,
    thing,
)


def test_the_smaller_number_is_never_said_to_be_greater():
    objects = in_a_row()
    counts = {"dogs": 2, "cats": 3, "stars": 1, "rings": 1, "boxes": 1, "crosses": 1}
    holds = {"more": int.__gt__, "fewer": int.__lt__, "as many": int.__eq__}
    seen = set()
    for positive, _, negative in over_seeds(objects, ("obj_comp_count",)):
        for text, truth in ((positive, True), (negative, False)):
            words = text.removesuffix(".").split()
            comparator, one, other = " ".join(words[2:-3]), words[-3], words[-1]
            assert holds[comparator](counts[one], counts[other]) is truth, text
            seen.add((comparator, truth))
    assert len(seen) == 6


@pytest.mark.parametrize(
    "more",
    [
        {"x": thing("dogs", (60, 60, 9, 9))},
        {"x": thing("animal", (60, 60, 9, 9))},
        {"x": thing("dog", (1, 10, 9, 9))},
    ],
)
def test_what_may_be_one_thing_or_several_is_not_counted(more):
    found = over_seeds(in_a_row() | more, ("obj_count", "obj_comp_count"))
    assert not any(
        "dog" in text for positive, _, negative in found for text in (positive, negative)
    )


@pytest.mark.parametrize("name", ["water", "jeans", "sheep", "windows", "hand", "crowd"])
def test_stuff_parts_and_plurals_are_not_counted(name):
    objects = in_a_row() | {str(i): thing(name, (30 * i, 60, 9, 9)) for i in range(4)}
    assert not any(name in positive for positive, _, _ in over_seeds(objects, ("obj_count",), 9))


def test_with_tables_one_and_many_are_equally_often_true_and_false_of_each_name():
    def image(image_id, dogs, cats):
        names = ["dog"] * dogs + ["cat"] * cats
        boxes = {str(i): thing(name, (11 * i, 5, 9, 9)) for i, name in enumerate(names)}
        return SceneGraph(image_id, 100, 100, boxes)

    numbers = [(1, 2)] * 3 + [(2, 1)]
    graphs = [image(str(i), *numbers[i % 4]) for i in range(4000)]
    options = Options(tables=count_tables(graphs))
    true, false = Counter(), Counter()
    for graph in graphs:
        assert not caption_groups(graph, ("obj_count",), 0).groups
        for group in caption_groups(graph, ("obj_count",), 0, options).groups:
            true[group.positive] += 1
            false.update(n.caption for n in group.negatives)
    assert len(true) == 4
    assert min(true.values()) > 100
    for text, count in true.items():
        assert 0.8 < count / false[text] < 1.25
