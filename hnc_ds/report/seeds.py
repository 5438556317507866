"""Runs that differ only in the seed as one column: means over their results and their logs.

What a run was trained with is read from its config.json. Results without one, as of 'hnc-ds
evaluate --out FOLDER', do not record it; their models' names do on request (hnc-0, hnc-1).
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from hnc_ds.config import ReportConfig
from hnc_ds.errors import counted
from hnc_ds.evaluation.results import Measurement
from hnc_ds.evaluation.seeds import mean_rows, pooled
from hnc_ds.report.runs import Point, Run, read_runs

NUMBERED = re.compile(r"(.*?)[-_./ ]?(?:seed)?[-_.=]?(\d+)")
"""A name that ends with the number of a seed: hnc-0, hnc_seed1, hnc-seed=2."""

WITHOUT_INFLUENCE = frozenset(
    {
        "seed",
        "preset",  # a name for settings that are here themselves, as is the next one
        "deepspeed_config",
        "eval_shards",
        "eval_images",
        "log_every",
        "save_every",
        "commit",
        "workers",
        "data.workers",
        "data.cache",
        "data.cache_gb",
        "log_to",
        "keep_last",
        "hang_timeout",
    }
)
"""Keys of a config.json that may differ between seeds; libraries' versions may as well. Those that
do are in the report's table of settings. Scores on other evaluation data are left out of means."""

Identity = tuple[tuple[str, str], ...]
"""All that a run was trained with but the seed."""


def read_columns(config: ReportConfig) -> list[Run]:
    """The columns of a report. Raises UserError as ``read_runs``."""
    runs = read_runs(config.runs)
    if not config.seeds_by_name and (names := unread_seeds(runs)):
        print(
            f"report: {', '.join(names)} have no config.json beside them; if they are seeds of a "
            "model, --seeds_by_name makes them one column",
            file=sys.stderr,
        )
    return columns(runs, config.seeds_by_name)


def columns(runs: Sequence[Run], by_name: bool) -> list[Run]:
    """The runs, those that differ only in the seed as one, at the place of the first of them.

    Args:
        runs: Single runs.
        by_name: Whether results without settings are seeds of one model if their names differ only
            in the number at their end.
    """
    groups: list[tuple[Identity | None, dict[str, Run]]] = []
    for run in runs:
        identity, seed = _identity(run, by_name)
        fitting = (own for known, own in groups if identity and known == identity)
        group = next((own for own in fitting if seed not in own), None)
        if group is None:
            groups.append((identity, {seed: run}))
        else:
            group[seed] = run
    taken = [run.name for _, own in groups if len(own) == 1 for run in own.values()]
    stems = [_stem(own) for _, own in groups if len(own) > 1]
    return [_column(own, [*taken, *stems]) for _, own in groups]


def unread_seeds(runs: Sequence[Run]) -> list[str]:
    """Names of results without settings that look like seeds of one model."""
    stems = {run.name: _by_name(run)[0] for run in runs if not run.settings}
    found = list(stems.values())
    return [name for name, stem in stems.items() if stem and found.count(stem) > 1]


def _identity(run: Run, by_name: bool) -> tuple[Identity | None, str]:
    """What a run has in common with its other seeds, and its seed; (None, "") if that is not
    known."""
    settings = run.settings
    if "seed" not in settings:
        return _by_name(run) if by_name and not settings else (None, "")
    ignored = set(WITHOUT_INFLUENCE)
    if "shards" in settings:  # identifies their content, wherever it lies
        ignored.add("data.shards")
    if settings.get("model.pretrained") == "null" and ":" not in settings.get("model.model", ""):
        ignored.add("reference_weights")  # random ones, which are drawn by the seed
    kept = (
        entry
        for entry in settings.items()
        if entry[0] not in ignored and not entry[0].startswith("versions.")
    )
    return tuple(sorted(kept)), settings["seed"]


def _by_name(run: Run) -> tuple[Identity | None, str]:
    match = NUMBERED.fullmatch(run.name)
    return ((("name", match[1]),), match[2]) if match and match[1] else (None, "")


def _stem(of_seeds: Mapping[str, Run]) -> str:
    """Name of several seeds: what is left of each name without its seed; empty if that differs."""
    first, *others = (_without(run.name, seed) for seed, run in of_seeds.items())
    return next((name for name in first if name and all(name in own for own in others)), "")


def _without(name: str, seed: str) -> list[str]:
    """A name without the number of its seed, at each place where it may be: ``hnc`` for hnc-seed=1,
    ``alpha=2`` for seed=1_alpha=2."""
    number = re.compile(rf"[-_./ ]?(?:seed)?[-_.=]?(?<!\d)0*{re.escape(seed)}(?!\d)")
    found = (name[: at.start()] + name[at.end() :] for at in number.finditer(name))
    return [left.strip("-_./= ") for left in found]


