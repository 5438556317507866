"""The independent check itself: what it reads out of a caption, and how it judges."""

import pytest

from tests.captions.worlds.judging import Judge, WorldFacts
from tests.captions.worlds.lexicon import KINDS
from tests.captions.worlds.parsing import parse
from tests.captions.worlds.worlds import MAYBE, NO, YES, Thing, World

# A brown dog on a red chair, to the left of a black cat that is under a wooden desk; three vases,
# two of them in one place under one name; glasses to drink from.
WORLD = World(
    things=[
        Thing(KINDS["dog"], 1, (100, 100, 50, 50), 0.1),
        Thing(KINDS["chair"], 1, (70, 140, 100, 80), 0.2),
        Thing(KINDS["cat"], 1, (500, 300, 50, 50), 0.3),
        Thing(KINDS["desk"], 1, (450, 200, 200, 160), 0.4),
        Thing(KINDS["vase"], 1, (300, 50, 20, 20), 0.5),
        Thing(KINDS["vase"], 2, (350, 50, 40, 20), 0.6),
        Thing(KINDS["glass"], 2, (700, 50, 40, 20), 0.7),
    ],
    attributes=[
        {"brown": YES, "tan": MAYBE, "young": YES},
        {"red": YES},
        {"black": YES},
        {"wood": YES, "wooden": YES},
        {"white": YES},
        {"white": YES, "empty": YES},
        {},
    ],
    facts={(0, 1): {"on": YES}, (2, 3): {"under": YES}},
    links={(0, 1), (1, 0), (2, 3), (3, 2)},
)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The dog is brown.", YES),
        ("The dog is black.", NO),
        ("The dog is tan.", MAYBE),
        ("The animal is black.", YES),
        ("The desk is made of wood.", YES),
        ("The table is made of wood.", MAYBE),
        ("The young brown dog is on the chair.", YES),
        ("The black dog is on the chair.", NO),
        ("The chair is on the dog.", NO),
        ("The dog is to the left of the black cat.", YES),
        ("The cat is to the left of the dog.", NO),
        ("The cat is under the wooden desk.", YES),
        ("The cat is near the dog.", MAYBE),
        ("There is one dog.", YES),
        ("There are two dogs.", NO),
        ("There are three vases.", YES),
        ("There are two vases.", NO),
        ("There are two glasses.", YES),
        ("There are three white vases.", YES),
        ("There are two empty vases.", YES),
        ("There are three empty vases.", NO),
        ("There is one brown dog.", YES),
        ("There is one tan dog.", MAYBE),
        ("A dog is brown.", YES),
        ("A cat is brown.", NO),
        ("A brown dog is on a red chair.", YES),
        ("A cat is on a chair.", NO),
        ("The dog is both brown and on the chair.", YES),
        ("The dog is both brown and under the desk.", NO),
        ("There is no black dog.", YES),
        ("The dog is standing on the chair.", MAYBE),
        ("The dog is sleeping on the desk.", NO),
        ("The desk is larger than the cat.", YES),
        ("The cat is larger than the desk.", NO),
        ("The dog is larger than the cat.", MAYBE),
        ("There is one table.", MAYBE),
        ("There are more vases than dogs.", YES),
        ("There are fewer vases than dogs.", NO),
        ("There are as many dogs as cats.", YES),
        ("There is at least one dog that is on the chair.", YES),
        ("There is no dog that is on the chair.", NO),
        ("There is no cat that is on the chair.", YES),
        ("There is at least one cat that is brown.", NO),
        ("There are some vases that are empty.", YES),
        ("There are no vases that are brown.", YES),
        ("There is no desk that is made of metal.", YES),
        ("There is both a brown dog and a black cat.", YES),
        ("There is both a black dog and a brown cat.", NO),
        ("There is both a brown dog and a young animal.", MAYBE),  # one and the same
        ("There are both empty vases and a wooden desk.", YES),
        ("There is either a brown dog or a black cat.", NO),
        ("There is either a brown dog or a white cat.", YES),
        ("There is either a black dog or a white cat.", NO),
        ("There is both a dog on the chair and a cat under the desk.", YES),
        ("There is both a dog under the desk and a cat on the chair.", NO),
        ("The dog is both on the chair and to the left of the desk.", YES),
        ("The dog is both on the chair and to the right of the desk.", NO),
        ("The dog is to the left of either the chair or the cat.", YES),
        ("The dog is to the left of either the desk or the cat.", NO),
        ("The dog is brown and the cat is black.", YES),
        ("The dog is brown and the desk is made of wood.", YES),
        ("The dog is brown and the cat is white.", NO),
        ("The dog is black and the cat is black.", NO),
        ("The dog is tan and the cat is black.", MAYBE),
        ("The brown dog is on a chair and the cat is under the wooden desk.", YES),
        ("The dog is under the desk and the cat is under the desk.", NO),
        ("The dog is brown and the animal is young.", MAYBE),  # one and the same
        ("Either the dog is brown or the cat is white.", YES),
        ("Either the dog is black or the cat is black.", YES),
        ("Either the dog is brown or the cat is black.", NO),
        ("Either the dog is black or the cat is white.", NO),
        ("Either the dog is on the chair or the cat is on the chair.", YES),
        ("Either the dog is on the chair or the cat is under the desk.", NO),
    ],
)
def test_captions_are_judged_by_the_world(caption, expected):
    assert Judge(WorldFacts(WORLD)).verdict(parse(caption).claim) is expected


