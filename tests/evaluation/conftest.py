"""A few one-coloured images in shards, and a model that recognises colours but not word order."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from PIL import Image

from hnc_ds.config import PackConfig
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative
from hnc_ds.shards.format import read_shard_index
from hnc_ds.shards.images import ImageSettings
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
CONTEXT = 8


class BagOfColours:
    """Stands for a Clip: an image is its mean colour, a text the sum of the colours it names."""

    image_settings = ImageSettings(size=8, mean=(0, 0, 0), std=(1, 1, 1))

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.tokenize = self._Tokenizer(self)

    class _Tokenizer:
        context_length = CONTEXT

        def __init__(self, model: "BagOfColours") -> None:
            self.model = model

        def __call__(self, captions: Sequence[str]) -> torch.Tensor:
            self.model.encoded += captions
            known = ["", *COLOURS]
            rows = [
                [known.index(word) if word in known else 9 for word in caption.split()][:CONTEXT]
                for caption in captions
            ]
            longest = max(map(len, rows))
            return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

        def is_too_long(self, caption: str) -> bool:
            return len(caption.split()) > CONTEXT

    def eval(self) -> "BagOfColours":
        return self

    def to(self, device: torch.device) -> "BagOfColours":
        return self

    def encode_images(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        assert images_B3RR.dtype == torch.uint8
        return torch.nn.functional.normalize(images_B3RR.float().mean(dim=(2, 3)), dim=1)

    def encode_texts(self, token_TL: torch.Tensor) -> torch.Tensor:
        counts = torch.stack([(token_TL == i).sum(1) for i in (1, 2, 3)], 1).float()
        return torch.nn.functional.normalize(counts, dim=1)


@pytest.fixture
def model() -> BagOfColours:
    return BagOfColours()


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Pack one image per (id, colour); its captions name the colour."""

    def make(colour_of: dict[str, str]) -> Path:
        images = tmp_path / "images"
        images.mkdir()
        lines = []
        for image_id, colour in colour_of.items():
            Image.new("RGB", (16, 16), COLOURS[colour]).save(images / f"{image_id}.jpg", quality=95)
            other = "blue" if colour != "blue" else "red"
            attribute = Negative(f"it is {other}", "attribute", (colour, other))
            swap = Negative(f"a dot on a {colour} field", "swap")
            lines.append(
                ImageCaptions(
                    image_id,
                    (
                        CaptionGroup(f"it is {colour}", "attribute", (attribute,)),
                        CaptionGroup(f"a {colour} field on a dot", "relation", (swap,)),
                    ),
                )
            )
        captions = tmp_path / "captions.jsonl"
        captions.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        shards = tmp_path / "shards"
        pack(PackConfig(captions=captions, images=(images,), out=shards, workers=1))
        return shards

    return make


@pytest.fixture
def damage() -> Callable[[Path, int], None]:
    """Overwrite one image in a tar, without changing the tar's size."""

    def overwrite(shards: Path, sample: int) -> None:
        shard = ShardReader(shards).index.shards[0].file
        at = read_shard_index(shards, shard).samples[sample]
        with (shards / shard).open("r+b") as tar:
            tar.seek(at.image_offset)
            tar.write(bytes(at.image_bytes))

    return overwrite
