"""Text-only baselines: how well the captions of a pair can be classified without the image.

    hnc-ds generate ... --audit

A model may learn whatever text alone gives away instead of looking at the image. Each baseline gets
both captions of a pair and chooses the true one; chance is 0.5. Baselines are cross-validated over
images:

* words: the words, and the sentence without its content words
* word pairs: also all unordered pairs of these ("purple" with "grass")
* order: also which of two words comes first
* perplexity: a trigram model of true captions; the caption with the lower perplexity is chosen

The first two have limits. The last two have none: a false caption with the words of a true one
("the grass eats the cow") is implausible by nature.

Balanced captions may score slightly below 0.5, as the words of a test image are missing from the
balance of the training images.

P pairs. A row of pairs_P3 is (image, true caption, false caption), as numbers.
"""

import random
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.text_classifier import (
    Baseline,
    Captions,
    NGrams,
    Trigrams,
    Word,
    check_installed,
    cross_validated,
    differences,
    folds,
    ranked_correctly,
    strongest_words,
    tokenized,
)
from hnc_ds.errors import UserError, counted
from hnc_ds.records import ImageCaptions

CLASSIFIERS: tuple[Baseline, ...] = ("words", "word_pairs", "order")
BASELINES = (*CLASSIFIERS, "perplexity")
"""All baselines, in the order of the columns."""
OVERALL_LIMITS: dict[Baseline, float] = {"words": 0.52, "word_pairs": 0.54}
TYPE_LIMITS: dict[Baseline, float] = {"words": 0.55, "word_pairs": 0.58}
"""Maximum accuracy by baseline; the others have no limit."""
MIN_PAIRS = 1000
"""Minimum number of pairs for limits. With fewer the standard error exceeds 0.015, and one of
twenty types would exceed a limit by chance."""
MAX_PAIRS = 40_000
"""Maximum number of pairs per type, drawn with the seed; bounds time and memory."""

_WIDTH = 100
_DIGITS = 4
_SHOWN = 5
"""Words per label on the terminal."""

_LEGEND = (
    "Accuracy of choosing the true caption of a pair by its words; also by pairs of words; also by "
    "which of two words comes first; by a trigram model of true captions. Chance is 0.5.",
    "Order and perplexity have no limit, as false captions may be implausible sentences.",
)

_PairText = tuple[int, str, str]
"""Image, true caption, false caption."""


class Score(msgspec.Struct, frozen=True):
    """Accuracies of the text-only baselines for a set of pairs."""

    pairs: int
    images: int
    judged: bool
    """Whether there are enough pairs to apply the limits."""
    accuracy: dict[str, float | None]
    """By baseline; None with a single image, which cannot be cross-validated."""
    error: dict[str, float | None]
    """Standard errors of the accuracies, with images as the sampling units."""


class Leak(msgspec.Struct, frozen=True):
    """The words with the largest weights, where an accuracy exceeds its limit."""

    type: str
    """A negative type, or 'all'."""
    baseline: str
    words_for_true: tuple[Word, ...]
    """The largest weight first."""
    words_for_false: tuple[Word, ...]


class Audit(msgspec.Struct, frozen=True):
    """The result of an audit; a part of OUT.stats.json."""

    overall: Score
    """Classifiers for the pairs of all types, with OVERALL_LIMITS."""
    types: dict[str, Score]
    """Separate classifiers for each type, with TYPE_LIMITS. The trigram model is the same for all
    types."""
    leaks: tuple[Leak, ...]
    """Exceeded limits."""


def audit(path: Path, images: int, seed: int) -> Audit:
    """Measure the accuracy of text-only baselines on a file of captions.

    Args:
        path: As ``read_captions``. Open-world negatives count as false.
        images: Maximum number of images, drawn from the whole file.
        seed: Seed for the draws.

    Raises:
        UserError: scikit-learn is not installed; no pairs; as ``read_captions``.
    """
    check_installed()
    texts, pairs_of = _numbered(_drawn_pairs(path, images, seed))
    if not texts:
        raise UserError(f"{path}: contains no negatives, so there is nothing to audit")
    captions = tokenized(texts)
    all_P3 = np.concatenate(list(pairs_of.values()))
    overall, types = _correct_by_baseline(captions, all_P3, pairs_of)
    found = Audit(
        _score(overall, all_P3),
        {name: _score(types[name], pairs_P3) for name, pairs_P3 in pairs_of.items()},
        (),
    )
    return msgspec.structs.replace(
        found,
        leaks=tuple(
            Leak(name, baseline, *strongest_words(captions, pairs_P3, baseline))
            for name, pairs_P3 in {"all": all_P3, **pairs_of}.items()
            for baseline in _exceeded(found, name)
        ),
    )


