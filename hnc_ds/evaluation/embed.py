"""Every image and every distinct caption of a set, encoded exactly once.

Images are decoded by worker processes and viewed as the model views pictures in evaluation (no
cropping at random). Rows are encoded in chunks whose ends lie at fixed places, whatever is read at
once, as a matrix product of another height may round differently.

N readable images, T captions, width D.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.shards.images import CorruptImage, ImageSettings, decode_jpeg, evaluation_view
from hnc_ds.shards.reader import ShardReader

LARGEST_UNREADABLE_SHARE = 0.01
"""With more images missing, a score would be of another set."""

IMAGES_AT_ONCE, TEXTS_AT_ONCE = 64, 256
"""Of a chunk."""


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """What became of a set's images."""

    image_ND: torch.Tensor
    """float32, unit rows, in the order of `samples`."""
    samples: tuple[int, ...]
    """Indices in the shards of the readable images, ascending."""
    unreadable: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedSet:
    """The readable images and the captions of a set: what its scores are computed from."""

    images: list[tuple[int, str]]
    """Index in the shards and key of each image."""
    image_ND: torch.Tensor
    captions: list[str]
    text_TD: torch.Tensor


class PictureBatch(NamedTuple):
    """Some pictures in their order."""

    samples: torch.Tensor
    """Their indices, int64 [B]."""
    readable_B: torch.Tensor
    """bool; of the others the picture is black."""
    images_B3RR: torch.Tensor
    """uint8."""


class PictureSource(Protocol):
    """Pictures by index, in a form that can be handed to worker processes."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        ...


class ShardPictures:
    """Those of shards."""

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def picture(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        return decode_jpeg(self._reader.image_bytes(index))


class _Views(Dataset[tuple[int, bool, torch.Tensor]]):
    """Index -> (index, whether it can be decoded, uint8 [3, R, R])."""

    def __init__(self, pictures: PictureSource, settings: ImageSettings) -> None:
        self._pictures = pictures
        self._settings = settings

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[int, bool, torch.Tensor]:
        try:
            image_3HW = self._pictures.picture(index)
        except CorruptImage:
            side = self._settings.size
            return index, False, torch.zeros(3, side, side, dtype=torch.uint8)
        return index, True, evaluation_view(image_3HW, self._settings)


def _collate(batch: list[tuple[int, bool, torch.Tensor]]) -> PictureBatch:
    samples, readable, images = zip(*batch, strict=True)
    return PictureBatch(torch.tensor(samples), torch.tensor(readable), torch.stack(images))


def read_pictures(
    pictures: PictureSource,
    settings: ImageSettings,
    device: torch.device,
    *,
    batch: int,
    workers: int,
) -> Iterable[PictureBatch]:
    """All pictures in batches; read and decoded anew whenever it is gone through.

    Args:
        batch: Pictures at once, rounded up to whole chunks.
    """
    batch = -(-batch // IMAGES_AT_ONCE) * IMAGES_AT_ONCE
    return DataLoader(
        _Views(pictures, settings),
        batch_size=batch,
        num_workers=min(workers, -(-len(pictures) // batch)),
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )


def embed_images(
    model: Clip, reader: ShardReader, device: torch.device, *, batch: int, workers: int
) -> EmbeddedImages:
    """Read and encode all images of the shards. Raises UserError as `embed_pictures` does."""
    view, shards = model.image_settings, ShardPictures(reader)
    pictures = read_pictures(shards, view, device, batch=batch, workers=workers)
    return embed_pictures(model, pictures, reader, device)


def embed_pictures(
    model: Clip, pictures: Iterable[PictureBatch], reader: ShardReader, device: torch.device
) -> EmbeddedImages:
    """Encode the pictures of a reader.

    Raises:
        UserError: More than 1 % of them cannot be decoded.
    """
    images = encode_pictures(model, pictures, device)
    _refuse_if_many(images.unreadable, reader)
    return images


@torch.inference_mode()
def encode_pictures(
    model: Clip, pictures: Iterable[PictureBatch], device: torch.device
) -> EmbeddedImages:
    """Encode pictures, however many cannot be decoded."""
    rows: list[torch.Tensor] = []
    samples: list[int] = []
    unreadable: list[int] = []
    for batch in tqdm(pictures, "images", unit="batch", disable=None):
        image_BD = _in_chunks(model.encode_images, batch.images_B3RR, IMAGES_AT_ONCE, device)
        rows.append(image_BD[batch.readable_B.to(device)])
        samples += batch.samples[batch.readable_B].tolist()
        unreadable += batch.samples[~batch.readable_B].tolist()
    return EmbeddedImages(torch.cat(rows), tuple(samples), tuple(unreadable))


def _in_chunks(
    encode: Callable[[torch.Tensor], torch.Tensor],
    rows: torch.Tensor,
    at_once: int,
    device: torch.device,
) -> torch.Tensor:
    """float32, on the device."""
    return torch.cat(
        [encode(chunk.to(device, non_blocking=True)).float() for chunk in rows.split(at_once)]
    )


def _refuse_if_many(unreadable: Sequence[int], reader: ShardReader) -> None:
    if len(unreadable) > LARGEST_UNREADABLE_SHARE * len(reader):
        raise UserError(
            f"{reader.where(unreadable[0])}: this image and {len(unreadable) - 1} more of "
            f"{len(reader)} cannot be decoded, which is over 1 %; pack the shards again"
        )


@torch.inference_mode()
def embed_texts(
    model: Clip, captions: Sequence[str], device: torch.device
) -> tuple[torch.Tensor, int]:
    """Encode captions, each once, sorted by length so that little padding is computed.

    Args:
        captions: Distinct texts.

    Returns:
        float32 [T, D] unit rows in the order of `captions`, and how many captions did not fit
        into the model's context and lost their end.
    """
    order = sorted(range(len(captions)), key=lambda row: (len(captions[row]), captions[row]))
    rows: list[torch.Tensor] = []
    too_long = 0
    starts = range(0, len(order), TEXTS_AT_ONCE)
    for start in tqdm(starts, "captions", unit="batch", disable=None):
        chosen = [captions[row] for row in order[start : start + TEXTS_AT_ONCE]]
        token_TL = model.tokenize(chosen)
        if token_TL.shape[1] >= model.tokenize.context_length:  # only then can one be cut
            too_long += sum(model.tokenize.is_too_long(caption) for caption in chosen)
        rows.append(model.encode_texts(token_TL.to(device)).float())
    sorted_TD = torch.cat(rows)
    text_TD = torch.empty_like(sorted_TD)
    text_TD[torch.tensor(order, device=device)] = sorted_TD
    return text_TD, too_long
