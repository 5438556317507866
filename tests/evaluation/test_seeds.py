"""Means over seeds and paired differences of seeds, against tables and by hand."""

import math
from pathlib import Path

import pytest

from hnc_ds.evaluation.results import ItemsHeader, Measurement, key_of
from hnc_ds.evaluation.seeds import (
    compare_with,
    deviation,
    over_seeds,
    paired_change,
    pooled,
    t_quantile,
    t_tails,
)
from hnc_ds.records import Result

ALL = ("hnc-shards", "pair_accuracy", "all")
TIES = ("hnc-shards", "ties", "all")


def measured(value: float, count: int = 10, shards: str = "s", ties: float = 0.1) -> Measurement:
    rows = [
        Result("m", *ALL[:1], 1, *ALL[1:], value, 0.0, 1.0, count),
        Result("m", *TIES[:1], 1, *TIES[1:], ties, 0.0, 1.0, count),
    ]
    header = ItemsHeader("m", shards, f"sha of {shards}")
    return Measurement({key_of(row): row for row in rows}, Path(), header)


def of_seeds(*values: float, first: int = 0) -> Measurement:
    return pooled("m", {str(first + n): measured(value) for n, value in enumerate(values)})


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)],
)
def test_quantiles_are_those_of_the_printed_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-4)
    assert t_tails(-t_quantile(degrees), degrees) == pytest.approx(0.05, abs=1e-12)
    assert t_tails(0, degrees) == 1


def test_two_degrees_of_freedom_have_the_closed_form() -> None:
    for t in (0.3, 1, 4.3, 25):
        assert t_tails(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)


def test_a_mean_over_seeds_has_the_t_interval_by_hand() -> None:
    found = over_seeds([0.5, 0.6, 0.7])  # deviation 0.1
    assert found.value == pytest.approx(0.6)
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.count == 3


def test_a_paired_change_has_the_p_of_the_paired_t_test() -> None:
    change = paired_change([0.1, 0.2, 0.3])  # t = 0.2 / (0.1 / sqrt 3) = 2 sqrt 3
    t = 2 * math.sqrt(3)
    assert change.difference.value == pytest.approx(0.2)
    assert change.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert paired_change([0.1, 0.1, 0.1]).p == 1  # the spread is not known


def test_a_pooled_row_is_the_mean_and_its_interval_stays_within_fractions() -> None:
    row = of_seeds(0.5, 1.0).rows[ALL]
    assert (row.value, row.low, row.high, row.count) == (0.75, 0.0, 1.0, 10)
    assert deviation(of_seeds(0.5, 1.0), ALL) == pytest.approx(math.sqrt(0.125))
    single = pooled("m", {"0": measured(0.5)})
    assert single.rows[ALL].low == 0.0
    assert deviation(single, ALL) is None


def test_a_seed_measured_on_other_questions_is_in_no_mean() -> None:
    for odd in (measured(0.9, count=11), measured(0.9, shards="others")):
        found = pooled("m", {"0": measured(0.5), "1": odd, "2": measured(0.7)})
        assert found.rows[ALL].value == pytest.approx(0.6)
        assert ALL not in found.seeds["1"].rows


def test_differences_are_those_of_equal_seeds_and_not_of_means() -> None:
    first, other = of_seeds(0.2, 0.5, 0.7), of_seeds(0.6, 0.8, 0.9, first=1)
    compared = compare_with(first, other)
    assert compared.change_of is not None
    change = compared.change_of(ALL)  # 0.6 - 0.5 of seed 1, 0.8 - 0.7 of seed 2
    assert change is not None
    assert change.difference.value == pytest.approx(0.1)
    assert change.difference.count == 2
    assert compared.remarks == ["differences are over what both have, seed 1, 2"]
    ties = compared.change_of(TIES)
    assert ties is not None
    assert ties.lower_is_better


def test_a_model_without_a_seed_is_compared_with_every_seed() -> None:
    start, other = measured(0.5), of_seeds(0.6, 0.7, 0.8)
    for first, second, sign in ((start, other, 1), (other, start, -1)):
        change_of = compare_with(first, second).change_of
        assert change_of is not None
        change = change_of(ALL)
        assert change is not None
        assert change.difference.value == pytest.approx(0.2 * sign)
        assert change.difference.count == 3


def test_of_one_common_seed_single_items_are_compared() -> None:
    compared = compare_with(of_seeds(0.5), of_seeds(0.6, 0.7))
    assert compared.remarks[0] == "differences are over what both have, seed 0"
    assert compared.shared is None
    assert compared.change_of is not None
    assert compared.change_of(ALL) is None  # these have no items
    assert "without the scores of single items" in compared.remarks[1]


def test_without_a_common_seed_or_common_questions_there_is_no_difference() -> None:
    compared = compare_with(of_seeds(0.1, 0.2), of_seeds(0.3, 0.4, first=7))
    assert compared.change_of is None
    assert "shares no seed" in compared.remarks[0]
    others = pooled("m", {str(n): measured(0.5, shards="others") for n in range(2)})
    change_of = compare_with(of_seeds(0.1, 0.2), others).change_of
    assert change_of is not None
    assert change_of(ALL) is None
