"""Which figures a page has: recognition against relations, corrupted images, training curves.

Recognition (kept) against relations (gained) has a point for every checkpoint or interpolated model
of a run, or one for a run; all points have scores on the same questions. Corrupted images have a
panel per corruption, scores against severity. Training has a curve per tag of the log; a tag that
is not in TAGS is shown under its own name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from hnc_ds.captions.language.attribute_classes import about_of
from hnc_ds.errors import counted
from hnc_ds.evaluation.benchmarks import (
    BOTH_WAYS,
    HARD_NEGATIVES,
    RELEASED,
    RETRIEVAL,
    ZERO_SHOT,
    described,
)
from hnc_ds.evaluation.corruptions import SEVERITIES, Condition, condition_of, is_of_conditions
from hnc_ds.evaluation.released.zero_shot import OVER_SETS
from hnc_ds.evaluation.results import Measurement, RowKey
from hnc_ds.records import Result
from hnc_ds.report.figures import Curve, Labelled, curves, scatter
from hnc_ds.report.runs import Point, Run
from hnc_ds.report.tables import Block, Table, percent, table_of

CLEAN = 0
"""Severity of clean images."""

UNLIKE = "Runs differ in corruptions and severities: their mPC and rPC cannot be compared."


@dataclass(frozen=True, slots=True)
class Robustness:
    """One benchmark's first metric on corrupted images."""

    title: str
    panels: list[tuple[str, str]]
    """(corruption, curves as SVG)."""
    table: Table
    """mPC and rPC of every metric."""
    remark: str
    """Why values of that table cannot be compared; empty if they can."""


def robustness_panels(measurements: Sequence[Measurement | None]) -> list[Robustness]:
    """Panels of every benchmark with scores on corrupted images.

    Args:
        measurements: One per run; None for a run without this file.
    """
    keys = dict.fromkeys(key for m in measurements if m for key in m.rows)
    found: dict[str, list[RowKey]] = {}
    for key in keys:
        if is_of_conditions(key[2]):
            found.setdefault(key[0], []).append(key)
    return [_of_benchmark(name, own, measurements) for name, own in found.items()]


def _of_benchmark(
    benchmark: str, keys: Sequence[RowKey], measurements: Sequence[Measurement | None]
) -> Robustness:
    metric, title = keys[0][1], described(benchmark).title
    corruptions = dict.fromkeys(c[0] for _, _, group in keys if (c := condition_of(group)))
    means = [key for key in keys if condition_of(key[2]) is None]
    conditions = {frozenset(own) for m in measurements if m and (own := _conditions(m, benchmark))}
    return Robustness(
        f"{title}: {metric.replace('_', ' ')}",
        [
            (name.replace("_", " "), _corruption_panel(benchmark, metric, name, measurements))
            for name in corruptions
        ],
        table_of(Block(title, means, by_metric=True), measurements, [None] * len(measurements)),
        UNLIKE if len(conditions) > 1 else "",
    )


def _conditions(measurement: Measurement, benchmark: str) -> list[Condition]:
    groups = (group for name, _, group in measurement.rows if name == benchmark)
    return [condition for group in groups if (condition := condition_of(group))]


def _corruption_panel(
    benchmark: str, metric: str, corruption: str, measurements: Sequence[Measurement | None]
) -> str:
    lines = {
        run: found
        for run, m in enumerate(measurements)
        if m is not None and len(found := severities(m, benchmark, metric, corruption)) > 1
    }
    chance = described(benchmark).chance
    return curves(lines, share=True, chance=chance, ticks=(CLEAN, *SEVERITIES)) if lines else ""


def severities(measurement: Measurement, benchmark: str, metric: str, corruption: str) -> Curve:
    """(severity, score) of one corruption, ascending, clean images first."""
    found: list[tuple[float, float]] = []
    for (name, own, group), row in measurement.rows.items():
        condition = (corruption, CLEAN) if group == "all" else condition_of(group)
        if (name, own) == (benchmark, metric) and condition and condition[0] == corruption:
            found.append((condition[1], row.value))
    return sorted(found)


Axis = tuple[str, tuple[RowKey, ...]]
"""Title, and the rows whose mean is the value."""


def _axis(title: str, benchmark: str, metrics: Sequence[str]) -> Axis:
    measured = "mean of R@1 both ways" if len(metrics) > 1 else metrics[0].replace("_", " ")
    return f"{title}, {measured}", tuple((benchmark, metric, "all") for metric in metrics)


