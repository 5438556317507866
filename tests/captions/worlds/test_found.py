"""What this check has found in hnc_ds, each as the smallest graph that showed it."""

from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.truth.claims import HasAttribute, Phrase, Related
from hnc_ds.captions.truth.holds import is_refuted
from hnc_ds.captions.truth.indexed_graph import IndexedGraph
from hnc_ds.records import Relation, SceneGraph, SceneObject
from tests.captions.worlds.captions_of import captions_of


def thing(name, x=0, attributes=(), relations=(), width=60):
    edges = tuple(Relation(name=predicate, object=other) for predicate, other in relations)
    return SceneObject(name, x, 100, width, 200, attributes=attributes, relations=edges)


def graph(*things) -> SceneGraph:
    return SceneGraph("1", 1000, 400, {str(number): one for number, one in enumerate(things)})


def refutes(found: SceneGraph, claim: HasAttribute | Related) -> bool:
    return is_refuted(IndexedGraph(found), claim)


def positives(found: SceneGraph) -> list[str]:
    options = Options(max_groups=200, balance="data")
    return [
        group.positive
        for seed in range(20)
        for group in captions_of(found, DEFAULT_TYPES, options, seed)
    ]


def test_what_two_women_do_is_not_said_of_one():
    found = graph(
        thing("woman", 0, (), [("holding", "2"), ("to the left of", "4")]),
        thing("woman", 500, (), [("pushing", "3"), ("to the right of", "4")]),
        thing("umbrella", 40),
        thing("cart", 540),
        thing("dog", 280),
    )
    joined = [caption for caption in positives(found) if caption.startswith("A woman is both")]
    assert any("pushing" in caption for caption in joined)
    assert not any("pushing" in caption and "holding" in caption for caption in joined), joined


def test_two_annotations_of_one_thing_are_not_two_things():
    found = graph(
        thing("man", 0, (), [("holding", "2")]),
        thing("guy", 2, (), [("in front of", "3")]),
        thing("umbrella", 40),
        thing("cart", 540, (), [("near", "2")]),
    )
    both = [caption for caption in positives(found) if "both a man " in caption]
    assert not any(" a guy " in caption for caption in both), both


def test_a_wheel_may_be_called_a_tire_and_a_shod_foot_a_shoe():
    for name, other in (("wheel", "tire"), ("foot", "shoe")):
        found = graph(thing(name, 0), thing("dog", 300), thing(other, 600))
        claim = Related(Phrase(other), "to the left of", Phrase("dog"))
        assert not refutes(found, claim), name
        assert refutes(
            graph(thing("dog", 0), thing(other, 600)),
            Related(Phrase(other), "to the left of", Phrase("dog")),
        )


def test_who_is_seated_may_crouch_or_squat():
    found = graph(thing("dog", 0, ("seated",)))
    for attribute, refuted in (("crouching", False), ("squatting", False), ("standing", True)):
        assert refutes(found, HasAttribute(Phrase("dog"), attribute)) == refuted, attribute


def test_of_contradicting_postures_neither_refutes():
    cat = thing("cat", 0, ("lying down", "standing"), [("petting", "1")])
    found = graph(cat, thing("duck", 30))
    assert not refutes(found, Related(Phrase("cat"), "walking next to", Phrase("duck")))
    assert not refutes(found, HasAttribute(Phrase("cat"), "walking"))
    assert not refutes(
        graph(thing("cat", 0, ("lying", "seated"))), HasAttribute(Phrase("cat"), "crouching")
    )
    sure = graph(thing("cat", 0, ("lying down",), [("petting", "1")]), thing("duck", 30))
    assert refutes(sure, Related(Phrase("cat"), "walking next to", Phrase("duck")))
    assert refutes(sure, HasAttribute(Phrase("cat"), "walking"))


def test_who_drives_something_may_be_said_to_ride_it():
    found = graph(thing("man", 0, (), [("driving", "1")]), thing("motorcycle", 10))
    assert not refutes(found, Related(Phrase("man"), "riding", Phrase("motorcycle")))
    assert refutes(found, Related(Phrase("man"), "pushing", Phrase("motorcycle")))


def test_who_stands_on_a_board_that_another_one_rides_may_ride_it_too():
    riding = Related(Phrase("dog"), "riding", Phrase("surfboard"))
    man, board = thing("man", 0, (), [("riding", "1")]), thing("surfboard", 20)
    assert refutes(graph(man, board, thing("dog", 50)), riding)
    edges = [("standing on", "1")]
    assert not refutes(graph(man, board, thing("dog", 50, (), edges, 20)), riding)


def test_the_same_way_goes_up_and_down():
    found = graph(thing("boy", 300, (), [("walking down", "1")]), thing("street", 0, width=800))
    claim = Related(Phrase("boy"), "walking up", Phrase("street"))
    assert not refutes(found, claim)


def test_of_contradicting_annotations_narrower_ones_prove_nothing_either():
    edges = [("in front of", "1"), ("behind", "1")]
    found = graph(thing("cat", 0, (), edges), thing("man", 10))
    claim = Related(Phrase("man"), "standing behind", Phrase("cat"))
    assert not refutes(found, claim)
    found = graph(thing("cat", 0, (), edges[1:]), thing("man", 10))
    assert refutes(found, claim)
