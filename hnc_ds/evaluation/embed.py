"""Encode every image and every distinct caption of a set exactly once.

Worker processes decode images with the model's evaluation preprocessing. Rows are encoded in chunks
with fixed boundaries, independent of batch size and number of ranks, because a matrix product of
another height may round differently. Ranks take turns at chunks, and all ranks get all rows.

Weights and embeddings that are not finite are refused: comparisons with NaN are false, so scores
that count comparisons would look valid, even perfect.

N readable images, T captions, width D.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from hnc_ds.distributed import (
    all_gather_object,
    all_gather_uneven,
    raise_on_all_ranks,
    rank,
    world_size,
)
from hnc_ds.errors import UserError
from hnc_ds.evaluation.corruptions import corrupt
from hnc_ds.evaluation.results import fingerprint
from hnc_ds.images import CorruptImage
from hnc_ds.model.clip import Clip
from hnc_ds.shards.images import ImageSettings, decode_image, evaluation_view
from hnc_ds.shards.reader import ShardReader
from hnc_ds.worker_processes import FORK

IMAGES_AT_ONCE, TEXTS_AT_ONCE = 64, 256
"""Rows of a chunk."""


@dataclass(frozen=True)
class SeenImages:
    """Which images of a set can be decoded."""

    samples: tuple[int, ...]
    """Indices of the readable images, ascending."""
    unreadable: tuple[int, ...]


@dataclass(frozen=True)
class EmbeddedImages(SeenImages):
    """Embeddings of a set's images."""

    image_ND: torch.Tensor
    """float32, unit rows, in the order of `samples`."""


class ImageBatch(NamedTuple):
    """Images in order."""

    samples: torch.Tensor
    """Indices, int64 [B]."""
    readable_B: torch.Tensor
    """bool; unreadable images are black."""
    images_B3RR: torch.Tensor
    """uint8."""


