"""Shards -> batches: drawn, decoded and tokenized, on any number of ranks.

A step's batch is a pure function of (seed, step, rank), whatever the number of workers. So a
resumed run continues with the same batches as an uninterrupted one.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import Dataset, default_collate

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.images import CorruptImage
from hnc_ds.records import Negative, TrainingSample
from hnc_ds.shards.folders import ShardFolders
from hnc_ds.shards.images import (
    Encoded,
    ImageSettings,
    Jpeg,
    as_jpeg,
    decode_image,
    encoded,
    training_box,
    training_view,
)
from hnc_ds.shards.negatives import draw_negatives, kind_factors, most_common, type_weights
from hnc_ds.shards.order import (
    MixedOrder,
    PairedOrder,
    PlainOrder,
    SampleOrder,
    Visit,
    epoch_positions,
    sample_order,
)
from hnc_ds.shards.remote import cache_of

Order = SampleOrder | PairedOrder | MixedOrder | PlainOrder

EMPTY = -1
"""Marks an unused slot, in place of a caption's row or a type's number."""

MOST_CORRUPT = 100
"""Neighbours to try in place of a corrupt image before an error is raised."""


class Tokenize(Protocol):
    """Interface of ``hnc_ds.model.text.Tokenizer``."""

    @property
    def padding(self) -> int:
        """Id of the padding token."""

    def __call__(self, captions: Sequence[str], /) -> torch.Tensor:
        """Token ids, int64 [T, L]."""

    def used_tokens(self, token_TL: torch.Tensor, /) -> torch.Tensor:
        """int64 [T]: tokens of each caption without padding."""


class CaptionMasks(NamedTuple):
    """Which masks a rank's batch needs in the loss."""

    pairs_repeat: bool
    """Whether an image or a positive caption occurs twice."""
    negatives_vary: bool
    """Whether a hard negative is an empty slot or a positive of some row."""


class Batch(NamedTuple):
    """One rank's rows of a step. Every distinct caption occurs once; rows refer to it by index."""

    images_B3RR: torch.Tensor
    """uint8; or [B, D], their embeddings by a frozen tower; or [B, 0] if they are not read."""
    token_TL: torch.Tensor
    """int64: the distinct captions, L tokens each."""
    positive_B: torch.Tensor
    """int64: rows of token_TL."""
    negative_BK: torch.Tensor
    """int64: rows of token_TL, or EMPTY."""
    negative_type_BK: torch.Tensor
    """int64: positions in TrainingData.negative_types, or EMPTY."""
    negative_about_BK: torch.Tensor
    """int64: positions in TrainingData.watched, or EMPTY."""
    unrelated_BM: torch.Tensor
    """int64: rows of token_TL, or EMPTY."""
    image_index_B: torch.Tensor
    """int64: numbers of the samples."""
    text_index_T: torch.Tensor
    """int64: hashes of the captions, equal on all ranks for equal captions."""
    used_T: torch.Tensor
    """int64: tokens of each caption without padding. Stays on the host, so that lengths are known
    without synchronizing with the device."""
    corrupt: tuple[str, ...]
    """Images that could not be decoded, as FOLDER/SHARD:KEY; neighbours replace them."""
    masks: CaptionMasks | None = None
    """Set by ``to``; computed on the host."""
    further_BP: torch.Tensor | None = None
    """int64: rows of token_TL, further positives of each image; None with one positive each."""

    def with_each_positive(self) -> "Iterator[Batch]":
        """Batches with one positive for each image: the first ones, the second ones, ..."""
        yield self._replace(further_BP=None)
        for positive_B in () if self.further_BP is None else self.further_BP.T:
            # To find out if masks are needed would wait for the device.
            always = CaptionMasks(True, True)
            yield self._replace(positive_B=positive_B, masks=always, further_BP=None)

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors, except ``used_T``, on a device.

        Asynchronous from pinned memory. ``find_alike`` and ``without_negatives`` need the batch on
        the host, before this.
        """
        masks = self._needed_masks() if self.positive_B.device.type == "cpu" else self.masks
        return self._replace(masks=masks, **self._moved(device))

    def _moved(self, device: torch.device) -> dict[str, Any]:
        return {
            name: part.to(device, non_blocking=True)
            for name, part in self._asdict().items()
            if isinstance(part, torch.Tensor) and name != "used_T"
        }

    @property
    def pair_numbers(self) -> torch.Tensor:
        """int64 [B, 2]: numbers of the images and of their positive captions, by which rows of all
        ranks are compared."""
        return torch.stack([self.image_index_B, self.text_index_T[self.positive_B]], dim=1)

    def _needed_masks(self) -> CaptionMasks:
        true_B = self.text_index_T[self.positive_B]
        empty_BK = self.negative_BK == EMPTY
        number_BK = self.text_index_T[self.negative_BK.clamp(min=0)]
        return CaptionMasks(
            any(
                len(column_B.unique()) < len(column_B) for column_B in (self.image_index_B, true_B)
            ),
            bool((empty_BK | torch.isin(number_BK, true_B)).any()),
        )

    def find_alike(self) -> torch.Tensor:
        """Hard negatives with the same tokens as their positive, after truncation or by the
        tokenizer's normalization; bool [B, K]. On the host."""
        positive_BL = self.token_TL[self.positive_B]
        negative_BKL = self.token_TL[self.negative_BK.clamp(min=0)]
        same_BK = (negative_BKL == positive_BL[:, None]).all(dim=2)
        return same_BK & (self.negative_BK != EMPTY)

    def without_negatives(self) -> "Batch":
        """The batch with empty hard-negative slots, without captions that only they use. On the
        host, as shapes depend on the number of captions."""
        further_BP = self.unrelated_BM[:, :0] if self.further_BP is None else self.further_BP
        parts = self.positive_B, self.unrelated_BM.flatten(), further_BP.flatten()
        used, rows = torch.unique(torch.cat(parts), return_inverse=True)
        empty = int(used[0] == EMPTY)  # sorted, so that it comes first
        positive_B, unrelated, further = (rows - empty).split([len(part) for part in parts])
        return self._replace(
            token_TL=self.token_TL[used[empty:]],
            text_index_T=self.text_index_T[used[empty:]],
            used_T=self.used_T[used[empty:]],
            positive_B=positive_B,
            unrelated_BM=unrelated.view_as(self.unrelated_BM),
            further_BP=None if self.further_BP is None else further.view_as(further_BP),
            negative_BK=torch.full_like(self.negative_BK, EMPTY),
            negative_type_BK=torch.full_like(self.negative_type_BK, EMPTY),
            negative_about_BK=torch.full_like(self.negative_about_BK, EMPTY),
        )


