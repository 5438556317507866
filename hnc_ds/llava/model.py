"""A LLaVA folder of Hugging Face's as a model, a tokenizer and a view of pictures.

I images, P tokens of the prompt up to and with the picture, D width of the language model.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hnc_ds.errors import UserError, counted
from hnc_ds.export.into_llava import read_llava_config
from hnc_ds.export.llava_tokenizer import IMAGE, around_image, load_tokenizer
from hnc_ds.images import CorruptImage, read_image_file, read_rgb
from hnc_ds.llava.prompts import prompt
from hnc_ds.reading import read_json, reading

VIEW_VERSION = 1
"""Raise it when the same image gives other pixels: answers on disk are then not continued."""

BUFFERS = ("position_ids", "inv_freq")
"""Ends of names in older files that are no weights."""

LONGEST_SIDE = 7168
"""Pixels; longer images are made smaller before they are padded to squares."""


@dataclass(frozen=True)
class Llava:
    """Ready to answer."""

    model: Any
    """transformers' LlavaForConditionalGeneration, in evaluation mode."""
    tokenizer: Any
    pictures: "PictureView"
    device: torch.device
    stop_ids: frozenset[int]
    """Tokens that end an answer."""

    def split_prompt(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the image."""
        return split_prompt(self.tokenizer, text)

    def decode(self, ids: Sequence[int]) -> str:
        """An answer as text."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()


def split_prompt(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Token ids of a question's prompt before and after the image."""
    before, after = prompt(text).split(IMAGE)
    return around_image(tokenizer, before, after)


class PictureView:
    """LLaVA's own view of a picture: padded to a square, resized and cropped with Pillow.

    Args:
        folder: Of the model.

    Raises:
        UserError: The folder does not say how pictures are viewed.
    """

    def __init__(self, folder: Path) -> None:
        from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

        self._folder = folder
        _check_sizes(folder / "preprocessor_config.json")
        again = "it needs a preprocessor_config.json; copy the whole folder of the model"
        with reading(f"{folder}, its image processor", again, by="transformers"):
            self._processor: Any = LlavaImageProcessorPil.from_pretrained(
                folder, do_pad=True, local_files_only=True
            )
            made = self._processor(Image.new("RGB", (8, 4)), return_tensors="np")["pixel_values"]
        self.shape: tuple[int, ...] = tuple(made[0].shape)
        """[3, R, R]."""

    def check_side(self, side: int) -> None:
        """Refuse a view of another size than the model's images.

        Args:
            side: Pixels of the model's images.

        Raises:
            UserError: It is one.
        """
        if self.shape != (3, side, side):
            raise UserError(
                f"{self._folder}: its image processor makes {list(self.shape)} of an image, its "
                f"tower takes {side} x {side}; copy the folder again"
            )

    def __call__(self, path: Path) -> torch.Tensor:
        """float32 [3, R, R]. Raises CorruptImage."""
        try:
            image = read_rgb(read_image_file(path))
        except (OSError, CorruptImage) as error:
            raise CorruptImage(f"{path}: {error}") from error
        if max(image.size) > LONGEST_SIDE:  # it is padded to a square before it is resized
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
        found = self._processor(image, return_tensors="np")["pixel_values"][0]
        return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))


def _check_sizes(file: Path) -> None:
    """Refuse sizes that transformers would take for others, as true for 1."""
    told = read_json(file) if file.is_file() else {}
    sizes = [told.get(name) for name in ("size", "crop_size")] if isinstance(told, dict) else []
    for size in sizes:
        for side, pixels in size.items() if isinstance(size, dict) else ():
            if pixels is not None and (type(pixels) is not int or pixels < 1):
                raise UserError(f"{file}: {side} is {pixels!r}, no pixels; copy the file again")


def load_llava(folder: Path, dtype: torch.dtype, device: torch.device) -> Llava:
    """Load a LLaVA folder; nothing is fetched.

    Raises:
        UserError: The folder is none, lacks a file, or needs transformers.
    """
    with reading(folder, "copy the folder again", by="transformers"):
        return _loaded(folder, dtype, device)


def _loaded(folder: Path, dtype: torch.dtype, device: torch.device) -> Llava:
    config = read_llava_config(folder)
    tokenizer, _ = load_tokenizer(folder, config)
    model = _load_model(folder, dtype)
    pictures = PictureView(folder)
    pictures.check_side(model.config.vision_config.image_size)
    return Llava(
        model=model.eval().to(device),
        tokenizer=tokenizer,
        pictures=pictures,
        device=device,
        stop_ids=_stop_ids(folder, model.generation_config.eos_token_id, tokenizer),
    )


def _stop_ids(folder: Path, told: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, as transformers' generation takes them."""
    found = told if isinstance(told, list) else [told]
    if tokenizer.eos_token_id not in found or not all(isinstance(one, int) for one in found):
        raise UserError(
            f"{folder}: answers end with token {told} (generation_config.json), the tokenizer's "
            f"end is {tokenizer.eos_token_id}; copy both from the original folder"
        )
    return frozenset(found)


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The model with all weights of its files, and no others: transformers makes up those that are
    missing, and leaves out those that the configuration has no place for."""
    from transformers import LlavaForConditionalGeneration

    with reading(f"{folder}, its weights", "copy the folder again", by="transformers"):
        model, found = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted({*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])})
    if missing:
        raise UserError(
            f"{folder}: its files lack {len(missing):,} of the model's weights, the first is "
            f"{missing[0]}; copy the folder again"
        )
    unused = sorted(key for key in found["unexpected_keys"] if not key.endswith(BUFFERS))
    if unused:
        raise UserError(
            f"{folder}: its files have {counted(len(unused), 'weight')} that config.json has no "
            f"place for, the first is {unused[0]}; copy config.json of the original folder"
        )
    return model


def cache_argument(model: Any) -> str:
    """What the model's forward calls the keys and values that were computed before: transformers
    renamed it in 5.x."""
    known = inspect.signature(model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"
