"""Models under the names that users give, and images."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hnc_ds import checkpoint
from hnc_ds.checkpoint import to_json
from hnc_ds.config import ModelConfig, TrainConfig
from hnc_ds.model.load import load_model
from tests.model.tiny_models import KINDS, save_tiny


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Path]:
    """A run at step 1000 of a model of random weights: 'tiny', or 'clip' with CLIP's vocabulary."""

    def make(folder: Path, model: str) -> Path:
        config = ModelConfig(model=model)
        if model == "clip":
            saved = save_tiny(tmp_path_factory.mktemp("clip") / "model", KINDS["CLIP"])
            config = ModelConfig(model=f"local-dir:{saved}")
        checkpoint.start_run(folder, {"settings": to_json(TrainConfig())})
        clip = load_model(config, seed=1)
        weights = {name: p.detach() for name, p in clip.named_parameters()}
        content = checkpoint.contents(clip, weights, {}, {}, {})
        checkpoint.write(folder, 1000, content, keep_last=1)
        return folder

    return make


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory, make_run: Callable[[Path, str], Path]
) -> dict[str, Path]:
    """A run of each model, by its name; read only."""
    folder = tmp_path_factory.mktemp("runs")
    return {model: make_run(folder / model, model) for model in ("tiny", "clip")}


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A wide image of many colours."""
    return Image.effect_noise((90, 60), 80).convert("RGB")
