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
    proposed,
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


@pytest.mark.slow
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


# ---- balanced over the data set


def cups(*attributes, name="cup", **boxes):
    """One after another, from left to right."""
    found = {str(i): thing(name, (30 * i, 50, 20, 20), a) for i, a in enumerate(attributes)}
    return found | {i: thing(name, box) for i, box in boxes.items()}


def test_another_number_is_said_of_things_boxed_one_by_one():
    numbers = {"three", "four", "five", "six"}
    assert proposed(cups([], []), "obj_count") == {
        ("There are two cups.", f"There are {number} cups.") for number in numbers
    }


@pytest.mark.parametrize(
    "objects",
    [
        cups([]),  # there may be another one: annotators box one of several
        cups([], [], x=(60, 50, 3, 3)),  # and of those far away some
        cups([], [], x=(2, 52, 10, 10)),  # within another one: the same, boxed twice?
        cups([], [], name="door"),
        cups([], [], name="traffic light"),
        cups([], [], name="tree"),
        cups([], [], name="wheel"),
        cups([], [], name="shirt")
        | {"p": thing("man", (5, 5, 9, 9)), "q": thing("woman", (70, 5, 9, 9))},
    ],
)
def test_what_may_be_boxed_in_part_is_given_no_number(objects):
    assert not proposed(objects, "obj_count", 5)


def test_things_of_one_attribute_are_counted_where_each_thing_is_known_to_have_it_or_not():
    found = proposed(cups(["red"], ["red"], ["blue"]), "obj_count")
    assert ("There are two red cups.", "There is one red cup.") in found
    assert ("There are two red cups.", "There are three red cups.") in found
    assert ("There are two red cups.", "There are two green cups.") in found
    assert ("There is one blue cup.", "There are two blue cups.") in found
    assert ("There is one blue cup.", "There is one white cup.") in found
    assert not [
        two for two in found if "one red" in two[0] or ("blue" in two[1] and "red" in two[0])
    ]


def test_a_third_thing_of_unknown_colour_leaves_the_number_of_red_ones_open():
    found = proposed(cups(["red"], ["red"], []), "obj_count")
    assert {true for true, _ in found} == {"There are three cups."}


def test_what_is_more_is_said_from_both_ends_and_as_many_changes_places_with_it():
    objects = cups([], [], []) | {
        "d": thing("dog", (0, 5, 10, 10)),
        "e": thing("dog", (20, 5, 10, 10)),
    }
    more, fewer = "There are more cups than dogs.", "There are fewer dogs than cups."
    assert proposed(objects, "obj_comp_count") == {
        (more, "There are fewer cups than dogs."),
        (fewer, "There are more dogs than cups."),
        (more, "There are as many cups as dogs."),
        (fewer, "There are as many dogs as cups."),
    }
    objects["f"] = thing("dog", (40, 5, 10, 10))
    assert proposed(objects, "obj_comp_count") == {
        (f"There are as many {a} as {b}.", f"There are {comparator} {a} than {b}.")
        for comparator in ("more", "fewer")
        for a, b in (("cups", "dogs"), ("dogs", "cups"))
    }


def test_one_thing_is_compared_with_three_but_not_with_two_as_a_second_may_not_be_boxed():
    dog = {"d": thing("dog", (0, 5, 10, 10))}
    assert ("There are more cups than dogs.", "There are fewer cups than dogs.") in proposed(
        cups([], [], []) | dog, "obj_comp_count"
    )
    assert not proposed(cups([], []) | dog, "obj_comp_count", 5)
    door = {"d": thing("door", (0, 5, 10, 10))}
    assert not proposed(cups([], [], []) | door, "obj_comp_count", 5)


def test_there_is_at_least_one_and_none_of_what_is_related():
    objects = {
        "a": thing("star", (40, 10, 20, 20), ["red"], ("above", "b")),
        "b": thing("ring", (40, 70, 20, 20)),
    }
    found = proposed(objects, "obj_verify_count")
    for star in ("star", "red star"):
        above, below = (f"{star} that is {place} the ring." for place in ("above", "below"))
        assert (f"There is at least one {above}", f"There is no {above}") in found
        assert (f"There is no {below}", f"There is at least one {below}") in found
    for true, false in found:
        is_so = "star that is above " in true or "ring that is below " in true
        assert is_so == ("at least one" in true) == ("no" in false.split())


def test_there_is_at_least_one_and_none_of_an_attribute():
    found = proposed(
        {"a": thing("cup", (40, 10, 20, 20), ["red", "large"])}, "obj_verify_count_attr"
    )
    for cup in ("cup", "large cup"):
        red, green = f"{cup} that is red.", f"{cup} that is green."
        assert (f"There is at least one {red}", f"There is no {red}") in found
        assert (f"There is no {green}", f"There is at least one {green}") in found
    assert {true.partition("at least one ")[2] for true, _ in found} - {""} == {
        "cup that is red.",
        "cup that is large.",
        "large cup that is red.",
        "red cup that is large.",
    }


@pytest.mark.parametrize("name", ["door", "leaves", "wheel", "tree", "water"])
def test_none_is_not_said_of_what_may_be_there_unboxed(name):
    assert not proposed({"a": thing(name, (40, 10, 20, 20), ["brown"])}, "obj_verify_count_attr", 5)