def _column(of_seeds: Mapping[str, Run], names: Sequence[str]) -> Run:
    """The run, or the mean of several.

    Args:
        of_seeds: Runs by seed; "" if it is not known.
        names: Names of all columns, this one's too.
    """
    first = next(iter(of_seeds.values()))
    if len(of_seeds) == 1 and "seed" not in first.settings:
        return first
    if len(of_seeds) == 1:
        own = {
            name: replace(m, seeds=dict.fromkeys(of_seeds, m))
            for name, m in first.measurements.items()
        }
        return replace(first, measurements=own)
    stem = _stem(of_seeds)
    is_clear = bool(stem) and names.count(stem) == 1
    return _mean(stem if is_clear else f"{first.name} and {len(of_seeds) - 1} more", of_seeds)


def _mean(name: str, of_seeds: Mapping[str, Run]) -> Run:
    runs = list(of_seeds.values())
    files = dict.fromkeys(file for run in runs for file in run.measurements)
    return Run(
        name,
        settings=_settings(runs),
        log=mean_log([run.log for run in runs]),
        broken_lines=sum(run.broken_lines for run in runs),
        measurements={
            file: pooled(
                name,
                {
                    seed: run.measurements[file]
                    for seed, run in of_seeds.items()
                    if file in run.measurements
                },
            )
            for file in files
        },
        points=_mean_points(name, runs),
        is_run=all(run.is_run for run in runs),
        shown=", ".join(dict.fromkeys(run.shown for run in runs if run.shown)),
        seeds=dict(of_seeds),
    )


def _settings(runs: Sequence[Run]) -> dict[str, str]:
    """Values by key; several values of a key are listed."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: dict.fromkeys(run.settings.get(key, "not set") for run in runs) for key in keys}
    return {key: ", ".join(found) for key, found in values.items()}


def _mean_points(name: str, runs: Sequence[Run]) -> list[Point]:
    """Points that all seeds have, with mean rows."""
    of_runs = [{_label(run, point): point for point in run.points} for run in runs]
    shared = [label for label in of_runs[0] if all(label in points for points in of_runs)]
    return [
        Point(
            label or name,
            mean_rows(name, [points[label].rows for points in of_runs]),
            of_runs[0][label].fingerprints,
        )
        for label in shared
    ]


def _label(run: Run, point: Point) -> str:
    """Empty for the only point of a run, which has its name."""
    return "" if point.label == run.name else point.label


def mean_log(logs: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Means over seeds at the steps, and of the values, that all of them logged."""
    by_step = [{row["step"]: row for row in log} for log in logs]
    found = []
    for step in (step for step in by_step[0] if all(step in rows for rows in by_step)):
        rows = [rows[step] for rows in by_step]
        names = [name for name in rows[0] if all(name in row for row in rows)]
        found.append({name: fmean(row[name] for row in rows) for name in names})
    return found


def described_seeds(run: Run) -> str:
    """``3 seeds: 0, 1, 2``; empty for a single run."""
    return f"{counted(len(run.seeds), 'seed')}: {', '.join(run.seeds)}" if run.seeds else ""


def counted_runs(runs: Sequence[Run]) -> str:
    """``2 runs``, or ``6 runs in 2 columns``."""
    single = sum(len(run.seeds) or 1 for run in runs)
    columns = f" in {counted(len(runs), 'column')}" if single > len(runs) else ""
    return f"{counted(single, 'run')}{columns}"


def lacking(run: Run, measurement: Measurement) -> list[str]:
    """Remarks on seeds that are not in every mean."""
    remarks = []
    for seed in run.seeds:
        own = measurement.seeds.get(seed)
        missing = len(measurement.rows) - (len(own.rows) if own else 0)
        if missing:
            remarks.append(
                f"seed {seed} lacks {missing:,} of {len(measurement.rows):,} scores, not measured "
                "or of other questions; their means are over the other seeds"
            )
    return remarks


def representatives(runs: Sequence[Run]) -> list[Run]:
    """One run of each column, for single images: of several seeds the one that the first column
    has too, else its first one."""
    wanted = next(iter(runs[0].seeds), runs[0].settings.get("seed", "")) if runs else ""
    return [_one_of(run, wanted) for run in runs]


def _one_of(run: Run, wanted: str) -> Run:
    if not run.seeds:
        return run
    seed = wanted if wanted in run.seeds else next(iter(run.seeds))
    return replace(run.seeds[seed], name=f"{run.name}, seed {seed}")
