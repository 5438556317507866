"""Prefetching: batches are read in parts by several processes, joined, and copied to the device.

A part is some rows of a batch. So all workers share the first batch, and shared memory is bounded
in bytes for batches of any size. A thread joins the parts. A batch is the same for any number of
workers and size of parts.

While a step is computed, the batch of the step after the next is loaded, prepared on the host, and
copied on a separate stream. A step never waits for a copy, and the loader's time matters only when
the device has run out of work.
"""

import atexit
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from hnc_ds.errors import UserError
from hnc_ds.launch import ranks_here, readers
from hnc_ds.shards.images import DeviceDecoder, Encoded
from hnc_ds.shards.loader import EMPTY, Batch, TrainingData
from hnc_ds.worker_processes import FORK, identity

T = TypeVar("T")

PART_ROWS = 128
"""Maximum rows of a part: 0.15 s of a core, so that the overhead of a part is negligible."""

PARTS_AHEAD = 2
"""Prefetch factor: parts per worker that are finished or in progress; with 2 no worker idles."""

JOINED_AHEAD = 2
"""Joined batches that are kept ready."""

SHARED_MEMORY = Path("/dev/shm")
SHARE = 0.5
"""Share of the free shared memory that parts of all ranks of this node may take."""

TO_END_SECONDS = 10.0
"""Timeout for joining the thread, which may be waiting for a worker."""


class Part(NamedTuple):
    """Rows of a batch from a worker. Only the images are in shared memory, as each tensor there
    takes a file; the rest comes through a pipe."""

    images: torch.Tensor | Encoded
    """uint8 [rows, 3, R, R], or JPEGs that the device decodes."""
    others: dict[str, Any]
    """The other fields of a Batch, tensors as arrays."""


def batches(
    data: TrainingData, steps: range, workers: int | None, pin: bool
) -> Iterator[Batch | UserError]:
    """The batches of the steps, in order, read ahead by worker processes.

    Args:
        data: This rank's data.
        steps: The steps to read.
        workers: Worker processes; 0 reads in this process, None means ``readers()``.
        pin: Put batches in pinned memory, for copies to an accelerator.
    """
    workers = readers(pin) if workers is None else workers
    joined = _Join(data, pin)
    if not workers:
        own, whole = _Parts(data), range(data.rows)
        return (joined([(whole, own[step, whole])]) for step in steps)
    rows = part_rows(data.image_bytes, workers, _free_memory())
    parts = [range(at, min(at + rows, data.rows)) for at in range(0, data.rows, rows)]
    loader = DataLoader(
        _Parts(data),
        batch_size=None,
        sampler=((step, part) for step in steps for part in parts),
        num_workers=workers,
        collate_fn=identity,
        prefetch_factor=PARTS_AHEAD,
        multiprocessing_context=FORK,
        generator=torch.Generator(),  # the default would advance the global generator
    )
    # Workers are forked here, before this process starts the thread.
    found = cast("Iterator[Part | UserError]", iter(loader))
    # Each zip ends after one batch's parts.
    all_joined = (joined(zip(parts, found, strict=False)) for _ in steps)
    return ahead(all_joined, JOINED_AHEAD, pin)


def part_rows(image_bytes: int, workers: int, room: float) -> int:
    """Rows of a part.

    Args:
        image_bytes: Bytes of an image.
        workers: Worker processes.
        room: Bytes of shared memory that parts of this rank may take, the part that is being
            joined included.
    """
    most = room / ((workers * PARTS_AHEAD + 1) * image_bytes)
    return max(1, int(min(PART_ROWS, most)))


def ahead(produced: Iterator[T], count: int, on_device: bool = False) -> Iterator[T]:
    """The items of an iterator, produced by a thread ahead of their use.

    Args:
        produced: The iterator; only the thread may use it from now on.
        count: Maximum number of waiting items.
        on_device: Whether the thread uses this thread's accelerator.
    """
    module: Any = torch.get_device_module() if on_device else None
    index = module.current_device() if on_device else None
    room, found, over = threading.Semaphore(count), SimpleQueue[Any](), threading.Event()

    def work() -> None:
        try:
            if on_device:
                module.set_device(index)  # a new thread starts with device 0, another rank's
            while room.acquire() and not over.is_set():
                found.put((next(produced, found), None))  # the queue itself marks the end
        except BaseException as error:  # re-raised by the consumer
            found.put((found, error))

    def end() -> None:
        over.set()
        room.release()
        if threading.current_thread() is not thread:  # garbage collection may run this in it
            thread.join(TO_END_SECONDS)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    atexit.register(end)  # a thread that uses torch must not run while Python exits

    def handed_over() -> Iterator[T]:
        try:
            while True:
                item, error = found.get()
                if error is not None:
                    raise error
                if item is found:
                    return
                room.release()
                yield item
        finally:
            atexit.unregister(end)
            end()

    return handed_over()


