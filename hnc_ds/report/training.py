"""Which curves of the training logs are shown, under which names and in which order.

Tags are data: a tag that is not in the table below is shown under its own name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hnc_ds.captions.about import about_of
from hnc_ds.report.figures import Curve, curves
from hnc_ds.report.runs import Run

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
"""Of the held-out scores, which there are three or six of for every type."""


@dataclass(frozen=True, slots=True)
class Tag:
    """How a tag of the log is shown."""

    title: str
    group: str = MACHINE
    share: bool = False
    """A fraction, shown as percent."""
    chance: float | None = None


TAGS = {
    "loss": Tag("Loss, nats", LEARNING),
    "hard_negative_accuracy": Tag("Hard negative accuracy", LEARNING, share=True, chance=0.5),
    "retrieval_r1": Tag("Retrieval R@1 in the batch", LEARNING, share=True),
    "margin": Tag("Margin, cosine", LEARNING),
    "temperature": Tag("Temperature", LEARNING),
    "similarity": Tag("Mean cosine"),
    "alpha": Tag("Weight of the hard negatives"),
    "learning_rate": Tag("Learning rate"),
    "gradient_norm": Tag("Gradient norm"),
    "samples_per_second": Tag("Samples per second"),
    "samples_per_second_per_rank": Tag("Samples per second and rank"),
    "data_wait_share": Tag("Time spent waiting for data", share=True),
    "padding_share": Tag("Text tokens that are padding", share=True),
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
    """(run, its last value as text)."""
    svg: str


def panels(runs: Sequence[Run]) -> dict[str, list[Panel]]:
    """All panels, by group; groups without one are left out."""
    logged = {name for run in runs for row in run.log for name in row} - NOT_SHOWN
    names = _ordered(filter(_is_shown, logged))
    grouped: dict[str, list[Panel]] = {group: [] for group in GROUPS}
    for name in names:
        tag = tag_of(name)
        grouped[tag.group].append(_panel(name, tag, runs))
    return {group: shown for group, shown in grouped.items() if shown}


def tag_of(name: str) -> Tag:
    """A tag's entry in the table; 'hard_negative_accuracy/swap' is shown like its parent."""
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
    by_run: dict[int, Curve] = {}
    for index, run in enumerate(runs):
        points = [(row["step"], row[name]) for row in run.log if name in row]
        if points:
            by_run[index] = points
    last = [(run, _shown(curve[-1][1], tag)) for run, curve in by_run.items()]
    return Panel(tag.title, last, curves(by_run, share=tag.share, chance=tag.chance))


def _shown(value: float, tag: Tag) -> str:
    if tag.share:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
