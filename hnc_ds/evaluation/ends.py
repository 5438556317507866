"""The two models of an interpolation: fit to be mixed."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hnc_ds.errors import UserError
from hnc_ds.evaluation.models import OWN_START, End, load_end, load_own_start
from hnc_ds.model.clip import Clip


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
