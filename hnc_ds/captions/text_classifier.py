"""Readers that see captions without their images; audit.py asks how often they are right.

A reader is given both captions of a pair and says which is the true one: what both say cancels,
so that a small difference is not lost in what images are of. It is a logistic regression of the
difference of their features (words; words and pairs of words; words and which comes before
which), by averaged stochastic gradients, whose step is the best on images held out from training.
The only file that imports scikit-learn, and only when it is asked to work.

P pairs, C distinct captions, T tokens of the longest caption, F features. A row of pairs_P3 is
(image, true caption, false caption), as numbers.
"""

import importlib.util
import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import msgspec
import numpy as np

from hnc_ds.errors import UserError

FOLDS = 5
WORDS = 10
"""Named for each side."""

SLOT = "_"
TEMPLATE_WORDS = frozenset(
    "a an the is are there no not some any at least one both either and or that who which "
    "as many more fewer less than made of".split()
)
"""Words of the sentence frames, in small letters; every other word is content."""

Reader = Literal["words", "word_pairs", "order"]

_TOKENS = re.compile(r"\w+(?:[-'\u2019]\w+)*|[^\w\s]")
_HASHED = 20
"""Bits of the number of a pair of words. Collisions add noise, and with a million columns for the
some ten thousand pairs of words of a type hardly any."""
_CHUNK = 5000
"""Pairs whose features are made at a time; bounds the memory."""
_STEPS = (0.02, 0.1, 0.5)
"""Of the gradients. Small ones keep weights of rare features small, as regularisation does."""
_PASSES = 4
_SMALL = 10_000
"""Up to so many pairs three times the passes: by then they tell as much as liblinear does."""
_TIE = 1e-9
"""A difference nearer to zero is rounding and no judgement; it counts as half right."""


class Word(msgspec.Struct, frozen=True):
    """A word, a [template] or a pair of them, that speaks for one side."""

    word: str
    weight: float
    """In the regression, per standard deviation of the difference: rare words do not come first."""
    in_true: int
    in_false: int
    """How often it stands in the captions of that side, and not in the other of the pair."""


@dataclass(frozen=True)
class Captions:
    """Captions as numbers of words, each caption's template at its end."""

    tokens_CT: np.ndarray
    """int32; -1 behind a caption's end."""
    names: list[str]
    """Of the numbers; templates stand in brackets."""

    def without_templates(self) -> np.ndarray:
        """The words alone, [C, T]."""
        words_CT = self.tokens_CT.copy()
        rows = np.arange(len(words_CT))
        words_CT[rows, (words_CT >= 0).sum(1) - 1] = -1
        return words_CT


