"""Recognition against relations: which points are drawn, and what the axes are."""

from pathlib import Path

from msgspec import structs

from hnc_ds.report.charts import retention
from hnc_ds.report.figures import Labelled, scatter
from hnc_ds.report.page import render
from hnc_ds.report.runs import read_runs

from .conftest import of_shards, results, row


def test_axes_are_what_all_points_were_measured_on(tmp_path: Path) -> None:
    acc = row("zero-shot", "acc1", "all", 0.6)
    crepe, valse = (row(name, "accuracy", "all", 0.7) for name in ("sugarcrepe", "valse"))
    one = results(tmp_path / "a" / "one.json", [acc, crepe, valse, *of_shards(0.5, 0.5)])
    two = results(tmp_path / "b" / "two.json", [acc, crepe, valse])
    found = retention(read_runs([one, two]))
    assert found is not None
    assert found.across == "Zero-shot classification, acc1"
    assert found.up == "mean of SugarCrepe, VALSE"
    results(two, [acc, crepe])
    other = retention(read_runs([one, two]))
    assert other is not None
    assert other.up == "SugarCrepe"
    results(two, [crepe])
    assert retention(read_runs([one, two])) is None


def test_points_are_listed_as_numbers_and_the_first_of_the_first_run_is_the_reference(
    tmp_path: Path,
) -> None:
    for coefficient, pairs in (("0.0", 0.5), ("1.0", 0.75)):
        results(tmp_path / "sweep" / f"coefficient-{coefficient}.json", of_shards(pairs, 0.25))
    other = results(tmp_path / "x.json", of_shards(0.625, 0.5))
    runs = read_runs([tmp_path / "sweep", other])
    found = retention(runs)
    assert found is not None
    assert found.reference == "coefficient 0"
    assert found.rows == [
        (0, "coefficient 0", "25.0 (25.0 to 25.0)", "50.0 (50.0 to 50.0)"),
        (0, "coefficient 1", "25.0 (25.0 to 25.0)", "75.0 (75.0 to 75.0)"),
        (1, "m", "50.0 (50.0 to 50.0)", "62.5 (62.5 to 62.5)"),
    ]
    page = render(runs)
    assert "reference: sweep, coefficient 0" in page


def test_points_have_the_intervals_of_their_scores(tmp_path: Path) -> None:
    """Of an axis that is a mean of two scores the means of their ends."""
    paths = [tmp_path / f"{n}.json" for n in range(2)]
    for path in paths:
        scores = [row("zero-shot", "acc1", "all", 0.5)]
        scores += [row(name, "accuracy", "all", 0.7) for name in ("sugarcrepe", "valse")]
        ends = [(0.4, 0.55), (0.6, 0.75), (0.68, 0.73)]
        results(
            path,
            [structs.replace(r, low=lo, high=hi) for r, (lo, hi) in zip(scores, ends, strict=True)],
        )
    found = retention(read_runs(paths))
    assert found is not None
    assert found.rows[0][2:] == ("50.0 (40.0 to 55.0)", "70.0 (64.0 to 74.0)")
    bare = scatter({0: [Labelled(0.5, 0.7, "m")]}, "x", "y")
    lined = scatter({0: [Labelled(0.5, 0.7, "m", (0.4, 0.55), (0.64, 0.74))]}, "x", "y")
    assert lined.count("<path") >= bare.count("<path") + 2


def test_points_of_other_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row("zero-shot", "acc1", "all", 0.5), row("cola", "accuracy", "all", 0.5)]
    paths = [tmp_path / f"{n}.json" for n in range(3)]
    for path, questions in zip(paths, ("these", "these", "others"), strict=True):
        results(path, rows, questions=questions)
    found = retention(read_runs(paths))
    assert found is not None
    assert (len(found.rows), found.left_out) == (2, 1)
    assert retention(read_runs(paths[1:])) is None


def test_the_mean_over_several_sets_is_recognition_and_states_how_many(tmp_path: Path) -> None:
    rows = [row("zero-shot", "acc1_mean_over_sets", "all", 0.5), row("cola", "accuracy", "all", 1)]
    paths = [tmp_path / f"{n}.json" for n in range(3)]
    for path, sets in zip(paths, (7, 7, 6), strict=True):
        mean = structs.replace(rows[0], count=sets)
        results(path, [mean, row("zero-shot", "acc1", "cifar10", 0.9), rows[1]])
    found = retention(read_runs(paths))
    assert found is not None
    assert found.across == "Zero-shot classification, acc1 mean over sets (7 sets)"
    assert (len(found.rows), found.left_out) == (2, 1)


def test_labels_that_would_lie_on_each_other_are_not_all_written() -> None:
    crowd = [Labelled(0.5, 0.5, f"coefficient {n}") for n in range(20)]
    svg = scatter({0: [Labelled(0.1, 0.1, "start"), *crowd, Labelled(0.9, 0.9, "end")]}, "x", "y")
    assert ">start<" in svg
    assert ">end<" in svg
    assert 1 <= svg.count(">coefficient ") <= 2
