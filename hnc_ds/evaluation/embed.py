"""Every image and every distinct caption of a set, encoded exactly once.

Images come from shards, decoded by worker processes and viewed as the model views pictures in
evaluation (no cropping at random). N readable images, T captions, width D.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.shards.images import CorruptImage, ImageSettings, decode_jpeg, evaluation_view
from hnc_ds.shards.reader import ShardReader

LARGEST_UNREADABLE_SHARE = 0.01
"""With more images missing, a score would be of another set."""


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


PictureBatch = tuple[list[int], list[int], torch.Tensor | None]
"""Indices of readable and of unreadable pictures, and the readable ones, uint8 [B, 3, R, R]."""


class _Pictures(Dataset[tuple[int, torch.Tensor | None]]):
    """Index -> (index, uint8 [3, R, R], or None for a picture that cannot be decoded)."""

    def __init__(self, reader: ShardReader, settings: ImageSettings) -> None:
        self._reader = reader
        self._settings = settings

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, sample: int) -> tuple[int, torch.Tensor | None]:
        try:
            image_3HW = decode_jpeg(self._reader.image_bytes(sample))
        except CorruptImage:
            return sample, None
        return sample, evaluation_view(image_3HW, self._settings)


def _collate(batch: list[tuple[int, torch.Tensor | None]]) -> PictureBatch:
    readable = [(sample, image) for sample, image in batch if image is not None]
    unreadable = [sample for sample, image in batch if image is None]
    images = torch.stack([image for _, image in readable]) if readable else None
    return [sample for sample, _ in readable], unreadable, images


def read_pictures(
    reader: ShardReader, settings: ImageSettings, device: torch.device, *, batch: int, workers: int
) -> Iterable[PictureBatch]:
    """All pictures of the shards in batches; read and decoded anew whenever it is gone through."""
    return DataLoader(
        _Pictures(reader, settings),
        batch_size=batch,
        num_workers=min(workers, -(-len(reader) // batch)),
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )


def embed_images(
    model: Clip, reader: ShardReader, device: torch.device, *, batch: int, workers: int
) -> EmbeddedImages:
    """Read and encode all images of the shards. Raises UserError as `embed_pictures` does."""
    pictures = read_pictures(reader, model.image_settings, device, batch=batch, workers=workers)
    return embed_pictures(model, pictures, reader, device)


@torch.inference_mode()
def embed_pictures(
    model: Clip, pictures: Iterable[PictureBatch], reader: ShardReader, device: torch.device
) -> EmbeddedImages:
    """Encode the pictures of a reader.

    Raises:
        UserError: More than 1 % of them cannot be decoded.
    """
    rows: list[torch.Tensor] = []
    samples: list[int] = []
    unreadable: list[int] = []
    for readable, broken, images_B3RR in tqdm(pictures, "images", unit="batch", disable=None):
        samples += readable
        unreadable += broken
        if images_B3RR is not None:
            rows.append(model.encode_images(images_B3RR.to(device, non_blocking=True)).float())
    _refuse_if_many(unreadable, reader)
    return EmbeddedImages(torch.cat(rows), tuple(samples), tuple(unreadable))


def _refuse_if_many(unreadable: Sequence[int], reader: ShardReader) -> None:
    if len(unreadable) > LARGEST_UNREADABLE_SHARE * len(reader):
        raise UserError(
            f"{reader.where(unreadable[0])}: this image and {len(unreadable) - 1} more of "
            f"{len(reader)} cannot be decoded, which is over 1 %; pack the shards again"
        )


@torch.inference_mode()
def embed_texts(
    model: Clip, captions: Sequence[str], device: torch.device, *, batch: int
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
    for start in tqdm(range(0, len(order), batch), "captions", unit="batch", disable=None):
        chosen = [captions[row] for row in order[start : start + batch]]
        token_TL = model.tokenize(chosen)
        if token_TL.shape[1] >= model.tokenize.context_length:  # only then can one be cut
            too_long += sum(model.tokenize.is_too_long(caption) for caption in chosen)
        rows.append(model.encode_texts(token_TL.to(device)).float())
    sorted_TD = torch.cat(rows)
    text_TD = torch.empty_like(sorted_TD)
    text_TD[torch.tensor(order, device=device)] = sorted_TD
    return text_TD, too_long
