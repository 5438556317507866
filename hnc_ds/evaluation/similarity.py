"""Scores of images with captions, by row: what all measures are computed from.

A dual encoder's are cosines of embeddings. A cross-encoder's are log-odds of a match
(cross_scorer.py). Measures compare scores and never mix those of two models.

N images, T captions, P pairs, Q queries of a gallery of G.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch

from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import (
    Corruption,
    ImageBatch,
    ImageSource,
    SeenImages,
    ShardImages,
    image_batches_of,
)
from hnc_ds.shards.reader import ShardReader

_PAIRS_AT_ONCE = 16_384


Thresholds = Mapping[str, float]
"""Scores from which on a caption counts as true, by the metric of captions judged one by one."""


class Grid(Protocol):
    """Scores of every query with every row of a gallery."""

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Scores of some queries, [B, G]."""

    def transposed(self) -> "Grid":
        """The gallery's rows as queries."""


class Similarity(Protocol):
    """Scores of a set. The methods are collectives."""

    @property
    def thresholds(self) -> Thresholds:
        """Score from which on a caption counts as true, by metric; none if it is only known which
        caption is more similar."""

    def pairs(self, image_P: np.ndarray, text_P: np.ndarray) -> np.ndarray:
        """Of pairs of rows, float32 [P]; equal inputs have equal scores."""

    def texts(self, one_P: np.ndarray, other_P: np.ndarray) -> np.ndarray | None:
        """Of captions with captions; None if the model has none."""

    def grid(self, image_Q: Sequence[int], text_G: Sequence[int]) -> Grid:
        """Of images as queries with captions."""


class Products(NamedTuple):
    """Products of unit rows, computed when they are asked for."""

    query_QD: torch.Tensor
    gallery_GD: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return len(self.query_QD), len(self.gallery_GD)

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Cosines of some queries, [B, G]."""
        return self.query_QD[start:end] @ self.gallery_GD.T

    def transposed(self) -> "Products":
        """The gallery's rows as queries."""
        return Products(self.gallery_GD, self.query_QD)


class Table(NamedTuple):
    """Scores that are known."""

    score_QG: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return self.score_QG.shape[0], self.score_QG.shape[1]

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Scores of some queries, [B, G]."""
        return self.score_QG[start:end]

    def transposed(self) -> "Table":
        """The gallery's rows as queries."""
        return Table(self.score_QG.T)


class Cosines(NamedTuple):
    """Cosines of embeddings: float32 unit rows on a device."""

    image_ND: torch.Tensor
    text_TD: torch.Tensor
    thresholds: Thresholds = MappingProxyType({})

    def pairs(self, image_P: np.ndarray, text_P: np.ndarray) -> np.ndarray:
        """Of images with captions, float32 [P]."""
        return cosines(self.image_ND, self.text_TD, image_P, text_P)

    def texts(self, one_P: np.ndarray, other_P: np.ndarray) -> np.ndarray:
        """Of captions with captions, float32 [P]."""
        return cosines(self.text_TD, self.text_TD, one_P, other_P)

    def grid(self, image_Q: Sequence[int], text_G: Sequence[int]) -> Products:
        """Of images as queries with captions."""
        return Products(_chosen(self.image_ND, image_Q), _chosen(self.text_TD, text_G))


def _chosen(rows: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    return rows[torch.tensor(numbers, dtype=torch.int64, device=rows.device)]


def cosines(
    image_ND: torch.Tensor, text_TD: torch.Tensor, image_P: np.ndarray, text_P: np.ndarray
) -> np.ndarray:
    """Cosines of pairs of rows, float32 [P]; all are summed in the same order, so that equal
    embeddings give equal scores."""
    scores = np.empty(len(image_P), dtype=np.float32)
    for start in range(0, len(image_P), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        image_PD = image_ND[torch.from_numpy(image_P[rows]).to(image_ND.device)]
        text_PD = text_TD[torch.from_numpy(text_P[rows]).to(text_TD.device)]
        scores[rows] = (image_PD * text_PD).sum(dim=1).cpu().numpy()
    return scores


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """Readable images and captions of a set, with their scores."""

    images: list[tuple[int, str]]
    """(index in the shards, key) of each image."""
    captions: list[str]
    similarity: Similarity


MAX_UNREADABLE_FRACTION = 0.01
"""Of the images of shards; with more left out, a score would be of another set."""


Classifier = Callable[[Any, Sequence[int]], Grid]
"""A result of ``Scorer.similarity`` and rows of images to their scores with classes, [Q, C]."""


class Scorer(ABC):
    """A model that scores images with captions. The methods are collectives."""

    name: str
    """In results and messages."""
    model: Any
    """On the device, in evaluation mode."""
    device: torch.device
    batch: int
    """Images per batch."""
    workers: int
    """Processes that read and decode images."""
    chosen: Thresholds
    """Those that were chosen on validation data."""
    searches: ClassVar[bool] = True
    """Whether scoring all images with all captions is cheap."""

    def read(
        self, images: ImageSource, corruption: Corruption | None = None
    ) -> Iterable[ImageBatch]:
        """This rank's images as the model views them; decoded again at each iteration."""
        return image_batches_of(
            images,
            self.model.image_settings,
            self.device,
            batch=self.batch,
            workers=self.workers,
            corruption=corruption,
        )

    @abstractmethod
    def images(
        self,
        source: ImageSource,
        corruption: Corruption | None = None,
        image_batches: Iterable[ImageBatch] | None = None,
    ) -> Any:
        """Those images that can be decoded, a ``SeenImages``.

        Args:
            source: Images of all ranks.
            corruption: Applied to every image.
            image_batches: Batches of ``read``, if they are in memory already.

        Raises:
            UserError: What the model makes of an image is not finite.
        """

    @abstractmethod
    def similarity(self, images: Any, captions: Sequence[str]) -> tuple[Similarity, int]:
        """Scores of images with captions, and how many captions are truncated.

        Args:
            images: Result of ``images``.
            captions: Distinct texts.
        """

    @abstractmethod
    def classifier(self, prompts: Sequence[Sequence[str]]) -> Classifier:
        """Scores of images with classes.

        Args:
            prompts: Captions of each class, of all classes the same number.
        """

    @abstractmethod
    def corrupted(self, clean: Any, source: ImageSource, corruption: Corruption) -> Similarity:
        """The same scores with corrupted images.

        Args:
            clean: Result of ``similarity``.
            source: Its images.
            corruption: Applied to every image.
        """

    def shards(self, reader: ShardReader, image_batches: Iterable[ImageBatch] | None = None) -> Any:
        """``images`` of shards.

        Args:
            reader: Reader of the shards.
            image_batches: Batches of ``read``, if they are in memory already.

        Raises:
            UserError: More than 1 % of the images cannot be decoded; as ``images``.
        """
        found: SeenImages = self.images(ShardImages(reader), image_batches=image_batches)
        unreadable = found.unreadable
        if len(unreadable) > MAX_UNREADABLE_FRACTION * len(reader):
            raise UserError(
                f"{reader.where(unreadable[0])}: this image and {len(unreadable) - 1} more of "
                f"{len(reader)} cannot be decoded, which is over 1 %; pack the shards again"
            )
        return found
