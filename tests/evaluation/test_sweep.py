"""Sweeps are decimal: their points are exactly what one writes."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.errors import UserError
from hnc_ds.interpolation import (
    best_point,
    check_metric,
    coefficient_name,
    read_coefficient,
    read_sweep,
)
from hnc_ds.records import Result


def named(text: str) -> list[str]:
    return [coefficient_name(coefficient) for coefficient in read_sweep(text)]


def test_eleven_points_from_0_to_1_are_named_by_short_decimals():
    assert named("0:1:0.1") == "0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0".split()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,0.25,0.5", ["0.0", "0.25", "0.5"]),
        ("1, .5,0.50,0", ["0.0", "0.5", "1.0"]),
        ("0.4", ["0.4"]),
        ("0.4:0.4:0.1", ["0.4"]),
        ("0.2:0.8:0.3", ["0.2", "0.5", "0.8"]),
        ("0:1:1e-1", [f"{i / 10:.1f}" for i in range(11)]),
        ("-0.0,1", ["0.0", "1.0"]),
    ],
)
def test_other_notations_give_the_same_kind_of_points(text, names):
    assert named(text) == names


@given(steps=st.integers(1, 200), step=st.integers(1, 10**6), start=st.integers(0, 10**8))
def test_steps_of_any_size_reach_both_endpoints_without_drift(steps, step, start):
    """In whole billionths, where nothing is rounded."""
    if start + steps * step > 10**9:
        start, step = start % (10**8), 10**6
    first, last, by = (f"{n}e-9" for n in (start, start + steps * step, step))
    found = read_sweep(f"{first}:{last}:{by}")
    expected = [Fraction(start + number * step, 10**9) for number in range(steps + 1)]
    assert [Fraction(coefficient) for coefficient in found] == expected
    assert [Fraction(coefficient_name(coefficient)) for coefficient in found] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:1", "write FIRST:LAST:STEP, such as 0:1:0.1, or a list 0,0.5,1"),
        ("0:1:0.1:2", "write FIRST:LAST:STEP"),
        ("0:1:0.3", "steps of 0.3 from 0 do not end at 1"),
        ("0:1:0", "nor STEP 0"),
        ("1:0:0.1", "LAST must not be below FIRST"),
        ("0:1:0.0001", "more than 1001 points; take a larger STEP"),
        ("0,half", "coefficient 'half': not a number"),
        ("", "coefficient '': not a number"),
        ("0,1.5", r"coefficient 1\.5: must lie between 0 \(START\) and 1 \(FINAL\)"),
        ("-0.1:1:0.1", r"coefficient -0\.1: must lie between"),
        ("0,nan", "coefficient nan: must lie between"),
    ],
)
def test_what_is_no_sweep_is_refused_with_what_to_write(text, message):
    with pytest.raises(UserError, match=message):
        read_sweep(text)


def row(metric: str, value: float, benchmark: str = "hnc-shards") -> Result:
    return Result("m", benchmark, 1, metric, "all", value, value, value, 4)


POINTS = {
    "0.0": [row("pair_accuracy", 0.5), row("text_to_image_R@1", 0.75, "retrieval")],
    "0.5": [row("pair_accuracy", 0.875), row("text_to_image_R@1", 0.75, "retrieval")],
    "1.0": [row("pair_accuracy", 0.625), row("text_to_image_R@1", 0.25, "retrieval")],
}


def test_the_best_point_is_the_highest_and_of_equal_ones_the_nearest_to_the_start():
    assert best_point(POINTS, None) == ("0.5", POINTS["0.5"][0])
    assert best_point(POINTS, "retrieval/text_to_image_R@1/all") == ("0.0", POINTS["0.0"][1])


def test_a_metric_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"did you mean 'hnc-shards/pair_accuracy/all'.*there are"):
        best_point(POINTS, "hnc-shards/pair_acuracy/all")
    with pytest.raises(UserError, match="a benchmark that is measured: retrieval"):
        check_metric("hnc-shards/pair_accuracy/all", ["retrieval"])
    check_metric("retrieval/anything/all", ["retrieval"])
    assert read_coefficient(" 0.40 ") == Decimal("0.4")
