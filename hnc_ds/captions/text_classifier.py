"""Text-only models: classifiers of pairs of captions for audit.py, and a trigram language model.

A classifier chooses the true caption of a pair by logistic regression on the difference of their
features (words; also pairs of words; also ordered pairs), so that what both captions share cancels.
It is trained by averaged stochastic gradient descent with the learning rate that is best on
held-out images. The only module that imports scikit-learn, on first use.

P pairs, C distinct captions, T tokens of the longest caption, F features. A row of pairs_P3 is
(image, true caption, false caption), as numbers. N positions of all captions: each word and the
caption's end; G different n-grams.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install

FOLDS = 5
WORDS = 10
"""Words that an exceeded limit names per label."""

SLOT = "_"
TEMPLATE_WORDS = frozenset(
    "a an the is are there no not some any at least one both either and or that who which "
    "as many more fewer less than made of".split()
)
"""Function words of the captions' templates; every other word is a content word."""

Baseline = Literal["words", "word_pairs", "order"]

_TOKENS = re.compile(r"\w+(?:[-'\u2019]\w+)*|[^\w\s]")
_HASHED = 20
"""Bits of the hash of a pair of words. A type has about ten thousand pairs of words, so a million
columns cause few collisions."""
_CHUNK = 5000
"""Number of pairs whose features are computed at once; bounds the memory."""
_STEPS = (0.02, 0.1, 0.5)
"""Learning rates. Small ones keep weights of rare features small, as regularisation does."""
_PASSES = 4
_SMALL = 10_000
"""Up to this number of pairs the epochs are tripled, which makes the accuracy equal liblinear's."""
_TIE = 1e-9
"""Smaller differences of scores are rounding errors and count as half correct."""


class Word(msgspec.Struct, frozen=True):
    """A word, a [template] or a pair of them, with a large weight."""

    word: str
    weight: float
    """Weight in the regression per standard deviation, so that rare words do not come first."""
    in_true: int
    """Number of pairs whose true caption alone contains it."""
    in_false: int
    """Number of pairs whose false caption alone contains it."""


@dataclass(frozen=True)
class Captions:
    """Captions as token numbers; the last token of a caption is its template."""

    tokens_CT: np.ndarray
    """int32, padded with -1."""
    names: list[str]
    """Token number -> word, or template in brackets."""

    def without_templates(self) -> Iterator[list[int]]:
        """The words alone of each caption."""
        for token_T in self.tokens_CT:
            yield token_T[token_T >= 0][:-1].tolist()


