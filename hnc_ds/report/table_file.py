"""The scores of runs as a table alone: CSV, LaTeX or Markdown.

    hnc-ds report results/ --table results.tex

CSV is in long form, with every score of every seed as results.json has them. LaTeX (booktabs) and
Markdown have the rows that the page shows unfolded, in percent, and the differences to the first
model. Needs neither jinja2 nor matplotlib.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import ReportConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.results import Measurement, RowKey
from hnc_ds.evaluation.seeds import RULE as RULE_OF_SEEDS
from hnc_ds.evaluation.seeds import Comparison, comparisons, deviation
from hnc_ds.evaluation.statistics import RULE, UNCLEAR, Change, judge
from hnc_ds.report.remarks import remarks
from hnc_ds.report.runs import Run
from hnc_ds.report.seeds import counted_runs, read_columns
from hnc_ds.report.tables import Cell, Table, blocks_of, table_of

COLUMNS = (
    "results",
    "benchmark",
    "metric",
    "group",
    "model",
    "seed",
    "value",
    "low",
    "high",
    "deviation",
    "count",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "verdict",
)
"""Columns of the CSV file. ``seed`` is empty for a single model, "mean" for the mean over seeds;
``p`` is corrected over the rows of the page's table."""
MEAN = "mean"

Escape = Callable[[str], str]


def write_table(config: ReportConfig) -> None:
    """Write --table.

    Raises:
        UserError: As ``read_runs``; or the file cannot be written.
    """
    path = config.table
    assert path is not None
    if path.is_dir():
        raise UserError(f"--table is {path}, a folder; name a file that ends in {path.suffix}")
    runs = read_columns(config)
    text = FORMATS[path.suffix](runs, _sections(runs))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.encode())
    print(f"wrote {path}: {counted_runs(runs)}, {counted(text.count(chr(10)), 'line')}")


class Section(NamedTuple):
    """One results file over all runs."""

    name: str
    measurements: list[Measurement | None]
    found: list[Comparison | None]
    """The comparisons with the first run."""


def _sections(runs: Sequence[Run]) -> list[Section]:
    names = dict.fromkeys(name for run in runs for name in run.measurements)
    of_names = {name: [run.measurements.get(name) for run in runs] for name in names}
    return [Section(name, own, comparisons(own)) for name, own in of_names.items()]


def as_csv(runs: Sequence[Run], sections: Sequence[Section]) -> str:
    """Every score of every run, with the differences to the first run."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for section in sections:
        own = zip(runs, section.measurements, _judged(section), strict=True)
        for run, measurement, changed in own:
            if measurement is not None:
                writer.writerows(_records(section.name, run.name, measurement, changed))
    return file.getvalue()


Judged = dict[RowKey, dict[str, object]]
"""The columns of a difference, by row."""


def _judged(section: Section) -> list[Judged]:
    """The differences of each run to the first, p corrected as on the page."""
    found: list[Judged] = []
    for compared in section.found:
        change_of = compared.change_of if compared else None
        own: Judged = {}
        for block in blocks_of(section.measurements) if change_of else ():
            changes = [change_of(key) for key in block.keys] if change_of else []
            judged = zip(block.keys, changes, judge(changes), strict=True)
            own |= {key: _difference(c, j.p, j.verdict) for key, c, j in judged if c and j}
        found.append(own)
    return found


def _difference(change: Change, p: float, verdict: str) -> dict[str, object]:
    found = change.difference
    return {
        "difference": found.value,
        "difference_low": found.low,
        "difference_high": found.high,
        "p": p,
        "verdict": verdict,
    }


def _records(
    name: str, model: str, measurement: Measurement, changed: Judged
) -> Iterator[dict[str, object]]:
    of_seeds = measurement.seeds if len(measurement.seeds) > 1 else {}
    own_seed = MEAN if of_seeds else next(iter(measurement.seeds), "")
    every = {own_seed: measurement, **of_seeds}
    for key in measurement.rows:
        for seed, one in every.items():
            if (row := one.rows.get(key)) is None:
                continue
            yield {
                "results": name,
                "benchmark": row.benchmark,
                "metric": row.metric,
                "group": row.group,
                "model": model,
                "seed": seed,
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "deviation": "" if (spread := deviation(one, key)) is None else spread,
                "count": row.count,
                **(changed.get(key, {}) if one is measurement else {}),
            }


def as_markdown(runs: Sequence[Run], sections: Sequence[Section]) -> str:
    """The page's unfolded tables as Markdown."""
    lines: list[str] = []
    for title, unit, head, tables, cell in _parts(runs, sections):
        names = [_for_markdown(column) for column in head]
        lines += [f"## {_for_markdown(title)}", ""]
        lines += [f"| {' | '.join([unit, *names])} |", "|---" * (len(head) + 1) + "|"]
        for table in tables:
            lines.append(f"| **{_for_markdown(table.title)}** |" + " |" * len(head))
            for row in table.rows:
                cells = [_for_markdown(cell(one)) for one in row.cells[-len(head) :]]
                lines.append(f"| {_for_markdown(row.label)} | {' | '.join(cells)} |")
        lines.append("")
    legend = (f"{_for_markdown(line)}\n" for line in _legend(runs, sections))
    return "\n".join([*lines, *legend])


