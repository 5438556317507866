"""Which hard negatives a visit draws."""

import random
from collections import Counter

import pytest

from hnc_ds.records import CaptionGroup, Negative
from hnc_ds.shards.negatives import draw_negatives

WEIGHTS = {"swap": 2.0, "attribute": 1.0, "relation_subj": 0.5}


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


@pytest.mark.parametrize(("share", "expected"), [(None, 2 / 5), (0.75, 0.75), (0.0, 0), (1.0, 1)])
def test_of_captions_with_and_without_negatives_a_share_is_drawn(
    share: float | None, expected: float
) -> None:
    with_some = [CaptionGroup(f"p{n}", "caption", (Negative(f"n{n}", "swap"),)) for n in range(2)]
    plain = [CaptionGroup(f"q{n}", "caption", ()) for n in range(3)]
    groups = [plain[0], *with_some, *plain[1:]]
    rng = random.Random(0)
    drawn = [draw_negatives(groups, {"swap": 1.0}, 2, rng, share=share) for _ in range(4000)]
    assert sum(bool(own) for _, own in drawn) / 4000 == pytest.approx(expected, abs=0.03)
    counts = Counter(group.positive for group, _ in drawn)
    for number in range(2):
        assert counts[f"p{number}"] / 4000 == pytest.approx(expected / 2, abs=0.03)
    for number in range(3):
        assert counts[f"q{number}"] / 4000 == pytest.approx((1 - expected) / 3, abs=0.03)


def test_a_share_changes_nothing_of_an_image_whose_captions_are_of_one_kind() -> None:
    groups = [mixed(number) for number in range(9)]
    for share in (0.0, 0.5):
        one = draw_negatives(groups, WEIGHTS, 3, random.Random(1), 0.25, share=share)
        assert one == draw_negatives(groups, WEIGHTS, 3, random.Random(1), 0.25)
    plain = [CaptionGroup("q", "caption", ())]
    assert draw_negatives(plain, WEIGHTS, 3, random.Random(1), share=1.0) == (plain[0], ())


def mixed(group: int) -> CaptionGroup:
    """One to four negatives of three types, some of them not proven."""
    types = ("swap", "attribute", "relation_subj")
    negatives = tuple(
        Negative(f"{group}{k}", types[(group + k) % 3], open_world=group * k % 4 == 1)
        for k in range(1 + group % 4)
    )
    return CaptionGroup(f"p{group}", "relation", negatives)


def test_negatives_without_about_are_drawn_as_before_there_was_one() -> None:
    groups = [mixed(number) for number in range(9)]
    drawn = [draw_negatives(groups, WEIGHTS, 3, random.Random(seed), 0.25) for seed in range(8)]
    assert [" ".join([group.positive, *(n.caption for n in own)]) for group, own in drawn] == [
        "p6 60 61 62",
        "p7 70 73 72",
        "p7 72 73 71",
        "p4 40",
        "p1 10 11",
        "p6 60 62 61",
        "p7 72 70 73",
        "p2 20 22 21",
    ]


def test_factors_act_on_negatives_groups_and_types_alike() -> None:
    """Chances by hand: without factors swap 1/2 (each group 1/4), attribute 1/2."""
    on, under = Negative("on", "swap", about="on"), Negative("under", "swap", about="under")
    groups = [
        CaptionGroup("p", "relation", (on,)),
        CaptionGroup("q", "relation", (under,)),
        CaptionGroup("r", "attribute", (Negative("red", "attribute", about="colour"),)),
    ]
    factors = {("swap", "on"): 3.0, ("swap", "under"): 0.5}
    rng, weights = random.Random(0), {"swap": 1.0, "attribute": 1.0}
    drawn = Counter(
        draw_negatives(groups, weights, 1, rng, factors=factors)[1][0].caption for _ in range(9000)
    )
    whole = 3 / 4 + 0.5 / 4 + 1 / 2
    for caption, chance in (("on", 3 / 4), ("under", 0.5 / 4), ("red", 1 / 2)):
        assert drawn[caption] / 9000 == pytest.approx(chance / whole, abs=0.02), caption
    together = [CaptionGroup("p", "relation", (on, under))]
    firsts = Counter(
        draw_negatives(together, weights, 2, rng, factors=factors)[1][0].caption
        for _ in range(7000)
    )
    assert firsts["on"] / 7000 == pytest.approx(6 / 7, abs=0.02)
