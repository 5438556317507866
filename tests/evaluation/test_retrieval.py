"""Recall by hand and against a plain loop."""

import numpy as np
import pytest
import torch

from hnc_ds.evaluation import held_out
from hnc_ds.evaluation.held_out import (
    build_gallery,
    longest_caption,
    rank_both_ways,
    rank_first_right,
    summarise_ranks,
)
from hnc_ds.evaluation.similarity import Products
from hnc_ds.records import CaptionGroup, TrainingSample


def image(*captions: str) -> TrainingSample:
    return TrainingSample("id", 8, 8, tuple(CaptionGroup(c, "attribute", ()) for c in captions))


def plain_rank(scores: list[float], right: set[int]) -> int:
    """The pessimistic rank by its definition, one number at a time."""
    best = max(scores[i] for i in right)
    return sum(1 for i, score in enumerate(scores) if i not in right and score >= best)


def test_the_longest_caption_is_chosen_and_of_equal_ones_the_first_by_text():
    assert longest_caption(image("a dog", "two dogs", "one dogs")) == "one dogs"


def test_a_text_that_several_images_share_is_in_the_gallery_once_and_right_for_each():
    gallery = build_gallery([image("the dog is red"), image("a cat"), image("the dog is red", "x")])
    assert gallery.texts == ("the dog is red", "a cat")
    assert gallery.text_of_image_N.tolist() == [0, 1, 0]
    right = set(zip(gallery.right_image_R.tolist(), gallery.right_text_R.tolist(), strict=True))
    assert right == {(0, 0), (1, 1), (2, 0)}


def test_any_caption_written_for_an_image_is_a_right_answer():
    gallery = build_gallery([image("a red dog", "a cat"), image("a cat")])
    image_ND = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # both look like the cat
    text_GD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text_rank_N, image_rank_N = rank_both_ways(Products(image_ND, text_GD), gallery)
    assert text_rank_N.tolist() == [0, 0]
    assert image_rank_N.tolist() == [1, 0]  # 'a red dog' is wrong of image 1, which ties


def test_of_equal_scores_the_wrong_answer_comes_first():
    one = torch.ones(1, 1)
    ranks = rank_first_right(Products(one, torch.ones(3, 1)), np.array([0]), np.array([1]))
    assert ranks.tolist() == [2]


@pytest.mark.parametrize("cells", [1, 40, 10_000])
def test_ranks_agree_with_a_plain_loop_whatever_the_block_size(monkeypatch, cells):
    monkeypatch.setattr(held_out, "_CELLS_AT_ONCE", cells)
    random = np.random.default_rng(0)
    query = random.integers(-1, 2, size=(17, 3)).astype(np.float32)  # whole numbers: many ties
    gallery = random.integers(-1, 2, size=(11, 3)).astype(np.float32)
    right = [set(random.choice(11, size=1 + i % 3, replace=False).tolist()) for i in range(17)]
    expected = [plain_rank((gallery @ query[i]).tolist(), right[i]) for i in range(17)]
    rows = [(i, j) for i in reversed(range(17)) for j in right[i]]
    found = rank_first_right(
        Products(torch.from_numpy(query), torch.from_numpy(gallery)),
        *map(np.array, zip(*rows, strict=True)),
    )
    assert found.tolist() == expected


def test_recall_counts_ranks_below_the_cutoff():
    results = summarise_ranks("m", np.array([0, 1, 4, 9]), np.array([0, 0, 5, 10]), seed=0)
    values = {r.metric: r.value for r in results}
    assert values == {
        "image_to_text_R@1": 0.25,
        "image_to_text_R@5": 0.75,
        "image_to_text_R@10": 1.0,
        "text_to_image_R@1": 0.5,
        "text_to_image_R@5": 0.5,
        "text_to_image_R@10": 0.75,
    }
    assert {(r.benchmark, r.version, r.group, r.count) for r in results} == {
        ("retrieval", 1, "all", 4)
    }
