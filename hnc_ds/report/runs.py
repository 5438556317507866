"""Read settings, training log, results and items of runs for a report. No torch.

RUN/config.json             settings; optional
RUN/log.jsonl               one object per logged step; optional
RUN/results/*.json          rows of 'hnc-ds evaluate', with their *.items.jsonl
FOLDER/coefficient-*.json   a sweep of 'hnc-ds interpolate'
FOLDER/*.json, FILE.json    results of one model each, with or without a run; RUN/results/FILE.json
                            has the settings of its run
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hnc_ds.config.checks import flat_settings
from hnc_ds.errors import UserError
from hnc_ds.evaluation.results import (
    Measurement,
    RowKey,
    fingerprints,
    items_path,
    read_header,
    read_measurement,
    read_results,
    rows_of,
)
from hnc_ds.reading import read_json
from hnc_ds.records import Result

SERIES = re.compile(r"(step|coefficient)-(\d+(?:\.\d+)?)")
"""Results files of a run's checkpoints, and of interpolated models."""


@dataclass(frozen=True, slots=True)
class Point:
    """Scores of one model of a series: a checkpoint, an interpolated model, or the run itself."""

    label: str
    rows: dict[RowKey, Result]
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Fingerprint of the questions by benchmark, if there are items."""


@dataclass(frozen=True, slots=True)
class Run:
    """Data of a run for a report."""

    name: str
    settings: dict[str, str]
    """Values by dotted key; empty if there is no config.json."""
    log: list[dict[str, float]]
    """Numbers per logged step, ascending; the last entry of a step counts."""
    broken_lines: int
    """Lines of the log that are not JSON objects, such as a truncated last line."""
    measurements: dict[str, Measurement]
    """By name of the results file, without .json. A series is shown by its last point, and only if
    there are no other results."""
    points: list[Point] = field(default_factory=list)
    """Points of a series by step or coefficient, or one point."""
    is_run: bool = True
    """Whether it is the folder of a training, not of results alone."""
    shown: str = ""
    """Label of the point of a series that is shown; empty without a series."""
    seeds: dict[str, "Run"] = field(default_factory=dict)
    """The runs whose means this one is, by seed; empty for a single run."""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read runs and results, each once; those that share a name are named by their path.

    Raises:
        UserError: No run is given, a run or file does not exist, a run has no results, or a file
            is invalid.
    """
    if not paths:
        raise UserError("no run is named; give the folders of one or more runs")
    every = [place for path in paths for place in _places(path)]
    places = list({place.resolve(): place for place in every}.values())
    names = [_name(place) for place in places]
    runs = [
        read_run(place, name if names.count(name) == 1 else str(place))
        for place, name in zip(places, names, strict=True)
    ]
    return _aligned(runs)


def read_run(place: Path, name: str) -> Run:
    """Read one run, sweep or results file. Raises UserError as `read_runs` does."""
    files = _results_files(place)
    series = _series(files)
    points = [_read_point(file, label) for file, label in series.items()]
    shown = {file.stem: read_measurement(file) for file in files if file not in series}
    of_series = ""
    if not shown:
        last, of_series = list(series.items())[-1]
        shown = {last.stem: read_measurement(last)}
    points = points or [_whole_point(name, list(shown.values()))]
    if place.is_file():
        settings = _settings_beside(place)
        return Run(name, settings, [], 0, shown, points, is_run=False, shown=of_series)
    log, broken_lines = _read_log(place / "log.jsonl")
    settings = _read_settings(place / "config.json")
    return Run(name, settings, log, broken_lines, shown, points, _is_run(place), of_series)


def _settings_beside(file: Path) -> dict[str, str]:
    """Settings of the run that a results file belongs to, if it is RUN/results/FILE.json."""
    folder = file.resolve().parent
    if folder.name != "results":
        return {}
    try:
        return _read_settings(folder.parent / "config.json")
    except UserError:  # of something else than a training
        return {}


def _series(files: Iterable[Path]) -> dict[Path, str]:
    """Results of checkpoints or interpolated models with their labels, ascending."""
    matches = {file: match for file in files if (match := SERIES.fullmatch(file.stem))}
    ordered = sorted(matches.items(), key=lambda entry: float(entry[1][2]))
    return {file: f"{match[1]} {float(match[2]):g}" for file, match in ordered}


def _read_point(file: Path, label: str) -> Point:
    items = items_path(file)
    header = read_header(items) if items.is_file() else None
    return Point(label, rows_of(file), fingerprints(header))


def _whole_point(label: str, measurements: Sequence[Measurement]) -> Point:
    """The point of a run without a series: the rows of all its results."""
    rows: dict[RowKey, Result] = {}
    known: dict[str, str] = {}
    for measurement in measurements:
        new = {key: row for key, row in measurement.rows.items() if key not in rows}
        known = {**fingerprints(measurement.header), **known}
        rows.update(new)
    return Point(label, rows, known)


def _places(path: Path) -> list[Path]:
    """The path itself, or every file of a folder with results of several models."""
    if not path.is_dir() or _is_run(path):
        return [path]
    files = sorted(path.glob("*.json"))
    models = {row.model for file in files for row in read_results(file)[:1]}
    return [path] if _series(files) or len(models) < 2 else files


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("results", "config.json", "log.jsonl"))


def _results_files(place: Path) -> list[Path]:
    if place.suffix in (".html", ".csv", ".tex", ".md") and not place.is_dir():
        raise UserError(f"{place}: not results; --out and --table name the files to write")
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(
            f"{place}: no such run; give a run folder of 'hnc-ds train', or results of "
            "'hnc-ds evaluate'"
        )
    files = sorted((place / "results" if _is_run(place) else place).glob("*.json"))
    if not files:
        if not _is_run(place) and any(map(_is_run, place.iterdir())):
            raise UserError(f"{place}: holds runs and no results; name the runs, such as {place}/*")
        raise UserError(
            f"{place}: has no results; run 'hnc-ds evaluate {place} --shards SHARDS "
            f"--out {place}/results/val.json' first"
        )
    return files


def _name(place: Path) -> str:
    """Name of the folder, or of the model of a file."""
    if place.is_file() and (rows := read_results(place)):
        return rows[0].model
    return place.resolve().name


def _aligned(runs: list[Run]) -> list[Run]:
    """Compare results whatever the names of their files, if each run has one file and not all of
    them are results of trainings."""
    of_runs = all(run.is_run and not run.shown for run in runs)
    if of_runs or any(len(run.measurements) > 1 for run in runs):
        return runs
    return [
        replace(run, measurements={"results": next(iter(run.measurements.values()))})
        for run in runs
    ]


def _read_settings(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    return flat_settings(read_json(path, "repair or remove it", "cannot be read as JSON"))


def _read_log(path: Path) -> tuple[list[dict[str, float]], int]:
    if not path.is_file():
        return [], 0
    by_step: dict[float, dict[str, float]] = {}
    broken = 0
    for line in filter(None, path.read_bytes().splitlines()):
        values = _parsed(line)
        if isinstance(values, dict) and _is_number(values.get("step")):
            numbers = {key: float(value) for key, value in values.items() if _is_number(value)}
            by_step[numbers["step"]] = numbers
        else:
            broken += 1
    return [by_step[step] for step in sorted(by_step)], broken


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # NaN is not
