"""Can text alone tell true captions from false ones? Then a model may learn to read, not to look.

    hnc-ds generate ... --audit

Four readers are given both captions of a pair without the image and say which is the true one;
guessing is right for half of the pairs. None of them has seen an image that it is tested on:

* words: the words, and the sentence without its content words
* word pairs: also all pairs of two of these, which tell that grass is seldom purple
* order: also which of two words comes first
* perplexity: a trigram model of true captions; the caption that surprises it less is called true

The first two have limits. The last two have none: a false caption made of the words of a true one
("the grass eats the cow") is as implausible as it is wrong, and shows there.

Balanced captions may come out slightly below one half: what one image adds to a side, the images
trained on lack.

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
    Captions,
    Reader,
    Word,
    check_installed,
    cross_validated,
    differences,
    folds,
    ordered_rightly,
    telling_words,
    tokenized,
)
from hnc_ds.captions.trigrams import Trigrams
from hnc_ds.errors import UserError, counted
from hnc_ds.records import ImageCaptions

CLASSIFIERS: tuple[Reader, ...] = ("words", "word_pairs", "order")
READERS = (*CLASSIFIERS, "perplexity")
"""The columns."""
OVERALL_LIMITS: dict[Reader, float] = {"words": 0.52, "word_pairs": 0.54}
TYPE_LIMITS: dict[Reader, float] = {"words": 0.55, "word_pairs": 0.58}
"""By reader; the others have none."""
FEWEST_PAIRS = 1000
"""Of fewer the accuracy says little: its standard error is above 0.015, and with some twenty types
one or another would exceed a limit by chance."""
MOST_PAIRS = 40_000
"""Of a type; more are thinned out by a seeded draw. Bounds time and memory."""

_WIDTH = 100
_DIGITS = 4
_SHOWN = 5
"""Words of a side on the terminal."""

_LEGEND = (
    "Of two captions the true one is told by its words; also by pairs of words; also by which of "
    "two comes first; by a trigram model of true captions. One half is a guess.",
    "Order and perplexity have no limit: a false caption may be as implausible as it is wrong.",
)

_PairText = tuple[int, str, str]
"""Image, true caption, false caption."""


class Score(msgspec.Struct, frozen=True):
    """How well text alone tells true from false: the share of pairs told rightly."""

    pairs: int
    images: int
    judged: bool
    """Whether the pairs are enough to hold the accuracies against limits."""
    accuracy: dict[str, float | None]
    """By reader; None with a single image, which cannot be cross-validated."""
    error: dict[str, float | None]
    """The accuracies' standard errors, with whole images as what was drawn."""


class Leak(msgspec.Struct, frozen=True):
    """What gives labels away, where an accuracy exceeds its limit."""

    type: str
    """A negative type, or 'all'."""
    reader: str
    speaks_for_true: tuple[Word, ...]
    """The largest weight first."""
    speaks_for_false: tuple[Word, ...]


class Audit(msgspec.Struct, frozen=True):
    """What an audit found; a part of OUT.stats.json."""

    overall: Score
    """One reader for the pairs of all types, held against OVERALL_LIMITS."""
    types: dict[str, Score]
    """A classifier of its own for each type, held against TYPE_LIMITS: it can use whatever gives
    this type away, which the one for all may have to trade for other types. The trigram model is
    the same for all."""
    leaks: tuple[Leak, ...]
    """Where limits are exceeded."""


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
    texts, pairs_of = _numbered(_drawn_pairs(path, images, seed))
    if not texts:
        raise UserError(f"{path}: holds no negatives; there is nothing to audit")
    captions = tokenized(texts)
    all_P3 = np.concatenate(list(pairs_of.values()))
    overall, types = _right_by_reader(captions, all_P3, pairs_of)
    found = Audit(
        _score(overall, all_P3),
        {name: _score(types[name], pairs_P3) for name, pairs_P3 in pairs_of.items()},
        (),
    )
    return msgspec.structs.replace(
        found,
        leaks=tuple(
            Leak(name, reader, *telling_words(captions, pairs_P3, reader))
            for name, pairs_P3 in {"all": all_P3, **pairs_of}.items()
            for reader in _exceeded(found, name)
        ),
    )


def _right_by_reader(
    captions: Captions, all_P3: np.ndarray, pairs_of: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray | None], dict[str, dict[str, np.ndarray | None]]]:
    """What readers are right about: of all pairs, and of each type, types one after the other."""
    ends = np.cumsum([0, *map(len, pairs_of.values())])
    rows_of = {
        name: slice(start, end)
        for name, start, end in zip(pairs_of, ends[:-1], ends[1:], strict=True)
    }
    overall: dict[str, np.ndarray | None] = {}
    types: dict[str, dict[str, np.ndarray | None]] = {name: {} for name in pairs_of}
    fold_P = folds(all_P3[:, 0])
    for reader in CLASSIFIERS:
        seen = differences(captions, all_P3, reader)
        overall[reader] = None if fold_P is None else cross_validated(seen, fold_P)
        for name, rows in rows_of.items():
            own_P = folds(all_P3[rows, 0])
            right_P = None if own_P is None else cross_validated(seen.of(rows), own_P)
            types[name][reader] = right_P
    overall["perplexity"] = right_P = _less_perplexing(captions, all_P3, fold_P)
    for name, rows in rows_of.items():
        is_one_image = folds(all_P3[rows, 0]) is None
        types[name]["perplexity"] = None if is_one_image or right_P is None else right_P[rows]
    return overall, types


