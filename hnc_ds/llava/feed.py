"""Batches read, tokenized and packed by worker processes, ahead of the model.

I images, R pixels of a side.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset

from hnc_ds.images import CorruptImage
from hnc_ds.llava.model import Llava, PictureView, split_prompt
from hnc_ds.llava.packing import Packed, pack
from hnc_ds.llava.questions import VqaQuestion
from hnc_ds.worker_processes import FORK


class Ready(NamedTuple):
    """A batch for the model."""

    packed: Packed | None
    """Of the questions whose image can be read, in their order; None where there is none."""
    unreadable: list[tuple[str, str]]
    """Images that cannot be read, each with the reason."""


def ready(
    llava: Llava,
    folder: Path,
    todo: Sequence[Sequence[VqaQuestion]],
    workers: int,
    leave_to_parent: Callable[[int], None],
) -> Iterator[Ready]:
    """The batches in their order.

    Args:
        llava: Its tokenizer and view of images are used, and the model's dtype.
        folder: Of the images.
        todo: The batches.
        workers: Processes; 0 reads in this one.
        leave_to_parent: What each does first, with its number.
    """
    workers = min(workers, len(todo))
    loader = DataLoader(
        _Batches(llava.tokenizer, llava.pictures, llava.model.dtype, folder, todo),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=FORK if workers else None,
        collate_fn=_as_is,
        pin_memory=llava.device.type == "cuda",
        worker_init_fn=leave_to_parent,
    )
    return cast(Iterator[Ready], iter(loader))


def images(batch: Sequence[VqaQuestion]) -> list[str]:
    """Each once, in the order of the questions."""
    return list(dict.fromkeys(question.image for question in batch))


class _Batches(Dataset[Ready]):
    def __init__(
        self,
        tokenizer: Any,
        view: PictureView,
        dtype: torch.dtype,
        folder: Path,
        todo: Sequence[Sequence[VqaQuestion]],
    ) -> None:
        self._tokenizer, self._view, self._dtype = tokenizer, view, dtype
        self._folder, self._todo = folder, todo

    def __len__(self) -> int:
        return len(self._todo)

    def __getitem__(self, number: int) -> Ready:
        batch = self._todo[number]
        pixels: dict[str, torch.Tensor] = {}
        unreadable = []
        for name in images(batch):
            try:
                pixels[name] = self._view(self._folder / name).to(self._dtype)
            except CorruptImage as error:
                unreadable.append((name, str(error)))
        asked = [question for question in batch if question.image in pixels]
        if not asked:
            return Ready(None, unreadable)
        names = list(pixels)
        ids = [split_prompt(self._tokenizer, question.text)[1] for question in asked]
        image_of = [names.index(question.image) for question in asked]
        return Ready(pack(torch.stack([*pixels.values()]), image_of, ids), unreadable)


def _as_is(batch: Any) -> Any:
    return batch
