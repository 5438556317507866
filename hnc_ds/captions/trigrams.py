"""A trigram model of true captions; audit.py asks whether a false caption surprises it more.

Interpolated by Witten and Bell: P(w | h) = (c(hw) + t(h) P(w | h')) / (c(h) + t(h)), where c
counts, t(h) is how many different words follow h, and h' is h without its first word; below the
single word all known words are alike. Source: Witten and Bell, The zero-frequency problem, 1991;
Chen and Goodman, An empirical study of smoothing techniques, 1999, section 2.4.

C distinct captions, N places of all captions: each word and the caption's end. G different n-grams.
"""

from dataclasses import dataclass

import numpy as np

_START, _END = 0, 1
"""Numbers of the caption's ends; words come after them."""


@dataclass(frozen=True)
class _Grams:
    """The n-grams of one length that some captions hold."""

    at_N: np.ndarray
    """Which stands at a place."""
    before_G: np.ndarray
    """What comes before its last word, as a number."""
    shorter_G: np.ndarray
    """The n-gram without its first word, as a number among those that are shorter by one."""


class Trigrams:
    """The n-grams of some captions, counted over any of them."""

    def __init__(self, tokens_CT: np.ndarray) -> None:
        """Args: tokens_CT: Numbers of words from 0, -1 behind a caption's end."""
        words_CT = tokens_CT.astype(np.int64)
        lengths_C = (words_CT >= 0).sum(1)
        ended_CT = np.pad(words_CT + 2, ((0, 0), (2, 1)))  # two starts before, one place behind
        ended_CT[np.arange(len(words_CT)), lengths_C + 2] = _END
        is_place_CT = np.arange(words_CT.shape[1] + 1) <= lengths_C[:, None]
        self.caption_N = np.nonzero(is_place_CT)[0]
        self.places_C = lengths_C + 1
        last, middle, first = (
            ended_CT[:, start : start + words_CT.shape[1] + 1][is_place_CT] for start in (2, 1, 0)
        )
        self.words = int(ended_CT.max()) + 1
        self.grams = _grams(first, middle, last, self.words)

    def mean_logarithms(self, times_C: np.ndarray) -> np.ndarray:
        """The mean logarithm of the probability of each caption's words, [C]: minus the logarithm
        of its perplexity, by a model of captions that count so many times."""
        times_N = times_C[self.caption_N].astype(np.float64)
        chance_G = np.full(self.words, 1 / self.words)
        for gram in self.grams:
            count_G = np.bincount(gram.at_N, times_N, len(gram.before_G))
            before = int(gram.before_G.max()) + 1
            count_H = np.bincount(gram.before_G, count_G, before)
            kinds_H = np.bincount(gram.before_G, count_G > 0, before)
            count, kinds = count_H[gram.before_G], kinds_H[gram.before_G]
            shorter_G = chance_G[gram.shorter_G]
            is_known_G = count > 0
            mixed_G = (count_G + kinds * shorter_G) / np.where(is_known_G, count + kinds, 1)
            chance_G = np.where(is_known_G, mixed_G, shorter_G)
        told_N = np.log(chance_G)[self.grams[-1].at_N]
        return np.bincount(self.caption_N, told_N, len(self.places_C)) / self.places_C


def _grams(first: np.ndarray, middle: np.ndarray, last: np.ndarray, words: int) -> list[_Grams]:
    """Single words, pairs and triples, from the words at each place and before it."""
    found, shorter_N = [], last
    for before_N in (np.zeros_like(last), middle, first * words + middle):
        _, one_G, at_N = np.unique(before_N * words + last, return_index=True, return_inverse=True)
        before_G = np.unique(before_N[one_G], return_inverse=True)[1]
        found.append(_Grams(at_N, before_G, shorter_N[one_G]))
        shorter_N = at_N
    return found
