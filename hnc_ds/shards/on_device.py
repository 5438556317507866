"""JPEGs that workers hand over as they are, and the device decodes, crops and resizes.

For nodes with few cores a GPU. Another decoder (nvJPEG) and resizing in float32 give pixels that
differ from those of a CPU by rounding, so a run keeps to what it began with; ``check`` compares
both before the first step. No GPU was at hand when this was written.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from hnc_ds.errors import UserError
from hnc_ds.images import CorruptImage, check_size, jpeg_size
from hnc_ds.shards.images import Box, ImageSettings, decode_image, evaluation_view, view_of

PIXELS_AT_ONCE = 2**26
"""Decoded at a time, of 3 bytes each, so that a part of large images does not fill the device."""

MOST_DIFFERENCE = 2.0
"""Of 255, on average between an image decoded by the device and by the CPU: another rounding is a
fraction of 1, another order of channels or another crop is more than 10."""


class Jpeg(NamedTuple):
    """An image that the device decodes."""

    data: bytes
    height: int
    width: int
    box: Box | None = None
    """The part that is stretched to the model's size; without one it is seen as in evaluation."""


class Place(NamedTuple):
    """Where a JPEG lies among others, and which row it becomes."""

    row: int
    start: int
    end: int
    pixels: int
    box: Box | None


class Encoded(NamedTuple):
    """The images of some rows on their way to the device."""

    jpegs_N: torch.Tensor
    """uint8: one after the other."""
    places: list[Place]
    views_B3RR: torch.Tensor
    """uint8: those that a worker had to decode."""
    view_rows: list[int]


def as_jpeg(data: bytes) -> Jpeg | None:
    """What the device can decode; None where the CPU should try.

    Raises:
        CorruptImage: It declares to be too large.
    """
    if (size := jpeg_size(data)) is None:
        return None
    check_size("JPEG", *size)
    return Jpeg(data, size[1], size[0])


def encoded(images: Sequence[Jpeg | torch.Tensor], size: int) -> Encoded:
    """Images in one piece, as each tensor costs a file on its way."""
    places, at = list[Place](), 0
    for row, image in enumerate(images):
        if isinstance(image, Jpeg):
            end = at + len(image.data)
            places.append(Place(row, at, end, image.height * image.width, image.box))
            at = end
    data = bytearray().join(image.data for image in images if isinstance(image, Jpeg))
    jpegs_N = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
    seen = {row: image for row, image in enumerate(images) if isinstance(image, torch.Tensor)}
    views_B3RR = torch.stack(list(seen.values())) if seen else torch.empty(0, 3, size, size).byte()
    return Encoded(jpegs_N, places, views_B3RR, list(seen))


