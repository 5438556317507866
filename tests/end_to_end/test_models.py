"""Every kind of open_clip model goes through every stage, without network and without the folder
that it came from: two steps, resumed to three, evaluated, exported, interpolated, opened by
open_clip."""

import functools
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from hnc_ds.checkpoint import complete_checkpoints, newest_checkpoint
from hnc_ds.config import EvaluateConfig, ExportConfig, InterpolateConfig, ScenesConfig
from hnc_ds.demo import prepare
from hnc_ds.errors import UserError
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import read_results
from hnc_ds.export.export import export
from hnc_ds.interpolation import interpolate
from hnc_ds.model.load import load_folder
from hnc_ds.train import main
from tests.model.tiny_models import KINDS, Kind, save_tiny, small_timm

CAPTIONS = ["sofa a", "the red star is above the blue ring ."]
Embeddings = tuple[torch.Tensor, torch.Tensor]
read_once = functools.cache(open_clip.factory.SimpleTokenizer)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of few scenes, in train/ and val/."""
    sizes: dict[str, Any] = {"train": 12, "val": 6, "size": 48, "objects": (2, 2)}
    out = tmp_path_factory.mktemp("few")
    return prepare(ScenesConfig(out=out, duplicate_shapes=0, workers=1, **sizes))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is looked up, timm's towers are small, and CLIP's tokenizer is read once."""

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{host} is looked up")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(open_clip.factory, "SimpleTokenizer", read_once)
    small_timm(monkeypatch)


