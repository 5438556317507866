"""hnc_ds.hard_negative_loss: the formula on embeddings, in one process and on ranks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hnc_ds
from hnc_ds.distributed import rank, world_size
from tests.objective.made import unit

B, K, D = 4, 3, 5
USED = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]).bool()


def embeddings(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return unit(B, D, seed=seed + 1), unit(B, D, seed=seed + 2), unit(B, K, D, seed=seed + 3)


def info_nce(
    image: torch.Tensor,
    text: torch.Tensor,
    negatives: torch.Tensor,
    used: torch.Tensor,
    alpha: float,
    tau: float,
) -> torch.Tensor:
    """The formula of docs/python.md, row by row."""
    total = torch.zeros((), dtype=image.dtype)
    for i in range(len(image)):
        positive = image[i] @ text[i] / tau
        others = torch.exp(text @ image[i] / tau).sum()
        own = torch.exp(negatives[i][used[i]] @ image[i] / tau).sum()
        total += torch.log(others + alpha * own) - positive
        total += torch.logsumexp(image @ text[i] / tau, 0) - positive
    return total / len(image)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
def test_it_is_the_formula_whatever_the_length_of_embeddings(alpha: float) -> None:
    image, text, negatives = embeddings()
    expected = info_nce(image, text, negatives, USED, alpha, 0.2)
    longer = 3 * image, 0.1 * text, 7 * negatives
    found = hnc_ds.hard_negative_loss(*longer, USED, alpha=alpha, tau=0.2)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert found.shape == ()


def test_all_slots_are_used_and_alpha_is_1_by_default() -> None:
    image, text, negatives = embeddings()
    expected = info_nce(image, text, negatives, torch.ones(B, K).bool(), 1.0, 0.07)
    torch.testing.assert_close(hnc_ds.hard_negative_loss(image, text, negatives), expected)


def test_an_empty_slot_has_no_effect_even_if_it_is_not_a_number() -> None:
    image, text, negatives = (part.requires_grad_() for part in embeddings())
    expected = hnc_ds.hard_negative_loss(image, text, negatives, USED)
    expected.backward()
    gradient = image.grad
    image.grad = None
    broken = negatives.detach().clone()
    broken[~USED] = math.nan
    broken.requires_grad_()
    found = hnc_ds.hard_negative_loss(image, text, broken, USED)
    found.backward()
    assert torch.equal(found, expected)
    assert torch.equal(image.grad, gradient)
    assert not broken.grad[~USED].any()


def test_under_autocast_it_is_computed_in_float32() -> None:
    rows = [part.float() for part in embeddings()]
    expected = hnc_ds.hard_negative_loss(*rows, USED, terms="hnc-sighted")
    halves = [part.bfloat16() for part in rows]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hnc_ds.hard_negative_loss(*rows, USED, terms="hnc-sighted"), expected)
        assert hnc_ds.hard_negative_loss(*halves, USED).dtype == torch.float32


def test_terms_are_a_preset_a_term_several_or_weights() -> None:
    image, text, negatives = embeddings()
    gap = (image * text).sum(1, keepdim=True) - (negatives @ image[:, :, None]).squeeze(2)
    short = F.relu(0.5 - gap).masked_fill(~USED, 0).sum(1) / USED.sum(1).clamp(min=1)
    margin = short.mean()
    plain = info_nce(image, text, negatives, USED, 0.0, 0.07)

    def loss(terms: Any, **settings: Any) -> torch.Tensor:
        return hnc_ds.hard_negative_loss(image, text, negatives, USED, terms=terms, **settings)

    torch.testing.assert_close(loss("margin", gamma=0.5), margin)
    torch.testing.assert_close(loss("structure-clip", gamma=0.5), 0.5 * plain + margin)
    torch.testing.assert_close(loss(["contrastive", "margin"], alpha=0, gamma=0.5), plain + margin)
    torch.testing.assert_close(
        loss({"contrastive": 2, "margin": 3}, alpha=0, gamma=0.5), 2 * plain + 3 * margin
    )


def test_negatives_of_all_images_compete_with_each() -> None:
    image, text, negatives = embeddings()
    every = negatives[USED].expand(B, -1, -1)
    expected = info_nce(image, text, every, torch.ones(B, len(every[0])).bool(), 1.0, 0.07)
    found = hnc_ds.hard_negative_loss(image, text, negatives, USED, terms="negclip")
    torch.testing.assert_close(found, 0.5 * expected)


def test_rows_of_one_image_or_caption_do_not_compete() -> None:
    image, text, negatives = embeddings()
    same = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]).bool()
    hidden = (image @ text.T / 0.07).masked_fill(same, -math.inf)
    own = torch.arange(B)
    expected = F.cross_entropy(hidden, own) + F.cross_entropy(hidden.T, own)
    ids = {"image_ids": torch.tensor([5, 5, 6, 7]), "text_ids": torch.tensor([1, 2, 3, 3])}
    found = hnc_ds.hard_negative_loss(image, text, negatives, alpha=0, **ids)
    torch.testing.assert_close(found, expected)


def test_tau_and_bias_train() -> None:
    image, text, negatives = embeddings()
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    hnc_ds.hard_negative_loss(image, text, negatives, USED, tau=tau).backward()
    expected = info_nce(image, text, negatives, USED, 1.0, own := tau.detach().requires_grad_())
    expected.backward()
    torch.testing.assert_close(tau.grad, own.grad)
    bias = torch.zeros(1, requires_grad=True)
    rows = [part.float() for part in (image, text, negatives)]
    found = hnc_ds.hard_negative_loss(*rows, alpha=0, tau=0.5, terms="sigmoid", bias=bias)
    signs = 2 * torch.eye(B) - 1
    wanted = -F.logsigmoid(signs * (rows[0] @ rows[1].T / 0.5)).sum(1).mean()
    torch.testing.assert_close(found, wanted)
    found.backward()
    assert bias.grad is not None
    assert bias.grad.item() > 0


def test_a_term_of_the_reference_model_takes_its_embeddings() -> None:
    image, text, negatives = embeddings()
    theirs = tuple(part.requires_grad_() for part in embeddings(seed=50))
    expected = (image - theirs[0]).square().sum(1) + (text - theirs[1]).square().sum(1)
    expected += (negatives - theirs[2]).square().sum(2).masked_fill(~USED, 0).sum(1)
    given = {"terms": "feature_distill", "alpha": 1}
    found = hnc_ds.hard_negative_loss(
        image.requires_grad_(), text, negatives, USED, reference=theirs, **given
    )
    torch.testing.assert_close(found, expected.mean())
    found.backward()
    assert theirs[0].grad is None
    with pytest.raises(hnc_ds.UserError, match="feature_distill compares with a reference model"):
        hnc_ds.hard_negative_loss(image, text, negatives, USED, **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": unit(3, D)}, r"but are \[4, 5\], \[3, 5\], \[4, 3, 5\], \[4, 3\]"),
        ({"negatives": unit(B, D)}, r"must be \[B, D\], \[B, D\], \[B, K, D\]"),
        ({"negatives": unit(B, K, 2)}, r"\[4, 3, 2\]"),
        ({"used": USED[:, :2]}, r"\[4, 2\]$"),
        ({"used": USED.float()}, "used must be bool, but is torch.float32"),
        ({"image_ids": torch.arange(3)}, r"ids must be int64 \[4\], but are torch.int64 \[3\]"),
        ({"tau": torch.ones(2)}, r"tau and bias must be one number, but one is \[2\]"),
        ({"tau": 0.0}, "tau is 0.0; it must be more than 0"),
        ({"terms": "contrastiv"}, r"no preset or term 'contrastiv'; did you mean 'contrastive'"),
        ({"terms": {"itm": 1}}, "itm is not of embeddings; use 'hnc-ds train'"),
        ({"terms": {"contrastive": 1, "l2_sp": 1}}, "l2_sp is not of embeddings"),
        ({"gama": 1}, "no setting 'gama'; did you mean 'gamma'"),
        ({"alpha": -1}, "alpha is -1; it must be 0 or more"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    names = "image", "text", "negatives"
    given: dict[str, Any] = dict(zip(names, embeddings(), strict=True)) | {"used": USED} | changes
    with pytest.raises(hnc_ds.UserError, match=message):
        hnc_ds.hard_negative_loss(**given)


class Head(nn.Module):
    """Projections that train on rows of embeddings, and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.image, self.text = (nn.Linear(D, D).double() for _ in range(2))
        self.tau = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def loss(self, rows: slice, terms: str) -> torch.Tensor:
        """The mean over some rows of the batch, of which the first and third show one image."""
        image, text, negatives = (part[rows] for part in embeddings())
        given = self.image(image), self.text(text), self.text(negatives), USED[rows]
        theirs = tuple(part[rows] for part in embeddings(seed=50))
        ids = torch.tensor([3, 1, 3, 2])[rows]
        return hnc_ds.hard_negative_loss(
            *given, tau=self.tau, terms=terms, reference=theirs, image_ids=ids
        )


