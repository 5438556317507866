"""Two models item by item: what differs, how sure that is, and which items changed.

    hnc-ds compare results/baseline.json results/trained.json

For every kind of results: pairs of shards, questions of released benchmarks, answers in words.
Differences have 95 % intervals by bootstrap and p by permutation, both over pictures.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from hnc_ds.config import CompareConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.items import AnsweredItem, PairItem, VqaItem
from hnc_ds.evaluation.statistics import paired_difference, permutation_test
from hnc_ds.evaluation.table import RowKey, key_of, shown_rows, title_of
from hnc_ds.report.paired import (
    SharedItems,
    paired_values,
    remarks_on_sharing,
    shared_items,
)
from hnc_ds.report.runs import read_measurement
from hnc_ds.whole_files import write_whole


class Compared(msgspec.Struct, frozen=True):
    """One row of both models; values over the items that both have."""

    benchmark: str
    metric: str
    group: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    """Ends of the 95 % interval of the difference."""
    p: float
    """Of the permutation test."""
    better: int
    """Items that are better in the second model."""
    worse: int
    count: int


def compare_models(config: CompareConfig) -> None:
    """Compare two results files, print a table and what changed most.

    Raises:
        UserError: No such file, files without items or without a common one, an output that cannot
            be written.
    """
    first, second = (read_measurement(path) for path in (config.first, config.second))
    for path, measurement in ((config.first, first), (config.second, second)):
        if measurement.header is None:
            raise UserError(f"{path}: has no *.items.jsonl beside it; evaluate or score again")
    shared = shared_items(first, second)
    shown = shown_rows([row for key, row in first.rows.items() if key in second.rows])
    keys = list(map(key_of, shown)) if config.out is None else list(first.rows)
    rows = [row for key in keys if (row := compared(shared, key, config.seed)) is not None]
    if not rows:
        raise UserError(f"{config.first} and {config.second} have no item in common")
    if config.out is not None:
        _write(config.out, rows)
    visible = set(map(key_of, shown))
    lines = [row for row in rows if (row.benchmark, row.metric, row.group) in visible]
    print(_table(config, lines))
    for remark in remarks_on_sharing(first, second, shared):
        print(f"{remark}")
    for line in _examples(shared, config.examples):
        print(line)


def compared(shared: SharedItems, key: RowKey, seed: int) -> Compared | None:
    """A row of both models; None where no item tells."""
    values = paired_values(shared, key)
    if values is None:
        return None
    change = paired_difference(*values, seed=seed)
    return Compared(
        *key,
        first=float(values.first_N.mean()),
        second=float(values.second_N.mean()),
        difference=change.value,
        low=change.low,
        high=change.high,
        p=permutation_test(*values, seed=seed),
        better=int((values.second_N > values.first_N).sum()),
        worse=int((values.second_N < values.first_N).sum()),
        count=len(values.first_N),
    )


def _write(out: Path, rows: Sequence[Compared]) -> None:
    try:
        write_whole(out, msgspec.json.format(msgspec.json.encode(rows), indent=1), b"\n")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error


def _table(config: CompareConfig, rows: Sequence[Compared]) -> str:
    lines = [f"A {config.first}", f"B {config.second}"]
    head = f"{'A':>8}{'B':>8}{'B - A':>9}{'95 % interval':>18}{'p':>9}{'better':>9}{'worse':>8}"
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        lines += ["", f"{benchmark:<38}{head}{'items':>10}"]
        lines += [_line(row) for row in rows if row.benchmark == benchmark]
    return "\n".join(lines)


def _line(row: Compared) -> str:
    interval = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
    p = "<0.001" if row.p < 0.001 else f"{row.p:.3f}"
    return (
        f"{title_of(row.metric, row.group):<38}{100 * row.first:>8.2f}{100 * row.second:>8.2f}"
        f"{100 * row.difference:>+9.2f}{interval:>18}{p:>9}{row.better:>9,}{row.worse:>8,}"
        f"{row.count:>10,}"
    )


def _examples(shared: SharedItems, most: int) -> Iterator[str]:
    """Items that changed most, one of each picture, better ones and worse ones."""
    changes = sorted(_changes(shared), key=lambda change: (-abs(change[0]), change[2]))
    for up, title in ((True, "better in B"), (False, "worse in B")):
        seen: set[str] = set()
        lines = []
        for change, image, told in changes:
            if (change > 0) == up and change and image not in seen:
                seen.add(image)
                lines.append(f"  {told}")
        if lines and most:
            yield f"\n{title}, such as"
            yield from lines[: (most + 1) // 2]


def _changes(shared: SharedItems) -> Iterator[tuple[float, str, str]]:
    """By how much, of which picture, in words."""
    for one, other in zip(shared.first_pairs, shared.second_pairs, strict=True):
        if (one.margin > 0) != (other.margin > 0):
            yield other.margin - one.margin, one.key, _pair(one, other)
    for first, second in shared.answers:
        change = sum(second.right.values()) - sum(first.right.values())
        yield change, first.images[0], _question(first, second)
    for said, now in shared.in_words:
        scorer = next(iter(said.scores))
        yield now.scores[scorer] - said.scores[scorer], said.image, _in_words(said, now)


def _pair(one: PairItem, other: PairItem) -> str:
    return (
        f"{one.key}: '{one.positive}' over '{one.negative}': {one.margin:+.3f} to "
        f"{other.margin:+.3f}"
    )


def _question(first: AnsweredItem, second: AnsweredItem) -> str:
    told = " | ".join(first.captions[:2])
    return f"{first.id} ({first.group}): {told}"


def _in_words(said: VqaItem, now: VqaItem) -> str:
    people = max(sorted(set(said.people)), key=said.people.count)
    return (
        f"{said.picture}: {said.question} '{said.answer}' to '{now.answer}'; most people: "
        f"'{people}'"
    )