RECOGNITION = [
    _axis(RELEASED[ZERO_SHOT].title, ZERO_SHOT, (f"acc1{OVER_SETS}",)),
    *(
        _axis(known.title, name, known.recognition)
        for name, known in sorted(RELEASED.items(), key=lambda entry: entry[1].searches)
        if known.recognition
    ),
    _axis("retrieval on the shards", RETRIEVAL, BOTH_WAYS),
]
"""Classification of several sets, of one, then retrieval; the first one that at least two points
have is the axis."""

RELATIONS: list[tuple[str, RowKey]] = [
    (
        known.title if known.relations == "accuracy" else f"{known.title} {known.relations}",
        (name, known.relations, "all"),
    )
    for name, known in RELEASED.items()
    if known.relations
]
"""The axis is the mean of those that all points have, or the pairs of the shards if there are
none."""

OF_SHARDS = ("hard negatives of the shards", (HARD_NEGATIVES, "pair_accuracy", "all"))


@dataclass(frozen=True, slots=True)
class Retention:
    """The figure, the titles of its axes, and its points as text."""

    svg: str
    across: str
    up: str
    rows: list[tuple[int, str, str, str]]
    """(run, label of the point, x, y), the values in percent with intervals."""
    reference: str
    """The marked point; empty if the first run has none."""
    left_out: int
    """Points with both values, but on other questions than the first."""


def retention(runs: Sequence[Run]) -> Retention | None:
    """The figure; None if fewer than two points have both values."""
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
        alike = [(run, p) for run, p in having if _comparable(p, having[0][1], [*keys, *relations])]
        if relations and len(alike) > 1:
            points = [(run, _labelled(point, keys, relations)) for run, point in alike]
            title = across + _sets(alike[0][1].rows[keys[0]])
            return _drawn(points, title, up, len(having) - len(alike))
    return None


def _sets(row: Result) -> str:
    """How many sets a mean over sets is of, for the title of its axis."""
    return f" ({counted(row.count, 'set')})" if row.metric.endswith(OVER_SETS) else ""


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
            (run, point.label, _text(point.x, point.across), _text(point.y, point.up))
            for run, point in points
        ],
        reference=by_run[0][0].label if 0 in by_run else "",
        left_out=left_out,
    )


def _comparable(point: Point, other: Point, keys: Sequence[RowKey]) -> bool:
    """Whether two points have scores on the same questions, as far as their files record it."""
    for key in keys:
        one, two = point.rows[key], other.rows[key]
        if (one.version, one.count) != (two.version, two.count):
            return False
        questions = {point.fingerprints.get(key[0]), other.fingerprints.get(key[0])} - {None}
        if len(questions) > 1:
            return False
    return True


def _relations(points: Sequence[Point]) -> tuple[str, list[RowKey]]:
    """Title and rows of the relation scores that all points have."""
    common = [(title, key) for title, key in RELATIONS if all(key in p.rows for p in points)]
    if not common:
        common = [OF_SHARDS] if any(OF_SHARDS[1] in p.rows for p in points) else []
    titles = ", ".join(title for title, _ in common)
    return f"mean of {titles}" if len(common) > 1 else titles, [key for _, key in common]


def _labelled(point: Point, across: Sequence[RowKey], up: Sequence[RowKey]) -> Labelled:
    x, y = (mean(point.rows[key].value for key in keys) for keys in (across, up))
    return Labelled(x, y, point.label, _ends(point, across), _ends(point, up))


def _ends(point: Point, keys: Sequence[RowKey]) -> tuple[float, float]:
    """Interval of a mean of scores: the means of their ends, which is never too narrow, however
    correlated the scores are."""
    rows = [point.rows[key] for key in keys]
    return mean(row.low for row in rows), mean(row.high for row in rows)


def _text(value: float, ends: tuple[float, float] | None) -> str:
    return percent(value) + (f" ({percent(ends[0])} to {percent(ends[1])})" if ends else "")


