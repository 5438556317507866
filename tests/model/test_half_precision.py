"""Every kind of model computes with 16-bit parameters as DeepSpeed leaves them, beside its fp32
form."""

from pathlib import Path

import pytest
import torch

from hnc_ds.model.clip import Clip
from hnc_ds.model.half_precision import BATCH_NORMS, fit_buffers
from hnc_ds.model.load import load_folder
from tests.model.tiny_models import KINDS, save_tiny, small_timm

CAPTIONS = ["sofa a", "the red star is above the blue ring ."]
MIXING = ["ResNet", "MobileCLIP", "EVA01", "NLLB", "timm and BERT"]
"""Kinds whose layers mix buffers and parameters. "relative positions" does as well, but its random
class token, 1e-6, is beyond fp16."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's towers are small."""
    small_timm(monkeypatch)


def embeddings(clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    side = clip.image_settings.size
    drawn = torch.Generator().manual_seed(3)
    images = torch.randint(256, (3, 3, side, side), generator=drawn, dtype=torch.uint8)
    return clip.encode_images(images), clip.encode_texts(clip.tokenize(CAPTIONS))


def cast(clip: Clip, dtype: torch.dtype) -> None:
    """What DeepSpeed does to parameters."""
    fit_buffers(clip, dtype)
    for parameter in clip.parameters():
        parameter.data = parameter.data.to(dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.bfloat16) for name in KINDS), *((name, torch.float16) for name in MIXING)],
)
def test_a_kind_computes_in_16_bits(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    clip = load_folder(save_tiny(tmp_path / "start", KINDS[name])).eval()
    with torch.no_grad():
        expected = embeddings(clip)
    cast(clip, dtype)
    for own, exact in zip(embeddings(clip), expected, strict=True):
        torch.testing.assert_close(own, exact, atol=0.02, rtol=0)
    image_BD, text_TD = embeddings(clip.train())
    (image_BD[:2] * text_TD).sum().backward()
    gradients = [p.grad for p in clip.towers.visual.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.dtype == dtype and gradient.isfinite().all() for gradient in gradients)


def test_statistics_of_batch_norms_move_as_in_fp32(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "start", KINDS["ResNet"])
    wide, narrow = (load_folder(folder).train() for _ in range(2))
    cast(narrow, torch.bfloat16)
    names = list(narrow.state_dict())
    for clip in (wide, narrow):
        embeddings(clip)
    assert names == list(wide.state_dict())  # nothing is renamed
    compared = 0
    for one, other in zip(wide.modules(), narrow.modules(), strict=True):
        if isinstance(one, BATCH_NORMS) and isinstance(other, BATCH_NORMS):
            for name in ("running_mean", "running_var"):
                found = getattr(other, name)
                assert found.dtype == torch.float32
                torch.testing.assert_close(found, getattr(one, name), atol=0.01, rtol=0.01)
                compared += 1
    assert compared


def test_what_is_cast_is_cast_once(tmp_path: Path) -> None:
    clip = load_folder(save_tiny(tmp_path / "start", KINDS["ResNet"]))
    fit_buffers(clip, torch.bfloat16)
    kinds = [type(module) for module in clip.modules()]
    fit_buffers(clip, torch.bfloat16)
    assert [type(module) for module in clip.modules()] == kinds
