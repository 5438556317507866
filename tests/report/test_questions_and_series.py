"""Released benchmarks, corrupted images, checkpoints and interpolated models on the page."""

import re
from pathlib import Path

import pytest
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.evaluation.paired import shared_items
from hnc_ds.evaluation.results import AnsweredItem
from hnc_ds.report.charts import retention
from hnc_ds.report.gallery import Curator, QuestionCurator
from hnc_ds.report.page import differing_settings, render
from hnc_ds.report.runs import read_runs

from .conftest import of_shards, results, row

Box = tuple[int, int, int, int]


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
    with pytest.raises(UserError, match=r"none: no such run; give a run folder"):
        read_runs([tmp_path / "none"])


def test_checkpoints_and_interpolated_models_are_points_of_one_run(tmp_path: Path) -> None:
    for coefficient, pairs in (("0.0", 0.5), ("0.5", 0.7), ("1.0", 0.8)):
        results(
            tmp_path / "sweep" / f"coefficient-{coefficient}.json",
            of_shards(pairs, 0.9 - pairs / 2),
        )
    run = tmp_path / "run"
    for step in (500, 1000, 5000):
        results(run / "results" / f"step-{step:06d}.json", of_shards(step / 10000, 0.5))
    results(run / "results" / "val.json", of_shards(0.5, 0.5))
    sweep, trained = read_runs([tmp_path / "sweep", run])
    assert [point.label for point in sweep.points] == [
        "coefficient 0",
        "coefficient 0.5",
        "coefficient 1",
    ]
    assert [point.label for point in trained.points] == ["step 500", "step 1000", "step 5000"]
    assert (list(sweep.measurements), sweep.shown) == (["results"], "coefficient 1")
    assert (list(trained.measurements), trained.shown) == (["results"], "")
    found = retention([sweep, trained])
    assert found is not None
    assert found.across == "retrieval on the shards, mean of R@1 both ways"
    assert found.up == "hard negatives of the shards"
    assert "step 5000" in found.svg
    assert found.svg.count("<g><use") + found.svg.count("<use") >= 6


def test_a_file_named_before_its_folder_comes_first_and_once(tmp_path: Path) -> None:
    for name in "abc":
        rows = [row("sugarcrepe", "accuracy", "all", 0.5, f"model {name}")]
        results(tmp_path / f"{name}.json", rows)
    runs = read_runs([tmp_path / "b.json", tmp_path])
    assert [run.name for run in runs] == ["model b", "model a", "model c"]


def test_tables_state_which_point_of_a_series_they_show(tmp_path: Path) -> None:
    for coefficient in ("0.0", "0.5"):
        results(tmp_path / "sweep" / f"coefficient-{coefficient}.json", of_shards(0.5, 0.5))
    page = render(read_runs([tmp_path / "sweep"]))
    assert "sweep: shown here is coefficient 0.5, the last of 2." in page


def test_a_difference_without_items_is_marked_as_such(tmp_path: Path) -> None:
    rows = [row("sugarcrepe", "accuracy", "all", 0.5)]
    paths = [results(tmp_path / f"{n}.json", rows) for n in range(2)]
    assert "without the scores of single items" in render(read_runs(paths))


def test_results_without_shards_miss_no_images_of_shards(tmp_path: Path) -> None:
    path = results(tmp_path / "x.json", [row("sugarcrepe", "accuracy", "all", 0.5)])
    assert Curator(read_runs([path]), "results").remarks() == []


def test_settings_are_compared_between_runs_whatever_stands_beside_them(tmp_path: Path) -> None:
    rows = [row("sugarcrepe", "accuracy", "all", 0.5)]
    for name, steps in (("one", 1), ("two", 2)):
        results(tmp_path / name / "results" / "val.json", rows)
        (tmp_path / name / "config.json").write_text(f'{{"steps": {steps}}}')
    other = results(tmp_path / "x.json", rows)
    runs = read_runs([tmp_path / "one", other, tmp_path / "two"])
    assert differing_settings(runs) == [("steps", ["1", "", "2"])]


def test_remarks_that_hold_for_all_are_shown_once(tmp_path: Path) -> None:
    rows = [row("sugarcrepe", "accuracy", "all", 0.5, name) for name in ("a", "b")]
    page = render(read_runs([results(tmp_path / f"{r.model}.json", [r]) for r in rows]))
    assert page.count("the release has 7,511 questions, these files 4") == 1
    assert "all: SugarCrepe: the release has" in page


