"""Outcomes of items as rows of results: shares over all items, per group, and means of groups.

Every mean is named: 'all' counts items alike (micro), 'macro' counts groups alike, and where a
benchmark's own code takes the mean of some of its groups only, that has a name of its own.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np

from hnc_ds.evaluation.question import IDENTICAL, Question, first_images
from hnc_ds.evaluation.rules import Outcome
from hnc_ds.evaluation.statistics import Interval, bootstrap_mean, bootstrap_of_group_means
from hnc_ds.records import Result

Chosen = Callable[[str, int], bool]
"""Whether a group with so many items is in a mean of groups."""

MACRO = "macro"
TAG = "tag: "
"""How the rows of tags are called."""


@dataclass(frozen=True)
class Averages:
    """Which means a benchmark has beyond those of all items and of each group."""

    of_groups: Mapping[str, Chosen] = field(default_factory=dict)
    """By the name of the row; MACRO, over all groups, is there where there are several."""
    of_tags: bool = False
    """A row for each tag as well; tags overlap."""
    bundles: Sequence[str] = ()
    """Beginnings of tags, up to a colon, of items that count only if all of them are right; a row
    over all, and one for each group."""


def summarise(
    benchmark: str,
    version: int,
    model: str,
    questions: Sequence[Question],
    outcomes: Sequence[Outcome],
    averages: Averages,
    seed: int,
    whole: Sequence[Question] | None = None,
) -> list[Result]:
    """Rows of every metric, and the share of ties. Intervals by bootstrap over images.

    Args:
        questions: That were scored; at least one.
        outcomes: Of each.
        averages: Of the benchmark.
        seed: Of the intervals.
        whole: All that there are, also those that could not be scored, where these are others: a
            bundle that lost one of its own is in no score.
    """
    image_N = first_images(questions)
    group_N = np.array([q.group for q in questions])

    def row(metric: str, group: str, found: Interval) -> Result:
        return Result(model, benchmark, version, metric, group, *astuple(found))

    rows = []
    for metric in outcomes[0].right:
        right_N = np.array([outcome.right[metric] for outcome in outcomes])
        rows.append(row(metric, "all", bootstrap_mean(right_N, image_N, seed=seed)))
        for group, chosen in members(questions, averages).items():
            found = bootstrap_mean(right_N[chosen], image_N[chosen], seed=seed)
            rows.append(row(metric, group, found))
        for name, groups in chosen_groups(group_N, averages).items():
            found = bootstrap_of_group_means(right_N, group_N, groups, image_N, seed=seed)
            rows.append(row(metric, name, found))
        for bundle in averages.bundles:
            for group, all_right in bundled(questions, right_N, bundle, whole or questions).items():
                found = bootstrap_mean(all_right, np.arange(len(all_right)), seed=seed)
                rows.append(row(f"{bundle}_{metric}", group, found))
    tied_N = np.array([outcome.tied for outcome in outcomes])
    return [*rows, row("ties", "all", bootstrap_mean(tied_N, image_N, seed=seed))]


def members(questions: Sequence[Question], averages: Averages) -> dict[str, np.ndarray]:
    """Positions of the items of each group, where there are several groups, and of each tag that
    the averages ask for; tags of bundles are none."""
    found: dict[str, list[int]] = defaultdict(list)
    several = len({question.group for question in questions}) > 1
    for position, question in enumerate(questions):
        if several:
            found[question.group].append(position)
        for tag in question.tags if averages.of_tags else ():
            if tag != IDENTICAL and tag.partition(":")[0] not in averages.bundles:
                found[f"{TAG}{tag}"].append(position)
    return {name: np.array(found[name]) for name in sorted(found)}


def chosen_groups(group_N: np.ndarray, averages: Averages) -> dict[str, list[str]]:
    """The groups of each mean of groups; means of none are left out."""
    names, counts = np.unique(group_N, return_counts=True)
    if len(names) < 2:
        return {}
    means: dict[str, Chosen] = {MACRO: lambda *_: True, **averages.of_groups}
    sizes = list(zip(names.tolist(), counts.tolist(), strict=True))
    found = {name: [g for g, count in sizes if chosen(g, count)] for name, chosen in means.items()}
    return {name: groups for name, groups in found.items() if groups}


def bundled(
    questions: Sequence[Question], right_N: np.ndarray, bundle: str, whole: Sequence[Question]
) -> dict[str, np.ndarray]:
    """Whether all items of each bundle are right, over all and by group where there are several;
    bundles that are not whole are left out, and so are groups of none."""
    sizes = Counter(name for question in whole for name in _bundles_of(question, bundle))
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for question, is_right in zip(questions, right_N, strict=True):
        for name in _bundles_of(question, bundle):
            right[name].append(bool(is_right))
    found: dict[str, list[bool]] = defaultdict(list)
    several = len({question.group for question in whole}) > 1
    for (group, tag), own in right.items():
        if len(own) == sizes[group, tag]:
            for row in ("all", group) if several else ("all",):
                found[row].append(all(own))
    return {group: np.array(own, dtype=bool) for group, own in found.items()}


def _bundles_of(question: Question, bundle: str) -> list[tuple[str, str]]:
    """Group and tag of each."""
    return [(question.group, tag) for tag in question.tags if tag.startswith(f"{bundle}:")]
