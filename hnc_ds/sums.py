"""Sums of what a training measures, since the last line of its log.

What a step measures on the device stays there as the small tensors it is, and is summed up when a
line is due: a step costs a few calls and no wait. What is known on the host is summed there.

B rows of a rank, K hard-negative slots, R rows of several steps, P numbers of a step.
"""

from typing import NamedTuple

import torch

from hnc_ds.distributed import sum_over_ranks
from hnc_ds.objective.similarities import Similarities
from hnc_ds.objective.terms import LossTerms

KEPT_STEPS = 32
"""Steps whose tensors are kept at most: 10 MB for 4,096 rows with four negatives each."""


class Sum(NamedTuple):
    """Of values, and how many there were."""

    total: float
    of: float


class _Step(NamedTuple):
    """What a step leaves on the device."""

    loss_P: torch.Tensor
    found: Similarities
    used_BK: torch.Tensor
    type_BK: torch.Tensor
    about_BK: torch.Tensor


class Sums:
    """Sums of this rank, by the tags of monitor.py.

    Args:
        types: Names of the numbers in ``type_BK``.
        abouts: Tags of the numbers in ``about_BK``.
    """

    def __init__(self, types: tuple[str, ...], abouts: tuple[str, ...] = ()) -> None:
        self._types, self._abouts = types, abouts
        self._losses: tuple[str, ...] = ()
        self._steps: list[_Step] = []
        self._on_device: torch.Tensor | None = None
        self._on_host: dict[str, Sum] = {}

    def add(
        self,
        terms: LossTerms,
        found: Similarities,
        used_BK: torch.Tensor,
        type_BK: torch.Tensor,
        about_BK: torch.Tensor,
    ) -> None:
        """Take in a step.

        Args:
            terms: The loss, of the same terms at every step.
            found: Cosines of the rows.
            used_BK: Slots that hold a hard negative.
            type_BK: Of which type.
            about_BK: What it is about; -1 for what has no tag.
        """
        self._losses = ("loss", *(f"loss/{name}" for name in terms.parts))
        loss_P = torch.stack([terms.total.detach(), *(v.detach() for v in terms.parts.values())])
        self._steps.append(_Step(loss_P, found, used_BK, type_BK, about_BK))
        if len(self._steps) == KEPT_STEPS:
            self._sum_up()

    def add_known(self, name: str, total: float, count: float) -> None:
        """Take in what is known on the host; the same names on every rank."""
        before = self._on_host.get(name, Sum(0.0, 0.0))
        self._on_host[name] = Sum(before.total + total, before.of + count)

    def over_ranks(self, device: torch.device) -> dict[str, Sum]:
        """The sums of all ranks, and nothing left of them. A collective that waits for the device.

        Args:
            device: Where losses lie.
        """
        self._sum_up()
        known = torch.tensor(list(self._on_host.values()), dtype=torch.float64).view(-1, 2)
        parts = [] if self._on_device is None else [self._on_device]
        sums_N2 = sum_over_ranks(torch.cat([*parts, known.to(device)]))
        names = (*(self._names() if parts else ()), *self._on_host)
        self._on_device, self._on_host = None, {}
        return {name: Sum(*pair) for name, pair in zip(names, sums_N2.tolist(), strict=True)}

    def _names(self) -> tuple[str, ...]:
        return (
            *self._losses,
            "similarity/positive",
            "similarity/in_batch",
            "retrieval_r1",
            "similarity/hard_negative",
            "margin",
            "hard_negative_accuracy",
            *(f"hard_negative_accuracy/{name}" for name in self._types),
            *self._abouts,
        )

    def _sum_up(self) -> None:
        """In the order of ``_names``, sums and counts, [N, 2]."""
        if not self._steps:
            return
        steps, self._steps = self._steps, []
        loss_P = torch.stack([step.loss_P for step in steps]).double().sum(dim=0)
        positive_R = _rows([step.found.positive_B for step in steps])
        best_R = torch.cat([step.found.others_best_B for step in steps])
        hard_RK = _rows([step.found.hard_BK for step in steps])
        used_RK = torch.cat([step.used_BK for step in steps])
        type_RK = torch.cat([step.type_BK for step in steps])
        about_RK = torch.cat([step.about_BK for step in steps])
        ahead_RK = positive_R[:, None] - hard_RK
        right_RK = ahead_RK > 0
        sums = [
            _rows([step.found.others_sum_B for step in steps]).sum(),
            torch.cat([step.found.others_count_B for step in steps]).sum(),
            (positive_R > best_R).sum(),
            *(part.masked_fill(~used_RK, 0).sum() for part in (hard_RK, ahead_RK, right_RK)),
            used_RK.sum(),
        ]
        of_others, others, first, hard, ahead, right, used = (part.double() for part in sums)
        rows = first.new_full((), len(positive_R))
        pairs = [
            *((loss, first.new_full((), len(steps))) for loss in loss_P),
            (positive_R.sum(), rows),
            (of_others, others),
            (first, rows),
            (hard, used),
            (ahead, used),
            (right, used),
        ]
        sums_N2 = torch.stack([part for pair in pairs for part in pair]).view(-1, 2)
        by_type = _by_number(right_RK, used_RK, type_RK, len(self._types))
        by_about = _by_number(right_RK, used_RK, about_RK, len(self._abouts))
        sums_N2 = torch.cat([sums_N2, by_type, by_about])
        self._on_device = sums_N2 if self._on_device is None else self._on_device + sums_N2


def _by_number(
    right_RK: torch.Tensor, used_RK: torch.Tensor, number_RK: torch.Tensor, numbers: int
) -> torch.Tensor:
    """Hard negatives that are right, and all, of each number, [numbers, 2]."""
    number_S = torch.arange(numbers, device=number_RK.device)
    is_number_RKS = used_RK[..., None] & (number_RK[..., None] == number_S)
    right_S = (is_number_RKS & right_RK[..., None]).sum(dim=(0, 1))
    return torch.stack([right_S, is_number_RKS.sum(dim=(0, 1))], dim=1).double()


def _rows(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts).double()
