"""Batches of questions: grouped, read and packed.

The questions about an image share a row of Q slots of L tokens, each padded on its left;
images with fewer questions have empty slots. Questions of a row see their image and themselves, not
each other (decoding.py).

I images, Q slots of a row, L tokens of the longest question, N = Q * L, R pixels of a side.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset

from hnc_ds.evaluation.released.images import image_file
from hnc_ds.images import CorruptImage
from hnc_ds.llava.model import ImageView, Llava, split_prompt
from hnc_ds.llava.questions import VqaQuestion
from hnc_ds.worker_processes import FORK, identity

BUCKET = 16
"""Characters: lengths in one bucket count as equal."""

MAX_IMAGES = 32
"""Per batch: more take memory without a gain in speed, as an image has hundreds of tokens."""

PADDING = 0
"""Token id in front of a question; masked, so any id will do."""


def batches(asked: Sequence[VqaQuestion], size: int) -> list[list[VqaQuestion]]:
    """Batches that keep the questions of an image together.

    Images of a batch have about the same number of questions, of about the same length, as every
    image is padded to the most questions and every question to the longest. Depends on nothing
    but the arguments, so that every process computes the same batches.

    Args:
        asked: All questions, answered ones included.
        size: Maximum number of slots of a batch.
    """
    found: list[list[VqaQuestion]] = []
    images = 0  # of the last batch
    for own in sorted(_of_one_image(asked, size), key=_shape):
        images += 1
        if not found or images * len(own) > size or images > MAX_IMAGES:
            found.append([])
            images = 1
        found[-1] += own
    return found


def _of_one_image(asked: Sequence[VqaQuestion], most: int) -> list[list[VqaQuestion]]:
    of_image: dict[str, list[VqaQuestion]] = {}
    for question in asked:
        of_image.setdefault(question.image, []).append(question)
    return [
        own[start : start + most] for own in of_image.values() for start in range(0, len(own), most)
    ]


def _shape(own: Sequence[VqaQuestion]) -> tuple[int, int]:
    """Sort key. Lengths rise and fall in turn, so that neighbours of different counts are of
    similar length."""
    length = max(len(question.text) for question in own) // BUCKET
    return len(own), length if len(own) % 2 else -length


class Packed(NamedTuple):
    """Images and their questions on the host, in pinned memory for a GPU."""

    pixels_I3RR: torch.Tensor
    """float32, or the model's dtype."""
    ids_IN: torch.Tensor
    """int64."""
    used_IQ: torch.Tensor
    """int64: tokens of each question; 0 for an empty slot."""

    @property
    def length(self) -> int:
        """L."""
        return self.ids_IN.shape[1] // self.used_IQ.shape[1]

    def halves(self) -> tuple["Packed", "Packed"]:
        """Two batches, split by images, or by slots where there is a single image."""
        images, slots = self.used_IQ.shape
        if images * slots == 1:
            raise ValueError("one question has no halves")
        if images > 1:
            half = images // 2
            return Packed(*(t[:half] for t in self)), Packed(*(t[half:] for t in self))
        half = slots // 2
        ids_1QL = self.ids_IN.unflatten(1, (slots, self.length))
        return (
            Packed(self.pixels_I3RR, ids_1QL[:, :half].flatten(1), self.used_IQ[:, :half]),
            Packed(self.pixels_I3RR, ids_1QL[:, half:].flatten(1), self.used_IQ[:, half:]),
        )


def slots_of(image_of: Sequence[int]) -> list[tuple[int, int]]:
    """Row and slot of every question, given the index of its image."""
    taken: dict[int, int] = {}
    found = []
    for image in image_of:
        found.append((image, taken.get(image, 0)))
        taken[image] = found[-1][1] + 1
    return found


def pack(
    pixels_I3RR: torch.Tensor, image_of: Sequence[int], questions: Sequence[Sequence[int]]
) -> Packed:
    """Put questions into rows and slots.

    Args:
        pixels_I3RR: Stacked results of ``llava.view``.
        image_of: Index of each question's image.
        questions: Each question's token ids after the image.
    """
    placed = slots_of(image_of)
    images, slots = len(pixels_I3RR), 1 + max(slot for _, slot in placed)
    length = max(map(len, questions))
    ids_IQL = torch.full((images, slots, length), PADDING, dtype=torch.int64)
    used_IQ = torch.zeros(images, slots, dtype=torch.int64)
    for (row, slot), ids in zip(placed, questions, strict=True):
        ids_IQL[row, slot, length - len(ids) :] = torch.tensor(ids)
        used_IQ[row, slot] = len(ids)
    return Packed(pixels_I3RR, ids_IQL.flatten(1), used_IQ)


class Batch(NamedTuple):
    """A batch for the model."""

    packed: Packed | None
    """The questions whose image can be read, in order; None without any."""
    unreadable: list[tuple[str, str]]
    """Images that cannot be read, with reasons."""


def read_batches(
    llava: Llava,
    folder: Path,
    todo: Sequence[Sequence[VqaQuestion]],
    workers: int,
    close_in_worker: Callable[[int], None],
) -> Iterator[Batch]:
    """Read, tokenize and pack batches ahead of the model, in order.

    Args:
        llava: Supplies tokenizer, preprocessing and dtype.
        folder: Folder of the images.
        todo: The batches.
        workers: Worker processes; 0 reads in this process.
        close_in_worker: worker_init_fn.
    """
    workers = min(workers, len(todo))
    loader = DataLoader(
        _Batches(llava.tokenizer, llava.view, llava.model.dtype, folder, todo),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=FORK if workers else None,
        collate_fn=identity,
        pin_memory=llava.device.type == "cuda",
        worker_init_fn=close_in_worker,
    )
    return cast(Iterator[Batch], iter(loader))


def images(batch: Sequence[VqaQuestion]) -> list[str]:
    """File names of the images, each once, in the order of the questions."""
    return list(dict.fromkeys(question.image for question in batch))


class _Batches(Dataset[Batch]):
    def __init__(
        self,
        tokenizer: Any,
        view: ImageView,
        dtype: torch.dtype,
        folder: Path,
        todo: Sequence[Sequence[VqaQuestion]],
    ) -> None:
        self._tokenizer, self._view, self._dtype = tokenizer, view, dtype
        self._folder, self._todo = folder, todo

    def __len__(self) -> int:
        return len(self._todo)

    def __getitem__(self, number: int) -> Batch:
        batch = self._todo[number]
        pixels: dict[str, torch.Tensor] = {}
        unreadable = []
        for name in images(batch):
            try:
                held_in = image_file(name)
                path, inside = self._folder / (held_in or name), name if held_in else None
                pixels[name] = self._view(path, inside).to(self._dtype)
            except CorruptImage as error:
                unreadable.append((name, str(error)))
        asked = [question for question in batch if question.image in pixels]
        if not asked:
            return Batch(None, unreadable)
        names = list(pixels)
        ids = [split_prompt(self._tokenizer, question.text)[1] for question in asked]
        image_of = [names.index(question.image) for question in asked]
        return Batch(pack(torch.stack([*pixels.values()]), image_of, ids), unreadable)
