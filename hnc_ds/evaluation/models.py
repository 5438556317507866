"""Models by what the user calls them.

runs/first                       a run: its newest checkpoint
runs/first/checkpoints/step-...  a checkpoint, or any folder in open_clip's local-dir layout
ViT-B-32:openai                  an open_clip model with its tag or its file of weights; or ViT-B/32
hf-hub:... local-dir:...         as open_clip writes them
start                            of a run: what it began with
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from hnc_ds.checkpoint import SETTINGS_NAME, load_trained, read_settings
from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.finite import refuse_broken_weights
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import known_names, load_model, open_clip_name, tags_of
from hnc_ds.settings_file import updated

OWN_START = "start"
OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class End:
    """A model on the CPU."""

    name: str
    """What results call it."""
    model: Clip


def load_end(reference: str) -> End:
    """Load a run, a checkpoint folder or an open_clip model.

    Raises:
        UserError: It is none of them, a model without weights, or with weights that are not finite.
    """
    end = End(name_of(reference), _loaded(reference))
    refuse_broken_weights(end.model, end.name)
    return end


def _loaded(reference: str) -> Clip:
    if Path(reference).is_dir():
        return load_trained(Path(reference), torch.device("cpu"))
    if reference.startswith(("hf-hub:", "local-dir:")):
        return load_model(ModelConfig(model=reference), seed=0)
    model, _, weights = reference.partition(":")
    tags = tags_of(model)
    if tags is None or not weights:
        raise UserError(f"{reference}: {_how_to_name(reference, model, tags)}")
    return load_model(ModelConfig(model=model, pretrained=weights), seed=0)


def _how_to_name(reference: str, model: str, tags: list[str] | None) -> str:
    """What is wrong with a reference that is no folder, and how a model is named."""
    if Path(reference).is_file():
        return "a file; give its folder, or MODEL:FILE such as ViT-B-32:weights.safetensors"
    if tags is None:
        near = did_you_mean(open_clip_name(model), known_names())
        return (
            f"no such folder, and no model of open_clip{near}; give a run, a checkpoint folder, or "
            "an open_clip model with its tag or file of weights, such as ViT-B-32:openai"
        )
    if not tags:
        return f"a model without tags of weights; name a file of them, as {model}:FILE"
    tag = OPENAI if OPENAI in tags else tags[0]
    return (
        f"which weights? Write {model}:TAG, such as {model}:{tag}, or {model}:FILE; its tags are "
        f"{', '.join(tags)}"
    )


def name_of(reference: str) -> str:
    """What results call a model, by what the user calls it."""
    return model_name(Path(reference)) if Path(reference).is_dir() else reference


def load_own_start(trained: Path) -> End:
    """The model that a run began with, before its first step.

    Args:
        trained: The run, or a checkpoint in it.

    Raises:
        UserError: It lies in no run, or the settings of the run do not say.
    """
    folder = trained.resolve()
    found = [path for path in (folder, *folder.parents[:3]) if (path / SETTINGS_NAME).is_file()]
    if not found:
        raise UserError(f"{trained}: lies in no run of 'hnc-ds train', so name the START model")
    run, where = found[0], f"{found[0] / SETTINGS_NAME}: settings.model"
    settings = read_settings(run).get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise UserError(f"{where}: is missing, so name the START model")
    config = updated(ModelConfig(), settings["model"], where)
    if type(seed := settings.get("seed", 0)) is not int or seed not in range(2**63):
        raise UserError(f"{run / SETTINGS_NAME}: settings.seed is {seed!r}, no whole number")
    start = End(f"{run.name}/{OWN_START}", load_model(config, seed))
    refuse_broken_weights(start.model, start.name)
    return start


def model_name(run: Path) -> str:
    """``first`` for runs/first, ``first/step-000500`` for one of its checkpoint folders."""
    folder = run.resolve()
    if folder.parent.name == "checkpoints":
        return f"{folder.parent.parent.name}/{folder.name}"
    return folder.name
