"""Referring expressions: what singles out an object, and what is not English."""

import pytest

from hnc_ds.captions.language.wording import sentence
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import SceneGraph
from tests.captions.negatives.small_scenes import (
    ALL,
    in_a_row,
    over_seeds,
    star_above_ring,
    thing,
)


def test_a_namesake_forces_an_attribute_that_singles_out():
    objects = star_above_ring() | {"c": thing("star", (80, 10, 10, 10), ["green"])}
    found = over_seeds(objects)
    positives = {positive for positive, _, _ in found}
    assert "The red star is above the blue ring." in positives
    assert not any(p.startswith(("The star is", "The stars are")) for p in positives)


@pytest.mark.parametrize("namesake", [["red"], [], ["large"]])
def test_an_object_that_words_cannot_single_out_has_no_definite_phrase(namesake):
    objects = star_above_ring() | {"c": thing("star", (80, 10, 10, 10), namesake)}
    for positive, _, _ in over_seeds(objects):
        assert "the star" not in positive.lower()
        assert "the red star" not in positive.lower()


def test_two_attributes_single_out_where_one_does_not_and_size_comes_first():
    objects = star_above_ring(star=("red", "large")) | {
        "c": thing("star", (80, 10, 10, 10), ["red", "small"]),
        "d": thing("star", (80, 30, 10, 10), ["green", "large"]),
    }
    positives = {positive for positive, _, _ in over_seeds(objects)}
    assert "The large red star is above the blue ring." in positives


def test_dark_and_blue_are_not_said_together_as_that_is_another_colour():
    objects = {
        "a": thing("bag", (10, 10, 10, 10), ["dark", "blue"], ("to the left of", "d")),
        "b": thing("bag", (10, 50, 10, 10), ["dark", "red"]),
        "c": thing("bag", (40, 50, 10, 10), ["bright", "blue"]),
        "d": thing("box", (80, 10, 10, 10), ["dark", "green"], ("to the right of", "a")),
    }
    found = over_seeds(objects, ALL)
    assert found
    texts = {text for positive, _, negative in found for text in (positive, negative)}
    assert not any("dark blue" in text or "dark red" in text for text in texts)


def statements(objects, kind):
    """The sentences that an image's statements make where words balance over the data set."""
    graph = SceneGraph("1", 100, 100, objects)
    image = DescribedImage(graph, "0/1", Options(balance="data"))
    return {sentence(statement.claim) for statement in getattr(image, kind)}


def test_one_of_several_things_has_an_attribute_as_any_of_them():
    objects = {
        "a": thing("shirt", (10, 10, 10, 10), ["red"]),
        "b": thing("shirt", (50, 10, 10, 10)),
        "c": thing("hat", (80, 10, 10, 10), ["blue"]),
    }
    texts = statements(objects, "attribute_statements")
    assert texts == {"A shirt is red.", "The hat is blue."}
    assert {p for p, _, _ in over_seeds(objects, ("attribute",))} <= {"The hat is blue."}


def test_existence_statements_are_about_any_thing_of_a_name():
    objects = {
        "a": thing("shirt", (10, 10, 10, 10), ["red"]),
        "b": thing("shirts", (50, 10, 10, 10), ["plaid"]),
        "c": thing("umbrella", (80, 10, 10, 10), ["blue"]),
    }
    texts = statements(objects, "existences")
    assert texts == {"A shirt is red.", "Some shirts are plaid.", "An umbrella is blue."}


@pytest.mark.parametrize("edge", ["of", "with", "contain", "between"])
def test_predicates_that_do_not_read_after_is_are_left_out(edge):
    assert not [f for f in over_seeds(star_above_ring(edge=edge), ALL, 5) if edge in f[0]]


def test_the_sky_and_body_parts_are_not_placed_left_or_right():
    for name in ("sky", "nose"):
        objects = {
            "a": thing(name, (10, 10, 20, 20), (), ("to the left of", "b")),
            "b": thing("man", (60, 10, 20, 20)),
        }
        assert not over_seeds(objects, ALL, 3)


