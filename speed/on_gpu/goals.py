"""What the measurements on a device are compared with: the project's goals. No measuring here."""

from collections.abc import Mapping
from typing import NamedTuple

L14 = "ViT-L/14 at 336 pixels"


class Goal(NamedTuple):
    """A bound that a quantity should keep."""

    what: str
    bound: float
    is_least: bool = True
    """False where it is the most that is wanted."""
    unit: str = ""
    """'%' for shares, which are given and kept as numbers of 0 to 1."""
    of_peak: bool = False
    """Whether what is found is in 10^12 operations a second, and its share of the peak counts."""


GOALS = {
    "l14 eager ahead": Goal(f"{L14}: open_clip's step takes times as long", 1.3),
    "l14 compiled ahead": Goal(f"{L14}, both compiled: open_clip's step takes times as long", 1.3),
    "l14 compiled tflops": Goal(
        f"{L14}, compiled: of the measured peak", 0.45, unit="%", of_peak=True
    ),
    "l14 eager behind": Goal(f"{L14}: longer than without an engine", 0.05, False, "%"),
    "l14 compiled behind": Goal(
        f"{L14}, compiled: longer than without an engine", 0.05, False, "%"
    ),
    "l14 waits": Goal(f"{L14}: waits of the host for the device in a step", 1, False),
    "b32 eager ahead": Goal(
        "ViT-B/32, largest batch that all have room for: open_clip's step takes times as long", 2
    ),
    "real waiting": Goal("Training from shards: waiting for data", 0.02, False, "%"),
    "llava ahead": Goal("LLaVA: most questions a second, of generate's with 32 at once", 3),
    "loss ahead": Goal("Loss at N = 32,768: speed, of the plain matrix's", 0.7, unit="%"),
}
"""Goals by the names that sections record (``Recorder.reached``)."""


def lines(reached: Mapping[str, float], peak_tflops: float | None) -> list[str]:
    """The table of goals.

    Args:
        reached: What was found, by names of GOALS.
        peak_tflops: Of matrix products, 10^12 operations a second.
    """
    head = ["| | goal | found | |", "|---|---|---|---|"]
    return [
        *head,
        *(_line(goal, _found(name, reached, peak_tflops)) for name, goal in GOALS.items()),
    ]


def missed(reached: Mapping[str, float], peak_tflops: float | None) -> list[str]:
    """Names of the goals whose bound what was found does not keep."""
    found = {name: _found(name, reached, peak_tflops) for name in GOALS}
    return [n for n, value in found.items() if value is not None and not _is_met(GOALS[n], value)]


def _found(name: str, reached: Mapping[str, float], peak_tflops: float | None) -> float | None:
    value = reached.get(name)
    if value is None or not GOALS[name].of_peak:
        return value
    return value / peak_tflops if peak_tflops else None


def _is_met(goal: Goal, found: float) -> bool:
    return found >= goal.bound if goal.is_least else found <= goal.bound  # False for NaN, too


def _line(goal: Goal, found: float | None) -> str:
    wanted = f"{'at least' if goal.is_least else 'at most'} {_number(goal.bound, goal.unit)}"
    if found is None:
        return f"| {goal.what} | {wanted} | | not measured |"
    state = "met" if _is_met(goal, found) else "**missed**"
    return f"| {goal.what} | {wanted} | {_number(found, goal.unit)} | {state} |"


def _number(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "%" else f"{value:.3g}"
