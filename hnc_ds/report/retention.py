"""What is kept against what is gained: recognition on one axis, relations on the other.

A point for every checkpoint or mixture of a run, or one for a run. Only points that were measured
on the same things are drawn together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL
from hnc_ds.report.figures import Labelled, scatter
from hnc_ds.report.runs import Point, RowKey, Run

BOTH_WAYS = ("image_to_text_R@1", "text_to_image_R@1")

RECOGNITION: tuple[tuple[str, tuple[RowKey, ...]], ...] = (
    ("zero-shot classification, acc1", (("zero-shot", "acc1", "all"),)),
    *(
        (f"{title}, mean R@1", tuple((benchmark, way, "all") for way in BOTH_WAYS))
        for title, benchmark in (
            ("COCO retrieval", "coco-retrieval"),
            ("Flickr30k retrieval", "flickr30k-retrieval"),
            ("retrieval on the shards", RETRIEVAL),
        )
    ),
)
"""The first that at least two points have is the axis."""

RELATIONS: tuple[tuple[str, RowKey], ...] = (
    ("SugarCrepe", ("sugarcrepe", "accuracy", "all")),
    ("VG-Relation", ("aro-relation", "accuracy", "all")),
    ("VG-Attribution", ("aro-attribution", "accuracy", "all")),
    ("Winoground group", ("winoground", "group", "all")),
    ("VALSE", ("valse", "accuracy", "all")),
    ("What'sUp", ("whatsup", "accuracy", "all")),
    ("BiVLC group", ("bivlc", "group", "all")),
    ("Cola", ("cola", "accuracy", "all")),
    ("HNC test", ("hnc-test", "accuracy", "all")),
)
"""The axis is the mean of those that all points have; the shards' pairs where there are none."""

OF_SHARDS = ("hard negatives of the shards", (HARD_NEGATIVES, "pair_accuracy", "all"))


@dataclass(frozen=True, slots=True)
class Retention:
    """The figure and what its axes are."""

    svg: str
    across: str
    up: str


def retention(runs: Sequence[Run]) -> Retention | None:
    """The figure, or nothing where fewer than two points have both."""
    for across, keys in RECOGNITION:
        points = {run: _having(r.points, keys) for run, r in enumerate(runs)}
        chosen = [point for own in points.values() for point in own]
        if len(chosen) < 2:
            continue
        up, relations = _relations(chosen)
        drawn = {
            run: [_labelled(point, keys, relations) for point in _having(own, relations)]
            for run, own in points.items()
        }
        if relations and sum(map(len, drawn.values())) > 1:
            full = {run: own for run, own in drawn.items() if own}
            return Retention(scatter(full, across, up), across, up)
    return None


def _having(points: Sequence[Point], keys: Sequence[RowKey]) -> list[Point]:
    return [point for point in points if all(key in point.rows for key in keys)]


def _relations(points: Sequence[Point]) -> tuple[str, list[RowKey]]:
    """What all of them were measured on, in words and as keys."""
    found = [(title, key) for title, key in RELATIONS if all(key in p.rows for p in points)]
    if not found:
        found = [OF_SHARDS] if any(OF_SHARDS[1] in p.rows for p in points) else []
    titles = ", ".join(title for title, _ in found)
    return f"mean of {titles}" if len(found) > 1 else titles, [key for _, key in found]


def _labelled(point: Point, across: Sequence[RowKey], up: Sequence[RowKey]) -> Labelled:
    x, y = (mean(point.rows[key].value for key in keys) for keys in (across, up))
    return Labelled(x, y, point.label)
