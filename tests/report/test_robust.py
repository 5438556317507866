"""Scores on corrupted images: curves, and a table of their own."""

from pathlib import Path

import pytest

from hnc_ds.evaluation.results import Measurement
from hnc_ds.report.charts import robustness_panels, severities
from hnc_ds.report.runs import read_runs
from hnc_ds.report.tables import compare

from .conftest import results, row


def measured(path: Path, benchmark: str = "sugarcrepe", worst: int = 3) -> Measurement:
    rows = [row(benchmark, "accuracy", "all", 0.8)]
    rows += [row(benchmark, "accuracy", f"fog {n}", 0.8 - n / 10) for n in range(worst, 0, -1)]
    rows += [row(benchmark, "accuracy", "contrast 2", 0.7)]
    rows += [row(benchmark, "accuracy", group, 0.6) for group in ("mPC", "rPC")]
    rows += [row(benchmark, "accuracy", group, 0.7) for group in ("swap_obj", "swap_att")]
    (run,) = read_runs([results(path, rows)])
    return next(iter(run.measurements.values()))


def test_rows_of_corrupted_images_are_in_no_other_table_and_no_bars(tmp_path: Path) -> None:
    (table,) = compare([measured(tmp_path / "x.json")], [None])
    assert [line.label for line in table.rows] == ["all", "swap obj", "swap att"]
    assert "swap att" in table.chart
    assert "fog" not in table.chart


def test_each_corruption_has_a_panel_and_the_means_a_table(tmp_path: Path) -> None:
    (found,) = robustness_panels([measured(tmp_path / "x.json"), None])
    assert found.title == "SugarCrepe: accuracy"
    assert [name for name, _ in found.panels] == ["fog", "contrast"]
    assert all("var(--run-0)" in svg for _, svg in found.panels)
    assert [line.label for line in found.table.rows] == ["accuracy, mPC", "accuracy, rPC"]
    assert found.remark == ""


def test_a_curve_starts_at_the_clean_score_and_goes_up_in_severity(tmp_path: Path) -> None:
    curve = severities(measured(tmp_path / "x.json"), "sugarcrepe", "accuracy", "fog")
    assert [severity for severity, _ in curve] == [0, 1, 2, 3]
    assert [share for _, share in curve] == pytest.approx([0.8, 0.7, 0.6, 0.5])


def test_measures_on_shards_have_panels_too(tmp_path: Path) -> None:
    (found,) = robustness_panels([measured(tmp_path / "x.json", "hnc-shards")])
    assert found.title == "Hard negatives: accuracy"


def test_means_over_unlike_conditions_are_marked_as_not_comparable(tmp_path: Path) -> None:
    one, two = measured(tmp_path / "x.json"), measured(tmp_path / "y.json", worst=5)
    (found,) = robustness_panels([one, two])
    assert "cannot be compared" in found.remark