class _Parts(Dataset["Part | UserError"]):
    """The parts of the batches, for DataLoader's workers."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __getitem__(self, place: tuple[int, range]) -> Part | UserError:
        try:
            batch, jpegs = self._data.drawn(*place)
        except UserError as error:
            return error
        others = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in batch._asdict().items()
            if name != "images_B3RR"
        }
        return Part(batch.images_B3RR if jpegs is None else jpegs, others)


class _Join:
    """Joins the parts of a batch. Uses numpy, as torch would start a thread pool in this thread.

    Args:
        data: This rank's data.
        pin: Put batches in pinned memory.
    """

    def __init__(self, data: TrainingData, pin: bool) -> None:
        self._rows, self._padding, self._pin = data.rows, data.padding, pin
        self._decoder: DeviceDecoder | None = None
        if data.on_device:
            device = torch.accelerator.current_accelerator() if pin else None
            self._decoder = DeviceDecoder(data.image_settings, device or torch.device("cpu"))

    def __call__(self, parts: Iterable[tuple[range, Part | UserError]]) -> Batch | UserError:
        """The batch of its parts, which come in order; the first error, if there is one."""
        images, others = list[torch.Tensor](), list[dict[str, Any]]()
        problems = list[UserError]()
        for place, part in parts:
            if isinstance(part, UserError):
                problems.append(part)
                continue
            try:
                self._put(images, place, part.images)
            except UserError as error:
                problems.append(error)
            others.append(part.others)
        if problems:
            return problems[0]
        images_B3RR = self._decoder.joined(images) if self._decoder else images[0]
        joined = {name: _tensor(value) for name, value in join(others, self._padding).items()}
        return _pinned(Batch(images_B3RR=images_B3RR, **joined), self._pin)

    def _put(self, images: list[torch.Tensor], place: range, part: torch.Tensor | Encoded) -> None:
        """Add a part: decoded on the device, or copied into a tensor of the whole batch."""
        if self._decoder and isinstance(part, Encoded):
            images.append(self._decoder.part(part))
        elif isinstance(part, torch.Tensor):
            if len(place) == self._rows and not self._pin:
                images.append(part)
                return
            if not images:
                shape = (self._rows, *part.shape[1:])
                images.append(torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin))
            images[0].numpy()[place.start : place.stop] = part.numpy()


def join(parts: Sequence[Mapping[str, Any]], padding: int) -> dict[str, Any]:
    """Fields of a Batch, without images, from those of its parts, as arrays. Every caption occurs
    once, in the same order as in a batch that is read whole.

    Args:
        parts: Fields of the parts, in the order of their rows.
        padding: Id of the padding token.
    """
    if len(parts) == 1:
        return dict(parts[0])
    starts = np.cumsum([0, *(len(part["text_index_T"]) for part in parts[:-1])])
    rows = {
        name: np.concatenate(
            [
                np.where(part[name] == EMPTY, EMPTY, part[name] + start)
                for part, start in zip(parts, starts, strict=True)
            ]
        )
        for name in ("positive_B", "negative_BK", "unrelated_BM", "further_BP")
        if parts[0].get(name) is not None
    }
    kept_T, row_S = _distinct(rows, np.concatenate([part["text_index_T"] for part in parts]))
    joined: dict[str, Any] = {
        name: np.where(row == EMPTY, EMPTY, row_S[row]) for name, row in rows.items()
    }
    for name, value in parts[0].items():
        of_parts = [part[name] for part in parts]
        if name == "token_TL":
            joined[name] = _padded(of_parts, padding)[kept_T]
        elif name.endswith("_T"):
            joined[name] = np.concatenate(of_parts)[kept_T]
        elif name == "corrupt":
            joined[name] = tuple(chain.from_iterable(of_parts))
        elif isinstance(value, np.ndarray) and name not in joined:
            joined[name] = np.concatenate(of_parts)
    return joined


def _distinct(
    rows: Mapping[str, NDArray[np.int64]], number_S: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the distinct captions, in the order of their first reference, and the new row of
    each caption.

    Args:
        rows: References to the parts' S captions: positives, then negatives, then unrelated ones,
            then further positives.
        number_S: Each caption's ``text_number``.
    """
    used = np.concatenate([row.ravel() for row in rows.values()])
    used = used[used != EMPTY]
    number_T, first_T = np.unique(number_S[used], return_index=True)
    order_T = np.argsort(first_T)
    place_T = np.empty_like(order_T)
    place_T[order_T] = np.arange(len(order_T))
    return used[first_T[order_T]], place_T[np.searchsorted(number_T, number_S)]


