"""The text tower of ViT-B/32: captions packed, and trimmed to the longest, against 77 tokens.

T captions of L tokens, width D. One thread; the weights are random, and equal in both variants.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import open_clip
import torch

from hnc_ds.config import ModelConfig
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.model.text import trimmed_clip_text, unit_rows
from speed.graphs import caption_sets
from speed.timing import Check, Comparison, alternate

MODEL = "ViT-B-32"
OURS, TRIMMED, THEIRS = "hnc_ds: packed", "hnc_ds: trimmed", "open_clip: 77 tokens"


def measure(folder: Path, quick: bool) -> Comparison:
    """Captions/s through forward and backward pass in fp32."""
    torch.set_num_threads(1)
    clip = load_model(ModelConfig(model=MODEL), seed=0)
    captions = _captions(folder, 2 if quick else 32)
    trimmed_TL = clip.tokenize(captions)
    padded_TL = open_clip.get_tokenizer(MODEL)(captions)

    used_T = clip.tokenize.used_tokens(trimmed_TL)

    def ours() -> torch.Tensor:
        return clip.encode_texts(trimmed_TL, used_T)

    def trimmed() -> torch.Tensor:
        return unit_rows(trimmed_clip_text(clip.towers, trimmed_TL))

    def theirs() -> torch.Tensor:
        return clip.towers.encode_text(padded_TL, normalize=True)

    encoders = {OURS: ours, TRIMMED: trimmed, THEIRS: theirs}
    variants = {name: partial(_learn, clip, encode) for name, encode in encoders.items()}
    mean = float(clip.computed_tokens(trimmed_TL).float().mean())
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate(variants, rounds=2 if quick else 5),
        checks=_agreement(clip, ours, theirs),
        notes=(
            f"{MODEL}, random weights, fp32, one thread; {len(captions)} captions of "
            f"`hnc-ds generate`, {mean:.1f} tokens on average, the longest "
            f"{trimmed_TL.shape[1]}, padded to {padded_TL.shape[1]}. Tokenising is not timed.",
        ),
        items="captions",
        count=len(captions),
    )


def _captions(folder: Path, count: int) -> list[str]:
    """True captions, each of another image."""
    return [groups[0].positive for groups in caption_sets(folder, 2 * count, most=8)][:count]


def _learn(clip: Clip, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Forward and backward of a projection, which is no work of its own; the embeddings."""
    clip.zero_grad(set_to_none=True)
    text_TD = encode()
    direction_TD = torch.linspace(-1, 1, text_TD.numel()).view_as(text_TD)
    (text_TD * direction_TD).sum().backward()
    return text_TD.detach()


def _agreement(
    clip: Clip, ours: Callable[[], torch.Tensor], theirs: Callable[[], torch.Tensor]
) -> tuple[Check, ...]:
    expected_TD = _learn(clip, theirs)
    expected = {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}
    found_TD = _learn(clip, ours)
    found = {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}
    difference_TD = found_TD - expected_TD
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    apart = max(float((found[name] - gradient).abs().max()) for name, gradient in expected.items())
    return (
        Check("largest difference of an embedding", float(difference_TD.abs().max()), 1e-5),
        Check("largest difference of a gradient, of the largest gradient", apart / largest, 1e-4),
    )
