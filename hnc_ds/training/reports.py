"""What ranks report to each other once a step, in one small message that no device waits for.

A message is sent when a step has been launched, and read when the next one has been, so that a
device always has work. What it reports of data is therefore of the batch after the next
(``AHEAD`` in feed.py): every rank knows that one of them has no batch before any of them begins
the step.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from hnc_ds.distributed import keep_largest


class Report(NamedTuple):
    """Of all ranks, equal on all of them."""

    step: int
    """After which it was sent, counted from 0."""
    wish: int
    """The largest wish to stop, see ``Stops.wish``; 0 where there is none."""
    has_problem: bool
    """Whether a rank has no batch for step ``step + AHEAD``."""
    is_finite: bool
    """Whether the loss of the step is finite."""
    is_sound: bool
    """Whether its gradient is."""


class _Sent(NamedTuple):
    step: int
    values: torch.Tensor
    """On the host, once they have arrived."""
    arrived: Any
    """An event of the device; None where nothing is under way."""


class Reports:
    """Messages of this rank and, as they are merged, of all.

    Args:
        device: Where losses lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sent: deque[_Sent] = deque()

    def send(
        self,
        step: int,
        wish: int,
        has_problem: bool,
        loss: torch.Tensor | None = None,
        unsound: torch.Tensor | None = None,
    ) -> None:
        """Send what this rank has to report after a step; all ranks do so, in the same order. Does
        not wait for the device.

        Args:
            step: Counted from 0.
            wish: To stop.
            has_problem: No batch for the step after the next.
            loss: One element; None is as a finite one.
            unsound: ``Engine.unsound``; None is as 0.
        """
        none = torch.zeros((), device=self._device)
        broken = none if loss is None else (~loss.detach().isfinite()).float().reshape(())
        values = torch.stack(
            [
                torch.full_like(none, wish),
                torch.full_like(none, has_problem),
                broken,
                none if unsound is None else unsound.reshape(()),
            ]
        )
        keep_largest(values)
        self._sent.append(_Sent(step, *self._to_host(values)))

    def read(self, until: int) -> Iterator[Report]:
        """Reports that were not read before, in their order. Waits until the device has done what
        they tell of.

        Args:
            until: The last step whose report is wanted.
        """
        while self._sent and self._sent[0].step <= until:
            step, values, arrived = self._sent.popleft()
            if arrived is not None:
                arrived.synchronize()
            wish, problem, broken, unsound = values.tolist()
            yield Report(step, int(wish), bool(problem), not broken, not unsound)

    def _to_host(self, values: torch.Tensor) -> tuple[torch.Tensor, Any]:
        if values.device.type == "cpu":
            return values, None
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.get_device_module(values.device).Event()
        arrived.record()
        return host, arrived
