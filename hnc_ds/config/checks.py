"""Checks and types of settings that several stages share."""

import os
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from hnc_ds.errors import UserError


def at_least(minimum: float, **values: float) -> None:
    """UserError where one of the settings is smaller."""
    for name, value in values.items():
        if value < minimum:
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


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
