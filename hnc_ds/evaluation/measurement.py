"""One results file with its items, as reports and comparisons take it. No torch."""

from dataclasses import dataclass, field
from pathlib import Path

from hnc_ds.evaluation.items import (
    AnsweredItem,
    ItemsHeader,
    PairItem,
    RankItem,
    VqaItem,
    items_path,
    read_items,
    read_results,
)
from hnc_ds.evaluation.table import RowKey
from hnc_ds.records import Result


@dataclass(frozen=True, slots=True)
class Measurement:
    """One results file of a run. What comes after the folder is empty where it has no items."""

    rows: dict[RowKey, Result]
    folder: Path
    """Where the file lies; the header's shards are relative to it."""
    header: ItemsHeader | None
    pairs: list[PairItem]
    ranks: list[RankItem]
    answers: list[AnsweredItem] = field(default_factory=list)
    in_words: list[VqaItem] = field(default_factory=list)


def read_measurement(path: Path) -> Measurement:
    """Read one results file and its items.

    Raises:
        UserError: As ``read_results`` and ``read_items``.
    """
    rows = rows_of(path)
    if not items_path(path).is_file():
        return Measurement(rows, path.parent, None, [], [])
    header, items = read_items(items_path(path))
    pairs = [item for item in items if isinstance(item, PairItem)]
    ranks = [item for item in items if isinstance(item, RankItem)]
    answers = [item for item in items if isinstance(item, AnsweredItem)]
    in_words = [item for item in items if isinstance(item, VqaItem)]
    return Measurement(rows, path.parent, header, pairs, ranks, answers, in_words)


def rows_of(path: Path) -> dict[RowKey, Result]:
    """The rows of a results file by what tells them apart. Raises as ``read_results``."""
    return {(row.benchmark, row.metric, row.group): row for row in read_results(path)}
