"""JPEG bytes -> uint8 tensors of a model's input size. Normalising is left to the device.

The evaluation view is open_clip's: shorter side to the model's size (bicubic, antialiased),
centre crop. The training view is its random resized crop, drawn from the caller's generator.
"""

import io
import math
import random
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

INTERPOLATIONS = {
    "bicubic": v2.InterpolationMode.BICUBIC,
    "bilinear": v2.InterpolationMode.BILINEAR,
}

RESIZE_MODES = ("shortest", "squash")

MOST_PIXELS = 2**28
"""Of a picture from anywhere: 16,384 on a side, 0.8 GB decoded."""


class CorruptImage(Exception):
    """The bytes are not a picture that can be decoded."""


@dataclass(frozen=True)
class ImageSettings:
    """What a model expects of its input pictures."""

    size: int
    """Pixels on a side (R)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of the channels, for values in [0, 1]."""

    interpolation: str = "bicubic"
    """A key of INTERPOLATIONS."""

    resize_mode: str = "shortest"
    """'shortest' keeps the aspect ratio and crops the centre; 'squash' stretches (SigLIP)."""


def decode_jpeg(data: bytes) -> torch.Tensor:
    """Decode a picture to RGB.

    Returns:
        uint8 [3, height, width].

    Raises:
        CorruptImage: Undecodable by both torchvision and Pillow.
    """
    try:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_image(buffer, ImageReadMode.RGB)
    except (RuntimeError, ValueError):  # CMYK and other rarities, or damage
        return _decode_with_pillow(data)


def _decode_with_pillow(data: bytes) -> torch.Tensor:
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptImage(str(error)) from error
    return functional.pil_to_tensor(picture)


def decode_untrusted(data: bytes) -> torch.Tensor:
    """``decode_jpeg`` for pictures from anywhere: one that would fill the memory is refused.

    Raises:
        CorruptImage: Undecodable, or of more than MOST_PIXELS.
    """
    try:
        width, height = Image.open(io.BytesIO(data)).size  # reads no more than the header
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptImage(str(error)) from error
    if width * height > MOST_PIXELS:
        raise CorruptImage(f"{width} x {height} pixels, more than {MOST_PIXELS:,}")
    return decode_jpeg(data)


def cut_out(image_3HW: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    """The part of a picture within left, top, right, bottom; black beyond its edges, as Pillow has
    it.

    Raises:
        CorruptImage: There is nothing within.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise CorruptImage(f"the box {box} is empty")
    return functional.crop(image_3HW, top, left, bottom - top, right - left)


def evaluation_view(image_3HW: torch.Tensor, settings: ImageSettings) -> torch.Tensor:
    """The picture as the model sees it in evaluation: resized, then its centre.

    Returns:
        uint8 [3, R, R].
    """
    height, width = image_3HW.shape[1:]
    if (height, width) == (settings.size, settings.size):
        return image_3HW
    resized = functional.resize(
        image_3HW,
        [settings.size] * (2 if settings.resize_mode == "squash" else 1),
        interpolation=INTERPOLATIONS[settings.interpolation],
        antialias=True,
    )
    return functional.center_crop(resized, [settings.size])


def training_view(
    image_3HW: torch.Tensor, settings: ImageSettings, smallest_area: float, rng: random.Random
) -> torch.Tensor:
    """A random crop of at least ``smallest_area`` of the picture, stretched to the model's size.

    Never mirrored: left and right are what is being taught.

    Returns:
        uint8 [3, R, R].

    Source: random resized crop as in open_clip's training transform (area drawn uniformly,
    aspect ratio log-uniformly from 3/4 to 4/3).
    """
    if smallest_area >= 1:
        return evaluation_view(image_3HW, settings)
    top, left, height, width = _draw_crop(
        image_3HW.shape[1], image_3HW.shape[2], smallest_area, rng
    )
    return functional.resized_crop(
        image_3HW,
        top,
        left,
        height,
        width,
        [settings.size, settings.size],
        interpolation=INTERPOLATIONS[settings.interpolation],
        antialias=True,
    )


def _draw_crop(
    height: int, width: int, smallest_area: float, rng: random.Random
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop; the centre when ten draws do not fit."""
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
