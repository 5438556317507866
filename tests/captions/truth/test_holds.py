"""What a scene graph proves and what it leaves open, on graphs made by hand."""

import pytest

from hnc_ds.captions.language import predicates
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
from hnc_ds.captions.truth.holds import Truth, holds
from hnc_ds.captions.truth.indexed_graph import IndexedGraph
from hnc_ds.records import Relation, SceneGraph, SceneObject

TRUE, FALSE, UNKNOWN = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN
LEFT_BOX, RIGHT_BOX = (10, 40, 20, 20), (70, 40, 20, 20)
HIGH_BOX, LOW_BOX = (40, 10, 20, 20), (40, 70, 20, 20)
NO_BOX = (0, 0, 0, 0)


def thing(name, box=NO_BOX, attributes=(), **relations):
    """relations: object id -> predicate."""
    edges = tuple(Relation(name=p, object=o) for o, p in relations.items())
    return SceneObject(name, *box, attributes=tuple(attributes), relations=edges)


def image(**objects):
    return IndexedGraph(SceneGraph("1", 100, 100, objects))


def is_(name, attribute, *described):
    return HasAttribute(Phrase(name, described), attribute)


def rel(subject, predicate, object_):
    """'red star' is a star with one attribute."""

    def phrase(words):
        *attributes, name = words.split("_")
        return Phrase(name, tuple(attributes))

    return Related(phrase(subject), predicate, phrase(object_))


# ---- attributes


def test_an_annotated_attribute_is_true_and_excludes_its_class():
    graph = image(a=thing("star", attributes=["red", "large"]))
    assert holds(graph, is_("star", "red")) is TRUE
    assert holds(graph, is_("star", "green")) is FALSE
    assert holds(graph, is_("star", "small")) is FALSE


def test_without_an_annotated_value_of_the_class_nothing_is_known():
    graph = image(a=thing("star", attributes=["large"]))
    assert holds(graph, is_("star", "red")) is UNKNOWN
    assert holds(graph, is_("star", "no such attribute")) is UNKNOWN


@pytest.mark.parametrize(
    ("annotated", "claimed"),
    [
        (["gray"], "silver"),
        (["dark blue"], "blue"),
        (["red"], "dark"),
        (["tan"], "beige"),
        (["red", "striped"], "white"),
        (["red", "white"], "blue"),
        (["wood"], "wicker"),
        (["huge"], "large"),
        (["square"], "rectangular"),
    ],
)
def test_values_that_may_go_together_refute_nothing(annotated, claimed):
    assert holds(image(a=thing("thing", attributes=annotated)), is_("thing", claimed)) is UNKNOWN


@pytest.mark.parametrize("name", ["zebra", "flags", "stop sign", "pizza"])
def test_one_colour_of_what_usually_has_several_excludes_no_other(name):
    graph = image(a=thing(name, attributes=["white", "large"]))
    assert holds(graph, is_(name, "white")) is TRUE
    assert holds(graph, is_(name, "black")) is UNKNOWN
    assert holds(graph, is_(name, "small")) is FALSE


def test_annotations_that_contradict_each_other_prove_nothing():
    graph = image(a=thing("door", attributes=["open", "closed"]))
    assert holds(graph, is_("door", "open")) is UNKNOWN
    assert holds(graph, is_("door", "closed")) is UNKNOWN


def test_two_colours_are_both_true():
    graph = image(a=thing("bus", attributes=["red", "white"]))
    assert holds(graph, is_("bus", "red")) is TRUE
    assert holds(graph, is_("bus", "white")) is TRUE


