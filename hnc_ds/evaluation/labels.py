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

RATIOS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
"""How many times as similar as its negative a caption has to be to count as told apart."""

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
        right = (score >= best_threshold(score, label)) == label
        yield "best_threshold_accuracy", group, bootstrap_mean(right, twice, seed=seed)
        columns = {f"ratio_{ratio:g}": true >= np.float32(ratio) * false for ratio in RATIOS}
        margins = {"margin": true.astype(float) - false}
        for metric, found in bootstrap_means({**margins, **columns}, image, seed=seed).items():
            yield metric, group, found


def single_captions(
    questions: Sequence[Question], scores: Sequence[Scores], seed: int
) -> Iterator[Row]:
    """Of questions with one caption, true or not: AUROC, and accuracy at the threshold that is best
    for those tagged DEV, over all and per group."""
    image_N, label_N, score_N, test_N = _single(questions, scores)
    if 0 < label_N[test_N].sum() < test_N.sum():  # what is left may be all true or all false
        tested = score_N[test_N], label_N[test_N], image_N[test_N]
        yield "auroc", "all", bootstrap_auroc(*tested, seed=seed)
    group_N = np.array([q.group for q in questions])[test_N]
    for metric, (right_N, cluster_N) in judge_single_captions(questions, scores).items():
        yield metric, "all", bootstrap_mean(right_N, cluster_N, seed=seed)
        for group in np.unique(group_N).tolist():
            chosen = group_N == group
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
    right_N = (score_N >= threshold) == label_N
    return {"accuracy": Judged(right_N[test_N], image_N[test_N])}


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
    all scores if it is best to call none of them true."""
    order = np.argsort(score_N, kind="stable")
    score, label = score_N[order].astype(np.float32), label_N[order]
    starts = np.concatenate([[True], score[1:] != score[:-1]])
    true_below = np.concatenate([[0], np.cumsum(label)])
    false_from = np.concatenate([np.cumsum(~label[::-1])[::-1], [0]])
    mistakes = true_below + false_from
    places = np.flatnonzero(np.concatenate([starts, [True]]))
    best = places[np.argmin(mistakes[places])]
    return np.float32(np.inf) if best == len(score) else score[best]
