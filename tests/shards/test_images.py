"""Images: the same pixels as open_clip's own transform, whatever they are stored as."""

import io
import random

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from hnc_ds.images import CorruptImage
from hnc_ds.shards.images import (
    ImageSettings,
    decode_image,
    evaluation_view,
    training_view,
)

SETTINGS = ImageSettings(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def drawn(width: int, height: int, mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(200, 120), (90, 300), (64, 64)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_the_evaluation_view_has_open_clips_pixels(
    width: int, height: int, resize_mode: str
) -> None:
    data = jpeg(drawn(width, height))
    settings = ImageSettings(64, (0.0,) * 3, (1.0,) * 3, resize_mode=resize_mode)
    transform = open_clip.image_transform(
        64, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=resize_mode
    )
    expected = (transform(Image.open(io.BytesIO(data))) * 255).round().to(torch.uint8)
    found = evaluation_view(decode_image(data), settings)
    difference = (found.int() - expected.int()).abs()
    assert found.shape == (3, 64, 64)
    assert int(difference.max()) <= 2  # of 255: two decoders, two ways to round
    assert float(difference.float().mean()) < 0.1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_images_become_rgb(mode: str) -> None:
    image = drawn(40, 30, mode)
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg(image))).convert("RGB")))
    found = decode_image(jpeg(image)).permute(1, 2, 0)
    assert int((found.int() - expected.int()).abs().max()) <= 3


def test_a_crop_keeps_the_least_area_and_never_mirrors() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 80, 100)
    rng = random.Random(0)
    for _ in range(50):
        view = training_view(ramp, SETTINGS, 0.5, rng)
        row = view[0, 10].int()
        assert view.shape == (3, 64, 64)
        assert (row.diff() >= 0).all()  # left stays left
        assert int(row[-1] - row[0]) >= 35  # half the area at 4/3 is 46 of 100 columns


def test_the_same_generator_gives_the_same_crop() -> None:
    image = decode_image(jpeg(drawn(90, 70)))
    views = [training_view(image, SETTINGS, 0.5, random.Random(3)) for _ in range(2)]
    assert torch.equal(*views)


def test_of_a_very_long_image_the_middle_is_seen_as_if_it_had_been_resized_whole() -> None:
    image = drawn(1501, 20)
    for long in (image, image.transpose(Image.Transpose.ROTATE_90)):
        transform = open_clip.image_transform(64, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)
        expected = (transform(long) * 255).round().int()
        found = evaluation_view(functional.pil_to_tensor(long), SETTINGS).int()
        assert int((found - expected).abs().max()) <= 3


@pytest.mark.parametrize("data", [b"", b"no image", jpeg(drawn(50, 50))[:300]])
def test_what_is_no_whole_image_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptImage):
        decode_image(data)
