"""The two models of an interpolation: found by what the user calls them, and fit to be mixed.

runs/first                       a run: its newest checkpoint
runs/first/checkpoints/step-...  a checkpoint, or any folder in open_clip's local-dir layout
ViT-B-32:openai                  an open_clip model with its tag or its file of weights
hf-hub:... local-dir:...         as open_clip writes them
start                            in the first place: what the second place's run began with
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hnc_ds.checkpoint import SETTINGS_NAME, load_trained, read_settings
from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.evaluate import model_name
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.settings_file import updated

OWN_START = "start"


@dataclass(frozen=True, slots=True)
class End:
    """One of the two models, on the CPU."""

    name: str
    """What results call it."""
    model: Clip


def load_ends(start: str, final: str) -> tuple[End, End]:
    """Load START and FINAL.

    Raises:
        UserError: One of them cannot be found or loaded, or they are not of one kind.
    """
    last = load_end(final)
    first = load_own_start(Path(final)) if start == OWN_START else load_end(start)
    if difference := first_difference(first.model, last.model):
        raise UserError(
            f"{first.name} and {last.name} cannot be mixed: {difference}; give two models of the "
            "same architecture, activation and preprocessing"
        )
    return first, last


def load_end(reference: str) -> End:
    """Load a run, a checkpoint folder or an open_clip model.

    Raises:
        UserError: It is none of them, or a model without weights.
    """
    if Path(reference).is_dir():
        return End(model_name(Path(reference)), load_trained(Path(reference), torch.device("cpu")))
    if reference.startswith(("hf-hub:", "local-dir:")):
        return End(reference, load_model(ModelConfig(model=reference), seed=0))
    model, _, weights = reference.partition(":")
    if not weights:
        raise UserError(
            f"{reference}: no such folder; give a run, a checkpoint folder, or an open_clip model "
            "with its tag or file of weights, such as ViT-B-32:openai"
        )
    return End(reference, load_model(ModelConfig(model=model, pretrained=weights), seed=0))


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
    return End(f"{run.name}/{OWN_START}", load_model(config, settings.get("seed", 0)))


def first_difference(start: Clip, final: Clip) -> str | None:
    """Why two models cannot be mixed, in words; None where they can."""
    for what, one, other in _compared(start, final):
        if one != other and (one or other):  # an activation that is not set is one that is off
            return f"{what} is {_shown(one)} in START, {_shown(other)} in FINAL"
    return None


def _compared(start: Clip, final: Clip) -> Iterator[tuple[str, Any, Any]]:
    """Everything that must be equal: a name, the start's value, the final's."""
    configs = [dict(_flat(model.config["model_cfg"], "")) for model in (start, final)]
    yield from _side_by_side("model_cfg.", *configs)
    views = [json.loads(json.dumps(asdict(model.image_settings))) for model in (start, final)]
    yield from _side_by_side("preprocessing ", *views)
    shapes = [
        {name: str(list(tensor.shape)) for name, tensor in model.state_by_open_clip_name().items()}
        for model in (start, final)
    ]
    yield from _side_by_side("shape of ", *shapes)


def _side_by_side(
    what: str, start: dict[str, Any], final: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*start, *final)):
        yield f"{what}{name}", start.get(name), final.get(name)


def _flat(settings: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)