def _correct_by_baseline(
    captions: Captions, all_P3: np.ndarray, pairs_of: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray | None], dict[str, dict[str, np.ndarray | None]]]:
    """Per pair whether each baseline is correct: for all pairs, and for each type."""
    ends = np.cumsum([0, *map(len, pairs_of.values())])
    rows_of = {
        name: slice(start, end)
        for name, start, end in zip(pairs_of, ends[:-1], ends[1:], strict=True)
    }
    overall: dict[str, np.ndarray | None] = {}
    types: dict[str, dict[str, np.ndarray | None]] = {name: {} for name in pairs_of}
    fold_P = folds(all_P3[:, 0])
    for baseline in CLASSIFIERS:
        seen = differences(captions, all_P3, baseline)
        overall[baseline] = None if fold_P is None else cross_validated(seen, fold_P)
        for name, rows in rows_of.items():
            type_fold_P = folds(all_P3[rows, 0])
            types[name][baseline] = (
                None if type_fold_P is None else cross_validated(seen.of(rows), type_fold_P)
            )
    overall["perplexity"] = correct_P = _less_perplexing(captions, all_P3, fold_P)
    for name, rows in rows_of.items():
        is_one_image = folds(all_P3[rows, 0]) is None
        types[name]["perplexity"] = None if is_one_image or correct_P is None else correct_P[rows]
    return overall, types


def _less_perplexing(
    captions: Captions, pairs_P3: np.ndarray, fold_P: np.ndarray | None
) -> np.ndarray | None:
    """Whether the true caption has the lower perplexity by a trigram model of the true captions of
    other folds."""
    if fold_P is None:
        return None
    grams = NGrams(captions.without_templates(), len(captions.names))
    # Each true caption counts once per image.
    positives, first = np.unique(pairs_P3[:, :2], axis=0, return_index=True)
    correct_P = np.empty(len(pairs_P3))
    for fold in np.unique(fold_P):
        trained = positives[fold_P[first] != fold, 1]
        model = Trigrams(grams, np.bincount(trained, minlength=len(captions.tokens_CT)))
        log_C = model.logarithms(grams) / grams.places_C
        is_tested_P = fold_P == fold
        _, true_T, false_T = pairs_P3[is_tested_P].T
        correct_P[is_tested_P] = ranked_correctly(log_C[true_T] - log_C[false_T])
    return correct_P


def table(found: Audit) -> str:
    """The audit as a table for the terminal; exceeded limits are marked."""
    width = max(map(len, ["limit of a type", *found.types])) + 2
    columns = "".join(f"{baseline.replace('_', ' '):>12}" for baseline in BASELINES)
    lines = [
        "Text-only baselines, cross-validated over images: "
        f"{counted(found.overall.pairs, 'pair')} of {counted(found.overall.images, 'image')}",
        "",
        f"{'type':<{width}}{columns}{'error':>8}{'pairs':>11}{'images':>9}",
        *(name.ljust(width) + _numbers(found, name) for name in ("all", *found.types)),
        "limit of all".ljust(width) + _limits(OVERALL_LIMITS),
        "limit of a type".ljust(width) + _limits(TYPE_LIMITS),
        "",
        *(textwrap.fill(line, _WIDTH) for line in _LEGEND),
    ]
    return "\n".join([*lines, *(line for leak in found.leaks for line in _leak_lines(leak))])


def exceeded(found: Audit) -> dict[str, list[Baseline]]:
    """The baselines that exceed their limit, for 'all' and for each type with enough pairs."""
    by_name = {name: _exceeded(found, name) for name in ("all", *found.types)}
    return {name: baselines for name, baselines in by_name.items() if baselines}


def _exceeded(found: Audit, name: str) -> list[Baseline]:
    score = found.overall if name == "all" else found.types[name]
    limits = OVERALL_LIMITS if name == "all" else TYPE_LIMITS
    return [b for b, limit in limits.items() if score.judged and (score.accuracy[b] or 0) > limit]


