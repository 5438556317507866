"""Shards -> batches: what is drawn at a step, decoded and tokenised, on any number of ranks.

A step's batch is a pure function of (seed, step, rank): workers only compute it sooner. So a
resumed run asks for the next step and gets what the uninterrupted one would have got.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import Dataset, default_collate

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.images import CorruptImage
from hnc_ds.records import Negative, TrainingSample
from hnc_ds.shards.abouts import most_common
from hnc_ds.shards.balance import kind_factors
from hnc_ds.shards.images import ImageSettings, decode_image, training_box, training_view
from hnc_ds.shards.negatives import draw_negatives, type_weights
from hnc_ds.shards.on_device import Encoded, Jpeg, as_jpeg, encoded
from hnc_ds.shards.order import Visit
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import cache_of
from hnc_ds.shards.similar import sample_order

EMPTY = -1
"""In place of a caption's row or a type's number: the slot is not used."""

MOST_CORRUPT = 100
"""Neighbours tried in place of a corrupt picture before the data is given up."""


class Tokenize(Protocol):
    """Captions to token ids, as ``hnc_ds.model.text.Tokenizer`` does it."""

    @property
    def padding(self) -> int:
        """The id behind captions that are shorter than others."""

    def __call__(self, captions: Sequence[str], /) -> torch.Tensor:
        """int64 [T, L]."""

    def used_tokens(self, token_TL: torch.Tensor, /) -> torch.Tensor:
        """int64 [T]: tokens of each caption without the padding behind it."""


class Masks(NamedTuple):
    """What in a rank's own batch must be hidden from some row."""

    pairs_repeat: bool
    """Whether an image or a positive caption stands twice."""
    negatives_vary: bool
    """Whether a hard negative is an empty slot, or some row's own true text."""