def _padded(tokens: Sequence[NDArray[np.int64]], padding: int) -> NDArray[np.int64]:
    """All rows, padded to the longest."""
    length = max(token_TL.shape[1] for token_TL in tokens)
    return np.concatenate(
        [
            np.pad(token_TL, ((0, 0), (0, length - token_TL.shape[1])), constant_values=padding)
            for token_TL in tokens
        ]
    )


def _free_memory() -> float:
    """Bytes of shared memory for this rank's parts."""
    if not SHARED_MEMORY.is_dir():
        return float("inf")
    return SHARE * shutil.disk_usage(SHARED_MEMORY).free / ranks_here()


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _pinned(batch: Batch, pin: bool) -> Batch:
    """The batch with its tensors in pinned memory, if ``pin``."""
    if not pin:
        return batch
    tensors: dict[str, Any] = {
        name: value.pin_memory()
        for name, value in batch._asdict().items()
        if isinstance(value, torch.Tensor) and value.device.type == "cpu"
    }
    return batch._replace(**tensors)


AHEAD = 2
"""Batches drawn before a step starts, besides its own. With one fewer, a rank without a batch could
report it (loop.py) only after the others have started the step."""


KEPT_PAIRS = 64
"""Most pairs of timing events kept between log lines."""


class Ready(NamedTuple):
    """A batch on its device."""

    batch: Batch
    alike_BK: torch.Tensor
    """``Batch.find_alike``, on the host."""
    copied: Any = None
    """The device's event after the copy; None if nothing was copied."""


class Feed:
    """The batches of a rank, in their order.

    Args:
        stream: Batches of the loader, or the error instead of one.
        device: Where batches are copied to.
        prepare: Applied to a step and its batch on the host.
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
        """Take a step's batch from the loader and start its copy. Returns whether there is one."""
        with self._lost.waiting():
            found = next(self._stream)
        if isinstance(found, UserError):
            self._drawn.append(found)
            return False
        batch = self._prepare(step, found)
        self._drawn.append(self._sent(Ready(batch, batch.find_alike())))
        return True

    def problem(self) -> str | None:
        """Why there is no batch for the step that starts now; None if there is one."""
        first = self._drawn[0] if self._drawn else None
        return str(first) if isinstance(first, UserError) else None

    def take(self) -> Ready:
        """The batch of the step that starts now. If its copy is not done, the device waits for it,
        not the host."""
        ready = self._drawn.popleft()
        if isinstance(ready, UserError):
            raise ready
        if ready.copied is not None:
            computes = self._module.current_stream(self._device)
            with self._lost.waiting():
                computes.wait_event(ready.copied)
            for part in ready.batch:
                if isinstance(part, torch.Tensor) and part.device.type != "cpu":
                    part.record_stream(computes)  # or its memory is reused too early
        return ready

    def lost(self) -> float:
        """Seconds since the last call in which the device was idle for lack of data; all steps so
        far must be done. On a CPU, seconds in which this process waited for the loader."""
        return self._lost.seconds()

    def _sent(self, ready: Ready) -> Ready:
        if self._copies is None:
            return ready._replace(batch=ready.batch.to(self._device))
        with self._module.stream(self._copies):
            batch, copied = ready.batch.to(self._device), self._module.Event()
            copied.record(self._copies)
        return ready._replace(batch=batch, copied=copied)


class HostTime:
    """Time in which this process waits."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the time of the block."""
        before = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - before

    def seconds(self) -> float:
        """Seconds since the last call."""
        found, self._seconds = self._seconds, 0.0
        return found


class DeviceTime:
    """Time in which a device is idle while this process waits.

    The device reaches the first of two events when it has done all earlier work, and the second
    immediately after if the wait was over by then. The time between them is idle time.

    Args:
        event: Event class of the device, such as torch.cuda.Event.
    """

    def __init__(self, event: Callable[..., Any]) -> None:
        self._event = event
        self._pairs: deque[tuple[Any, Any]] = deque()
        self._seconds = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the device's idle time in the block."""
        pair = self._event(enable_timing=True), self._event(enable_timing=True)
        pair[0].record()
        yield
        pair[1].record()
        self._pairs.append(pair)
        while len(self._pairs) > KEPT_PAIRS and self._pairs[0][1].query():
            self._count()

    def seconds(self) -> float:
        """Seconds since the last call. The device must have reached all events."""
        while self._pairs:
            self._count()
        found, self._seconds = self._seconds, 0.0
        return found

    def _count(self) -> None:
        first, second = self._pairs.popleft()
        self._seconds += first.elapsed_time(second) / 1e3