def test_an_attribute_is_false_only_if_it_is_false_of_every_namesake():
    red, blue, plain = (thing("star", attributes=a) for a in (["red"], ["blue"], []))
    assert holds(image(a=red, b=blue), is_("star", "green")) is FALSE
    assert holds(image(a=red, b=blue), is_("star", "blue")) is TRUE
    assert holds(image(a=red, b=plain), is_("star", "green")) is UNKNOWN


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("elephant", "elephants"),
        ("doorknobs", "doorknob"),
        ("man", "person"),
        ("tree", "palm tree"),
        ("man", "skier"),
        ("couch", "sofa"),
    ],
)
def test_plurals_wider_names_and_synonyms_are_namesakes(name, other):
    graph = image(a=thing(name, attributes=["red"]), b=thing(other, attributes=["blue"]))
    assert holds(graph, is_(name, "blue")) is UNKNOWN
    assert holds(graph, is_(name, "green")) is FALSE


@pytest.mark.parametrize(
    ("name", "other"), [("man", "woman"), ("car", "bus"), ("elephant", "bear")]
)
def test_names_that_exclude_each_other_are_not_namesakes(name, other):
    graph = image(a=thing(name, attributes=["red"]), b=thing(other, attributes=["blue"]))
    assert holds(graph, is_(name, "blue")) is FALSE


@pytest.mark.parametrize("name", ["dog", "horses", "zebra", "flag", "pizza"])
def test_one_annotated_colour_of_what_is_often_piebald_denies_no_other(name):
    graph = image(a=thing(name, attributes=["black"]))
    assert holds(graph, is_(name, "black")) is TRUE
    assert holds(graph, is_(name, "white")) is UNKNOWN


def test_a_name_that_nothing_bears_is_unknown():
    assert holds(image(a=thing("star")), is_("ring", "red")) is UNKNOWN
    graph = image(a=thing("star", LEFT_BOX), b=thing("ring", RIGHT_BOX))
    assert holds(graph, rel("star", "to the right of", "cross")) is UNKNOWN
    assert holds(graph, rel("star", "to the right of", "star")) is UNKNOWN


def test_a_described_phrase_means_those_it_is_not_ruled_out_for():
    red = thing("star", attributes=["red", "small"])
    plain = thing("star", attributes=["large"])
    assert holds(image(a=red), is_("star", "large", "red")) is FALSE
    assert holds(image(a=red, b=plain), is_("star", "large", "red")) is UNKNOWN


# ---- relations: boxes


def test_boxes_refute_the_wrong_direction_and_prove_only_what_lies_straight_over_another():
    graph = image(
        a=thing("star", LEFT_BOX),
        b=thing("ring", RIGHT_BOX),
        c=thing("cross", HIGH_BOX),
        d=thing("moon", LOW_BOX),
    )
    assert holds(graph, rel("star", "to the right of", "ring")) is FALSE
    assert holds(graph, rel("star", "to the left of", "ring")) is UNKNOWN
    assert holds(graph, rel("moon", "above", "cross")) is FALSE
    assert holds(graph, rel("cross", "under", "moon")) is FALSE
    assert holds(graph, rel("moon", "below", "cross")) is TRUE
    assert holds(graph, rel("cross", "above", "moon")) is TRUE


def over(name, **edges):
    """A thing straight over a car, and another one beside it."""
    return image(
        a=thing(name, HIGH_BOX, **edges), b=thing("car", LOW_BOX), c=thing("car", LEFT_BOX),
        w=thing("wall", (0, 0, 100, 60)), t=thing("table", (0, 60, 100, 40)),
    )  # fmt: skip


def test_what_hangs_is_above_what_its_box_lies_straight_over():
    for graph in (over("clock"), over("bird", w="flying over"), over("pan", w="hanging on")):
        assert graph.relation(0, "above", 1) is TRUE
        assert graph.relation(1, "below", 0) is TRUE
        assert graph.stated(0, 1) == ("above",)
        assert graph.relation(0, "above", 2) is UNKNOWN  # higher, and beside it


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("hat", TRUE), ("star", TRUE), ("cup", TRUE), ("log", UNKNOWN), ("statue", UNKNOWN)],
)
def test_what_stands_on_the_ground_itself_is_not_above_what_it_is_behind(name, verdict):
    graph = image(a=thing(name, HIGH_BOX), b=thing("zebra", LOW_BOX))
    assert holds(graph, rel(name, "above", "zebra")) is verdict
    assert holds(graph, rel("zebra", "below", name)) is verdict
    assert holds(graph, rel("zebra", "above", name)) is FALSE


