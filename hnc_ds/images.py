"""Open image bytes with Pillow: check the header, then decode to RGB.

Reads JPEG, PNG, WebP, TIFF, BMP and GIF of one frame. The declared size is checked against the
memory that decoding and resizing take, so a small file cannot exhaust it. Uses no torch;
shards/images.py decodes to tensors.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

JPEG = ("JPEG", "MPO")
"""MPO, written by cameras, is a JPEG followed by further images."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
)  # fmt: skip
"""File suffixes in any case. Of several files of one name in a folder, the first is used."""

MOST_BYTES = 900 * 2**20
"""Maximum memory for decoding and resizing an image."""

BYTES_PER_PIXEL = dict.fromkeys(JPEG, 10)
"""Peak for a progressive colour JPEG: 9.2 measured."""
OTHER_BYTES_PER_PIXEL = 14
"""10.1 measured: Pillow's storage, its RGB copy, the tensor and the file."""

MOST_SIDE = 65_500
"""Maximum pixels of a side, libjpeg's limit: resizing longer sides takes additional memory."""

MOST_FILE_BYTES = 2**28
"""Maximum bytes of an encoded image."""

LONGEST_REASON = 160  # characters

_JPEG_SIZE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers SOF0 to SOF15, which declare the size; ITU T.81, table B.1."""

Fault = Literal["corrupt image", "image of several frames", "image too large", "image of no use"]
TOO_LARGE: Fault = "image too large"


class CorruptImage(Exception):
    """The bytes are not a usable image; the text is the reason, in one line."""

    def __init__(self, reason: str, fault: Fault = "corrupt image") -> None:
        super().__init__(reason)
        self.fault = fault


logging.getLogger("PIL").addHandler(logging.NullHandler())  # errors are raised, not printed


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        CorruptImage: It is too large for an image.
        OSError: It cannot be read.
    """
    if (size := path.stat().st_size) > MOST_FILE_BYTES:
        raise CorruptImage(f"a file of {size / 1e9:.1f} GB, too large for an image", TOO_LARGE)
    return path.read_bytes()


def open_image(data: bytes) -> Image.Image:
    """Open an image without decoding its pixels (``as_rgb`` does).

    Raises:
        CorruptImage: Not an image, of an unsupported format, of several frames, or too large.
    """
    with _pillow_errors():
        image = Image.open(BytesIO(data), formats=FORMATS)
        check_size(image.format or "", *image.size)
        if image.format not in JPEG and getattr(image, "is_animated", False):
            several = "pages" if image.format == "TIFF" else "frames"
            raise CorruptImage(
                f"a {image.format} of several {several}; save one of them as an image",
                "image of several frames",
            )
        return image


def as_rgb(image: Image.Image) -> Image.Image:
    """Decode to RGB of 8 bits, like Pillow's ``convert``.

    Grey images of 16 bits keep their upper eight, as Pillow does for colour; ``convert`` would clip
    them to white.

    Raises:
        CorruptImage: Damaged, or of 32 bits per pixel.
    """
    with _pillow_errors():
        image.load()
        if image.mode == "RGB":
            return image
        if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
            grey = np.right_shift(np.asarray(image), 8).astype(np.uint8)
            return Image.fromarray(grey).convert("RGB")
        if image.mode in ("I", "F"):
            raise CorruptImage(
                "pixels of 32 bits with an unknown white level; save it with 8 bits",
                "image of no use",
            )
        return image.convert("RGB")


def read_rgb(data: bytes) -> Image.Image:
    """``open_image`` and ``as_rgb``."""
    return as_rgb(open_image(data))


def check_size(format: str, width: int, height: int) -> None:
    """Check that decoding an image fits into MOST_BYTES.

    Args:
        format: Pillow's name of the format.
        width: Declared width in pixels.
        height: Declared height in pixels.

    Raises:
        CorruptImage: It does not.
    """
    most = MOST_BYTES // BYTES_PER_PIXEL.get(format, OTHER_BYTES_PER_PIXEL)
    if width * height > most or max(width, height) > MOST_SIDE:
        raise CorruptImage(
            f"{width} x {height} pixels; at most {most / 1e6:.0f} million and {MOST_SIDE:,} on a "
            "side are read",
            TOO_LARGE,
        )


def check_box(box: tuple[int, int, int, int]) -> None:
    """Raise CorruptImage for a crop (left, top, right, bottom) that is empty or too large.

    A crop may extend beyond the image's edges.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        raise CorruptImage(f"the box {box} is empty")
    try:
        check_size("", width, height)
    except CorruptImage as error:
        raise CorruptImage(f"the box {box}: {error}", TOO_LARGE) from error


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG declares; None for other data or unusual markers before the size.

    Takes a microsecond; Pillow takes 20, and more with Exif.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, end = 2, len(data) - 9
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_SIZE:
            return data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xE0 <= marker <= 0xEF or marker in (0xC4, 0xCC, 0xDB, 0xDD, 0xFE):
            at += 2 + (data[at + 2] << 8 | data[at + 3])
        else:
            return None
    return None


@contextmanager
def _pillow_errors() -> Iterator[None]:
    """Raise Pillow's errors as CorruptImage; suppress its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise CorruptImage(_reason(error), TOO_LARGE) from error
    except UnidentifiedImageError as error:
        raise CorruptImage(
            f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or damaged at its start"
        ) from error
    except (
        OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, EOFError,
        ArithmeticError, MemoryError, RuntimeError, struct.error, zlib.error,
    ) as error:  # fmt: skip
        raise CorruptImage(_reason(error)) from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