@dataclass(frozen=True)
class Draw:
    """Image and captions of one visit."""

    sample: int
    positive: str
    negatives: tuple[Negative, ...]
    unrelated: tuple[str, ...]
    image: torch.Tensor | Jpeg
    """uint8 [3, R, R], or a JPEG that the device decodes."""
    further: tuple[str, ...]
    """Further positives."""


class TrainingData(Dataset["Batch | UserError"]):
    """The batches of one rank, by step.

    A UserError while reading is returned, not raised, so that all ranks can stop together.

    Args:
        location: Shards of ``hnc-ds pack``: a folder or a URL, or several.
        data: Settings of the draw.
        seed: Seed for sample order and sampling.
        batch: Rows of all ranks (N).
        rows: This rank's rows of a step.
        image_settings: The model's preprocessing.
        tokenize: The model's tokenizer.

    Raises:
        UserError: As ``ShardFolders``, ``sample_order``; the shards lack a negative type.
    """

    def __init__(
        self,
        location: Path | str | tuple[Path | str, ...],
        data: DataConfig,
        seed: int,
        batch: int,
        rows: range,
        image_settings: ImageSettings,
        tokenize: Tokenize,
    ) -> None:
        locations = location if isinstance(location, tuple) else (location,)
        self.reader = ShardFolders(locations, cache_of(data.cache, data.cache_gb))
        self.negative_types = self.reader.negative_types
        self._type_numbers = {name: number for number, name in enumerate(self.negative_types)}
        self._type_weights = type_weights(data, self.negative_types, *locations)
        abouts = self.reader.about
        self.watched = most_common(abouts, self._type_weights)
        self._watched_numbers = {about: number for number, about in enumerate(self.watched)}
        # A run without negatives draws the same captions as one with the default number.
        slots = data.hard_negatives or DataConfig.hard_negatives
        self._factors = kind_factors(
            abouts, self._type_weights, data.most_of_one, slots, data.share_with_negatives
        )
        self._order: Order = sample_order(self.reader.readers, data, seed)
        self._data, self._seed, self._batch, self._rows = data, seed, batch, rows
        self.image_settings, self._tokenize = image_settings, tokenize
        self._ahead: list[int] = []
        self._unreadable: frozenset[int] | None = None

    def in_order(self) -> "TrainingData":
        """All images in the order of the shards, again and again, without hard negatives."""
        found = copy(self)
        found._order = PlainOrder(self.reader.shard_sizes)
        found._data = replace(self._data, hard_negatives=0, unrelated_negatives=0, positives=1)
        return found

    def without_images(self, unreadable: frozenset[int]) -> "TrainingData":
        """The same batches, with images that are not read.

        Args:
            unreadable: Numbers of the images that cannot be decoded.
        """
        found = copy(self)
        found._unreadable = unreadable
        return found

    def __getitem__(self, step: int) -> "Batch | UserError":
        try:
            return self.batch(step)
        except UserError as error:
            return error

    def batch(self, step: int, part: range | None = None) -> Batch:
        """``drawn`` without encoded images."""
        return self.drawn(step, part)[0]

    def drawn(self, step: int, part: range | None = None) -> tuple[Batch, Encoded | None]:
        """This rank's rows of a step; with --decode gpu, images are encoded and separate.

        Args:
            step: The step, counted from 0.
            part: A range of this rank's rows; all by default.

        Raises:
            UserError: Shards are damaged, or too many images in a row are corrupt.
        """
        rows = self._rows if part is None else self._rows[part.start : part.stop]
        first = step * self._batch + rows.start
        self._fetch_ahead(first)
        corrupt: list[str] = []
        draws = [
            self._draw(first + row, visit, corrupt)
            for row, visit in enumerate(self._order.visits(first, len(rows)))
        ]
        images = [draw.image for draw in draws]
        if self.on_device:
            size = self.image_settings.size
            empty = torch.empty((0, 3, size, size), dtype=torch.uint8)
            return self._collate(draws, empty, tuple(corrupt)), encoded(images, size)
        # In a worker, default_collate stacks them in shared memory.
        return self._collate(draws, default_collate(images), tuple(corrupt)), None

    @property
    def on_device(self) -> bool:
        """Whether the device decodes images."""
        return self._unreadable is None and self._data.decode == "gpu"

    @property
    def epoch(self) -> int:
        """Rows of all ranks in one epoch."""
        return epoch_positions(len(self.reader), self._data)

    @property
    def rows(self) -> int:
        """This rank's rows of a batch."""
        return len(self._rows)

    @property
    def image_bytes(self) -> int:
        """Bytes of an image from a worker, at least 1; of JPEGs the average."""
        if self._unreadable is not None:
            return 1
        if self.on_device:
            return max(1, self.reader.total_bytes // len(self.reader))
        return 3 * self.image_settings.size**2

    @property
    def padding(self) -> int:
        """Id of the padding token."""
        return self._tokenize.padding

    def repeats(self, steps: int) -> str | None:
        """A warning if batches of a run hold images twice, as they are larger than an epoch or
        straddle two; else None. Pairs of similar images and folders of --mix repeat some by design,
        without a warning."""
        images, mixed = len(self.reader), bool(self._data.mix)
        step = 0 if mixed else self.epoch // self._batch
        if step >= steps or (self._data.similar is not None and step > 0):
            return None
        visits = self._order.visits(step * self._batch, self._batch)
        again = self._batch - len({visit.sample for visit in visits})
        if not again:
            return None
        why = "an epoch ends in it and the next begins" if step else "it is larger than the data"
        why += f" ({counted(images, 'image')})"
        if mixed:
            why = "it takes more images of a folder than that holds"
        return (
            f"the batch of step {step + 1} holds {again:,} of its {counted(self._batch, 'image')} "
            f"not for the first time, as {why}; rows of one image do not compete with each other"
        )

    def _fetch_ahead(self, position: int) -> None:
        if self.reader.is_remote and (ahead := self._order.shards_ahead(position)) != self._ahead:
            self._ahead = ahead
            self.reader.fetch_ahead(ahead)

    def _draw(self, position: int, visit: Visit, corrupt: list[str]) -> Draw:
        """The sample at a position of the stream."""
        for tried in range(1, MOST_CORRUPT + 1):
            rng = random.Random(visit.key(self._seed))
            try:
                image = self._look(visit.sample)
            except CorruptImage:
                corrupt.append(self.reader.where(visit.sample))
                around = self._order.neighbours(position)
                visit = visit._replace(sample=int(around[(position + tried) % len(around)]))
                continue
            sample = self.reader.sample(visit.sample)
            group, negatives = draw_negatives(
                sample.groups,
                self._type_weights,
                self._data.hard_negatives,
                rng,
                self._data.open_world_weight,
                self._factors,
                self._data.share_with_negatives,
            )
            return Draw(
                visit.sample,
                group.positive,
                negatives,
                self._draw_unrelated(position, sample, rng),
                self._view(image, rng),
                self._draw_further(group.positive, sample, rng),  # last: the rest as without them
            )
        raise UserError(
            f"{corrupt[-MOST_CORRUPT]}: cannot be decoded, nor can {MOST_CORRUPT} others; "
            "the shards are damaged, pack them again"
        )

    def _look(self, sample: int) -> torch.Tensor | Jpeg:
        """An image, decoded or as a JPEG for the device. Raises CorruptImage."""
        if self._unreadable is not None:
            if sample in self._unreadable:
                raise CorruptImage("it could not be decoded before")
            return torch.empty(0, dtype=torch.uint8)
        data = self.reader.image_bytes(sample)
        # A matching CRC proves that pack decoded the same bytes.
        jpeg = as_jpeg(data) if self.on_device and self.reader.has_sum(sample) else None
        return decode_image(data) if jpeg is None else jpeg

    def _view(self, image: torch.Tensor | Jpeg, rng: random.Random) -> torch.Tensor | Jpeg:
        if self._unreadable is not None:
            return image
        if isinstance(image, Jpeg):
            box = training_box(image.height, image.width, self._data.crop, rng)
            return image._replace(box=box)
        return training_view(image, self.image_settings, self._data.crop, rng)

    def _draw_unrelated(
        self, position: int, sample: TrainingSample, rng: random.Random
    ) -> tuple[str, ...]:
        """Captions of other images that are not positives of this one."""
        if not self._data.unrelated_negatives:
            return ()
        true = {group.positive for group in sample.groups}
        around = self._order.neighbours(position)
        found: list[str] = []
        for _ in range(4 * self._data.unrelated_negatives):  # some draws hit the image itself
            other = self.reader.sample(int(around[rng.randrange(len(around))]))
            caption = rng.choice(other.groups).positive
            if other.image_id != sample.image_id and caption not in true:
                found.append(caption)
            if len(found) == self._data.unrelated_negatives:
                break
        return tuple(found)

    def _draw_further(
        self, first: str, sample: TrainingSample, rng: random.Random
    ) -> tuple[str, ...]:
        """Other positives of the image; again from the first one where it has too few."""
        count = self._data.positives - 1
        others = [p for p in dict.fromkeys(g.positive for g in sample.groups) if p != first]
        drawn = [first, *rng.sample(others, min(count, len(others)))]
        return tuple(drawn[n % len(drawn)] for n in range(1, count + 1))

    def _collate(
        self, draws: list[Draw], images_B3RR: torch.Tensor, corrupt: tuple[str, ...]
    ) -> Batch:
        rows: dict[str, int] = {}

        def row(caption: str) -> int:
            return rows.setdefault(caption, len(rows))

        positive_B = [row(draw.positive) for draw in draws]
        negative_BK = [[row(negative.caption) for negative in draw.negatives] for draw in draws]
        type_BK = [[self._type_numbers[negative.type] for negative in d.negatives] for d in draws]
        watched = self._watched_numbers
        about_BK = [[watched.get(negative.about, EMPTY) for negative in d.negatives] for d in draws]
        unrelated_BM = [[row(caption) for caption in draw.unrelated] for draw in draws]
        further_BP = [[row(caption) for caption in draw.further] for draw in draws]
        token_TL = self._tokenize(list(rows))
        return Batch(
            images_B3RR,
            token_TL,
            torch.tensor(positive_B),
            _slots(negative_BK, self._data.hard_negatives),
            _slots(type_BK, self._data.hard_negatives),
            _slots(about_BK, self._data.hard_negatives),
            _slots(unrelated_BM, self._data.unrelated_negatives),
            torch.tensor([draw.sample for draw in draws]),
            torch.tensor([text_number(caption) for caption in rows]),
            self._tokenize.used_tokens(token_TL),
            corrupt,
            further_BP=torch.tensor(further_BP) if self._data.positives > 1 else None,
        )


def text_number(caption: str) -> int:
    """A 63-bit hash of a caption, equal on all ranks."""
    return int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1


def _slots(rows: list[list[int]], width: int) -> torch.Tensor:
    filled = [row + [EMPTY] * (width - len(row)) for row in rows]
    return torch.tensor(filled, dtype=torch.int64).reshape(len(rows), width)