TERMS = ("hnc", "negclip", "hnc-sighted", "hnc-siglip", "ce-clip", "dpo", "degla", "distill")


def gradients(rows: slice = slice(None)) -> list[torch.Tensor]:
    """Loss and gradients by each objective, flat."""
    found = []
    for terms in TERMS:
        head = Head()
        loss = head.loss(rows, terms)
        loss.backward()
        parts = [loss.detach(), *(p.grad for p in head.parameters() if p.grad is not None)]
        found.append(torch.cat([part.flatten() for part in parts]))
    return found


def ranks_average_to(expected: list[torch.Tensor]) -> None:
    rows = B // world_size()
    for terms, found, wanted in zip(
        TERMS, gradients(slice(rank() * rows, (rank() + 1) * rows)), expected, strict=True
    ):
        torch.distributed.all_reduce(found)
        torch.testing.assert_close(
            found / world_size(), wanted, atol=1e-12, rtol=1e-12, msg=lambda m, t=terms: f"{t}: {m}"
        )


@pytest.mark.parametrize("ranks", [2, 4])
def test_averaged_over_ranks_it_is_the_gradient_of_one_process_with_the_whole_batch(
    ranks: int, run_on_ranks: Callable[..., None]
) -> None:
    run_on_ranks(ranks, ranks_average_to, gradients())
