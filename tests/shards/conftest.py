"""A small input for ``pack``: coloured JPEGs with one caption group each."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hnc_ds.config import PackConfig

WIDTH, HEIGHT = 24, 16


@dataclass
class PackInput:
    """A folder with captions.jsonl and images/."""

    folder: Path

    @property
    def captions(self) -> Path:
        return self.folder / "captions.jsonl"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def write(self, ids: Iterable[str]) -> None:
        """One image and one line of captions per id."""
        self.images.mkdir(exist_ok=True)
        lines = []
        for number, image_id in enumerate(ids):
            (self.images / f"{image_id}.jpg").write_bytes(jpeg(number))
            lines.append(json.dumps({"image_id": image_id, "groups": groups_of(image_id)}))
        self.captions.write_text("".join(f"{line}\n" for line in lines))

    def config(self, out: str = "out", **settings: Any) -> PackConfig:
        """Settings with four images a shard, unless message otherwise."""
        defaults: dict[str, Any] = {
            "samples_per_shard": 4,
            "workers": 1,
            "captions": self.captions,
            "images": (self.images,),
        }
        return PackConfig(
            out=self.folder / out,
            **(defaults | settings),
        )


def jpeg(number: int) -> bytes:
    """An image of one colour, another for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (number % 256, number * 7 % 256, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def groups_of(image_id: str) -> list[dict[str, Any]]:
    """A true caption with an 'attribute' and a 'swap' negative."""
    negatives = [
        {
            "caption": f"The star of {image_id} is blue.",
            "type": "attribute",
            "replaced": ["red", "blue"],
        },
        {"caption": f"The red star has a {image_id}.", "type": "swap"},
    ]
    return [
        {"positive": f"The star of {image_id} is red.", "type": "attribute", "negatives": negatives}
    ]


@pytest.fixture
def packing(tmp_path: Path) -> PackInput:
    return PackInput(tmp_path)
