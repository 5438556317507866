"""Pair accuracy, margins and ties by hand."""

import numpy as np
import pytest
import torch

from hnc_ds.evaluation import held_out
from hnc_ds.evaluation import similarity as similarity_module
from hnc_ds.evaluation.held_out import list_pairs, score_pairs, summarise_pairs
from hnc_ds.evaluation.printed import results_table
from hnc_ds.evaluation.results import ItemsHeader, key_of
from hnc_ds.evaluation.similarity import Cosines
from hnc_ds.evaluation.tables import judged_with, shown_rows
from hnc_ds.records import CaptionGroup, Negative, Result, TrainingSample


def sample(*groups: CaptionGroup) -> TrainingSample:
    return TrainingSample("id", 8, 8, groups)


SAMPLES = [
    sample(
        CaptionGroup(
            "east", "attribute", (Negative("north", "swap"), Negative("east", "attribute"))
        )
    ),
    sample(
        CaptionGroup("east", "relation", (Negative("north", "swap"),)),
        CaptionGroup("far", "relation", ()),
    ),
]
TEXTS = {"east": [1.0, 0.0], "north": [0.0, 1.0], "far": [0.6, 0.8]}
IMAGES = torch.tensor([[0.8, 0.6], [0.6, 0.8]])


def measured() -> dict[tuple[str, str], tuple[float, int]]:
    ids: dict[str, int] = {}
    pairs = list_pairs(SAMPLES, ids)
    scores = score_pairs(Cosines(IMAGES, torch.tensor([TEXTS[text] for text in ids])), pairs)
    return {
        (r.group, r.metric): (r.value, r.count)
        for r in summarise_pairs("m", pairs, *scores, np.full(len(pairs), np.nan), 0)
    }


def test_every_caption_gets_one_id_even_one_without_negatives():
    ids: dict[str, int] = {}
    pairs = list_pairs(SAMPLES, ids)
    assert ids == {"east": 0, "north": 1, "far": 2}
    assert pairs.types == ("attribute", "swap")
    assert pairs.image_P.tolist() == [0, 0, 1]
    assert pairs.positive_P.tolist() == [0, 0, 0]
    assert pairs.negative_P.tolist() == [1, 0, 1]
    assert pairs.statements == ("attribute", "attribute", "relation")


def test_accuracy_is_per_type_and_over_all_pairs():
    rows = measured()
    assert rows["swap", "pair_accuracy"] == (0.5, 2)  # image 0 right, image 1 wrong
    assert rows["all", "pair_accuracy"] == (pytest.approx(1 / 3), 3)


def test_accuracy_is_reported_by_predicate_and_class_where_there_are_enough_pairs():
    """Of image 0 'east' is true; 50 pairs turn on 'on', 60 on colour, 49 on 'under'."""
    turns_on = ["on"] * 50 + ["colour"] * 60 + ["under"] * 49 + [""] * 70
    negatives = [
        Negative("north" if number % 5 else "east", "swap", about=about)
        for number, about in enumerate(turns_on)
    ]
    ids: dict[str, int] = {}
    pairs = list_pairs([sample(CaptionGroup("east", "relation", tuple(negatives)))], ids)
    scores = score_pairs(Cosines(IMAGES, torch.tensor([TEXTS[text] for text in ids])), pairs)
    rows = [
        r
        for r in summarise_pairs("m", pairs, *scores, np.full(len(pairs), np.nan), 0)
        if r.group not in ("all", "swap")
    ]
    assert [(r.group, r.metric, r.value, r.count) for r in rows] == [
        ("predicate: on", "pair_accuracy", 0.8, 50),  # a fifth are ties
        ("attribute: colour", "pair_accuracy", 0.8, 60),
    ]


def test_the_most_frequent_predicates_come_first_and_no_more_than_are_read():
    turns_on = [f"predicate {number:02}" for number in range(45) for _ in range(50 + number)]
    negatives = tuple(Negative("north", "swap", about=about) for about in turns_on)
    ids: dict[str, int] = {}
    pairs = list_pairs([sample(CaptionGroup("east", "relation", negatives))], ids)
    scores = score_pairs(Cosines(IMAGES, torch.tensor([TEXTS[text] for text in ids])), pairs)
    rows = [
        r
        for r in summarise_pairs("m", pairs, *scores, np.full(len(pairs), np.nan), 0)
        if r.group not in ("all", "swap")
    ]
    assert [r.count for r in rows] == list(range(94, 54, -1))
    assert rows[0].group == "predicate: predicate 44"


