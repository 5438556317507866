"""Compare runs in one self-contained HTML page.

    hnc-ds report runs/first runs/plain-clip --out report.html
    hnc-ds report results/ --out report.html       # results of several models

The page loads nothing: images are data: URIs, figures inline SVG, and there are no scripts. The
template escapes all content of files, and a content security policy forbids the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import ReportConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.benchmarks import described
from hnc_ds.evaluation.paired import SharedItems, remarks_on_sharing, shared_items
from hnc_ds.evaluation.results import ItemsHeader, Measurement
from hnc_ds.evaluation.statistics import RULE
from hnc_ds.evaluation.tables import headlines, set_remarks
from hnc_ds.report.charts import Robustness, panels, retention, robustness_panels
from hnc_ds.report.figures import RUN_COLOURS
from hnc_ds.report.gallery import Curator, Gallery, QuestionCurator
from hnc_ds.report.runs import Run, read_runs
from hnc_ds.report.tables import Table, compare, percent

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
    if config.out.is_dir():
        raise UserError(f"--out is {config.out}, a folder; name a file such as report.html")
    runs = read_runs(config.runs)
    page = render(runs)
    with writing(config.out):
        config.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(config.out, page.encode())
    shown = counted(len(runs), "run")
    print(f"wrote {config.out}: {shown}, {len(page) / 2**20:.1f} MiB, opens offline")


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
        colours=RUN_COLOURS,
        rule=RULE,
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
    return [(key, values) for key, values in rows if len(set(values) - {NO_RUN}) > 1]


def _section(runs: Sequence[Run], name: str) -> Section:
    measurements = [run.measurements.get(name) for run in runs]
    first, *others = measurements
    shared = [None, *(shared_items(first, m) if first and m else None for m in others)]
    curator, questions = Curator(runs, name), QuestionCurator(runs, name)
    galleries = [
        gallery
        for run, items in enumerate(shared)
        if items is not None
        for gallery in (*curator.changes(run, items), *questions.changes(run, items))
    ]
    galleries += [gallery for run in range(len(runs)) for gallery in curator.extremes(run)]
    return Section(
        name,
        [_headlines(m) for m in measurements],
        compare(measurements, shared),
        _remarks(runs, measurements, shared),
        robustness_panels(measurements),
        galleries,
        [*curator.remarks(), *questions.remarks()],
    )


def _headlines(measurement: Measurement | None) -> list[tuple[str, str]]:
    rows = measurement.rows if measurement else {}
    shown = headlines(list(rows.values()))[:MOST_HEADLINES]
    return [(what, percent(rows[key].value)) for what, key in shown]


def _remarks(
    runs: Sequence[Run],
    measurements: Sequence[Measurement | None],
    shared: Sequence[SharedItems | None],
) -> list[str]:
    names_of: dict[str, list[str]] = {}
    for run, measurement, items in zip(runs, measurements, shared, strict=True):
        own = [] if measurement else ["not measured on this set"]
        if measurement and run.shown:
            own.append(f"shown here is {run.shown}, the last of {len(run.points)}")
        if measurement and measurements[0] and items:
            own += remarks_on_sharing(measurements[0], measurement, items)
        if measurement and measurement.header:
            own += _remarks_on_header(measurement.header)
        for remark in own:
            names_of.setdefault(remark, []).append(run.name)
    return [f"{_together(names, runs)}: {remark}." for remark, names in names_of.items()]


def _remarks_on_header(header: ItemsHeader) -> list[str]:
    found = []
    if header.too_long:
        found.append(
            f"{counted(header.too_long, 'caption exceeds', 'captions exceed')} the model's context"
        )
    if header.unreadable:
        found.append(f"{counted(len(header.unreadable), 'image')} could not be decoded")
    for name, coverage in header.sets.items():
        title = described(name).title
        found += [f"{title}: {remark}" for remark in set_remarks(name, coverage, ties=0)]
    return found


def _together(names: Sequence[str], runs: Sequence[Run]) -> str:
    """``a, b``, or ``all`` if there are several runs and all are named."""
    return "all" if 1 < len(names) == len(runs) else ", ".join(names)


def _remarks_on_logs(runs: Sequence[Run]) -> list[str]:
    remarks = [f"{run.name} has no training log." for run in runs if run.is_run and not run.log]
    remarks += [
        f"{run.name}: {counted(run.broken_lines, 'line')} of the log cannot be read."
        for run in runs
        if run.broken_lines
    ]
    return remarks