class ImageSource(Protocol):
    """Images by index; can be sent to worker processes."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Unique name of an image."""
        ...

    def image(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        ...

    def identity(self) -> str:
        """sha256 that changes with the images or their order."""
        ...


class ShardImages:
    """Images of shards."""

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        """The key of the sample."""
        return self._reader.key(index)

    def image(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        return decode_image(self._reader.image_bytes(index))

    def identity(self) -> str:
        """Fingerprint of the shards."""
        return fingerprint(self._reader.index)


class Corruption(NamedTuple):
    """A corruption of images, applied after resizing and before normalization."""

    corruption: str
    severity: int
    seed: int


class _Views(Dataset[tuple[int, bool, torch.Tensor]]):
    """Index -> (index, whether the image is readable, uint8 [3, R, R])."""

    def __init__(
        self, images: ImageSource, settings: ImageSettings, corruption: Corruption | None
    ) -> None:
        self._images = images
        self._settings = settings
        self._corruption = corruption

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[int, bool, torch.Tensor]:
        try:
            image_3HW = self._images.image(index)
        except CorruptImage:
            side = self._settings.size
            return index, False, torch.zeros(3, side, side, dtype=torch.uint8)
        view_3RR = evaluation_view(image_3HW, self._settings)
        if self._corruption is not None:
            image_RR3 = view_3RR.permute(1, 2, 0).numpy()
            corrupted = corrupt(image_RR3, *self._corruption, name=self._images.name(index))
            view_3RR = torch.from_numpy(corrupted).permute(2, 0, 1)
        return index, True, view_3RR


def _collate(batch: list[tuple[int, bool, torch.Tensor]]) -> ImageBatch:
    samples, readable, images = zip(*batch, strict=True)
    return ImageBatch(torch.tensor(samples), torch.tensor(readable), torch.stack(images))


def image_batches_of(
    images: ImageSource,
    settings: ImageSettings,
    device: torch.device,
    *,
    batch: int,
    workers: int,
    corruption: Corruption | None = None,
    shared: bool = True,
) -> Iterable[ImageBatch]:
    """This rank's images in batches; decoded again at each iteration.

    Args:
        images: Images of all ranks.
        settings: Preprocessing.
        device: Device that encodes them.
        batch: Images per batch, rounded up to whole chunks.
        workers: Processes that read and decode.
        corruption: Applied to every image.
        shared: Ranks take turns at chunks; else this rank reads all of them.
    """
    batch = -(-batch // IMAGES_AT_ONCE) * IMAGES_AT_ONCE
    own = list(range(len(images)))
    if shared:
        own = [index for chunk in _own_chunks(len(images), IMAGES_AT_ONCE) for index in chunk]
    workers = min(workers, -(-len(own) // batch))
    return DataLoader(
        Subset(_Views(images, settings, corruption), own),
        batch_size=batch,
        num_workers=workers,
        multiprocessing_context=FORK if workers else None,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )


def _own_chunks(rows: int, at_once: int) -> list[range]:
    """Chunks of this rank."""
    starts = range(0, rows, at_once)
    return [range(start, min(start + at_once, rows)) for start in starts[rank() :: world_size()]]


def encode_image_batches(
    model: Clip, image_batches: Iterable[ImageBatch], device: torch.device
) -> EmbeddedImages:
    """Encode images; unreadable ones are left out. A collective.

    Args:
        model: On the device.
        image_batches: Images of this rank.
        device: Device of the embeddings.
    """
    image_ND, samples_N, readable_N = (
        all_gather_uneven(part)
        for part in raise_on_all_ranks(lambda: _encode_own(model, image_batches, device))
    )
    order_N = samples_N.argsort()
    readable_N = readable_N[order_N]
    samples_N = samples_N[order_N]
    return EmbeddedImages(
        tuple(samples_N[readable_N].tolist()),
        tuple(samples_N[~readable_N].tolist()),
        image_ND[order_N[readable_N]],
    )


@torch.inference_mode()
def _encode_own(
    model: Clip, image_batches: Iterable[ImageBatch], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, indices, and whether each image is readable, on the device."""
    rows, samples, readable = [], [], []
    disable = None if rank() == 0 else True
    for batch in tqdm(image_batches, "images", unit="batch", disable=disable):
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
    """Encode captions, sorted by length to reduce padding. A collective.

    Args:
        model: On the device.
        captions: Distinct texts.
        device: Device of the embeddings.

    Returns:
        float32 [T, D] unit rows in the order of `captions`, and how many captions were truncated
        at the model's context length.
    """
    order = sorted(range(len(captions)), key=lambda row: (len(captions[row]), captions[row]))
    own = [[order[place] for place in chunk] for chunk in _own_chunks(len(order), TEXTS_AT_ONCE)]
    rows_TD, too_long = raise_on_all_ranks(lambda: _encode_own_texts(model, captions, own, device))
    numbers = torch.tensor([number for chunk in own for number in chunk], device=device)
    found_TD, number_T = all_gather_uneven(rows_TD), all_gather_uneven(numbers.long())
    text_TD = torch.empty_like(found_TD)
    text_TD[number_T] = found_TD
    return text_TD, sum(all_gather_object(too_long))


@torch.inference_mode()
def _encode_own_texts(
    model: Clip, captions: Sequence[str], chunks: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, int]:
    """Rows in the order of the chunks, and how many captions were truncated."""
    rows, too_long = [], 0
    disable = None if rank() == 0 else True
    for chunk in tqdm(chunks, "captions", unit="batch", disable=disable):
        chosen = [captions[number] for number in chunk]
        token_TL = model.tokenize(chosen)
        if token_TL.shape[1] >= model.tokenize.context_length:  # else none is truncated
            too_long += sum(model.tokenize.is_too_long(caption) for caption in chosen)
        rows.append(model.encode_texts(token_TL.to(device)).float())
    return _joined(rows, device), too_long


NOT_FINITE = "is not finite (NaN or infinity)"
_SHOWN = 60
"""Maximum characters of a caption in a message."""


def refuse_broken_weights(model: nn.Module, name: str) -> None:
    """Check a model's parameters.

    Args:
        model: On any device.
        name: Name of the model, for the message.

    Raises:
        UserError: A parameter is not finite.
    """
    broken = list(_broken(model))
    if broken:
        more = f", and {len(broken) - 1} more {'is' if len(broken) == 2 else 'are'} not"
        raise UserError(
            f"{name}: the weight {broken[0]} {NOT_FINITE}{more if len(broken) > 1 else ''}; "
            "take an earlier checkpoint, or copy the file again"
        )


def refuse_broken_rows(
    rows_ND: torch.Tensor, kind: str, name_of: Callable[[int], str], model: Clip, name: str
) -> None:
    """Check embeddings.

    Args:
        rows_ND: Embeddings.
        kind: 'image' or 'text'.
        name_of: Image or caption of a row, for the message.
        model: Model that encoded them.
        name: Name of the model, for the message.

    Raises:
        UserError: An embedding is not finite; names a weight that is not finite, if there is one.
    """
    broken = (~torch.isfinite(rows_ND)).any(dim=-1).nonzero().view(-1).tolist()
    if not broken:
        return
    weight = next(_broken(model), None)
    why = f"its weight {weight} {NOT_FINITE}" if weight else "its weights are all finite"
    raise UserError(
        f"{name}: the {kind} embedding of {name_of(broken[0])} {NOT_FINITE}, of {len(broken):,} of "
        f"{len(rows_ND):,} in all; {why}; evaluate another checkpoint or model"
    )


def shown(caption: str) -> str:
    """A caption for a message, shortened."""
    return f"'{caption}'" if len(caption) <= _SHOWN else f"'{caption[:_SHOWN]}...'"


def _broken(model: nn.Module) -> Iterator[str]:
    """Names of parameters that are not finite, as in open_clip."""
    for name, parameter in getattr(model, "towers", model).named_parameters():
        if not torch.isfinite(parameter).all():
            yield name
