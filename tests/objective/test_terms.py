"""The terms, against sums written out by hand. B = N = 3 in one process, D = 4."""

import math

import pytest
import torch

from hnc_ds.config import LossConfig
from hnc_ds.objective.rows import Rows, Slots
from hnc_ds.objective.terms import TERMS, Compared, LossTerms, objective

from .made import compared

OWN = LossConfig()
ALL = LossConfig(negatives_from="all_images")


def loss(made: Compared, alpha: float, config: LossConfig = OWN) -> LossTerms:
    return objective(made, config, alpha)


def e(image: torch.Tensor, text: torch.Tensor) -> float:
    return math.exp(3.0 * float(image @ text))


def by_hand(
    rows: Rows, alpha: float, negatives_of: dict[int, tuple[int, ...]]
) -> tuple[float, ...]:
    """The two formulas, term by term, with nothing masked."""
    image_to_text = text_to_image = 0.0
    for i, image in enumerate(rows.image_BD):
        own = e(image, rows.text_BD[i])
        hard = sum(e(image, n) for j in negatives_of[i] for n in rows.negative_BKD[j])
        others = sum(e(image, rows.text_BD[j]) for j in range(3) if j != i)
        unrelated = sum(e(image, text) for text in rows.unrelated_BMD[i])
        image_to_text -= math.log(own / (own + alpha * hard + others + unrelated)) / 3
        images = sum(e(rows.image_BD[k], rows.text_BD[i]) for k in range(3))
        text_to_image -= math.log(own / images) / 3
    return image_to_text, text_to_image


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("config", [OWN, ALL], ids=["own", "all"])
def test_the_contrastive_term_is_the_formula_written_out(alpha: float, config: LossConfig) -> None:
    everyone = config.negatives_from == "all_images"
    made = compared(negatives=2, unrelated=3, all_negatives=everyone)
    terms = loss(made, alpha, config)
    seen = {i: (0, 1, 2) if everyone else (i,) for i in range(3)}
    image_to_text, text_to_image = by_hand(made.rows, alpha, seen)
    assert float(terms.parts["image_to_text"]) == pytest.approx(image_to_text, abs=1e-12)
    assert float(terms.parts["text_to_image"]) == pytest.approx(text_to_image, abs=1e-12)
    assert float(terms.total) == pytest.approx(image_to_text + text_to_image, abs=1e-12)


def test_zero_weight_leaves_plain_clip() -> None:
    made = compared()
    plain = torch.nn.functional.cross_entropy
    logits = 3.0 * made.rows.image_BD @ made.rows.text_BD.T
    target = torch.arange(3)
    expected = plain(logits, target) + plain(logits.T, target)
    assert loss(made, 0.0).total == pytest.approx(float(expected))


def test_a_negative_of_weight_two_counts_as_two_copies_of_it() -> None:
    made = compared(negatives=1)
    rows, slots = made.rows, made.slots
    twice = made._replace(
        rows=rows._replace(negative_BKD=rows.negative_BKD.repeat(1, 2, 1)),
        slots=slots._replace(negative_used_BK=slots.negative_used_BK.repeat(1, 2)),
    )
    torch.testing.assert_close(loss(made, 2.0).total, loss(twice, 1.0).total)


def test_an_empty_slot_is_as_if_it_were_not_there_and_gradients_stay_finite() -> None:
    everything = LossConfig(terms=dict.fromkeys(TERMS, 1.0), gamma=2.0)
    made = compared(negatives=2)
    negatives = made.rows.negative_BKD.clone().requires_grad_()
    used = torch.tensor([[True, False], [True, False], [True, False]])
    with_empty = made._replace(
        rows=made.rows._replace(negative_BKD=negatives),
        slots=made.slots._replace(negative_used_BK=used),
    )

    def first(rows: Rows) -> Rows:
        return rows._replace(negative_BKD=rows.negative_BKD[:, :1])

    assert made.start is not None
    without = made._replace(
        rows=first(made.rows),
        start=first(made.start),
        slots=made.slots._replace(negative_used_BK=used[:, :1]),
    )
    total = loss(with_empty, 1.5, everything).total
    torch.testing.assert_close(total, loss(without, 1.5, everything).total)
    total.backward()
    assert negatives.grad is not None
    assert torch.isfinite(negatives.grad).all()
    assert (negatives.grad[:, 1] == 0).all()
    assert (negatives.grad[:, 0] != 0).any(dim=1).all()


def test_another_true_pair_is_out_of_its_row_in_both_directions() -> None:
    made = compared(negatives=1)
    index = torch.tensor([[10, 20], [11, 21], [10, 22]])  # rows 0 and 2 show one image
    masked = loss(made._replace(slots=made.slots._replace(index_B2=index, index_N2=index)), 1.0)
    rows, seen = made.rows, {0: (0, 1), 1: (0, 1, 2), 2: (1, 2)}
    image_to_text = -sum(
        math.log(
            e(rows.image_BD[i], rows.text_BD[i])
            / (
                sum(e(rows.image_BD[i], rows.text_BD[j]) for j in seen[i])
                + e(rows.image_BD[i], rows.negative_BKD[i, 0])
            )
        )
        for i in range(3)
    )
    text_to_image = -sum(
        math.log(
            e(rows.image_BD[i], rows.text_BD[i])
            / sum(e(rows.image_BD[k], rows.text_BD[i]) for k in seen[i])
        )
        for i in range(3)
    )
    assert float(masked.parts["image_to_text"]) == pytest.approx(image_to_text / 3, abs=1e-12)
    assert float(masked.parts["text_to_image"]) == pytest.approx(text_to_image / 3, abs=1e-12)