LEARNING = "Learning"
BY_TYPE = "Hard negative accuracy by type"
BY_ABOUT = "Hard negative accuracy by predicate and class of attributes"
EVALUATED = "Held-out scores while training"
MACHINE = "Loss terms, optimizer and machine"
GROUPS = (LEARNING, EVALUATED, BY_TYPE, BY_ABOUT, MACHINE)
ACCURACIES = {
    "hard_negative_accuracy": BY_TYPE,
    "predicate_accuracy": BY_ABOUT,
    "attribute_accuracy": BY_ABOUT,
}
SHOWN_SCORES = ("pair_accuracy", "R@1")
"""Suffixes of the held-out metrics that are shown."""


@dataclass(frozen=True, slots=True)
class Tag:
    """Title, group and scale of a tag."""

    title: str
    group: str = MACHINE
    share: bool = False
    """A fraction, shown as percent."""
    chance: float | None = None


TAGS = {
    "loss": Tag("Loss, nats", LEARNING),
    "hard_negative_accuracy": Tag("Hard negative accuracy", LEARNING, share=True, chance=0.5),
    "retrieval_r1": Tag("Retrieval R@1 in the batch", LEARNING, share=True),
    "margin": Tag("Margin", LEARNING),
    "temperature": Tag("Temperature", LEARNING),
    "similarity": Tag("Mean similarity"),
    "alpha": Tag("Weight of the hard negatives"),
    "learning_rate": Tag("Learning rate"),
    "gradient_norm": Tag("Gradient norm"),
    "samples_per_second": Tag("Samples per second"),
    "samples_per_second_per_rank": Tag("Samples per second and rank"),
    "data_wait_fraction": Tag("Time spent waiting for data", share=True),
    "padding_fraction": Tag("Text tokens that are padding", share=True),
    "tflops_per_rank": Tag("TFLOP/s per rank"),
    "peak_share": Tag("Share of the accelerator's peak", share=True),
    "memory_gib": Tag("Memory, GiB"),
}
NOT_SHOWN = frozenset({"step", "epoch", "time"})


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve of all runs."""

    title: str
    last: list[tuple[int, str]]
    """(run, last value as text)."""
    svg: str


def panels(runs: Sequence[Run]) -> dict[str, list[Panel]]:
    """Panels by group, without empty groups."""
    logged = {name for run in runs for row in run.log for name in row} - NOT_SHOWN
    names = _ordered(filter(_is_shown, logged))
    grouped: dict[str, list[Panel]] = {group: [] for group in GROUPS}
    for name in names:
        tag = tag_of(name)
        grouped[tag.group].append(_panel(name, tag, runs))
    return {group: shown for group, shown in grouped.items() if shown}


def tag_of(name: str) -> Tag:
    """A tag's entry in the table; 'hard_negative_accuracy/swap' inherits from its parent."""
    parent, _, part = name.partition("/")
    if parent == "eval":
        title = part.partition("/")[2].replace("_", " ").replace("/", ", ")
        return Tag(title, EVALUATED, share=True)
    if not part:
        return TAGS.get(name, Tag(name.replace("_", " ")))
    if group := ACCURACIES.get(parent):
        return Tag(part.replace("_", " "), group, share=True, chance=0.5)
    known = TAGS.get(parent, Tag(parent.replace("_", " ")))
    return Tag(f"{known.title}: {part.replace('_', ' ')}", MACHINE, known.share, known.chance)


def _is_shown(name: str) -> bool:
    parts = name.split("/")
    is_shown = len(parts) == 4 and parts[2].endswith(SHOWN_SCORES) and about_of(parts[3]) is None
    return parts[0] != "eval" or is_shown


def _ordered(names: Iterable[str]) -> list[str]:
    places = {name: place for place, name in enumerate(TAGS)}
    return sorted(names, key=lambda n: (places.get(n.partition("/")[0], len(places)), n))


def _panel(name: str, tag: Tag, runs: Sequence[Run]) -> Panel:
    found = {index: _curve(run, name) for index, run in enumerate(runs)}
    by_run = {index: curve for index, curve in found.items() if curve}
    of_seeds = {
        index: [_curve(seed, name) for seed in runs[index].seeds.values()] for index in by_run
    }
    last = [(run, _shown(curve[-1][1], tag)) for run, curve in by_run.items()]
    svg = curves(by_run, share=tag.share, chance=tag.chance, faint=of_seeds)
    return Panel(tag.title, last, svg)


def _curve(run: Run, name: str) -> Curve:
    return [(row["step"], row[name]) for row in run.log if name in row]


def _shown(value: float, tag: Tag) -> str:
    if tag.share:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
