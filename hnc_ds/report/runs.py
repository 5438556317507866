"""What runs left behind, read for a report: settings, training log, results and their items.

    RUN/config.json            settings; optional
    RUN/log.jsonl              one object per logged step; optional
    RUN/results/*.json         rows of 'hnc-ds evaluate', and *.items.jsonl beside them
    FOLDER/alpha-*.json        a sweep of 'hnc-ds interpolate'
    FOLDER/*.json, FILE.json   results of a model each, that may be of no run

Reads and checks, computes nothing. No torch.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import BENCHMARKS
from hnc_ds.evaluation.items import ItemsHeader, items_path, read_header, read_results
from hnc_ds.evaluation.measurement import Measurement, read_measurement, rows_of
from hnc_ds.evaluation.table import RowKey
from hnc_ds.reading import read_json
from hnc_ds.records import Result

SERIES = re.compile(r"(step|alpha)-(\d+(?:\.\d+)?)")
"""Results files of a run's checkpoints, and of mixtures."""

SERIES_OF = {"step": "step", "alpha": "share"}
"""What their numbers are; a share is of the final weights."""

BOOKKEEPING = frozenset({"run", "resume", "config"})
"""Settings that say where a run lies, not what it is."""


@dataclass(frozen=True, slots=True)
class Point:
    """Scores of one model of a series: a checkpoint, a mixture, or the run itself."""

    label: str
    rows: dict[RowKey, Result]
    asked: dict[str, str] = field(default_factory=dict)
    """By benchmark what tells sets of questions apart, as far as the items say."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report knows of a run."""

    name: str
    settings: dict[str, str]
    """Dotted key to value; empty where the run has no config.json."""
    log: list[dict[str, float]]
    """Numbers per logged step, ascending; a step that was logged twice counts as last logged."""
    broken_lines: int
    """Lines of the log that are not JSON objects, as a killed run leaves them."""
    measurements: dict[str, Measurement]
    """By name of the results file, without .json; of a series only its last point, and that only
    where there is nothing else."""
    points: list[Point] = field(default_factory=list)
    """Checkpoints by step or mixtures by share; one point where there are none."""
    is_run: bool = True
    """Whether it is the folder of a training, and not of results alone."""
    shown: str = ""
    """Which point of a series its measurement is; empty where it is of none."""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read runs and results, each once; those that share a name are called by their whole path.

    Raises:
        UserError: None given, no such run or file, a run without results, files that are not what
            their names say.
    """
    if not paths:
        raise UserError("no run is named; give the folders of one or more runs")
    found = [place for path in paths for place in _places(path)]
    places = list({place.resolve(): place for place in found}.values())
    names = [_name(place) for place in places]
    runs = [
        read_run(place, name if names.count(name) == 1 else str(place))
        for place, name in zip(places, names, strict=True)
    ]
    return _side_by_side(runs)


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
        return Run(name, {}, [], 0, shown, points, is_run=False, shown=of_series)
    log, broken_lines = _read_log(place / "log.jsonl")
    settings = _read_settings(place / "config.json")
    return Run(name, settings, log, broken_lines, shown, points, _is_run(place), of_series)


def _series(files: Iterable[Path]) -> dict[Path, str]:
    """Results of checkpoints or mixtures with their labels, ascending."""
    numbers = {file: found for file in files if (found := SERIES.fullmatch(file.stem))}
    ordered = sorted(numbers.items(), key=lambda entry: float(entry[1][2]))
    return {file: f"{SERIES_OF[found[1]]} {float(found[2]):g}" for file, found in ordered}


def _read_point(file: Path, label: str) -> Point:
    items = items_path(file)
    header = read_header(items) if items.is_file() else None
    return Point(label, rows_of(file), _asked(header))


def _whole_point(label: str, measurements: Sequence[Measurement]) -> Point:
    """Of a run without a series: everything that it was measured on, once."""
    rows: dict[RowKey, Result] = {}
    asked: dict[str, str] = {}
    for measurement in measurements:
        new = {key: row for key, row in measurement.rows.items() if key not in rows}
        asked = {**_asked(measurement.header), **asked}
        rows.update(new)
    return Point(label, rows, asked)


def _asked(header: ItemsHeader | None) -> dict[str, str]:
    if header is None:
        return {}
    sets = {name: coverage.fingerprint for name, coverage in header.sets.items()}
    return sets | (dict.fromkeys(BENCHMARKS, header.fingerprint) if header.shards else {})


def _places(path: Path) -> list[Path]:
    """What a path stands for: itself, or, a folder with results of several models, each file."""
    if not path.is_dir() or _is_run(path):
        return [path]
    files = sorted(path.glob("*.json"))
    models = {row.model for file in files for row in read_results(file)[:1]}
    return [path] if _series(files) or len(models) < 2 else files


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("results", "config.json", "log.jsonl"))


def _results_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(
            f"{place}: no such run; give a folder that 'hnc-ds train' made, or results of "
            "'hnc-ds evaluate'"
        )
    files = sorted((place / "results" if _is_run(place) else place).glob("*.json"))
    if not files:
        raise UserError(
            f"{place}: has no results; run 'hnc-ds evaluate {place} --shards SHARDS "
            f"--out {place}/results/val.json' first"
        )
    return files


def _name(place: Path) -> str:
    """That of the folder, or of the model that a file is of."""
    if place.is_file() and (rows := read_results(place)):
        return rows[0].model
    return place.resolve().name


def _side_by_side(runs: list[Run]) -> list[Run]:
    """Where results are not all of runs' own files, and each has one, they are compared whatever
    the files are called."""
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
    settings = read_json(path, "mend or remove it", "cannot be read as JSON")
    flat = ((key.removeprefix("settings."), value) for key, value in _flatten(settings, ""))
    return {key: value for key, value in flat if key not in BOOKKEEPING}


def _flatten(value: object, key: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)


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
