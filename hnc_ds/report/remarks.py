"""What a reader of a report has to know about the data behind its scores."""

from collections.abc import Sequence

from hnc_ds.errors import counted
from hnc_ds.evaluation.benchmarks import described
from hnc_ds.evaluation.results import ItemsHeader, Measurement
from hnc_ds.evaluation.seeds import Comparison
from hnc_ds.evaluation.tables import set_remarks
from hnc_ds.report.runs import Run
from hnc_ds.report.seeds import lacking


def remarks(
    runs: Sequence[Run],
    measurements: Sequence[Measurement | None],
    found: Sequence[Comparison | None],
) -> list[str]:
    """Remarks on one results file, each once with the runs that it is about.

    Args:
        runs: The columns.
        measurements: One per run; None for a run without this file.
        found: The comparisons with the first run.
    """
    names_of: dict[str, list[str]] = {}
    for run, measurement, one in zip(runs, measurements, found, strict=True):
        own = [] if measurement else ["not measured on this set"]
        if measurement and run.shown:
            own.append(f"shown here is {run.shown}, the last of {len(run.points)}")
        if measurement:
            own += lacking(run, measurement)
        if one is not None:
            own += one.remarks
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