def curated(tmp_path: Path, first: list[AnsweredItem], second: list[AnsweredItem]):
    rows = [row("sugarcrepe", "accuracy", "all", 0.5)]
    paths = [results(tmp_path / f"{n}.json", rows, own) for n, own in enumerate((first, second))]
    runs = read_runs(paths)
    shared = shared_items(*(run.measurements["results"] for run in runs))
    curator = QuestionCurator(runs, "results")
    return curator, curator.changes(1, shared)


def test_fixed_and_broken_questions_are_shown_with_what_was_cut_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in "abc":
        image = Image.new("RGB", (40, 40), "red")
        image.paste("blue", (0, 0, 10, 10))
        image.save(tmp_path / "images" / f"{name}.png")
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
    cut, whole = card.images[0], broken.cards[0].images[0]
    assert len(cut) < len(whole) or cut != whole
    assert curator.remarks() == []


def test_images_that_are_gone_leave_captions_and_a_remark(tmp_path: Path) -> None:
    curator, (fixed, _) = curated(tmp_path, [answered("a", "g", -0.1)], [answered("a", "g", 0.1)])
    assert fixed.cards[0].images == [""]
    assert curator.remarks() == ["1 image of the evaluation is missing, such as coco2017/a.png."]


def test_two_images_with_a_caption_each_stand_side_by_side(tmp_path: Path) -> None:
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
    assert len(card.images) == 2
    assert [kind for kind, _ in card.lines] == ["first", "second"]
    # For an image: least of .5 - .2 and .3 - .1; for a text: of .5 - .1 and .3 - .2.
    assert (card.scores[1].true, card.scores[1].false) == ("+0.200", "+0.100")


def test_a_caption_with_two_images_shows_its_cosines_with_them(tmp_path: Path) -> None:
    def asked(own: float) -> AnsweredItem:
        return AnsweredItem(
            benchmark="svo",
            id="svo/1",
            group="verb",
            images=("svo/1.jpg", "svo/2.jpg"),
            captions=("a girl sits",),
            scores=((own,), (0.2,)),
            right={"accuracy": own > 0.2},
            tied=False,
        )

    _, (fixed, _) = curated(tmp_path, [asked(0.1)], [asked(0.5)])
    (card,) = fixed.cards
    assert [kind for kind, _ in card.lines] == ["true"]
    assert [(s.true, s.false) for s in card.scores] == [("0.100", "0.200"), ("0.500", "0.200")]


def test_the_caption_that_misled_is_shown_with_every_runs_cosine_of_it(tmp_path: Path) -> None:
    def asked(scores: tuple[float, ...]) -> AnsweredItem:
        return AnsweredItem(
            benchmark="whatsup",
            id="1",
            group="g",
            images=("vg/a.png",),
            captions=("on it", "under it", "left of it"),
            scores=(scores,),
            right={"accuracy": scores[0] >= max(scores[1:])},
            tied=False,
        )

    _, (fixed, _) = curated(tmp_path, [asked((0.2, 0.1, 0.3))], [asked((0.5, 0.4, 0.1))])
    (card,) = fixed.cards
    assert "".join(text for text, _ in card.lines[1][1]) == "left of it"
    assert [(s.true, s.false) for s in card.scores] == [("0.200", "0.300"), ("0.500", "0.100")]


def test_both_true_captions_are_shown_with_the_lower_cosine(tmp_path: Path) -> None:
    def asked(second: float) -> AnsweredItem:
        return AnsweredItem(
            benchmark="sugarcrepe++",
            id="1",
            group="g",
            images=("vg/a.png",),
            captions=("a red dog", "a dog that is red", "a blue dog"),
            scores=((0.5, second, 0.3),),
            right={"itt": second > 0.3, "tot": False},
            tied=False,
        )

    _, (fixed, _) = curated(tmp_path, [asked(0.2)], [asked(0.4)])
    (card,) = fixed.cards
    assert [kind for kind, _ in card.lines] == ["true", "true", "false"]
    assert [(s.true, s.right) for s in card.scores] == [("0.200", False), ("0.400", True)]


def test_text_of_files_is_escaped_in_cards_of_questions(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    rows = [row("sugarcrepe", "accuracy", "all", 0.5, hostile)]
    base = answered("a", hostile, 0.1)
    paths = [
        results(tmp_path / f"{n}.json", rows, [item])
        for n, item in enumerate((answered("a", hostile, -0.1), base))
    ]
    assert not re.search("<script", render(read_runs(paths)))