def check_installed() -> None:
    """Raises a UserError if scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise UserError(f"audit: needs scikit-learn; {pip_install('audit')}")


def tokenized(captions: list[str]) -> Captions:
    """Words and punctuation marks, and the template: the sentence without its content words."""
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(t, len(numbers)) for t in _tokens(caption)] for caption in captions]
    tokens_CT = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for row, found in zip(tokens_CT, rows, strict=True):
        row[: len(found)] = found
    return Captions(tokens_CT, list(numbers))


def words_of(caption: str) -> list[str]:
    """Words and punctuation marks."""
    return _TOKENS.findall(caption)


def _tokens(caption: str) -> list[str]:
    found = words_of(caption)
    frame = (w if w.lower() in TEMPLATE_WORDS or not w[0].isalnum() else SLOT for w in found)
    return [*found, f"[{' '.join(word for word, _ in groupby(frame))}]"]


@dataclass(frozen=True)
class Differences:
    """Feature differences of the captions of pairs, every second one negated so that the regression
    has two classes."""

    signed_PF: Any
    """A sparse matrix."""
    sign_P: np.ndarray
    """1 for true - false, -1 for false - true."""

    def of(self, rows: slice | np.ndarray) -> "Differences":
        """The differences of some pairs."""
        return Differences(self.signed_PF[rows], self.sign_P[rows])


def differences(captions: Captions, pairs_P3: np.ndarray, baseline: Baseline) -> Differences:
    """The feature differences for a baseline, one row per pair."""
    from scipy import sparse

    sign_P = np.where(np.arange(len(pairs_P3)) % 2, -1, 1).astype(np.float32)
    chunks = []
    for start in range(0, len(pairs_P3), _CHUNK):
        _, true_P, false_P = pairs_P3[start : start + _CHUNK].T
        rows = _features(captions, true_P, baseline) - _features(captions, false_P, baseline)
        rows.data *= np.repeat(sign_P[start : start + _CHUNK], np.diff(rows.indptr))
        rows.eliminate_zeros()
        chunks.append(rows)
    return Differences(sparse.vstack(chunks, format="csr"), sign_P)


def _features(captions: Captions, chosen_P: np.ndarray, baseline: Baseline) -> Any:
    """Feature counts of captions, [P, F]."""
    from scipy import sparse

    tokens_PT = captions.tokens_CT[chosen_P]
    columns, count = tokens_PT.astype(np.int64), len(captions.names)
    if baseline != "words":
        first, second = np.triu_indices(tokens_PT.shape[1], 1)
        pairs = _numbers_of_pairs(columns[:, first], columns[:, second], baseline) + count
        pairs[tokens_PT[:, second] < 0] = -1
        columns, count = np.hstack([columns, pairs]), count + 2**_HASHED
    is_there = columns >= 0
    ends = np.concatenate([[0], is_there.sum(1).cumsum()])
    found = columns[is_there].astype(np.int32)
    counts = sparse.csr_matrix(
        (np.ones(len(found), np.float32), found, ends.astype(np.int32)),
        shape=(len(tokens_PT), count),
    )
    counts.sum_duplicates()
    return counts


def _numbers_of_pairs(first: np.ndarray, second: np.ndarray, baseline: Baseline) -> np.ndarray:
    """Hashes of pairs of words below 2**_HASHED, by multiplicative hashing (Knuth, The Art of
    Computer Programming 3, 6.4)."""
    if baseline == "word_pairs":
        first, second = np.minimum(first, second), np.maximum(first, second)
    mixed = (first.astype(np.uint64) << np.uint64(32)) + second.astype(np.uint64) + np.uint64(1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(64 - _HASHED)).astype(np.int64)


def folds(image_P: np.ndarray) -> np.ndarray | None:
    """The fold of each pair, the same for all pairs of an image; None for a single image."""
    fold_P = np.unique(image_P, return_inverse=True)[1] % FOLDS
    return fold_P if fold_P.any() else None


def cross_validated(seen: Differences, fold_P: np.ndarray) -> np.ndarray:
    """Whether each pair is classified correctly by a classifier trained without its fold.

    Args:
        seen: Feature differences of at least two pairs.
        fold_P: As returned by ``folds``.

    Returns:
        [P]: 0 or 1, 1/2 for a tie.
    """
    seen = Differences(_without_singletons(seen.signed_PF), seen.sign_P)
    correct_P = np.empty(len(fold_P))
    names = np.unique(fold_P)
    for place, fold in enumerate(names):
        is_tested_P, is_held_P = fold_P == fold, fold_P == names[place - 1]
        step = _best_step(seen, ~is_tested_P & ~is_held_P, is_held_P)
        weight_F = _fitted(seen.of(~is_tested_P), step)
        correct_P[is_tested_P] = _correct(seen.of(is_tested_P), weight_F)
    return correct_P


def _without_singletons(signed_PF: Any) -> Any:
    """Drops features that occur in one pair only: most columns, and useless for other pairs."""
    pairs_F = np.bincount(signed_PF.indices, minlength=signed_PF.shape[1])
    pairs_F[0] += 2 * (pairs_F < 2).all()  # a regression needs at least one column
    return signed_PF[:, pairs_F > 1]


def _best_step(seen: Differences, is_trained_P: np.ndarray, is_held_P: np.ndarray) -> float:
    """The learning rate with the best accuracy on held-out pairs, which are not tested on."""
    if not is_trained_P.any():  # two folds only
        return _STEPS[1]
    trained, held = seen.of(is_trained_P), seen.of(is_held_P)
    return max(_STEPS, key=lambda step: _correct(held, _fitted(trained, step)).mean())


def _correct(seen: Differences, weight_F: np.ndarray) -> np.ndarray:
    return ranked_correctly(seen.sign_P * (seen.signed_PF @ weight_F))


def ranked_correctly(margin_P: np.ndarray) -> np.ndarray:
    """1 where the score of the true caption minus that of the false one is positive, 1/2 for 0."""
    return np.where(np.abs(margin_P) < _TIE, 0.5, margin_P > 0)


def _fitted(seen: Differences, step: float) -> np.ndarray:
    """The weights of a logistic regression, [F]."""
    from scipy import sparse
    from sklearn.linear_model import SGDClassifier

    signed_PF, sign_P = seen.signed_PF, seen.sign_P
    if abs(sign_P.sum()) == len(sign_P):  # one class: a row of zeros for the other, no gradient
        zeros = sparse.csr_matrix((1, signed_PF.shape[1]), dtype=np.float32)
        signed_PF, sign_P = (
            sparse.vstack([signed_PF, zeros], format="csr"),
            np.append(sign_P, -sign_P[0]),
        )
    model = SGDClassifier(
        loss="log_loss",
        fit_intercept=False,
        alpha=1e-7,
        max_iter=_PASSES * (3 if len(sign_P) <= _SMALL else 1),
        tol=None,
        average=True,
        learning_rate="constant",
        eta0=step,
        random_state=0,
    )
    weight_F: np.ndarray = model.fit(signed_PF, sign_P).coef_[0]
    return weight_F


def strongest_words(
    captions: Captions, pairs_P3: np.ndarray, baseline: Baseline
) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """The words with the largest weights for true and for false captions, in a regression of all
    pairs."""
    seen = differences(captions, pairs_P3, baseline)
    differs_PF = seen.signed_PF.multiply(seen.sign_P[:, None]).tocsr()
    in_true_F = _times(differs_PF.maximum(0))
    in_false_F = _times((-differs_PF).maximum(0))
    spread_F = np.sqrt((in_true_F + in_false_F) / len(pairs_P3))
    weight_F = _fitted(seen, _STEPS[1]) * spread_F

    def strongest(sign: int) -> list[int]:
        order_F = np.argsort(-sign * weight_F, kind="stable")[:WORDS]
        return [int(f) for f in order_F if sign * weight_F[f] > _TIE]

    chosen = strongest(1), strongest(-1)
    names = _names(captions, pairs_P3, baseline, {*chosen[0], *chosen[1]})

    def words(features: list[int]) -> tuple[Word, ...]:
        return tuple(
            Word(names[f], round(float(weight_F[f]), 4), int(in_true_F[f]), int(in_false_F[f]))
            for f in features
        )

    return words(chosen[0]), words(chosen[1])


def _times(found_PF: Any) -> np.ndarray:
    return np.asarray(found_PF.sum(axis=0)).ravel()


def _names(
    captions: Captions, pairs_P3: np.ndarray, baseline: Baseline, wanted: set[int]
) -> dict[int, str]:
    """The words of features; of several pairs with one hash, the first that occurs."""
    names = {f: captions.names[f] for f in wanted if f < len(captions.names)}
    first, second = np.triu_indices(captions.tokens_CT.shape[1], 1)
    hashed = np.array(sorted(wanted - names.keys()), np.int64)
    for caption in np.unique(pairs_P3[:, 1:]) if len(hashed) else ():
        tokens_T = captions.tokens_CT[caption]
        is_there = tokens_T[second] >= 0
        one, other = tokens_T[first[is_there]], tokens_T[second[is_there]]
        numbers = _numbers_of_pairs(one, other, baseline) + len(captions.names)
        for at in np.flatnonzero(np.isin(numbers, hashed)):
            pair = f"{captions.names[one[at]]} + {captions.names[other[at]]}"
            names.setdefault(int(numbers[at]), pair)
        if len(names) == len(wanted):
            break
    return names


MOST_WORDS = 2_000_000
"""Largest vocabulary: three words are one 64-bit number."""

_START, _END = 0, 1
"""Numbers of the start and end tokens; words follow them."""


class _Grams(NamedTuple):
    """The different n-grams of one order in some captions."""

    key_G: np.ndarray
    """Each as a number, sorted: those of its history times the vocabulary, plus its last word's."""
    at_N: np.ndarray
    """The n-gram at each position."""
    shorter_G: np.ndarray
    """Each n-gram without its first word, as an index into the next lower order."""


