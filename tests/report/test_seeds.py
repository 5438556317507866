"""Runs that differ only in the seed as one column, on the page and in tables."""

import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hnc_ds import cli
from hnc_ds.config import ReportConfig
from hnc_ds.errors import UserError
from hnc_ds.report.charts import panels, retention
from hnc_ds.report.page import differing_settings, render
from hnc_ds.report.runs import read_runs
from hnc_ds.report.seeds import columns, unread_seeds
from hnc_ds.report.table_file import COLUMNS

from .conftest import of_shards, pair, results

ALPHA = {"plain": 0.0, "hard": 1.0}


def settings(seed: int, alpha: float, **others: object) -> dict[str, object]:
    """A config.json as training writes it."""
    of_run = {"seed": seed, "run": f"runs/{alpha}-{seed}", "loss": {"alpha": alpha}, **others}
    of_run |= {"deepspeed_config": f"lr-{seed}.json", "eval_shards": f"/node{seed}/val"}
    data = {"shards": f"/node{seed}/shards", "workers": seed}
    model = {"model": "tiny", "pretrained": None}
    return {
        "settings": {**of_run, "data": data, "model": model},
        "shards": "sha of shards",
        "reference_weights": f"random {seed}",
        "commit": "abc",
        "versions": {"torch": f"2.{seed}"},
    }


def made(make_run, name: str, seed: int, right: int, alpha: float, **others: object) -> Path:
    """A run that is right on ``right`` of its four pairs."""
    pairs = [pair(f"a{n}", 0.25 if n < right else -0.25) for n in range(4)]
    log = f'{{"step": 1, "loss": {2.0 + seed}}}\n{{"step": 2, "loss": {1.0 + seed}}}\n'
    return make_run(name, pairs, settings=settings(seed, alpha, **others), log=log)


@pytest.fixture
def six(make_run) -> list[Path]:
    """Two objectives of three seeds; accuracies 1/4, 1/4, 1/2 and 2/4, 3/4, 1."""
    right = {"plain": (1, 1, 2), "hard": (2, 3, 4)}
    return [
        made(make_run, f"{name}-{seed}", seed, right[name][seed], ALPHA[name])
        for name in right
        for seed in range(3)
    ]


def shown(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def report(*arguments: object) -> int:
    """Exit status of the command."""
    before, sys.argv = sys.argv, ["hnc-ds", "report", *map(str, arguments)]
    try:
        return cli.main()
    finally:
        sys.argv = before


def test_runs_that_differ_only_in_the_seed_are_one_column_of_means(six):
    plain, hard = columns(read_runs(six), by_name=False)
    assert (plain.name, hard.name) == ("plain", "hard")
    assert list(hard.seeds) == ["0", "1", "2"]
    row = hard.measurements["val"].rows["hnc-shards", "pair_accuracy", "all"]
    assert (row.value, row.model, row.count) == (0.75, "hard", 4)
    assert [line["loss"] for line in hard.log] == [3.0, 2.0]
    assert hard.settings["seed"] == "0, 1, 2"


def test_the_page_shows_mean_deviation_each_seed_and_paired_differences(six, tmp_path, capsys):
    assert report(*six, "--out", tmp_path / "r.html") == 0
    assert "6 runs in 2 columns" in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text()
    text = shown(page)
    assert "plain and hard" in text
    assert "hard 3 seeds: 0, 1, 2" in text
    assert "75.0 ± 25.0 12.9 to 100.0" in text  # 4.3027 * 25 / sqrt 3 = 62.1
    assert "33.3 ± 14.4" in text
    # Differences of the seeds: 25, 50, 50 points; t = 5, p = 1 - 5 / sqrt 27, twice for two rows.
    assert "+41.7 (+5.8 to +77.5, p = 0.075)" in text
    assert 'title="seed 0: 50.0\nseed 1: 75.0\nseed 2: 100.0"' in page
    assert "plain, seed 2 hard, seed 0" in text
    assert "all 25.0 25.0 50.0 50.0 75.0 100.0" in text
    assert "Fixed by hard, seed 0" in text
    assert "differences seed by seed" in text


def test_what_may_differ_between_seeds_is_in_the_table_of_settings(six):
    rows = dict(differing_settings(columns(read_runs(six), by_name=False)))
    assert rows["loss.alpha"] == ["0.0", "1.0"]
    assert rows["versions.torch"] == ["2.0, 2.1, 2.2"] * 2
    assert "seed" not in rows
    (alone,) = columns(read_runs(six[:3]), by_name=False)
    assert "versions.torch" in dict(differing_settings([alone]))
    assert "What differs" in render([alone])


def test_other_settings_and_repeated_seeds_stay_columns_of_their_own(make_run):
    runs = [
        made(make_run, "a-0", 0, 1, 1.0),
        made(make_run, "a-1", 1, 1, 1.0, steps=5),
        made(make_run, "again-0", 0, 1, 1.0),
        made(make_run, "again-1", 1, 1, 1.0),
    ]
    found = columns(read_runs(runs), by_name=False)
    assert [(run.name, list(run.seeds)) for run in found] == [
        ("a-0 and 1 more", ["0", "1"]),
        ("a-1", []),
        ("again-0", []),
    ]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("alpha=2.0_seed=0", "alpha=2.0_seed=1"), "alpha=2.0"),
        (("seed=0_alpha=0.5", "seed=1_alpha=0.5"), "alpha=0.5"),
        (("hnc_0/final", "hnc_1/final"), "hnc/final"),
        (("hnc-00", "hnc-01"), "hnc"),
        (("train-004", "train-005"), "train-004 and 1 more"),
        (("one", "two"), "one and 1 more"),
    ],
)
def test_seeds_are_named_by_what_their_names_have_in_common(make_run, names, found):
    runs = [made(make_run, name.replace("/", "-"), seed, 1, 1.0) for seed, name in enumerate(names)]
    single = [replace(run, name=name) for run, name in zip(read_runs(runs), names, strict=True)]
    (column,) = columns(single, by_name=False)
    assert column.name == found


