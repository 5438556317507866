"""Scores of objectives over seeds as Markdown. No training here."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import msgspec

from hnc_ds.records import Result

Key = tuple[str, str, str]
"""Benchmark, metric, group."""

SUMMARY: dict[str, tuple[str, tuple[str, ...]]] = {
    "swap": ("pair_accuracy", ("swap",)),
    "opposite relation": ("pair_accuracy", ("relation_attr_pred", "relation_pred")),
    "wrong subject or object": (
        "pair_accuracy",
        ("relation_subj", "relation_obj", "relation_attr_subj", "relation_attr_obj"),
    ),
    "swapped attributes": ("pair_accuracy", ("swap_attribute",)),
    "attribute, object": ("pair_accuracy", ("attribute", "attribute_subg", "object")),
    "logic, counts": (
        "pair_accuracy",
        (
            "and_logic_attr",
            "and_logic_rel",
            "xor_logic_attr",
            "obj_verify_count",
            "obj_verify_count_attr",
        ),
    ),
    "image-to-text R@1": ("image_to_text_R@1", ("all",)),
    "text-to-image R@1": ("text_to_image_R@1", ("all",)),
}
"""Columns of the short table: a metric and the groups it is the mean of."""

Scores = dict[Key, float]
"""Of one seed."""


def read(results: Path) -> Scores:
    """The shares that ``hnc-ds evaluate`` wrote."""
    rows = msgspec.json.decode(results.read_bytes(), type=list[Result])
    shares = [row for row in rows if row.metric not in ("ties", "margin")]
    return {(row.benchmark, row.metric, row.group): row.value for row in shares}


def tables(found: Mapping[str, Sequence[Scores]]) -> str:
    """A short table, and one with a row for every type.

    Args:
        found: Of each objective, the scores of its seeds.
    """
    short = [
        (name, [cell([average(one, *column) for one in seeds]) for column in SUMMARY.values()])
        for name, seeds in found.items()
    ]
    keys = next((list(seeds[0]) for seeds in found.values() if seeds), [])
    full = [
        (f"{key[1]} {key[2]}", [cell([one[key] for one in seeds]) for seeds in found.values()])
        for key in keys
    ]
    by_type = markdown(("percent", *found), full)
    return markdown(("percent", *SUMMARY), short) + "\n## Every score\n\n" + by_type


def average(scores: Scores, metric: str, groups: tuple[str, ...]) -> float:
    """Over the groups that there are, however many pairs they have; NaN without any."""
    values = [value for (_, m, group), value in scores.items() if m == metric and group in groups]
    return mean(values) if values else math.nan


def cell(of_seeds: Sequence[float]) -> str:
    """Mean (smallest - largest), percent; the one value of a single seed."""
    values = [100 * value for value in of_seeds if not math.isnan(value)]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{mean(values):.1f} ({min(values):.1f} - {max(values):.1f})"


def markdown(head: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    """A table."""
    lines = [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows),
    ]
    return "".join(f"{line}\n" for line in lines)