def test_a_hard_negative_of_another_image_that_is_true_of_a_row_does_not_compete_with_it() -> None:
    made = compared(negatives=1, all_negatives=True)
    number = torch.tensor(
        [made.slots.index_B2[2, 1], 31, 32]
    )  # row 0's negative is row 2's caption
    masked = loss(made._replace(slots=made.slots._replace(negative_index_C=number)), 1.0, ALL)
    seen: dict[int, tuple[int, ...]] = {0: (0, 1, 2), 1: (0, 1, 2), 2: (1, 2)}
    image_to_text, _ = by_hand(made.rows, 1.0, seen)
    assert float(masked.parts["image_to_text"]) == pytest.approx(image_to_text, abs=1e-12)


def leads(rows: Rows) -> list[list[float]]:
    return [
        [float(image @ text) - float(image @ negative) for negative in negatives]
        for image, text, negatives in zip(
            rows.image_BD, rows.text_BD, rows.negative_BKD, strict=True
        )
    ]


def test_the_margin_term_is_the_mean_over_slots_and_then_over_images() -> None:
    made = compared(negatives=2)
    used = torch.tensor([[True, True], [True, False], [False, False]])
    made = made._replace(slots=made.slots._replace(negative_used_BK=used))
    lead = leads(made.rows)
    short = [[max(0.0, 0.9 - value) for value in row] for row in lead]
    expected = ((short[0][0] + short[0][1]) / 2 + short[1][0]) / 3
    found = loss(made, 1.0, LossConfig(terms={"margin": 1.0}, gamma=0.9))
    assert float(found.total) == pytest.approx(expected, abs=1e-12)


def test_the_preference_term_asks_for_more_than_the_start_models_lead() -> None:
    made = compared(negatives=2)
    assert made.start is not None
    pairs = zip(leads(made.rows), leads(made.start), strict=True)
    losses = [
        [math.log1p(math.exp(-0.5 * 3.0 * (a - b))) for a, b in zip(*pair, strict=True)]
        for pair in pairs
    ]
    expected = sum(sum(row) / 2 for row in losses) / 3
    found = loss(made, 1.0, LossConfig(terms={"preference": 1.0}, beta=0.5))
    assert float(found.total) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("over_negatives", [True, False])
@pytest.mark.parametrize("tau", [None, 0.25])
def test_the_distill_term_is_the_divergence_over_the_same_columns(
    over_negatives: bool, tau: float | None
) -> None:
    made = compared(negatives=2, unrelated=1)
    config = LossConfig(terms={"distill": 1.0}, distill_tau=tau, distill_negatives=over_negatives)
    scale = 1 / tau if tau else 2.0  # of the start model, as made

    def divergence(p: list[float], q: list[float]) -> float:
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    def weights(rows: Rows, i: int) -> list[float]:
        columns = [*rows.text_BD, *rows.unrelated_BMD[i]]
        hard = [*rows.negative_BKD[i]] if over_negatives else []
        own = [math.exp(scale * float(rows.image_BD[i] @ text)) for text in columns]
        return own + [1.5 * math.exp(scale * float(rows.image_BD[i] @ text)) for text in hard]

    def back(rows: Rows, i: int) -> list[float]:
        return [math.exp(scale * float(rows.text_BD[i] @ image)) for image in rows.image_BD]

    assert made.start is not None
    expected = sum(
        divergence(of(made.start, i), of(made.rows, i)) / 3
        for of in (weights, back)
        for i in range(3)
    )
    assert float(loss(made, 1.5, config).total) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_has_not_moved_has_no_divergence_and_no_gradient_of_it() -> None:
    made = compared(negatives=2, unrelated=1)
    image = made.rows.image_BD.clone().requires_grad_()
    still = made._replace(rows=made.rows._replace(image_BD=image), start=made.rows)
    total = loss(still, 1.5, LossConfig(terms={"distill": 1.0})).total
    total.backward()
    assert float(total.detach()) == pytest.approx(0, abs=1e-12)
    assert image.grad is not None
    assert image.grad.abs().max() < 1e-12


def test_the_sum_has_the_weights_that_are_given() -> None:
    made = compared()
    names = {"contrastive": 0.5, "margin": 2.0, "preference": 0.25, "distill": 3.0}
    parts = {n: float(loss(made, 1.0, LossConfig(terms={n: 1.0})).total) for n in names}
    total = loss(made, 1.0, LossConfig(terms=names | {"l2_to_start": 7.0})).total
    assert float(total) == pytest.approx(sum(names[n] * parts[n] for n in names), abs=1e-12)


def test_bfloat16_embeddings_are_compared_in_float32() -> None:
    made = compared(dtype=torch.bfloat16)
    rows = made.rows
    wide = made._replace(rows=Rows(*(part.float() for part in rows)), scale=made.scale.float())
    found = loss(made, 1.0).total
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(wide, 1.0).total)


def test_slots_and_mask_of_different_shapes_are_refused() -> None:
    made = compared(negatives=2)
    wrong: Slots = made.slots._replace(negative_used_BK=made.slots.negative_used_BK[:, :1])
    with pytest.raises(ValueError, match=r"negatives are \(3, 2, 4\) but their mask is \(3, 1\)"):
        loss(made._replace(slots=wrong), 1.0)


def test_a_term_that_needs_the_start_model_says_so() -> None:
    with pytest.raises(ValueError, match="start model"):
        loss(compared()._replace(start=None), 1.0, LossConfig(terms={"preference": 1.0}))
