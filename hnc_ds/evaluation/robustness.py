"""Benchmarks on worse pictures: scores of each corruption and severity, their mean, and what it is
of the score on the pictures as they are.

mPC is the mean over conditions, rPC that mean over the clean score. Captions stay as they are.

Source: mPC and rPC of Michaelis et al. 2019, for corruptions of Hendrycks and Dietterich 2019.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from hnc_ds.evaluation.labels import Row
from hnc_ds.evaluation.question import Question, first_images
from hnc_ds.evaluation.rules import Outcome
from hnc_ds.evaluation.statistics import bootstrap_mean, bootstrap_ratio

Condition = tuple[str, int]
"""Corruption and severity."""

ALL = "all"


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


def robustness(
    questions: Sequence[Question],
    clean: Sequence[Outcome],
    conditions: Sequence[Condition],
    outcomes_of: Callable[[Condition], Sequence[Outcome]],
    seed: int,
) -> Iterator[Row]:
    """Rows by condition, and of all of them together, for every metric.

    Args:
        questions: That were scored.
        clean: What became of them on the pictures as they are.
        conditions: At least one.
        outcomes_of: What becomes of them under one.
        seed: Of the intervals, by bootstrap over images.
    """
    image_N = first_images(questions)
    clean_by_metric = _by_metric(clean)
    total = {metric: np.zeros(len(questions)) for metric in clean_by_metric}
    for name, severity in conditions:
        for metric, right_N in _by_metric(outcomes_of((name, severity))).items():
            total[metric] += right_N
            found = bootstrap_mean(right_N, image_N, seed=seed)
            yield metric, f"{name} {severity}", found
    for metric, right_N in clean_by_metric.items():
        mean_N = total[metric] / len(conditions)
        yield metric, "mPC", bootstrap_mean(mean_N, image_N, seed=seed)
        if right_N.any():
            yield metric, "rPC", bootstrap_ratio(mean_N, right_N, image_N, seed=seed)


def _by_metric(outcomes: Sequence[Outcome]) -> Mapping[str, np.ndarray]:
    return {m: np.array([outcome.right[m] for outcome in outcomes]) for m in outcomes[0].right}
