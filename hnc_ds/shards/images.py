"""Image bytes -> uint8 tensors of a model's input size. Normalising is left to the device.

The evaluation view is open_clip's: shorter side to the model's size (bicubic, antialiased),
centre crop. The training view is its random resized crop, drawn from the caller's generator.
"""

import math
import random
from dataclasses import dataclass

import torch
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hnc_ds.images import check_box, check_size, jpeg_size, read_rgb

INTERPOLATIONS = {
    "bicubic": v2.InterpolationMode.BICUBIC,
    "bilinear": v2.InterpolationMode.BILINEAR,
}

RESIZE_MODES = ("shortest", "squash")

MOST_ASPECT = 64
"""Times that an image may be as long as it is wide before its middle is cut out first. Resized
whole, 30,000 x 2 pixels would become 3,360,000 x 224, of which the middle 224 are seen."""


Box = tuple[int, int, int, int]
"""Top, left, height and width of a part of an image, in pixels."""


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


def decode_image(data: bytes) -> torch.Tensor:
    """Decode an image to RGB: a JPEG by torchvision, all else by Pillow.

    Returns:
        uint8 [3, height, width].

    Raises:
        CorruptImage: As ``open_image`` and ``as_rgb``; nothing is decoded that is too large.
    """
    if (size := jpeg_size(data)) is not None:
        check_size("JPEG", *size)
        try:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_jpeg(buffer, ImageReadMode.RGB)
        except (RuntimeError, ValueError):  # rarities, or damage
            pass
    return functional.pil_to_tensor(read_rgb(data))


def cut_out(image_3HW: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    """The part of a picture within left, top, right, bottom; black beyond its edges, as Pillow has
    it.

    Raises:
        CorruptImage: There is nothing within, or too much.
    """
    check_box(box)
    left, top, right, bottom = box
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
        image_3HW if settings.resize_mode == "squash" else _without_far_ends(image_3HW),
        [settings.size] * (2 if settings.resize_mode == "squash" else 1),
        interpolation=INTERPOLATIONS[settings.interpolation],
        antialias=True,
    )
    return functional.center_crop(resized, [settings.size])


def _without_far_ends(image_3HW: torch.Tensor) -> torch.Tensor:
    """The middle of an image that is too long to be resized whole, around the same centre."""
    height, width = image_3HW.shape[1:]
    most = MOST_ASPECT * min(height, width)
    if max(height, width) <= most:
        return image_3HW
    # Cut by as much at both ends.
    sides = [side if side <= most else most + (side - most) % 2 for side in (height, width)]
    return functional.center_crop(image_3HW, sides)


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
    box = training_box(image_3HW.shape[1], image_3HW.shape[2], smallest_area, rng)
    return view_of(image_3HW, settings, box)


def training_box(height: int, width: int, smallest_area: float, rng: random.Random) -> Box | None:
    """The part of an image that training sees; None where it is as in evaluation."""
    return None if smallest_area >= 1 else _draw_crop(height, width, smallest_area, rng)


def view_of(image_3HW: torch.Tensor, settings: ImageSettings, box: Box | None) -> torch.Tensor:
    """A part of an image, stretched to the model's size; uint8 [3, R, R]."""
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
    """A random crop; the centre when ten draws do not fit."""
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
