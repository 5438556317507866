"""The one rule by which a difference is marked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.evaluation.statistics import (
    BETTER,
    UNCLEAR,
    WORSE,
    Change,
    Interval,
    holm,
    judge,
    legend,
    paired_difference,
    permutation_test,
)

chances = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def change(value: float, low: float, high: float, p: float, lower: bool = False) -> Change:
    return Change(Interval(value, low, high, 100), p, lower)


def test_holm_is_as_in_its_paper() -> None:
    """0.01 of four, 0.02 of three; from the first that fails on, none is below 0.05."""
    assert holm([0.02, 0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.06, 0.04, 0.06])
    assert holm([0.6, 0.001, 0.02]) == pytest.approx([0.6, 0.003, 0.04])
    assert holm([]) == []


@given(chances)
def test_a_corrected_p_lies_between_its_own_and_bonferronis_and_keeps_the_order(
    given_chances: list[float],
) -> None:
    found = holm(given_chances)
    for p, corrected in zip(given_chances, found, strict=True):
        assert p <= corrected <= min(1, p * len(given_chances)) or corrected == max(
            min(1, q * (len(given_chances) - rank))
            for rank, q in enumerate(sorted(given_chances))
            if q <= p
        )
    order = np.argsort(given_chances, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (change(0.1, 0.05, 0.15, 0.001), BETTER),
        (change(-0.1, -0.15, -0.05, 0.001), WORSE),
        (change(-0.1, -0.15, -0.05, 0.001, lower=True), BETTER),
        (change(0.1, 0.05, 0.15, 0.18), UNCLEAR),  # the interval alone
        (change(0.1, -0.01, 0.15, 0.001), UNCLEAR),  # the test alone
        (change(0.1, 0.0, 0.15, 0.001), UNCLEAR),
        (change(0.1, 0.05, 0.15, 0.05), UNCLEAR),
        (change(math.nan, math.nan, math.nan, 0.001), UNCLEAR),
        (change(0.1, 0.05, 0.15, math.nan), UNCLEAR),
    ],
)
def test_a_difference_is_marked_where_interval_and_test_agree(one: Change, verdict: str) -> None:
    (found,) = judge([one])
    assert found is not None
    assert found.verdict == verdict


def test_more_rows_ask_for_more_and_rows_without_items_do_not_count() -> None:
    clear, rest = change(0.1, 0.05, 0.15, 0.02), change(0.0, -0.1, 0.1, 0.9)
    for rows, verdict in (
        ([clear, None, None, None], BETTER),
        ([clear, rest], BETTER),
        ([clear, rest, rest], UNCLEAR),
    ):
        found = judge(rows)
        assert found[0] is not None
        assert found[0].verdict == verdict
        assert [one is None for one in found] == [one is None for one in rows]


def test_of_equal_models_few_tables_have_any_mark() -> None:
    random, marked = np.random.default_rng(0), 0
    for _ in range(100):
        rows = []
        for _ in range(8):
            first, second = random.random((2, 60)) < 0.6
            image = np.arange(60)
            interval = paired_difference(first, second, image, resamples=200)
            rows.append(Change(interval, permutation_test(first, second, image, rounds=999)))
        marked += any(one.verdict for one in judge(rows) if one)
    assert marked <= 10  # of 100, where intervals alone mark about a third


def test_the_legend_says_the_rule_in_one_sentence() -> None:
    text = legend("B", "A").replace("\n", " ")
    assert text.count(". ") == 0
    for part in ("95 % interval excludes 0", "p < 0.05", "Holm", "+ better and - worse in B"):
        assert part in text
