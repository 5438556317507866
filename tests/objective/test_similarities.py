"""Cosines that training is watched by, against loops over the pairs."""

import math

import pytest
import torch

from hnc_ds.metrics import SAMPLED_ROWS, Similarities, measure_similarities
from hnc_ds.objective import softmax
from hnc_ds.objective.loss_inputs import Embeddings, Masks
from hnc_ds.objective.softmax import Tiling
from hnc_ds.objective.terms import LossInputs

from .made import unit

B, N, K, FIRST = 4, 11, 2, 5
"""A rank of 4 rows of 11, the first of which is column 5."""


def made(repeats: bool) -> LossInputs:
    """With ``repeats`` columns 2 and 6 show one image, and 7 and 8 have one text."""
    image, text, negative = unit(N, 6, seed=1), unit(N, 6, seed=2), unit(B, K, 6, seed=3)
    own = slice(FIRST, FIRST + B)
    index = torch.stack([torch.arange(N), torch.arange(N) + 100], dim=1)
    if repeats:
        index[2, 0], index[7, 1] = index[6, 0], index[8, 1]
    none = torch.zeros(0)
    rows = Embeddings(image[own], text[own], negative, negative[:, :0], image, text, text[:0])
    used = torch.ones(B, K, dtype=torch.bool)
    slots = Masks(used, used[:, :0], index[own], index, none, none.bool(), FIRST, repeats)
    return LossInputs(rows, slots, torch.ones(1))


def others(of: LossInputs) -> list[list[float]]:
    """Cosines of each row's image with the captions of other images that are not true of it."""
    index = of.masks.index_N2.tolist()
    return [
        [
            float(of.embeddings.image_BD[b] @ of.embeddings.text_ND[n])
            for n in range(len(index))
            if index[n][0] != index[FIRST + b][0] and index[n][1] != index[FIRST + b][1]
        ]
        for b in range(B)
    ]


@pytest.mark.parametrize("tiling", [Tiling(B, 1), Tiling(3 * B, 3), Tiling(2**20, 64)], ids=str)
@pytest.mark.parametrize("repeats", [False, True])
def test_sums_counts_and_best_are_those_of_a_loop_over_the_pairs(
    repeats: bool, tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    of = made(repeats)
    expected, found = others(of), measure_similarities(of)
    assert found.others_count_B.tolist() == [len(row) for row in expected]
    assert found.others_sum_B.tolist() == pytest.approx([sum(row) for row in expected], abs=1e-5)
    assert found.others_best_B.tolist() == pytest.approx([max(row) for row in expected], abs=1e-6)
    positive = [float(of.embeddings.image_BD[b] @ of.embeddings.text_BD[b]) for b in range(B)]
    assert found.positive_B.tolist() == pytest.approx(positive, abs=1e-6)
    for b in range(B):
        hard = [float(of.embeddings.image_BD[b] @ text) for text in of.embeddings.negative_BKD[b]]
        assert found.hard_BK[b].tolist() == pytest.approx(hard, abs=1e-6)


@pytest.mark.parametrize("repeats", [False, True])
def test_the_sample_has_the_others_and_minus_infinity_for_the_rest(repeats: bool) -> None:
    of = made(repeats)
    found = measure_similarities(of).some_others
    assert found.shape == (min(B, SAMPLED_ROWS), N)
    for row, expected in zip(found, others(of), strict=True):
        assert row[row.isfinite()].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("repeats", [False, True])
def test_a_row_without_others_has_minus_infinity_as_the_best(repeats: bool) -> None:
    one, index = unit(1, 6, seed=1), torch.tensor([[3, 4]])
    rows = Embeddings(one, one, one[:, None], one[:, None], one, one, one[:0])
    used = torch.ones(1, 1, dtype=torch.bool)
    slots = Masks(used, used, index, index, index[:0, 0], used[:0, 0], 0, repeats)
    found: Similarities = measure_similarities(LossInputs(rows, slots, torch.ones(1)))
    assert found.others_best_B.tolist() == [-math.inf]
    assert found.others_count_B.tolist() == [0]
    assert found.others_sum_B.tolist() == pytest.approx([0], abs=1e-6)


def test_an_empty_slot_has_no_cosine() -> None:
    of = made(repeats=False)
    used = of.masks.negative_used_BK.clone()
    used[1], used[2, 1] = False, False
    whole = measure_similarities(of).hard_BK
    found = measure_similarities(of._replace(masks=of.masks._replace(negative_used_BK=used)))
    assert torch.equal(found.hard_BK[used], whole[used])
    assert (found.hard_BK[~used] == -math.inf).all()
