"""The page as a whole: what it shows, that it escapes, and that it loads nothing."""

import json
import re
from html.parser import HTMLParser

import pytest

from hnc_ds.config import ReportConfig
from hnc_ds.errors import UserError
from hnc_ds.report.charts import BY_TYPE, EVALUATED, panels
from hnc_ds.report.figures import bars, curves
from hnc_ds.report.page import differing_settings, render, report
from hnc_ds.report.runs import read_runs

from .conftest import accuracy, pair

HOSTILE = "<script>alert('$x^')</script>\"&{{ 7*7 }}"


class Tags(HTMLParser):
    """All tags with their attributes, and whether every non-void one is closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def two_runs(make_run):
    first = make_run("plain", [pair("a", -1), pair("b", 1)], settings={"alpha": 0, "steps": 2})
    second = make_run("hard", [pair("a", 1), pair("b", 1)], settings={"alpha": 1, "steps": 2})
    return [first, second]


def test_the_page_shows_values_differences_settings_curves_and_images(make_run, tmp_path, capsys):
    out = tmp_path / "new" / "report.html"
    report(ReportConfig(runs=tuple(two_runs(make_run)), out=out))
    page = out.read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "plain and hard" in text
    assert "50.0" in text
    assert "+50.0" in text
    assert "alpha 0 1" in text
    assert "Loss, nats" in text
    assert "Fixed by hard" in text
    legend = "▲ better and ▼ worse mark differences on the same items whose 95 % interval"
    assert legend in text.replace("&nbsp;", " ")
    assert "underlined" not in text
    assert 'class="difference better"' not in page.partition('class="legend"')[0]  # two images
    assert page.count("data:image/jpeg;base64,") >= 4
    assert f"wrote {out}: 2 runs" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_tags_are_balanced_and_nothing_is_loaded_from_anywhere(make_run):
    page = render(read_runs(two_runs(make_run)))
    tags = Tags(page)
    assert tags.open == []
    names = {tag for tag, _ in tags.seen}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for tag, attributes in tags.seen:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
                assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_hostile_captions_names_and_settings_are_shown_as_text(make_run):
    hostile = [pair("a", 1, HOSTILE, HOSTILE, HOSTILE + "x"), pair("b" + HOSTILE, -1, HOSTILE)]
    log = '{"step": 1, "<script>evil</script>": 1, "hard_negative_accuracy/<b>$": 0.5}'
    run = make_run("a<script>b", hostile, settings={"<script>": "<script>"}, log=log)
    page = render(read_runs([run, make_run("two", log="")]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert Tags(page).open == []


def test_a_single_run_has_no_comparison(make_run):
    page = render(read_runs(two_runs(make_run)[:1]))
    assert "What differs" not in page
    assert "Fixed by" not in page
    assert 'class="difference' not in page


def test_what_is_missing_is_reported(make_run, shards):
    one, two = two_runs(make_run)
    (one / "log.jsonl").unlink()
    (one / "config.json").unlink()
    (two / "results/val.items.jsonl").unlink()
    (shards / "index.json").unlink()
    page = render(read_runs([one, two]))
    assert "plain has no training log." in page
    assert "plain has no config.json" in page
    assert "without the scores of single items" in page
    assert "Images are missing" in page


def test_runs_measured_on_different_files_are_shown_side_by_side(make_run):
    one, two = two_runs(make_run)
    for file in (two / "results").iterdir():
        file.rename(file.with_name(file.name.replace("val", "test")))
    page = render(read_runs([one, two]))
    assert "Results on val" in page
    assert "Results on test" in page
    assert "hard: not measured on this set." in page


def test_the_same_runs_give_the_same_page(make_run):
    folders = two_runs(make_run)
    assert render(read_runs(folders)) == render(read_runs(folders))


def test_only_settings_that_differ_are_listed(make_run):
    runs = read_runs(
        [
            make_run("one", settings={"a": 1, "b": {"c": 2}}),
            make_run("two", settings={"a": 1, "b": {"c": 3, "d": 4}}),
        ]
    )
    assert differing_settings(runs) == [("b.c", ["2", "3"]), ("b.d", ["not set", "4"])]


def test_curves_are_in_the_order_of_the_table_and_unknown_ones_at_the_end(make_run):
    log = '{"step": 1, "zebra": 2, "hard_negative_accuracy/swap": 0.5, "margin": 1, "loss": 12345}'
    shown = panels(read_runs([make_run("one", log=log)]))
    titles = {group: [panel.title for panel in row] for group, row in shown.items()}
    assert list(titles.values()) == [["Loss, nats", "Margin"], ["swap"], ["zebra"]]
    assert shown[BY_TYPE][0].last == [(0, "50.0 %")]
    assert shown["Learning"][0].last == [(0, "12,345")]


def test_scores_while_training_have_a_place_of_their_own_without_margins_and_ties(make_run):
    scores = {
        "eval/hnc-shards/pair_accuracy/swap": 0.75,
        "eval/hnc-shards/margin/swap": 0.1,
        "eval/hnc-shards/ties/all": 0.0,
        "eval/retrieval/text_to_image_R@1/all": 0.5,
        "eval/retrieval/text_to_image_R@10/all": 0.9,
    }
    log = json.dumps({"step": 0} | scores) + '\n{"step": 2, "loss": 1.0}\n'
    shown = panels(read_runs([make_run("one", log=log)]))[EVALUATED]
    assert [(panel.title, panel.last) for panel in shown] == [
        ("pair accuracy, swap", [(0, "75.0 %")]),
        ("text to image R@1, all", [(0, "50.0 %")]),
    ]


def test_figures_take_their_colours_from_the_page():
    result = accuracy([pair("a", 1)], "all")
    for svg in (
        curves({0: [(1, 2.0)], 1: [(i, 1.0 / i) for i in range(1, 2000)]}, share=False, chance=0.5),
        bars(["all", "$\\frac"], [[result, None], [result, result]], chance=0.5),
    ):
        assert "var(--run-0)" in svg
        assert "var(--run-1)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'"#[mp]\w+"|url\(#\w+\)', "", svg))
        assert len(svg) < 60_000
    assert "$\\frac" in svg


def test_an_output_that_is_a_folder_or_cannot_be_made_is_refused(make_run, tmp_path):
    runs = tuple(two_runs(make_run))
    with pytest.raises(UserError, match="a folder; name a file"):
        report(ReportConfig(runs=runs, out=tmp_path))
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)|File exists"):
        report(ReportConfig(runs=runs, out=runs[0] / "config.json" / "report.html"))
