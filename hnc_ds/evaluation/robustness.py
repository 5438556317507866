"""Benchmarks on worse pictures: scores of each corruption and severity, their mean, and what it is
of the score on the pictures as they are.

mPC is the mean over conditions, rPC that mean over the clean score. Captions stay as they are.

Source: mPC and rPC of Michaelis et al. 2019, for corruptions of Hendrycks and Dietterich 2019.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from hnc_ds.evaluation.question import Question, first_images
from hnc_ds.evaluation.rules import Outcome
from hnc_ds.evaluation.statistics import Interval, bootstrap_mean, bootstrap_ratio

Condition = tuple[str, int]
"""Corruption and severity."""

ALL = "all"
MEAN_SCORE, RELATIVE_SCORE = "mPC", "rPC"

K = TypeVar("K", bound=Hashable)
"""What tells metrics apart."""


class Judged(NamedTuple):
    """What became of Q queries by one metric."""

    right_Q: np.ndarray
    """bool."""
    cluster_Q: np.ndarray
    """Labels; queries of one are drawn together."""


def read_conditions(given: Sequence[str]) -> list[Condition]:
    """``all``, ``fog`` for its five severities, ``fog:3`` for one; each once, in the table's order.

    Raises:
        UserError: No such corruption or severity.
    """
    wanted: set[Condition] = set()
    for part in given:
        name, colon, severity = part.partition(":")
        names = list(CORRUPTIONS) if name == ALL else [name]
        if names[0] not in CORRUPTIONS:
            raise UserError(
                f"corruptions: there is no '{name}'{did_you_mean(name, CORRUPTIONS)}; there are "
                f"{', '.join(CORRUPTIONS)}, and {ALL}"
            )
        if colon and severity not in map(str, SEVERITIES):
            raise UserError(f"corruptions: '{part}': severities are 1 to 5, as in fog:3")
        severities = (int(severity),) if colon else SEVERITIES
        wanted.update((each, number) for each in names for number in severities)
    every = [(name, number) for name in CORRUPTIONS for number in SEVERITIES]
    return [condition for condition in every if condition in wanted]


def condition_of(group: str) -> Condition | None:
    """The condition that a row is of, by its group; None for other rows."""
    name, _, severity = group.rpartition(" ")
    known = name in CORRUPTIONS and severity in map(str, SEVERITIES)
    return (name, int(severity)) if known else None


def is_of_conditions(group: str) -> bool:
    """Whether a row is of worse pictures: of one condition, or of all together."""
    return group in (MEAN_SCORE, RELATIVE_SCORE) or condition_of(group) is not None


def robustness(
    clean: Mapping[K, Judged],
    conditions: Sequence[Condition],
    under: Callable[[Condition], Mapping[K, Judged]],
    seed: int,
) -> Iterator[tuple[K, str, Interval]]:
    """Values by condition, and of all of them together, for every metric: (metric, group, value).

    Args:
        clean: What became of queries on the pictures as they are, by metric.
        conditions: At least one.
        under: What becomes of the same queries under one.
        seed: Of the intervals, by bootstrap over the clusters of the clean ones.
    """
    total = {metric: np.zeros(len(judged.right_Q)) for metric, judged in clean.items()}
    for name, severity in conditions:
        for metric, judged in under((name, severity)).items():
            total[metric] += judged.right_Q
            yield metric, f"{name} {severity}", bootstrap_mean(*judged, seed=seed)
    for metric, (right_Q, cluster_Q) in clean.items():
        mean_Q = total[metric] / len(conditions)
        yield metric, MEAN_SCORE, bootstrap_mean(mean_Q, cluster_Q, seed=seed)
        if np.any(right_Q):
            yield metric, RELATIVE_SCORE, bootstrap_ratio(mean_Q, right_Q, cluster_Q, seed=seed)


def judged_outcomes(
    questions: Sequence[Question], outcomes: Sequence[Outcome]
) -> dict[str, Judged]:
    """Outcomes of questions by metric; questions of one image are drawn together."""
    image_N = first_images(questions)
    return {
        metric: Judged(np.array([outcome.right[metric] for outcome in outcomes]), image_N)
        for metric in outcomes[0].right
    }
