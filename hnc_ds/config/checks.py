"""Checks and types of settings that several stages use."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, cast, get_args, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from hnc_ds.errors import UserError

BOOKKEEPING = frozenset({"run", "resume", "config"})
"""Settings that are only about the location of a run."""

LARGEST = 2**63 - 1
"""Largest integer: seeds, positions and counts are stored as int64."""


class Settings:
    """Base of all settings: every number is finite, of its field's type and not negative.

    Subclasses check further limits.
    """

    MAY_BE_NEGATIVE: ClassVar[frozenset[str]] = frozenset()
    """Fields that may be negative."""
    GROUP: ClassVar[str] = ""
    """Heading of the flags in --help."""
    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Fields that stand under another heading."""

    def __post_init__(self) -> None:
        """Raise UserError for a field that holds another value than such a number."""
        for name, kinds in _number_fields(cast(Any, type(self))).items():
            for label, value in _numbers_in(name, getattr(self, name)):
                _check_number(label, value, kinds, name in self.MAY_BE_NEGATIVE)


@cache
def _number_fields(settings: type[Any]) -> dict[str, frozenset[type]]:
    """The number types of each field that holds numbers, also in tuples and dictionaries."""
    hints = get_type_hints(settings)
    kinds = {
        name: frozenset((hint, *get_args(hint))) & {int, float} for name, hint in hints.items()
    }
    return {name: kind for name, kind in kinds.items() if kind}


def _numbers_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"{name}: the weight of {key}", weight) for key, weight in value.items())
    elif isinstance(value, tuple | list):
        yield from ((name, part) for part in value)
    elif value is not None:
        yield name, value


def _check_number(name: str, value: Any, kinds: frozenset[type], may_be_negative: bool) -> None:
    wanted = "a number" if float in kinds else "a whole number"
    if type(value) not in kinds | {int} or (type(value) is float and not math.isfinite(value)):
        raise UserError(f"{name} is {value}; it must be {wanted}")
    if value < 0 and not may_be_negative:
        raise UserError(f"{name} is {value}; it must be 0 or more")
    if value > LARGEST and float not in kinds:
        raise UserError(f"{name} is {value}; it must be less than 2 ** 63")


def at_least(minimum: float, **values: float) -> None:
    """Raise UserError if one of the settings is smaller than a minimum."""
    for name, value in values.items():
        if not value >= minimum:
            raise UserError(f"{name} is {value}; it must be {minimum} or more")


def flat_settings(record: object) -> dict[str, str]:
    """The content of a config.json as text by dotted key, without where the run lies.

    A training's settings have no prefix: ``loss.alpha``, ``deepspeed.train_batch_size``.
    """
    flat = ((key.removeprefix("settings."), value) for key, value in _flatten(record, ""))
    return {key: value for key, value in flat if key not in BOOKKEEPING}


def _flatten(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)


def share(**values: float) -> None:
    """Raise UserError if one of the settings is not in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}; it must lie between 0 and 1")


def read_part(flag: str | None) -> tuple[int, int]:
    """(number, count) of ``--part 0/4``; (0, 1), everything, without the flag.

    Raises:
        UserError: The flag has another form.
    """
    if flag is None:
        return 0, 1
    number, slash, count = flag.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UserError(f"--part {flag}: write NUMBER/COUNT, such as 0/4, counted from 0")
    return int(number), int(count)


def _read_weights(given: list[str]) -> dict[str, float]:
    if len(given) % 2:
        raise ValueError("give pairs of name and weight: NAME WEIGHT NAME WEIGHT")
    return {name: float(w) for name, w in zip(given[::2], given[1::2], strict=True)}


Weights = Annotated[
    dict[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME WEIGHT ...",
        instance_from_str=_read_weights,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda weights: [str(part) for pair in weights.items() for part in pair],
    ),
]
"""Numbers by name. Without it tyro makes one flag for each name that a default contains."""

REQUIRED = tyro.conf.arg(help_behavior_hint="(required, but for --check)")