def test_a_tie_is_wrong_and_counted():
    rows = measured()
    assert rows["attribute", "pair_accuracy"] == (0.0, 1)
    assert rows["attribute", "ties"] == (1.0, 1)
    assert rows["swap", "ties"] == (0.0, 2)


def test_the_margin_is_a_difference_of_cosines():
    rows = measured()
    assert rows["swap", "margin"][0] == pytest.approx(0, abs=1e-7)  # 0.8 - 0.6 and 0.6 - 0.8
    ids: dict[str, int] = {}
    pairs = list_pairs(SAMPLES[:1], ids)
    scores = score_pairs(Cosines(IMAGES, torch.tensor([TEXTS[text] for text in ids])), pairs)
    (swap,) = [
        r
        for r in summarise_pairs("m", pairs, *scores, np.full(len(pairs), np.nan), 0)
        if (r.group, r.metric) == ("swap", "margin")
    ]
    assert swap.value == pytest.approx(0.2, abs=1e-6)


def test_scores_do_not_depend_on_how_many_pairs_are_scored_at_once(monkeypatch):
    ids: dict[str, int] = {}
    pairs = list_pairs(SAMPLES, ids)
    random = torch.nn.functional.normalize(
        torch.randn(3, 40, generator=torch.Generator().manual_seed(0)), dim=1
    )
    images = random[:2].flip(1)
    expected = score_pairs(Cosines(images, random), pairs)
    monkeypatch.setattr(similarity_module, "_PAIRS_AT_ONCE", 1)
    for found, whole in zip(score_pairs(Cosines(images, random), pairs), expected, strict=True):
        assert np.array_equal(found, whole)


def results_by_predicate(count: int) -> list[Result]:
    def row(group: str, metric: str = "pair_accuracy") -> Result:
        return Result("m", "hnc-shards", 1, metric, group, 0.5, 0.4, 0.6, 60)

    plain = [row("all"), row("all", "margin"), row("swap"), row("swap", "margin")]
    return [*plain, *(row(f"predicate: p{n:02}") for n in range(count)), row("attribute: colour")]


def test_a_terminal_shows_the_most_frequent_predicates_and_how_many_more_there_are():
    header = ItemsHeader("m", "s", images=2, captions=3)
    lines = results_table(results_by_predicate(15), header, "val.json")
    by_predicate = lines.split("\n\n")[2].splitlines()
    assert by_predicate[0].startswith("by predicate")
    assert [line.split()[0] for line in by_predicate[1:]] == [f"p{n:02}" for n in range(12)]
    by_class = lines.split("\n\n")[3].splitlines()
    assert [line.split()[0] for line in by_class[:-1]] == ["by", "colour"]
    assert by_class[-1] == "3 further scores are in val.json; --all prints them"


def test_predicates_are_judged_apart_and_leave_every_type_on_show():
    rows = results_by_predicate(30)
    shown = [row.group for row in shown_rows(rows)]
    assert shown == ["all", "swap", *(f"predicate: p{n:02}" for n in range(12)), rows[-1].group]
    tables = {judged_with(key_of(row)) for row in rows}
    assert tables == {("hnc-shards", False), ("hnc-shards", True)}
    assert judged_with(("hnc-shards", "pair_accuracy", "swap")) == ("hnc-shards", False)


def test_a_twin_is_no_image_that_has_the_same_caption_without_negatives():
    """'east' is true of images 0 and 1, so only image 2 can be image 0's twin."""
    samples = [
        sample(CaptionGroup("east", "caption", (Negative("north", "swap"),))),
        sample(CaptionGroup("east", "caption", ())),
        sample(CaptionGroup("far", "caption", ())),
    ]
    ids: dict[str, int] = {}
    pairs = list_pairs(samples, ids)
    text_TD = torch.tensor([TEXTS[text] for text in ids])
    # On image 1 'east' wins, on image 2 'north'.
    image_ND = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    similarity = Cosines(image_ND, text_TD)
    assert held_out.score_twins(similarity, pairs, len(image_ND), seed=0).tolist() == [0.0]