def check_installed() -> None:
    """Refuse to begin what cannot be ended.

    Raises:
        UserError: scikit-learn is missing.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("audit: needs scikit-learn; pip install 'hnc_ds[audit]'")


def tokenized(captions: list[str]) -> Captions:
    """Words and marks as they are written, and the template: the sentence without its content."""
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(t, len(numbers)) for t in _seen(caption)] for caption in captions]
    tokens_CT = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for row, found in zip(tokens_CT, rows, strict=True):
        row[: len(found)] = found
    return Captions(tokens_CT, list(numbers))


def _seen(caption: str) -> list[str]:
    found = _TOKENS.findall(caption)
    frame = (w if w.lower() in TEMPLATE_WORDS or not w[0].isalnum() else SLOT for w in found)
    return [*found, f"[{' '.join(word for word, _ in groupby(frame))}]"]


@dataclass(frozen=True)
class Differences:
    """What the true captions of pairs have and their false ones do not, every second one turned
    round so that a regression has two classes."""

    turned_PF: Any
    """A sparse matrix."""
    sign_P: np.ndarray
    """1 where a row is true - false, -1 where it is false - true."""

    def of(self, rows: slice | np.ndarray) -> "Differences":
        """Those of some pairs."""
        return Differences(self.turned_PF[rows], self.sign_P[rows])


def differences(captions: Captions, pairs_P3: np.ndarray, reader: Reader) -> Differences:
    """The differences that a reader sees, a row for each pair."""
    from scipy import sparse

    sign_P = np.where(np.arange(len(pairs_P3)) % 2, -1, 1).astype(np.float32)
    made = []
    for start in range(0, len(pairs_P3), _CHUNK):
        _, true_P, false_P = pairs_P3[start : start + _CHUNK].T
        rows = _features(captions, true_P, reader) - _features(captions, false_P, reader)
        rows.data *= np.repeat(sign_P[start : start + _CHUNK], np.diff(rows.indptr))
        rows.eliminate_zeros()
        made.append(rows)
    return Differences(sparse.vstack(made, format="csr"), sign_P)


def _features(captions: Captions, chosen_P: np.ndarray, reader: Reader) -> Any:
    """How often each of some captions has each feature, [P, F]."""
    from scipy import sparse

    tokens_PT = captions.tokens_CT[chosen_P]
    columns, count = tokens_PT.astype(np.int64), len(captions.names)
    if reader != "words":
        first, second = np.triu_indices(tokens_PT.shape[1], 1)
        pairs = _numbers_of_pairs(columns[:, first], columns[:, second], reader) + count
        pairs[tokens_PT[:, second] < 0] = -1
        columns, count = np.hstack([columns, pairs]), count + 2**_HASHED
    is_there = columns >= 0
    ends = np.concatenate([[0], is_there.sum(1).cumsum()])
    found = columns[is_there].astype(np.int32)
    made = sparse.csr_matrix(
        (np.ones(len(found), np.float32), found, ends.astype(np.int32)),
        shape=(len(tokens_PT), count),
    )
    made.sum_duplicates()
    return made


def _numbers_of_pairs(first: np.ndarray, second: np.ndarray, reader: Reader) -> np.ndarray:
    """Pairs of words as numbers below 2**_HASHED, by multiplicative hashing (Knuth, The Art of
    Computer Programming 3, 6.4)."""
    if reader == "word_pairs":
        first, second = np.minimum(first, second), np.maximum(first, second)
    mixed = (first.astype(np.uint64) << np.uint64(32)) + second.astype(np.uint64) + np.uint64(1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(64 - _HASHED)).astype(np.int64)


def folds(image_P: np.ndarray) -> np.ndarray | None:
    """The fold of each pair, an image's all in one; None where all are of one image."""
    fold_P = np.unique(image_P, return_inverse=True)[1] % FOLDS
    return fold_P if fold_P.any() else None


def cross_validated(seen: Differences, fold_P: np.ndarray) -> np.ndarray:
    """Whether each pair is told rightly by a classifier that saw no pair of its fold.

    Args:
        seen: At least two pairs.
        fold_P: As from ``folds``.

    Returns:
        [P]: 0, 1/2 or 1, a tie being half right.
    """
    seen = Differences(_seen_twice(seen.turned_PF), seen.sign_P)
    right_P = np.empty(len(fold_P))
    names = np.unique(fold_P)
    for place, fold in enumerate(names):
        is_tested_P, is_held_P = fold_P == fold, fold_P == names[place - 1]
        step = _best_step(seen, ~is_tested_P & ~is_held_P, is_held_P)
        weight_F = _fitted(seen.of(~is_tested_P), step)
        right_P[is_tested_P] = _right(seen.of(is_tested_P), weight_F)
    return right_P


def _seen_twice(turned_PF: Any) -> Any:
    """Without the features of a single pair, which tell nothing of others: most of the columns."""
    pairs_F = np.bincount(turned_PF.indices, minlength=turned_PF.shape[1])
    pairs_F[0] += 2 * (pairs_F < 2).all()  # a regression wants a column
    return turned_PF[:, pairs_F > 1]


