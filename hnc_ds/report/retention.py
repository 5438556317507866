"""What is kept against what is gained: recognition on one axis, relations on the other.

A point for every checkpoint or mixture of a run, or one for a run. Only points that were measured
on the same things are drawn together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, RETRIEVAL
from hnc_ds.evaluation.table import RowKey
from hnc_ds.report.compare import percent
from hnc_ds.report.figures import Labelled, scatter
from hnc_ds.report.runs import Point, Run

BOTH_WAYS = ("image_to_text_R@1", "text_to_image_R@1")

RECOGNITION: tuple[tuple[str, tuple[RowKey, ...]], ...] = (
    ("zero-shot classification, acc1", (("zero-shot", "acc1", "all"),)),
    *(
        (f"{title}, mean of R@1 both ways", tuple((benchmark, way, "all") for way in BOTH_WAYS))
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
    """The figure, what its axes are, and its points as text."""

    svg: str
    across: str
    up: str
    rows: list[tuple[int, str, str, str]]
    """Place of the run, label of the point, and its two values in percent, with intervals."""
    reference: str
    """The point that is marked; empty where the first run has none."""
    left_out: int
    """Points that have both values, but of other questions than the first."""


def retention(runs: Sequence[Run]) -> Retention | None:
    """The figure, or nothing where fewer than two points have both."""
    for across, keys in RECOGNITION:
        chosen = [
            (run, point)
            for run, one in enumerate(runs)
            for point in one.points
            if all(key in point.rows for key in keys)
        ]
        if len(chosen) < 2:
            continue
        up, relations = _relations([point for _, point in chosen])
        having = [(run, p) for run, p in chosen if all(key in p.rows for key in relations)]
        asked = [*keys, *relations]
        alike = [(run, p) for run, p in having if _asked_the_same(p, having[0][1], asked)]
        if relations and len(alike) > 1:
            found = [(run, _labelled(point, keys, relations)) for run, point in alike]
            return _drawn(found, across, up, len(having) - len(alike))
    return None


def _drawn(
    points: Sequence[tuple[int, Labelled]], across: str, up: str, left_out: int
) -> Retention:
    by_run: dict[int, list[Labelled]] = {}
    for run, point in points:
        by_run.setdefault(run, []).append(point)
    return Retention(
        svg=scatter(by_run, across, up),
        across=across,
        up=up,
        rows=[
            (run, point.label, _told(point.x, point.across), _told(point.y, point.up))
            for run, point in points
        ],
        reference=by_run[0][0].label if 0 in by_run else "",
        left_out=left_out,
    )


def _asked_the_same(point: Point, other: Point, keys: Sequence[RowKey]) -> bool:
    """Whether two points may be compared: as far as their files say what they are of."""
    for key in keys:
        one, two = point.rows[key], other.rows[key]
        if (one.version, one.count) != (two.version, two.count):
            return False
        questions = {point.asked.get(key[0]), other.asked.get(key[0])} - {None}
        if len(questions) > 1:
            return False
    return True


def _relations(points: Sequence[Point]) -> tuple[str, list[RowKey]]:
    """What all of them were measured on, in words and as keys."""
    found = [(title, key) for title, key in RELATIONS if all(key in p.rows for p in points)]
    if not found:
        found = [OF_SHARDS] if any(OF_SHARDS[1] in p.rows for p in points) else []
    titles = ", ".join(title for title, _ in found)
    return f"mean of {titles}" if len(found) > 1 else titles, [key for _, key in found]


def _labelled(point: Point, across: Sequence[RowKey], up: Sequence[RowKey]) -> Labelled:
    x, y = (mean(point.rows[key].value for key in keys) for keys in (across, up))
    return Labelled(x, y, point.label, _ends(point, across), _ends(point, up))


def _ends(point: Point, keys: Sequence[RowKey]) -> tuple[float, float]:
    """Of the interval of a mean of scores: the means of their ends, so that it is never too narrow,
    however much the scores depend on each other."""
    rows = [point.rows[key] for key in keys]
    return mean(row.low for row in rows), mean(row.high for row in rows)


def _told(value: float, ends: tuple[float, float] | None) -> str:
    return percent(value) + (f" ({percent(ends[0])} to {percent(ends[1])})" if ends else "")