def test_colours_of_people_are_not_mentioned_but_those_of_their_hair_are():
    objects = {
        "a": thing("woman", (1, 1, 9, 9), ["black", "blond"], ("near", "c")),
        "b": thing("man", (40, 1, 9, 9), ["brunette"]),
        "c": thing("bus", (60, 60, 9, 9), ["black"]),
        "d": thing("car", (60, 30, 9, 9), ["white"]),
    }
    texts = {text for positive, _, negative in over_seeds(objects) for text in (positive, negative)}
    assert "The woman is blond." in texts
    assert not any("black woman" in text or "woman is black" in text for text in texts)


def test_no_word_is_said_twice_in_a_phrase():
    objects = {"a": thing("paper cup", (1, 1, 9, 9), ["paper", "red"], ("to the left of", "b"))}
    objects["b"] = thing("ring", (50, 1, 9, 9), ["gold"])
    positives = {positive for positive, _, _ in over_seeds(objects)}
    assert "The red paper cup is to the left of the gold ring." in positives
    assert not any("paper paper" in positive for positive in positives)


def test_nouns_and_verbs_agree():
    right, left = "to the right of", "to the left of"
    objects = {
        "a": thing("stars", (10, 10, 10, 10), ["blue"], (left, "b"), (left, "d")),
        "b": thing("ring", (40, 10, 10, 10), ["orange"], (right, "a"), (left, "d")),
        "c": thing("moon", (25, 10, 5, 10), ["wood"], (left, "d"), (left, "b")),
        "d": thing("umbrella", (80, 10, 10, 10), ["metal"], (right, "b"), (right, "a")),
    }
    texts = {text for p, _, n in over_seeds(objects, seeds=150) for text in (p, n)}
    assert {
        "The stars are to the left of the ring.",
        "The ring is to the left of the stars.",
        "The stars are orange.",
        "The moon is made of metal.",
        "There is at least one ring that is orange.",
        "There are no stars that are orange.",
        "There are both blue stars and a wooden moon.",
        "There is both a wooden moon and blue stars.",
        "There is both an orange ring and a metal umbrella.",
        "The wooden moon is to the left of the metal umbrella.",
    } <= texts
    assert not any(bad in text for text in texts for bad in ("stars is", "a orange", "an ring"))


def test_what_is_said_with_a_was_not_said_with_the_before():
    described = 0
    for positive, _, negative in over_seeds(in_a_row(), ("and_logic_rel", "negclip_verb")):
        for text in (positive, negative):
            for name in ("star", "box", "ring", "cross"):
                start, a_thing, _ = text.partition(f" a {name} ")
                described += bool(a_thing)
                assert not a_thing or f"the {name}" not in start, text
    assert described > 100


@pytest.mark.parametrize("name", ["a/b", "star\\n", "<b>", "the one with a very long name", "12'"])
def test_names_that_are_not_words_are_not_mentioned(name):
    objects = {"a": thing(name, (1, 1, 5, 5), ["red"], ("above", "b"))}
    objects["b"] = thing("ring", (1, 50, 5, 5))
    assert not any(name in positive for positive, _, _ in over_seeds(objects, ALL, 3))


def test_names_with_letters_of_any_language_are_mentioned():
    objects = {"a": thing("café", (1, 1, 5, 5), ["red"]), "b": thing("x", (9, 1, 5, 5), ["blue"])}
    assert "The café is red." in {positive for positive, _, _ in over_seeds(objects, ALL, 3)}


def test_who_stands_and_sits_on_something_is_described_as_neither():
    objects = {
        "a": thing("lady", (10, 10, 20, 40), ["standing", "young"], ("sitting on", "b")),
        "b": thing("chair", (10, 40, 20, 30)),
    }
    assert statements(objects, "attribute_statements") == {"The lady is young."}