def _less_perplexing(
    captions: Captions, pairs_P3: np.ndarray, fold_P: np.ndarray | None
) -> np.ndarray | None:
    """Whether the true captions of pairs have the lower perplexity, by a trigram model of the true
    captions of other folds."""
    if fold_P is None:
        return None
    grams = Trigrams(captions.without_templates())
    said, first = np.unique(pairs_P3[:, :2], axis=0, return_index=True)  # once an image
    right_P = np.empty(len(pairs_P3))
    for fold in np.unique(fold_P):
        trained = said[fold_P[first] != fold, 1]
        log_C = grams.mean_logarithms(np.bincount(trained, minlength=len(captions.tokens_CT)))
        is_tested_P = fold_P == fold
        _, true_T, false_T = pairs_P3[is_tested_P].T
        right_P[is_tested_P] = ordered_rightly(log_C[true_T] - log_C[false_T])
    return right_P


def table(found: Audit) -> str:
    """The audit as lines for a terminal: the limits, and a mark where one is exceeded."""
    width = max(map(len, ["limit of a type", *found.types])) + 2
    columns = "".join(f"{reader.replace('_', ' '):>12}" for reader in READERS)
    lines = [
        "Text alone against the labels, on images not trained on: "
        f"{counted(found.overall.pairs, 'pair')} "
        f"of {counted(found.overall.images, 'image')}",
        "",
        f"{'type':<{width}}{columns}{'error':>8}{'pairs':>11}{'images':>9}",
        *(name.ljust(width) + _numbers(found, name) for name in ("all", *found.types)),
        "limit of all".ljust(width) + _limits(OVERALL_LIMITS),
        "limit of a type".ljust(width) + _limits(TYPE_LIMITS),
        "",
        *(textwrap.fill(line, _WIDTH) for line in _LEGEND),
    ]
    return "\n".join([*lines, *(line for leak in found.leaks for line in _told(leak))])


def exceeded(found: Audit) -> dict[str, list[Reader]]:
    """The readers whose limit is exceeded, of 'all' and of each type that has enough pairs."""
    by_name = {name: _exceeded(found, name) for name in ("all", *found.types)}
    return {name: readers for name, readers in by_name.items() if readers}


def _exceeded(found: Audit, name: str) -> list[Reader]:
    score = found.overall if name == "all" else found.types[name]
    limits = OVERALL_LIMITS if name == "all" else TYPE_LIMITS
    return [r for r, most in limits.items() if score.judged and (score.accuracy[r] or 0) > most]


def _numbers(found: Audit, name: str) -> str:
    score = found.overall if name == "all" else found.types[name]
    accuracies = "".join(f"{_number(score.accuracy[reader]):>12}" for reader in READERS)
    error = max((e for e in score.error.values() if e is not None), default=None)
    return (
        f"{accuracies}{_number(error):>8}{score.pairs:>11,}{score.images:>9,}"
        f"{_mark(score, _exceeded(found, name))}"
    )


def _mark(score: Score, readers: list[Reader]) -> str:
    if not score.judged:
        return "  too few to judge"
    return f"  ABOVE THE LIMIT: {_spelled(readers)}" if readers else ""


def _spelled(readers: Iterable[str]) -> str:
    return ", ".join(reader.replace("_", " ") for reader in readers)


def _limits(limits: Mapping[Reader, float]) -> str:
    numbers = {reader: f"{limit:.2f}" for reader, limit in limits.items()}
    return "".join(f"{numbers.get(reader, '-'):>12}" for reader in CLASSIFIERS) + f"{'-':>12}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _told(leak: Leak) -> list[str]:
    """The words behind an exceeded limit; below the limits they are chance and would mislead."""
    sides = [("true", leak.speaks_for_true), ("false", leak.speaks_for_false)]
    start = f"{leak.type}, {_spelled([leak.reader])}"
    return [_listed(f"{start}: {side} is said by", told) for side, told in sides if told]


def _listed(start: str, words: Iterable[Word]) -> str:
    shown = list(words)[:_SHOWN]
    told = ", ".join(f"{w.word} ({w.in_true:,} true, {w.in_false:,} false)" for w in shown)
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


def _score(right_of: Mapping[str, np.ndarray | None], pairs_P3: np.ndarray) -> Score:
    image_P = np.unique(pairs_P3[:, 0], return_inverse=True)[1]
    images = int(image_P.max()) + 1
    return Score(
        pairs=len(pairs_P3),
        images=images,
        judged=images > 1 and len(pairs_P3) >= FEWEST_PAIRS,
        accuracy={r: _mean(right_P) for r, right_P in right_of.items()},
        error={
            r: None if right_P is None else _standard_error(right_P, image_P)
            for r, right_P in right_of.items()
        },
    )


def _mean(right_P: np.ndarray | None) -> float | None:
    return None if right_P is None else round(float(right_P.mean()), _DIGITS)


def _standard_error(right_P: np.ndarray, image_P: np.ndarray) -> float:
    """Of a mean whose pairs come in images, a ratio of two sums over images. Source: Cochran,
    Sampling Techniques, 1977, chapter 6."""
    off_I = np.bincount(image_P, weights=right_P - right_P.mean())
    images = len(off_I)
    return round(float(np.sqrt(images / (images - 1) * (off_I**2).sum()) / len(right_P)), _DIGITS)
