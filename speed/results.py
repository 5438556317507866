"""Measurements as JSON, with every round, and as a Markdown page of medians. No measuring here."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speed.timing import Check, Comparison, Spread, Table, Timing

HEAD = """# Speed

Written by `make bench`; every round is in RESULTS.json. Cells are medians over the rounds and, in
brackets, smallest and largest. Variants took turns, A B A B; the last column compares them round
by round, by the clock that its title names. CPU seconds are those of all threads and processes of
a variant: another job on the machine lengthens them less than it does seconds on the wall.
"""
QUICK = "\n**A quick run, to see that everything works: the numbers mean nothing.**\n"
NO_GPU = """
No CUDA device has run this version yet. `python speed/gpu.py` does: unattended, without a
network, in less than 10 minutes; it writes GPU.md and GPU.json beside this page. The figures of the
H100 80GB below (torch 2.11, DeepSpeed 0.19.8, open_clip 3.3) are from before: commit 532f006, when
parameters lay unaligned, the step was DeepSpeed's own, nothing was compiled, and LLaVA's answers
had no cache of their own.

| from before; 4 hard negatives an image | ms a step | images/s |
|---|---|---|
| ViT-L-14-336, batch 64: hnc_ds, ZeRO 1 in bf16 | 492 - 526 | 122 - 130 |
| the same, ZeRO 2 in bf16 | 623 | 103 |
| the same work without an engine | 256 | 250 |
| open_clip's step | 318 | 201 |
| open_clip's step, blocks compiled | 239 | 268 |
| ViT-B-32, batch 512: hnc_ds, ZeRO 1 in bf16 | 260 | 1,970 |
| the same, ZeRO 2 in bf16 | 363 | 1,409 |
| open_clip's step | 331 | 1,545 |

transformers' `generate` answered 5.4 questions/s one by one there, 26.7 with 16 at once and 36.8
with 32 (LLaVA-1.5-7B's shape, float16, 5 tokens an answer); hnc_ds was not measured.
"""
WITH_GPU = "\nOn a CUDA device: [GPU.md](GPU.md), written by `python speed/gpu.py`.\n"
CLOCKS = {"wall": "time", "cpu": "CPU time"}


def as_json(machine: Mapping[str, str], found: Mapping[str, Comparison], quick: bool) -> str:
    """Everything that was measured."""
    measurements = {name: _as_values(comparison) for name, comparison in found.items()}
    content = {"machine": dict(machine), "quick": quick, "measurements": measurements}
    return json.dumps(content, indent=1) + "\n"


def from_json(text: str) -> tuple[dict[str, str], dict[str, Comparison]]:
    """Machine and measurements as ``as_json`` wrote them."""
    content = json.loads(text)
    return content["machine"], {n: _compared(v) for n, v in content["measurements"].items()}


def _compared(values: dict[str, Any]) -> Comparison:
    return Comparison(
        clock=values["clock"],
        baseline=values["baseline"],
        timings={
            variant: tuple(map(Timing, found["wall_seconds"], found["cpu_seconds"]))
            for variant, found in values["variants"].items()
        },
        checks=tuple(Check(c["what"], c["found"], c["allowed"]) for c in values["checks"]),
        notes=tuple(values["notes"]),
        items=values["items"],
        count=values["count"],
        tables=tuple(
            Table(t["title"], tuple(t["columns"]), {w: tuple(r) for w, r in t["rows"].items()})
            for t in values["tables"]
        ),
    )


def as_markdown(
    machine: Mapping[str, str],
    titles: Mapping[str, str],
    found: Mapping[str, Comparison],
    quick: bool,
    gpu: str = "",
) -> str:
    """The page; ``gpu`` is the result of ``gpu_line``."""
    facts = "".join(f"\n| {fact} | {value} |" for fact, value in machine.items())
    sections = "".join(section(titles[name], comparison) for name, comparison in found.items())
    return f"{HEAD}{gpu}{QUICK * quick}\n| | |\n|---|---|{facts}\n{sections}"


def gpu_line(folder: Path) -> str:
    """Where the results of gpu.py are, or that there are none."""
    return WITH_GPU if (folder / "GPU.json").is_file() else NO_GPU


def section(title: str, comparison: Comparison) -> str:
    """One measurement: table, checks, notes."""
    unit = f"{comparison.items}/s" if comparison.count else "s"
    cpu_unit = f"{comparison.items}/CPU s" if comparison.count else "CPU s"
    rounds = len(comparison.timings[comparison.baseline])
    faster = f"times as fast ({CLOCKS[comparison.clock]})"
    lines = [
        f"\n## {title}\n",
        f"| {rounds} round{'s' * (rounds > 1)} | {unit} | {cpu_unit} | {faster} |",
        "|---|---|---|---|",
        *(_row(comparison, variant) for variant in comparison.timings),
        "",
        *(line for table in comparison.tables for line in table_lines(table)),
        *(f"* {note}" for note in comparison.notes),
        *map(check_line, comparison.checks),
    ]
    return "\n".join(lines) + "\n"


def _row(comparison: Comparison, variant: str) -> str:
    compared = "1" if variant == comparison.baseline else cell(comparison.speed_up(variant))
    wall, cpu = (cell(comparison.measured(variant, clock)) for clock in ("wall", "cpu"))
    return f"| {variant} | {wall} | {cpu} | {compared} |"


def table_lines(table: Table) -> list[str]:
    """A table and an empty line."""
    return [
        f"| {table.title} | {' | '.join(table.columns)} |",
        "|---" * (1 + len(table.columns)) + "|",
        *(f"| {variant} | {' | '.join(map(number, row))} |" for variant, row in table.rows.items()),
        "",
    ]


def check_line(check: Check) -> str:
    """Whether it holds, and by how much."""
    holds = "Checked" if check.holds else "**FAILED**"
    return f"* {holds}: {check.what}: {check.found:.2g}, allowed {check.allowed:.2g}."


def cell(values: Spread) -> str:
    """Median (smallest - largest)."""
    return f"{number(values.median)} ({number(values.low)} - {number(values.high)})"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _as_values(comparison: Comparison) -> dict[str, Any]:
    return {
        "items": comparison.items,
        "count": comparison.count,
        "clock": comparison.clock,
        "baseline": comparison.baseline,
        "variants": {
            variant: {
                "wall_seconds": [timing.wall for timing in timings],
                "cpu_seconds": [timing.cpu for timing in timings],
                "times_as_fast": comparison.speed_up(variant)._asdict(),
            }
            for variant, timings in comparison.timings.items()
        },
        "checks": [
            {
                "what": check.what,
                "found": check.found,
                "allowed": check.allowed,
                "holds": check.holds,
            }
            for check in comparison.checks
        ],
        "tables": [asdict(table) for table in comparison.tables],
        "notes": list(comparison.notes),
    }