def train(
    folder: Path, shards: Path, steps: int, *more: object, precision: str | None = None
) -> int:
    optimizer = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
    settings = {"train_batch_size": 6, "optimizer": optimizer, "zero_optimization": {"stage": 1}}
    if precision:
        settings[precision] = {"enabled": True}
    (folder / "ds.json").write_text(json.dumps(settings))
    flags: dict[str, Any] = {
        "model": f"local-dir:{folder / 'start'}",
        "deepspeed_config": folder / "ds.json",
        "shards": shards / "train",
        "run": folder / "run",
        "steps": steps,
        "save_every": 2,
        "workers": 0,
    }
    given = [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    return main([*given, *map(str, more)])


def images(side: int) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(3)
    return torch.randint(256, (2, 3, side, side), generator=drawn, dtype=torch.uint8)


@torch.no_grad()
def own(folder: Path) -> Embeddings:
    clip = load_folder(folder)
    side = clip.image_settings.size
    return clip.encode_images(images(side)), clip.encode_texts(clip.tokenize(CAPTIONS))


@torch.no_grad()
def of_open_clip(folder: Path) -> Embeddings:
    """The embeddings of open_clip with a folder, its own preprocessing and tokenizer."""
    name = f"local-dir:{folder}"
    towers = open_clip.create_model(name, require_pretrained=True).eval()
    view = open_clip.get_model_preprocess_cfg(towers)
    mean, std = (torch.tensor(view[key]).view(3, 1, 1) for key in ("mean", "std"))
    side = view["size"] if isinstance(view["size"], int) else view["size"][0]
    pixels = (images(side).float() / 255 - mean) / std
    tokens = open_clip.get_tokenizer(name)(CAPTIONS)
    return towers.encode_image(pixels, normalize=True), towers.encode_text(tokens, normalize=True)


def assert_close(one: Embeddings, other: Embeddings) -> None:
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def assert_trained(start: Path, step: Path) -> None:
    """Parameters of both towers have changed, and nothing is missing."""
    before = load_file(start / "open_clip_model.safetensors")
    after = load_file(step / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {n for n, old in before.items() if not torch.equal(old.flatten(), after[n].flatten())}
    assert {name.startswith("visual.") for name in changed - {"logit_scale"}} == {True, False}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_model_goes_through_every_stage(name: str, shards: Path, tmp_path: Path) -> None:
    kind = KINDS[name]
    start = save_tiny(tmp_path / "start", kind)
    assert_close(own(start), of_open_clip(start))
    assert train(tmp_path, shards, 2) == 0
    run = tmp_path / "run"
    assert_trained(start, newest_checkpoint(run))
    for gone in (start, tmp_path / "start-text"):
        shutil.rmtree(gone, ignore_errors=True)
    more = ["--resume"] if kind.normalizes else ["--resume", "--grad_checkpointing"]
    assert train(tmp_path, shards, 3, *more) == 0
    second, third = complete_checkpoints(run)
    out = tmp_path / "results.json"
    evaluate(EvaluateConfig(models=(str(run),), shards=shards / "val", out=out, workers=0))
    assert read_results(out)
    export(ExportConfig(model=str(run), to="open_clip", out=tmp_path / "exported"))
    mixed = tmp_path / "mixed"
    interpolate(InterpolateConfig(start=str(second), final=str(third), save="0.5", save_to=mixed))
    assert_close(own(mixed), of_open_clip(mixed))
    embedded = own(third)
    for folder in (third, tmp_path / "exported"):
        assert_close(embedded, of_open_clip(folder))
    check_hugging_faces_form(kind, run, tmp_path / "hf", embedded)


@pytest.mark.parametrize("name", ["ResNet", "NLLB"])
def test_a_kind_with_buffers_trains_in_16_bits(name: str, shards: Path, tmp_path: Path) -> None:
    start = save_tiny(tmp_path / "start", KINDS[name])
    for steps, more in ((2, []), (3, ["--resume"])):
        assert train(tmp_path, shards, steps, *more, precision="bf16") == 0
    step = newest_checkpoint(tmp_path / "run")
    assert_trained(start, step)
    assert_close(own(step), of_open_clip(step))
    kept = load_file(step / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} <= {torch.float32, torch.int64}


def check_hugging_faces_form(kind: Kind, run: Path, out: Path, expected: Embeddings) -> None:
    """CLIPModel where there is one, else a line with the reason."""
    config = ExportConfig(model=str(run), to="hf", out=out)
    if not kind.hf:
        with pytest.raises(UserError, match="export: "):
            export(config)
        return
    export(config)
    assert_close(own(out), expected)


@pytest.mark.parametrize(
    ("name", "scope", "precision"),
    [
        ("SigLIP", ["--lora_rank", "2"], None),
        ("MobileCLIP", ["--lora_rank", "2"], "bf16"),
        ("NLLB", ["--towers", "text", "--lora_rank", "2"], None),
        ("timm and BERT", ["--towers", "text"], None),
        ("timm and BERT", ["--towers", "text"], "bf16"),
        ("timm and BERT", ["--last_blocks", "1"], None),
        ("EVA01", ["--last_blocks", "1"], "bf16"),
    ],
)
def test_a_part_of_a_kind_trains_and_the_rest_stays_to_the_bit(
    name: str, scope: list[str], precision: str | None, shards: Path, tmp_path: Path
) -> None:
    start = save_tiny(tmp_path / "start", KINDS[name])
    assert train(tmp_path, shards, 2, *scope, precision=precision) == 0
    assert train(tmp_path, shards, 3, *scope, "--resume", precision=precision) == 0
    step = newest_checkpoint(tmp_path / "run")
    assert_close(own(step), of_open_clip(step))
    before = load_file(start / "open_clip_model.safetensors")
    after = load_file(step / "model.safetensors")
    assert before.keys() == after.keys()
    same = {n for n, old in before.items() if torch.equal(old.flatten(), after[n].flatten())}
    visual = {n for n in before if n.startswith("visual.")}
    if "text" in scope:
        assert visual <= same  # also what batch norms have counted
    else:
        assert visual & same
        assert visual - same
    if "--lora_rank" in scope:
        assert all(before[n].ndim == 2 for n in before.keys() - same - {"logit_scale"})
    assert {n for n in before.keys() - same if not n.startswith("visual.")} - {"logit_scale"}
