"""A classifier that reads captions without their pictures; audit.py asks how often it is right.

A logistic regression on a caption's words and its template, the sentence without its content
words. The only file that imports scikit-learn, and only when it is asked to work.

P pairs, C distinct captions, F features. A row of pairs_P3 is (image, true caption, false
caption), as numbers.
"""

import importlib.util
import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any

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

_TOKENS = re.compile(r"\w+(?:[-'\u2019]\w+)*|[^\w\s]")
_PLACE = "\n"
"""Between a word and its place. No word and no template holds it."""
_TOLERANCE = 0.01
"""Liblinear's own default. Smaller ones take twice the time to the same accuracy."""
_TIE = 1e-9
"""A score nearer to zero is rounding and no judgement; it counts as half right."""


class Word(msgspec.Struct, frozen=True):
    """A word, or a [template], that speaks for one side."""

    word: str
    weight: float
    """In the regression, per standard deviation of its count: rare words do not come first."""
    in_true: int
    in_false: int
    """How often it stands in the captions of that side."""


@dataclass(frozen=True)
class TextFeatures:
    """What captions look like to a classifier. Sparse matrices of scikit-learn's making."""

    words_CF: Any
    """How often a caption has each word and template."""
    placed_CF: Any
    """How often it has each word at each place, a place being the number of frame words so far."""
    names_F: np.ndarray
    """Of the columns of words_CF; templates stand in brackets."""


def check_installed() -> None:
    """Refuse to begin what cannot be ended.

    Raises:
        UserError: scikit-learn is missing.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("audit: needs scikit-learn; pip install 'hnc_ds[audit]'")


def text_features(captions: list[str]) -> TextFeatures:
    """The features of some captions, in their order."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=_seen, dtype=np.float64)
    seen_CF = vectorizer.fit_transform(captions)
    names_F = vectorizer.get_feature_names_out()
    placed_F = np.array([_PLACE in name for name in names_F])
    return TextFeatures(seen_CF[:, ~placed_F], seen_CF[:, placed_F], names_F[~placed_F])


def _seen(caption: str) -> list[str]:
    """The words and marks of a caption as they are written, the same with their places, and its
    template."""
    found, frame, place = [], [], 0
    for word in _TOKENS.findall(caption):
        framed = word.lower() in TEMPLATE_WORDS or not word[0].isalnum()
        place += framed
        found += [word, f"{word}{_PLACE}{place}"]
        frame.append(word if framed else SLOT)
    template = " ".join(word for word, _ in groupby(frame))
    return [*found, f"[{template}]"]


def cross_validated(features_CF: Any, pairs_P3: np.ndarray) -> np.ndarray | None:
    """The share of each pair's captions told rightly by a classifier that saw no pair of its image.

    Args:
        features_CF: Of the captions that the pairs refer to.
        pairs_P3: At least one.

    Returns:
        [P]: 0, 1/2 or 1, a tie being half right; None where all pairs are of one image.
    """
    fold_P = np.unique(pairs_P3[:, 0], return_inverse=True)[1] % FOLDS
    if not fold_P.any():
        return None
    right_P = np.empty(len(pairs_P3))
    for fold in np.unique(fold_P):
        test_P = fold_P == fold
        model = _fitted(features_CF, pairs_P3[~test_P])
        score_C = features_CF @ model.coef_[0] + model.intercept_[0]
        _, true_T, false_T = pairs_P3[test_P].T
        right_P[test_P] = (_right(score_C[true_T]) + _right(-score_C[false_T])) / 2
    return right_P


def _right(score: np.ndarray) -> np.ndarray:
    return np.where(np.abs(score) < _TIE, 0.5, score > 0)


def _fitted(features_CF: Any, pairs_P3: np.ndarray) -> Any:
    """A logistic regression of the labels; equal rows are joined to one that counts as many."""
    from sklearn.linear_model import LogisticRegression

    _, true_P, false_P = pairs_P3.T
    rows, times = np.unique(np.concatenate([2 * true_P + 1, 2 * false_P]), return_counts=True)
    model = LogisticRegression(solver="liblinear", tol=_TOLERANCE)
    return model.fit(features_CF[rows // 2], rows % 2, sample_weight=times)


def telling_words(
    features: TextFeatures, pairs_P3: np.ndarray
) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """What speaks for true and what for false in the regression of all these pairs, the largest
    weights first."""
    _, true_P, false_P = pairs_P3.T
    count = features.words_CF.shape[0]
    true_C, false_C = (np.bincount(side_P, minlength=count) for side_P in (true_P, false_P))
    in_true_F, in_false_F = features.words_CF.T @ true_C, features.words_CF.T @ false_C
    spread_F = _spread(features.words_CF, true_C + false_C)
    weight_F = _fitted(features.words_CF, pairs_P3).coef_[0] * spread_F

    def strongest(sign: int) -> tuple[Word, ...]:
        order_F = np.argsort(-sign * weight_F, kind="stable")[:WORDS]
        return tuple(
            Word(
                features.names_F[f],
                round(float(weight_F[f]), 4),
                int(in_true_F[f]),
                int(in_false_F[f]),
            )
            for f in order_F
            if sign * weight_F[f] > _TIE
        )

    return strongest(1), strongest(-1)


def _spread(features_CF: Any, times_C: np.ndarray) -> np.ndarray:
    """The standard deviation of each feature over captions that count so many times."""
    rows = times_C.sum()
    mean_F = features_CF.T @ times_C / rows
    square_F = features_CF.multiply(features_CF).T @ times_C / rows
    return np.sqrt(np.maximum(square_F - mean_F**2, 0))
