"""Word swaps: what must come out of a caption, and what must never."""

import random
import re
from collections import Counter

import pytest

from hnc_ds.captions.phrases import LONGEST_WORD, Word, parse, tag_sentences
from hnc_ds.captions.swap_words import WORD_SWAPS, swap_negatives, swapped

TYPES = tuple(WORD_SWAPS)


def swaps(caption: str, type_: str) -> set[str]:
    """Everything that a type makes of a caption."""
    sentences = [parse(words) for words in tag_sentences(caption)]
    return {swapped(caption, s, *pair) for s in sentences for pair in WORD_SWAPS[type_](s)}


def all_swaps(caption: str) -> set[str]:
    return {text for type_ in TYPES for text in swaps(caption, type_)}


@pytest.mark.parametrize(
    ("caption", "type_", "expected"),
    [
        # The two examples of the paper of NegCLIP.
        (
            "The horse is eating the grass and the zebra is drinking the water.",
            "negclip_noun_phrase",
            "The zebra is eating the grass and the horse is drinking the water.",
        ),
        (
            "The horse is eating the grass and the zebra is drinking the water.",
            "negclip_verb",
            "The horse is drinking the grass and the zebra is eating the water.",
        ),
        # And that of Structure-CLIP.
        (
            "An astronaut rides a horse.",
            "structure_clip_relation",
            "A horse rides an astronaut.",
        ),
        (
            "A black cat sleeps under a white table.",
            "structure_clip_attribute",
            "A white cat sleeps under a black table.",
        ),
        (
            "The black cat sleeps under the white table.",
            "negclip_noun",
            "The black table sleeps under the white cat.",
        ),
        ("An apple on a red plate", "negclip_noun", "A plate on a red apple"),
        ("A red plate under an orange", "negclip_noun_phrase", "An orange under a red plate"),
        (
            "a red apple and a green pear",
            "negclip_adjective",
            "a green apple and a red pear",
        ),
        ("Two dogs and three cats.", "negclip_noun", "Two cats and three dogs."),
        (
            "The sky is blue and the grass is green.",
            "negclip_adjective",
            "The sky is green and the grass is blue.",
        ),
        (
            "A lion sleeps peacefully while a zebra runs quickly.",
            "negclip_adverb",
            "A lion sleeps quickly while a zebra runs peacefully.",
        ),
        (
            "A woman prepares a pizza while a man watches.",
            "negclip_noun_phrase",
            "A man prepares a pizza while a woman watches.",
        ),
        (
            "A man sitting on a bench eating a sandwich",
            "negclip_verb",
            "A man eating a bench sitting on a sandwich",
        ),
        (
            "A dog on a couch and a cat on a chair",
            "negclip_noun",
            "A cat on a couch and a dog on a chair",
        ),
        (
            "A black and white dog jumps over a red hurdle.",
            "negclip_adjective",
            "A red dog jumps over a black and white hurdle.",
        ),
        (
            "A bowl of soup, a slice of bread and a glass of wine on a checkered tablecloth.",
            "negclip_noun_phrase",
            "A checkered tablecloth, a slice of bread and a glass of wine on a bowl of soup.",
        ),
        (
            "A plate of rice in front of a bowl of soup",
            "negclip_noun",
            "A plate of soup in front of a bowl of rice",
        ),
        (
            "A tennis racket on a wooden bench",
            "negclip_noun",
            "A bench on a wooden tennis racket",
        ),
        # Number of subject and verb: only where no verb shows it.
        ("Two giraffes eating a tree", "negclip_noun_phrase", "A tree eating two giraffes"),
        # The first letter, and capitals all over.
        (
            "TWO MEN HOLDING TWO KITES",
            "structure_clip_relation",
            "TWO KITES HOLDING TWO MEN",
        ),
        ("A TV on a wooden stand.", "negclip_noun", "A stand on a wooden TV."),
        (
            "Man in red hat throwing frisbee to dog",
            "negclip_noun_phrase",
            "Dog in red hat throwing frisbee to man",
        ),
        # Each sentence for itself.
        (
            "It is day. A man rides a horse. A bird sings.",
            "negclip_noun",
            "It is day. A horse rides a man. A bird sings.",
        ),
    ],
)
def test_two_elements_change_places(caption, type_, expected):
    assert expected in swaps(caption, type_)


@pytest.mark.parametrize(
    "caption",
    [
        # Both ends of such relations do the same.
        "A man walks with a dog.",
        "A man and a woman",
        "A cup and a plate",
        # Number and colour are of both.
        "Eight men and women are posed.",
        "Some young men and women",
        # The verb shows the number, in whatever form the tagger sees it.
        "Two boys fight for the ball.",
        "Three people climb on a large rock.",
        "A cat next to a dog",
        "A chair beside a table",
        "A table facing a window",
        "A dog looking at a cat",
        "A bride dances with a groom.",
        "A boy hugs a girl.",
        "A boy plays chess against a girl.",
        "A bike attached to a trailer",
        "A store across from a bank",
        # Equal words, synonyms and wider names.
        "A dog chases a dog.",
        "A man watches a person.",
        "A man reads while a woman reads.",
        "A black and white cow",
        "A big black dog",
        "a red apple and a green apple",
        # Owners, and what is theirs.
        "A woman's purse",
        "A dog and its ball",
        # One noun of two words, and measures.
        "A traffic light",
        "A group of people",
        "A pair of scissors",
        "A hot dog",
        # Grammar would break: number, articles, shared articles.
        "A dog is chasing two cats.",
        "Three birds sit on a fence.",
        "A couch and chair",
        "There are two dogs near a cat.",
        "Living room area of home",
        # Nothing to swap.
        "",
        "...",
        "Running.",
        "😀 😀",
    ],
)
def test_captions_whose_swaps_keep_the_meaning_or_break_grammar_have_none(caption):
    assert not all_swaps(caption)


