"""Scores of cross-encoders: log-odds of a match of image and caption.

A cross-encoder has no embeddings to keep, so scores are computed when a measure asks for them: each
image that occurs is seen once, and its captions are matched with what was seen.

The shape of every product is fixed, because one of another height or width may round differently:
IMAGES_AT_ONCE images, PAIRS_AT_ONCE pairs of captions that are padded to the same multiple of
LENGTHS. So a pair's score depends on its image and its caption alone. Ranks take turns at chunks of
images.

P pairs, L tokens.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from tqdm import tqdm

from hnc_ds.distributed import (
    all_gather_object,
    all_gather_uneven,
    raise_on_all_ranks,
    rank,
    world_size,
)
from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import (
    Corruption,
    ImageBatch,
    ImageSource,
    SeenImages,
    image_batches_of,
    shown,
)
from hnc_ds.evaluation.released.summary import MATCHES
from hnc_ds.evaluation.similarity import Classifier, Scorer, Similarity, Table, Thresholds
from hnc_ds.model.cross_encoder import CrossEncoder

IMAGES_AT_ONCE, PAIRS_AT_ONCE = 16, 32
LENGTHS = 8
"""Captions are padded to a multiple of so many tokens."""

EVEN_ODDS = {MATCHES: 0.0}
"""Log-odds of P(match) = 0.5."""


@dataclass(frozen=True)
class Readable(SeenImages):
    """Images that can be decoded; they are decoded again when they are scored."""

    source: ImageSource
    corruption: Corruption | None


@dataclass(frozen=True)
class CrossScorer(Scorer):
    """Scores with one cross-encoder. Its methods are collectives."""

    model: CrossEncoder
    """On the device, in evaluation mode."""
    device: torch.device
    batch: int
    """Images per batch."""
    workers: int
    """Processes that read and decode images."""
    name: str
    """Name of the model in results and messages."""
    chosen: Thresholds = field(default_factory=dict)
    searches: ClassVar[bool] = False

    def images(
        self,
        source: ImageSource,
        corruption: Corruption | None = None,
        image_batches: Iterable[ImageBatch] | None = None,
    ) -> Readable:
        """Find out which images can be decoded.

        Args:
            source: Images of all ranks.
            corruption: Applied to every image when it is scored.
            image_batches: Batches of ``read``, if they are in memory already.
        """
        batches = self.read(source) if image_batches is None else image_batches
        own = raise_on_all_ranks(
            lambda: [
                pair
                for batch in batches
                for pair in zip(batch.samples.tolist(), batch.readable_B.tolist(), strict=True)
            ]
        )
        found = sorted(pair for of_rank in all_gather_object(own) for pair in of_rank)
        return Readable(
            tuple(number for number, can in found if can),
            tuple(number for number, can in found if not can),
            source,
            corruption,
        )

    def similarity(self, images: Any, captions: Sequence[str]) -> tuple[Similarity, int]:
        """Scores of readable images with captions, and how many captions are truncated.

        Args:
            images: Result of ``images``.
            captions: Distinct texts.
        """
        ids, is_long = self.model.tokenize.ids(captions)
        return Matches(self, images, captions, ids, {**EVEN_ODDS, **self.chosen}), sum(is_long)

    def classifier(self, prompts: Sequence[Sequence[str]]) -> Classifier:
        """The score of a class is the mean of the log-odds of its prompts; every image is matched
        with every prompt."""
        distinct = list(dict.fromkeys(text for of_class in prompts for text in of_class))
        ids, _ = self.model.tokenize.ids(distinct)
        row_of = {text: row for row, text in enumerate(distinct)}
        row_CP = torch.tensor([[row_of[text] for text in of_class] for of_class in prompts])

        def scores(similarity: Matches, rows: Sequence[int]) -> Table:
            matches = replace(similarity, captions=distinct, ids=ids)
            score_QT = matches.grid(rows, range(len(distinct))).score_QG
            return Table(score_QT[:, row_CP].mean(dim=2))

        return scores

    def corrupted(self, clean: "Matches", source: ImageSource, corruption: Corruption) -> "Matches":
        """The same captions with corrupted images."""
        return replace(clean, images=replace(clean.images, corruption=corruption))


@dataclass(frozen=True)
class Matches:
    """Log-odds of matches, of rows of images and captions."""

    scorer: CrossScorer
    images: Readable
    captions: Sequence[str]
    ids: Sequence[Sequence[int]]
    """Tokens of each caption."""
    thresholds: Thresholds

    def pairs(self, image_P: np.ndarray, text_P: np.ndarray) -> np.ndarray:
        """Of images with captions, float32 [P]; a pair that occurs twice is computed once.

        Raises:
            UserError: A score is not finite.
        """
        number_P = np.asarray(image_P, np.int64) * len(self.captions) + text_P
        number_U, place_P = np.unique(number_P, return_inverse=True)
        image_U, text_U = np.divmod(number_U, max(1, len(self.captions)))
        score_U = self._score(image_U, text_U)
        if (broken := np.flatnonzero(~np.isfinite(score_U))).size:
            image, text = image_U[broken[0]], text_U[broken[0]]
            raise UserError(
                f"{self.scorer.name}: the score of {self._image_name(image)} with "
                f"{shown(self.captions[text])} is not finite (NaN or infinity); evaluate another "
                "model"
            )
        return score_U[place_P.reshape(-1)]

    def texts(self, one_P: np.ndarray, other_P: np.ndarray) -> None:
        """A cross-encoder does not compare captions."""

    def grid(self, image_Q: Sequence[int], text_G: Sequence[int]) -> Table:
        """Of images as queries with captions: Q * G pairs are matched."""
        images, texts = np.asarray(image_Q, np.int64), np.asarray(text_G, np.int64)
        found = self.pairs(np.repeat(images, len(texts)), np.tile(texts, len(images)))
        return Table(torch.from_numpy(found).view(len(images), len(texts)))

    def _image_name(self, row: int) -> str:
        return self.images.source.name(self.images.samples[row]).strip()

    def _score(self, image_U: np.ndarray, text_U: np.ndarray) -> np.ndarray:
        """Of distinct pairs, sorted by image."""
        used, first = np.unique(image_U, return_index=True)
        chunks = range(0, len(used), IMAGES_AT_ONCE)
        own = [slice(at, at + IMAGES_AT_ONCE) for at in chunks[rank() :: world_size()]]
        ends = np.append(first, len(image_U))

        def work() -> tuple[torch.Tensor, torch.Tensor]:
            numbers, scores = list[torch.Tensor](), list[torch.Tensor]()
            views = self._views([int(row) for chunk in own for row in used[chunk]])
            for chunk in tqdm(own, "pairs", unit="batch", disable=None if rank() == 0 else True):
                rows = range(ends[chunk.start], ends[min(chunk.stop, len(used))])
                place_R = np.searchsorted(used[chunk], image_U[rows.start : rows.stop])
                count = len(used[chunk])
                found = self._match(
                    [next(views) for _ in range(count)], place_R, text_U[rows.start : rows.stop]
                )
                numbers.append(torch.arange(rows.start, rows.stop))
                scores.append(found)
            none = torch.empty(0)
            return torch.cat([none.long(), *numbers]), torch.cat([none, *scores])

        number_R, score_R = raise_on_all_ranks(work)
        device = self.scorer.device
        number_U, score_U = (all_gather_uneven(part.to(device)) for part in (number_R, score_R))
        found = np.empty(len(image_U), np.float32)
        found[number_U.cpu().numpy()] = score_U.cpu().numpy()
        return found

    def _views(self, rows: Sequence[int]) -> Iterator[torch.Tensor]:
        """uint8 [3, R, R] of rows of images, in order."""
        images = self.images
        chosen = _Chosen(images.source, [images.samples[row] for row in rows])
        batches = image_batches_of(
            chosen,
            self.scorer.model.image_settings,
            self.scorer.device,
            batch=self.scorer.batch,
            workers=self.scorer.workers,
            corruption=images.corruption,
            shared=False,
        )
        for batch in batches:
            yield from batch.images_B3RR

    @torch.inference_mode()
    def _match(
        self, views: Sequence[torch.Tensor], image_R: np.ndarray, text_R: np.ndarray
    ) -> torch.Tensor:
        """Of pairs of a chunk of images, float32 [R] on the CPU."""
        model, device = self.scorer.model, self.scorer.device
        filled = [*views, *[torch.zeros_like(views[0])] * (IMAGES_AT_ONCE - len(views))]
        seen = model.see(torch.stack(filled).to(device, non_blocking=True))
        of_length: dict[int, list[int]] = defaultdict(list)
        for place, text in enumerate(text_R.tolist()):
            of_length[self._padded(len(self.ids[text]))].append(place)
        found = torch.empty(len(text_R))
        for length, places in sorted(of_length.items()):
            for at in range(0, len(places), PAIRS_AT_ONCE):
                part = places[at : at + PAIRS_AT_ONCE]
                filled_places = part + part[:1] * (PAIRS_AT_ONCE - len(part))
                texts = [self.ids[text_R[place]] for place in filled_places]
                token_PL, mask_PL = (tensor.to(device) for tensor in self._tokens(texts, length))
                image_P = torch.from_numpy(image_R[filled_places]).to(device)
                odds_P = model.match(seen[image_P], token_PL, mask_PL)
                found[part] = odds_P[: len(part)].cpu()
        return found

    def _padded(self, length: int) -> int:
        return min(-(-length // LENGTHS) * LENGTHS, self.scorer.model.tokenize.context_length)

    def _tokens(
        self, texts: Sequence[Sequence[int]], length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded ids and their mask, [P, L]."""
        padding = self.scorer.model.tokenize.padding
        ids = [[*text, *[padding] * (length - len(text))] for text in texts]
        mask = [[1] * len(text) + [0] * (length - len(text)) for text in texts]
        return torch.tensor(ids), torch.tensor(mask)


class _Chosen:
    """Some images of a source, in an order.

    Args:
        source: All images.
        numbers: Which.
    """

    def __init__(self, source: ImageSource, numbers: Sequence[int]) -> None:
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, index: int) -> str:
        """Of the source, so that its corruption stays the same."""
        return self._source.name(self._numbers[index])

    def image(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        return self._source.image(self._numbers[index])

    def identity(self) -> str:
        """That of the source and the numbers."""
        return f"{self._source.identity()} {self._numbers}"
