"""The objective, against sums written out by hand. B = N = 3 in one process, D = 4."""

import math

import pytest
import torch

from hnc_ds.loss import Columns, Features, contrastive_loss, other_true_pairs

SCALE = torch.tensor([3.0], dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def make(negatives: int = 2, unrelated: int = 0) -> tuple[Features, Columns]:
    image, text = unit(3, 4, seed=1), unit(3, 4, seed=2)
    features = Features(
        image,
        text,
        unit(3, negatives, 4, seed=3),
        torch.ones(3, negatives, dtype=torch.bool),
        unit(3, unrelated, 4, seed=4),
        torch.ones(3, unrelated, dtype=torch.bool),
    )
    return features, Columns(image, text, torch.zeros(3, 3, dtype=torch.bool), 0)


def by_hand(features: Features, alpha: float) -> tuple[float, float]:
    """The two formulas, term by term, with nothing masked."""
    image_to_text = text_to_image = 0.0
    for i in range(3):

        def e(text: torch.Tensor, i: int = i) -> float:
            return math.exp(3.0 * float(features.image_BD[i] @ text))

        own = e(features.text_BD[i])
        hard = sum(e(negative) for negative in features.negative_BKD[i])
        others = sum(e(features.text_BD[j]) for j in range(3) if j != i)
        unrelated = sum(e(text) for text in features.unrelated_BMD[i])
        image_to_text -= math.log(own / (own + alpha * hard + others + unrelated)) / 3
        images = sum(
            math.exp(3.0 * float(features.image_BD[k] @ features.text_BD[i])) for k in range(3)
        )
        text_to_image -= math.log(own / images) / 3
    return image_to_text, text_to_image


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 7.0])
def test_the_loss_is_the_formula_written_out(alpha: float) -> None:
    features, columns = make(negatives=2, unrelated=3)
    terms = contrastive_loss(features, columns, SCALE, alpha)
    image_to_text, text_to_image = by_hand(features, alpha)
    assert float(terms.image_to_text) == pytest.approx(image_to_text, abs=1e-12)
    assert float(terms.text_to_image) == pytest.approx(text_to_image, abs=1e-12)
    assert float(terms.total) == pytest.approx(image_to_text + text_to_image, abs=1e-12)


def test_zero_weight_leaves_plain_clip() -> None:
    features, columns = make()
    plain = torch.nn.functional.cross_entropy
    logits = 3.0 * features.image_BD @ features.text_BD.T
    target = torch.arange(3)
    expected = plain(logits, target) + plain(logits.T, target)
    assert contrastive_loss(features, columns, SCALE, 0.0).total == pytest.approx(float(expected))


def test_a_negative_of_weight_two_counts_as_two_copies_of_it() -> None:
    features, columns = make(negatives=1)
    twice = features._replace(
        negative_BKD=features.negative_BKD.repeat(1, 2, 1),
        negative_used_BK=features.negative_used_BK.repeat(1, 2),
    )
    once = contrastive_loss(features, columns, SCALE, 2.0).total
    torch.testing.assert_close(once, contrastive_loss(twice, columns, SCALE, 1.0).total)


def test_an_empty_slot_is_as_if_it_were_not_there_and_gradients_stay_finite() -> None:
    features, columns = make(negatives=2)
    negatives = features.negative_BKD.clone().requires_grad_()
    used = torch.tensor([[True, False], [True, False], [True, False]])
    with_empty = features._replace(negative_BKD=negatives, negative_used_BK=used)
    without = features._replace(
        negative_BKD=features.negative_BKD[:, :1], negative_used_BK=used[:, :1]
    )
    loss = contrastive_loss(with_empty, columns, SCALE, 1.5).total
    torch.testing.assert_close(loss, contrastive_loss(without, columns, SCALE, 1.5).total)
    loss.backward()
    assert negatives.grad is not None
    assert torch.isfinite(negatives.grad).all()
    assert (negatives.grad[:, 1] == 0).all()


def test_a_masked_column_is_out_of_its_row_in_both_directions() -> None:
    features, columns = make(negatives=1)
    excluded = torch.zeros(3, 3, dtype=torch.bool)
    excluded[0, 2] = excluded[2, 0] = True
    masked = contrastive_loss(features, columns._replace(excluded_BN=excluded), SCALE, 1.0)

    def e(i: int, text: torch.Tensor) -> float:
        return math.exp(3.0 * float(features.image_BD[i] @ text))

    rows, cells = {0: (0, 1), 1: (0, 1, 2), 2: (1, 2)}, features.text_BD
    image_to_text = -sum(
        math.log(
            e(i, cells[i])
            / (sum(e(i, cells[j]) for j in rows[i]) + e(i, features.negative_BKD[i, 0]))
        )
        for i in range(3)
    )
    text_to_image = -sum(
        math.log(e(i, cells[i]) / sum(e(k, cells[i]) for k in rows[i])) for i in range(3)
    )
    assert float(masked.image_to_text) == pytest.approx(image_to_text / 3, abs=1e-12)
    assert float(masked.text_to_image) == pytest.approx(text_to_image / 3, abs=1e-12)


def test_same_image_or_same_text_is_another_true_pair_but_never_the_own_column() -> None:
    images, texts = torch.tensor([5, 6, 5, 8]), torch.tensor([1, 2, 3, 2])
    index_N2 = torch.stack([images, texts], dim=1)
    found = other_true_pairs(index_N2[2:], index_N2, first_row=2)
    assert found.tolist() == [[True, False, False, False], [False, True, False, False]]


def test_bfloat16_features_are_compared_in_float32() -> None:
    features, columns = make(negatives=2)
    low = Features(*(p.bfloat16() if p.is_floating_point() else p for p in features))
    same = Columns(low.image_BD, low.text_BD, columns.excluded_BN, 0)
    exact = Features(*(p.double() if p.is_floating_point() else p for p in low))
    loss = contrastive_loss(low, same, torch.tensor([100.0]), 1.0).total
    reference = contrastive_loss(
        exact, Columns(exact.image_BD, exact.text_BD, columns.excluded_BN, 0), SCALE * 0 + 100, 1.0
    ).total
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(reference), rel=1e-5)


def test_slots_and_mask_of_different_shapes_are_refused() -> None:
    features, columns = make(negatives=2)
    wrong = features._replace(negative_used_BK=torch.ones(3, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="negatives"):
        contrastive_loss(wrong, columns, SCALE, 1.0)
