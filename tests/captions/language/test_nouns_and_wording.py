"""English: number, articles, agreement and sentence frames."""

import json
from importlib.resources import files

import pytest

from hnc_ds.captions.language import vocabulary
from hnc_ds.captions.language.nouns import is_countable, is_plural, plural, singular
from hnc_ds.captions.language.nouns import plural as plural_of
from hnc_ds.captions.language.wording import existence_sentence, indefinite, sentence
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
        ("sky", "sky"),
        ("cloudy sky", "a cloudy sky"),
        ("early breakfast", "an early breakfast"),
        ("unicorn", "a unicorn"),
        ("unidentified man", "an unidentified man"),
        ("urinal", "a urinal"),
        ("urn", "an urn"),
        ("utility pole", "a utility pole"),
        ("used car", "a used car"),
        ("usher", "an usher"),
        ("US flag", "a US flag"),
        ("UPS truck", "a UPS truck"),
        ("MP3 player", "an MP3 player"),
        ("LED light", "an LED light"),
        ("ledge", "a ledge"),
        ("L-shaped desk", "an L-shaped desk"),
        ("8-ball", "an 8-ball"),
        ("18 wheeler", "an 18 wheeler"),
        ("10 dollar bill", "a 10 dollar bill"),
        ("lamp shade", "a lamp shade"),
        ("red lamp shade", "a red lamp shade"),
        ("glass of water", "a glass of water"),
        ("toast", "toast"),
        ("red Lego", "red Lego"),
        ("Mickey Mouse", "Mickey Mouse"),
        ("Christmas", "Christmas"),
        ("thermos", "a thermos"),
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
        # ch as in church, and as in choir
        *[(f"{one}es", one) for one in ("church", "march", "arch", "torch", "starch", "stitch")],
        *[
            (f"{one}s", one)
            for one in ("stomach", "monarch", "patriarch", "matriarch", "oligarch", "tetrarch")
        ],
        *[(f"{one}s", one) for one in ("epoch", "loch", "eunuch", "triptych", "tech")],
        # where -es is of the singular
        *[
            (f"{one}s", one)
            for one in ("headache", "brioche", "avalanche", "moustache", "oboe", "hoe", "snow shoe")
        ],
        *[(f"{one}s", one) for one in ("zombie", "selfie", "necktie", "prairie", "excuse", "use")],
        *[(f"{one}s", one) for one in ("chili", "panini", "safari", "tutu")],
        *[(f"{one}es", one) for one in ("thermos", "iris", "atlas", "gas", "rhinoceros", "waltz")],
        *[(f"{one}es", one) for one in ("mosquito", "volcano", "buffalo", "tomato")],
        # compounds of the irregular ones, and what only looks like them
        ("mailmen", "mailman"),
        ("policewomen", "policewoman"),
        ("schoolchildren", "schoolchild"),
        ("salespeople", "salesperson"),
        ("meatloaves", "meatloaf"),
        ("werewolves", "werewolf"),
        ("housewives", "housewife"),
        ("ottomans", "ottoman"),
        ("humans", "human"),
        ("specimens", "specimen"),
        ("mongooses", "mongoose"),
        ("crises", "crisis"),
        ("dice", "die"),
        # of two nouns the first
        ("glasses of water", "glass of water"),
        ("bunches of bananas", "bunch of bananas"),
    ],
)
def test_plurals_and_their_singulars(plural, one):
    assert is_plural(plural)
    assert singular(plural) == one
    assert plural_of(one) == plural
    assert not is_plural(one)
    assert singular(one) == one


@pytest.mark.parametrize(
    "name",
    [
        "pants", "jeans", "sunglasses", "scissors", "clothes", "headphones", "groceries",
        "sweatpants", "swim trunks", "red swim trunks",
    ],
)  # fmt: skip
def test_names_without_a_singular_take_a_plural_verb(name):
    assert is_plural(name)
    assert singular(name) == plural(name) == name
    assert sentence(HasAttribute(Phrase(name), "red")) == f"The {name} are red."


