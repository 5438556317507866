"""Batches that are on the device before they are needed.

While a step is computed, the batch of the step after the next comes from the loader, what only
needs the host is done to it, and its copy begins on a stream of its own. So a step never waits for
a copy, and how long the loader takes only matters when the device has run out of work.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from hnc_ds.errors import UserError
from hnc_ds.shards.loader import Batch

AHEAD = 2
"""Batches drawn before a step begins, besides its own: one fewer, and a rank that has no batch
could only report it (reports.py) when the others have begun the step."""


KEPT_PAIRS = 64
"""Pairs of events that are kept, if lines of the log are far apart."""


class Ready(NamedTuple):
    """A batch on its device."""

    batch: Batch
    alike_BK: torch.Tensor
    """``Batch.find_alike``, on the host."""
    copied: Any = None
    """An event of the device; None where nothing was copied."""


class Feed:
    """The batches of a rank, in their order.

    Args:
        stream: As they come from the loader.
        device: Where they are wanted.
        prepare: What is done to the batch of a step on the host.
    """

    def __init__(
        self,
        stream: Iterator[Batch | UserError],
        device: torch.device,
        prepare: Callable[[int, Batch], Batch],
    ) -> None:
        self._stream, self._device, self._prepare = stream, device, prepare
        self._drawn: deque[Ready | UserError] = deque()
        self._module: Any = None if device.type == "cpu" else torch.get_device_module(device)
        self._copies = None if self._module is None else self._module.Stream(device=device)
        self._lost = HostTime() if self._module is None else DeviceTime(self._module.Event)

    def draw(self, step: int) -> bool:
        """Take a step's batch from the loader and start its copy; whether there is one."""
        with self._lost.waiting():
            found = next(self._stream)
        if isinstance(found, UserError):
            self._drawn.append(found)
            return False
        batch = self._prepare(step, found)
        self._drawn.append(self._sent(Ready(batch, batch.find_alike())))
        return True

    def problem(self) -> str | None:
        """Why there is no batch for the step that begins."""
        first = self._drawn[0] if self._drawn else None
        return str(first) if isinstance(first, UserError) else None

    def take(self) -> Ready:
        """The batch of the step that begins. The host does not wait: the device does, where the
        copy is not done."""
        ready = self._drawn.popleft()
        if isinstance(ready, UserError):
            raise ready
        if ready.copied is not None:
            computes = self._module.current_stream(self._device)
            with self._lost.waiting():
                computes.wait_event(ready.copied)
            for part in ready.batch:
                if isinstance(part, torch.Tensor) and part.device.type != "cpu":
                    part.record_stream(computes)  # else its memory is the next copy's too soon
        return ready

    def lost(self) -> float:
        """Seconds that training stood still for data since this was last asked; all steps so far
        must be done. Without an accelerator, those in which this process waited for the loader."""
        return self._lost.seconds()

    def _sent(self, ready: Ready) -> Ready:
        if self._copies is None:
            return ready._replace(batch=ready.batch.to(self._device))
        with self._module.stream(self._copies):
            batch, copied = ready.batch.to(self._device), self._module.Event()
            copied.record(self._copies)
        return ready._replace(batch=batch, copied=copied)


class HostTime:
    """How long this process waited."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what is done within."""
        before = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - before

    def seconds(self) -> float:
        """Since last asked."""
        found, self._seconds = self._seconds, 0.0
        return found


class DeviceTime:
    """How long a device had nothing to do while this process waited.

    The device passes the first of two events when it has done all that it was given before, and the
    second one at once if the wait was over by then: what lies between is the time it stood still.

    Args:
        event: Makes one of the device's, such as torch.cuda.Event.
    """

    def __init__(self, event: Callable[..., Any]) -> None:
        self._event = event
        self._pairs: deque[tuple[Any, Any]] = deque()
        self._seconds = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what the device stands still within."""
        pair = self._event(enable_timing=True), self._event(enable_timing=True)
        pair[0].record()
        yield
        pair[1].record()
        self._pairs.append(pair)
        while len(self._pairs) > KEPT_PAIRS and self._pairs[0][1].query():
            self._count()

    def seconds(self) -> float:
        """Since last asked. The device must have passed all events."""
        while self._pairs:
            self._count()
        found, self._seconds = self._seconds, 0.0
        return found

    def _count(self) -> None:
        first, second = self._pairs.popleft()
        self._seconds += first.elapsed_time(second) / 1e3