def test_weights_that_differ_are_another_model_unless_the_seed_drew_them(make_run):
    runs = []
    for seed in range(2):
        run = made(make_run, f"tuned-{seed}", seed, 1, 1.0)
        config = json.loads((run / "config.json").read_text())
        config["settings"]["model"]["pretrained"] = "weights.pt"
        (run / "config.json").write_text(json.dumps(config))
        runs.append(run)
    assert len(columns(read_runs(runs), by_name=False)) == 2


def test_results_files_of_runs_have_the_settings_of_their_runs(six):
    files = [run / "results" / "val.json" for run in six]
    for run, file in zip(six, files, strict=True):
        rows = json.loads(file.read_text())
        file.write_text(json.dumps([row | {"model": run.name} for row in rows]))
    found = columns(read_runs(files), by_name=False)
    assert [(run.name, len(run.seeds), run.is_run) for run in found] == [
        ("plain", 3, False),
        ("hard", 3, False),
    ]


def test_a_config_json_of_something_else_beside_results_is_not_read(tmp_path):
    file = results(tmp_path / "results" / "m.json", of_shards(0.5, 0.5))
    for content in ("{", "[1]", '{"seed": []}'):
        (tmp_path / "config.json").write_text(content)
        (run,) = columns(read_runs([file]), by_name=False)
        assert not run.seeds


def test_results_alone_are_seeds_by_their_names_on_request(tmp_path, capsys):
    folder = tmp_path / "results"
    for name in ("openai", "hard-seed0", "hard-seed1", "ViT-B-32"):
        value = 0.5 + 0.25 * name.endswith("1")
        rows = [msgspec.structs.replace(row, model=name) for row in of_shards(value, value)]
        results(folder / f"{name}.json", rows)
    runs = read_runs([folder])
    assert len(columns(runs, by_name=False)) == 4
    assert unread_seeds(runs) == ["hard-seed0", "hard-seed1"]
    assert report(folder, "--out", tmp_path / "r.html") == 0
    assert "hard-seed0, hard-seed1 have no config.json" in capsys.readouterr().err
    found = columns(runs, by_name=True)
    assert [(run.name, list(run.seeds)) for run in found] == [
        ("ViT-B-32", []),
        ("hard", ["0", "1"]),
        ("openai", []),
    ]
    assert report(folder, "--seeds_by_name", "--out", tmp_path / "r.html") == 0
    written = capsys.readouterr()
    assert "4 runs in 3 columns" in written.out
    assert not written.err
    assert "62.5 ± 17.7" in shown((tmp_path / "r.html").read_text())


def test_a_seed_that_was_not_measured_is_left_out_with_a_remark(six):
    for file in (six[5] / "results").iterdir():
        file.rename(file.with_name(file.name.replace("val", "test")))
    text = shown(render(columns(read_runs(six), by_name=False)))
    assert "hard: seed 2 lacks 3 of 3 scores, not measured or of other questions" in text
    assert "62.5 ± 17.7" in text


def test_curves_of_the_single_seeds_are_drawn_behind_their_mean(six):
    shown_panels = panels(columns(read_runs(six[:3]), by_name=False))
    (panel,) = shown_panels["Learning"]
    assert panel.last == [(0, "2.00")]
    assert panel.svg.count("opacity: 0.45") == 3


def test_a_series_of_checkpoints_is_a_series_of_means(make_run):
    runs = []
    for seed in range(2):
        run = made(make_run, f"a-{seed}", seed, 1, 1.0)
        for file in (run / "results").iterdir():
            file.unlink()
        for step in (100, 200):
            rows = of_shards(0.5 + 0.1 * seed, step / 1000)
            results(run / "results" / f"step-{step:06d}.json", rows)
        runs.append(run)
    found = retention(columns(read_runs(runs), by_name=False))
    assert found is not None
    assert [row[:2] for row in found.rows] == [(0, "step 100"), (0, "step 200")]
    assert found.rows[0][3].startswith("55.0 (")


