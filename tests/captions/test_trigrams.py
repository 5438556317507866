"""The trigram model against the formula written out by hand."""

from math import exp, log

import numpy as np
import pytest

from hnc_ds.captions.trigrams import Trigrams


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

    told = ["s", "s", *caption, "e"]
    places = range(2, len(told))
    return sum(log(chance((told[at - 2], told[at - 1]), told[at])) for at in places) / len(places)


CAPTIONS = [[0, 1, 2], [0, 2], [1, 1, 1, 0], [3]]


@pytest.mark.parametrize("times", [[1, 1, 1, 1], [3, 0, 1, 0], [0, 0, 0, 2]])
def test_it_is_the_formula(times):
    tokens_CT = np.full((4, 4), -1, np.int32)
    for row, caption in zip(tokens_CT, CAPTIONS, strict=True):
        row[: len(caption)] = caption
    trained = [c for c, count in zip(CAPTIONS, times, strict=True) for _ in range(count)]
    # Four words and the two ends of a caption.
    expected = [by_hand(trained, caption, 6) for caption in CAPTIONS]

    found = Trigrams(tokens_CT).mean_logarithms(np.array(times))
    assert found == pytest.approx(expected)


def test_what_was_trained_on_is_less_surprising():
    tokens_CT = np.array([[0, 1, 2], [2, 1, 0]], np.int32)
    seen, unseen = Trigrams(tokens_CT).mean_logarithms(np.array([5, 0]))
    assert exp(-seen) < exp(-unseen)