class NGrams:
    """The unigrams, bigrams and trigrams of captions.

    Args:
        captions: The numbers of each caption's words, from 0; iterated once.
        vocabulary: Number of different words, at most ``MOST_WORDS``.
    """

    def __init__(self, captions: Iterable[Iterable[int]], vocabulary: int) -> None:
        self.words = vocabulary + 2
        # Two start tokens, the words, and one for the end.
        running = ((_START, _START, *(w + 2 for w in words), _END) for words in captions)
        token_M = np.fromiter(chain.from_iterable(running), np.int64)
        place_N = np.flatnonzero(token_M != _START)
        self.caption_N = np.cumsum(token_M == _START)[place_N] // 2 - 1
        self.places_C = np.bincount(self.caption_N)
        first_N, middle_N, last_N = (token_M[place_N - before] for before in (2, 1, 0))
        self.orders: list[_Grams] = []
        shorter_N = last_N
        for before_N in (np.zeros_like(last_N), middle_N, first_N * self.words + middle_N):
            key_G, one_G, at_N = np.unique(
                before_N * self.words + last_N, return_index=True, return_inverse=True
            )
            self.orders.append(_Grams(key_G, at_N, shorter_N[one_G]))
            shorter_N = at_N


class _Counts(NamedTuple):
    """Training counts of one order."""

    key_G: np.ndarray
    """The n-grams, sorted."""
    count_G: np.ndarray
    before_H: np.ndarray
    """Their histories, sorted."""
    count_H: np.ndarray
    kinds_H: np.ndarray
    """Different words after each."""


