"""The terms, against sums written out by hand. B = N = 3 in one process, D = 4."""

import math

import open_clip
import pytest
import torch

from hnc_ds.config import LOSS_TERMS, LossConfig
from hnc_ds.objective.loss_inputs import Embeddings, Masks
from hnc_ds.objective.terms import TERMS, LossInputs, LossTerms, gap_sums, objective

from .made import compared, unit

OWN = LossConfig()
ALL = LossConfig(negatives_from="all_images")


def loss(made: LossInputs, alpha: float, config: LossConfig = OWN) -> LossTerms:
    return objective(made, config, alpha)


def e(image: torch.Tensor, text: torch.Tensor) -> float:
    return math.exp(3.0 * float(image @ text))


def by_hand(
    rows: Embeddings, alpha: float, negatives_of: dict[int, tuple[int, ...]]
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
    image_to_text, text_to_image = by_hand(made.embeddings, alpha, seen)
    assert float(terms.parts["image_to_text"]) == pytest.approx(image_to_text, abs=1e-12)
    assert float(terms.parts["text_to_image"]) == pytest.approx(text_to_image, abs=1e-12)
    assert float(terms.total) == pytest.approx(image_to_text + text_to_image, abs=1e-12)


def right(image: torch.Tensor, text: torch.Tensor, is_true: bool) -> float:
    logit = 3.0 * float(image @ text) - 2.0
    return -math.log(1 / (1 + math.exp(-logit if is_true else logit)))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("everyone", [False, True])
def test_the_sigmoid_term_is_the_formula_written_out(alpha: float, everyone: bool) -> None:
    """Rows 0 and 2 show one image, row 1 has an empty slot of each kind."""
    made = compared(negatives=2, unrelated=3, all_negatives=everyone)
    index = torch.tensor([[10, 20], [11, 21], [10, 22]])
    used = torch.tensor([[True, True], [False, True], [True, True]])
    others = torch.tensor([[True] * 3, [True, True, False], [True] * 3])
    made = made._replace(
        masks=made.masks._replace(
            index_B2=index,
            index_N2=index,
            negative_used_BK=used,
            unrelated_used_BM=others,
            negative_used_C=used.flatten() if everyone else made.masks.negative_used_C,
        )
    )
    where = "all_images" if everyone else "own_image"
    config = LossConfig(terms={"sigmoid": 1.0}, negatives_from=where)
    rows, expected = made.embeddings, 0.0
    for i, image in enumerate(rows.image_BD):
        expected += right(image, rows.text_BD[i], True)
        for j in range(3):
            if j != i and {i, j} != {0, 2}:
                expected += right(image, rows.text_BD[j], False)
            if j == i or everyone:
                negatives = zip(rows.negative_BKD[j], used[j], strict=True)
                expected += alpha * sum(right(image, n, False) for n, here in negatives if here)
        unrelated = zip(rows.unrelated_BMD[i], others[i], strict=True)
        expected += sum(right(image, text, False) for text, here in unrelated if here)
    assert float(loss(made, alpha, config).total) == pytest.approx(expected / 3, abs=1e-12)


def test_without_negatives_the_sigmoid_term_is_open_clips_loss() -> None:
    made = compared(rows=5)
    rows = made.embeddings
    expected = open_clip.loss.SigLipLoss()(
        rows.image_BD, rows.text_BD, torch.tensor(3.0).double(), torch.tensor(-2.0).double()
    )
    found = loss(made, 0.0, LossConfig(terms={"sigmoid": 1.0})).total
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def test_the_sigmoid_term_raises_without_a_bias() -> None:
    with pytest.raises(ValueError, match="logit_bias"):
        loss(compared()._replace(bias=None), 1.0, LossConfig(terms={"sigmoid": 1.0}))


def test_zero_weight_leaves_plain_clip() -> None:
    made = compared()
    plain = torch.nn.functional.cross_entropy
    logits = 3.0 * made.embeddings.image_BD @ made.embeddings.text_BD.T
    target = torch.arange(3)
    expected = plain(logits, target) + plain(logits.T, target)
    assert loss(made, 0.0).total == pytest.approx(float(expected))


def test_a_negative_of_weight_two_counts_as_two_copies_of_it() -> None:
    made = compared(negatives=1)
    rows, slots = made.embeddings, made.masks
    twice = made._replace(
        embeddings=rows._replace(negative_BKD=rows.negative_BKD.repeat(1, 2, 1)),
        masks=slots._replace(negative_used_BK=slots.negative_used_BK.repeat(1, 2)),
    )
    torch.testing.assert_close(loss(made, 2.0).total, loss(twice, 1.0).total)


def test_an_empty_slot_is_as_if_it_were_not_there_and_gradients_stay_finite() -> None:
    everything = LossConfig(terms=dict.fromkeys(TERMS, 1.0), gamma=2.0)
    made = compared(negatives=2)
    negatives = made.embeddings.negative_BKD.clone().requires_grad_()
    used = torch.tensor([[True, False], [True, False], [True, False]])
    with_empty = made._replace(
        embeddings=made.embeddings._replace(negative_BKD=negatives),
        masks=made.masks._replace(negative_used_BK=used),
    )

    def first(rows: Embeddings) -> Embeddings:
        return rows._replace(negative_BKD=rows.negative_BKD[:, :1])

    assert made.reference is not None
    without = made._replace(
        embeddings=first(made.embeddings),
        reference=first(made.reference),
        masks=made.masks._replace(negative_used_BK=used[:, :1]),
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
    masked = loss(made._replace(masks=made.masks._replace(index_B2=index, index_N2=index)), 1.0)
    rows, seen = made.embeddings, {0: (0, 1), 1: (0, 1, 2), 2: (1, 2)}
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
        [made.masks.index_B2[2, 1], 31, 32]
    )  # row 0's negative is row 2's caption
    masked = loss(made._replace(masks=made.masks._replace(negative_index_C=number)), 1.0, ALL)
    seen: dict[int, tuple[int, ...]] = {0: (0, 1, 2), 1: (0, 1, 2), 2: (1, 2)}
    image_to_text, _ = by_hand(made.embeddings, 1.0, seen)
    assert float(masked.parts["image_to_text"]) == pytest.approx(image_to_text, abs=1e-12)


def leads(rows: Embeddings) -> list[list[float]]:
    return [
        [float(image @ text) - float(image @ negative) for negative in negatives]
        for image, text, negatives in zip(
            rows.image_BD, rows.text_BD, rows.negative_BKD, strict=True
        )
    ]


def test_the_blind_term_is_the_squared_preference_on_other_images() -> None:
    """Rows 0 and 2 show one image; row 1 has one slot of two."""
    made = compared(negatives=2)
    index = torch.tensor([[10, 20], [11, 21], [10, 22]])
    used = torch.tensor([[True, True], [False, True], [True, True]])
    slots = made.masks._replace(index_B2=index, index_N2=index, negative_used_BK=used)
    rows, expected = made.embeddings, []
    for i, others in enumerate(((1,), (0, 2), (1,))):
        of_slots = [
            (3.0 * float(rows.image_BD[j] @ (rows.text_BD[i] - rows.negative_BKD[i, k]))) ** 2
            for k in range(2)
            if used[i, k]
            for j in others
        ]
        expected.append(sum(of_slots) / len(of_slots))
    found = loss(made._replace(masks=slots), 1.0, LossConfig(terms={"blind": 1.0}))
    assert float(found.total) == pytest.approx(sum(expected) / 3, abs=1e-12)


def with_an_image_twice(rows: int = 3) -> tuple[LossInputs, list[tuple[int, ...]]]:
    """Rows 0 and 2 show one image, row 1 has one slot of two; and each row's other images."""
    made = compared(negatives=2, rows=rows)
    index = torch.tensor([[10, 20], [11, 21], [10, 22]])
    used = torch.tensor([[True, True], [False, True], [True, True]])
    slots = made.masks._replace(index_B2=index, index_N2=index, negative_used_BK=used)
    return made._replace(masks=slots), [(1,), (0, 2), (1,)]


def test_the_blind_mean_term_is_the_square_of_the_mean_preference_of_other_images() -> None:
    made, others = with_an_image_twice()
    rows, expected = made.embeddings, []
    for i, others_of in enumerate(others):
        of_slots = []
        for k in range(2):
            if made.masks.negative_used_BK[i, k]:
                gap = rows.text_BD[i] - rows.negative_BKD[i, k]
                of_images = [3.0 * float(rows.image_BD[j] @ gap) for j in others_of]
                of_slots.append((sum(of_images) / len(of_images)) ** 2)
        expected.append(sum(of_slots) / len(of_slots))
    found = loss(made, 1.0, LossConfig(terms={"blind_mean": 1.0}))
    assert float(found.total) == pytest.approx(sum(expected) / 3, abs=1e-12)


def test_the_sighted_term_is_a_softmax_by_what_an_image_adds_to_the_mean_of_others() -> None:
    made, others = with_an_image_twice()
    rows, expected = made.embeddings, []
    for i, others_of in enumerate(others):
        mean = sum((rows.image_BD[j] for j in others_of), torch.zeros(())) / len(others_of)
        seen = rows.image_BD[i] - mean
        used = rows.negative_BKD[i][made.masks.negative_used_BK[i]]
        logits = [3.0 * float(seen @ text) for text in (rows.text_BD[i], *used)]
        expected.append(math.log(sum(map(math.exp, logits))) - logits[0])
    found = loss(made, 1.0, LossConfig(terms={"sighted": 1.0}))
    assert float(found.total) == pytest.approx(sum(expected) / 3, abs=1e-12)


def test_what_captions_are_worth_on_every_image_does_not_change_the_sighted_term() -> None:
    """A direction that all images share makes the first caption more likely everywhere."""
    made = compared(negatives=1)
    rows = made.embeddings
    shared = torch.ones(rows.image_BD.shape[1])
    moved = rows._replace(image_BD=rows.image_BD + shared, image_ND=rows.image_ND + shared)
    config = LossConfig(terms={"sighted": 1.0})
    before = float(loss(made, 1.0, config).total)
    assert float(loss(made._replace(embeddings=moved), 1.0, config).total) == pytest.approx(before)
    config = LossConfig(terms={"hard_negative": 1.0})
    before = float(loss(made, 1.0, config).total)
    assert float(loss(made._replace(embeddings=moved), 1.0, config).total) != pytest.approx(before)


def test_the_blind_term_does_not_move_the_temperature_and_needs_another_image() -> None:
    made = compared(negatives=1)
    scale = made.scale.clone().requires_grad_()
    text = made.embeddings.text_BD.clone().requires_grad_()
    moving = made._replace(scale=scale, embeddings=made.embeddings._replace(text_BD=text))
    loss(moving, 1.0, LossConfig(terms={"blind": 1.0})).total.backward()
    assert scale.grad is None
    assert text.grad is not None
    assert (text.grad != 0).any()
    one = compared(negatives=1, rows=1)
    assert float(loss(one, 1.0, LossConfig(terms={"blind": 1.0})).total) == 0


def test_the_margin_term_is_the_mean_over_slots_and_then_over_images() -> None:
    made = compared(negatives=2)
    used = torch.tensor([[True, True], [True, False], [False, False]])
    made = made._replace(masks=made.masks._replace(negative_used_BK=used))
    lead = leads(made.embeddings)
    short = [[max(0.0, 0.9 - value) for value in row] for row in lead]
    expected = ((short[0][0] + short[0][1]) / 2 + short[1][0]) / 3
    found = loss(made, 1.0, LossConfig(terms={"margin": 1.0}, gamma=0.9))
    assert float(found.total) == pytest.approx(expected, abs=1e-12)


def with_empty_slots(made: LossInputs) -> LossInputs:
    """Two slots of row 0, one of row 1, none of row 2."""
    used = torch.tensor([[True, True], [True, False], [False, False]])
    return made._replace(masks=made.masks._replace(negative_used_BK=used))


@pytest.mark.parametrize(("mean", "bound", "threshold"), [(0.4, 10, 1.2), (0.4, 1, 1), (-1, 10, 0)])
def test_the_adaptive_margin_is_the_mean_difference_over_tau_within_its_bounds(
    mean: float, bound: float, threshold: float
) -> None:
    made = with_empty_slots(compared(negatives=2))._replace(mean_gap=torch.tensor([mean]))
    lead = leads(made.embeddings)
    short = [[max(0.0, threshold - 3.0 * value) for value in row] for row in lead]
    expected = ((short[0][0] + short[0][1]) / 2 + short[1][0]) / 3
    config = LossConfig(terms={"adaptive_margin": 1.0}, margin_bound=bound)
    assert float(loss(made, 1.0, config).total) == pytest.approx(expected, abs=1e-7)


def test_the_sums_of_the_mean_difference_are_over_used_slots_and_constants() -> None:
    made = with_empty_slots(compared(negatives=2))
    lead, image = leads(made.embeddings), made.embeddings.image_BD.requires_grad_()
    sums = gap_sums(made._replace(embeddings=made.embeddings._replace(image_BD=image)))
    assert sums.tolist() == pytest.approx([sum(lead[0]) + lead[1][0], 3])
    assert not sums.requires_grad


def test_the_adaptive_margin_raises_without_the_mean_over_ranks() -> None:
    with pytest.raises(ValueError, match="mean over all ranks"):
        loss(compared()._replace(mean_gap=None), 1.0, LossConfig(terms={"adaptive_margin": 1.0}))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_hard_negative_term_is_the_formula_written_out(gamma: float, smoothing: float) -> None:
    made = with_empty_slots(compared(negatives=2))
    rows, expected = made.embeddings, 0.0
    for i, count in enumerate((2, 1, 0)):
        texts = [rows.text_BD[i], *rows.negative_BKD[i, :count]]
        whole = sum(e(rows.image_BD[i], text) for text in texts)
        for c, text in enumerate(texts):
            p = e(rows.image_BD[i], text) / whole
            label = (1 - smoothing) * (c == 0) + smoothing / (1 + count)
            expected -= label * (1 - p) ** gamma * math.log(p) / 3
    terms = {"hard_negative": 1.0}
    config = LossConfig(terms=terms, focal_gamma=gamma, label_smoothing=smoothing)
    assert float(loss(made, 1.0, config).total) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tau", [None, 0.5])
@pytest.mark.parametrize("term", ["intra_modal", "text_grounded"])
def test_the_terms_among_captions_are_the_formula_written_out(term: str, tau: float | None) -> None:
    made = with_empty_slots(compared(negatives=2))
    assert made.reference is not None
    rows, scale, expected = made.embeddings, 3.0 if tau is None else 1 / tau, 0.0
    wanted = rows.text_BD if term == "intra_modal" else made.reference.text_BD
    for i, count in enumerate((2, 1, 0)):
        texts = [wanted[i], *rows.negative_BKD[i, :count]]
        own, *others = [math.exp(scale * float(rows.text_BD[i] @ text)) for text in texts]
        expected -= math.log(own / (own + sum(others))) / 3
    config = LossConfig(terms={term: 1.0}, text_tau=tau)
    assert float(loss(made, 1.0, config).total) == pytest.approx(expected, abs=1e-12)


def test_descent_on_the_intra_modal_term_moves_every_negative_away() -> None:
    """That of CE-CLIP's code moves the first one towards every caption."""
    made = compared(negatives=2)
    negative = made.embeddings.negative_BKD.clone().requires_grad_()
    moving = made._replace(embeddings=made.embeddings._replace(negative_BKD=negative))
    loss(moving, 1.0, LossConfig(terms={"intra_modal": 1.0})).total.backward()
    assert negative.grad is not None
    text_BD = made.embeddings.text_BD
    assert (torch.einsum("bkd,bd->bk", -negative.grad, text_BD) < 0).all()


@pytest.mark.parametrize("with_negatives", [True, False])
def test_the_feature_distill_term_is_the_squared_distance_of_all_embeddings(
    with_negatives: bool,
) -> None:
    made = with_empty_slots(compared(negatives=2))
    assert made.reference is not None
    ours, theirs = made.embeddings, made.reference
    apart = [
        float((a - b).square().sum())
        for a, b in (
            (ours.image_BD, theirs.image_BD),
            (ours.text_BD, theirs.text_BD),
            (ours.negative_BKD[0], theirs.negative_BKD[0]),
            (ours.negative_BKD[1, 0], theirs.negative_BKD[1, 0]),
        )
    ]
    weight = 1.5 if with_negatives else 0
    expected = (apart[0] + apart[1] + weight * (apart[2] + apart[3])) / 3
    config = LossConfig(terms={"feature_distill": 1.0}, distill_negatives=with_negatives)
    assert float(loss(made, 1.5, config).total) == pytest.approx(expected, abs=1e-12)


def test_with_several_positives_every_term_is_the_mean_over_them() -> None:
    first, second = compared(negatives=2), compared(negatives=2)
    text = unit(3, 4, seed=40)
    rows = second.embeddings._replace(text_BD=text, text_ND=text)
    second = second._replace(embeddings=rows)
    config = LossConfig(terms={"contrastive": 0.5, "hard_negative": 2.0})
    both = loss(first._replace(further=(second,)), 1.0, config)
    apart = [loss(made, 1.0, config) for made in (first, second)]
    assert both.total == pytest.approx(float(apart[0].total + apart[1].total) / 2, abs=1e-12)
    for name, part in both.parts.items():
        mean = float(apart[0].parts[name] + apart[1].parts[name]) / 2
        assert part == pytest.approx(mean, abs=1e-12)


def test_the_preference_term_rewards_a_larger_similarity_gap_than_the_reference_models() -> None:
    made = compared(negatives=2)
    assert made.reference is not None
    pairs = zip(leads(made.embeddings), leads(made.reference), strict=True)
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
    scale = 1 / tau if tau else 2.0  # of the reference model, as made

    def divergence(p: list[float], q: list[float]) -> float:
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    def weights(rows: Embeddings, i: int) -> list[float]:
        columns = [*rows.text_BD, *rows.unrelated_BMD[i]]
        hard = [*rows.negative_BKD[i]] if over_negatives else []
        own = [math.exp(scale * float(rows.image_BD[i] @ text)) for text in columns]
        return own + [1.5 * math.exp(scale * float(rows.image_BD[i] @ text)) for text in hard]

    def back(rows: Embeddings, i: int) -> list[float]:
        return [math.exp(scale * float(rows.text_BD[i] @ image)) for image in rows.image_BD]

    assert made.reference is not None
    expected = sum(
        divergence(of(made.reference, i), of(made.embeddings, i)) / 3
        for of in (weights, back)
        for i in range(3)
    )
    assert float(loss(made, 1.5, config).total) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_has_not_moved_has_no_divergence_and_no_gradient_of_it() -> None:
    made = compared(negatives=2, unrelated=1)
    image = made.embeddings.image_BD.clone().requires_grad_()
    still = made._replace(
        embeddings=made.embeddings._replace(image_BD=image), reference=made.embeddings
    )
    total = loss(still, 1.5, LossConfig(terms={"distill": 1.0})).total
    total.backward()
    assert float(total.detach()) == pytest.approx(0, abs=1e-12)
    assert image.grad is not None
    assert image.grad.abs().max() < 1e-12


def test_the_sum_has_the_weights_that_are_given() -> None:
    made = compared()
    names = {"contrastive": 0.5, "margin": 2.0, "preference": 0.25, "distill": 3.0}
    parts = {n: float(loss(made, 1.0, LossConfig(terms={n: 1.0})).total) for n in names}
    total = loss(made, 1.0, LossConfig(terms=names | {"l2_sp": 7.0})).total
    assert float(total) == pytest.approx(sum(names[n] * parts[n] for n in names), abs=1e-12)


def test_bfloat16_embeddings_are_compared_in_float32() -> None:
    made = compared(dtype=torch.bfloat16)
    rows = made.embeddings
    wide = made._replace(
        embeddings=Embeddings(*(part.float() for part in rows)), scale=made.scale.float()
    )
    found = loss(made, 1.0).total
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(wide, 1.0).total)


