"""Compare two models item by item: differences, their significance, and items that changed.

    hnc-ds compare results/baseline.json results/trained.json

Items are pairs of shards, questions of released benchmarks, or free-form answers. Differences have
95 % intervals by bootstrap and p by permutation, both over images; evaluation/statistics.py
defines which are marked.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import CompareConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.paired import (
    SharedItems,
    change_of,
    paired_values,
    remarks_on_sharing,
    shared_items,
)
from hnc_ds.evaluation.results import (
    AnsweredItem,
    PairItem,
    RowKey,
    VqaItem,
    key_of,
    read_measurement,
)
from hnc_ds.evaluation.statistics import SIGN, UNCLEAR, Change, Judgement, judge, legend
from hnc_ds.evaluation.tables import judged_with, shown_rows, title_of


class Compared(msgspec.Struct, frozen=True):
    """One row of both models, over the items that both have."""

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
    """p of the permutation test."""
    p_corrected: float | None
    """Corrected over the shown rows of the table, see ``judged_with``; None if the row is not
    shown."""
    verdict: str
    """better or worse if the difference is marked."""
    better: int
    """Items that are better in the second model."""
    worse: int
    count: int


def compare_models(config: CompareConfig) -> None:
    """Compare two results files; print a table and the items that changed most.

    Raises:
        UserError: A file does not exist or has no items, the files share no items, or the output
            cannot be written.
    """
    first, second = (read_measurement(path) for path in (config.first, config.second))
    for path, measurement in ((config.first, first), (config.second, second)):
        if measurement.header is None:
            raise UserError(f"{path}: has no *.items.jsonl; evaluate or score again")
    shared = shared_items(first, second)
    shown = shown_rows([row for key, row in first.rows.items() if key in second.rows])
    keys = list(map(key_of, shown)) if config.out is None else list(first.rows)
    rows = compared(shared, keys, set(map(key_of, shown)), config.seed)
    if not rows:
        raise UserError(f"{config.first} and {config.second} have no item in common")
    if config.out is not None:
        _write(config.out, rows)
    print(_table(config, [row for row in rows if row.p_corrected is not None]))
    for remark in remarks_on_sharing(first, second, shared):
        print(remark)
    for line in _examples(shared, config.examples):
        print(line)


def compared(
    shared: SharedItems, keys: Sequence[RowKey], shown: Collection[RowKey], seed: int
) -> list[Compared]:
    """Rows of both models that have shared items.

    Args:
        shared: Items of both models.
        keys: Keys of the rows.
        shown: Keys of the rows in a table, over which p is corrected.
        seed: Seed of intervals and permutations.
    """
    changes = {key: change for key in keys if (change := change_of(shared, key, seed)) is not None}
    judged: dict[RowKey, Judgement | None] = {}
    for name in dict.fromkeys(map(judged_with, changes)):
        table = [key for key in changes if judged_with(key) == name and key in shown]
        judged |= zip(table, judge([changes[key] for key in table]), strict=True)
    return [_compared(shared, key, change, judged.get(key)) for key, change in changes.items()]


def _compared(
    shared: SharedItems, key: RowKey, change: Change, judgement: Judgement | None
) -> Compared:
    values = paired_values(shared, key)
    assert values is not None  # because there is a change
    return Compared(
        *key,
        first=float(values.first_N.mean()),
        second=float(values.second_N.mean()),
        difference=change.difference.value,
        low=change.difference.low,
        high=change.difference.high,
        p=change.p,
        p_corrected=judgement.p if judgement else None,
        verdict=judgement.verdict if judgement else UNCLEAR,
        better=int((values.second_N > values.first_N).sum()),
        worse=int((values.second_N < values.first_N).sum()),
        count=len(values.first_N),
    )


def _write(out: Path, rows: Sequence[Compared]) -> None:
    with writing(out):
        atomic_write(out, msgspec.json.format(msgspec.json.encode(rows), indent=1), b"\n")


def _table(config: CompareConfig, rows: Sequence[Compared]) -> str:
    lines = [f"A {config.first}", f"B {config.second}"]
    head = f"{'A':>8}{'B':>8}{'B - A':>9}  {'95 % interval':>18}{'p, Holm':>9}{'better':>9}"
    head += f"{'worse':>8}"
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        lines += ["", f"{benchmark:<38}{head}{'items':>10}"]
        lines += [_line(row) for row in rows if row.benchmark == benchmark]
    return "\n".join([*lines, "", legend("B", "A")])


def _line(row: Compared) -> str:
    interval = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
    corrected = row.p if row.p_corrected is None else row.p_corrected
    p = "<0.001" if corrected < 0.001 else f"{corrected:.3f}"
    return (
        f"{title_of(row.metric, row.group):<38}{100 * row.first:>8.2f}{100 * row.second:>8.2f}"
        f"{100 * row.difference:>+9.2f} {SIGN[row.verdict]}{interval:>18}{p:>9}{row.better:>9,}"
        f"{row.worse:>8,}{row.count:>10,}"
    )


def _examples(shared: SharedItems, most: int) -> Iterator[str]:
    """Items that changed most, one per image, better ones and worse ones."""
    changes = sorted(_changes(shared), key=lambda change: (-abs(change[0]), change[2]))
    for up, title in ((True, "better in B"), (False, "worse in B")):
        seen: set[str] = set()
        lines = []
        for change, image, text in changes:
            if (change > 0) == up and change and image not in seen:
                seen.add(image)
                lines.append(f"  {text}")
        if lines and most:
            yield f"\n{title}, such as"
            yield from lines[: (most + 1) // 2]


def _changes(shared: SharedItems) -> Iterator[tuple[float, str, str]]:
    """(change, image, text) of each item."""
    for one, other in zip(shared.first_pairs, shared.second_pairs, strict=True):
        if (one.margin > 0) != (other.margin > 0):
            yield other.margin - one.margin, one.key, _pair(one, other)
    for first, second in shared.answers:
        change = sum(second.right.values()) - sum(first.right.values())
        yield change, first.images[0], _question(first)
    for before, after in shared.free_form:
        scorer = next(iter(before.scores))
        yield after.scores[scorer] - before.scores[scorer], before.image, _answers(before, after)


def _pair(one: PairItem, other: PairItem) -> str:
    return (
        f"{one.key}: '{one.positive}' over '{one.negative}': {one.margin:+.3f} to "
        f"{other.margin:+.3f}"
    )


def _question(first: AnsweredItem) -> str:
    return f"{first.id} ({first.group}): {' | '.join(first.captions[:2])}"


def _answers(one: VqaItem, other: VqaItem) -> str:
    people = max(sorted(set(one.people)), key=one.people.count)
    whose = "most annotators" if len(one.people) > 1 else "right"
    return (
        f"{one.image_file}: {one.question} '{one.answer}' to '{other.answer}'; {whose}: '{people}'"
    )
