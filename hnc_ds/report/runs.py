"""What a run left behind, read for a report: settings, training log, results and their items.

    RUN/config.json            settings; optional
    RUN/log.jsonl              one object per logged step; optional
    RUN/results/*.json         rows of 'hnc-ds evaluate', and *.items.jsonl beside them

Reads and checks, computes nothing. No torch.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.evaluation.items import (
    AnsweredItem,
    ItemsHeader,
    PairItem,
    RankItem,
    items_path,
    read_items,
    read_results,
)
from hnc_ds.records import Result

BOOKKEEPING = frozenset({"run", "resume", "config"})
"""Settings that say where a run lies, not what it is."""

RowKey = tuple[str, str, str]
"""Benchmark, metric and group of a result."""


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
    """By name of the results file, without .json."""


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs; those whose folders share a name are called by their whole path.

    Raises:
        UserError: None given, no such run, a run without results, files that are not what
            their names say.
    """
    if not folders:
        raise UserError("no run is named; give the folders of one or more runs")
    names = [folder.resolve().name for folder in folders]
    return [
        read_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def read_run(folder: Path, name: str) -> Run:
    """Read one run. Raises UserError as `read_runs` does."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; give a folder that 'hnc-ds train' made")
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise UserError(
            f"{folder}: has no results; run 'hnc-ds evaluate {folder} --shards SHARDS "
            f"--out {folder}/results/val.json' first"
        )
    log, broken_lines = _read_log(folder / "log.jsonl")
    return Run(
        name,
        _read_settings(folder / "config.json"),
        log,
        broken_lines,
        {file.stem: _read_measurement(file) for file in files},
    )


def _read_measurement(path: Path) -> Measurement:
    rows = {(row.benchmark, row.metric, row.group): row for row in read_results(path)}
    if not items_path(path).is_file():
        return Measurement(rows, path.parent, None, [], [])
    header, items = read_items(items_path(path))
    pairs = [item for item in items if isinstance(item, PairItem)]
    ranks = [item for item in items if isinstance(item, RankItem)]
    answers = [item for item in items if isinstance(item, AnsweredItem)]
    return Measurement(rows, path.parent, header, pairs, ranks, answers)


def _read_settings(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); mend or remove it") from error
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
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
