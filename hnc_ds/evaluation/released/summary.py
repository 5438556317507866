"""Rows of results from outcomes of questions: over all, per group, and means of groups.

'all' is the mean over questions (micro), 'macro' the mean over groups; other means of groups have
the names of the benchmark. Single captions are classified as true or false by their similarity to
the image.

N captions, of C images; scores are float32 cosines.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np

from hnc_ds.evaluation.corruptions import Judged
from hnc_ds.evaluation.released.rules import DEV, IDENTICAL, Outcome, Question, Scores, first_images
from hnc_ds.evaluation.statistics import (
    Interval,
    bootstrap_auroc,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_of_group_means,
)
from hnc_ds.records import Result

Chosen = Callable[[str, int], bool]
"""Whether a group, with its number of questions, is in a mean of groups."""

MACRO = "macro"
TAG = "tag: "
"""Prefix of the rows of tags."""


@dataclass(frozen=True)
class Averages:
    """Means of a benchmark beyond those over all questions and per group."""

    of_groups: Mapping[str, Chosen] = field(default_factory=dict)
    """By name of the row. MACRO is added if there are several groups."""
    of_tags: bool = False
    """Add a row per tag; tags overlap."""
    bundles: Sequence[str] = ()
    """Prefixes of tags, up to a colon, whose questions count only if all are right; adds a row over
    all and one per group."""


def summarise(
    benchmark: str,
    version: int,
    model: str,
    questions: Sequence[Question],
    outcomes: Sequence[Outcome],
    averages: Averages,
    seed: int,
    whole: Sequence[Question] | None = None,
) -> list[Result]:
    """Rows of every metric, and the fraction of ties. Intervals by bootstrap over images.

    Args:
        benchmark: Name in results.
        version: Version of the benchmark.
        model: Name in results.
        questions: Scored questions; at least one.
        outcomes: Outcome of each question.
        averages: Means of the benchmark.
        seed: Seed of the bootstrap.
        whole: All questions, including those without images; bundles that lost one are left out.
    """
    image_N = first_images(questions)
    group_N = np.array([q.group for q in questions])

    def row(metric: str, group: str, found: Interval) -> Result:
        return Result(model, benchmark, version, metric, group, *astuple(found))

    rows = []
    for metric in outcomes[0].right:
        right_N = np.array([outcome.right[metric] for outcome in outcomes])
        rows.append(row(metric, "all", bootstrap_mean(right_N, image_N, seed=seed)))
        for group, chosen in members(questions, averages).items():
            found = bootstrap_mean(right_N[chosen], image_N[chosen], seed=seed)
            rows.append(row(metric, group, found))
        for name, groups in chosen_groups(group_N, averages).items():
            found = bootstrap_of_group_means(right_N, group_N, groups, image_N, seed=seed)
            rows.append(row(metric, name, found))
        for bundle in averages.bundles:
            for group, all_right in bundled(questions, right_N, bundle, whole or questions).items():
                found = bootstrap_mean(all_right, np.arange(len(all_right)), seed=seed)
                rows.append(row(f"{bundle}_{metric}", group, found))
    tied_N = np.array([outcome.tied for outcome in outcomes])
    return [*rows, row("ties", "all", bootstrap_mean(tied_N, image_N, seed=seed))]


def members(questions: Sequence[Question], averages: Averages) -> dict[str, np.ndarray]:
    """Positions of the questions of each group, if there are several, and of each tag, if the
    averages include tags; without tags of bundles."""
    positions: dict[str, list[int]] = defaultdict(list)
    several = len({question.group for question in questions}) > 1
    for position, question in enumerate(questions):
        if several:
            positions[question.group].append(position)
        for tag in question.tags if averages.of_tags else ():
            if tag != IDENTICAL and tag.partition(":")[0] not in averages.bundles:
                positions[f"{TAG}{tag}"].append(position)
    return {name: np.array(positions[name]) for name in sorted(positions)}


def chosen_groups(group_N: np.ndarray, averages: Averages) -> dict[str, list[str]]:
    """Groups of each mean of groups, without empty ones."""
    names, counts = np.unique(group_N, return_counts=True)
    if len(names) < 2:
        return {}
    means: dict[str, Chosen] = {MACRO: lambda *_: True, **averages.of_groups}
    sizes = list(zip(names.tolist(), counts.tolist(), strict=True))
    chosen = {name: [g for g, count in sizes if test(g, count)] for name, test in means.items()}
    return {name: groups for name, groups in chosen.items() if groups}


def bundled(
    questions: Sequence[Question], right_N: np.ndarray, bundle: str, whole: Sequence[Question]
) -> dict[str, np.ndarray]:
    """Whether all questions of each bundle are right, over all, and by group if there are several;
    incomplete bundles are left out."""
    sizes = Counter(name for question in whole for name in _bundles_of(question, bundle))
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for question, is_right in zip(questions, right_N, strict=True):
        for name in _bundles_of(question, bundle):
            right[name].append(bool(is_right))
    by_row: dict[str, list[bool]] = defaultdict(list)
    several = len({question.group for question in whole}) > 1
    for (group, tag), own in right.items():
        if len(own) == sizes[group, tag]:
            for row in ("all", group) if several else ("all",):
                by_row[row].append(all(own))
    return {row: np.array(own, dtype=bool) for row, own in by_row.items()}


def _bundles_of(question: Question, bundle: str) -> list[tuple[str, str]]:
    """(group, tag) of each bundle of a question."""
    return [(question.group, tag) for tag in question.tags if tag.startswith(f"{bundle}:")]


RATIOS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 2.0, 3.0)
"""Ratios of true to false similarity; ``leads_by`` defines them for cosines below 0."""

Row = tuple[str, str, Interval]
"""Metric, group and value."""


MATCHES = "match_accuracy"
"""Share of captions, judged one by one, that models with a probability are right about at
P(match) = 1/2."""

CHOSEN = "threshold_accuracy"
"""The same at the threshold that is best on validation data."""


def pairs_as_labels(
    questions: Sequence[Question], scores: Sequence[Scores], seed: int
) -> Iterator[Row]:
    """AUROC, accuracy at one threshold, margin, and fractions by ratio, over all and per group, for
    questions with a true and a false caption.

    The threshold is the best one for the group's own captions, so the accuracy is an upper bound.
    Also accuracy at the model's thresholds.

    Source: the ratios of earlier work on HNC with CLIP.
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
        right = right_at(score, best_threshold(score, label), label)
        yield "best_threshold_accuracy", group, bootstrap_mean(right, twice, seed=seed)
        for metric, own in scores[0].thresholds.items():
            right = right_at(score, np.float32(own), label)
            yield metric, group, bootstrap_mean(right, twice, seed=seed)
        columns = {f"ratio_{ratio:g}": leads_by(ratio, true, false) for ratio in RATIOS}
        margins = {"margin": true.astype(float) - false}
        for metric, found in bootstrap_means({**margins, **columns}, image, seed=seed).items():
            yield metric, group, found


