"""Means and intervals against closed forms and enumerations."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hnc_ds.evaluation import statistics
from hnc_ds.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_means,
    paired_difference,
    permutation_test,
)


def test_the_mean_is_over_items_and_not_over_images():
    interval = bootstrap_mean([True, False, False, False], ["a", "b", "b", "b"])
    assert (interval.value, interval.count) == (0.25, 4)


def test_the_interval_of_single_items_agrees_with_the_normal_approximation():
    right = np.arange(900) % 4 > 0
    interval = bootstrap_mean(right, np.arange(900), seed=3)
    half_width = 1.96 * math.sqrt(0.75 * 0.25 / 900)
    assert interval.low == pytest.approx(0.75 - half_width, abs=0.004)
    assert interval.high == pytest.approx(0.75 + half_width, abs=0.004)


def test_the_interval_agrees_with_the_enumeration_of_all_resamples():
    values, images = [0.0, 1.0, 1.0, 5.0, 2.0, 2.0], [0, 1, 1, 2, 3, 3]
    of_image = {0: [0.0], 1: [1.0, 1.0], 2: [5.0], 3: [2.0, 2.0]}
    means = [
        np.mean(np.concatenate([of_image[i] for i in drawn]))
        for drawn in itertools.product(of_image, repeat=4)
    ]
    interval = bootstrap_mean(values, images, resamples=50_000)
    low, high = np.quantile(means, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_repeating_every_item_within_its_image_adds_no_certainty():
    random = np.random.default_rng(0)
    values, images = random.random(60), np.arange(60)
    once = bootstrap_mean(values, images)
    tenfold = bootstrap_mean(np.repeat(values, 10), np.repeat(images, 10))
    assert tenfold.low == pytest.approx(once.low, abs=1e-12)
    assert tenfold.high == pytest.approx(once.high, abs=1e-12)


def test_about_95_of_100_intervals_hold_the_truth():
    random = np.random.default_rng(1)
    held = 0
    for seed in range(300):
        image_mean = random.normal(0.3, 1.0, size=60)
        values = np.repeat(image_mean, 4) + random.normal(0, 1.0, size=240)
        interval = bootstrap_mean(values, np.repeat(np.arange(60), 4), seed=seed, resamples=400)
        held += interval.low <= 0.3 <= interval.high
    assert 0.90 <= held / 300 <= 0.98


def test_all_right_leaves_the_exact_binomial_lower_end():
    interval = bootstrap_mean(np.ones(20, dtype=bool), np.arange(20))
    assert interval.high == 1
    assert interval.low**20 == pytest.approx(0.025)  # P(20 of 20 right) at that end


def test_all_wrong_leaves_the_exact_binomial_upper_end():
    interval = bootstrap_mean(np.zeros(20, dtype=bool), np.arange(20))
    assert interval.low == 0
    assert (1 - interval.high) ** 20 == pytest.approx(0.025)


def test_columns_give_the_same_intervals_together_as_alone():
    random = np.random.default_rng(2)
    columns = {"a": random.random(50), "b": random.random(50)}
    images = np.arange(50) // 3
    together = bootstrap_means(columns, images, seed=7)
    assert together["b"].low == pytest.approx(bootstrap_mean(columns["b"], images, seed=7).low)


def test_a_difference_on_the_same_items_is_found_where_the_intervals_overlap():
    random = np.random.default_rng(4)
    hard = random.normal(0, 1, size=200)  # what makes an image hard is shared
    first, second = hard + 0.05, hard + 0.15 + random.normal(0, 0.01, size=200)
    images = np.arange(200)
    change = paired_difference(first, second, images)
    assert change.value == pytest.approx(0.1, abs=0.005)
    assert 0.09 < change.low < change.high < 0.11
    assert bootstrap_mean(first, images).high > bootstrap_mean(second, images).low


def test_the_size_of_a_block_of_resamples_does_not_matter(monkeypatch):
    values, images = np.arange(30.0), np.arange(30)
    expected = bootstrap_mean(values, images)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 7 * 30)
    assert bootstrap_mean(values, images) == expected


def test_another_seed_gives_another_interval_and_the_same_seed_the_same():
    values, images = np.arange(30.0) ** 2, np.arange(30)
    assert bootstrap_mean(values, images, seed=1) == bootstrap_mean(values, images, seed=1)
    assert bootstrap_mean(values, images, seed=1) != bootstrap_mean(values, images, seed=2)


@pytest.mark.parametrize(("values", "images"), [([], []), ([1.0, 2.0], [0])])
def test_no_items_or_unequal_lengths_are_refused(values, images):
    with pytest.raises(ValueError, match="at least one item"):
        bootstrap_mean(values, images)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        *((0, 0, 1.0), (5, 5, 1.0), (10, 2, 0.03857421875), (0, 10, 2 / 1024), (1, 0, 1.0)),
        (40, 22, 0.0300),
    ],
)
def test_of_single_questions_the_permutation_is_mcnemars_fair_coin(
    only_first: int, only_second: int, p: float
) -> None:
    first = [True] * only_first + [False] * only_second + [True, False]
    second = [False] * only_first + [True] * only_second + [True, False]
    found = permutation_test(first, second, np.arange(len(first)))
    assert found == pytest.approx(p, abs=1e-9 if only_first + only_second < 14 else 0.01)


def test_one_image_has_the_widest_interval() -> None:
    image = ["a", "a", "a"]
    found = bootstrap_mean(np.array([True, True, False]), image)
    assert (found.low, found.high) == (0, 1)
    change = paired_difference([True, True, False], [False, True, False], image)
    assert (change.value, change.low, change.high) == (pytest.approx(-1 / 3), -1, 1)


def test_few_clusters_are_flipped_in_every_way() -> None:
    first, second = [0, 0, 0, 1, 0], [1, 1, 1, 0, 0]
    cluster = ["a", "a", "b", "c", "d"]
    differences = {"a": 2, "b": 1, "c": -1}
    flips = itertools.product((1, -1), repeat=3)
    sums = [sum(s * d for s, d in zip(signs, differences.values(), strict=True)) for signs in flips]
    expected = sum(abs(one) >= 2 for one in sums) / 8
    assert permutation_test(first, second, cluster) == expected
    assert permutation_test([1, 0], [1, 0], ["a", "b"]) == 1


def test_many_clusters_are_flipped_at_random_as_scipy_does() -> None:
    random = np.random.default_rng(3)
    first = random.random(60)
    second = first + random.normal(0.05, 0.25, size=60)
    found = permutation_test(first, second, np.arange(60), seed=1)
    theirs = stats.permutation_test(
        (second - first,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
    )
    assert found == pytest.approx(theirs.pvalue, abs=0.015)
    assert found == permutation_test(first, second, np.arange(60), seed=1)
