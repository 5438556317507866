"""The image processor of a LLaVA folder: one that pads, also in other programs.

LLaVA-1.5 was trained on images that are padded to squares with the mean colour. The folders on the
hub have CLIPImageProcessor, which crops the centre and ignores ``do_pad``; transformers' own
LlavaImageProcessor (since 4.49) pads where ``do_pad`` is set.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.reading import read_json, reading
from hnc_ds.whole_files import write_whole

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""In the first one the image processor stands below 'image_processor', if it does; transformers
prefers it there."""

PADDING = "LlavaImageProcessor"
REPLACED = frozenset(
    f"{name}{kind}"
    for name in ("CLIPImageProcessor", "CLIPFeatureExtractor", PADDING)
    for kind in ("", "Fast", "Pil")
)
"""Image processors with the settings that LlavaImageProcessor has."""

NAMES = ("image_processor_type", "feature_extractor_type")

SAME_COLOUR = 1e-4

LEVELS = 2
"""Of 255: Pillow's and torchvision's bicubic differ by one."""


def check_processor(folder: Path, side: int) -> None:
    """Refuse a LLaVA folder whose image processor cannot be replaced by the one that pads.

    Args:
        folder: Of the model.
        side: Pixels of an image of the tower.

    Raises:
        UserError: There is no image processor, one of another kind, or for images of another size.
    """
    found = list(_parts(folder))
    if not found:
        raise UserError(f"{folder}: has no {PROCESSORS[1]}; copy the whole folder")
    for path, _, part in found:
        for name in NAMES:
            if part.get(name, PADDING) not in REPLACED:
                raise UserError(
                    f"{path}: {name} is {part[name]}, not one of LLaVA-1.5's ("
                    "CLIPImageProcessor, LlavaImageProcessor); give a folder such as "
                    "llava-1.5-7b-hf"
                )
        sides = part.get("crop_size")
        given = set(sides.values()) if isinstance(sides, dict) else {sides}
        if given - {side, None}:
            raise UserError(
                f"{path}: crop_size is {sides}, the tower's images are of {side} pixels; copy the "
                "file of the original folder"
            )


def check_colours(folder: Path, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a tower that was trained on images with another mean and deviation.

    Args:
        folder: Of the model.
        mean: Of the tower's images, of each channel, from 0 to 1.
        std: Likewise.

    Raises:
        UserError: The folder's image processor has others.
    """
    for path, _, part in _parts(folder):
        for name, own in (("image_mean", mean), ("image_std", std)):
            given = part.get(name, list(own))
            numbers = isinstance(given, list) and all(isinstance(one, float | int) for one in given)
            if not (numbers and len(given) == len(own) and np.allclose(given, own, SAME_COLOUR)):
                raise UserError(
                    f"{path}: {name} is {given}, the tower was trained with {list(own)}; take a "
                    "tower that sees images as this LLaVA's does"
                )


def write_padding(folder: Path) -> str:
    """Name the image processor that pads, in all files of a LLaVA folder that name one.

    Args:
        folder: Of the model; its files are written anew, with all other settings as they were.

    Returns:
        What was there before, in words.
    """
    before = list[str]()
    for path, content, part in _parts(folder):
        before.append(_described(part))
        part.pop("auto_map", None)  # code in the folder would be preferred
        if (part.get("image_processor_type"), part.get("do_pad")) != (PADDING, True):
            part |= {"image_processor_type": PADDING, "do_pad": True}
            write_whole(path, json.dumps(content, indent=2).encode())
    return " and ".join(dict.fromkeys(before))


def _described(part: Mapping[str, Any]) -> str:
    kind = next((part[name] for name in NAMES if name in part), "unnamed")
    pads = kind.startswith("Llava") and part.get("do_pad") is True
    return f"{kind}, which {'padded them' if pads else 'cropped the centre'}"


def prove_padding(folder: Path) -> None:
    """Compare what transformers' AutoImageProcessor makes of a wide and a tall image with LLaVA's
    own view.

    Raises:
        UserError: It makes something else of them.
    """
    from transformers import AutoImageProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    with reading(f"{folder}, its image processor", by="transformers"):
        theirs: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        own: Any = LlavaImageProcessorPil.from_pretrained(
            folder, do_pad=True, local_files_only=True
        )
        images = [_noise(*size) for size in ((90, 60), (40, 80))]
        ours, found = (
            np.stack(one(images, return_tensors="np")["pixel_values"]) for one in (own, theirs)
        )
    apart = np.abs(ours - found) * 255 * np.reshape(own.image_std, (3, 1, 1))
    if not apart.max() <= LEVELS:
        raise UserError(
            f"{folder}: transformers' AutoImageProcessor ({type(theirs).__name__}) does not pad "
            f"images as LLaVA does: pixels differ by {apart.max():.0f} of 255"
        )


def _noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _parts(folder: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Files with settings of an image processor, their whole content, and these settings in it."""
    for name in PROCESSORS:
        path = folder / name
        if not path.is_file():
            continue
        content = read_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: no settings of a processor; copy it again")
        part = content.get("image_processor") if name == PROCESSORS[0] else content
        if isinstance(part, dict):
            yield path, content, part
