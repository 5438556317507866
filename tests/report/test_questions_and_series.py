"""Released benchmarks, worse pictures, checkpoints and mixtures on the page."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.evaluation.items import AnsweredItem, ItemsHeader, write_results
from hnc_ds.records import Result
from hnc_ds.report.compare import compare
from hnc_ds.report.page import render
from hnc_ds.report.paired import shared_items
from hnc_ds.report.question_gallery import QuestionCurator
from hnc_ds.report.retention import retention
from hnc_ds.report.robust import robustness_panels
from hnc_ds.report.runs import read_runs

Box = tuple[int, int, int, int]


def row(benchmark: str, metric: str, group: str, value: float, model: str = "m") -> Result:
    return Result(model, benchmark, 1, metric, group, value, value, value, 4)


def results(path: Path, rows: Sequence[Result], items: Sequence[AnsweredItem] = ()) -> Path:
    folder = str(path.parent / "pictures")
    header = ItemsHeader(model=rows[0].model, folders={"coco2017": (folder,), "vg": (folder,)})
    write_results(path, list(rows), header, items)
    return path


def of_shards(pairs: float, recall: float) -> list[Result]:
    ways = ("image_to_text_R@1", "text_to_image_R@1")
    found = [row("retrieval", way, "all", recall) for way in ways]
    return [row("hnc-shards", "pair_accuracy", "all", pairs), *found]


def answered(id: str, group: str, lead: float, box: Box | None = None) -> AnsweredItem:
    return AnsweredItem(
        benchmark="sugarcrepe",
        id=id,
        group=group,
        images=(f"coco2017/{id}.png",),
        captions=("a red dog", "a blue dog"),
        scores=((0.5, 0.5 - lead),),
        right={"accuracy": lead > 0},
        tied=False,
        boxes=(box,),
    )


def test_results_files_are_runs_called_after_their_models(tmp_path: Path) -> None:
    one = results(tmp_path / "x.json", [row("sugarcrepe", "accuracy", "all", 0.5, "ViT:a")])
    two = results(tmp_path / "y.json", [row("sugarcrepe", "accuracy", "all", 0.6, "ViT:b")])
    for paths in ([one, two], [tmp_path]):
        runs = read_runs(paths)
        assert [run.name for run in runs] == ["ViT:a", "ViT:b"]
        assert [list(run.measurements) for run in runs] == [["results"], ["results"]]
        page = render(runs)
        assert "no training log" not in page
        assert "What differs" not in page
    with pytest.raises(UserError, match=r"none: no such run; give a folder"):
        read_runs([tmp_path / "none"])


def test_checkpoints_and_mixtures_are_points_of_one_run(tmp_path: Path) -> None:
    for share, pairs in (("0.0", 0.5), ("0.5", 0.7), ("1.0", 0.8)):
        results(tmp_path / "sweep" / f"alpha-{share}.json", of_shards(pairs, 0.9 - pairs / 2))
    run = tmp_path / "run"
    for step in (500, 1000, 5000):
        results(run / "results" / f"step-{step:06d}.json", of_shards(step / 10000, 0.5))
    results(run / "results" / "val.json", of_shards(0.5, 0.5))
    sweep, trained = read_runs([tmp_path / "sweep", run])
    assert [point.label for point in sweep.points] == ["share 0", "share 0.5", "share 1"]
    assert [point.label for point in trained.points] == ["step 500", "step 1000", "step 5000"]
    assert list(sweep.measurements) == ["alpha-1.0"]
    assert list(trained.measurements) == ["val"]
    found = retention([sweep, trained])
    assert found is not None
    assert found.across == "retrieval on the shards, mean R@1"
    assert found.up == "hard negatives of the shards"
    assert "step 5000" in found.svg
    assert found.svg.count("<g><use") + found.svg.count("<use") >= 6


def test_axes_are_what_all_points_were_measured_on(tmp_path: Path) -> None:
    acc = row("zero-shot", "acc1", "all", 0.6)
    crepe, valse = (row(name, "accuracy", "all", 0.7) for name in ("sugarcrepe", "valse"))
    one = results(tmp_path / "a" / "one.json", [acc, crepe, valse, *of_shards(0.5, 0.5)])
    two = results(tmp_path / "b" / "two.json", [acc, crepe, valse])
    found = retention(read_runs([one, two]))
    assert found is not None
    assert found.across == "zero-shot classification, acc1"
    assert found.up == "mean of SugarCrepe, VALSE"
    results(two, [acc, crepe])
    other = retention(read_runs([one, two]))
    assert other is not None
    assert other.up == "SugarCrepe"
    results(two, [crepe])
    assert retention(read_runs([one, two])) is None


def test_rows_of_worse_pictures_are_curves_and_a_table_of_their_own(tmp_path: Path) -> None:
    rows = [row("sugarcrepe", "accuracy", "all", 0.8)]
    rows += [row("sugarcrepe", "accuracy", f"fog {n}", 0.8 - n / 10) for n in (1, 3)]
    rows += [row("sugarcrepe", "accuracy", group, 0.6) for group in ("mPC", "rPC")]
    rows += [row("sugarcrepe", "accuracy", group, 0.7) for group in ("swap_obj", "swap_att")]
    (run,) = read_runs([results(tmp_path / "x.json", rows)])
    (measurement,) = run.measurements.values()
    (table,) = compare([measurement], [None])
    assert [line.label for line in table.rows] == ["all", "swap obj", "swap att"]
    assert "swap att" in table.chart
    (found,) = robustness_panels([measurement])
    assert found.title == "SugarCrepe: accuracy"
    assert [name for name, _ in found.panels] == ["fog"]
    assert [line.label for line in found.table.rows] == ["accuracy, mPC", "accuracy, rPC"]


def test_many_groups_are_folded_and_not_drawn(tmp_path: Path) -> None:
    rows = [row("aro-relation", "accuracy", "all", 0.8)]
    rows += [row("aro-relation", "accuracy", f"relation {n}", 0.5) for n in range(60)]
    (run,) = read_runs([results(tmp_path / "x.json", rows)])
    whole, parts = compare([*run.measurements.values()], [None])
    assert (len(whole.rows), whole.folded, whole.chart) == (1, False, "")
    assert (len(parts.rows), parts.folded, parts.chart) == (60, True, "")
    assert parts.title.endswith("by group")


def curated(tmp_path: Path, first: list[AnsweredItem], second: list[AnsweredItem]):
    rows = [row("sugarcrepe", "accuracy", "all", 0.5)]
    paths = [results(tmp_path / f"{n}.json", rows, own) for n, own in enumerate((first, second))]
    runs = read_runs(paths)
    shared = shared_items(*(run.measurements["results"] for run in runs))
    curator = QuestionCurator(runs, "results")
    return curator, curator.changes(1, shared)


def test_fixed_and_broken_questions_are_shown_with_what_was_cut_out(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        picture = Image.new("RGB", (40, 40), "red")
        picture.paste("blue", (0, 0, 10, 10))
        picture.save(tmp_path / "pictures" / f"{name}.png")
    box = (0, 0, 10, 10)
    curator, (fixed, broken) = curated(
        tmp_path,
        [answered("a", "swap_obj", -0.1, box), answered("b", "swap_att", 0.1)],
        [answered("a", "swap_obj", 0.2, box), answered("b", "swap_att", 0.0)],
    )
    assert [card.key for card in fixed.cards] == ["a"]
    assert [card.key for card in broken.cards] == ["b"]  # a tie is wrong here
    assert "1 of 2 questions" in fixed.about
    (card,) = fixed.cards
    assert [(s.run, s.true, s.false, s.right) for s in card.scores] == [
        (0, "0.500", "0.600", False),
        (1, "0.500", "0.300", True),
    ]
    assert card.lines[0] == ("true", [("a ", False), ("red", True), (" dog", False)])
    cut, whole = card.pictures[0], broken.cards[0].pictures[0]
    assert len(cut) < len(whole) or cut != whole
    assert curator.remarks() == []


def test_pictures_that_are_gone_leave_captions_and_a_remark(tmp_path: Path) -> None:
    curator, (fixed, _) = curated(tmp_path, [answered("a", "g", -0.1)], [answered("a", "g", 0.1)])
    assert fixed.cards[0].pictures == [""]
    assert curator.remarks() == [
        "1 pictures of questions are missing, the first is coco2017/a.png."
    ]


def test_two_pictures_with_a_caption_each_stand_side_by_side(tmp_path: Path) -> None:
    def two(scores: tuple[tuple[float, float], tuple[float, float]], right: bool) -> AnsweredItem:
        return AnsweredItem(
            benchmark="winoground",
            id="winoground/1",
            group="Object",
            images=("vg/a.png", "vg/b.png"),
            captions=("some plants", "plants some"),
            scores=scores,
            right={"text": right, "image": right, "group": right},
            tied=False,
        )

    _, (fixed, _) = curated(
        tmp_path, [two(((0.1, 0.2), (0.1, 0.3)), False)], [two(((0.5, 0.2), (0.1, 0.3)), True)]
    )
    (card,) = fixed.cards
    assert len(card.pictures) == 2
    assert [kind for kind, _ in card.lines] == ["first", "second"]
    # For an image: least of .5 - .2 and .3 - .1; for a text: of .5 - .1 and .3 - .2.
    assert (card.scores[1].true, card.scores[1].false) == ("+0.20", "+0.10")


def test_what_files_say_is_escaped_in_cards_of_questions(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    rows = [row("sugarcrepe", "accuracy", "all", 0.5, hostile)]
    base = answered("a", hostile, 0.1)
    paths = [
        results(tmp_path / f"{n}.json", rows, [item])
        for n, item in enumerate((answered("a", hostile, -0.1), base))
    ]
    assert not re.search("<script", render(read_runs(paths)))
