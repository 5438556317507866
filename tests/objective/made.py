"""Small comparisons in float64, drawn from seeds."""

import torch

from hnc_ds.objective.loss_inputs import Embeddings, Masks
from hnc_ds.objective.terms import LossInputs

SCALE = torch.tensor([3.0], dtype=torch.float64)
BIAS = torch.tensor([-2.0], dtype=torch.float64)
REFERENCE_SCALE = torch.tensor([2.0], dtype=torch.float64)
MEAN_GAP = torch.tensor([0.4], dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def made_rows(
    rows: int, negatives: int, unrelated: int, all_negatives: bool, seed: int, width: int = 4
) -> Embeddings:
    image, text = unit(rows, width, seed=seed + 1), unit(rows, width, seed=seed + 2)
    negative = unit(rows, negatives, width, seed=seed + 3)
    other = unit(rows, unrelated, width, seed=seed + 4)
    of_all = negative.flatten(0, 1)
    return Embeddings(
        image, text, negative, other, image, text, of_all if all_negatives else of_all[:0]
    )


def compared(
    negatives: int = 2,
    unrelated: int = 0,
    all_negatives: bool = False,
    dtype: torch.dtype = torch.float64,
    rows: int = 3,
) -> LossInputs:
    """All slots used, all images and texts distinct, one rank."""
    index = torch.stack([torch.arange(rows) + 10, torch.arange(rows) + 20], dim=1)
    number = torch.arange(rows * negatives if all_negatives else 0) + 1000
    slots = Masks(
        torch.ones(rows, negatives, dtype=torch.bool),
        torch.ones(rows, unrelated, dtype=torch.bool),
        index,
        index,
        number,
        torch.ones_like(number, dtype=torch.bool),
        0,
    )
    both = [made_rows(rows, negatives, unrelated, all_negatives, seed) for seed in (0, 100)]
    own, start = (Embeddings(*(part.to(dtype) for part in made)) for made in both)
    made = LossInputs(own, slots, SCALE.to(dtype), start, REFERENCE_SCALE, BIAS.to(dtype))
    return made._replace(mean_gap=MEAN_GAP)