class Trigrams:
    """A trigram language model.

    Witten-Bell interpolation: P(w | h) = (c(hw) + t(h) P(w | h')) / (c(h) + t(h)), where c counts,
    t(h) is the number of different words after h, and h' is h without its first word; the lowest
    order is uniform over the vocabulary. Source: Witten and Bell, The zero-frequency problem, 1991;
    Chen and Goodman, An empirical study of smoothing techniques, 1999, section 2.4.

    Args:
        grams: Those of the captions to train on.
        times_C: How often each caption is in the training data; once by default.
    """

    def __init__(self, grams: NGrams, times_C: np.ndarray | None = None) -> None:
        times_N = None if times_C is None else times_C[grams.caption_N].astype(np.float64)
        self._orders = []
        for key_G, at_N, _ in grams.orders:
            count_G = np.bincount(at_N, times_N, len(key_G))
            key_G, count_G = key_G[count_G > 0], count_G[count_G > 0]
            before_H, at_G = np.unique(key_G // grams.words, return_inverse=True)
            count_H, kinds_H = np.bincount(at_G, count_G), np.bincount(at_G)
            self._orders.append(_Counts(key_G, count_G, before_H, count_H, kinds_H))

    def logarithms(self, grams: NGrams) -> np.ndarray:
        """The log probability of each caption with its end, [C], in nats.

        Args:
            grams: Those of any captions, with the vocabulary of the training data.
        """
        chance_G = np.full(grams.words, 1 / grams.words)
        for order, known in zip(grams.orders, self._orders, strict=True):
            shorter_G, before_G = chance_G[order.shorter_G], order.key_G // grams.words
            count_G = _found(known.key_G, known.count_G, order.key_G)
            total_G = _found(known.before_H, known.count_H, before_G)
            kinds_G = _found(known.before_H, known.kinds_H, before_G)
            mixed_G = (count_G + kinds_G * shorter_G) / np.where(total_G > 0, total_G + kinds_G, 1)
            chance_G = np.where(total_G > 0, mixed_G, shorter_G)
        log_N = np.log(chance_G)[grams.orders[-1].at_N]
        return np.bincount(grams.caption_N, log_N, len(grams.places_C))


def _found(key_G: np.ndarray, value_G: np.ndarray, wanted_K: np.ndarray) -> np.ndarray:
    """The values of keys, which are sorted; 0 for those that are not there."""
    if not len(key_G):
        return np.zeros(len(wanted_K))
    at_K = np.searchsorted(key_G, wanted_K).clip(max=len(key_G) - 1)
    return np.where(key_G[at_K] == wanted_K, value_G[at_K], 0)