def as_latex(runs: Sequence[Run], sections: Sequence[Section]) -> str:
    """The page's unfolded tables as LaTeX, one tabular each for scores and differences."""
    legend = (f"% {_one_line(line)}" for line in _legend(runs, sections))
    lines = [r"% \usepackage{booktabs}", *legend]
    for title, unit, head, tables, cell in _parts(runs, sections):
        names = [_for_latex(column) for column in head]
        lines += ["", f"% {_one_line(title)}", rf"\begin{{tabular}}{{l{'r' * len(head)}}}"]
        lines += [r"\toprule", rf"{unit} & {' & '.join(names)} \\"]
        for table in tables:
            heading = rf"\emph{{{_for_latex(table.title)}}}"
            lines += [r"\midrule", rf"\multicolumn{{{len(head) + 1}}}{{l}}{{{heading}}} \\"]
            for row in table.rows:
                cells = [_for_latex(cell(one)) for one in row.cells[-len(head) :]]
                lines.append(rf"{_for_latex(row.label)} & {' & '.join(cells)} \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, ""])


FORMATS = {".csv": as_csv, ".tex": as_latex, ".md": as_markdown}

Part = tuple[str, str, list[str], list[Table], Callable[[Cell | None], str]]
"""Title, unit, heads of the columns, tables whose last cells are the columns, a cell's text."""


def _parts(runs: Sequence[Run], sections: Sequence[Section]) -> Iterator[Part]:
    """The scores of each results file, and the differences to the first run."""
    heads = [_head(run) for run in runs]
    for section in sections:
        tables = _tables(section)
        on = f" on {section.name}" if len(sections) > 1 else ""
        yield f"Scores{on}", "percent", heads, tables, _score
        compared = [table for table in tables if _has_differences(table)]
        if compared:
            title = f"Differences from {runs[0].name}{on}"
            yield title, "points", heads[1:], compared, _change


def _tables(section: Section) -> list[Table]:
    changes = [one.change_of if one else None for one in section.found]
    blocks = [replace(b, bars=[]) for b in blocks_of(section.measurements) if not b.folded]
    return [table_of(block, section.measurements, changes) for block in blocks]


def _has_differences(table: Table) -> bool:
    return any(cell and cell.difference for row in table.rows for cell in row.cells)


def _head(run: Run) -> str:
    return f"{run.name} ({counted(len(run.seeds), 'seed')})" if run.seeds else run.name


def _score(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    spread = f" ± {cell.deviation}" if cell.deviation else ""
    return f"{cell.value}{spread} ({cell.interval})"


def _change(cell: Cell | None) -> str:
    if cell is None or not cell.difference:
        return "-"
    mark = "" if cell.verdict == UNCLEAR else " *"
    return f"{cell.difference} ({cell.difference_interval}){mark}"


def _legend(runs: Sequence[Run], sections: Sequence[Section]) -> list[str]:
    of_seeds = [f"{run.name}: {', '.join(run.seeds)}" for run in runs if run.seeds]
    lines = ["Percent; in brackets 95 % intervals, for single models by bootstrap over images."]
    if of_seeds:
        lines.append(
            "Of several seeds: mean ± standard deviation over seeds (n - 1), and the 95 % t "
            f"interval of the mean. Seeds of {'; of '.join(of_seeds)}."
        )
    if len(runs) > 1:
        rule = f"{RULE}; between columns of several seeds, {RULE_OF_SEEDS}" if of_seeds else RULE
        lines.append(f"Marked with *: {rule}.")
    for section in sections:
        lines += remarks(runs, section.measurements, section.found)
    return list(dict.fromkeys(lines))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _for_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", _one_line(text))


_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "±": r"$\pm$",
}


def _for_latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))