def test_the_csv_has_every_score_of_every_seed_and_the_paired_differences(six, tmp_path):
    assert report(*six, "--table", tmp_path / "t.csv") == 0
    assert not (tmp_path / "report.html").exists()
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    found = {
        (row["model"], row["seed"]): row
        for row in rows
        if (row["metric"], row["group"]) == ("pair_accuracy", "all")
    }
    assert list(found) == [(name, s) for name in ALPHA for s in ("mean", "0", "1", "2")]
    assert [float(found["hard", str(seed)]["value"]) for seed in range(3)] == [0.5, 0.75, 1.0]
    mean = found["hard", "mean"]
    assert float(mean["value"]) == 0.75
    assert float(mean["deviation"]) == pytest.approx(0.25)
    assert float(mean["difference"]) == pytest.approx(5 / 12)
    assert float(mean["p"]) == pytest.approx(2 * (1 - 5 / 27**0.5))
    assert found["plain", "mean"]["difference"] == found["hard", "0"]["difference"] == ""


def test_every_column_of_the_csv_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    table = page.partition("| column | content |")[2].partition("\n\n")[0]
    firsts = [line.split("|")[1] for line in table.splitlines()[2:]]
    documented = {name for first in firsts for name in re.findall(r"`(\w+)`", first)}
    assert documented == set(COLUMNS)


def test_markdown_and_latex_have_a_row_a_score_and_a_column_a_model(six, tmp_path, capsys):
    assert report(*six, "--table", tmp_path / "t.md") == 0
    assert "6 runs in 2 columns" in capsys.readouterr().out
    page = (tmp_path / "t.md").read_text()
    assert "| percent | plain (3 seeds) | hard (3 seeds) |\n|---|---|---|\n" in page
    assert "\n| all | 33.3 ± 14.4 (0.0 to 69.2) | 75.0 ± 25.0 (12.9 to 100.0) |\n" in page
    assert "## Differences from plain\n\n| points | hard (3 seeds) |\n|---|---|\n" in page
    assert "\n| all | +41.7 (+5.8 to +77.5) |\n" in page
    assert report(*six, "--table", tmp_path / "t.tex") == 0
    text = (tmp_path / "t.tex").read_text()
    row = r"all & 33.3 $\pm$ 14.4 (0.0 to 69.2) & 75.0 $\pm$ 25.0 (12.9 to 100.0) \\"
    assert row in text.splitlines()
    for rule in ("toprule", "midrule", "bottomrule"):
        assert f"\\{rule}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


HOSTILE = "50%_a|b&c\\d~$x^{2}#<i>"


def test_names_cannot_break_a_table(make_run, tmp_path):
    runs = [made(make_run, "one", 0, 1, 1.0), made(make_run, "two", 0, 1, 2.0)]
    for run, name in zip(runs, (HOSTILE, "line\nbreak & more"), strict=True):
        file = run / "results" / "val.json"
        rows = json.loads(file.read_text())
        file.write_text(json.dumps([row | {"model": name} for row in rows]))
    files = [run / "results" / "val.json" for run in runs]
    for kind in ("md", "tex", "csv"):
        assert report(*files, "--table", tmp_path / f"t.{kind}") == 0
    head = (tmp_path / "t.md").read_text().splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", head)) == 4
    assert r"\<i\>" in head
    lines = (tmp_path / "t.tex").read_text().splitlines()
    assert all(not line or line.startswith(("%", "\\")) or line.endswith("\\\\") for line in lines)
    escaped = r"50\%\_a\textbar{}b\&c\textbackslash{}d\textasciitilde{}\$x\textasciicircum{}"
    assert any(escaped + r"\{2\}\#\textless{}i\textgreater{}" in line for line in lines)
    models = {row["model"] for row in csv.DictReader((tmp_path / "t.csv").open(newline=""))}
    assert models == {HOSTILE, "line\nbreak & more"}


def test_a_table_needs_neither_matplotlib_nor_jinja2(six, tmp_path, monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("matplotlib", "jinja2") or name in (
            "hnc_ds.report.figures",
            "hnc_ds.report.page",
        ):
            monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    for kind in ("md", "tex", "csv"):
        assert report(*six, "--table", tmp_path / f"t.{kind}") == 0


def test_both_outputs_are_written_if_both_are_named(six, tmp_path):
    assert report(*six, "--table", tmp_path / "t.csv", "--out", tmp_path / "r.html") == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"t.csv", "r.html"}


def test_a_table_of_another_kind_or_in_place_of_a_folder_is_refused(six, tmp_path, capsys):
    with pytest.raises(UserError, match=r"ends in \.csv, \.tex or \.md"):
        ReportConfig(runs=tuple(six), table=tmp_path / "t.xlsx")
    (tmp_path / "t.csv").mkdir()
    assert report(*six, "--table", tmp_path / "t.csv") == 2
    assert "a folder; name a file that ends in .csv" in capsys.readouterr().err
