"""Checks and types of settings that several stages share."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, cast, get_args, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from hnc_ds.errors import UserError

LARGEST = 2**63 - 1
"""Of a whole number: what seeds, positions and counts are stored in."""


class Settings:
    """What all settings have in common: numbers that are numbers, none below zero.

    Whatever a field is narrowed to besides, its own class checks.
    """

    def __post_init__(self) -> None:
        """Raises UserError for a number that is none."""
        for name, kinds in _number_fields(cast(Any, type(self))).items():
            for told, value in _numbers_in(name, getattr(self, name)):
                _check_number(told, value, kinds)


@cache
def _number_fields(settings: type[Any]) -> dict[str, frozenset[type]]:
    """Fields that hold numbers, also in tuples and dictionaries, and of which kinds."""
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


def _check_number(name: str, value: Any, kinds: frozenset[type]) -> None:
    wanted = "a number" if float in kinds else "a whole number"
    if type(value) not in kinds | {int} or (type(value) is float and not math.isfinite(value)):
        raise UserError(f"{name} is {value}; it must be {wanted}")
    if value < 0:
        raise UserError(f"{name} is {value}; it must be 0 or more")
    if value > LARGEST and float not in kinds:
        raise UserError(f"{name} is {value}; it must be less than 2 ** 63")


def at_least(minimum: float, **values: float) -> None:
    """UserError where one of the settings is smaller."""
    for name, value in values.items():
        if not value >= minimum:
            raise UserError(f"{name} is {value}; it must be {minimum} or more")


def share(**values: float) -> None:
    """UserError where one of the settings is no share of 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}; it must lie between 0 and 1")


def read_part(flag: str | None) -> tuple[int, int]:
    """Number of a part and how many there are, of ``--part 0/4``; the whole when there is none.

    Raises:
        UserError: It is none.
    """
    if flag is None:
        return 0, 1
    number, slash, count = flag.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UserError(f"--part {flag}: write such as 0/4, counted from 0")
    return int(number), int(count)


def _read_weights(given: list[str]) -> dict[str, float]:
    if len(given) % 2:
        raise ValueError("give names and weights in turn: NAME WEIGHT NAME WEIGHT")
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
"""Names with numbers. tyro alone would make a flag of each name of a default that has some."""

REQUIRED = tyro.conf.arg(help_behavior_hint="(required, but for --check)")
