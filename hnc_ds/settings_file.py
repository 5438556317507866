"""Settings as the JSON of a run's config.json, and back: what a run writes, --config reads."""

from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

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
    if not isinstance(values, dict):
        raise UserError(f"{where}: not settings by name")
    known = {entry.name for entry in fields(settings)}  # type: ignore[arg-type]
    kinds = get_type_hints(type(settings), include_extras=True)
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown setting '{name}'{did_you_mean(name, known)}")
        current = getattr(settings, name)
        if is_dataclass(current):
            changed[name] = updated(current, value, f"{where}.{name}")
        elif name in PATHS and value is not None:
            changed[name] = Path(_converted(value, str, f"{where}.{name}"))
        else:
            changed[name] = _converted(value, kinds[name], f"{where}.{name}")
    try:
        return replace(settings, **changed)  # type: ignore[type-var]
    except (UserError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error


def _converted(value: Any, kind: Any, where: str) -> Any:
    try:
        return value if kind in (Path, Path | None) else msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}") from error


PATHS = frozenset({"deepspeed_config", "run", "config", "cache", "similar"})
"""Settings of a training run that are paths."""


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_json_value(part) for part in value]
    return str(value) if isinstance(value, Path) else value
