"""Bytes of images: what is accepted with which pixels, what is refused with which reason."""

import io
import multiprocessing
import random
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_image as torchvision_decode

from hnc_ds import images
from hnc_ds.images import CorruptImage, check_box, jpeg_size, open_image, read_image_file, read_rgb
from hnc_ds.shards.images import ImageSettings, decode_image, evaluation_view, training_view

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK"),
    "BMP": ("RGB", "L", "P", "1"),
    "GIF": ("P", "L"),
}


def colourful(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA").resize((81, 61), Image.Resampling.BICUBIC)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(("format", "mode"), [(f, m) for f, modes in MODES.items() for m in modes])
def test_every_format_has_the_pixels_that_open_clip_sees(format: str, mode: str) -> None:
    data = encoded(colourful(mode), format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(read_rgb(data)), expected)
    found = decode_image(data)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True, "subsampling": 0},
        {"exif": Image.Exif(), "comment": b"x" * 400},
        {"restart_marker_blocks": 2, "icc_profile": b"p" * 70_000},
    ],
)
def test_a_jpeg_is_torchvisions_own_and_its_size_is_read_from_its_markers(
    options: dict[str, Any],
) -> None:
    if "exif" in options:
        options["exif"][0x0112] = 6  # turned by a quarter, which open_clip does not undo
    data = encoded(colourful(), "JPEG", **options)
    assert jpeg_size(data) == (81, 61)
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    assert torch.equal(decode_image(data), torchvision_decode(buffer))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_cut_to_white(format: str) -> None:
    grey = np.tile(np.arange(256, dtype=np.uint16) * 256 + 128, (3, 1))
    found = np.asarray(read_rgb(encoded(Image.fromarray(grey), format)))
    assert np.array_equal(found, np.tile(np.arange(256)[None, :, None], (3, 1, 3)))


def test_a_cameras_jpeg_with_a_preview_behind_it_is_its_first_image() -> None:
    data = encoded(
        colourful(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=90
    )
    assert open_image(data).format == "MPO"
    assert decode_image(data).shape == (3, 61, 81)
    assert read_rgb(data).size == (81, 61)


def several(format: str) -> bytes:
    mode = "P" if format == "GIF" else "RGB"
    return encoded(
        colourful(mode), format, save_all=True, append_images=[colourful(mode).rotate(90)]
    )


@pytest.mark.parametrize(
    ("data", "reason", "fault"),
    [
        (several("GIF"), "a GIF of several frames", "image of several frames"),
        (several("WEBP"), "a WEBP of several frames", "image of several frames"),
        (several("PNG"), "a PNG of several frames", "image of several frames"),
        (several("TIFF"), "a TIFF of several pages", "image of several frames"),
        (b"", "no JPEG, PNG, WEBP, TIFF, BMP or GIF", "corrupt image"),
        (b"<html>404 not found</html>", "no JPEG, PNG", "corrupt image"),
        (encoded(colourful(), "TGA"), "no JPEG, PNG", "corrupt image"),
        (encoded(colourful(), "JPEG")[:-300], "truncated", "corrupt image"),
        (encoded(colourful(), "PNG")[:-600], "truncated", "corrupt image"),
        (encoded(colourful("F"), "TIFF"), "32 bits", "image of no use"),
    ],
)
def test_refusals_state_the_reason(data: bytes, reason: str, fault: str) -> None:
    for read in (read_rgb, decode_image):
        with pytest.raises(CorruptImage, match=reason) as raised:
            read(data)
        assert raised.value.fault == fault
        assert "\n" not in str(raised.value)


def declaring(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header has another size."""
    at = next(i for i in range(2, len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return data[: at + 5] + size + data[at + 9 :]


def peak() -> int:
    """Mebibytes that this process held at most; of a forked one, since it was forked."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) >> 10


def decode_all(folder: Path) -> tuple[list[str], int]:
    """Name, and size or fault, of each file; and the growth of memory in mebibytes."""
    settings, start, found = ImageSettings(224, (0.0,) * 3, (1.0,) * 3), peak(), []
    for path in sorted(folder.iterdir()):
        try:
            image = decode_image(path.read_bytes())
            evaluation_view(image, settings)
            training_view(image, settings, 0.9, random.Random(0))
            found.append(f"{path.name} {image.shape[1]} {image.shape[2]}")
        except CorruptImage as error:
            found.append(f"{path.name} {error.fault}")
    return found, peak() - start


def test_no_small_file_takes_much_memory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, progressive = (encoded(colourful(), "JPEG", progressive=p) for p in (False, True))
    files = {
        "claims.jpg": declaring(one, 60_000, 60_000),
        "claims-progressive.jpg": declaring(progressive, 65_000, 9_000),
        "long.png": encoded(Image.new("RGB", (30_000, 2)), "PNG"),
        "thread.png": encoded(Image.new("1", (1, 200_000)), "PNG"),
        "wide.png": encoded(Image.new("1", (12_000, 12_000)), "PNG"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as forked:
        found, mebibytes = forked.submit(decode_all, tmp_path).result()
    assert found == [
        "claims-progressive.jpg image too large",
        "claims.jpg image too large",
        "long.png 2 30000",
        "thread.png image too large",
        "wide.png image too large",
    ]
    assert capfd.readouterr().err == ""
    assert mebibytes < 150


def test_a_file_too_large_for_an_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(bytes(200))
    monkeypatch.setattr(images, "MOST_FILE_BYTES", 199)
    with pytest.raises(CorruptImage, match="too large for an image"):
        read_image_file(tmp_path / "a.png")


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 5, 4, 9), (0, 0, 100_000, 100_000)])
def test_a_box_of_nothing_or_without_end_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(CorruptImage, match="box"):
        check_box(box)


def test_damaged_bytes_give_an_image_or_one_reason(recwarn: pytest.WarningsRecorder) -> None:
    rng = random.Random(0)
    damages: list[Callable[[bytes], bytes]] = [
        lambda data: data[: rng.randrange(len(data))],
        lambda data: flipped(data, rng, 1),
        lambda data: flipped(data, rng, 40),
        lambda data: data[: len(data) // 3] + data[len(data) // 2 :],
        lambda data: data[:60] + rng.randbytes(len(data)),
    ]
    refused = 0
    for format, modes in MODES.items():
        for mode in modes:
            data = encoded(colourful(mode), format)
            for damage in damages * 4:
                try:
                    assert decode_image(damage(data)).dtype == torch.uint8
                except CorruptImage as error:
                    refused += bool(str(error))
    assert refused > 200
    assert not [w for w in recwarn if w.category is not DeprecationWarning]


def flipped(data: bytes, rng: random.Random, bytes_: int) -> bytes:
    changed = bytearray(data)
    for _ in range(bytes_):
        changed[rng.randrange(min(len(data), 300))] = rng.randrange(256)
    return bytes(changed)
