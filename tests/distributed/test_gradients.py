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
from hnc_ds.training.compare import Embedded, compare

ROWS, TEXTS, PIXELS, WIDTH = 8, 11, 5, 4

EVERYTHING = {"contrastive": 1.0, "margin": 0.7, "preference": 0.6, "distill": 0.5}
OBJECTIVES = {
    "contrastive": LossConfig(),
    "negatives of all images": LossConfig(negatives_from="all_images"),
    "margin": LossConfig(terms={"margin": 1.0}, gamma=0.5),
    "preference": LossConfig(terms={"preference": 1.0}, beta=0.5),
    "distill": LossConfig(terms={"distill": 1.0}),
    "everything": LossConfig(
        terms=EVERYTHING, negatives_from="all_images", gamma=0.5, distill_tau=0.3
    ),
}


class Towers(nn.Module):
    """The smallest model with two towers and a temperature, in float64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image = nn.Linear(PIXELS, WIDTH).double()
        self.text = nn.Linear(PIXELS, WIDTH).double()
        self.log_scale = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def unit(rows: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(rows, dim=-1)

        return unit(self.image(images)), unit(self.text(texts)), self.log_scale.exp()


def whole_batch() -> Batch:
    """Eight rows with empty slots of both kinds, one image twice and two equal captions."""
    draw = torch.Generator().manual_seed(7)
    negatives = torch.randint(0, TEXTS, (ROWS, 3), generator=draw)
    negatives[1, 1:] = EMPTY
    negatives[6] = EMPTY
    unrelated = torch.randint(0, TEXTS, (ROWS, 2), generator=draw)
    unrelated[3, 0] = EMPTY
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
    )


def gradients(batch: Batch, config: LossConfig) -> list[torch.Tensor]:
    towers, start = Towers(), Towers(seed=1).requires_grad_(False)
    inputs = batch.images_B3RR, batch.token_TL
    embedded = Embedded(*towers(*inputs), torch.zeros(1), *start(*inputs))
    compared = compare(embedded, batch, config.negatives_from == "all_images")
    objective(compared, config, alpha=1.7).total.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in towers.parameters()]


def averages_equal(expected: dict[str, list[torch.Tensor]]) -> None:
    share = ROWS // world_size()
    own = rows_of(whole_batch(), slice(rank() * share, (rank() + 1) * share))
    for name, references in expected.items():
        for gradient, reference in zip(gradients(own, OBJECTIVES[name]), references, strict=True):
            dist.all_reduce(gradient)
            averaged = gradient / world_size()  # what ZeRO does with data-parallel gradients
            torch.testing.assert_close(
                averaged, reference, rtol=0, atol=1e-12, msg=lambda text, name=name: name + text
            )


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_average_to_the_gradient_of_one_process_with_the_whole_batch(
    ranks: int, run_on_ranks: Callable[..., None]
) -> None:
    references = {name: gradients(whole_batch(), config) for name, config in OBJECTIVES.items()}
    for name, (scale, *towers) in references.items():  # 1e-12 says something
        assert all(gradient.abs().max() > 1e-3 for gradient in towers), name
        assert (scale.abs() > 1e-3) == (name not in ("margin", "distill")), name
    run_on_ranks(ranks, averages_equal, references)
