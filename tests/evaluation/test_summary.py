"""Means by item, by group, by the groups that a benchmark's own code counts, and by bundle."""

import numpy as np
import pytest

from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.released.rules import FIRST, IDENTICAL, ImageRef, Outcome, Question
from hnc_ds.evaluation.released.summary import Averages, summarise
from hnc_ds.evaluation.statistics import bootstrap_of_group_means


def summed(
    name: str, asked: list[tuple[str, bool]], tags: list[tuple[str, ...]] | None = None
) -> dict[tuple[str, str], float]:
    """Value by metric and group, of questions by group and whether they are right."""
    labels = tags or [()] * len(asked)
    questions = [
        Question(str(n), (ImageRef("vg", f"{n}.jpg"),), ("t", "f"), FIRST, group, labels[n])
        for n, (group, _) in enumerate(asked)
    ]
    outcomes = [Outcome({"accuracy": right}, not right) for _, right in asked]
    rows = summarise(name, 1, "m", questions, outcomes, RELEASED[name].averages, 0)
    assert all(row.low <= row.value <= row.high for row in rows)
    return {(row.metric, row.group): row.value for row in rows}


def test_all_counts_items_alike_and_macro_groups() -> None:
    asked = [("add_obj", True)] * 3 + [("swap_obj", False)] + [("swap_att", True)]
    found = summed("sugarcrepe", asked)
    assert found["accuracy", "all"] == 4 / 5
    assert found["accuracy", "swap_obj"] == 0
    assert found["accuracy", "macro"] == pytest.approx(2 / 3)
    assert found["accuracy", "SWAP"] == 1 / 2
    assert found["accuracy", "ADD"] == 1
    assert ("accuracy", "REPLACE") not in found
    assert found["ties", "all"] == 1 / 5


def test_aros_official_means_leave_relations_out_and_want_25_items() -> None:
    relations = [("on", True), ("under", False), ("next to", False), ("next to", False)]
    found = summed("aro-relation", relations)
    assert found["accuracy", "official"] == 1 / 2  # 'next to' is symmetric
    assert found["accuracy", "macro"] == pytest.approx(1 / 3)
    pairs = [("red_old", n < 20) for n in range(25)] + [("red_new", False)] * 24
    found = summed("aro-attribution", pairs)
    assert found["accuracy", "official"] == 20 / 25
    assert found["accuracy", "macro"] == 10 / 25


def test_a_pair_or_a_set_is_right_when_all_of_it_is() -> None:
    tags = [("set:a", "pair:a:x")] * 2 + [("set:a", "pair:a:y")] * 2
    found = summed("whatsup", [("A", True), ("A", True), ("A", False), ("A", True)], tags)
    assert found["accuracy", "all"] == 3 / 4
    assert found["pair_accuracy", "all"] == 1 / 2
    assert found["set_accuracy", "all"] == 0


def test_bundles_are_reported_for_each_group_and_only_where_they_are_complete() -> None:
    """Of A both pairs are whole, of B one image of a pair and so of the set is missing."""
    whole = [
        Question(f"{group}/{n}", (ImageRef("w", f"{group}{n}"),), ("t", "f"), FIRST, group, tags)
        for group in "AB"
        for n, tags in enumerate(
            [("set:a", "pair:a:x", f"{group} left")] * 2 + [("set:a", "pair:a:y", "on")] * 2
        )
    ]
    kept = [question for question in whole if question.id != "B/3"]
    outcomes = [Outcome({"accuracy": question.id != "A/0"}, False) for question in kept]
    averages = RELEASED["whatsup"].averages
    rows = summarise("whatsup", 1, "m", kept, outcomes, averages, 0, whole)
    found = {(row.metric, row.group): (row.value, row.count) for row in rows}
    assert found["pair_accuracy", "all"] == (pytest.approx(2 / 3), 3)
    assert found["pair_accuracy", "A"] == (1 / 2, 2)
    assert found["pair_accuracy", "B"] == (1, 1)
    assert found["set_accuracy", "all"] == found["set_accuracy", "A"] == (0, 1)
    assert ("set_accuracy", "B") not in found
    assert found["accuracy", "tag: A left"] == (1 / 2, 2)
    assert found["accuracy", "CONTROLLED"][0] == pytest.approx((3 / 4 + 1) / 2)
    assert not [group for _, group in found if group.startswith(("tag: set", "tag: pair"))]
    lost = summarise("whatsup", 1, "m", kept[4:5], outcomes[4:5], averages, 0, whole)
    assert {row.metric for row in lost} == {"accuracy", "ties"}  # no bundle is whole


def test_tags_overlap_and_what_is_broken_is_no_group() -> None:
    questions = [
        Question(str(n), (ImageRef("vg", "1.jpg"),) * 2, ("a", "b"), FIRST, "g", tags)
        for n, tags in enumerate([("x", "y"), ("y", IDENTICAL)])
    ]
    outcomes = [Outcome({"group": right}, False) for right in (True, False)]
    rows = summarise("winoground", 1, "m", questions, outcomes, Averages(of_tags=True), 0)
    found = {row.group: (row.value, row.count) for row in rows if row.metric == "group"}
    assert found == {"all": (0.5, 2), "tag: x": (1.0, 1), "tag: y": (0.5, 2)}


def test_the_interval_of_a_mean_of_groups_is_that_of_resampled_images() -> None:
    random = np.random.default_rng(1)
    group = random.choice(["a", "b", "c"], 300, p=[0.7, 0.2, 0.1])
    image, value = random.integers(60, size=300), random.random(300)
    found = bootstrap_of_group_means(value, group, ["a", "b"], image, seed=3, resamples=500)
    means = []
    for _ in range(500):
        rows = np.concatenate([np.flatnonzero(image == i) for i in random.integers(60, size=60)])
        means.append(np.mean([value[rows][group[rows] == name].mean() for name in "ab"]))
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(np.mean([value[group == n].mean() for n in "ab"]))
    assert found.count == (group != "c").sum()
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_groups_that_are_all_right_keep_an_open_end() -> None:
    found = bootstrap_of_group_means(np.ones(4, bool), list("aabb"), ["a", "b"], range(4))
    assert found.value == 1
    assert 0.3 < found.low < 0.5
