"""Several results beside each other as lines for a terminal: of models, and of a sweep.

Each is compared with the first, item by item; what is marked, significance.py says.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hnc_ds.evaluation.measurement import Measurement, read_measurement
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.question_sets import described
from hnc_ds.evaluation.significance import (
    SIGN,
    UNCLEAR,
    Change,
    Judgement,
    judge,
    legend,
    probability,
)
from hnc_ds.evaluation.sweep import headlines
from hnc_ds.evaluation.table import RowKey, judged_with, key_of, shown_rows, title_of
from hnc_ds.records import Result

NAMES, WIDTH = 40, 26
"""Columns of characters."""

Rows = dict[RowKey, Result]
Verdicts = dict[RowKey, str]


def models_table(files: Mapping[str, Path], seed: int) -> str:
    """Every shown score of several models, a column each; what differs from the first is marked.

    Args:
        files: Results by what they call the model; at least one.
        seed: Of the tests.

    Raises:
        UserError: As ``read_measurement``.
    """
    first = read_measurement(next(iter(files.values())))
    columns = [_column(first, read_measurement(file), seed) for file in list(files.values())[1:]]
    columns.insert(0, (_shown(first), {}))
    keys = dict.fromkeys(key for rows, _ in columns for key in rows)
    names = [f"{f'({number})':>6} {name}" for number, name in enumerate(files, start=1)]
    heads = "".join(f"({number})  ".rjust(WIDTH) for number in range(1, len(files) + 1))
    lines = [*names, "", f"{'':{NAMES}}{heads}"]
    for benchmark in dict.fromkeys(benchmark for benchmark, _, _ in keys):
        known = described(benchmark)
        lines.append(known.title if known else benchmark)
        lines += [_line(key, columns) for key in keys if key[0] == benchmark]
    return "\n".join(map(str.rstrip, [*lines, "", legend("a model", "(1)")]))


def sweep_table(files: Mapping[str, Path], seed: int) -> str:
    """The headlines of each point of a sweep, a line each; what differs from the first is marked.

    Args:
        files: Results by the share of the final weights, ascending.
        seed: Of the tests.

    Raises:
        UserError: As ``read_measurement``.
    """
    first = read_measurement(next(iter(files.values())))
    titles = headlines(list(first.rows.values()))
    keys = [key for _, key in titles]
    points = _points(first, files, keys, seed)
    judged = [judge(column) for column in zip(*(changes for _, changes in points), strict=True)]
    lines = ["share of FINAL".ljust(16) + "".join(f"{t}  ".rjust(WIDTH) for t, _ in titles)]
    for place, (share, (rows, _)) in enumerate(zip(files, points, strict=True)):
        cells = [_cell(rows[key], of_key[place]) for key, of_key in zip(keys, judged, strict=True)]
        lines.append(share.ljust(16) + "".join(cell.rjust(WIDTH) for cell in cells))
    return "\n".join(map(str.rstrip, [*lines, "", legend("a mixture", next(iter(files)))]))


def told_apart(files: Mapping[str, Path], share: str, key: RowKey, seed: int) -> str:
    """Whether a point of a sweep differs from the first one in a row, in words; nothing where no
    item tells. Arguments and errors as of `sweep_table`."""
    start = next(iter(files))
    first = read_measurement(files[start])
    points = _points(first, files, [key], seed)
    found = judge([changes[0] for _, changes in points])[list(files).index(share)]
    if share == start or found is None:
        return ""
    what = "may be chance" if found.verdict == UNCLEAR else "is more than chance"
    return f"; the difference to {start} {what} ({probability(found.p)})"


def _shown(measurement: Measurement) -> Rows:
    return {key_of(row): row for row in shown_rows(list(measurement.rows.values()))}


def _column(first: Measurement, other: Measurement, seed: int) -> tuple[Rows, Verdicts]:
    """Shown rows, and what differs, each table judged by itself."""
    rows, shared = _shown(other), shared_items(first, other)
    verdicts: Verdicts = {}
    for table in dict.fromkeys(map(judged_with, rows)):
        keys = [key for key in rows if judged_with(key) == table]
        judged = judge([change_of(shared, key, seed) for key in keys])
        verdicts |= {key: j.verdict for key, j in zip(keys, judged, strict=True) if j}
    return rows, verdicts


def _points(
    first: Measurement, files: Mapping[str, Path], keys: Sequence[RowKey], seed: int
) -> list[tuple[Rows, list[Change | None]]]:
    """Rows of each point, and how it differs from the first; their items are read one by one."""
    found: list[tuple[Rows, list[Change | None]]] = [(first.rows, [None] * len(keys))]
    for file in list(files.values())[1:]:
        other = read_measurement(file)
        shared = shared_items(first, other)
        found.append((other.rows, [change_of(shared, key, seed) for key in keys]))
    return found


def _line(key: RowKey, columns: Sequence[tuple[Rows, Verdicts]]) -> str:
    parts = [
        f"{_value(rows[key])} {SIGN[verdicts.get(key, UNCLEAR)]}" if key in rows else "-  "
        for rows, verdicts in columns
    ]
    return f"  {title_of(*key[1:]):<{NAMES - 2}}" + "".join(part.rjust(WIDTH) for part in parts)


def _cell(result: Result, judgement: Judgement | None) -> str:
    return f"{_value(result)} {SIGN[judgement.verdict if judgement else UNCLEAR]}"


def _value(result: Result) -> str:
    return f"{100 * result.value:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})"
