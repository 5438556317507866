"""A run's metrics: cosine similarities, which are not part of the loss, and sums since a log line.

A step's values on the device stay there as small tensors and are summed when a line is due, so that
a step costs a few calls and no synchronization. Values on the host are summed there.

B rows of this rank, N of all ranks, K hard-negative slots, D width, E columns of a slice, R rows of
several steps, P numbers of a step.
"""

from typing import NamedTuple

import torch

from hnc_ds.distributed import sum_over_ranks
from hnc_ds.objective.loss_inputs import hide_own, true_pairs
from hnc_ds.objective.softmax import column_slices
from hnc_ds.objective.terms import LossInputs, LossTerms

SAMPLED_ROWS = 64
"""Images whose cosines with the batch's other captions are in the histogram."""


class Similarities(NamedTuple):
    """Cosines of this rank's images with captions, float32."""

    positive_B: torch.Tensor
    hard_BK: torch.Tensor
    """-inf for an empty slot."""
    others_sum_B: torch.Tensor
    """Sum over other images' captions that are not true of the row."""
    others_count_B: torch.Tensor
    others_best_B: torch.Tensor
    """The largest of these; -inf if there are none."""
    some_others: torch.Tensor
    """Cosines of ``SAMPLED_ROWS`` images with them, and -inf elsewhere, for the histogram."""


HIDDEN = -2.0
"""Replaces captions that are true of a row: less than any cosine, and finite, so that it can be
subtracted from a sum again."""


@torch.no_grad()
def measure_similarities(inputs: LossInputs) -> Similarities:
    """Cosines of this rank's images with their captions, hard negatives and all positives.

    Computed for a slice of the columns at a time, so that memory does not grow with B * N, and
    without synchronizing with the device.
    """
    embeddings, masks = inputs.embeddings, inputs.masks
    image_BD, text_ND = embeddings.image_BD.float(), embeddings.text_ND
    positive_B = (image_BD * embeddings.text_BD.float()).sum(dim=1)
    sums, counts, best, some = [], [], [], image_BD[:0, :0]
    for columns in column_slices(len(image_BD), len(text_ND), image_BD.device):
        cosine_EB = text_ND[columns].float() @ image_BD.T
        if masks.pairs_repeat:
            true_EB = true_pairs(masks, columns)
            true_B = true_EB.sum(dim=0)
            sums.append(cosine_EB.masked_fill_(true_EB, HIDDEN).sum(dim=0) - HIDDEN * true_B)
            counts.append(len(cosine_EB) - true_B)
        else:
            hide_own(cosine_EB, masks, columns, HIDDEN)
        best.append(cosine_EB.amax(dim=0))
        if not columns.start:
            some = cosine_EB[:, :SAMPLED_ROWS].T.contiguous()
    if not masks.pairs_repeat:
        sums.append(image_BD @ text_ND.float().sum(dim=0) - positive_B)
        counts.append(masks.index_B2.new_full((len(image_BD),), len(text_ND) - 1))
    hard_BK = (embeddings.negative_BKD.float() @ image_BD[:, :, None]).squeeze(2)
    return Similarities(
        positive_B,
        hard_BK.masked_fill(~masks.negative_used_BK, -torch.inf),
        torch.stack(sums).sum(dim=0),
        torch.stack(counts).sum(dim=0),
        _none(torch.stack(best).amax(dim=0)),
        _none(some),
    )


def _none(cosines: torch.Tensor) -> torch.Tensor:
    return cosines.masked_fill(cosines == HIDDEN, -torch.inf)


KEPT_STEPS = 32
"""Most steps whose tensors are kept: 10 MB for 4,096 rows with four negatives each."""


class Sum(NamedTuple):
    """Sum of values, and their number."""

    total: float
    of: float


class _Step(NamedTuple):
    """A step's values on the device."""

    loss_P: torch.Tensor
    found: Similarities
    used_BK: torch.Tensor
    type_BK: torch.Tensor
    about_BK: torch.Tensor


class Sums:
    """This rank's sums by the tags of monitor.py.

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
        """Add a step.

        Args:
            terms: The loss, with the same terms at every step.
            found: Cosines of the rows.
            used_BK: Whether a slot holds a hard negative.
            type_BK: Number of its type.
            about_BK: Number of what it is about; -1 without a tag.
        """
        self._losses = ("loss", *(f"loss/{name}" for name in terms.parts))
        loss_P = torch.stack([terms.total.detach(), *(v.detach() for v in terms.parts.values())])
        self._steps.append(_Step(loss_P, found, used_BK, type_BK, about_BK))
        if len(self._steps) == KEPT_STEPS:
            self._sum_up()

    def add_known(self, name: str, total: float, count: float) -> None:
        """Add a value on the host; names must be the same on every rank."""
        before = self._on_host.get(name, Sum(0.0, 0.0))
        self._on_host[name] = Sum(before.total + total, before.of + count)

    def over_ranks(self, device: torch.device) -> dict[str, Sum]:
        """Return the sums of all ranks and reset. A collective that waits for the device.

        Args:
            device: The device of losses.
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
        """Add the kept steps to the sums and counts [N, 2], in the order of ``_names``."""
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
    """For each number, its hard negatives that are correct and all of them, [numbers, 2]."""
    number_S = torch.arange(numbers, device=number_RK.device)
    is_number_RKS = used_RK[..., None] & (number_RK[..., None] == number_S)
    right_S = (is_number_RKS & right_RK[..., None]).sum(dim=(0, 1))
    return torch.stack([right_S, is_number_RKS.sum(dim=(0, 1))], dim=1).double()


def _rows(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts).double()