class Batch(NamedTuple):
    """One rank's rows of a step. Every distinct caption is there once, and referred to by row."""

    images_B3RR: torch.Tensor
    """uint8."""
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
    """int64: numbers of the captions, the same on every rank for the same caption."""
    used_T: torch.Tensor
    """int64: tokens of each caption without the padding behind it. Stays on the host, so that
    lengths are known there without a wait for the device."""
    corrupt: tuple[str, ...]
    """Pictures that could not be decoded, as FOLDER/SHARD:KEY; a neighbour stands in."""
    masks: Masks | None = None
    """Of a batch that was moved to where it trains; found on the host."""

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on a device, but for ``used_T``.

        From page-locked memory nothing is waited for. What needs the numbers on the host (masks,
        ``find_alike``, ``without_negatives``) is done before.
        """
        masks = self._needed_masks() if self.positive_B.device.type == "cpu" else self.masks
        return self._replace(masks=masks, **self._moved(device))

    def _moved(self, device: torch.device) -> dict[str, Any]:
        return {
            name: part.to(device, non_blocking=True)
            for name, part in self._asdict().items()
            if isinstance(part, torch.Tensor) and name != "used_T"
        }

    def _needed_masks(self) -> Masks:
        """On the host."""
        true_B = self.text_index_T[self.positive_B]
        empty_BK = self.negative_BK == EMPTY
        number_BK = self.text_index_T[self.negative_BK.clamp(min=0)]
        return Masks(
            any(
                len(column_B.unique()) < len(column_B) for column_B in (self.image_index_B, true_B)
            ),
            bool((empty_BK | torch.isin(number_BK, true_B)).any()),
        )

    def find_alike(self) -> torch.Tensor:
        """Hard negatives whose tokens are those of their positive, as the context cuts captions or
        the tokenizer sees no difference; bool [B, K]. On the host."""
        positive_BL = self.token_TL[self.positive_B]
        negative_BKL = self.token_TL[self.negative_BK.clamp(min=0)]
        same_BK = (negative_BKL == positive_BL[:, None]).all(dim=2)
        return same_BK & (self.negative_BK != EMPTY)

    def without_negatives(self) -> "Batch":
        """The batch with empty hard-negative slots, and without captions only they use. On the
        host, as how many captions are left decides over shapes."""
        used, rows = torch.unique(
            torch.cat([self.positive_B, self.unrelated_BM.flatten()]), return_inverse=True
        )
        empty = int(used[0] == EMPTY)  # sorted, so that it comes first
        rows = rows - empty
        return self._replace(
            token_TL=self.token_TL[used[empty:]],
            text_index_T=self.text_index_T[used[empty:]],
            used_T=self.used_T[used[empty:]],
            positive_B=rows[: len(self.positive_B)],
            unrelated_BM=rows[len(self.positive_B) :].view_as(self.unrelated_BM),
            negative_BK=torch.full_like(self.negative_BK, EMPTY),
            negative_type_BK=torch.full_like(self.negative_type_BK, EMPTY),
            negative_about_BK=torch.full_like(self.negative_about_BK, EMPTY),
        )


@dataclass(frozen=True)
class Draw:
    """What one visit of an image is trained on."""

    sample: int
    positive: str
    negatives: tuple[Negative, ...]
    unrelated: tuple[str, ...]
    image: torch.Tensor | Jpeg
    """uint8 [3, R, R], or what the device makes that of."""


class TrainingData(Dataset["Batch | UserError"]):
    """The batches of one rank, by step.

    A UserError met while reading is returned, not raised: ranks must agree to stop.

    Args:
        location: Shards of ``hnc-ds pack``: a folder, or the URL of one.
        data: What is drawn.
        seed: Of the order and every draw.
        batch: Rows of all ranks (N).
        rows: The rows of a step that this rank has.
        image_settings: Of the model.
        tokenize: Of the model.

    Raises:
        UserError: As ``read_index``, ``sample_order``; a negative type the shards do not hold.
    """

    def __init__(
        self,
        location: Path | str,
        data: DataConfig,
        seed: int,
        batch: int,
        rows: range,
        image_settings: ImageSettings,
        tokenize: Tokenize,
    ) -> None:
        self.reader = ShardReader(location, cache_of(data.cache, data.cache_gb))
        self.negative_types = tuple(sorted(self.reader.index.negatives))
        self._type_numbers = {name: number for number, name in enumerate(self.negative_types)}
        self._type_weights = type_weights(data, self.negative_types, location)
        abouts = self.reader.index.about
        self.watched = most_common(abouts, self._type_weights)
        self._watched_numbers = {about: number for number, about in enumerate(self.watched)}
        # Without negatives, the captions of a run with as many as usual: its plain twin.
        slots = data.hard_negatives or DataConfig.hard_negatives
        self._factors = kind_factors(abouts, self._type_weights, data.most_of_one, slots)
        self._order = sample_order(self.reader, data, seed)
        self._data, self._seed, self._batch, self._rows = data, seed, batch, rows
        self.image_settings, self._tokenize = image_settings, tokenize
        self._ahead: list[int] = []

    def __getitem__(self, step: int) -> "Batch | UserError":
        try:
            return self.batch(step)
        except UserError as error:
            return error

    def batch(self, step: int, part: range | None = None) -> Batch:
        """``drawn`` without what the device decodes."""
        return self.drawn(step, part)[0]

    def drawn(self, step: int, part: range | None = None) -> tuple[Batch, Encoded | None]:
        """This rank's rows of a step; with --decode gpu without images, and what becomes of them.

        Args:
            step: From 0.
            part: Which of its rows, counted from 0, without gaps; all when not given.

        Raises:
            UserError: Damaged shards, or too many corrupt pictures in a row.
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
        # In a worker they are stacked in shared memory.
        return self._collate(draws, default_collate(images), tuple(corrupt)), None

    @property
    def on_device(self) -> bool:
        """Whether images are decoded there."""
        return self._data.decode == "gpu"

    @property
    def rows(self) -> int:
        """Of this rank in a batch."""
        return len(self._rows)

    @property
    def image_bytes(self) -> int:
        """Of an image on its way from a worker; of JPEGs on average."""
        if self.on_device:
            return max(
                1, sum(shard.bytes for shard in self.reader.index.shards) // len(self.reader)
            )
        return 3 * self.image_settings.size**2

    @property
    def padding(self) -> int:
        """The token behind captions that are shorter than others."""
        return self._tokenize.padding

    def repeats(self, steps: int) -> str | None:
        """What to warn of where the batches of a run hold images twice: they are larger than an
        epoch, or one epoch ends in a batch and the next begins. Pairs of similar images repeat
        some by design, of which nothing is said."""
        images, paired = len(self.reader), self._data.similar is not None
        step = images * (2 if paired else 1) // self._batch
        if step >= steps or (paired and step > 0):
            return None
        visits = self._order.visits(step * self._batch, self._batch)
        again = self._batch - len({visit.sample for visit in visits})
        why = "an epoch ends in it and the next begins" if step else "it is larger than the data"
        if not again:
            return None
        return (
            f"the batch of step {step + 1} holds {again:,} of its {counted(self._batch, 'image')} "
            f"not for the first time, as {why} ({counted(images, 'image')}); rows of one image do "
            "not compete with each other"
        )

    def _fetch_ahead(self, position: int) -> None:
        if self.reader.is_far and (ahead := self._order.shards_ahead(position)) != self._ahead:
            self._ahead = ahead
            self.reader.fetch_ahead(ahead)

    def _draw(self, position: int, visit: Visit, corrupt: list[str]) -> Draw:
        """What is trained on at a position of the stream."""
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
            )
            return Draw(
                visit.sample,
                group.positive,
                negatives,
                self._draw_unrelated(position, sample, rng),
                self._view(image, rng),
            )
        raise UserError(
            f"{corrupt[-MOST_CORRUPT]}: cannot be decoded, nor can {MOST_CORRUPT} others; "
            "the shards are damaged, pack them again"
        )

    def _look(self, sample: int) -> torch.Tensor | Jpeg:
        """An image decoded, or as the device will.

        Raises:
            CorruptImage: It cannot be.
        """
        data = self.reader.image_bytes(sample)
        # Only of bytes that were decoded when they were packed is it known that they can be.
        jpeg = as_jpeg(data) if self.on_device and self.reader.has_sum(sample) else None
        return decode_image(data) if jpeg is None else jpeg

    def _view(self, image: torch.Tensor | Jpeg, rng: random.Random) -> torch.Tensor | Jpeg:
        if isinstance(image, Jpeg):
            box = training_box(image.height, image.width, self._data.crop, rng)
            return image._replace(box=box)
        return training_view(image, self.image_settings, self._data.crop, rng)

    def _draw_unrelated(
        self, position: int, sample: TrainingSample, rng: random.Random
    ) -> tuple[str, ...]:
        """Captions of other images that are not known to be true of this one."""
        if not self._data.unrelated_negatives:
            return ()
        true = {group.positive for group in sample.groups}
        around = self._order.neighbours(position)
        found: list[str] = []
        for _ in range(4 * self._data.unrelated_negatives):  # some draws are the image itself
            other = self.reader.sample(int(around[rng.randrange(len(around))]))
            caption = rng.choice(other.groups).positive
            if other.image_id != sample.image_id and caption not in true:
                found.append(caption)
            if len(found) == self._data.unrelated_negatives:
                break
        return tuple(found)

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
        )


def text_number(caption: str) -> int:
    """A 63-bit number of a caption, by which ranks see that two are the same."""
    return int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1


def _slots(rows: list[list[int]], width: int) -> torch.Tensor:
    filled = [row + [EMPTY] * (width - len(row)) for row in rows]
    return torch.tensor(filled, dtype=torch.int64).reshape(len(rows), width)
