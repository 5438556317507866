"""Questions of released benchmarks that two runs both answered."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from hnc_ds.evaluation.paired import change_of, paired_values, remarks_on_sharing, shared_items
from hnc_ds.evaluation.results import AnsweredItem, ItemsHeader, Measurement, PairItem


def answered(number: int, group: str, right: bool, caption: str = "t") -> AnsweredItem:
    return AnsweredItem(
        benchmark="sugarcrepe",
        id=f"{group}/{number}",
        group=group,
        images=(f"coco2017/{number}.jpg",),
        captions=(caption, "f"),
        scores=((0.2, 0.1),),
        right={"accuracy": right},
        tied=False,
    )


def measured(*answers: AnsweredItem) -> Measurement:
    return Measurement({}, Path(), ItemsHeader(model="m"), [], [], list(answers))


def test_questions_are_compared_one_by_one_over_all_and_within_their_group() -> None:
    first = measured(*[answered(n, "swap_obj", n < 2) for n in range(12)], answered(0, "add", True))
    second = measured(
        *[answered(n, "swap_obj", n >= 2) for n in range(12)], answered(0, "add", True)
    )
    shared = shared_items(first, second)
    of_all = change_of(shared, ("sugarcrepe", "accuracy", "all"))
    of_group = change_of(shared, ("sugarcrepe", "accuracy", "swap_obj"))
    assert of_all is not None
    assert of_group is not None
    assert of_all.difference.value == pytest.approx(8 / 13)
    assert of_group.difference.value == pytest.approx(8 / 12)
    assert of_all.p == pytest.approx(0.03857421875)  # two of twelve, by a fair coin


def test_a_row_of_a_tag_is_of_the_questions_that_have_it() -> None:
    first = [replace(answered(n, "swap_obj", False), tags=("on",) * (n < 3)) for n in range(5)]
    second = [replace(item, right={"accuracy": n < 2}) for n, item in enumerate(first)]
    shared = shared_items(measured(*first), measured(*second))
    found = change_of(shared, ("sugarcrepe", "accuracy", "tag: on"))
    assert found is not None
    assert (found.difference.value, found.difference.count) == (pytest.approx(2 / 3), 3)


def test_a_row_of_a_predicate_is_of_the_pairs_that_state_it() -> None:
    def pairs(right: set[int]) -> Measurement:
        found = [
            PairItem(
                n, str(n), "relation", "swap", "p", f"n{n}", 0.5, 0.4 if n in right else 0.6, a
            )
            for n, a in enumerate(("on", "on", "under", "on", ""))
        ]
        return Measurement({}, Path(), ItemsHeader(model="m"), found, [])

    shared = shared_items(pairs({0}), pairs({0, 1, 2, 4}))
    found = change_of(shared, ("hnc-shards", "pair_accuracy", "predicate: on"))
    assert found is not None
    assert (found.difference.value, found.difference.count) == (pytest.approx(1 / 3), 3)


def searched(ranks: dict[str, list[tuple[int, ...]]], benchmark: str, group: str) -> Measurement:
    """Questions whose searches have these ranks."""
    count = len(next(iter(ranks.values())))
    return measured(
        *(
            replace(
                answered(n, group, False),
                benchmark=benchmark,
                right={},
                ranks={search: of[n] for search, of in ranks.items()},
            )
            for n in range(count)
        )
    )


def test_every_query_of_a_search_is_compared_and_images_are_drawn_with_all_their_captions() -> None:
    first = searched(
        {"image_to_text": [(0,), (1,)], "text_to_image": [(0, 3), (1, 9)]}, "coco-retrieval", "all"
    )
    second = searched(
        {"image_to_text": [(0,), (0,)], "text_to_image": [(0, 0), (2, 4)]}, "coco-retrieval", "all"
    )
    shared = shared_items(first, second)
    of_images, of_texts = (
        change_of(shared, ("coco-retrieval", f"{search}_R@{most}", "all"))
        for search, most in (("image_to_text", 1), ("text_to_image", 5))
    )
    assert of_images is not None
    assert (of_images.difference.value, of_images.difference.count) == (0.5, 2)
    assert of_texts is not None
    assert (of_texts.difference.value, of_texts.difference.count) == (0.25, 4)
    values = paired_values(shared, ("coco-retrieval", "text_to_image_R@1", "all"))
    assert values is not None
    assert values.cluster_N.tolist() == sorted(values.cluster_N)
    assert len(set(values.cluster_N)) == 2
    assert change_of(shared, ("coco-retrieval", "ties", "text_to_image")) is None


def test_searches_of_different_galleries_are_not_compared() -> None:
    ranks = {"image_to_text": [(0,), (1,), (0,)]}
    first = searched(ranks, "coco-retrieval", "all")
    fewer = searched({"image_to_text": ranks["image_to_text"][:2]}, "coco-retrieval", "all")
    for one, other in ((first, fewer), (fewer, first)):
        shared = shared_items(one, other)
        assert len(shared.answers) == 2
        assert change_of(shared, ("coco-retrieval", "image_to_text_R@1", "all")) is None


def test_images_among_classes_are_compared_by_set_and_may_be_fewer() -> None:
    first = searched({"class": [(0,), (1,), (0,)]}, "zero-shot", "wds_a/cat")
    second = searched({"class": [(0,), (0,)]}, "zero-shot", "wds_a/cat")
    shared = shared_items(first, second)
    found = change_of(shared, ("zero-shot", "acc1", "wds_a"))
    assert found is not None
    assert (found.difference.value, found.difference.count) == (0.5, 2)
    assert change_of(shared, ("zero-shot", "acc5", "wds_a")) is not None
    for row in (("acc1", "other"), ("acc1_mean_over_sets", "all"), ("ties", "wds_a")):
        assert change_of(shared, ("zero-shot", *row)) is None


def test_means_of_groups_and_other_benchmarks_have_no_difference() -> None:
    shared = shared_items(measured(answered(0, "add", True)), measured(answered(0, "add", False)))
    for row in (("sugarcrepe", "accuracy", "macro"), ("valse", "accuracy", "all")):
        assert change_of(shared, row) is None


def test_questions_that_differ_are_not_compared_and_this_is_reported() -> None:
    first = measured(answered(0, "add", True), answered(1, "add", True))
    second = measured(answered(0, "add", True), answered(1, "add", True, caption="other"))
    shared = shared_items(first, second)
    assert len(shared.answers) == 1
    assert remarks_on_sharing(first, second, shared) == [
        "1 of 2 questions are shared with the first run; differences are over those"
    ]