def single_captions(
    questions: Sequence[Question], scores: Sequence[Scores], seed: int
) -> Iterator[Row]:
    """AUROC, and accuracy at the threshold that is best for questions tagged DEV, over all, per
    group and per tag, for questions with one caption; also at the model's thresholds."""
    image_N, label_N, score_N, test_N = _single(questions, scores)
    if 0 < label_N[test_N].sum() < test_N.sum():  # else there is no AUROC
        judged = score_N[test_N], label_N[test_N], image_N[test_N]
        yield "auroc", "all", bootstrap_auroc(*judged, seed=seed)
    tested = [question for question in questions if DEV not in question.tags]
    groups = members(tested, Averages(of_tags=True))
    for metric, (right_N, cluster_N) in _judged_captions(questions, scores).items():
        yield metric, "all", bootstrap_mean(right_N, cluster_N, seed=seed)
        for group, chosen in groups.items():
            yield metric, group, bootstrap_mean(right_N[chosen], cluster_N[chosen], seed=seed)


def outcomes_of_captions(questions: Sequence[Question], scores: Sequence[Scores]) -> list[Outcome]:
    """Outcome of each single caption, by the metrics of ``single_captions`` that are means over
    captions; of those tagged DEV there is none."""
    test_N = _single(questions, scores)[3]
    place_N, judged_by = np.cumsum(test_N) - 1, _judged_captions(questions, scores)
    return [
        Outcome({m: bool(judged.right_Q[place]) for m, judged in judged_by.items() if tests}, False)
        for tests, place in zip(test_N.tolist(), place_N.tolist(), strict=True)
    ]


def _judged_captions(questions: Sequence[Question], scores: Sequence[Scores]) -> dict[str, Judged]:
    """Correctness of each caption that is not tagged DEV: at the threshold of those that are, and
    at the model's."""
    image_N, label_N, score_N, test_N = _single(questions, scores)
    judged_by = judge_single_captions(questions, scores)
    for metric, own in scores[0].thresholds.items():
        right_N = right_at(score_N, np.float32(own), label_N)
        judged_by[metric] = Judged(right_N[test_N], image_N[test_N])
    return judged_by


def judge_single_captions(
    questions: Sequence[Question], scores: Sequence[Scores]
) -> dict[str, Judged]:
    """Correctness of each caption at the threshold that is best for questions tagged DEV, which are
    in no score; empty if all or no questions are tagged."""
    image_N, label_N, score_N, test_N = _single(questions, scores)
    if test_N.all() or not test_N.any():
        return {}
    threshold = best_threshold(score_N[~test_N], label_N[~test_N])
    right_N = right_at(score_N, threshold, label_N)
    return {"accuracy": Judged(right_N[test_N], image_N[test_N])}


def right_at(score_N: np.ndarray, threshold: np.float32, label_N: np.ndarray) -> np.ndarray:
    """Whether captions are classified correctly, bool [N]; False for NaN."""
    right_N: np.ndarray = np.where(label_N, score_N >= threshold, score_N < threshold)
    return right_N


def leads_by(ratio: float, true_N: np.ndarray, false_N: np.ndarray) -> np.ndarray:
    """Whether each true caption leads its false one by a ratio, bool [N].

    Of two positive cosines, the true one is at least ``ratio`` times the false one and greater. A
    cosine of at least 0 leads a lower one by any ratio if that is not positive. Of two negative
    ones, the false one is at least ``ratio`` times the true one. A ratio of 1 is pair accuracy;
    fractions decrease with the ratio."""
    times = np.float32(ratio)
    positive_N = true_N >= times * false_N
    not_positive_N = (true_N >= 0) | (times * true_N >= false_N)
    leads_N: np.ndarray = (true_N > false_N) & np.where(false_N > 0, positive_N, not_positive_N)
    return leads_N


def _single(
    questions: Sequence[Question], scores: Sequence[Scores]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image, label and score of each question, and whether it is not tagged DEV."""
    return (
        first_images(questions),
        np.array([bool(q.match) for q in questions]),
        np.array([one.image_text_IC[0, 0] for one in scores]),
        np.array([DEV not in q.tags for q in questions]),
    )


def best_threshold(score_N: np.ndarray, label_N: np.ndarray) -> np.float32:
    """The smallest threshold with the fewest mistakes; infinity if it is best to call no caption
    true, NaN if a score is NaN."""
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
