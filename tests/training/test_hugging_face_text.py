"""A model whose text side is Hugging Face's trains, and its checkpoint holds all that opens it."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch

from hnc_ds.checkpoint import complete_checkpoints, flaw_of, newest_checkpoint, read_settings
from hnc_ds.config import ExportConfig, InterpolateConfig
from hnc_ds.export.export import export
from hnc_ds.interpolation import interpolate, refuse_existing
from hnc_ds.model.load import load_folder
from hnc_ds.train import main
from tests.model import hugging_face

CAPTIONS = ["sofa a", "the red star is above the blue ring ."]


@pytest.fixture(scope="module")
def run(scene_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a CLIP with a small XLM-R, which is gone by now."""
    folder = tmp_path_factory.mktemp("trained")
    hugging_face.save_clip(folder / "start")
    optimizer = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
    settings = {"train_batch_size": 16, "optimizer": optimizer, "zero_optimization": {"stage": 1}}
    (folder / "ds.json").write_text(json.dumps(settings))
    flags = ["--model", f"local-dir:{folder / 'start'}", "--shards", str(scene_shards / "train")]
    flags += [
        "--deepspeed_config",
        str(folder / "ds.json"),
        "--run",
        str(folder / "run"),
        "--ema",
        "0.5",
    ]
    assert main([*flags, "--steps", "2", "--save_every", "1"]) == 0
    for gone in ("start", "start-text"):
        shutil.rmtree(folder / gone)
    return folder / "run"


def given(folder: Path, shards: Path, run: Path) -> list[str]:
    flags = {
        "deepspeed_config": folder / "ds.json",
        "shards": shards / "train",
        "run": run,
        "ema": 0.5,
        "save_every": 1,
    }
    return [str(part) for name, value in flags.items() for part in (f"--{name}", value)]


def embeddings(folder: Path) -> torch.Tensor:
    """What open_clip makes of captions with a folder, and nothing else."""
    towers = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        return towers.encode_text(tokenize(CAPTIONS), normalize=True)


def own(folder: Path) -> torch.Tensor:
    clip = load_folder(folder)
    return clip.encode_texts(clip.tokenize(CAPTIONS)).detach()


def test_a_checkpoint_opens_in_open_clip_without_network_or_its_source(run: Path) -> None:
    step = newest_checkpoint(run)
    assert not flaw_of(step)
    for folder in (step, step / "average"):
        torch.testing.assert_close(embeddings(folder), own(folder), atol=1e-6, rtol=0)
    assert not torch.equal(own(step), own(step / "average"))


def test_a_checkpoint_that_was_moved_opens_here(run: Path, tmp_path: Path) -> None:
    shutil.copytree(newest_checkpoint(run), tmp_path / "moved")
    moved = load_folder(tmp_path / "moved")
    assert moved.config == load_folder(newest_checkpoint(run)).config
    assert torch.equal(own(tmp_path / "moved"), own(newest_checkpoint(run)))


def test_interpolated_models_and_exports_hold_the_text_side_too(run: Path, tmp_path: Path) -> None:
    first, last = complete_checkpoints(run)
    mixed = tmp_path / "mixed"
    settings = InterpolateConfig(start=str(first), final=str(last), save="1", save_to=mixed)
    interpolate(settings)
    export(ExportConfig(model=str(run), to="open_clip", out=tmp_path / "out"))
    for folder in (mixed, tmp_path / "out"):
        torch.testing.assert_close(embeddings(folder), embeddings(last), atol=0, rtol=0)
    refuse_existing(mixed, overwrite=True)  # it is ours, with all its files


def test_a_run_resumes_without_its_source(run: Path, scene_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    model = read_settings(run)["settings"]["model"]["model"]
    flags = given(run.parent, scene_shards, tmp_path / "run")
    assert main([*flags, "--model", model, "--steps", "3", "--resume"]) == 0
    assert newest_checkpoint(tmp_path / "run").name == "step-000003"
