"""Load a LLaVA folder in Hugging Face's layout: model, tokenizer and image preprocessing."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.released.images import image_bytes
from hnc_ds.export.into_llava import read_llava_config
from hnc_ds.export.llava_files import load_tokenizer
from hnc_ds.images import CorruptImage, read_image_file, read_rgb
from hnc_ds.model.llava_prompt import IMAGE, around_image, prompt
from hnc_ds.reading import read_json, reading

VIEW_VERSION = 1
"""To be raised with any change of the preprocessing: older answers on disk are then refused."""

BUFFERS = ("position_ids", "inv_freq")
"""Name suffixes of buffers in older files; they are not weights."""

LONGEST_SIDE = 7168
"""Pixels; longer images are downscaled before they are padded to squares."""


@dataclass(frozen=True)
class Llava:
    """A loaded LLaVA."""

    model: Any
    """transformers' LlavaForConditionalGeneration, in evaluation mode."""
    tokenizer: Any
    view: "ImageView"
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
    """Token ids of a prompt before and after the image."""
    before, after = prompt(text).split(IMAGE)
    return around_image(tokenizer, before, after)


class ImageView:
    """LLaVA's image preprocessing: padded to a square, resized and cropped with Pillow.

    Args:
        folder: Folder of the model.

    Raises:
        UserError: The folder has no readable preprocessor_config.json.
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
        """Raise UserError unless the result has ``side`` pixels on a side."""
        if self.shape != (3, side, side):
            raise UserError(
                f"{self._folder}: its image processor returns {list(self.shape)}, its tower takes "
                f"{side} x {side}; copy the folder again"
            )

    def __call__(self, path: Path, name: str | None = None) -> torch.Tensor:
        """Preprocessed image, float32 [3, R, R].

        Args:
            path: The image's file.
            name: Name of an image in a file with others (``image_bytes``).

        Raises:
            CorruptImage: The image cannot be read.
        """
        try:
            image = read_rgb(read_image_file(path) if name is None else image_bytes(path, name))
        except (OSError, ValueError, UserError, CorruptImage) as error:
            raise CorruptImage(f"{path}: {error}") from error
        return self.of_image(image)

    def of_image(self, image: Image.Image) -> torch.Tensor:
        """Preprocessed RGB image, float32 [3, R, R]."""
        if max(image.size) > LONGEST_SIDE:  # the padded square would need too much memory
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
        found = self._processor(image, return_tensors="np")["pixel_values"][0]
        return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))


def _check_sizes(file: Path) -> None:
    """Raise UserError for sizes that transformers would misread, such as true as 1."""
    config = read_json(file) if file.is_file() else {}
    sizes = [config.get(n) for n in ("size", "crop_size")] if isinstance(config, dict) else []
    for size in sizes:
        for side, pixels in size.items() if isinstance(size, dict) else ():
            if pixels is not None and (type(pixels) is not int or pixels < 1):
                raise UserError(
                    f"{file}: {side} is {pixels!r}, not a number of pixels; copy the file again"
                )


def load_llava(folder: Path, dtype: torch.dtype, device: torch.device) -> Llava:
    """Load a LLaVA folder; downloads nothing.

    Raises:
        UserError: Not a LLaVA folder, a file is missing or broken, or transformers is missing.
    """
    with reading(folder, "copy the folder again", by="transformers"):
        return _loaded(folder, dtype, device)


def _loaded(folder: Path, dtype: torch.dtype, device: torch.device) -> Llava:
    config = read_llava_config(folder)
    tokenizer, _ = load_tokenizer(folder, config)
    model = _load_model(folder, dtype)
    view = ImageView(folder)
    view.check_side(model.config.vision_config.image_size)
    return Llava(
        model=model.eval().to(device),
        tokenizer=tokenizer,
        view=view,
        device=device,
        stop_ids=_stop_ids(folder, model.generation_config.eos_token_id, tokenizer),
    )


def _stop_ids(folder: Path, eos: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, from generation_config's eos_token_id (a number or a list)."""
    found = eos if isinstance(eos, list) else [eos]
    if tokenizer.eos_token_id not in found or not all(isinstance(one, int) for one in found):
        raise UserError(
            f"{folder}: answers end with token {eos} (generation_config.json), the tokenizer's "
            f"end is {tokenizer.eos_token_id}; copy both from the original folder"
        )
    return frozenset(found)


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The model; UserError unless its files hold exactly its weights. transformers would initialize
    missing weights at random, and ignore unexpected ones."""
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
    """Name of the forward's argument for the KV cache, which transformers 5.x renamed."""
    known = inspect.signature(model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"
