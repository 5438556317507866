"""Batches read ahead: each is read in parts by several processes, and joined by a thread.

A part is some rows of a batch. So the first batch takes no longer than its rows by all workers
need, and what waits in shared memory is bounded in bytes, whatever a batch is in size. Parts only
say where the work is done: a batch is the same for any number of workers and any size of parts.
"""

import atexit
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from hnc_ds.config.cores import ranks_here, readers
from hnc_ds.errors import UserError
from hnc_ds.shards.loader import EMPTY, Batch, TrainingData
from hnc_ds.shards.on_device import DeviceDecoder, Encoded
from hnc_ds.worker_processes import FORK

T = TypeVar("T")

PART_ROWS = 128
"""Most rows of a part: 0.15 s of a core, beside which the costs of a part itself are nothing."""

PARTS_AHEAD = 2
"""That each worker has finished or under way: the least that lets none of them wait."""

JOINED_AHEAD = 2
"""Batches that wait until they are asked for."""

SHARED_MEMORY = Path("/dev/shm")
SHARE = 0.5
"""Of what is free there, for parts of all ranks of this node."""

TO_END_SECONDS = 10.0
"""For the thread, which may be waiting for a worker."""


class Part(NamedTuple):
    """Rows of a batch on their way from a worker. What is small comes through a pipe; only the
    images lie in shared memory, as each tensor there costs a file."""

    images: torch.Tensor | Encoded
    """uint8 [rows, 3, R, R], or what the device makes that of."""
    others: dict[str, Any]
    """The other fields of a Batch, tensors as arrays."""


def batches(
    data: TrainingData, steps: range, workers: int | None, pin: bool
) -> Iterator[Batch | UserError]:
    """The batches of the steps, in order, read ahead by worker processes.

    Args:
        data: Of this rank.
        steps: Which.
        workers: Processes; 0 reads in this one, None is as ``readers`` has it.
        pin: Page-locked memory, for copies to an accelerator.
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
        collate_fn=_as_it_is,
        prefetch_factor=PARTS_AHEAD,
        multiprocessing_context=FORK,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    # Here, as a process with threads had better not be forked.
    found = cast("Iterator[Part | UserError]", iter(loader))
    # The zip ends with the parts, and takes no more.
    all_joined = (joined(zip(parts, found, strict=False)) for _ in steps)
    return ahead(all_joined, JOINED_AHEAD, pin)


def part_rows(image_bytes: int, workers: int, room: float) -> int:
    """Rows of a part.

    Args:
        image_bytes: Of an image.
        workers: Processes.
        room: Bytes of shared memory that parts of this rank may take; one more part than workers
            have is being joined.
    """
    most = room / ((workers * PARTS_AHEAD + 1) * image_bytes)
    return max(1, int(min(PART_ROWS, most)))


def ahead(produced: Iterator[T], count: int, on_device: bool = False) -> Iterator[T]:
    """What another iterator yields, which a thread asks for before it is needed.

    Args:
        produced: Is only used by the thread from now on.
        count: Most that wait.
        on_device: Whether the thread works with the accelerator of this one.
    """
    module: Any = torch.get_device_module() if on_device else None
    index = module.current_device() if on_device else None
    room, found, over = threading.Semaphore(count), SimpleQueue[Any](), threading.Event()

    def work() -> None:
        try:
            if on_device:
                module.set_device(index)  # else it would be the first one, of another rank
            while room.acquire() and not over.is_set():
                found.put((next(produced, found), None))  # the queue itself stands for the end
        except BaseException as error:  # raised where it is waited for
            found.put((found, error))

    def end() -> None:
        over.set()
        room.release()
        if threading.current_thread() is not thread:  # which may collect garbage
            thread.join(TO_END_SECONDS)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    atexit.register(end)  # a thread of torch must not run while Python ends

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
    """The parts of the batches, for workers."""

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
    """Joins the parts of a batch. With numpy, as torch's operations would start threads of their
    own in every thread that uses them.

    Args:
        data: Of this rank.
        pin: Page-locked memory.
    """

    def __init__(self, data: TrainingData, pin: bool) -> None:
        self._rows, self._padding, self._pin = data.rows, data.padding, pin
        self._decoder: DeviceDecoder | None = None
        if data.on_device:
            device = torch.accelerator.current_accelerator() if pin else None
            self._decoder = DeviceDecoder(data.image_settings, device or torch.device("cpu"))

    def __call__(self, parts: Iterable[tuple[range, Part | UserError]]) -> Batch | UserError:
        """A batch of its parts, in order; the first problem, if one of them has any."""
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
        """Add a part: on the device one after the other, else into a tensor of the whole batch."""
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
    """The fields of a Batch, but for its images, of those of its parts, as arrays: every caption
    once, in the order in which a batch that is read at once has it.

    Args:
        parts: In the order of their rows.
        padding: The token behind captions.
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
        for name in ("positive_B", "negative_BK", "unrelated_BM")
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
    """Which of the parts' captions stay, in the order in which rows refer to them first, and the
    row of each caption among those.

    Args:
        rows: References to the parts' captions, S in all: positives, then negatives, then others.
        number_S: Of the captions, by which equal ones are found.
    """
    used = np.concatenate([row.ravel() for row in rows.values()])
    used = used[used != EMPTY]
    number_T, first_T = np.unique(number_S[used], return_index=True)
    order_T = np.argsort(first_T)
    place_T = np.empty_like(order_T)
    place_T[order_T] = np.arange(len(order_T))
    return used[first_T[order_T]], place_T[np.searchsorted(number_T, number_S)]


def _padded(tokens: Sequence[NDArray[np.int64]], padding: int) -> NDArray[np.int64]:
    """All rows, as long as the longest."""
    length = max(token_TL.shape[1] for token_TL in tokens)
    return np.concatenate(
        [
            np.pad(token_TL, ((0, 0), (0, length - token_TL.shape[1])), constant_values=padding)
            for token_TL in tokens
        ]
    )


def _free_memory() -> float:
    """Bytes of shared memory for parts of this rank."""
    if not SHARED_MEMORY.is_dir():
        return float("inf")
    return SHARE * shutil.disk_usage(SHARED_MEMORY).free / ranks_here()


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _pinned(batch: Batch, pin: bool) -> Batch:
    """With its tensors in page-locked memory, where that is wanted."""
    if not pin:
        return batch
    tensors: dict[str, Any] = {
        name: value.pin_memory()
        for name, value in batch._asdict().items()
        if isinstance(value, torch.Tensor) and value.device.type == "cpu"
    }
    return batch._replace(**tensors)


def _as_it_is(part: Any) -> Any:
    return part
