"""The trigram model against the formula written out by hand."""

from math import exp, log

import numpy as np
import pytest

from hnc_ds.captions.text_classifier import NGrams, Trigrams


def by_hand(trained: list[list[int]], caption: list[int], words: int) -> float:
    """The mean logarithm of a caption's words and its end, by Witten and Bell's formula."""
    padded = [["s", "s", *one, "e"] for one in trained]

    def chance(history: tuple, word: object) -> float:
        size = len(history)
        follows = [
            one[at]
            for one in padded
            for at in range(2, len(one))
            if tuple(one[at - size : at]) == history
        ]
        shorter = chance(history[1:], word) if history else 1 / words
        kinds = len(set(follows))
        if not follows:
            return shorter
        return (follows.count(word) + kinds * shorter) / (len(follows) + kinds)

    tokens = ["s", "s", *caption, "e"]
    places = range(2, len(tokens))
    chances = [chance((tokens[at - 2], tokens[at - 1]), tokens[at]) for at in places]
    return sum(map(log, chances)) / len(places)


CAPTIONS = [[0, 1, 2], [0, 2], [1, 1, 1, 0], [3]]


@pytest.mark.parametrize("times", [[1, 1, 1, 1], [3, 0, 1, 0], [0, 0, 0, 2]])
def test_it_is_the_formula(times):
    trained = [c for c, count in zip(CAPTIONS, times, strict=True) for _ in range(count)]
    # Four words and the two ends of a caption.
    expected = [by_hand(trained, caption, 6) for caption in CAPTIONS]

    grams = NGrams(CAPTIONS, 4)
    found = Trigrams(grams, np.array(times)).logarithms(grams)
    assert found / grams.places_C == pytest.approx(expected)
    assert grams.places_C.tolist() == [4, 3, 5, 2]


def test_captions_that_it_was_not_trained_on_are_the_formula_too():
    others = [[2, 1, 0], [3, 3], [], [0, 1, 2]]
    model = Trigrams(NGrams(CAPTIONS, 4))
    grams = NGrams(others, 4)
    expected = [by_hand(CAPTIONS, caption, 6) * (len(caption) + 1) for caption in others]
    assert model.logarithms(grams) == pytest.approx(expected)
    untrained = Trigrams(NGrams([], 4))
    assert untrained.logarithms(grams) == pytest.approx([-(len(c) + 1) * log(6) for c in others])


def test_what_was_trained_on_is_less_surprising():
    grams = NGrams([[0, 1, 2], [2, 1, 0]], 3)
    seen, unseen = Trigrams(grams, np.array([5, 0])).logarithms(grams)
    assert exp(-seen) < exp(-unseen)
