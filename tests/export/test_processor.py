"""Everybody who takes the image processor from transformers sees what 'hnc-ds answer' sees."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from hnc_ds.config import ExportConfig
from hnc_ds.errors import UserError
from hnc_ds.export.export import export
from hnc_ds.export.llava_files import prove_padding
from hnc_ds.llava.model import ImageView
from hnc_ds.model.llava_prompt import prompt
from tests.export.conftest import VIEW

Make = Callable[..., Path]
SIZES = ((97, 48), (31, 80), (40, 40))


def expand_to_square(image: Image.Image) -> np.ndarray[Any, Any]:
    """As LLaVA's own code: the mean colour around the image, then Pillow's bicubic."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
    return ((small - VIEW.mean) / VIEW.std).transpose(2, 0, 1)


def apart(ours: Any, theirs: Any) -> float:
    """Largest difference, in levels of 255."""
    difference = np.abs(np.asarray(ours) - np.asarray(theirs)) * np.reshape(VIEW.std, (3, 1, 1))
    return float(difference.max()) * 255


def nested(folder: Path) -> None:
    """As transformers 5 saves it: the image processor inside processor_config.json."""
    transformers.AutoProcessor.from_pretrained(folder).save_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    assert "image_processor" in json.loads((folder / "processor_config.json").read_text())


@pytest.mark.parametrize("layout", ["hub", "nested", "nested beside the hub's"])
def test_auto_processor_pads_wide_and_tall_images_as_llava_does(
    clip_folder: Make, llava_folder: Make, tmp_path: Path, layout: str
) -> None:
    llava, out = llava_folder(quick_gelu=True), tmp_path / "out"
    hub = (llava / "preprocessor_config.json").read_bytes()
    if layout != "hub":
        nested(llava)
    if layout.endswith("hub's"):
        (llava / "preprocessor_config.json").write_bytes(hub)
    export(ExportConfig(model=str(clip_folder(quick_gelu=True)), into=llava, out=out))
    processor, pillow = (
        transformers.AutoProcessor.from_pretrained(out, **settings)
        for settings in ({}, {"backend": "pil"})
    )
    before = transformers.AutoProcessor.from_pretrained(llava)
    for number, size in enumerate(SIZES):
        noise = np.random.default_rng(number).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        image.save(tmp_path / "image.png")
        expected = expand_to_square(image)
        assert apart(ImageView(out)(tmp_path / "image.png"), expected) < 0.01
        found = processor(images=image, text=prompt("What?"), return_tensors="np")
        assert apart(found["pixel_values"][0], expected) <= 1.01  # torchvision rounds otherwise
        exactly = pillow.image_processor(image, return_tensors="np")["pixel_values"][0]
        assert apart(exactly, expected) < 0.01
        cropped = before.image_processor(image, return_tensors="np")["pixel_values"][0]
        assert (apart(cropped, expected) > 50) == (image.width != image.height)


def test_a_folder_whose_processor_crops_is_not_kept(llava_folder: Make) -> None:
    with pytest.raises(UserError, match=r"\(CLIPImageProcessor\) does not pad images as"):
        prove_padding(llava_folder())
