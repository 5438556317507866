"""Image bytes -> uint8 tensors of a model's input size. Normalization happens on the device.

The evaluation view is open_clip's: shorter side to the model's size (bicubic, antialiased),
centre crop. The training view is its random resized crop, drawn from the caller's generator.

With --decode gpu, for nodes with few cores per GPU, workers pass JPEGs through, and the GPU
decodes, crops and resizes. nvJPEG and resizing in float32 give pixels that differ from the CPU's by
rounding, so a run cannot change the setting; ``check_gpu`` compares both before the first step. Not
yet run on a GPU.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hnc_ds.errors import UserError
from hnc_ds.images import CorruptImage, check_box, check_size, jpeg_size, read_rgb

INTERPOLATIONS = {
    "bicubic": v2.InterpolationMode.BICUBIC,
    "bilinear": v2.InterpolationMode.BILINEAR,
}

RESIZE_MODES = ("shortest", "squash")

MOST_ASPECT = 64
"""Aspect ratio above which the middle is cropped before resizing: 30,000 x 2 pixels would be
resized to 3,360,000 x 224, of which the middle 224 are used."""


Box = tuple[int, int, int, int]
"""Top, left, height and width of a crop, in pixels."""


@dataclass(frozen=True)
class ImageSettings:
    """A model's preprocessing of images."""

    size: int
    """Pixels on a side (R)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    interpolation: str = "bicubic"
    """A key of INTERPOLATIONS."""

    resize_mode: str = "shortest"
    """'shortest' keeps the aspect ratio and crops the centre; 'squash' stretches (SigLIP); 'pad'
    adds the mean colour on both sides (LLaVA-1.5)."""


def decode_image(data: bytes) -> torch.Tensor:
    """Decode an image to RGB, JPEGs with torchvision, others with Pillow.

    Returns:
        uint8 [3, height, width].

    Raises:
        CorruptImage: As ``open_image`` and ``as_rgb``.
    """
    if (size := jpeg_size(data)) is not None:
        check_size("JPEG", *size)
        try:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_jpeg(buffer, ImageReadMode.RGB)
        except (RuntimeError, ValueError):  # unsupported or damaged; Pillow decides
            pass
    return functional.pil_to_tensor(read_rgb(data))


def cut_out(image_3HW: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    """Crop an image to (left, top, right, bottom); black beyond its edges, as Pillow's crop.

    Raises:
        CorruptImage: The crop is empty or too large.
    """
    check_box(box)
    left, top, right, bottom = box
    return functional.crop(image_3HW, top, left, bottom - top, right - left)


def evaluation_view(image_3HW: torch.Tensor, settings: ImageSettings) -> torch.Tensor:
    """Preprocess an image for evaluation: resize, then centre crop.

    Returns:
        uint8 [3, R, R].
    """
    height, width = image_3HW.shape[1:]
    if (height, width) == (settings.size, settings.size):
        return image_3HW
    if settings.resize_mode == "pad":
        image_3HW = _padded(image_3HW, settings)
    resized = functional.resize(
        image_3HW if settings.resize_mode == "squash" else _without_far_ends(image_3HW),
        [settings.size] * (2 if settings.resize_mode == "squash" else 1),
        interpolation=INTERPOLATIONS[settings.interpolation],
        antialias=True,
    )
    return functional.center_crop(resized, [settings.size])


LONGEST_PADDED = 7168
"""Pixels; longer images are downscaled before they are padded, as the square would be too large."""


def _padded(image_3HW: torch.Tensor, settings: ImageSettings) -> torch.Tensor:
    """The image in the middle of a square of the mean colour."""
    height, width = image_3HW.shape[1:]
    if (side := max(height, width)) > LONGEST_PADDED:
        sides = [max(1, round(length * LONGEST_PADDED / side)) for length in (height, width)]
        image_3HW = functional.resize(
            image_3HW, sides, interpolation=INTERPOLATIONS[settings.interpolation], antialias=True
        )
        (height, width), side = sides, LONGEST_PADDED
    left, top = (side - width) // 2, (side - height) // 2
    fill = [int(255 * mean) for mean in settings.mean]
    ends = [left, top, side - width - left, side - height - top]
    return functional.pad(image_3HW, ends, fill=fill)


def _without_far_ends(image_3HW: torch.Tensor) -> torch.Tensor:
    """The middle of a very long image, around the same centre."""
    height, width = image_3HW.shape[1:]
    most = MOST_ASPECT * min(height, width)
    if max(height, width) <= most:
        return image_3HW
    # The same number of pixels is cut at both ends.
    sides = [side if side <= most else most + (side - most) % 2 for side in (height, width)]
    return functional.center_crop(image_3HW, sides)


def training_view(
    image_3HW: torch.Tensor, settings: ImageSettings, smallest_area: float, rng: random.Random
) -> torch.Tensor:
    """A random crop of at least ``smallest_area`` of the image, stretched to the model's size.

    Never flipped, as captions name left and right.

    Returns:
        uint8 [3, R, R].

    Source: random resized crop as in open_clip's training transform (area drawn uniformly,
    aspect ratio log-uniformly from 3/4 to 4/3).
    """
    box = training_box(image_3HW.shape[1], image_3HW.shape[2], smallest_area, rng)
    return view_of(image_3HW, settings, box)


def training_box(height: int, width: int, smallest_area: float, rng: random.Random) -> Box | None:
    """The training crop; None for the evaluation view."""
    return None if smallest_area >= 1 else _draw_crop(height, width, smallest_area, rng)


def view_of(image_3HW: torch.Tensor, settings: ImageSettings, box: Box | None) -> torch.Tensor:
    """A crop resized to the model's size; uint8 [3, R, R]."""
    if box is None:
        return evaluation_view(image_3HW, settings)
    return functional.resized_crop(
        image_3HW,
        *box,
        [settings.size, settings.size],
        interpolation=INTERPOLATIONS[settings.interpolation],
        antialias=True,
    )


