"""Which rows of results stand in one table, what each table is called, and which are folded.

Of measures on shards a table for each metric. Of a released benchmark its first metric by group,
with bars, and the other metrics in few lines below; their groups are there on demand. Rows of
worse pictures are in robust.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hnc_ds.captions.about import ATTRIBUTE, PREDICATE, about_of
from hnc_ds.evaluation.benchmarks import BENCHMARKS, HARD_NEGATIVES
from hnc_ds.evaluation.question_sets import described
from hnc_ds.evaluation.robustness import is_of_conditions
from hnc_ds.evaluation.table import (
    BY_KIND,
    LEAST_PAIRS,
    MOST_GROUPS,
    RowKey,
    few_groups,
    is_group,
    most_frequent,
    of_kind,
)

TIES = "ties"
METRIC_TITLES = {
    "margin": "Margin between true caption and hard negative",
    TIES: "Ties",
}
ABOUT_METRIC = {
    "margin": "Mean cosine similarity of the image with its true caption less that with the hard "
    "negative.",
    TIES: "Pairs whose two captions are exactly as similar to the image; they count as wrong.",
}
ABOUT_KIND = {
    PREDICATE: "Pairs by the predicate that the hard negative states",
    ATTRIBUTE: "Pairs by the class of the attribute that makes the hard negative false",
}
DECIDED_BY_TIES = "decided by a tie"
"""What ties are called beside scores; how they count differs between benchmarks."""


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one table."""

    title: str
    keys: list[RowKey]
    about: str = ""
    folded: bool = False
    bars: list[RowKey] = field(default_factory=list)
    """Rows that are drawn; none where there are too few or too many."""
    by_metric: bool = False
    """Rows are called by their metrics, as there are several."""

    def label_of(self, key: RowKey) -> str:
        """How a row is called in this table."""
        _, metric, group = key
        if metric == TIES and self.by_metric:
            return DECIDED_BY_TIES
        if not self.by_metric:
            return about_of(group) or _words(group)
        words = metric if group == "all" else f"{metric}, {group}"
        return _words(words).replace(" R@", ", R@")


def arrange(keys: Sequence[RowKey]) -> list[Block]:
    """The tables of one results file, in order."""
    shown = [key for key in keys if not is_of_conditions(key[2])]
    found: list[Block] = []
    for benchmark in dict.fromkeys(benchmark for benchmark, _, _ in shown):
        own = [key for key in shown if key[0] == benchmark]
        found += _of_shards(own) if benchmark == HARD_NEGATIVES else _of_benchmark(benchmark, own)
    return found


def title_of_benchmark(benchmark: str) -> str:
    """Its title; its own name if nothing is known of it."""
    known = described(benchmark)
    return known.title if known else benchmark


def chance_of_benchmark(benchmark: str) -> float | None:
    """What guessing scores; None where that depends on the group or the set."""
    known = described(benchmark)
    return known.chance if known else None


def _of_shards(keys: Sequence[RowKey]) -> list[Block]:
    """Hard negatives: accuracy with bars, then by what they turn on; margins and ties on demand."""
    known, found = BENCHMARKS[HARD_NEGATIVES], list[Block]()
    of_types = [key for key in keys if about_of(key[2]) is None]
    for metric in _metrics(of_types):
        own = [key for key in of_types if key[1] == metric]
        if metric in METRIC_TITLES:
            about = ABOUT_METRIC[metric]
            found.append(Block(METRIC_TITLES[metric], own, about, folded=True))
        else:
            found.append(Block(known.title, own, known.about, bars=_drawn(own)))
            found += _by_about([key for key in keys if key[1] == metric])
    return found


def _by_about(keys: Sequence[RowKey]) -> Iterator[Block]:
    """Of predicates and of classes of attributes the most frequent ones, the others on demand."""
    title = BENCHMARKS[HARD_NEGATIVES].title
    for kind, shown in most_frequent(keys).items():
        about = (
            f"{ABOUT_KIND[kind]}, the most frequent first; of those with at least "
            f"{LEAST_PAIRS} pairs."
        )
        yield Block(f"{title} {BY_KIND[kind]}", shown, about, bars=_drawn(shown))
        if rest := of_kind(kind, keys)[len(shown) :]:
            yield Block(f"{title} {BY_KIND[kind]}: less frequent ones", rest, folded=True)


def _of_benchmark(benchmark: str, keys: Sequence[RowKey]) -> list[Block]:
    title, about = title_of_benchmark(benchmark), _about(benchmark)
    grouped = [metric for metric in _metrics(keys) if _grouped(keys, metric)]
    if not grouped:
        return [Block(title, list(keys), about, by_metric=True)]
    main, *others = grouped
    alone = set(_metrics(keys)) <= {main, TIES}
    name = title if alone else f"{title}: {_words(main)}"
    found = _main(name, about, [key for key in keys if key[1] == main])
    if rest := [key for key in keys if key[1] != main and not is_group(*key)]:
        found.append(Block(f"{title}: further scores", rest, by_metric=True))
    if by_group := [key for metric in others for key in _grouped(keys, metric)]:
        name = f"{title}: further scores by group"
        found.append(Block(name, by_group, folded=True, by_metric=True))
    return found


def _main(title: str, about: str, keys: list[RowKey]) -> list[Block]:
    """One table with bars, or two where there are too many groups to stand open."""
    groups = [key for key in keys if is_group(*key)]
    few = few_groups(groups)
    rest = [key for key in groups if key not in few]
    shown = [key for key in keys if key not in rest]
    found = [Block(title, shown, about, bars=_drawn(shown))] if shown else []
    if rest:
        name = f"{title}, by {'further groups' if few else 'group'}"
        found.append(Block(name, rest, folded=True))
    return found


def _drawn(keys: Sequence[RowKey]) -> list[RowKey]:
    """The groups, where bars of them tell something."""
    groups = [key for key in keys if is_group(*key)]
    return groups if 2 <= len(groups) <= MOST_GROUPS else []


def _grouped(keys: Sequence[RowKey], metric: str) -> list[RowKey]:
    return [key for key in keys if key[1] == metric and is_group(*key)]


def _metrics(keys: Iterable[RowKey]) -> list[str]:
    return list(dict.fromkeys(metric for _, metric, _ in keys))


def _about(benchmark: str) -> str:
    known = described(benchmark)
    return known.about if known else ""


def _words(name: str) -> str:
    return name.replace("_", " ")
