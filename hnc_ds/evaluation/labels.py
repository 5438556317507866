"""Single captions that are true or false of their image: how well one similarity tells them apart.

N captions, of C images; scores are float32 cosines.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hnc_ds.evaluation.question import DEV, Question, first_images
from hnc_ds.evaluation.robustness import Judged
from hnc_ds.evaluation.rules import Scores
from hnc_ds.evaluation.statistics import (
    Interval,
    bootstrap_auroc,
    bootstrap_mean,
    bootstrap_means,
)
from hnc_ds.evaluation.summary import Averages, members

RATIOS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 2.0, 3.0)
"""How many times as similar as its negative a caption has to be; ``leads_by`` says what that is of
cosines that are not positive."""

Row = tuple[str, str, Interval]
"""Metric, group and value."""


def pairs_as_labels(
    questions: Sequence[Question], scores: Sequence[Scores], seed: int
) -> Iterator[Row]:
    """Of questions with a true and a false caption: AUROC, accuracy at one threshold, margin, and
    shares by ratio, over all and per group.

    The threshold is the best one for the group's own captions, as there are none to choose it by:
    an upper bound of what image-text matching with one threshold could reach.

    Source: the ratios are those that earlier work on HNC with CLIP reports.
    """
    image_N = first_images(questions)
    group_N = np.array([q.group for q in questions])
    true_N = np.array([one.image_text_IC[0, 0] for one in scores])
    false_N = np.array([one.image_text_IC[0, 1] for one in scores])
    groups = ["all", *np.unique(group_N).tolist()]
    for group in groups if len(groups) > 2 else groups[:1]:
        of_group = np.ones(len(group_N), bool) if group == "all" else group_N == group
        true, false, image = true_N[of_group], false_N[of_group], image_N[of_group]
        score = np.concatenate([true, false])
        label = np.repeat([True, False], len(true))
        twice = np.concatenate([image, image])
        yield "auroc", group, bootstrap_auroc(score, label, twice, seed=seed)
        right = told_right(score, best_threshold(score, label), label)
        yield "best_threshold_accuracy", group, bootstrap_mean(right, twice, seed=seed)
        columns = {f"ratio_{ratio:g}": leads_by(ratio, true, false) for ratio in RATIOS}
        margins = {"margin": true.astype(float) - false}
        for metric, found in bootstrap_means({**margins, **columns}, image, seed=seed).items():
            yield metric, group, found


def single_captions(
    questions: Sequence[Question], scores: Sequence[Scores], seed: int
) -> Iterator[Row]:
    """Of questions with one caption, true or not: AUROC, and accuracy at the threshold that is best
    for those tagged DEV, over all, per group and per tag."""
    image_N, label_N, score_N, test_N = _single(questions, scores)
    if 0 < label_N[test_N].sum() < test_N.sum():  # what is left may be all true or all false
        judged = score_N[test_N], label_N[test_N], image_N[test_N]
        yield "auroc", "all", bootstrap_auroc(*judged, seed=seed)
    tested = [question for question in questions if DEV not in question.tags]
    groups = members(tested, Averages(of_tags=True))
    for metric, (right_N, cluster_N) in judge_single_captions(questions, scores).items():
        yield metric, "all", bootstrap_mean(right_N, cluster_N, seed=seed)
        for group, chosen in groups.items():
            yield metric, group, bootstrap_mean(right_N[chosen], cluster_N[chosen], seed=seed)


def judge_single_captions(
    questions: Sequence[Question], scores: Sequence[Scores]
) -> dict[str, Judged]:
    """Whether each caption is told right at the threshold that is best for those tagged DEV, which
    are in no score; nothing where there are none of either."""
    image_N, label_N, score_N, test_N = _single(questions, scores)
    if test_N.all() or not test_N.any():
        return {}
    threshold = best_threshold(score_N[~test_N], label_N[~test_N])
    right_N = told_right(score_N, threshold, label_N)
    return {"accuracy": Judged(right_N[test_N], image_N[test_N])}


def told_right(score_N: np.ndarray, threshold: np.float32, label_N: np.ndarray) -> np.ndarray:
    """Whether captions are called what they are, bool [N]; not where a score or the threshold is
    NaN."""
    found: np.ndarray = np.where(label_N, score_N >= threshold, score_N < threshold)
    return found


def leads_by(ratio: float, true_N: np.ndarray, false_N: np.ndarray) -> np.ndarray:
    """Whether each true caption is ahead of its false one by a ratio, bool [N].

    Where both cosines are positive the true one is at least ``ratio`` times the false one, and more
    than it. Cosines may be negative, so in general the lead is at least ``ratio - 1`` times the one
    that is nearer to 0: a positive one leads what is not by any ratio, and of two negative ones the
    false one has to lie ``ratio`` times as far below 0. So a ratio of 1 is pair accuracy, a tie
    wrong, and a higher ratio never gives more.
    """
    times = np.float32(ratio)
    beside_positive_N = true_N >= times * false_N
    beside_others_N = (true_N >= 0) | (times * true_N >= false_N)
    far_N = np.where(false_N > 0, beside_positive_N, beside_others_N)
    found: np.ndarray = (true_N > false_N) & far_N
    return found


def _single(
    questions: Sequence[Question], scores: Sequence[Scores]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each question its picture, whether it is true, its score, and whether it is in a score."""
    return (
        first_images(questions),
        np.array([bool(q.match) for q in questions]),
        np.array([one.image_text_IC[0, 0] for one in scores]),
        np.array([DEV not in q.tags for q in questions]),
    )


def best_threshold(score_N: np.ndarray, label_N: np.ndarray) -> np.float32:
    """The smallest score from which on captions are called true with the fewest mistakes; above
    all scores if it is best to call none of them true. NaN, with which nothing is right, where a
    score is."""
    if np.isnan(score_N).any():
        return np.float32(np.nan)
    order = np.argsort(score_N, kind="stable")
    score, label = score_N[order].astype(np.float32), label_N[order]
    starts = np.concatenate([[True], score[1:] != score[:-1]])
    true_below = np.concatenate([[0], np.cumsum(label)])
    false_from = np.concatenate([np.cumsum(~label[::-1])[::-1], [0]])
    mistakes = true_below + false_from
    places = np.flatnonzero(np.concatenate([starts, [True]]))
    best = places[np.argmin(mistakes[places])]
    return np.float32(np.inf) if best == len(score) else score[best]
