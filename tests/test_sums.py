"""Sums of what training measures are those of all rows of all steps, whenever they are formed."""

import math

import pytest
import torch

from hnc_ds import metrics
from hnc_ds.metrics import Similarities, Sums
from hnc_ds.objective.terms import LossTerms

STEPS, ROWS, SLOTS = 5, 3, 2
TYPES = ("attribute", "swap", "never drawn")
ABOUTS = ("predicate_accuracy/on", "attribute_accuracy/colour")


def drawn(seed: int) -> tuple[LossTerms, Similarities, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step with an empty slot, and a row that has no other captions to compare with."""
    draw = torch.Generator().manual_seed(seed)
    loss = torch.rand(2, generator=draw)
    cosines = torch.rand(ROWS, 4, generator=draw) * 2 - 1
    best_B = torch.tensor([0.5, -0.5, -math.inf])
    found = Similarities(
        cosines[:, 0], cosines[:, 1:3], cosines[:, 3], torch.tensor([4, 2, 0]), best_B, best_B
    )
    used_BK = torch.tensor([[True, True], [True, False], [True, True]])
    type_BK = torch.tensor([[0, 1], [1, -1], [seed % 2, 0]])
    about_BK = torch.tensor([[1, 0], [-1, -1], [1, seed % 2 - 1]])
    terms = LossTerms(loss.sum(), {"one": loss[0], "two": loss[1]})
    return terms, found, used_BK, type_BK, about_BK


def by_hand() -> dict[str, tuple[float, float]]:
    """One number after the other."""
    found: dict[str, list[float]] = {}

    def add(name: str, total: float, count: float = 1) -> None:
        before = found.setdefault(name, [0.0, 0.0])
        before[0] += total
        before[1] += count

    for name in (*(f"hard_negative_accuracy/{name}" for name in TYPES), *ABOUTS):
        add(name, 0, 0)
    for seed in range(STEPS):
        terms, cosines, used_BK, type_BK, about_BK = drawn(seed)
        for name, value in (
            ("loss", terms.total),
            *((f"loss/{n}", v) for n, v in terms.parts.items()),
        ):
            add(name, float(value))
        for row in range(ROWS):
            positive = float(cosines.positive_B[row])
            add("similarity/positive", positive)
            add("retrieval_r1", positive > float(cosines.others_best_B[row]))
            others = float(cosines.others_sum_B[row]), int(cosines.others_count_B[row])
            add("similarity/in_batch", *others)
            for slot in range(SLOTS):
                if used_BK[row, slot]:
                    hard = float(cosines.hard_BK[row, slot])
                    add("similarity/hard_negative", hard)
                    add("margin", positive - hard)
                    add("hard_negative_accuracy", positive > hard)
                    kind = TYPES[int(type_BK[row, slot])]
                    add(f"hard_negative_accuracy/{kind}", positive > hard)
                    if (about := int(about_BK[row, slot])) >= 0:
                        add(ABOUTS[about], positive > hard)
    return {name: (total, count) for name, (total, count) in found.items()}


@pytest.mark.parametrize("kept", [1, 2, 32])
def test_sums_are_those_of_all_rows_and_begin_anew(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "KEPT_STEPS", kept)
    collected, expected = Sums(TYPES, ABOUTS), by_hand()
    for _ in range(2):
        for seed in range(STEPS):
            collected.add(*drawn(seed))
            collected.add_known("tokens", 7.0 * seed, 2)
        found = collected.over_ranks(torch.device("cpu"))
        assert found.pop("tokens") == (70.0, 10.0)
        assert found.keys() == expected.keys()
        for name, pair in expected.items():
            assert found[name] == pytest.approx(pair, abs=1e-6), name
