"""Settings as the JSON of a run's config.json, and back: what a run writes, --config reads."""

from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hnc_ds.errors import UserError, did_you_mean

Settings = TypeVar("Settings")


def to_json(settings: Any) -> dict[str, Any]:
    """The fields of a settings object as JSON values, by name, nested as they are."""
    return {name: _json_value(value) for name, value in asdict(settings).items()}


def updated(settings: Settings, values: dict[str, Any], where: str) -> Settings:
    """A copy of the settings with values as ``to_json`` writes them.

    Args:
        settings: A dataclass of this file.
        values: By field name; fields that are not named stay as they are.
        where: File and place of the values, for errors.

    Raises:
        UserError: An unknown name, or a value that the settings refuse.
    """
    known = {entry.name for entry in fields(settings)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown setting '{name}'{did_you_mean(name, known)}")
        current = getattr(settings, name)
        if is_dataclass(current):
            changed[name] = updated(current, value, f"{where}.{name}")
        elif name in PATHS and value is not None:
            changed[name] = Path(value)
        else:
            changed[name] = value
    try:
        return replace(settings, **changed)  # type: ignore[type-var]
    except (UserError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error


PATHS = frozenset({"deepspeed_config", "run", "config", "cache", "similar"})
"""Settings of a training run that are paths."""


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_json_value(part) for part in value]
    return str(value) if isinstance(value, Path) else value
