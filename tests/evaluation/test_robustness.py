"""Scores on corrupted images, their mean, and their share of the clean score."""

import numpy as np
import pytest

from hnc_ds.errors import UserError
from hnc_ds.evaluation.corruptions import (
    Condition,
    Judged,
    condition_of,
    is_of_conditions,
    judged_outcomes,
    read_conditions,
    robustness,
)
from hnc_ds.evaluation.released.rules import FIRST, ImageRef, Outcome, Question
from hnc_ds.evaluation.statistics import bootstrap_ratio


def test_conditions_are_named_by_corruption_and_severity_each_once() -> None:
    assert read_conditions(["fog:3", "fog:3", "contrast:1"]) == [("fog", 3), ("contrast", 1)]
    assert read_conditions(["fog"]) == [("fog", severity) for severity in range(1, 6)]
    assert len(read_conditions(["all", "fog:1"])) == 50
    assert read_conditions(["all:2"])[0] == ("gaussian_noise", 2)
    assert read_conditions([]) == []
    with pytest.raises(UserError, match="no 'fogg'; did you mean 'fog'"):
        read_conditions(["fogg"])
    with pytest.raises(UserError, match="'fog:6': severities are 1 to 5"):
        read_conditions(["fog:6"])


def outcomes(*right: bool) -> list[Outcome]:
    return [Outcome({"accuracy": each}, False) for each in right]


def test_the_mean_is_over_conditions_and_its_share_of_the_clean_score() -> None:
    questions = [
        Question(str(n), (ImageRef("vg", f"{n}.jpg"),), ("t", "f"), FIRST, "g") for n in range(4)
    ]
    clean = judged_outcomes(questions, outcomes(True, True, True, False))
    worse = {("fog", 1): outcomes(True, True, False, False), ("fog", 2): outcomes(*[False] * 4)}
    asked: list[Condition] = []

    def under(condition: Condition) -> dict[str, Judged]:
        asked.append(condition)
        return judged_outcomes(questions, worse[condition])

    rows = robustness(clean, list(worse), under, 0)
    found = {(metric, group): row.value for metric, group, row in rows}
    assert asked == list(worse)
    assert found == {
        ("accuracy", "fog 1"): 0.5,
        ("accuracy", "fog 2"): 0.0,
        ("accuracy", "mPC"): 0.25,
        ("accuracy", "rPC"): pytest.approx(1 / 3),
    }


def test_rows_of_conditions_are_known_by_their_groups() -> None:
    assert condition_of("motion_blur 5") == ("motion_blur", 5)
    assert [condition_of(group) for group in ("fog", "fog 6", "fog x", "all", "mPC")] == [None] * 5
    assert [is_of_conditions(group) for group in ("fog 1", "mPC", "rPC")] == [True] * 3
    assert not is_of_conditions("all")


def test_a_ratio_has_the_interval_of_resampled_images() -> None:
    random = np.random.default_rng(0)
    image = random.integers(50, size=300)
    below = random.random(300) < 0.8
    above = below * random.random(300)
    found = bootstrap_ratio(above, below, image, seed=1, resamples=500)
    ratios = []
    for _ in range(500):
        rows = np.concatenate([np.flatnonzero(image == i) for i in random.integers(50, size=50)])
        ratios.append(above[rows].mean() / below[rows].mean())
    assert found.value == pytest.approx(above.mean() / below.mean())
    assert [found.low, found.high] == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=0.02)
    with pytest.raises(ValueError, match="must not be 0"):
        bootstrap_ratio([0, 0], [0, 0], [0, 1])