def test_slots_and_mask_of_different_shapes_are_refused() -> None:
    made = compared(negatives=2)
    wrong: Masks = made.masks._replace(negative_used_BK=made.masks.negative_used_BK[:, :1])
    with pytest.raises(ValueError, match=r"negatives are \(3, 2, 4\) but their mask is \(3, 1\)"):
        loss(made._replace(masks=wrong), 1.0)


def test_a_term_that_needs_the_reference_model_raises_without_it() -> None:
    with pytest.raises(ValueError, match="reference model"):
        loss(compared()._replace(reference=None), 1.0, LossConfig(terms={"preference": 1.0}))


@pytest.mark.parametrize("everyone", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_a_row_without_negatives_is_plain_and_counts_as_zero_in_terms_that_need_them(
    name: str, everyone: bool
) -> None:
    """Row 1 has none; what its slots hold is without effect, on the loss and on gradients."""
    used = torch.tensor([[True, True], [False, False], [True, False]])
    totals, gradients = [], []
    for seed in (0, 1):
        made = compared(negatives=2, all_negatives=everyone)
        negatives = made.embeddings.negative_BKD.clone()
        negatives[~used] += seed
        negatives.requires_grad_()
        rows = made.embeddings._replace(negative_BKD=negatives)
        if everyone:
            rows = rows._replace(negative_CD=negatives.flatten(0, 1))
        masks = made.masks._replace(negative_used_BK=used)
        if everyone:
            masks = masks._replace(negative_used_C=used.flatten())
        config = LossConfig(
            terms={name: 1.0}, gamma=2.0, negatives_from="all_images" if everyone else "own_image"
        )
        terms = loss(made._replace(embeddings=rows, masks=masks), 1.5, config)
        terms.total.backward()
        totals.append(terms.total.detach())
        assert negatives.grad is not None
        gradients.append(negatives.grad)
    torch.testing.assert_close(*totals)
    assert torch.isfinite(totals[0])
    assert (gradients[0][~used] == 0).all()
    assert (gradients[0][used] != 0).any(dim=1).all()
    if LOSS_TERMS[name].needs_negatives:  # a mean over the three rows, not over two
        made = made._replace(masks=masks, embeddings=rows)
        alone = [loss(one_row(made, row), 1.5, config).total for row in (0, 2)]
        if name not in ("blind", "blind_mean", "sighted"):  # which compares with other images
            torch.testing.assert_close(totals[1], sum(alone, torch.tensor(0.0)).detach() / 3)


def one_row(made: LossInputs, row: int) -> LossInputs:
    """The same inputs with one row alone."""
    rows = slice(row, row + 1)

    def cut(of: Embeddings) -> Embeddings:
        own = (of.image_BD[rows], of.text_BD[rows], of.negative_BKD[rows], of.unrelated_BMD[rows])
        return Embeddings(*own, of.image_BD[rows], of.text_BD[rows], of.negative_CD[:0])

    masks, index = made.masks, made.masks.index_B2[rows]
    masks = masks._replace(
        negative_used_BK=masks.negative_used_BK[rows],
        unrelated_used_BM=masks.unrelated_used_BM[rows],
        index_B2=index,
        index_N2=index,
        negative_index_C=masks.negative_index_C[:0],
        negative_used_C=masks.negative_used_C[:0],
    )
    assert made.reference is not None
    return made._replace(
        embeddings=cut(made.embeddings), reference=cut(made.reference), masks=masks
    )