@pytest.mark.parametrize(
    ("name", "edges"),
    [("truck", {}), ("bird", {}), ("sky", {}), ("clock", {"t": "on"}), ("sign", {"t": "lying on"})],
)
def test_a_higher_box_alone_may_be_further_away(name, edges):
    graph = over(name, **edges)
    assert graph.relation(0, "above", 1) is UNKNOWN
    assert graph.relation(1, "below", 0) is UNKNOWN


@pytest.mark.parametrize(
    ("edge", "verdict"),
    [("to the left of", TRUE), ("near", TRUE), ("in front of", UNKNOWN), ("below", UNKNOWN)],
)
def test_what_is_annotated_beside_a_higher_box_must_not_speak_against_it(edge, verdict):
    assert over("clock", b=edge).relation(0, "above", 1) is verdict


@pytest.mark.parametrize("box", [(15, 40, 60, 20), (40, 40, 4, 4), (42, 40, 14, 20)])
def test_nested_and_nearly_level_boxes_refute_no_direction(box):
    graph = image(a=thing("star", box), b=thing("ring", (40, 40, 15, 20)))
    for predicate in ("to the left of", "to the right of", "above", "below"):
        assert holds(graph, rel("star", predicate, "ring")) is UNKNOWN


def test_boxes_without_area_prove_nothing():
    graph = image(a=thing("star", LEFT_BOX), b=thing("ring", (90, 40, 0, 0)))
    assert holds(graph, rel("star", "to the right of", "ring")) is UNKNOWN
    assert holds(graph, rel("star", "on", "ring")) is UNKNOWN


def test_things_that_lie_apart_do_not_touch():
    graph = image(
        a=thing("cup", LEFT_BOX),
        b=thing("table", RIGHT_BOX),
        c=thing("grass", RIGHT_BOX),
        d=thing("kite", RIGHT_BOX),
    )
    for predicate in ("on", "in", "inside", "standing on", "covered by"):
        assert holds(graph, rel("cup", predicate, "table")) is FALSE
        # There may be more grass than was annotated.
        assert holds(graph, rel("cup", predicate, "grass")) is UNKNOWN
    assert holds(graph, rel("cup", "near", "table")) is UNKNOWN
    assert holds(graph, rel("cup", "holding", "kite")) is UNKNOWN  # by its string


def test_a_horse_is_held_from_afar_but_ridden_from_near():
    graph = image(a=thing("man", LEFT_BOX, b="on"), b=thing("horse", RIGHT_BOX))
    assert holds(graph, rel("man", "riding", "horse")) is FALSE
    assert holds(graph, rel("man", "on", "horse")) is UNKNOWN  # annotated all the same
    assert holds(graph, rel("man", "holding", "horse")) is UNKNOWN


def test_a_relation_is_false_only_if_it_is_false_of_every_pair():
    ring = thing("ring", (45, 40, 10, 10))
    left, right = thing("star", LEFT_BOX), thing("star", RIGHT_BOX)
    assert holds(image(a=left, r=ring), rel("star", "to the right of", "ring")) is FALSE
    assert holds(image(a=left, b=right, r=ring), rel("star", "to the right of", "ring")) is UNKNOWN
    red, blue = thing("star", LEFT_BOX, ["red"]), thing("star", RIGHT_BOX, ["blue"])
    graph = image(a=red, b=blue, r=ring)
    assert holds(graph, rel("red_star", "to the right of", "ring")) is FALSE
    assert holds(graph, rel("blue_star", "to the right of", "ring")) is UNKNOWN
    # No star is green: whatever is claimed of a green one is false.
    assert holds(graph, rel("green_star", "to the left of", "ring")) is FALSE


