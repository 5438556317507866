"""English into claims, equal meanings, and single changes."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from hnc_ds.captions.language.wording import sentence
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.rewrite.meaning import (
    change_between,
    is_proven_false,
    is_proven_true,
    is_sensible,
    objects,
    rewords,
)
from hnc_ds.captions.rewrite.parsing import LONGEST, readings, words_of
from hnc_ds.captions.rewrite.prompts import captions_in, tidy
from hnc_ds.captions.rewrite.words import ImageWords
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
from hnc_ds.captions.truth.indexed_graph import IndexedGraph
from hnc_ds.records import Relation, SceneGraph, SceneObject
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.captions_of import captions_of
from tests.captions.worlds.drawing import draw_world


def thing(name, x, attributes=(), relations=()):
    edges = tuple(Relation(*edge) for edge in relations)
    return SceneObject(name, x, 50, 30, 60, tuple(attributes), edges)


GRAPH = SceneGraph(
    "1",
    400,
    200,
    {
        "a": thing("man", 10, ["tall"], [("wearing", "b"), ("standing near", "c")]),
        "b": thing("hat", 15, ["red", "wool"]),
        "c": thing("building", 100, ["old"], [("covered by", "i")]),
        "d": thing("horse", 200, ["white"], [("to the right of", "c")]),
        "e": thing("dog", 300, ["brown"], [("near", "d")]),
        "f": thing("dog", 350, ["black"]),
        "g": thing("tv", 370, ["dark blue"]),
        "h": thing("grass", 0, ["green"]),
        "i": thing("leaves", 90),
    },
)
INDEXED = IndexedGraph(GRAPH)
WORDS = ImageWords(INDEXED)


def a(name, *attributes):
    return Phrase(name, attributes, definite=False)


def the(name, *attributes):
    return Phrase(name, attributes)


MAN_HAT = Related(the("man"), "wearing", the("hat"))
FORMS = {
    "The man is wearing the hat.": MAN_HAT,
    "The hat is worn by the man.": MAN_HAT,
    "The man wears the hat.": MAN_HAT,
    "A tall man wearing a hat": Related(a("man", "tall"), "wearing", a("hat")),
    "There is a man who wears the red, woolen hat.": Related(
        a("man"), "wearing", the("hat", "red", "wool")
    ),
    "A hat that is worn by the man.": Related(the("man"), "wearing", a("hat")),
    "The man stands near an old building.": Related(
        the("man"), "standing near", a("building", "old")
    ),
    "Near the building stands a man.": Related(a("man"), "standing near", the("building")),
    "On the right-hand side of the building, there is a white horse.": Related(
        a("horse", "white"), "to the right of", the("building")
    ),
    "The horse is located right of the building.": Related(
        the("horse"), "to the right of", the("building")
    ),
    "The horse can be seen behind the grass": Related(the("horse"), "behind", the("grass")),
    "The leaves are covering the building.": Related(the("leaves"), "covering", the("building")),
    "The leaves cover the building.": Related(the("leaves"), "covering", the("building")),
    "The hat is made of wool.": HasAttribute(the("hat"), "wool"),
    "The hat is woolen.": HasAttribute(the("hat"), "wool"),
    "There is a white horse.": HasAttribute(a("horse"), "white"),
    "A horse that is white": HasAttribute(a("horse"), "white"),
    "There is green grass.": HasAttribute(a("grass"), "green"),
    "The dark blue TV is near a dog.": Related(the("tv", "dark blue"), "near", a("dog")),
    "There are exactly two dogs.": Counted("dog", 2),
    "There is only one horse.": Counted("horse", 1),
    "There are more dogs than horses.": Compared("dog", "more", "horse"),
    "There are as many hats as men.": Compared("hat", "as many", "man"),
    "There is no red horse.": Not(HasAttribute(a("horse"), "red")),
    "No horse is red.": Not(HasAttribute(a("horse"), "red")),
    "The horse is not red.": Not(HasAttribute(the("horse"), "red")),
    "There is at least one dog near the horse.": Related(a("dog"), "near", the("horse")),
    "There is both a brown dog and a white horse.": Both(
        HasAttribute(a("dog"), "brown"), HasAttribute(a("horse"), "white")
    ),
    "A dog is brown and the horse is white.": Both(
        HasAttribute(a("dog"), "brown"), HasAttribute(the("horse"), "white")
    ),
    "Either the hat is blue or the horse is near a dog.": Either(
        HasAttribute(the("hat"), "blue"), Related(the("horse"), "near", a("dog"))
    ),
    "The man is tall and near the building.": Both(
        HasAttribute(the("man"), "tall"), Related(the("man"), "near", the("building"))
    ),
    "The man is near either the horse or the building.": Either(
        Related(the("man"), "near", the("horse")), Related(the("man"), "near", the("building"))
    ),
    "There is either a red dog or a black dog.": Either(
        HasAttribute(a("dog"), "red"), HasAttribute(a("dog"), "black")
    ),
}


@pytest.mark.parametrize("caption", FORMS)
def test_captions_have_the_claim_of_their_form(caption):
    assert readings(caption, WORDS) == (FORMS[caption],)


@pytest.mark.parametrize(
    "caption",
    """An horse is white.
