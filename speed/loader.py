"""Images of a shard, decoded and cropped for training, against webdataset with open_clip's
transform on PIL. One process, one thread.
"""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
import webdataset as wds
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image

from hnc_ds.shards.images import ImageSettings, decode_image, evaluation_view, training_view
from hnc_ds.shards.reader import ShardReader
from speed.inputs import packed, photograph, write_pack_input
from speed.timing import Check, Comparison, alternate

SETTINGS = ImageSettings(224, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
SMALLEST_AREA = 0.9
OURS, NORMALISED = "hnc_ds: uint8", "hnc_ds: normalised to float here"
THEIRS = "webdataset, PIL, open_clip's transform: float"


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s of one core, from the tar to the tensor."""
    torch.set_num_threads(1)
    photographs = [photograph(seed) for seed in range(4 if quick else 96)]
    shards = packed(write_pack_input(folder, photographs, len(photographs)))
    variants = {
        OURS: lambda: list(_ours(shards)),
        NORMALISED: lambda: [_normalised(view) for view in _ours(shards)],
        THEIRS: lambda: list(_theirs(shards)),
    }
    kibibytes = sum(map(len, photographs)) / len(photographs) / 1024
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate(variants, rounds=2 if quick else 9),
        checks=_agreement(photographs),
        notes=(
            f"Made-up photographs of 500x375 pixels, {kibibytes:.0f} KiB on average; one process, "
            "one thread, files in the page cache. Captions are not decoded.",
            "Training normalises uint8 on the device; the second row does it here as well, for "
            "tensors like the peer's.",
            "Both keep 90 to 100 % of the area, at random, each by its own draws; the pixels are "
            "therefore compared on the evaluation crop.",
        ),
        items="images",
        count=len(photographs),
    )


def _ours(shards: Path) -> Iterator[torch.Tensor]:
    reader = ShardReader(shards)
    for sample in range(len(reader)):
        image_3HW = decode_image(reader.image_bytes(sample))
        yield training_view(image_3HW, SETTINGS, SMALLEST_AREA, random.Random(sample))
    reader.close()


def _normalised(view_3RR: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(SETTINGS.mean).view(3, 1, 1)
    std = torch.tensor(SETTINGS.std).view(3, 1, 1)
    return (view_3RR.float() / 255 - mean) / std


def _theirs(shards: Path) -> Iterator[torch.Tensor]:
    transform = open_clip.image_transform(
        SETTINGS.size, is_train=True, aug_cfg={"scale": (SMALLEST_AREA, 1.0)}
    )
    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    stream = wds.WebDataset(tars, shardshuffle=False).decode("pilrgb", only=["jpg"])
    for sample in stream:
        yield transform(sample["jpg"])


def _agreement(photographs: list[bytes]) -> tuple[Check, ...]:
    transform = open_clip.image_transform(
        SETTINGS.size, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    differences = [
        (evaluation_view(decode_image(data), SETTINGS) - 255 * transform(_opened(data)))
        .abs()
        .mean()
        for data in photographs
    ]
    return (Check("mean difference of the pixels (of 255)", float(max(differences)), 0.1),)


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