@pytest.mark.parametrize(
    ("caption", "never"),
    [
        (
            "A table with white plates and cups.",
            "A table with white cups and plates.",
        ),
        # She sits on the bench, too.
        (
            "A man sits on a bench next to a woman.",
            "A woman sits on a bench next to a man.",
        ),
        (
            "A man walking down the street with a dog",
            "A dog walking down the street with a man",
        ),
        ("A cup and a plate on a table", "A plate and a cup on a table"),
        ("A cat, a dog and a bird in a barn", "A bird, a dog and a cat in a barn"),
        # The same scene, described in another order.
        (
            "A man riding a wave on a surfboard",
            "A man riding a surfboard on a wave",
        ),
        ("A hiker crosses a bridge over a river.", "A hiker crosses a river over a bridge."),
        ("A bird sitting on a branch on a tree", "A bird sitting on a tree on a branch"),
        ("A cat on a chair and on a blanket", "A cat on a blanket and on a chair"),
        ("A plate topped with rice", "A rice topped with plate"),
        # An adjective does not leave its compound, nor a noun its owner.
        ("A hot dog on a red plate", "A red dog on a hot plate"),
        ("A girl with her cat in a garden", "A girl with her garden in a cat"),
        # The words before do not move.
        ("A cat on a bed and another cat on a rug", "Another cat on a bed and a cat on a rug"),
        # Verbs that lean on their object.
        (
            "A man taking a photo while a woman is eating a salad",
            "A man eating a photo while a woman is taking a salad",
        ),
    ],
)
def test_a_swap_never_has_the_meaning_of_its_caption(caption, never):
    assert never not in all_swaps(caption)


CAPTIONS = (
    "A woman in a white dress stands beside a man in a black suit.",
    "A TV, an old radio and a blue vase on a wooden shelf",
    "A boy holds a kite while an eager girl flies an orange plane.",
    "An owl on a branch watches a mouse. A unicorn toy lies on an hour glass.",
    "TWO DOGS CHASING AN ELEPHANT PAST A BROWN BARN",
)


def words_without_articles(text: str) -> Counter[str]:
    words = re.findall(r"\w+|[^\w\s]", text.casefold())
    return Counter(word for word in words if word not in ("a", "an"))


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_swap_has_the_words_of_its_caption_and_the_articles_their_sound_asks_for(caption):
    assert all_swaps(caption)
    for text in all_swaps(caption):
        assert words_without_articles(text) == words_without_articles(caption)
        assert text[0].isupper() == caption[0].isupper()
        assert not re.search(r"\s{2}|\s[,.]", text)
        assert not re.search(r"\ba (owl|old|eager|orange|elephant|hour)\b", text, re.IGNORECASE)
        assert not re.search(r"\ban (TV|boy|unicorn|mouse|barn|blue)\b", text, re.IGNORECASE)


def made(caption: str, most: int = 9, types: tuple[str, ...] = TYPES, seed: int = 0):
    return swap_negatives(caption, tag_sentences(caption), types, most, random.Random(seed))


def test_negatives_are_open_world_and_name_what_was_exchanged():
    (negative,) = made("A cat on a box", types=("negclip_noun",))
    assert negative.caption == "A box on a cat"
    assert (negative.type, negative.replaced) == ("negclip_noun", ("cat", "box"))
    assert negative.open_world


def test_no_text_is_given_twice_and_no_more_are_given_than_asked_for():
    caption = CAPTIONS[0]
    for seed in range(20):
        negatives = made(caption, seed=seed)
        assert len({n.caption for n in negatives}) == len(negatives) > 3
        assert len({n.type for n in negatives}) == len(negatives)
        assert len(made(caption, most=2, seed=seed)) == 2


def test_the_same_seed_draws_the_same_and_another_seed_draws_others():
    drawn = [made(CAPTIONS[0], most=2, seed=seed) for seed in range(10)]
    assert drawn == [made(CAPTIONS[0], most=2, seed=seed) for seed in range(10)]
    assert len(set(drawn)) > 3


def test_of_several_swaps_the_one_of_two_animals_is_preferred():
    caption = "A boy throws a frisbee while a dog watches."
    for seed in range(10):
        (negative,) = made(caption, types=("negclip_noun_phrase",), seed=seed)
        assert negative.caption == "A dog throws a frisbee while a boy watches."


def test_words_may_come_from_any_tagger():
    caption = "A fox eyes a hen"
    tags = zip(caption.split(), ["AT0", "NN1", "VVZ", "AT0", "NN1"], [0, 2, 6, 11, 13], strict=True)
    words = [Word(text, text.lower(), tag, start) for text, tag, start in tags]
    (negative,) = swap_negatives(
        caption, [words], ("structure_clip_relation",), 1, random.Random(0)
    )
    assert negative.caption == "A hen eyes a fox"


def test_a_verb_in_s_is_not_taken_for_a_plural():
    (words,) = tag_sentences("A girl brushes the mane of a pony.")
    assert [word.tag for word in words if word.text == "brushes"] == ["VVZ"]
    (words,) = tag_sentences("The tennis rackets on the wall")
    assert [word.tag for word in words if word.text == "rackets"] == ["NN2"]


def test_a_sentence_with_an_endless_word_is_left_out():
    caption = f"{'x' * (LONGEST_WORD + 1)} is a cat. A cat on a box."
    assert {n.caption for n in made(caption)} == {f"{caption[:-15]}A box on a cat."}


def test_typographic_apostrophes_are_apostrophes():
    assert not all_swaps("A woman\u2019s purse")