A horses is white.
The horse are white.
The leaves is covering the building.
The man wear the hat.
The old man's hat is red.
The beautiful man wears the hat.
The cat is black.
The man.
A horse
There is the white horse.
The man wears the hat; the horse is white.
The man wears the hat. The horse is white.
The man wears the hat and
A dog is both brown and near the horse.
The man who is tall is near the building.
The man is near the horse or the building.
Every dog is brown.
There are two white dogs.
There are two dogs near the horse.
Is the horse white?
The horse was white.
The horse is white!
The horse is "white".
There are no.
.

The white white horse is near the building.""".split("\n"),
)
def test_what_is_not_understood_to_the_last_word_is_not_read(caption):
    assert readings(caption, WORDS) == ()


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["image", "data"])
def test_every_caption_of_the_project_is_read_back_and_proven(balance):
    rng = random.Random(3)
    counts: Counter[str] = Counter()
    for number in range(60):
        graph = annotate(rng, draw_world(rng), str(number))
        indexed = IndexedGraph(graph)
        words = ImageWords(indexed)
        for group in captions_of(graph, DEFAULT_TYPES, Options(balance=balance)):
            said = [(group.positive, group.type, is_proven_true)]
            said += [(n.caption, n.type, is_proven_false) for n in group.negatives]
            for caption, type_, proves in said:
                claims = readings(caption, words)
                assert all(proves(indexed, claim) for claim in claims), (caption, claims)
                assert all(rewords(x, y) for x, y in pairwise(claims)), (caption, claims)
                counts[type_, bool(claims)] += 1
    read = {type_ for type_, is_read in counts if is_read}
    assert {*DEFAULT_TYPES} - {"obj_count"} <= read
    del counts["obj_count", False]  # 'two red stars' are not read
    unread = sum(count for (_, is_read), count in counts.items() if not is_read)
    assert unread < 0.01 * counts.total()


@pytest.mark.parametrize("caption", FORMS)
def test_a_claim_in_the_projects_own_words_has_the_same_meaning(caption):
    claim = FORMS[caption]
    for said in readings(sentence(claim), WORDS):
        assert rewords(said, claim)


def claim_of(caption):
    [claim] = readings(caption, WORDS)
    return claim


@pytest.mark.parametrize(
    ("new", "old", "same"),
    [
        ("The building is to the left of the horse.", "The horse is right of the building.", True),
        (
            "The building is to the right of the horse.",
            "The horse is right of the building.",
            False,
        ),
        ("A horse is white.", "The horse is white.", True),
        ("The horse is white.", "There is a white horse.", False),  # one of several, perhaps
        ("The horse is near the building.", "The white horse is near the building.", False),
        ("The man is near the building.", "The man stands near the building.", False),
        ("The man is beside the building.", "The man is next to the building.", True),
        ("The man is near the building.", "The man is next to the building.", False),
        ("The leaves cover the building.", "The building is covered by the leaves.", True),
        ("The hat is worn by the man.", "The man is wearing the hat.", True),
        ("The hat is wearing the man.", "The man is wearing the hat.", False),
        ("There are fewer dogs than hats.", "There are more hats than dogs.", True),
        ("There are fewer dogs than hats.", "There are fewer hats than dogs.", False),
        ("There are two dogs.", "There are three dogs.", False),
        ("No dog is white.", "There is no white dog.", True),
        ("A dog is white.", "There is no white dog.", False),
        (
            "There is a white horse and a red hat.",
            "There is both a red hat and a white horse.",
            True,
        ),
        (
            "There is both a white horse and a red hat.",
            "There is either a red hat or a white horse.",
            False,
        ),
        (
            "The horse is white and the hat is red.",
            "The hat is red and the horse is white.",
            True,
        ),
        (
            "Either the horse is white or the hat is blue.",
            "Either the hat is blue or the horse is white.",
            True,
        ),
        (
            "The horse is white and the hat is red.",
            "There is both a red hat and a white horse.",
            False,  # one of several, perhaps
        ),
        (
            "Either the horse is white or the hat is red.",
            "The horse is white and the hat is red.",
            False,
        ),
        ("There is a large white horse.", "The white horse is large.", True),
        ("The large horse is white.", "The white horse is large.", False),
    ],
)
def test_rewordings_have_the_same_meaning(new, old, same):
    assert rewords(claim_of(new), claim_of(old)) is same


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("The hat is red.", "The hat is blue.", ("red", "blue")),
        ("The hat is red.", "The horse is red.", ("hat", "horse")),
        ("The hat is red.", "The horse is blue.", None),
        ("The hat is red.", "There is a red hat.", None),
        ("The man is near the horse.", "The horse is near the man.", ("man", "horse")),
        ("The man is near the horse.", "The man is behind the horse.", ("near", "behind")),
        (
            "The tall man is near the white horse.",
            "The white man is near the tall horse.",
            ("tall", "white"),
        ),
        ("The tall man is near the horse.", "The man is near the tall horse.", None),
        ("There are two dogs.", "There are three dogs.", ("2", "3")),
        ("There is no red dog.", "There is a red dog.", None),
        (
            "Either the hat is red or the horse is white.",
            "Either the hat is blue or the horse is white.",
            ("red", "blue"),
        ),
        (
            "There is a red hat and a white horse.",
            "There is a red hat and a black horse.",
            ("white", "black"),
        ),
    ],
)
def test_one_change(old, new, change):
    assert change_between(claim_of(old), claim_of(new)) == change


@pytest.mark.parametrize(
    ("caption", "true", "false"),
    [
        ("The man is wearing the hat.", True, False),
        ("A dog is brown.", True, False),
        ("The dog is brown.", False, False),  # there are two
        ("The hat is blue.", False, True),
        ("The building is new.", False, True),
        ("The horse is large.", False, False),
        ("The dog is not brown.", False, False),
        ("The horse is not white.", False, True),
        ("The hat is not blue.", True, False),
        ("The hat is red and the horse is white.", True, False),
        ("The hat is blue and the horse is white.", False, True),
        ("Either the hat is blue or the horse is white.", True, False),
        ("Either the hat is red or the horse is white.", False, True),
        ("Either the hat is red or the horse is large.", False, False),
        ("There are two dogs.", True, False),
        ("There are three dogs.", False, True),
    ],
)
def test_what_the_graph_proves(caption, true, false):
    claim = claim_of(caption)
    assert (is_proven_true(INDEXED, claim), is_proven_false(INDEXED, claim)) == (true, false)


def test_a_senseless_claim_is_no_change():
    assert is_sensible(claim_of("The man is wearing the hat."))
    assert not is_sensible(claim_of("The building is wearing the hat."))
    assert not is_sensible(claim_of("The building is wearing the hat and the horse is white."))
    assert objects(INDEXED, claim_of("The man is near a dog.")) == (0,)


def test_lines_of_answers():
    answer = (
        "<think>1. no\nThe hat is red.</think>\n\n1. The Hat is   red\n- \u201cA TV is near "
        "the dog\u2019s hat.\u201d\n\n* The hat ,\n(2) 3 dogs...\n"
    )
    assert captions_in(answer, 3) == [
        "The hat is red.",
        "A TV is near the dog's hat.",
        "The hat ,.",
        "3 dogs.",
    ]
    assert captions_in("a\n" * 100, 2) == ["A."] * 6
    assert len(tidy("a " * 5000)) < LONGEST + 5
    assert words_of("The hat" * 100) is None


def test_any_words_in_any_order_are_read_in_bounded_time():
    rng = random.Random(0)
    vocabulary = (
        "the a is are and both either or that not there man hat red wool old near by".split()
    )
    vocabulary += ["wearing", "worn", "stands", "horse", "white", ",", "no", "dogs", "leaves", "of"]
    for _ in range(3000):
        caption = " ".join(rng.choices(vocabulary, k=rng.randint(1, 30))).replace(" ,", ",")
        for claim in readings(caption, WORDS):
            is_proven_true(INDEXED, claim)
            is_proven_false(INDEXED, claim)