# ---- relations: annotated edges


def test_an_edge_is_true_with_what_follows_from_it():
    graph = image(a=thing("cat", b="sitting on"), b=thing("box", c="under"), c=thing("table"))
    assert holds(graph, rel("cat", "sitting on", "box")) is TRUE
    assert holds(graph, rel("cat", "on", "box")) is TRUE
    assert holds(graph, rel("box", "beneath", "table")) is TRUE
    assert holds(graph, rel("box", "below", "table")) is TRUE
    assert holds(graph, rel("table", "above", "box")) is TRUE
    assert holds(graph, rel("cat", "standing on", "box")) is FALSE
    assert holds(graph, rel("cat", "wearing", "box")) is UNKNOWN


@pytest.mark.parametrize(
    ("edge", "refuted"),
    [
        ("to the left of", "to the right of"),
        ("in front of", "behind"),
        ("parked in front of", "behind"),
        ("on", "under"),
        ("inside", "outside"),
        ("inside", "to the left of"),
        ("wearing", "eating"),
        ("pulling", "pushing"),
        ("taller than", "shorter than"),
    ],
)
def test_an_edge_leaves_no_room_for_what_it_excludes(edge, refuted):
    graph = image(a=thing("man", b=edge), b=thing("thing"))
    assert holds(graph, rel("man", refuted, "thing")) is FALSE


@pytest.mark.parametrize(
    "edge", ["to the left of", "above", "behind", "on", "inside", "wearing", "riding", "parked on"]
)
def test_the_exchange_of_an_asymmetric_edge_is_false(edge):
    graph = image(a=thing("man", b=edge), b=thing("thing"))
    assert holds(graph, rel("thing", edge, "man")) is FALSE


@pytest.mark.parametrize(
    "edge",
    ["next to", "near", "with", "touching", "hugging", "walking with", "looking at", "holding"],
)
def test_the_exchange_of_an_edge_that_may_be_mutual_is_not_false(edge):
    graph = image(a=thing("man", b=edge), b=thing("dog"))
    assert holds(graph, rel("dog", edge, "man")) is not FALSE


def test_only_people_and_animals_have_one_posture():
    graph = image(a=thing("bottle", b="standing on"), b=thing("table"))
    assert holds(graph, rel("bottle", "sitting on", "table")) is UNKNOWN


def test_an_edge_that_the_boxes_contradict_proves_nothing():
    graph = image(a=thing("star", RIGHT_BOX, b="to the left of"), b=thing("ring", LEFT_BOX))
    assert holds(graph, rel("star", "to the left of", "ring")) is UNKNOWN
    assert holds(graph, rel("star", "to the right of", "ring")) is UNKNOWN
    assert holds(graph, rel("ring", "to the right of", "star")) is UNKNOWN


def test_an_edge_whose_ends_lie_apart_excludes_nothing():
    graph = image(a=thing("cup", LEFT_BOX, b="inside"), b=thing("box", RIGHT_BOX))
    assert holds(graph, rel("cup", "inside", "box")) is UNKNOWN
    assert holds(graph, rel("cup", "outside", "box")) is UNKNOWN


def test_an_edge_excludes_no_direction_that_the_boxes_favour():
    # What hangs on something is on it and under it at once.
    graph = image(
        a=thing("lamp", (40, 30, 10, 20), b="on"),
        b=thing("shelf", (20, 10, 60, 22)),
        c=thing("cup", (40, 0, 10, 12), b="on"),
    )
    assert holds(graph, rel("lamp", "under", "shelf")) is UNKNOWN
    assert holds(graph, rel("cup", "under", "shelf")) is FALSE


