"""Several ranks must train on exactly the gradient of one process with the whole batch."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import nn

from hnc_ds.config import LossConfig
from hnc_ds.distributed import rank, world_size
from hnc_ds.objective.terms import objective
from hnc_ds.shards.loader import EMPTY, Batch
from hnc_ds.training.grad_cache import Embedded, gather_inputs

ROWS, TEXTS, PIXELS, WIDTH = 8, 11, 5, 4

EVERYTHING = {
    "adaptive_margin": 0.9,
    "hard_negative": 0.3,
    "intra_modal": 0.6,
    "text_grounded": 0.7,
    "feature_distill": 0.2,
    "contrastive": 1.0,
    "sigmoid": 0.8,
    "blind": 0.4,
    "blind_mean": 0.5,
    "sighted": 0.8,
    "margin": 0.7,
    "preference": 0.6,
    "distill": 0.5,
}
OBJECTIVES = {
    "contrastive": LossConfig(),
    "negatives of all images": LossConfig(negatives_from="all_images"),
    "blind": LossConfig(terms={"blind": 1.0}),
    "blind_mean": LossConfig(terms={"blind_mean": 1.0}),
    "sighted": LossConfig(terms={"sighted": 1.0}),
    "margin": LossConfig(terms={"margin": 1.0}, gamma=0.5),
    "adaptive_margin": LossConfig(terms={"adaptive_margin": 1.0}),
    "hard_negative": LossConfig(terms={"hard_negative": 1.0}, focal_gamma=2.0, label_smoothing=0.1),
    "intra_modal": LossConfig(terms={"intra_modal": 1.0}),
    "text_grounded": LossConfig(terms={"text_grounded": 1.0}, text_tau=0.3),
    "feature_distill": LossConfig(terms={"feature_distill": 1.0}),
    "preference": LossConfig(terms={"preference": 1.0}, beta=0.5),
    "distill": LossConfig(terms={"distill": 1.0}),
    "sigmoid": LossConfig(terms={"sigmoid": 1.0}),
    "several positives": LossConfig(
        terms={"contrastive": 0.25, "hard_negative": 0.5, "adaptive_margin": 0.1}
    ),
    "everything": LossConfig(
        terms=EVERYTHING, negatives_from="all_images", gamma=0.5, distill_tau=0.3
    ),
}


SEVERAL = {"several positives", "everything"}
"""With three positives of each image."""
WITHOUT_SCALE = {"blind", "blind_mean", "margin", "distill", "text_grounded", "feature_distill"}
WITHOUT_IMAGES = {"intra_modal", "text_grounded"}


class Towers(nn.Module):
    """The smallest model with two towers, a temperature and a bias, in float64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image = nn.Linear(PIXELS, WIDTH).double()
        self.text = nn.Linear(PIXELS, WIDTH).double()
        self.log_scale = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([-3.0], dtype=torch.float64))

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def unit(rows: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(rows, dim=-1)

        return unit(self.image(images)), unit(self.text(texts)), self.log_scale.exp(), self.bias


def whole_batch() -> Batch:
    """Eight rows with empty slots of both kinds, one image twice and two equal captions."""
    draw = torch.Generator().manual_seed(7)
    negatives = torch.randint(0, TEXTS, (ROWS, 3), generator=draw)
    negatives[1, 1:] = EMPTY
    negatives[6] = EMPTY
    unrelated = torch.randint(0, TEXTS, (ROWS, 2), generator=draw)
    unrelated[3, 0] = EMPTY
    further = torch.randint(0, TEXTS, (ROWS, 2), generator=draw)
    return Batch(
        torch.randn(ROWS, PIXELS, generator=draw, dtype=torch.float64),
        torch.randn(TEXTS, PIXELS, generator=draw, dtype=torch.float64),
        torch.tensor([0, 1, 2, 3, 4, 5, 6, 2]),
        negatives,
        torch.zeros_like(negatives),
        torch.zeros_like(negatives),
        unrelated,
        torch.tensor([10, 11, 12, 13, 14, 10, 16, 17]),
        torch.arange(TEXTS),
        torch.full((TEXTS,), PIXELS),
        (),
        further_BP=further,
    )


def rows_of(batch: Batch, rows: slice) -> Batch:
    """The batch of one rank; every rank has all texts, as rows may share them."""
    return batch._replace(
        images_B3RR=batch.images_B3RR[rows],
        positive_B=batch.positive_B[rows],
        negative_BK=batch.negative_BK[rows],
        negative_type_BK=batch.negative_type_BK[rows],
        negative_about_BK=batch.negative_about_BK[rows],
        unrelated_BM=batch.unrelated_BM[rows],
        image_index_B=batch.image_index_B[rows],
        further_BP=None if batch.further_BP is None else batch.further_BP[rows],
    )


def gradients(batch: Batch, name: str) -> list[torch.Tensor]:
    config = OBJECTIVES[name]
    batch = batch if name in SEVERAL else batch._replace(further_BP=None)
    towers, start = Towers(), Towers(seed=1).requires_grad_(False)
    inputs = batch.images_B3RR, batch.token_TL
    embedded = Embedded(*towers(*inputs), torch.zeros(1), *start(*inputs)[:3])
    compared = gather_inputs(embedded, batch, config)
    objective(compared, config, alpha=1.7).total.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in towers.parameters()]


def averages_equal(expected: dict[str, list[torch.Tensor]]) -> None:
    share = ROWS // world_size()
    own = rows_of(whole_batch(), slice(rank() * share, (rank() + 1) * share))
    for name, references in expected.items():
        for gradient, reference in zip(gradients(own, name), references, strict=True):
            dist.all_reduce(gradient)
            averaged = gradient / world_size()  # what ZeRO does with data-parallel gradients
            torch.testing.assert_close(
                averaged, reference, rtol=0, atol=1e-12, msg=lambda text, name=name: name + text
            )


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_average_to_the_gradient_of_one_process_with_the_whole_batch(
    ranks: int, run_on_ranks: Callable[..., None]
) -> None:
    references = {name: gradients(whole_batch(), name) for name in OBJECTIVES}
    for name, (scale, bias, *towers) in references.items():  # 1e-12 is a strict bound
        trained = towers[2:] if name in WITHOUT_IMAGES else towers
        assert all(gradient.abs().max() > 1e-3 for gradient in trained), name
        assert (scale.abs() > 1e-3) == (name not in WITHOUT_SCALE), name
        assert (bias.abs() > 1e-3) == (name in ("sigmoid", "everything")), name
    one_positive = gradients(whole_batch()._replace(further_BP=None), "several positives")
    pairs = zip(one_positive, references["several positives"], strict=True)
    assert any((one - several).abs().max() > 1e-3 for one, several in pairs)
    run_on_ranks(ranks, averages_equal, references)
