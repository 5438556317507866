"""English: number, articles, agreement and sentence frames."""

import pytest

from hnc_ds.captions.nouns import is_plural, singular
from hnc_ds.captions.truth import HasAttribute, Phrase, Related
from hnc_ds.captions.wording import attribute_sentence, indefinite, relation_sentence


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hour", "an hour"),
        ("honest man", "an honest man"),
        ("house", "a house"),
        ("uniform", "a uniform"),
        ("umbrella", "an umbrella"),
        ("uninvited guest", "an uninvited guest"),
        ("utensil", "a utensil"),
        ("European flag", "a European flag"),
        ("one-way sign", "a one-way sign"),
        ("orange", "an orange"),
        ("old shoe", "an old shoe"),
        ("SUV", "an SUV"),
        ("TV", "a TV"),
        ("jeans", "jeans"),
        ("people", "people"),
    ],
)
def test_articles_follow_the_sound(words, expected):
    assert indefinite(words) == expected


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("people", "person"),
        ("women", "woman"),
        ("children", "child"),
        ("leaves", "leaf"),
        ("tree branches", "tree branch"),
        ("wine glasses", "wine glass"),
        ("dresses", "dress"),
        ("buses", "bus"),
        ("houses", "house"),
        ("vases", "vase"),
        ("potatoes", "potato"),
        ("shoes", "shoe"),
        ("cherries", "cherry"),
        ("cookies", "cookie"),
        ("knives", "knife"),
        ("gloves", "glove"),
        ("taxis", "taxi"),
        ("menus", "menu"),
        ("boxes", "box"),
        ("skis", "ski"),
        ("horses", "horse"),
    ],
)
def test_plurals_and_their_singulars(plural, one):
    assert is_plural(plural)
    assert singular(plural) == one
    assert not is_plural(one)
    assert singular(one) == one


@pytest.mark.parametrize("name", ["pants", "jeans", "sunglasses", "scissors", "clothes"])
def test_names_without_a_singular_take_a_plural_verb(name):
    assert is_plural(name)
    assert singular(name) == name


@pytest.mark.parametrize(
    "name",
    ["bus", "grass", "glass", "tennis", "gas", "cactus", "lens", "dress", "christmas", "sheep"],
)
def test_singulars_that_end_like_plurals(name):
    assert not is_plural(name)
    assert singular(name) == name


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (HasAttribute(Phrase("star"), "red"), "The star is red."),
        (HasAttribute(Phrase("people"), "young"), "The people are young."),
        (HasAttribute(Phrase("jeans"), "blue"), "The jeans are blue."),
        (HasAttribute(Phrase("table"), "wood"), "The table is made of wood."),
        (HasAttribute(Phrase("bag", ("red",)), "plastic"), "The red bag is made of plastic."),
        (HasAttribute(Phrase("lamp"), "off"), "The lamp is off."),
        (HasAttribute(Phrase("shirt"), "long sleeved"), "The shirt is long-sleeved."),
        (HasAttribute(Phrase("christmas tree"), "tall"), "The Christmas tree is tall."),
        (HasAttribute(Phrase("tv"), "on"), "The TV is on."),
    ],
)
def test_sentences_about_attributes(claim, expected):
    assert attribute_sentence(claim) == expected


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (
            Related(Phrase("star", ("red",)), "above", Phrase("ring", ("blue",))),
            "The red star is above the blue ring.",
        ),
        (
            Related(Phrase("people"), "to the left of", Phrase("table", ("large", "wood"))),
            "The people are to the left of the large wooden table.",
        ),
        (Related(Phrase("man"), "wearing", Phrase("jeans")), "The man is wearing the jeans."),
    ],
)
def test_sentences_about_relations(claim, expected):
    assert relation_sentence(claim) == expected
