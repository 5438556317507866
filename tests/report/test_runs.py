"""Reading run folders, whole and broken."""

from pathlib import Path

import pytest

from hnc_ds.errors import UserError
from hnc_ds.report.runs import read_run, read_runs


def test_settings_are_flat_and_an_empty_table_is_not_set(make_run):
    run = read_run(
        make_run("a", settings={"loss": {"alpha": 2.0}, "types": {}, "tau": None, "n": [1, 2]}), "a"
    )
    assert run.settings == {"loss.alpha": "2.0", "tau": "null", "n": "[1, 2]"}


def test_where_a_run_lies_is_no_setting(make_run):
    settings = {"settings": {"run": "runs/a", "resume": False, "steps": 5}, "ranks": 2}
    assert read_run(make_run("a", settings=settings), "a").settings == {"steps": "5", "ranks": "2"}


def test_a_torn_last_line_of_the_log_is_left_out_and_counted(make_run):
    run = read_run(make_run("a", log='{"step": 1, "loss": 2}\n{"step": 2, "lo'), "a")
    assert run.log == [{"step": 1.0, "loss": 2.0}]
    assert run.broken_lines == 1


def test_a_step_logged_again_after_a_resume_counts_as_last_logged(make_run):
    log = '{"step": 2, "loss": 9}\n{"step": 3, "loss": 8}\n{"step": 2, "loss": 7}\n'
    assert [row["loss"] for row in read_run(make_run("a", log=log), "a").log] == [7, 8]


def test_what_is_not_a_finite_number_is_not_a_curve(make_run):
    log = '{"step": 1, "loss": NaN, "note": "x", "flag": true, "margin": null, "tau": 1}\n'
    assert read_run(make_run("a", log=log), "a").log == [{"step": 1.0, "tau": 1.0}]


def test_lines_that_are_no_objects_with_a_step_are_counted(make_run):
    run = read_run(make_run("a", log='[1]\n"x"\n\n{"loss": 1}\n{"step": "1"}\n'), "a")
    assert (run.log, run.broken_lines) == ([], 4)


def test_runs_whose_folders_share_a_name_are_called_by_their_paths(make_run):
    one, two = make_run("x/first"), make_run("y/first")
    assert [run.name for run in read_runs([one, two])] == [str(one), str(two)]


def test_a_run_without_log_settings_or_items_is_read(make_run):
    folder = make_run("a")
    for name in ("log.jsonl", "config.json", "results/val.items.jsonl"):
        (folder / name).unlink()
    run = read_run(folder, "a")
    assert (run.settings, run.log, run.measurements["val"].pairs) == ({}, [], [])
    assert run.measurements["val"].rows


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such run"):
        read_runs([tmp_path / "nowhere"])


def test_a_run_without_results_is_refused_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(UserError, match=r"has no results; run 'hnc-ds evaluate .*val\.json' first"):
        read_runs([tmp_path])


def test_a_folder_of_runs_is_refused_with_how_to_name_them(make_run):
    folder = make_run("a").parent
    with pytest.raises(UserError, match=r"holds runs and no results; name the runs, such as .*/\*"):
        read_runs([folder])


def test_a_page_among_the_runs_is_refused_with_the_flags_that_name_it(make_run):
    for name in ("report.html", "scores.csv"):
        with pytest.raises(UserError, match=f"{name}: not results; --out and --table name"):
            read_runs([make_run("a"), Path(name)])


def test_results_that_are_no_rows_are_refused(make_run):
    folder = make_run("a")
    (folder / "results/val.json").write_text('{"accuracy": 1}')
    with pytest.raises(UserError, match=r"val\.json: not a list of result rows"):
        read_runs([folder])


def test_a_broken_config_is_refused(make_run):
    folder = make_run("a")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read as JSON"):
        read_runs([folder])


def test_no_run_at_all_is_refused():
    with pytest.raises(UserError, match="no run is named"):
        read_runs([])
