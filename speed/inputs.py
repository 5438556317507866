"""JPEGs like photographs, and folders of them that ``hnc-ds pack`` takes. All seeded.

A photograph's cost is in its size and in its bytes: gradients, soft patches of several sizes and
fine grain give images of 500x375 about 50 KiB at quality 90.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from hnc_ds.config import PackConfig
from hnc_ds.records import CaptionGroup, ImageCaptions
from hnc_ds.shards.pack import pack
from speed.graphs import caption_sets

WIDTH, HEIGHT = 500, 375
PATCHES = {4: 40.0, 16: 20.0, 64: 10.0}
"""Patches across the image, and the contrast between them (of 255)."""
GRAIN = 5.0
QUALITY = 90
CAPTION_SETS = 32
"""Images with captions of their own; the others have these again."""


def photograph(seed: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A JPEG that costs what a photograph costs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    slopes = rng.uniform(-80, 80, (2, 3))
    pixels = 128 + x[..., None] * slopes[0] + (y[..., None] - 0.5) * slopes[1]
    for across, contrast in PATCHES.items():
        coarse = rng.integers(0, 256, (across * 3 // 4, across, 3), dtype=np.uint8)
        patches = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        pixels += (np.asarray(patches) / 128 - 1) * contrast
    pixels += rng.normal(0, GRAIN, (height, width, 1))
    return _jpeg(pixels)


def write_pack_input(
    folder: Path,
    jpegs: Sequence[bytes],
    images: int,
    most_captions: int = 48,
    negatives: int = 0,
) -> PackConfig:
    """A folder of ``images`` JPEGs, these again and again, and a file of their captions.

    Every caption has at least ``negatives`` hard negatives; those it lacks are its image's others.

    Returns:
        Settings with ``out`` at FOLDER/shards and one worker.
    """
    (folder / "images").mkdir(parents=True)
    sources = [folder / f"image-{number}" for number in range(len(jpegs))]
    for source, jpeg in zip(sources, jpegs, strict=True):
        source.write_bytes(jpeg)
    sets = [
        filled(groups, negatives)
        for groups in caption_sets(folder, min(images, CAPTION_SETS), most_captions)
    ]
    with (folder / "captions.jsonl").open("wb") as file:
        for number in range(images):
            image_id = f"{number:07}"
            os.link(sources[number % len(sources)], folder / "images" / f"{image_id}.jpg")
            captions = ImageCaptions(image_id, sets[number % len(sets)])
            file.write(msgspec.json.encode(captions) + b"\n")
    return PackConfig(
        captions=folder / "captions.jsonl",
        images=(folder / "images",),
        out=folder / "shards",
        workers=1,
    )


def filled(groups: tuple[CaptionGroup, ...], least: int) -> tuple[CaptionGroup, ...]:
    """Groups with at least ``least`` negatives, as far as their image has so many."""
    of_image = {n.caption: n for group in groups for n in group.negatives}
    filled = []
    for group in groups:
        own = {n.caption for n in group.negatives}
        others = [n for n in of_image.values() if n.caption not in own][: max(0, least - len(own))]
        filled.append(msgspec.structs.replace(group, negatives=(*group.negatives, *others)))
    return tuple(filled)


def packed(config: PackConfig) -> Path:
    """Pack, and return the folder of shards."""
    pack(config)
    return config.out


def _jpeg(pixels_HW3: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
