"""Compare runs in one self-contained HTML page.

    hnc-ds report runs/first runs/plain-clip --out report.html
    hnc-ds report results/ --out report.html       # results of several models

The page loads nothing: images are data: URIs, figures inline SVG, and there are no scripts. The
template escapes all content of files, and a content security policy forbids the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import ReportConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.paired import shared_items
from hnc_ds.evaluation.results import Measurement
from hnc_ds.evaluation.seeds import RULE as RULE_OF_SEEDS
from hnc_ds.evaluation.seeds import Comparison, comparisons
from hnc_ds.evaluation.statistics import RULE
from hnc_ds.evaluation.tables import headlines
from hnc_ds.report.charts import Robustness, panels, retention, robustness_panels
from hnc_ds.report.figures import RUN_COLOURS
from hnc_ds.report.gallery import Curator, Gallery, QuestionCurator
from hnc_ds.report.remarks import remarks
from hnc_ds.report.runs import Run
from hnc_ds.report.seeds import (
    counted_runs,
    described_seeds,
    read_columns,
    representatives,
)
from hnc_ds.report.tables import Table, compare, percent

DEFAULT_OUT = Path("report.html")
MOST_HEADLINES = 6
"""Maximum number of scores in a tile."""
NO_RUN = ""
"""Value of a setting for results without a run."""


@dataclass(frozen=True, slots=True)
class Section:
    """Content of the page for one results file."""

    name: str
    headlines: list[list[tuple[str, str]]]
    """(title, percent) for each run."""
    tables: list[Table]
    remarks: list[str]
    robustness: list[Robustness]
    galleries: list[Gallery]
    image_remarks: list[str]


def report(config: ReportConfig) -> None:
    """Read the runs and write the page.

    Raises:
        UserError: A run does not exist or has no results, a file is invalid, or the page cannot be
            written.
    """
    out = config.out or DEFAULT_OUT
    if out.is_dir():
        raise UserError(f"--out is {out}, a folder; name a file such as report.html")
    runs = read_columns(config)
    page = render(runs)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, page.encode())
    print(f"wrote {out}: {counted_runs(runs)}, {len(page) / 2**20:.1f} MiB, opens offline")


def render(runs: Sequence[Run]) -> str:
    """The whole page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hnc_ds.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # from figures.py; matplotlib escapes text
    names = dict.fromkeys(name for run in runs for name in run.measurements)
    return environment.get_template("page.html.jinja").render(
        runs=runs,
        cards_of=representatives(runs),
        seeds=[described_seeds(run) for run in runs],
        colours=RUN_COLOURS,
        rule=RULE,
        rule_of_seeds=RULE_OF_SEEDS,
        settings=differing_settings(runs),
        sections=[_section(runs, name) for name in names],
        retention=retention(runs),
        panels=panels(runs),
        log_remarks=_remarks_on_logs(runs),
    )


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """(key, value of each run) of the settings that differ between runs of a training."""
    trained = [run for run in runs if run.is_run]
    if any(not run.settings for run in trained):
        return []
    keys = dict.fromkeys(key for run in trained for key in run.settings)
    rows = [
        (key, [run.settings.get(key, "not set") if run.is_run else NO_RUN for run in runs])
        for key in keys
    ]
    return [
        (key, values)
        for key, values in rows
        if len(set(values) - {NO_RUN}) > 1 or any(_differs_between_seeds(run, key) for run in runs)
    ]


def _differs_between_seeds(run: Run, key: str) -> bool:
    values = {seed.settings.get(key) for seed in run.seeds.values()}
    return key != "seed" and len(values) > 1


def _section(runs: Sequence[Run], name: str) -> Section:
    measurements = [run.measurements.get(name) for run in runs]
    found = comparisons(measurements)
    galleries, image_remarks = _galleries(representatives(runs), name, found)
    return Section(
        name,
        [_headlines(m) for m in measurements],
        compare(measurements, [one.change_of if one else None for one in found]),
        remarks(runs, measurements, found),
        robustness_panels(measurements),
        galleries,
        image_remarks,
    )


def _galleries(
    runs: Sequence[Run], name: str, found: Sequence[Comparison | None]
) -> tuple[list[Gallery], list[str]]:
    """Galleries of single runs, and remarks on their images.

    Args:
        runs: One of each column.
        name: Name of the results file.
        found: The comparisons of the columns with the first one.
    """
    curator, questions = Curator(runs, name), QuestionCurator(runs, name)
    galleries: list[Gallery] = []
    for run, one in enumerate(found):
        first, other = (r.measurements.get(name) for r in (runs[0], runs[run]))
        if one is not None and first and other:
            items = one.shared or shared_items(first, other)
            galleries += [*curator.changes(run, items), *questions.changes(run, items)]
    galleries += [gallery for run in range(len(runs)) for gallery in curator.extremes(run)]
    return galleries, [*curator.remarks(), *questions.remarks()]


def _headlines(measurement: Measurement | None) -> list[tuple[str, str]]:
    rows = measurement.rows if measurement else {}
    shown = headlines(list(rows.values()))[:MOST_HEADLINES]
    return [(what, percent(rows[key].value)) for what, key in shown]


def _remarks_on_logs(runs: Sequence[Run]) -> list[str]:
    remarks = [f"{run.name} has no training log." for run in runs if run.is_run and not run.log]
    remarks += [
        f"{run.name}: {counted(run.broken_lines, 'line')} of the log cannot be read."
        for run in runs
        if run.broken_lines
    ]
    return remarks