def test_the_phrases_with_the_are_those_that_must_be_unmistakable():
    _, definite = parse("There is both a dog on the red chair and a cat under the desk.")
    assert [(phrase.name, *phrase.attributes) for phrase in definite] == [
        ("chair", "red"),
        ("desk",),
    ]
    meant = Judge(WorldFacts(WORLD)).meant
    assert meant(definite[0]) == {1: YES}
    assert meant(parse("The vase is white.").definite[0]) == {4: YES, 5: YES}


@pytest.mark.parametrize(
    "caption",
    [
        "The dog is on a chair and the cat is black.",
        "Either the dog is tan or the cat is on a bed.",
    ],
)
def test_each_of_two_clauses_is_about_one_thing(caption):
    claim, definite = parse(caption)
    assert [phrase.name for phrase in definite] == ["dog", "cat"]
    assert (claim.first.subject, claim.second.subject) == definite


@pytest.mark.parametrize(
    "caption",
    [
        "The dog is brown",
        "The dog are brown.",
        "The dogs is brown.",
        "The dog is of the chair.",
        "The dog is wooden.",
        "The wood desk is red.",
        "The tv is on.",
        "There is one dogs.",
        "There are one dog.",
        "There are two dog.",
        "There are two grasses.",
        "There are two pants.",
        "There is both an brown dog and a black cat.",
        "There is both brown dog and a black cat.",
        "There is both a orange and a dog.",
        "There is both a grass and a dog.",
        "There are both a dog and a cat.",
        "There is at least one dogs that is brown.",
        "There are some dog that are brown.",
        "There is no dog that are brown.",
        "The unicorn is white.",
        "The dog is sparkling.",
        "A dogs are brown.",
        "Dog is brown.",
        "a dog is brown.",
        "An dog is brown.",
        "The dog is on a chairs.",
        "The dog is on chair.",
        "The dog is brown and a cat is black.",
        "A dog is brown and the cat is black.",
        "The dog is brown and The cat is black.",
        "The dog is brown and the cat are black.",
        "The dog is brown and the dog is young.",
        "The dog is brown and the cat is.",
        "The dog is brown or the cat is black.",
        "The dog is brown and the cat is black and the desk is red.",
        "Either a dog is brown or a cat is black.",
        "Either the dog is brown and the cat is black.",
        "Either the dog is brown.",
        "Either the dog or the cat is black.",
        "either the dog is brown or the cat is black.",
    ],
)
def test_what_is_not_english_or_not_known_has_no_reading(caption):
    with pytest.raises(AssertionError):
        parse(caption)
