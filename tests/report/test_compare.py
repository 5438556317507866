"""Tables and paired differences by hand."""

from functools import partial

import pytest

from hnc_ds.evaluation.paired import change_of, remarks_on_sharing, shared_items
from hnc_ds.records import Result
from hnc_ds.report.runs import read_run
from hnc_ds.report.tables import compare

from .conftest import pair

ACCURACY = ("hnc-shards", "pair_accuracy")


def both(make_run, first, second, **ranks):
    one = read_run(make_run("one", first, ranks.get("one", (0, 0))), "one").measurements["val"]
    two = read_run(make_run("two", second, ranks.get("two", (0, 0))), "two").measurements["val"]
    return one, two, shared_items(one, two)


def test_the_difference_is_over_the_shared_pairs_whatever_their_order(make_run):
    first = [pair("a", -1), pair("a", 1, "attribute"), pair("b", -1), pair("b", 1, "only in one")]
    second = [pair("b", 1), pair("a", 1), pair("a", -1, "attribute")]
    _, _, shared = both(make_run, first, second)
    assert change_of(shared, (*ACCURACY, "swap")).difference.value == 1
    assert change_of(shared, (*ACCURACY, "attribute")).difference.value == -1
    assert change_of(shared, (*ACCURACY, "all")).difference.value == pytest.approx(1 / 3)
    assert change_of(shared, (*ACCURACY, "all")).difference.count == 3
    assert change_of(shared, (*ACCURACY, "only in one")) is None


def test_a_tie_counts_as_wrong_in_differences_too(make_run):
    _, _, shared = both(make_run, [pair("a", 0.0)], [pair("a", 0.1)])
    assert change_of(shared, (*ACCURACY, "all")).difference.value == 1


def test_the_difference_of_margins_is_in_cosines(make_run):
    _, _, shared = both(make_run, [pair("a", 0.25)], [pair("a", 0.5)])
    assert change_of(shared, ("hnc-shards", "margin", "all")).difference.value == 0.25


def test_recall_is_compared_over_the_same_gallery_only(make_run):
    row = ("retrieval", "text_to_image_R@1", "all")
    one, two, shared = both(make_run, [], [], one=(0, 3), two=(0, 0))
    assert change_of(shared, row).difference.value == 0.5
    one, two, shared = both(make_run, [], [], one=(0, 3), two=(0, 0, 0))
    assert change_of(shared, row) is None
    assert "another gallery" in " ".join(remarks_on_sharing(one, two, shared))


def test_pairs_that_are_not_shared_are_reported(make_run):
    one, two, shared = both(make_run, [pair("a", 1)], [pair("a", 1), pair("b", 1)])
    (remark,) = remarks_on_sharing(one, two, shared)
    assert remark.startswith("1 of 2 pairs are shared with the first run")


def test_a_difference_is_marked_only_where_interval_and_corrected_test_agree(make_run):
    """The interval of swap excludes 0 after six images, its p does only alone; all has more."""
    keys = [f"a{n}" for n in range(40)]
    first = [pair(key, -1, f"type {n % 5}") for n, key in enumerate(keys)]
    second = [pair(key, 1 if n % 5 < 1 else -1, f"type {n % 5}") for n, key in enumerate(keys)]
    one, two, shared = both(make_run, first, second)
    cells = {
        row.label: row.cells[1]
        for row in compare([one, two], [None, partial(change_of, shared)])[0].rows
    }
    assert (cells["all"].difference, cells["all"].verdict) == ("+20.0", "better")
    assert (cells["type 0"].difference, cells["type 0"].verdict) == ("+100.0", "better")
    assert cells["type 1"].verdict == ""
    few = [pair(key, 1 if n < 6 else -1, f"type {n % 5}") for n, key in enumerate(keys)]
    one, two, shared = both(make_run, first, few)
    alone = change_of(shared, (*ACCURACY, "all"))
    assert alone.p == pytest.approx(2 / 2**6)  # 0.03 alone
    assert alone.difference.low > 0
    cell = compare([one, two], [None, partial(change_of, shared)])[0].rows[0].cells[1]
    assert (cell.verdict, cell.chance) == ("", "p = 0.188")  # of six rows


def test_values_are_percent_and_differences_have_signs(make_run):
    one, two, shared = both(make_run, [pair("a", 1), pair("b", 1)], [pair("a", -1), pair("b", -1)])
    row = compare([one, two], [None, partial(change_of, shared)])[0].rows[0]
    first, second = row.cells
    assert (first.value, first.difference) == ("100.0", "")
    assert (second.value, second.difference) == ("0.0", "\N{MINUS SIGN}100.0")
    assert second.verdict == ""  # of two images
    assert row.count == "2"


def test_a_run_without_a_row_has_an_empty_cell(make_run):
    one, two, shared = both(make_run, [pair("a", 1, "attribute")], [pair("a", 1, "swap")])
    cells = {
        row.label: row.cells
        for row in compare([one, two], [None, partial(change_of, shared)])[0].rows
    }
    assert cells["swap"][0] is None
    assert cells["attribute"][1] is None
    assert [cell is None for cell in compare([one, None], [None, None])[0].rows[0].cells] == [
        False,
        True,
    ]


def test_an_unknown_benchmark_is_shown_under_its_own_name(make_run):
    one = read_run(make_run("one"), "one").measurements["val"]
    key = ("someones", "accuracy", "swap_obj")
    one.rows[key] = Result("m", *key[:1], 1, *key[1:], 0.625, 0.5, 0.75, 8)
    table = compare([one], [None])[-1]
    assert (table.title, table.rows[0].label, table.rows[0].cells[0].value) == (
        "someones",
        "swap obj",
        "62.5",
    )
