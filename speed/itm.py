"""Train a cross-encoder: an image seen once with its captions behind it, beside one pass of the
whole model for every pair of image and caption, as transformers' examples train it.

Forward and backward of one batch, without optimizer; BLIP with random weights.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch.nn import functional as F

from hnc_ds.model.cross_encoder import KINDS, CrossEncoder
from hnc_ds.shards.images import ImageSettings
from speed.timing import Check, Comparison, alternate

NEGATIVES, IMAGES, TOKENS, ROUNDS = 4, 2, 16, 3
SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
QUICK = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
SIDE, PATCH, WORDS = 224, 16, 1000
OURS, THEIRS = "hnc_ds: image seen once", "a pass for every pair"

Step = Callable[[], tuple[float, torch.Tensor]]
"""The loss, and a gradient of the image tower."""


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s."""
    torch.set_num_threads(1)
    towers = blip(QUICK if quick else SIZES)
    settings = ImageSettings(size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = CrossEncoder(towers, KINDS["blip"], _Words(), settings, {})
    draw = torch.Generator().manual_seed(0)
    images_B3RR = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    captions = IMAGES * (1 + NEGATIVES)
    token_TL = torch.randint(5, WORDS, (captions, TOKENS), generator=draw)
    variants: dict[str, Step] = {
        OURS: lambda: ours(model, images_B3RR, token_TL),
        THEIRS: lambda: theirs(model, images_B3RR, token_TL),
    }
    (loss, gradient), (other_loss, other) = (variant() for variant in variants.values())
    apart = float((gradient - other).norm() / other.norm())
    layers, width = towers.config.vision_config.num_hidden_layers, towers.config.vision_config
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate(variants, 1 if quick else ROUNDS),
        checks=(
            Check("difference of the loss", abs(loss - other_loss), 1e-4),
            Check("relative difference of a gradient of the image tower", apart, 1e-3),
        ),
        notes=(
            f"BLIP of {layers} layers of width {width.hidden_size} in both towers, images of "
            f"{SIDE} pixels, fp32, one thread; {IMAGES} images, a positive and {NEGATIVES} hard "
            f"negatives of {TOKENS} tokens each.",
        ),
        items="images",
        count=IMAGES,
    )


class _Words:
    """In place of a tokenizer: the captions are numbers already."""

    model_max_length = 64
    pad_token_id = 0


def blip(sizes: dict[str, int]) -> transformers.BlipForImageTextRetrieval:
    """A model with random weights."""
    torch.manual_seed(0)
    sizes = {**sizes, "intermediate_size": 4 * sizes["hidden_size"]}
    config = transformers.BlipConfig(
        vision_config={
            **sizes,
            "image_size": SIDE,
            "patch_size": PATCH,
            "initializer_range": 0.02,  # by default next to nothing
        },
        text_config={
            **sizes,
            "encoder_hidden_size": sizes["hidden_size"],
            "vocab_size": WORDS,
            "max_position_embeddings": 64,
            **dict.fromkeys(("pad_token_id", "bos_token_id"), 0),
            **dict.fromkeys(("eos_token_id", "sep_token_id"), 1),
        },
    )
    return transformers.BlipForImageTextRetrieval(config).eval()


def ours(
    model: CrossEncoder, images_B3RR: torch.Tensor, token_TL: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """As a training of hnc_ds computes it."""
    model.zero_grad()
    captions_BS = torch.arange(len(token_TL)).view(len(images_B3RR), -1)
    used_T = torch.full((len(token_TL),), token_TL.shape[1])
    return _backward(model, model(images_B3RR, token_TL, used_T, captions_BS)[0])


def theirs(
    model: CrossEncoder, images_B3RR: torch.Tensor, token_TL: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """The image is repeated for each of its captions."""
    model.zero_grad()
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (model.image_settings.mean, model.image_settings.std)
    )
    captions = len(token_TL) // len(images_B3RR)
    pixels = ((images_B3RR / 255 - mean) / std).repeat_interleave(captions, dim=0)
    logits = model.towers(
        input_ids=token_TL, attention_mask=torch.ones_like(token_TL), pixel_values=pixels
    ).itm_score
    return _backward(model, (logits[:, 1] - logits[:, 0]).view(len(images_B3RR), captions))


def _backward(model: CrossEncoder, odds_BS: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Each image's first caption matches, the others do not."""
    loss = (F.softplus(-odds_BS[:, 0]) + F.softplus(odds_BS[:, 1:]).mean(dim=1)).mean() / 2
    loss.backward()
    gradient = model.towers.vision_model.encoder.layers[0].mlp.fc1.weight.grad
    return float(loss.detach()), gradient.clone()