@pytest.mark.parametrize(
    "name",
    [
        "bus",
        "grass",
        "glass",
        "tennis",
        "gas",
        "cactus",
        "lens",
        "dress",
        "christmas",
        "sheep",
        "thermos",
        "rhinoceros",
        "debris",
        "hibiscus",
        "specimen",
        "ramen",
        "bunch of bananas",
    ],
)
def test_singulars_that_end_like_plurals(name):
    assert not is_plural(name)
    assert singular(name) == name
    assert sentence(HasAttribute(Phrase(name), "red")).endswith(" is red.")


def test_every_noun_of_the_vocabulary_comes_back_from_its_plural():
    lists = json.loads(files(vocabulary).joinpath("nouns.json").read_text())
    kinds = json.loads(files(vocabulary).joinpath("kinds.json").read_text())
    names = {*lists["singular_in_s"], *lists["plural_in_oes"], *lists["irregular_plurals"].values()}
    names |= {name for group in kinds["groups"].values() for name in group}
    names |= {name for group in kinds["may_be_the_same"] for name in group}
    assert len(names) > 700
    for one in sorted({singular(name) for name in names}):
        if not is_countable(one):
            continue
        assert singular(plural(one)) == one
        assert plural(one) == one or is_plural(plural(one)), one


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
    assert sentence(claim) == expected


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
    assert sentence(claim) == expected


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"), ("bus", "buses"), ("box", "boxes"), ("bench", "benches"),
        ("knife", "knives"), ("roof", "roofs"), ("toy", "toys"), ("pony", "ponies"),
        ("tomato", "tomatoes"), ("piano", "pianos"), ("wine glass", "wine glasses"),
        ("policeman", "policemen"), ("computer mouse", "computer mice"), ("sheep", "sheep"),
        ("jeans", "jeans"), ("person", "people"),
    ],
)  # fmt: skip
def test_plurals(one, many):
    assert plural(one) == many


@pytest.mark.parametrize("name", ["water", "green grass", "ice cream", "toilet paper"])
def test_stuff_has_no_article(name):
    assert not is_countable(name)
    assert indefinite(name) == name


A_STAR = HasAttribute(Phrase("star"), "red")
AN_ORANGE = HasAttribute(Phrase("jeans"), "orange")
ABOVE = Related(Phrase("star"), "above", Phrase("ring"))
LEFT = Related(Phrase("stars"), "to the left of", Phrase("box", ("wood",)))
ALSO_ABOVE = Related(Phrase("star"), "above", Phrase("box"))


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (Counted("star", 1), "There is one star."),
        (Counted("wolf", 3), "There are three wolves."),
        (Compared("tv", "as many", "knife"), "There are as many TVs as knives."),
        (Compared("bus", "fewer", "man"), "There are fewer buses than men."),
        (Not(ABOVE), "There is no star that is above the ring."),
        (Not(LEFT), "There are no stars that are to the left of the wooden box."),
        (Not(AN_ORANGE), "There are no jeans that are orange."),
        (Both(A_STAR, AN_ORANGE), "There is both a red star and orange jeans."),
        (Both(AN_ORANGE, A_STAR), "There are both orange jeans and a red star."),
        (
            Both(HasAttribute(Phrase("table", ("large",)), "wood"), A_STAR),
            "There is both a large wooden table and a red star.",
        ),
        (Either(A_STAR, AN_ORANGE), "There is either a red star or orange jeans."),
        (
            Both(ABOVE, LEFT),
            "There is both a star above the ring and stars to the left of the wooden box.",
        ),
        (Both(ABOVE, ALSO_ABOVE), "The star is both above the ring and above the box."),
        (Either(ABOVE, ALSO_ABOVE), "The star is above either the ring or the box."),
    ],
)
def test_counts_comparisons_and_joined_claims(claim, expected):
    assert sentence(claim) == expected


def test_there_is_at_least_one_and_there_are_some():
    assert existence_sentence(ABOVE) == "There is at least one star that is above the ring."
    assert existence_sentence(AN_ORANGE) == "There are some jeans that are orange."
