"""A LLaVA folder's tokenizer and image processor, used as LLaVA's own code does.

LLaVA tokenizes the text before and after ``<image>`` separately, so that Llama's tokenizer puts a
blank before the text after the image. transformers tokenizes the whole prompt. It gives the same
tokens with the hub's tokenizer.json, which it uses where config.json has model_type 'llava'; else
it builds a LlamaTokenizer, which puts no blank there.

LLaVA-1.5 was trained on images padded to squares with the mean colour. The folders on the hub have
CLIPImageProcessor, which crops the centre and ignores ``do_pad``; transformers' LlavaImageProcessor
(since 4.49) pads with ``do_pad``, in other programs too.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hnc_ds.atomic_files import atomic_write
from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install
from hnc_ds.model.llava_prompt import IMAGE, around_image
from hnc_ds.reading import read_json, reading

PROBE = ("USER: ", "\nWhat is it? ASSISTANT:")
"""A prompt before and after the image."""


def load_tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[Any, int]:
    """transformers' tokenizer of a LLaVA folder, and the id of the image token.

    Args:
        folder: Folder of the model.
        config: Its config.json.

    Raises:
        UserError: The tokenizer is missing, has not the model's image token, or has more tokens
            than the model.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UserError(f"LLaVA needs transformers; {pip_install('llava')}") from error
    again = "copy the tokenizer's files from the original folder"
    for file in folder.glob("*.json"):
        if file.is_file() and file.stat().st_size > 1 << 28:
            raise UserError(f"{file}: has more than 256 MiB, so it is another file; {again}")
    with reading(f"{folder}, its tokenizer", again, by="transformers"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        found = list(tokenizer(IMAGE, add_special_tokens=False)["input_ids"])
        known = len(tokenizer)
    image_id = config.get("image_token_index", config.get("image_token_id"))
    if found != [image_id]:
        raise UserError(
            f"{folder}: the tokenizer makes {found} of {IMAGE}, config.json has image_token_index "
            f"{image_id}; copy both from the original folder"
        )
    size = (config.get("text_config") or {}).get("vocab_size")
    if isinstance(size, int) and known > size:
        raise UserError(
            f"{folder}: the tokenizer has {known:,} tokens, the model {size:,}; copy the "
            "tokenizer's files from the original folder"
        )
    return tokenizer, found[0]


def differs_as_a_whole(tokenizer: Any, image_id: int) -> str | None:
    """A warning if tokenizing a whole prompt, as servers do, differs from LLaVA's own code; else
    None."""
    first, second = around_image(tokenizer, *PROBE)
    whole = list(tokenizer(IMAGE.join(PROBE))["input_ids"])
    if whole == [*first, image_id, *second]:
        return None
    return (
        f"warning: {type(tokenizer).__name__} makes {len(whole)} tokens of a prompt of which LLaVA "
        f"makes {len(first) + 1 + len(second)}; 'hnc-ds answer' uses LLaVA's, servers do not. Copy "
        "tokenizer.json, tokenizer_config.json and config.json from the original folder"
    )


PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""The first may hold an image processor under 'image_processor', which transformers prefers."""

PADDING = "LlavaImageProcessor"
REPLACED = frozenset(
    f"{name}{kind}"
    for name in ("CLIPImageProcessor", "CLIPFeatureExtractor", PADDING)
    for kind in ("", "Fast", "Pil")
)
"""Image processors with the same settings as LlavaImageProcessor."""

NEXT_PROCESSORS = frozenset(f"LlavaNextImageProcessor{kind}" for kind in ("", "Fast", "Pil"))
"""LLaVA-NeXT's image processor, which stays."""

NAMES = ("image_processor_type", "feature_extractor_type")

SAME_COLOUR = 1e-4

LEVELS = 2
"""Allowed difference of pixels, of 255: Pillow's and torchvision's bicubic differ by one."""


def check_processor(folder: Path, side: int, known: Collection[str] = REPLACED) -> None:
    """Raise UserError unless the image processor is one of a LLaVA's, of the tower's size.

    Args:
        folder: Folder of the model.
        side: Side of the tower's images in pixels.
        known: Names of image processors that the LLaVA may have.
    """
    found = list(_parts(folder))
    if not found:
        raise UserError(f"{folder}: has no {PROCESSORS[1]}; copy the whole folder")
    for path, _, part in found:
        for name in NAMES:
            if name in part and part[name] not in known:
                ours = "LLaVA-1.5's (CLIPImageProcessor, LlavaImageProcessor)"
                whose = ours if known is REPLACED else "LLaVA-NeXT's (LlavaNextImageProcessor)"
                raise UserError(
                    f"{path}: {name} is {part[name]}, not one of {whose}; give a folder such as "
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
    """Raise UserError if the image processor's mean or standard deviation are not the tower's.

    Args:
        folder: Folder of the model.
        mean: The tower's mean of each channel, for values in [0, 1].
        std: The tower's standard deviation of each channel.
    """
    for path, _, part in _parts(folder):
        for name, own in (("image_mean", mean), ("image_std", std)):
            given = part.get(name, list(own))
            numbers = isinstance(given, list) and all(isinstance(one, float | int) for one in given)
            if not (numbers and len(given) == len(own) and np.allclose(given, own, SAME_COLOUR)):
                raise UserError(
                    f"{path}: {name} is {given}, the tower was trained with {list(own)}; take a "
                    "tower with this LLaVA's preprocessing"
                )


def write_padding(folder: Path) -> str:
    """Set the image processor that pads in all files of a LLaVA folder that name one.

    Returns:
        A description of the former image processor.
    """
    before = list[str]()
    for path, content, part in _parts(folder):
        before.append(_described(part))
        part.pop("auto_map", None)  # code in the folder would be preferred
        if (part.get("image_processor_type"), part.get("do_pad")) != (PADDING, True):
            part |= {"image_processor_type": PADDING, "do_pad": True}
            atomic_write(path, json.dumps(content, indent=2).encode())
    return " and ".join(dict.fromkeys(before))


def _described(part: Mapping[str, Any]) -> str:
    kind = next((part[name] for name in NAMES if name in part), "unnamed")
    pads = kind.startswith("Llava") and part.get("do_pad") is True
    return f"{kind}, which {'padded them' if pads else 'cropped the centre'}"


def prove_padding(folder: Path) -> None:
    """Raise UserError unless transformers' AutoImageProcessor preprocesses a wide and a tall image
    as LLaVA does."""
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
    """Files with an image processor's settings, their whole content, and these settings in it."""
    for name in PROCESSORS:
        path = folder / name
        if not path.is_file():
            continue
        content = read_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: not a processor's settings; copy it again")
        part = content.get("image_processor") if name == PROCESSORS[0] else content
        if isinstance(part, dict):
            yield path, content, part