def _draw_crop(height: int, width: int, smallest_area: float, rng: random.Random) -> Box:
    """A random crop; the centre square if ten draws do not fit."""
    for _ in range(10):
        area = height * width * rng.uniform(smallest_area, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width = round(math.sqrt(area * ratio))
        crop_height = round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = rng.randint(0, height - crop_height)
            left = rng.randint(0, width - crop_width)
            return top, left, crop_height, crop_width
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


PIXELS_AT_ONCE = 2**26
"""Pixels to decode at a time, of 3 bytes each, to bound the device's memory."""

MOST_DIFFERENCE = 2.0
"""Allowed mean difference of pixels between device and CPU, of 255: rounding gives a fraction of 1,
another order of channels or another crop more than 10."""


class Jpeg(NamedTuple):
    """An image that the device decodes."""

    data: bytes
    height: int
    width: int
    box: Box | None = None
    """The training crop; None for the evaluation view."""


class Place(NamedTuple):
    """Position of a JPEG in ``Encoded.jpegs_N``, and its row of the batch."""

    row: int
    start: int
    end: int
    pixels: int
    box: Box | None


class Encoded(NamedTuple):
    """The images of some rows before decoding."""

    jpegs_N: torch.Tensor
    """uint8: concatenated JPEGs."""
    places: list[Place]
    views_B3RR: torch.Tensor
    """uint8: images that a worker had to decode."""
    view_rows: list[int]


def as_jpeg(data: bytes) -> Jpeg | None:
    """A JPEG for the device; None for images that the CPU must decode.

    Raises:
        CorruptImage: The image is too large.
    """
    if (size := jpeg_size(data)) is None:
        return None
    check_size("JPEG", *size)
    return Jpeg(data, size[1], size[0])


def encoded(images: Sequence[Jpeg | torch.Tensor], size: int) -> Encoded:
    """Concatenate images, as each tensor takes a file in shared memory."""
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
    """Decodes on a device in its own CUDA stream, for one thread and for the stream that is current
    at its creation.

    Args:
        settings: The model's preprocessing.
        device: Target device.
    """

    def __init__(self, settings: ImageSettings, device: torch.device) -> None:
        self._settings, self._device = settings, device
        is_cuda = device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(device) if is_cuda else None
        self._reader: Any = torch.cuda.current_stream(device) if is_cuda else None

    def part(self, part: Encoded) -> torch.Tensor:
        """The images of some rows, uint8 [rows, 3, R, R], possibly still being computed.

        Raises:
            UserError: An image can be decoded neither by the device nor by the CPU.
        """
        with self._in_stream():
            return self._views(part)

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Concatenated parts; synchronizes."""
        with self._in_stream():
            images_B3RR = torch.cat(list(parts))
            self._wait()
        if self._reader:
            images_B3RR.record_stream(self._reader)  # else its memory may be reused too early
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
        # torchvision may write into memory that the stream has freed but still reads
        # (https://github.com/pytorch/vision/pull/9606).
        self._wait()
        try:
            return _decode(jpegs, self._device)
        except (RuntimeError, ValueError):  # an unsupported JPEG, which the CPU may decode
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


def check_gpu(settings: ImageSettings, image: bytes, device: torch.device) -> None:
    """Raise UserError unless the CUDA device decodes an image as the CPU does."""
    if device.type != "cuda":
        raise UserError(f"--decode gpu needs a CUDA device; this is {device.type}, leave it out")
    compare_decoders(settings, image, device)


def compare_decoders(settings: ImageSettings, image: bytes, device: torch.device) -> None:
    """``check_gpu`` on any device."""
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
    """Images, uint8 [3, height, width] each."""
    found: Any = decode_jpeg(jpegs, ImageReadMode.RGB, device=device)
    return list(found)


def _groups(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Groups of at most PIXELS_AT_ONCE pixels; a larger image forms its own group."""
    group, pixels = list[Place](), 0
    for place in places:
        if group and pixels + place.pixels > PIXELS_AT_ONCE:
            yield group
            group, pixels = [], 0
        group.append(place)
        pixels += place.pixels
    if group:
        yield group
