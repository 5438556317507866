"""Measure hnc_ds against other implementations and write RESULTS.md and RESULTS.json.

    python speed/run.py                  all: some minutes on two cores (make bench)
    python speed/run.py text loader      these, on the terminal alone
    python speed/run.py loss --update    these, and into the page in place of the old ones
    python speed/run.py --quick          all, in seconds; the numbers mean nothing

A measurement is a file beside this one with ``measure(folder, quick) -> Comparison``, and a line
in the table. Nothing heavy is imported at the top: worker processes import this file as well.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import cast

import tyro

from hnc_ds.atomic_files import atomic_write
from hnc_ds.errors import UserError, did_you_mean
from speed.machine import facts
from speed.results import as_json, as_markdown, from_json, gpu_line, section
from speed.timing import Comparison

MEASUREMENTS = {
    "step": "Training step: ViT-B/32, 4 hard negatives an image",
    "frozen": "Text tower alone: a step with images encoded once, ViT-B/32",
    "engine_step": "Engine: after the backward pass, ViT-B/32 under ZeRO 1 in bf16",
    "loss": "Loss: forward and backward at N = 4096, hard negatives of all images",
    "text": "Text tower: captions forward and backward",
    "loader": "Loader: JPEGs in a tar to training crops of 224 pixels",
    "captions": "Captions: scene graphs to captions and hard negatives",
    "pack": "Pack: JPEGs and captions to tar shards",
    "collectives": "Collectives: a step of two processes, and what they send each other",
    "scaling": "Scaling: the same batch on one process and on two",
    "itm": "Cross-encoder: forward and backward, 4 hard negatives an image",
    "questions": "Benchmarks: questions answered",
    "answers": "LLaVA: questions answered",
    "resume": "Resume: seconds to the first batch in the middle of an epoch",
}
"""What each file measures. The order is that of the page."""

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """Measure speed beside other implementations."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which; all when none is named."""

    quick: bool = False
    """Tiny inputs, few rounds: whether it works, not how fast."""

    update: bool = False
    """Put the named ones into RESULTS in place of what is there of them."""

    out: Path | None = None
    """Folder for RESULTS.md and RESULTS.json; speed/ for a full run of all, else none."""

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in MEASUREMENTS:
                raise UserError(
                    f"unknown measurement '{name}'{did_you_mean(name, MEASUREMENTS)}; "
                    f"there are {', '.join(MEASUREMENTS)}"
                )


def run(settings: Settings) -> bool:
    """Measure, print, write; returns whether all checks hold."""
    machine = facts()
    found: dict[str, Comparison] = {}
    for name in settings.names or MEASUREMENTS:
        print(f"measuring {name} ...", flush=True)
        found[name] = measure(name, settings.quick)
        print(section(MEASUREMENTS[name], found[name]), flush=True)
    agree = all(check.holds for comparison in found.values() for check in comparison.checks)
    whole = not (settings.names or settings.quick)
    out = settings.out or (HERE if whole or settings.update else None)
    if settings.update and out is not None:
        machine, found = _updated(out / "RESULTS.json", machine, found)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "RESULTS.json", as_json(machine, found, settings.quick).encode())
        page = as_markdown(machine, MEASUREMENTS, found, settings.quick, gpu_line(HERE))
        atomic_write(out / "RESULTS.md", page.encode())
        print(f"wrote {out / 'RESULTS.md'} and RESULTS.json")
    return agree


def _updated(
    path: Path, machine: dict[str, str], found: dict[str, Comparison]
) -> tuple[dict[str, str], dict[str, Comparison]]:
    """An earlier page's machine and measurements with new ones in their places, dated."""
    before, kept = from_json(path.read_text())
    load = machine["load before the start"]
    when = f"Measured again on {machine['date']}; load before the start {load}."
    dated = {n: replace(c, notes=(*c.notes, when)) for n, c in found.items()}
    return before, {name: (kept | dated)[name] for name in MEASUREMENTS if name in kept | dated}


def measure(name: str, quick: bool) -> Comparison:
    """One measurement, in a folder that is gone afterwards; what stages print is not shown."""
    module = import_module(f"speed.{name}")
    with (
        tempfile.TemporaryDirectory(prefix="hnc_ds-bench-") as folder,
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
    ):
        return cast(Comparison, module.measure(Path(folder), quick))


def main() -> int:
    """0, 1 when variants that should agree do not, 2 for user errors."""
    try:
        return 0 if run(tyro.cli(Settings)) else 1
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
