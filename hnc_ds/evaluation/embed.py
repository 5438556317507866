"""Every image and every distinct caption of a set, encoded exactly once.

Images are decoded by worker processes and viewed as the model views pictures in evaluation (no
cropping at random). Rows are encoded in chunks whose ends lie at fixed places, whatever is read at
once and however many ranks share the work, as a matrix product of another height may round
differently. Ranks take chunks in turn, and all of them get everything.

N readable images, T captions, width D.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from hnc_ds.distributed import from_every_rank, gather_uneven, rank, together, world_size
from hnc_ds.evaluation.corruptions import corrupt
from hnc_ds.evaluation.items import fingerprint
from hnc_ds.images import CorruptImage
from hnc_ds.model.clip import Clip
from hnc_ds.shards.images import ImageSettings, decode_image, evaluation_view
from hnc_ds.shards.reader import ShardReader
from hnc_ds.worker_processes import FORK

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

    def name(self, index: int) -> str:
        """Of a picture; no two have one."""
        ...

    def picture(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        ...

    def identity(self) -> str:
        """sha256 that is another one where a picture or their order is."""
        ...


class ShardPictures:
    """Those of shards."""

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        """The key of the sample."""
        return self._reader.key(index)

    def picture(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        return decode_image(self._reader.image_bytes(index))

    def identity(self) -> str:
        """That of the shards."""
        return fingerprint(self._reader.index)


class Worse(NamedTuple):
    """How pictures are made worse, after resizing and before they are normalised."""

    corruption: str
    severity: int
    seed: int


class _Views(Dataset[tuple[int, bool, torch.Tensor]]):
    """Index -> (index, whether it can be decoded, uint8 [3, R, R])."""

    def __init__(
        self, pictures: PictureSource, settings: ImageSettings, worse: Worse | None
    ) -> None:
        self._pictures = pictures
        self._settings = settings
        self._worse = worse

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[int, bool, torch.Tensor]:
        try:
            image_3HW = self._pictures.picture(index)
        except CorruptImage:
            side = self._settings.size
            return index, False, torch.zeros(3, side, side, dtype=torch.uint8)
        view_3RR = evaluation_view(image_3HW, self._settings)
        if self._worse is not None:
            image_RR3 = view_3RR.permute(1, 2, 0).numpy()
            made = corrupt(image_RR3, *self._worse, name=self._pictures.name(index))
            view_3RR = torch.from_numpy(made).permute(2, 0, 1)
        return index, True, view_3RR


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
    worse: Worse | None = None,
) -> Iterable[PictureBatch]:
    """This rank's pictures in batches; read and decoded anew whenever it is gone through.

    Args:
        batch: Pictures at once, rounded up to whole chunks.
        worse: Made so, if anything is said.
    """
    batch = -(-batch // IMAGES_AT_ONCE) * IMAGES_AT_ONCE
    own = [index for chunk in _own_chunks(len(pictures), IMAGES_AT_ONCE) for index in chunk]
    workers = min(workers, -(-len(own) // batch))
    return DataLoader(
        Subset(_Views(pictures, settings, worse), own),
        batch_size=batch,
        num_workers=workers,
        multiprocessing_context=FORK if workers else None,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )


def _own_chunks(rows: int, at_once: int) -> list[range]:
    """Those of this rank."""
    starts = range(0, rows, at_once)
    return [range(start, min(start + at_once, rows)) for start in starts[rank() :: world_size()]]


def encode_pictures(
    model: Clip, pictures: Iterable[PictureBatch], device: torch.device
) -> EmbeddedImages:
    """Encode pictures, however many cannot be decoded. A collective.

    Args:
        pictures: Of this rank.
    """
    image_ND, samples_N, readable_N = (
        gather_uneven(part) for part in together(lambda: _encode_own(model, pictures, device))
    )
    order_N = samples_N.argsort()
    readable_N = readable_N[order_N]
    samples_N = samples_N[order_N]
    return EmbeddedImages(
        image_ND[order_N[readable_N]],
        tuple(samples_N[readable_N].tolist()),
        tuple(samples_N[~readable_N].tolist()),
    )


@torch.inference_mode()
def _encode_own(
    model: Clip, pictures: Iterable[PictureBatch], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, indices, and whether each could be decoded, on the device."""
    rows, samples, readable = [], [], []
    shown = None if rank() == 0 else True
    for batch in tqdm(pictures, "images", unit="batch", disable=shown):
        for chunk in batch.images_B3RR.split(IMAGES_AT_ONCE):
            rows.append(model.encode_images(chunk.to(device, non_blocking=True)).float())
        samples.append(batch.samples)
        readable.append(batch.readable_B)
    return _joined(rows, device), _joined(samples, device).long(), _joined(readable, device).bool()


def _joined(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    return (
        torch.cat([part.to(device) for part in parts]) if parts else torch.empty(0, device=device)
    )


def embed_texts(
    model: Clip, captions: Sequence[str], device: torch.device
) -> tuple[torch.Tensor, int]:
    """Encode captions, each once, sorted by length so that little padding is computed. A
    collective.

    Args:
        captions: Distinct texts.

    Returns:
        float32 [T, D] unit rows in the order of `captions`, and how many captions did not fit
        into the model's context and lost their end.
    """
    order = sorted(range(len(captions)), key=lambda row: (len(captions[row]), captions[row]))
    own = [[order[place] for place in chunk] for chunk in _own_chunks(len(order), TEXTS_AT_ONCE)]
    rows_TD, too_long = together(lambda: _encode_own_texts(model, captions, own, device))
    numbers = torch.tensor([number for chunk in own for number in chunk], device=device)
    found_TD, number_T = gather_uneven(rows_TD), gather_uneven(numbers.long())
    text_TD = torch.empty_like(found_TD)
    text_TD[number_T] = found_TD
    return text_TD, sum(from_every_rank(too_long))


@torch.inference_mode()
def _encode_own_texts(
    model: Clip, captions: Sequence[str], chunks: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, int]:
    """Rows in the order of the chunks, and how many captions were cut."""
    rows, too_long = [], 0
    shown = None if rank() == 0 else True
    for chunk in tqdm(chunks, "captions", unit="batch", disable=shown):
        chosen = [captions[number] for number in chunk]
        token_TL = model.tokenize(chosen)
        if token_TL.shape[1] >= model.tokenize.context_length:  # only then can one be cut
            too_long += sum(model.tokenize.is_too_long(caption) for caption in chosen)
        rows.append(model.encode_texts(token_TL.to(device)).float())
    return _joined(rows, device), too_long
