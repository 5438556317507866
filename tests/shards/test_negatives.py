"""Which hard negatives a visit draws."""

import random
from collections import Counter

import pytest

from hnc_ds.records import CaptionGroup, Negative
from hnc_ds.shards.negatives import draw_negatives


def test_types_are_drawn_by_their_weights_whatever_an_image_has_most_of() -> None:
    groups = [
        CaptionGroup(f"p{i}", "relation", (Negative(f"a{i}", "rare"), Negative(f"b{i}", "other")))
        if i == 0
        else CaptionGroup(f"p{i}", "attribute", (Negative(f"c{i}", "common"),))
        for i in range(20)
    ]
    rng = random.Random(0)
    drawn = Counter(
        draw_negatives(groups, {"rare": 3.0, "common": 1.0}, 1, rng)[1][0].type for _ in range(4000)
    )
    assert drawn["other"] == 0
    assert drawn["rare"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_an_unproven_negative_is_drawn_as_seldom_as_asked_and_not_at_all_with_weight_0() -> None:
    proven, unproven = Negative("proven", "swap"), Negative("unproven", "swap", open_world=True)
    together = [CaptionGroup("p", "relation", (proven, unproven))]
    apart = [CaptionGroup("p", "relation", (proven,)), CaptionGroup("q", "relation", (unproven,))]
    for groups in (together, apart):
        rng = random.Random(0)
        drawn = Counter(
            draw_negatives(groups, {"swap": 1.0}, 1, rng, open_world=0.25)[1][0].caption
            for _ in range(4000)
        )
        assert drawn["unproven"] / 4000 == pytest.approx(0.2, abs=0.03)
        for _ in range(50):
            _, negatives = draw_negatives(groups, {"swap": 1.0}, 4, rng, open_world=0)
            assert [n.caption for n in negatives] == ["proven"]


def test_an_image_of_which_nothing_is_proven_keeps_its_caption_without_negatives() -> None:
    groups = [CaptionGroup("p", "caption", (Negative("n", "swap", open_world=True),))]
    group, negatives = draw_negatives(groups, {"swap": 1.0}, 2, random.Random(0), open_world=0)
    assert group.positive == "p"
    assert negatives == ()
