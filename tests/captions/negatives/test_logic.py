"""Both and either, where words balance over the data set."""

import pytest

from hnc_ds.captions.language.wording import sentence
from hnc_ds.captions.negatives import exchange
from hnc_ds.captions.truth.holds import holds
from hnc_ds.captions.truth.indexed_graph import FALSE, TRUE, IndexedGraph
from hnc_ds.records import SceneGraph
from tests.captions.negatives.small_scenes import proposed, thing


def star_and_ring(star=("red",), ring=("blue",)):
    return {
        "a": thing("star", (10, 10, 20, 20), star),
        "b": thing("ring", (70, 70, 20, 20), ring),
    }


def row(**more):
    """A star above a ring, and a ring to the left of a cross."""
    return {
        "a": thing("star", (10, 10, 20, 20), (), ("above", "b"), *more.get("star", ())),
        "b": thing("ring", (10, 70, 20, 20), (), ("to the left of", "c")),
        "c": thing("cross", (70, 70, 20, 20)),
    }


def with_words(found, *words):
    return {pair for pair in found if all(word in f"{pair[0]} {pair[1]}" for word in words)}


def test_one_of_two_attributes_changes_and_the_other_stands_beside_it_in_either_order():
    found = proposed(star_and_ring(), "and_logic_attr", 80)
    assert {true for true, _ in found} == {
        "There is both a red star and a blue ring.",
        "There is both a blue ring and a red star.",
    }
    assert (
        "There is both a red star and a blue ring.",
        "There is both a green star and a blue ring.",
    ) in found
    assert with_words(proposed(star_and_ring(["orange"]), "and_logic_attr"), "an orange star")
    for _, false in found:
        assert (" red star" in false) != (" blue ring" in false)
        assert "a blue star" not in false  # the companion's value gives nothing away
        assert "a red ring" not in false


def test_two_attributes_of_one_thing_are_said_together():
    found = proposed({"a": thing("table", (10, 10, 20, 20), ["wood", "large"])}, "and_logic_attr")
    assert {true for true, _ in found} == {
        "The table is both made of wood and large.",
        "The table is both large and made of wood.",
    }
    assert with_words(found, "The table is both made of metal and large.")


def test_of_several_things_of_a_name_not_both_attributes_are_said_of_one():
    objects = {
        "a": thing("cup", (10, 10, 20, 20), ["red"]),
        "b": thing("cup", (70, 70, 20, 20), ["large"]),
    }
    assert not proposed(objects, "and_logic_attr")
    assert not proposed(objects, "xor_logic_attr")


def test_either_says_one_of_two_with_both_or_with_neither_beside_it():
    found = proposed(star_and_ring(), "xor_logic_attr", 300)
    both = (
        "There is either a green star or a blue ring.",
        "There is either a red star or a blue ring.",
    )
    assert both in found
    neither = with_words(found, "There is either a red star or a yellow ring.", "a green star or")
    assert neither == {
        (
            "There is either a red star or a yellow ring.",
            "There is either a green star or a yellow ring.",
        )
    }
    for true, false in found:
        assert (" red star" in true) != (" blue ring" in true)
        assert (" red star" in false) == (" blue ring" in false)


@pytest.mark.parametrize("type_", ["and_logic_attr", "xor_logic_attr"])
def test_a_change_that_may_hold_of_something_unboxed_stands_beside_nothing_else(type_):
    objects = {
        "a": thing("door", (10, 10, 20, 20), ["red", "large"]),
        "b": thing("ring", (70, 70, 20, 20)),
    }
    found = proposed(objects, type_)
    assert found
    assert all(text.startswith("The door is ") for pair in found for text in pair)


def test_one_of_two_relations_changes():
    found = proposed(row(), "and_logic_rel")
    ring, star = "a ring to the left of the cross", "a star above the ring"
    true = f"There is both {ring} and {star}."  # 'the ring' only after 'a ring'
    assert {one for one, _ in found} == {true}
    assert (true, f"There is both {ring} and a star below the ring.") in found
    assert (true, f"There is both a ring to the right of the cross and {star}.") in found


def test_two_relations_of_one_thing_are_said_together():
    found = proposed(row(star=[("to the left of", "c")]), "and_logic_rel")
    true = "The star is both above the ring and to the left of the cross."
    assert (true, "The star is both below the ring and to the left of the cross.") in found
    assert (true, "The star is both above the ring and to the right of the cross.") in found


def test_either_says_one_of_two_relations():
    found = proposed(row(), "xor_logic_rel", 80)
    ring, no_ring = (f"a ring to the {side} of the cross" for side in ("left", "right"))
    star, no_star = "a star above the ring", "a star below the ring"
    for true, false in [
        ((ring, no_star), (ring, star)),
        ((no_ring, star), (ring, star)),
        ((ring, no_star), (no_ring, no_star)),
        ((no_ring, star), (no_ring, no_star)),
    ]:
        said = (f"There is either {a} or {b}." for a, b in (true, false))
        assert tuple(said) in found


def test_either_names_two_ends_of_one_predicate_before_and_after_the_change():
    side = "to the left of"
    objects = {
        "a": thing("star", (5, 40, 10, 10), (), (side, "b"), (side, "c")),
        "b": thing("ring", (40, 40, 10, 10)),
        "c": thing("cross", (80, 40, 10, 10)),
        "d": thing("box", (5, 80, 10, 10), (), ("below", "a")),
        "e": thing("cup", (0, 5, 4, 4), (), (side, "a")),
    }
    found = proposed(objects, "xor_logic_rel", 80)
    start = "The star is to the left of either"
    assert (f"{start} the cup or the cross.", f"{start} the ring or the cross.") in found
    ends = {pair for pair in found if pair[0].startswith("The star is to the left of")}
    assert all(text.startswith(start) for pair in ends for text in pair)


def test_what_is_said_of_any_of_several_things_is_not_joined_by_either():
    objects = {
        "a": thing("leg", (5, 10, 10, 10), (), ("above", "c"), ("to the left of", "d")),
        "b": thing("leg", (40, 10, 10, 10), (), ("above", "d")),
        "c": thing("ring", (5, 70, 10, 10)),
        "d": thing("box", (70, 70, 10, 10)),
    }
    found = proposed(objects, "xor_logic_rel", 60)
    assert not [pair for pair in found if pair[0].startswith("A leg")]


@pytest.mark.parametrize(
    "type_", ["and_logic_attr", "and_logic_rel", "xor_logic_attr", "xor_logic_rel"]
)
def test_true_captions_hold_and_false_ones_are_refuted(type_, monkeypatch):
    claims = {}

    def kept(claim):
        return claims.setdefault(sentence(claim), claim) and sentence(claim)

    monkeypatch.setattr(exchange, "sentence", kept)
    objects = row(star=[("to the left of", "c")])
    objects |= {
        "d": thing("dog", (60, 10, 20, 20), ["black", "large"], ("to the right of", "a")),
        "e": thing("cup", (40, 40, 9, 9), ["red", "plastic"], ("above", "c"), ("below", "d")),
        "f": thing("cup", (1, 45, 9, 9), ["blue"]),
        "g": thing("box", (40, 90, 9, 9), ["wood", "green"]),
    }
    graph = IndexedGraph(SceneGraph("1", 100, 100, objects))
    found = proposed(objects, type_)
    assert len(found) > 30
    for true, false in found:
        assert holds(graph, claims[true]) is TRUE, true
        assert holds(graph, claims[false]) is FALSE, false
