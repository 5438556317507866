"""Can text alone tell true captions from false ones? Then a model may learn to read, not to look.

    hnc-ds generate ... --audit

Each pair of a true caption and a false one is two captions to be told, so that guessing is right
for half of them. text_classifier.py reads them without their pictures and is tested on images that
it was not trained on. Balanced captions may come out slightly below one half: what one image adds
to a side, the images trained on lack.

P pairs. A row of pairs_P3 is (image, true caption, false caption), as numbers.
"""

import random
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.text_classifier import (
    Word,
    check_installed,
    cross_validated,
    telling_words,
    text_features,
)
from hnc_ds.errors import UserError, counted
from hnc_ds.records import ImageCaptions

OVERALL_LIMIT = 0.53
TYPE_LIMIT = 0.58
FEWEST_PAIRS = 200
"""Of fewer the accuracy says little: its standard error is above 0.025."""
MOST_PAIRS = 30_000
"""Of a type; more are thinned out by a seeded draw. Bounds the time."""

_WIDTH = 100
_DIGITS = 4

_LEGEND = (
    "one for all: the classifier of the first line, which serves all types",
    "order: words seen with their places; an implausible order shows here and has no limit",
)

_PairText = tuple[int, str, str]
"""Image, true caption, false caption."""


class Score(msgspec.Struct, frozen=True):
    """How well text alone tells true from false: a share of captions, two of each pair."""

    pairs: int
    images: int
    judged: bool
    """Whether the pairs are enough to hold the accuracy against a limit."""
    accuracy: float | None
    """None with a single image, which cannot be cross-validated."""
    error: float | None
    """The accuracy's standard error, with whole images as what was drawn."""


class Audit(msgspec.Struct, frozen=True):
    """What an audit found; a part of OUT.stats.json."""

    overall: Score
    """One classifier for the pairs of all types, held against OVERALL_LIMIT."""
    types: dict[str, Score]
    """A classifier of its own for each type, held against TYPE_LIMIT: it can use whatever gives
    this type away, which the classifier for all may have to trade for other types."""
    by_overall: dict[str, float | None]
    """For comparison, the accuracy on each type of the classifier for all."""
    order: dict[str, float | None]
    """The accuracy on each type when every word is seen together with its place instead. Above
    0.5 where the order itself is implausible, as exchanges make it ("the grass eats the cow"),
    so there is no limit for it."""
    worst: str
    """The type of the largest accuracy, among those that can be judged if there are any."""
    speaks_for_true: tuple[Word, ...]
    """In the worst type, the largest weight first."""
    speaks_for_false: tuple[Word, ...]


def audit(path: Path, images: int, seed: int) -> Audit:
    """Measure how well text alone tells the labels of a file of captions.

    Args:
        path: As ``read_captions``. Negatives not proven false are taken as they are written.
        images: At most so many are drawn, from the whole of the file.
        seed: Of the draws. Same seed, same numbers.

    Raises:
        UserError: scikit-learn is not installed; no pairs; as ``read_captions``.
    """
    check_installed()
    captions, pairs_of = _numbered(_drawn_pairs(path, images, seed))
    if not captions:
        raise UserError(f"{path}: holds no negatives; there is nothing to audit")
    features = text_features(captions)
    all_P3 = np.concatenate(list(pairs_of.values()))
    right_P = cross_validated(features.words_CF, all_P3)
    types, order = {}, {}
    for name, pairs_P3 in pairs_of.items():
        types[name] = _score(cross_validated(features.words_CF, pairs_P3), pairs_P3)
        order[name] = _mean(cross_validated(features.placed_CF, pairs_P3))
    worst = max(types, key=lambda name: (types[name].judged, types[name].accuracy or 0.0))
    for_true, for_false = telling_words(features, pairs_of[worst])
    return Audit(
        overall=_score(right_P, all_P3),
        types=types,
        by_overall=_by_type(right_P, pairs_of),
        order=order,
        worst=worst,
        speaks_for_true=for_true,
        speaks_for_false=for_false,
    )


def table(found: Audit) -> str:
    """The audit as lines for a terminal: the limits, and a mark where one is exceeded."""
    width = max(map(len, ["type", *found.types])) + 2
    lines = [
        "Text alone against the labels, on images not trained on: "
        f"{counted(found.overall.pairs, 'pair')} "
        f"of {counted(found.overall.images, 'image')}",
        "",
        f"{'type':<{width}}{'accuracy':>8}{'error':>8}{'limit':>7}{'one for all':>13}{'order':>8}"
        f"{'pairs':>10}{'images':>9}",
        "all".ljust(width) + _numbers(found.overall, OVERALL_LIMIT, None, None),
    ]
    for name, score in found.types.items():
        numbers = _numbers(score, TYPE_LIMIT, found.by_overall[name], found.order[name])
        lines.append(name.ljust(width) + numbers)
    return "\n".join([*lines, "", *_LEGEND, *_reasons(found)])


