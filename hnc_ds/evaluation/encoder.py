"""A model that is ready to encode sets of pictures and captions: where, and how many at once.

N readable images, T captions, width D.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import (
    EmbeddedImages,
    PictureBatch,
    PictureSource,
    ShardPictures,
    Worse,
    embed_texts,
    encode_pictures,
    read_pictures,
)
from hnc_ds.evaluation.embedding_cache import EmbeddingCache
from hnc_ds.evaluation.finite import refuse_broken_rows, shown
from hnc_ds.model.clip import Clip
from hnc_ds.shards.reader import ShardReader

LARGEST_UNREADABLE_SHARE = 0.01
"""Of shards: with more images missing, a score would be of another set."""


@dataclass(frozen=True)
class Encoder:
    """Encodes with one model. Its methods are collectives."""

    model: Clip
    """On the device, in evaluation mode."""
    device: torch.device
    batch: int
    """Pictures read at once."""
    workers: int
    """Processes that read and decode."""
    cache: EmbeddingCache | None = None
    name: str = "the model"
    """What messages call the model."""

    def read(self, pictures: PictureSource, worse: Worse | None = None) -> Iterable[PictureBatch]:
        """This rank's pictures as the model sees them, decoded anew whenever gone through."""
        view, batch, workers = self.model.image_settings, self.batch, self.workers
        return read_pictures(pictures, view, self.device, batch=batch, workers=workers, worse=worse)

    def pictures(self, pictures: PictureSource, worse: Worse | None = None) -> EmbeddedImages:
        """Encode pictures, however many of them cannot be decoded.

        Raises:
            UserError: An embedding is not finite; as the cache.
        """

        def encode() -> EmbeddedImages:
            return self._encoded(pictures, self.read(pictures, worse))

        if self.cache is None:
            return encode()
        return self.cache.pictures(pictures, worse, encode)

    def texts(self, captions: Sequence[str]) -> tuple[torch.Tensor, int]:
        """Encode distinct captions; what ``embed_texts`` gives. Raises as ``pictures``."""

        def encode() -> tuple[torch.Tensor, int]:
            text_TD, too_long = embed_texts(self.model, captions, self.device)
            refuse_broken_rows(
                text_TD, "text", lambda row: shown(captions[row]), self.model, self.name
            )
            return text_TD, too_long

        return encode() if self.cache is None else self.cache.texts(captions, encode)

    def shards(
        self, reader: ShardReader, pictures: Iterable[PictureBatch] | None = None
    ) -> EmbeddedImages:
        """Encode the images of shards.

        Args:
            reader: Of the shards.
            pictures: What ``read`` gives of it, if it was read before.

        Raises:
            UserError: More than 1 % of them cannot be decoded; as ``pictures``.
        """
        source = ShardPictures(reader)
        images = self.pictures(source) if pictures is None else self._encoded(source, pictures)
        unreadable = images.unreadable
        if len(unreadable) > LARGEST_UNREADABLE_SHARE * len(reader):
            raise UserError(
                f"{reader.where(unreadable[0])}: this image and {len(unreadable) - 1} more of "
                f"{len(reader)} cannot be decoded, which is over 1 %; pack the shards again"
            )
        return images

    def _encoded(self, source: PictureSource, pictures: Iterable[PictureBatch]) -> EmbeddedImages:
        images = encode_pictures(self.model, pictures, self.device)
        refuse_broken_rows(
            images.image_ND,
            "image",
            lambda row: source.name(images.samples[row]).strip(),
            self.model,
            self.name,
        )
        return images
