"""Both and either, where words balance over the data set."""

import re

import pytest

from hnc_ds.captions.language.wording import sentence
from hnc_ds.captions.negatives import changes
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
        "The star is red and the ring is blue.",
        "The ring is blue and the star is red.",
    }
    for form in (
        "There is both a {} star and a blue ring.",
        "The star is {} and the ring is blue.",
    ):
        assert (form.format("red"), form.format("green")) in found
    assert with_words(proposed(star_and_ring(["orange"]), "and_logic_attr"), "an orange star")
    for true, false in found:
        assert says(false, "red", "star") != says(false, "blue", "ring")
        assert not says(false, "blue", "star")  # the companion's value reveals nothing
        assert not says(false, "red", "ring")
        assert true.startswith("There is both") == false.startswith("There is both")


def says(text, value, name):
    """Whether a caption states it, before the noun or in a clause of its own."""
    return bool(re.search(rf"\ban? {value} {name}\b|\bthe {name} is {value}\b", text.lower()))


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
    for form in (
        "There is either a {} star or a {} ring.",
        "Either the star is {} or the ring is {}.",
    ):
        both = form.format("green", "blue"), form.format("red", "blue")
        assert both in found
        neither = form.format("red", "yellow"), form.format("green", "yellow")
        assert neither in found
    for true, false in found:
        assert says(true, "red", "star") != says(true, "blue", "ring")
        assert says(false, "red", "star") == says(false, "blue", "ring")


@pytest.mark.parametrize("type_", ["and_logic_attr", "xor_logic_attr"])
def test_a_door_of_which_there_may_be_others_changes_in_a_clause_of_its_own(type_):
    objects = {
        "a": thing("door", (10, 10, 20, 20), ["red"]),
        "b": thing("ring", (70, 70, 20, 20), ["blue"]),
    }
    changed = {
        pair
        for pair in proposed(objects, type_, 80)
        if says(pair[0], "red", "door") != says(pair[1], "red", "door")
    }
    assert changed
    for text in (text for pair in changed for text in pair):
        assert "the door is" in text.lower(), text
        assert "the ring is" in text.lower(), text


@pytest.mark.parametrize("type_", ["and_logic_rel", "xor_logic_rel"])
def test_of_things_of_which_there_may_be_others_relations_change_in_clauses(type_):
    """Not 'There is both a leaf above the ring and ...': there may be others, not boxed."""
    objects = {
        "a": thing("leaf", (10, 10, 20, 20), (), ("above", "b")),
        "b": thing("ring", (10, 70, 20, 20)),
        "c": thing("dog", (70, 10, 20, 20), (), ("holding", "d")),
        "d": thing("cup", (72, 20, 9, 9)),
    }
    found = proposed(objects, type_, 80)
    texts = {text for pair in found for text in pair if "leaf is" in text}
    assert any("leaf is above the ring" in text for text in texts)
    assert any("leaf is below the ring" in text for text in texts)
    for text in texts:
        assert re.fullmatch(r"(The|Either the) \w+ is [^.]* (and|or) the \w+ is [^.]*\.", text)
    assert not with_words(found, "There is", "leaf")
    several = objects | {"e": thing("leaf", (70, 90, 9, 9))}
    for true, false in proposed(several, type_, 80):
        assert "leaf is" not in true + false  # which one?


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
    cross, star = "he cross is to the right of the ring", "he star is above the ring"
    true = f"T{cross} and t{star}."
    assert (true, f"T{cross} and the star is below the ring.") in found
    assert (true, f"The cross is to the left of the ring and t{star}.") in found
    for true, _ in found:
        assert re.fullmatch(r"The \w+ is (both [^.]* and [^.]*|[^.]* and the \w+ is [^.]*)\.", true)


def test_of_one_of_several_things_there_is_one_that_changes():
    objects = row() | {"d": thing("star", (70, 10, 20, 20))}
    found = proposed(objects, "and_logic_rel", 80)
    ring, star = "a ring to the left of the cross", "a star above the ring"
    true = f"There is both {ring} and {star}."  # 'the ring' only after 'a ring'
    assert (true, f"There is both a ring to the right of the cross and {star}.") in found
    assert (true, f"There is both {ring} and a star below the ring.") in found
    assert not [text for pair in found for text in pair if "the star" in text.lower()]


def test_two_relations_of_one_thing_are_said_together():
    found = proposed(row(star=[("to the left of", "c")]), "and_logic_rel", 120)
    true = "The star is both above the ring and to the left of the cross."
    assert (true, "The star is both below the ring and to the left of the cross.") in found
    assert (true, "The star is both above the ring and to the right of the cross.") in found


def test_either_says_one_of_two_relations():
    found = proposed(row(), "xor_logic_rel", 80)
    cross, no_cross = (f"the cross is to the {side} of the ring" for side in ("right", "left"))
    star, no_star = "the star is above the ring", "the star is below the ring"
    for true, false in [
        ((cross, no_star), (cross, star)),
        ((no_cross, star), (cross, star)),
        ((cross, no_star), (no_cross, no_star)),
        ((no_cross, star), (no_cross, no_star)),
    ]:
        said = (f"Either {a} or {b}." for a, b in (true, false))
        assert tuple(said) in found


def test_either_names_two_ends_of_one_predicate_before_and_after_the_change():
    side = "to the left of"
    objects = {
        "a": thing("star", (5, 40, 10, 10), (), (side, "b"), (side, "c"), (side, "f")),
        "b": thing("ring", (40, 40, 10, 10), (), ("behind", "c"), ("in front of", "d")),
        "c": thing("cross", (80, 40, 10, 10), (), ("near", "d")),
        "d": thing("box", (5, 80, 10, 10), (), ("below", "a")),
        "e": thing("cup", (0, 5, 4, 4), (), (side, "a")),
        "f": thing("lamp", (60, 5, 4, 4)),
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

    monkeypatch.setattr(changes, "sentence", kept)
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