def _reasons(found: Audit) -> list[str]:
    """The words behind an exceeded limit; below the limits they are chance and would mislead."""
    worst = _exceeds(found.types[found.worst], TYPE_LIMIT)
    if not worst and not _exceeds(found.overall, OVERALL_LIMIT):
        return []
    sides = [("true", found.speaks_for_true), ("false", found.speaks_for_false)]
    return [_listed(f"{found.worst}: {side} is said by", told) for side, told in sides if told]


def _numbers(score: Score, limit: float, by_overall: float | None, order: float | None) -> str:
    return (
        f"{_number(score.accuracy):>8}{_number(score.error):>8}{limit:>7.2f}"
        f"{_number(by_overall):>13}{_number(order):>8}{score.pairs:>10,}{score.images:>9,}"
        f"{_mark(score, limit)}"
    )


def _mark(score: Score, limit: float) -> str:
    if not score.judged:
        return "  too few to judge"
    return "  ABOVE THE LIMIT" if _exceeds(score, limit) else ""


def _exceeds(score: Score, limit: float) -> bool:
    return score.judged and score.accuracy is not None and score.accuracy > limit


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _listed(start: str, words: Iterable[Word]) -> str:
    told = ", ".join(f"{w.word} ({w.in_true:,} true, {w.in_false:,} false)" for w in words)
    return textwrap.fill(f"{start} {told}", _WIDTH, subsequent_indent="  ")


def _drawn_pairs(path: Path, images: int, seed: int) -> dict[str, list[_PairText]]:
    """The pairs of some images by type, types in alphabetical order."""
    found: dict[str, list[_PairText]] = {}
    for number, image in enumerate(_drawn_images(read_captions(path), images, seed)):
        for group in image.groups:
            for negative in group.negatives:
                pair = (number, group.positive, negative.caption)
                found.setdefault(negative.type, []).append(pair)
    return {name: _thinned(found[name], f"{seed}/audit/{name}") for name in sorted(found)}


def _drawn_images(images: Iterable[ImageCaptions], most: int, seed: int) -> list[ImageCaptions]:
    """Each image with the same chance, in one pass (reservoir sampling)."""
    rng = random.Random(f"{seed}/audit")
    drawn: list[ImageCaptions] = []
    for count, image in enumerate(images):
        if count < most:
            drawn.append(image)
        elif (place := rng.randrange(count + 1)) < most:
            drawn[place] = image
    return drawn


def _thinned(pairs: list[_PairText], seed: str) -> list[_PairText]:
    return random.Random(seed).sample(pairs, MOST_PAIRS) if len(pairs) > MOST_PAIRS else pairs


def _numbered(
    pairs_of: Mapping[str, list[_PairText]],
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The distinct captions, and the pairs of each type as [P, 3]."""
    numbers: dict[str, int] = {}

    def number(caption: str) -> int:
        return numbers.setdefault(caption, len(numbers))

    numbered = {
        name: np.array([(image, number(true), number(false)) for image, true, false in pairs])
        for name, pairs in pairs_of.items()
    }
    return list(numbers), numbered


def _score(right_P: np.ndarray | None, pairs_P3: np.ndarray) -> Score:
    image_P = np.unique(pairs_P3[:, 0], return_inverse=True)[1]
    images = int(image_P.max()) + 1
    error = None if right_P is None else _standard_error(right_P, image_P)
    judged = right_P is not None and len(pairs_P3) >= FEWEST_PAIRS
    return Score(len(pairs_P3), images, judged, _mean(right_P), error)


def _by_type(
    right_P: np.ndarray | None, pairs_of: Mapping[str, np.ndarray]
) -> dict[str, float | None]:
    """Means over the pairs of each type, which stand one type after the other."""
    if right_P is None:
        return dict.fromkeys(pairs_of)
    ends = np.cumsum([len(pairs) for pairs in pairs_of.values()])[:-1]
    return dict(zip(pairs_of, map(_mean, np.split(right_P, ends)), strict=True))


def _mean(right_P: np.ndarray | None) -> float | None:
    return None if right_P is None else round(float(right_P.mean()), _DIGITS)


def _standard_error(right_P: np.ndarray, image_P: np.ndarray) -> float:
    """Of a mean whose pairs come in images, a ratio of two sums over images. Source: Cochran,
    Sampling Techniques, 1977, chapter 6."""
    off_I = np.bincount(image_P, weights=right_P - right_P.mean())
    images = len(off_I)
    return round(float(np.sqrt(images / (images - 1) * (off_I**2).sum()) / len(right_P)), _DIGITS)
