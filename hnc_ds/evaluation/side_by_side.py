"""Several results beside each other as lines for a terminal: of models, and of a sweep."""

from collections.abc import Mapping, Sequence

from hnc_ds.evaluation.question_sets import described
from hnc_ds.evaluation.sweep import headlines
from hnc_ds.evaluation.table import key_of, shown_rows, title_of
from hnc_ds.records import Result

NAMES, WIDTH = 40, 24
"""Columns of characters."""


def models_table(found: Mapping[str, Sequence[Result]]) -> str:
    """Every shown score of several models, a column each, the best of a line marked by a star.

    Args:
        found: Results by what they call the model; at least one.
    """
    rows = {name: {key_of(row): row for row in shown_rows(rows)} for name, rows in found.items()}
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    legend = [f"{f'({number})':>6} {name}" for number, name in enumerate(rows, start=1)]
    heads = "".join(f"({number})".rjust(WIDTH) for number in range(1, len(rows) + 1))
    lines = [*legend, "", f"{'':{NAMES}}{heads}"]
    for benchmark in dict.fromkeys(benchmark for benchmark, _, _ in keys):
        known = described(benchmark)
        lines.append(known.title if known else benchmark)
        own = [key for key in keys if key[0] == benchmark]
        lines += [_line(title_of(*k[1:]), [row.get(k) for row in rows.values()]) for k in own]
    lines += ["", "95 % intervals are of each model alone; 'hnc-ds report' compares item by item."]
    return "\n".join(lines)


def sweep_table(points: Mapping[str, Sequence[Result]]) -> str:
    """The headlines of each point of a sweep, a line each.

    Args:
        points: Results by the share of the final weights.
    """
    rows = {share: {key_of(result): result for result in r} for share, r in points.items()}
    columns = headlines(next(iter(points.values())))
    lines = ["share of FINAL".ljust(16) + "".join(title.rjust(WIDTH) for title, _ in columns)]
    for share, row in rows.items():
        lines.append(share.ljust(16) + "".join(_cell(row[key]).rjust(WIDTH) for _, key in columns))
    return "\n".join(lines)


def _line(title: str, cells: Sequence[Result | None]) -> str:
    values = [round(cell.value, 3) for cell in cells if cell]
    best = max(values) if len(set(values)) > 1 else None
    parts = [
        (_cell(cell) + (" *" if round(cell.value, 3) == best else "  ")) if cell else "-  "
        for cell in cells
    ]
    return f"  {title:<{NAMES - 2}}" + "".join(part.rjust(WIDTH) for part in parts)


def _cell(result: Result) -> str:
    return f"{100 * result.value:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})"