def _best_step(seen: Differences, is_trained_P: np.ndarray, is_held_P: np.ndarray) -> float:
    """The step that tells most of held-out pairs, which are neither trained nor tested on."""
    if not is_trained_P.any():  # two folds only
        return _STEPS[1]
    trained, held = seen.of(is_trained_P), seen.of(is_held_P)
    return max(_STEPS, key=lambda step: _right(held, _fitted(trained, step)).mean())


def _right(seen: Differences, weight_F: np.ndarray) -> np.ndarray:
    return ordered_rightly(seen.sign_P * (seen.turned_PF @ weight_F))


def ordered_rightly(more_for_true_P: np.ndarray) -> np.ndarray:
    """1 where the true caption has the higher score, 1/2 where both have the same."""
    return np.where(np.abs(more_for_true_P) < _TIE, 0.5, more_for_true_P > 0)


def _fitted(seen: Differences, step: float) -> np.ndarray:
    """The weights of a logistic regression, [F]."""
    from scipy import sparse
    from sklearn.linear_model import SGDClassifier

    turned_PF, sign_P = seen.turned_PF, seen.sign_P
    if abs(sign_P.sum()) == len(sign_P):  # one class: a row of zeros for the other, no gradient
        zeros = sparse.csr_matrix((1, turned_PF.shape[1]), dtype=np.float32)
        turned_PF, sign_P = (
            sparse.vstack([turned_PF, zeros], format="csr"),
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
    weight_F: np.ndarray = model.fit(turned_PF, sign_P).coef_[0]
    return weight_F


def telling_words(
    captions: Captions, pairs_P3: np.ndarray, reader: Reader
) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """What speaks for true and what for false in the regression of all these pairs, the largest
    weights first."""
    seen = differences(captions, pairs_P3, reader)
    differs_PF = seen.turned_PF.multiply(seen.sign_P[:, None]).tocsr()
    in_true_F = _times(differs_PF.maximum(0))
    in_false_F = _times((-differs_PF).maximum(0))
    spread_F = np.sqrt((in_true_F + in_false_F) / len(pairs_P3))
    weight_F = _fitted(seen, _STEPS[1]) * spread_F

    def strongest(sign: int) -> list[int]:
        order_F = np.argsort(-sign * weight_F, kind="stable")[:WORDS]
        return [int(f) for f in order_F if sign * weight_F[f] > _TIE]

    told = strongest(1), strongest(-1)
    names = _names(captions, pairs_P3, reader, {f for side in told for f in side})

    def words(side: list[int]) -> tuple[Word, ...]:
        return tuple(
            Word(names[f], round(float(weight_F[f]), 4), int(in_true_F[f]), int(in_false_F[f]))
            for f in side
        )

    return words(told[0]), words(told[1])


def _times(found_PF: Any) -> np.ndarray:
    return np.asarray(found_PF.sum(axis=0)).ravel()


def _names(
    captions: Captions, pairs_P3: np.ndarray, reader: Reader, wanted: set[int]
) -> dict[int, str]:
    """The words of some features; of pairs with one number the first that is met."""
    names = {f: captions.names[f] for f in wanted if f < len(captions.names)}
    first, second = np.triu_indices(captions.tokens_CT.shape[1], 1)
    hashed = np.array(sorted(wanted - names.keys()), np.int64)
    for caption in np.unique(pairs_P3[:, 1:]) if len(hashed) else ():
        tokens_T = captions.tokens_CT[caption]
        is_there = tokens_T[second] >= 0
        one, other = tokens_T[first[is_there]], tokens_T[second[is_there]]
        numbers = _numbers_of_pairs(one, other, reader) + len(captions.names)
        for at in np.flatnonzero(np.isin(numbers, hashed)):
            pair = f"{captions.names[one[at]]} + {captions.names[other[at]]}"
            names.setdefault(int(numbers[at]), pair)
        if len(names) == len(wanted):
            break
    return names