def test_edges_that_contradict_each_other_prove_nothing():
    graph = image(a=thing("star", b="in front of"), b=thing("ring", a="in front of"))
    for predicate in ("in front of", "behind"):
        assert holds(graph, rel("star", predicate, "ring")) is UNKNOWN
        assert holds(graph, rel("ring", predicate, "star")) is UNKNOWN


def test_an_edge_of_one_namesake_makes_the_claim_true_for_the_name():
    graph = image(
        a=thing("star", LEFT_BOX),
        b=thing("star", RIGHT_BOX, r="to the right of"),
        r=thing("ring", (45, 40, 10, 10)),
    )
    assert holds(graph, rel("star", "to the right of", "ring")) is TRUE


# ---- relations: simultaneous actions


def people(**objects):
    """Two people side by side, with things in between that may be either's."""
    man = objects.pop("man", {})
    woman = objects.pop("woman", {})
    return image(
        man=thing("man", (0, 20, 40, 80), **man),
        woman=thing("woman", (55, 20, 40, 80), **woman),
        **objects,
    )


@pytest.mark.parametrize(
    ("name", "done", "by_another", "verdict"),
    [
        ("hat", "wearing", "wearing", FALSE),
        ("hat", "wearing", "carrying", FALSE),
        ("hat", "wearing", "holding", UNKNOWN),  # she puts it on his head
        ("hats", "wearing", "wearing", UNKNOWN),
        ("racket", "holding", "swinging", FALSE),
        ("racket", "carrying", "holding", FALSE),
        ("rope", "holding", "holding", UNKNOWN),
        ("horse", "riding", "riding", UNKNOWN),
        ("skateboard", "riding", "riding", FALSE),
        ("car", "driving", "driving", FALSE),
        ("car", "driving", "riding", UNKNOWN),
        ("cell phone", "talking on", "using", FALSE),
    ],
)
def test_what_one_does_with_a_thing_nobody_else_does(name, done, by_another, verdict):
    graph = people(man={"t": done}, t=thing(name, (38, 50, 20, 20)))
    assert holds(graph, rel("woman", by_another, name)) is verdict


def test_one_person_boxed_twice_is_not_another_one():
    box, hat = (0, 20, 40, 80), thing("hat", (10, 20, 10, 10))
    twice = image(a=thing("man", box, h="wearing"), b=thing("person", (2, 22, 36, 70)), h=hat)
    assert twice.relation(1, "wearing", 2) is UNKNOWN
    child = image(a=thing("man", box, h="wearing"), b=thing("girl", (2, 22, 20, 20)), h=hat)
    assert child.relation(1, "wearing", 2) is FALSE
    crowd = people(man={"h": "wearing"}, h=hat, c=thing("people", (60, 0, 40, 100)))
    assert holds(crowd, rel("people", "wearing", "hat")) is not FALSE  # he is one of them


def test_two_wearers_of_one_hat_prove_nothing():
    graph = people(man={"t": "wearing"}, woman={"t": "wearing"}, t=thing("hat", (38, 30, 20, 10)))
    for name in ("man", "woman"):
        assert holds(graph, rel(name, "wearing", "hat")) is UNKNOWN


@pytest.mark.parametrize(
    ("done", "name", "other", "verdict"),
    [
        ("riding", "horse", "elephant", FALSE),
        ("riding", "horse", "carriage", UNKNOWN),
        ("sitting on", "bench", "chair", FALSE),
        ("sitting in", "chair", "couch", FALSE),
        ("sitting on", "bench", "blanket", UNKNOWN),
        ("driving", "car", "bus", FALSE),
    ],
)
def test_one_does_it_with_one_thing_at_a_time(done, name, other, verdict):
    one, two = thing(name, (20, 60, 20, 40)), thing(other, (45, 60, 20, 40))
    graph = people(man={"a": done}, a=one, b=two)
    assert graph.relation(graph.names.index("man"), done, 1) is verdict