class DeviceDecoder:
    """Decodes on a device, in a stream of its own, for one thread; for the stream that was current
    where it was made.

    Args:
        settings: Of the model.
        device: Where images are wanted.
    """

    def __init__(self, settings: ImageSettings, device: torch.device) -> None:
        self._settings, self._device = settings, device
        is_cuda = device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(device) if is_cuda else None
        self._reader: Any = torch.cuda.current_stream(device) if is_cuda else None

    def part(self, part: Encoded) -> torch.Tensor:
        """The images of some rows, uint8 [rows, 3, R, R], which the device may still be making.

        Raises:
            UserError: One of them cannot be decoded by anybody.
        """
        with self._in_stream():
            return self._views(part)

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Parts one after the other, done when this returns."""
        with self._in_stream():
            images_B3RR = torch.cat(list(parts))
            self._wait()
        if self._reader:
            images_B3RR.record_stream(self._reader)  # else its memory is the next batch's too soon
        return images_B3RR

    def _in_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def _views(self, part: Encoded) -> torch.Tensor:
        size, rows = self._settings.size, len(part.places) + len(part.view_rows)
        shape = (rows, 3, size, size)
        views_B3RR = torch.empty(shape, device=self._device)
        if part.view_rows:
            views_B3RR[part.view_rows] = part.views_B3RR.to(self._device).float()
        for places in _groups(part.places):
            images = self._decoded([part.jpegs_N[place.start : place.end] for place in places])
            for place, image_3HW in zip(places, images, strict=True):
                views_B3RR[place.row] = self._view(image_3HW, place.box)
        return views_B3RR.round_().clamp_(0, 255).to(torch.uint8)

    def _decoded(self, jpegs: list[torch.Tensor]) -> list[torch.Tensor]:
        # torchvision writes into memory that the stream has freed but may still be reading
        # (https://github.com/pytorch/vision/pull/9606).
        self._wait()
        try:
            return _decode(jpegs, self._device)
        except (RuntimeError, ValueError):  # a rarity among them, which the CPU may know
            if len(jpegs) > 1:
                return [image for jpeg in jpegs for image in self._decoded([jpeg])]
        try:
            return [decode_image(jpegs[0].numpy().tobytes()).to(self._device)]
        except CorruptImage as error:
            raise UserError(
                f"an image of the shards cannot be decoded ({error}); pack them again"
            ) from error

    def _view(self, image_3HW: torch.Tensor, box: Box | None) -> torch.Tensor:
        """float32 [3, R, R], before rounding."""
        if box is None:
            return evaluation_view(image_3HW, self._settings).float()
        top, left, height, width = box
        part_3HW = image_3HW[:, top : top + height, left : left + width]
        size, mode = self._settings.size, self._settings.interpolation
        return F.interpolate(part_3HW[None].float(), (size, size), mode=mode, antialias=True)[0]

    def _wait(self) -> None:
        if self._stream:
            self._stream.synchronize()


def check(settings: ImageSettings, image: bytes, device: torch.device) -> None:
    """Whether the device decodes as the CPU does, tried on an image.

    Raises:
        UserError: It does not, or cannot.
    """
    if device.type != "cuda":
        raise UserError(f"--decode gpu needs a CUDA device; this is {device.type}, leave it out")
    compare(settings, image, device)


def compare(settings: ImageSettings, image: bytes, device: torch.device) -> None:
    """``check`` on any device.

    Raises:
        UserError: As ``check``.
    """
    jpeg = as_jpeg(image)
    if jpeg is None:
        raise UserError("--decode gpu: the first image of the shards is no JPEG that can be read")
    box = (jpeg.height // 8, jpeg.width // 4, jpeg.height - jpeg.height // 4, jpeg.width // 2)
    try:
        (decoded_3HW,) = _decode([torch.frombuffer(bytearray(image), dtype=torch.uint8)], device)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--decode gpu: torchvision cannot ({reason}); leave it out") from error
    decoder = DeviceDecoder(settings, device)
    found = decoder.joined([decoder.part(encoded([jpeg._replace(box=box)], settings.size))])
    expected_3HW = decode_image(image)
    pairs = [
        (decoded_3HW.cpu(), expected_3HW),
        (found[0].cpu(), view_of(expected_3HW, settings, box)),
    ]
    for one, other in pairs:
        same = one.shape == other.shape
        apart = float((one.float() - other.float()).abs().mean()) if same else float("inf")
        if apart >= MOST_DIFFERENCE:
            raise UserError(
                f"--decode gpu: pixels differ from the CPU's by {apart:.1f} of 255 on average; "
                "leave it out"
            )


def _decode(jpegs: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """uint8 [3, height, width] each."""
    found: Any = decode_jpeg(jpegs, ImageReadMode.RGB, device=device)
    return list(found)


def _groups(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Places of few enough pixels to be decoded together; a large image goes alone."""
    group, pixels = list[Place](), 0
    for place in places:
        if group and pixels + place.pixels > PIXELS_AT_ONCE:
            yield group
            group, pixels = [], 0
        group.append(place)
        pixels += place.pixels
    if group:
        yield group
