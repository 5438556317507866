"""Shards as a torch data set.

B samples, K hard-negative slots, images of R pixels.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import Dataset

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.images import CorruptImage, read_rgb
from hnc_ds.records import CaptionGroup
from hnc_ds.shards.negatives import draw_negatives, kind_factors, type_weights
from hnc_ds.shards.order import Visit
from hnc_ds.shards.reader import ShardReader

EMPTY = ""
"""Stands for a hard negative in an empty slot."""


class Sample(NamedTuple):
    """An image with one of its captions."""

    image: Any
    """A PIL image, or what ``preprocess`` made of it."""
    caption: str
    negatives: tuple[str, ...]
    """Hard negatives of the caption, as many as there are slots; '' for an empty one."""
    key: str
    """Key of the image in the shards."""


class Samples(NamedTuple):
    """A batch."""

    image: Any
    """A tensor [B, 3, R, R], or a list of PIL images."""
    caption: list[str]
    negatives: list[str]
    """B * K captions, those of a sample together."""
    used: torch.Tensor
    """bool [B, K]: False for an empty slot."""
    key: list[str]


class Shards(Dataset[Sample]):
    """The images of shards in their order, each with a caption and hard negatives.

    They are drawn by (seed, epoch, image), as by a training with that seed. The images of a
    training are also shuffled and cropped.

    Args:
        folder: Output of ``hnc-ds pack``: a folder or a URL.
        preprocess: Function of a PIL image, such as that of ``hnc_ds.load``; by default images stay
            as they are.
        hard_negatives: Slots of a sample (K).
        negative_types: Relative frequency of each negative type; by default all are drawn equally
            often.
        seed: Seed for the draws.

    Raises:
        UserError: There are no shards, they lack a type, or a value is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        preprocess: Callable[[Image.Image], Any] | None = None,
        *,
        hard_negatives: int = DataConfig.hard_negatives,
        negative_types: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        data = DataConfig(hard_negatives=hard_negatives, negative_types=negative_types or {})
        self.reader = ShardReader(folder)
        self._weights = type_weights(data, sorted(self.reader.index.negatives), folder)
        abouts, slots = self.reader.index.about, hard_negatives or DataConfig.hard_negatives
        self._factors = kind_factors(abouts, self._weights, data.most_of_one, slots)
        self._data, self._preprocess, self._seed = data, preprocess, seed
        self._epoch = 0

    def __len__(self) -> int:
        """Number of images."""
        return len(self.reader)

    def __getitem__(self, number: int) -> Sample:
        """An image and the captions that this epoch draws.

        Raises:
            IndexError: There is no such image.
            UserError: The image or its captions are damaged.
        """
        rng = random.Random(Visit(self._epoch, number).key(self._seed))
        group, negatives = draw_negatives(
            self.groups(number),
            self._weights,
            self._data.hard_negatives,
            rng,
            self._data.open_world_weight,
            self._factors,
        )
        captions = [negative.caption for negative in negatives]
        empty = [EMPTY] * (self._data.hard_negatives - len(captions))
        image = self._image(number)
        image = image if self._preprocess is None else self._preprocess(image)
        return Sample(image, group.positive, (*captions, *empty), self.reader.key(number))

    def set_epoch(self, epoch: int) -> None:
        """Draw other captions. Call it before iterating a DataLoader; workers that persist do not
        see it."""
        self._epoch = epoch

    def groups(self, number: int) -> tuple[CaptionGroup, ...]:
        """All true captions of an image with their hard negatives. Raises as ``[]``."""
        return self.reader.sample(number).groups

    def _image(self, number: int) -> Image.Image:
        try:
            return read_rgb(self.reader.image_bytes(number))
        except CorruptImage as error:
            where = self.reader.where(number)
            raise UserError(
                f"{where}: cannot be decoded ({error}); pack the shards again"
            ) from error

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Samples:
        """A batch, as ``collate_fn`` of a DataLoader; torch's own lists negatives by slot."""
        images = [sample.image for sample in samples]
        are_tensors = all(isinstance(image, torch.Tensor) for image in images)
        return Samples(
            torch.stack(images) if are_tensors else images,
            [sample.caption for sample in samples],
            [negative for sample in samples for negative in sample.negatives],
            torch.tensor([[n != EMPTY for n in sample.negatives] for sample in samples]).bool(),
            [sample.key for sample in samples],
        )