@pytest.mark.parametrize(
    ("name", "edge", "claim", "verdict"),
    [
        ("man", "sitting on", "standing near", FALSE),
        ("man", "sitting on", "lying on", FALSE),
        ("man", "walking on", "sitting on", FALSE),
        ("man", "running on", "standing near", FALSE),
        ("man", "standing on", "walking on", UNKNOWN),
        ("man", "flying", "standing near", UNKNOWN),  # a kite
        ("men", "sitting on", "standing near", UNKNOWN),
        ("cat", "sitting on", "lying on", UNKNOWN),
        ("cat", "sitting on", "standing on", FALSE),
        ("bird", "flying over", "standing on", FALSE),
        ("car", "parked on", "driving on", FALSE),
        ("bottle", "standing on", "lying on", UNKNOWN),
    ],
)
def test_who_does_one_thing_does_no_other_meanwhile(name, edge, claim, verdict):
    graph = image(
        a=thing(name, (10, 20, 30, 60), g=edge),
        b=thing("bench", (20, 40, 40, 30)),
        g=thing("ground", (0, 50, 100, 50)),
    )
    assert holds(graph, rel(name, claim, "bench")) is verdict


def test_postures_come_from_attributes_and_relations():
    seated = image(a=thing("man", attributes=["seated"]), b=thing("wall"))
    assert holds(seated, rel("man", "standing near", "wall")) is FALSE
    assert holds(seated, rel("man", "sitting near", "wall")) is UNKNOWN
    on_bench = image(a=thing("man", b="sitting on"), b=thing("bench"))
    assert holds(on_bench, is_("man", "standing")) is FALSE
    assert holds(on_bench, is_("man", "sitting")) is UNKNOWN
    driving = image(a=thing("car", b="driving on"), b=thing("road"))
    assert holds(driving, is_("car", "parked")) is FALSE


def test_postures_that_contradict_each_other_prove_nothing():
    graph = image(
        a=thing("man", attributes=["standing"], b="sitting on"), b=thing("bench"), c=thing("rock")
    )
    assert holds(graph, rel("man", "sitting on", "bench")) is UNKNOWN
    assert holds(graph, is_("man", "standing")) is UNKNOWN
    assert holds(graph, rel("man", "standing on", "rock")) is UNKNOWN
    assert holds(graph, rel("man", "running to", "rock")) is FALSE


def test_what_has_its_weight_on_a_thing_does_not_begin_below_it():
    graph = image(
        a=thing("cat", (40, 62, 20, 20)),
        b=thing("table", (20, 40, 60, 20)),
        g=thing("floor", (20, 40, 60, 20)),
    )
    assert graph.relation(0, "lying on", 1) is FALSE
    assert graph.relation(0, "on", 1) is UNKNOWN  # a lamp would hang
    assert graph.relation(0, "lying on", 2) is UNKNOWN  # the floor extends beyond its box


def test_what_follows_and_the_other_end_are_stated():
    graph = image(
        a=thing("man", b="sitting on", c="carrying"),
        b=thing("bench", d="under"),
        c=thing("bag"),
        d=thing("tree"),
        e=thing("snow", b="covering"),
    )
    assert graph.stated(0, 1) == ("on", "sitting on")
    assert graph.stated(0, 2) == ("carrying", "holding")
    assert graph.stated(1, 3) == ("below", "under")
    assert graph.stated(4, 1) == ("covering", "on")
    assert graph.stated(1, 4) == ("covered by",)


# ---- numbers


def row_of(*names):
    return {f"o{i}": thing(name, (10 * i, 10, 8, 8)) for i, name in enumerate(names)}


def test_things_of_one_name_are_counted_and_compared():
    graph = image(**row_of("dog", "dog", "cat"))
    assert holds(graph, Counted("dog", 2)) is TRUE
    assert holds(graph, Counted("dog", 3)) is FALSE
    assert holds(graph, Compared("dog", "more", "cat")) is TRUE
    assert holds(graph, Compared("dog", "fewer", "cat")) is FALSE
    assert holds(graph, Compared("cat", "as many", "dog")) is FALSE
    assert holds(graph, Compared("cat", "fewer", "dog")) is TRUE