def _numbers(found: Audit, name: str) -> str:
    score = found.overall if name == "all" else found.types[name]
    accuracies = "".join(f"{_number(score.accuracy[baseline]):>12}" for baseline in BASELINES)
    error = max((e for e in score.error.values() if e is not None), default=None)
    return (
        f"{accuracies}{_number(error):>8}{score.pairs:>11,}{score.images:>9,}"
        f"{_mark(score, _exceeded(found, name))}"
    )


def _mark(score: Score, baselines: list[Baseline]) -> str:
    if not score.judged:
        return "  too few to judge"
    return f"  ABOVE THE LIMIT: {_spelled(baselines)}" if baselines else ""


def _spelled(baselines: Iterable[str]) -> str:
    return ", ".join(baseline.replace("_", " ") for baseline in baselines)


def _limits(limits: Mapping[Baseline, float]) -> str:
    numbers = {baseline: f"{limit:.2f}" for baseline, limit in limits.items()}
    return "".join(f"{numbers.get(baseline, '-'):>12}" for baseline in CLASSIFIERS) + f"{'-':>12}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _leak_lines(leak: Leak) -> Iterator[str]:
    """The words behind an exceeded limit; below the limits they would be noise."""
    for label, words in (("true", leak.words_for_true), ("false", leak.words_for_false)):
        listed = ", ".join(
            f"{w.word} ({w.in_true:,} true, {w.in_false:,} false)" for w in words[:_SHOWN]
        )
        line = f"{leak.type}, {_spelled([leak.baseline])}: words for {label}: {listed}"
        if words:
            yield textwrap.fill(line, _WIDTH, subsequent_indent="  ")


def _drawn_pairs(path: Path, images: int, seed: int) -> dict[str, list[_PairText]]:
    """The pairs of the drawn images by type, types in alphabetical order."""
    found: dict[str, list[_PairText]] = {}
    for number, image in enumerate(_drawn_images(read_captions(path), images, seed)):
        for group in image.groups:
            for negative in group.negatives:
                pair = (number, group.positive, negative.caption)
                found.setdefault(negative.type, []).append(pair)
    return {name: _thinned(found[name], f"{seed}/audit/{name}") for name in sorted(found)}


def _drawn_images(images: Iterable[ImageCaptions], limit: int, seed: int) -> list[ImageCaptions]:
    """A uniform draw of images in one pass (reservoir sampling)."""
    rng = random.Random(f"{seed}/audit")
    drawn: list[ImageCaptions] = []
    for count, image in enumerate(images):
        if count < limit:
            drawn.append(image)
        elif (place := rng.randrange(count + 1)) < limit:
            drawn[place] = image
    return drawn


def _thinned(pairs: list[_PairText], seed: str) -> list[_PairText]:
    return random.Random(seed).sample(pairs, MAX_PAIRS) if len(pairs) > MAX_PAIRS else pairs


def _numbered(pairs_of: Mapping[str, list[_PairText]]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The distinct captions, and the pairs of each type as [P, 3]."""
    numbers: dict[str, int] = {}

    def number(caption: str) -> int:
        return numbers.setdefault(caption, len(numbers))

    numbered = {
        name: np.array([(image, number(true), number(false)) for image, true, false in pairs])
        for name, pairs in pairs_of.items()
    }
    return list(numbers), numbered


def _score(correct_of: Mapping[str, np.ndarray | None], pairs_P3: np.ndarray) -> Score:
    image_P = np.unique(pairs_P3[:, 0], return_inverse=True)[1]
    images = int(image_P.max()) + 1
    return Score(
        pairs=len(pairs_P3),
        images=images,
        judged=images > 1 and len(pairs_P3) >= MIN_PAIRS,
        accuracy={r: _mean(correct_P) for r, correct_P in correct_of.items()},
        error={
            r: None if correct_P is None else _standard_error(correct_P, image_P)
            for r, correct_P in correct_of.items()
        },
    )


def _mean(correct_P: np.ndarray | None) -> float | None:
    return None if correct_P is None else round(float(correct_P.mean()), _DIGITS)


def _standard_error(correct_P: np.ndarray, image_P: np.ndarray) -> float:
    """Standard error of the mean over pairs, clustered by image (a ratio estimator). Source:
    Cochran, Sampling Techniques, 1977, chapter 6."""
    off_I = np.bincount(image_P, weights=correct_P - correct_P.mean())
    images = len(off_I)
    return round(float(np.sqrt(images / (images - 1) * (off_I**2).sum()) / len(correct_P)), _DIGITS)
