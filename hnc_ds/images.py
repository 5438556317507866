"""The one place that opens the bytes of an image: looked at before it is decoded, then as RGB.

JPEG, PNG, WebP, TIFF, BMP and GIF, of one frame each. What a header declares is held against the
memory that decoding and resizing would take, so a small file cannot fill the machine. No torch
here: decoding to tensors and a model's view of them are in shards/images.py.
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
"""MPO is a JPEG with further images behind the first one, as cameras write it."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
)  # fmt: skip
"""Of files that hold them, in any case. Where one folder has several of one name, the first."""

MOST_BYTES = 900 * 2**20
"""That an image may take while it is decoded and resized."""

BYTES_PER_PIXEL = dict.fromkeys(JPEG, 10)
"""At the peak, for a progressive JPEG in full colour: 9.2 measured."""
OTHER_BYTES_PER_PIXEL = 14
"""10.1 measured: Pillow's storage, RGB beside it, then the tensor; the file is in memory, too."""

MOST_SIDE = 65_500
"""Pixels of a side, libjpeg's own bound: resizing a longer one takes memory of its own."""

MOST_FILE_BYTES = 2**28
"""Of an encoded image."""

MOST_BOX_PIXELS = 2**26
"""Of a part to be cut out, which may lie beyond the edges."""

LONGEST_REASON = 160  # characters

_JPEG_SIZE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers SOF0 to SOF15, which declare the size; ITU T.81, table B.1."""

Fault = Literal["corrupt image", "image of several frames", "image too large", "image of no use"]
TOO_LARGE: Fault = "image too large"


class CorruptImage(Exception):
    """The bytes are no image that can be used; the text is the reason, in one line."""

    def __init__(self, reason: str, fault: Fault = "corrupt image") -> None:
        super().__init__(reason)
        self.fault = fault


logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it finds is raised, not printed


def read_image_file(path: Path) -> bytes:
    """The bytes of an image's file.

    Raises:
        CorruptImage: It is too large for an image.
        OSError: It cannot be read.
    """
    if (size := path.stat().st_size) > MOST_FILE_BYTES:
        raise CorruptImage(f"a file of {size / 1e9:.1f} GB, too large for an image", TOO_LARGE)
    return path.read_bytes()


def open_image(data: bytes) -> Image.Image:
    """An image with its size and kind known and its pixels not decoded yet (``as_rgb`` does).

    Raises:
        CorruptImage: No image, of a format that is not read, of several frames, or too large.
    """
    with _refusing():
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
    """Decode to 8 bits of red, green and blue, as Pillow's ``convert`` has them.

    Of 16 bits the upper eight count, in grey as Pillow has it in colour; ``convert`` would clip
    grey ones to white.

    Raises:
        CorruptImage: Damaged, or its values are not those of an image.
    """
    with _refusing():
        image.load()
        if image.mode == "RGB":
            return image
        if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
            grey = np.right_shift(np.asarray(image), 8).astype(np.uint8)
            return Image.fromarray(grey).convert("RGB")
        if image.mode in ("I", "F"):
            raise CorruptImage(
                "pixels of 32 bits, of which none is known to be white; save it with 8 bits",
                "image of no use",
            )
        return image.convert("RGB")


def read_rgb(data: bytes) -> Image.Image:
    """``open_image`` and ``as_rgb``."""
    return as_rgb(open_image(data))


def check_size(format: str, width: int, height: int) -> None:
    """Refuse an image whose decoding would take too much memory.

    Args:
        format: In Pillow's words.
        width: As the header declares it, in pixels.
        height: As well.

    Raises:
        CorruptImage: It would.
    """
    most = MOST_BYTES // BYTES_PER_PIXEL.get(format, OTHER_BYTES_PER_PIXEL)
    if width * height > most or max(width, height) > MOST_SIDE:
        raise CorruptImage(
            f"{width} x {height} pixels; at most {most / 1e6:.0f} million and {MOST_SIDE:,} on a "
            "side are read",
            TOO_LARGE,
        )


def check_box(box: tuple[int, int, int, int]) -> None:
    """Refuse a part (left, top, right, bottom) that holds nothing, or would fill the memory.

    Raises:
        CorruptImage: It does.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        raise CorruptImage(f"the box {box} is empty")
    if width * height > MOST_BOX_PIXELS:
        raise CorruptImage(f"the box {box} is of {width} x {height} pixels", TOO_LARGE)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG declares; None where it is none, or not a plain sequence of
    markers up to its size.

    In a microsecond: Pillow takes 20, and more where there is Exif.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, end = 2, len(data) - 9
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_SIZE:
            return data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]
        if marker == 0xFF:  # filling
            at += 1
        elif 0xE0 <= marker <= 0xEF or marker in (0xC4, 0xCC, 0xDB, 0xDD, 0xFE):
            at += 2 + (data[at + 2] << 8 | data[at + 3])
        else:
            return None
    return None


@contextmanager
def _refusing() -> Iterator[None]:
    """What Pillow raises of hostile bytes, as CorruptImage; what it warns of is not shown."""
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