@pytest.mark.parametrize(
    "names",
    [
        ["dog", "dogs"],
        ["dog", "animal"],
        ["dog", "guide dog"],
        ["glass", "sunglasses"],
        ["man", "person"],
        ["water", "water"],
        ["window", "window"],
        ["hand", "hand"],
        ["crowd", "crowd"],
        ["jeans", "jeans"],
        ["sheep", "sheep"],
    ],
)
def test_what_could_be_more_or_fewer_is_not_counted(names):
    graph = image(**row_of(*names))
    for number in range(4):
        assert holds(graph, Counted(names[0], number)) is UNKNOWN
    assert holds(graph, Compared(names[0], "as many", "cup")) is UNKNOWN


def test_two_boxes_in_one_place_may_be_one_thing():
    apart = image(a=thing("dog", (10, 10, 20, 20)), b=thing("dog", (10, 18, 20, 20)))
    assert holds(apart, Counted("dog", 2)) is TRUE
    double = image(a=thing("dog", (10, 10, 20, 20)), b=thing("dog", (11, 11, 20, 20)))
    assert holds(double, Counted("dog", 2)) is UNKNOWN
    assert holds(double, Counted("dog", 1)) is UNKNOWN


# ---- joined claims


def test_not_both_and_either_are_three_valued():
    graph = image(a=thing("star", LEFT_BOX, ["red"]), b=thing("ring", RIGHT_BOX, ["blue"]))
    true, false, unknown = is_("star", "red"), is_("star", "green"), is_("star", "large")
    also_true = is_("ring", "blue")
    verdicts = {
        Not(true): FALSE,
        Not(false): TRUE,
        Not(unknown): UNKNOWN,
        Both(true, also_true): TRUE,
        Both(true, false): FALSE,
        Both(unknown, false): FALSE,
        Both(true, unknown): UNKNOWN,
        Either(true, false): TRUE,
        Either(false, true): TRUE,
        Either(true, also_true): FALSE,
        Either(false, is_("ring", "green")): FALSE,
        Either(unknown, true): UNKNOWN,
        Either(false, unknown): UNKNOWN,
    }
    assert {claim: holds(graph, claim) for claim in verdicts} == verdicts


def test_there_is_none_only_if_it_is_refuted_for_every_namesake():
    two = row_of("star", "star") | {"b": thing("ring", (90, 90, 5, 5), ["blue"])}
    graph = image(**two)
    assert holds(graph, Not(rel("star", "below", "ring"))) is TRUE
    one_below = two | {"c": thing("star", (50, 97, 5, 3))}
    assert holds(image(**one_below), Not(rel("star", "below", "ring"))) is not TRUE


def test_what_is_stated_and_refuted_of_a_pair_agrees_with_single_queries():
    graph = image(
        a=thing("man", HIGH_BOX, b="riding", c="to the left of"),
        b=thing("horse", (40, 34, 20, 60)),
        c=thing("hat", RIGHT_BOX),
        d=thing("cup", (44, 31, 12, 10)),
    )
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    for i, j in pairs:
        names = graph.names[i], graph.names[j]
        said = predicates.offer(*names).predicates
        refuted = [p for p in said if graph.relation(i, p, j) is FALSE]
        assert [*graph.refuted_predicates(i, j)] == refuted
        assert all(graph.relation(i, p, j) is TRUE for p in graph.stated(i, j))
    assert graph.stated(0, 1) == ("on", "riding")
    assert graph.stated(0, 2) == ("to the left of",)
    assert graph.stated(2, 0) == ("to the right of",)
    assert "below" in graph.refuted_predicates(3, 1)
