"""Values that a folder's open_clip_config.json may have, and those that are refused by name."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.errors import UserError
from hnc_ds.model.load import load_folder
from tests.model.tiny_models import KINDS, save_tiny, small_timm

CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    # kind, values by their path, message
    "rectangles": ("CLIP", {"model_cfg.vision_cfg.image_size": [32, 48]}, "only square ones"),
    "rectangles of timm": (
        *("ConvNeXt", {"model_cfg.vision_cfg.image_size": [64, 32]}),
        r"images of \[64, 32\] pixels",
    ),
    "a resize mode": (
        *("CLIP", {"preprocess_cfg.resize_mode": "longest"}),
        "'longest' is not supported; supported are shortest and squash",
    ),
    "an interpolation": (
        *("CLIP", {"preprocess_cfg.interpolation": "random"}),
        "supported are bicubic and bilinear",
    ),
    "a key of another version": (
        *("CLIP", {"model_cfg.vision_cfg.naflex": True}),
        r"cannot be loaded \(open_clip: .*naflex",
    ),
    "tokens without a caption head": (
        *("CoCa without a caption head", {"model_cfg.vision_cfg.output_tokens": True}),
        "vision_cfg.output_tokens is true, but only CoCa has it; set it to false",
    ),
    "a caption head without tokens": (
        *("CoCa", {"model_cfg.text_cfg.output_tokens": False}),
        "text_cfg.output_tokens is false, but CoCa's caption head",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("kinds")
    monkeypatch = pytest.MonkeyPatch()

    def save(name: str) -> Path:
        path: Path = folder / name
        with monkeypatch.context() as small:
            small_timm(small)
            return path if path.is_dir() else save_tiny(path, KINDS[name])

    return save


@contextmanager
def changed(folder: Path, values: dict[str, Any]) -> Iterator[None]:
    """The folder's configuration has these values, by their path, in this block."""
    path = folder / "open_clip_config.json"
    written = path.read_bytes()
    config = json.loads(written)
    for name, value in values.items():
        *above, last = name.split(".")
        part = config
        for key in above:
            part = part[key]
        part[last] = value
    path.write_text(json.dumps(config))
    try:
        yield
    finally:
        path.write_bytes(written)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_opened_is_refused_with_what_is_supported(
    case: str, saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, values, message = CASES[case]
    folder = saved(kind)
    small_timm(monkeypatch)
    with changed(folder, values), pytest.raises(UserError, match=message) as caught:
        load_folder(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_naflex_opens_at_one_size(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("NaFlex")
    small_timm(monkeypatch)
    clip = load_folder(folder)
    images = torch.zeros(1, 3, clip.image_settings.size, clip.image_settings.size)
    assert clip.encode_images(images.byte()).shape == (1, 32)


def test_true_is_no_number(saved: Callable[[str], Path]) -> None:
    """It would be 1: a head for each channel, and other embeddings without a word."""
    folder, message = (
        saved("CLIP"),
        r"model_cfg\.vision_cfg\.head_width is true or false",
    )
    with (
        changed(folder, {"model_cfg.vision_cfg.head_width": True}),
        pytest.raises(UserError, match=message),
    ):
        load_folder(folder)
