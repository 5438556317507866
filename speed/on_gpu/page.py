"""What gpu.py found as JSON and as a page. No measuring here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hnc_ds.atomic_files import atomic_write
from speed.on_gpu.goals import lines, missed
from speed.results import cell, check_line, number, table_lines
from speed.timing import Check, Table, spread

HEAD = """# Speed on one CUDA device

Written by `python speed/gpu.py`; every turn is in GPU.json. Cells are medians over the turns
and, in brackets, smallest and largest. All have the same batch in memory and take turns; in all,
images compete with the hard negatives of all images.

* hnc_ds: bf16 under ZeRO 1, torch's fused AdamW, equal captions encoded once, no padding beyond
  what the model's form of text needs, the loss in slices.
* open_clip's step: its training script with --precision amp_bf16 (autocast for towers and loss),
  the flags of torch that it sets (TF32, cuDNN's search), its AdamW (torch's for many tensors at
  once, not the fused one), every caption encoded with 77 tokens, negatives appended, the loss as
  matrices.
* No engine: the work of hnc_ds with weights, gradients and moments in bf16, torch's clipping and
  its fused AdamW, without DeepSpeed. It has no fp32 weights, so no trainer in mixed precision quite
  reaches it.
* Compiled: the blocks of both towers under torch.compile.

Share of the peak: operations that the training needs (images, real tokens of distinct captions;
backward twice the forward) over the whole step's time, as a share of the measured peak. What is
computed beyond that does not count.
"""
MEANS_NOTHING = (
    "\n**Not a measurement: a run to see that everything works. Its numbers mean nothing.**\n"
)
COLUMNS = (
    "batch",
    "samples/s",
    "times as fast",
    "behind no engine",
    "share of peak",
    "GiB",
    "waiting for data",
)


@dataclass
class Found:
    """What is known of a section so far."""

    title: str
    state: str = "not begun"
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    reached: dict[str, float] = field(default_factory=dict)
    """Of GOALS."""
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class Book:
    """Everything, as far as it is known."""

    facts: dict[str, str]
    real: bool
    """False for a run whose numbers mean nothing."""
    sections: dict[str, Found]
    peak_tflops: float | None = None
    kept: set[str] = field(default_factory=set)
    """Sections that an earlier run has measured."""

    def keep(self, folder: Path, titles: Mapping[str, str]) -> None:
        """Take up what an earlier run has written there of sections that this one does not run.

        Args:
            folder: Of GPU.json, which need not be there.
            titles: Of all sections, in the order of the page.
        """
        path = folder / "GPU.json"
        before = json.loads(path.read_text()) if path.is_file() else {}
        if before.get("numbers_mean_something") is not self.real:
            return
        when = f"Measured on {before['machine']['date']}."
        for name in (n for n in titles if n in before["sections"] and n not in self.sections):
            found = Found(**before["sections"][name])
            if not any(note.startswith("Measured on ") for note in found.notes):
                found.notes.append(when)
            self.sections[name] = found
            self.kept.add(name)
        self.sections = {name: self.sections[name] for name in titles if name in self.sections}
        self.facts = before["machine"] | self.facts
        self.peak_tflops = before["peak_tflops"]

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a section's finding."""
        found, kind, value = self.sections[line["section"]], line["kind"], line["value"]
        if kind == "state":
            found.state = value
        elif kind == "fact" and value[0] == "peak_tflops":
            self.peak_tflops = value[1]
        elif kind == "fact":
            if value[0] == "accelerator" and self.facts.get("accelerator", value[1]) != value[1]:
                self._forget_kept()
            self.facts[value[0]] = value[1]
        elif kind == "reached":
            found.reached[value[0]] = value[1]
        else:
            getattr(found, f"{kind}s").append(value)

    def _forget_kept(self) -> None:
        """What another device has shown is not for this page."""
        for name in self.kept:
            del self.sections[name]
        self.kept.clear()
        self.peak_tflops = None

    def reached(self) -> dict[str, float]:
        """What was found of GOALS in all sections."""
        return {n: value for found in self.sections.values() for n, value in found.reached.items()}

    def holds(self) -> bool:
        """Whether no check failed and nothing went wrong."""
        found = self.sections.values()
        return not any(f.errors or not all(c["holds"] for c in f.checks) for f in found)

    def write(self, folder: Path) -> None:
        """GPU.json and GPU.md."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": self.facts,
            "numbers_mean_something": self.real,
            "peak_tflops": self.peak_tflops,
            "goals_missed": missed(self.reached(), self.peak_tflops),
            "sections": {name: vars(found) for name, found in self.sections.items()},
        }
        atomic_write(folder / "GPU.json", (json.dumps(content, indent=1) + "\n").encode())
        atomic_write(folder / "GPU.md", self.page().encode())

    def page(self) -> str:
        """For the page."""
        facts = "".join(f"\n| {fact} | {value} |" for fact, value in self.facts.items())
        if self.peak_tflops is not None:
            facts += f"\n| measured bf16 peak, 10^12 operations/s | {number(self.peak_tflops)} |"
        sections = "".join(self._section(found) for found in self.sections.values())
        goals = "\n".join(["\n## Goals\n", *lines(self.reached(), self.peak_tflops), ""])
        head = f"{HEAD}{'' if self.real else MEANS_NOTHING}"
        return f"{head}\n| | |\n|---|---|{facts}\n{goals}{sections}"

    def _section(self, found: Found) -> str:
        lines = [f"\n## {found.title}\n"]
        if found.rows:
            lines += [
                f"| | {' | '.join(COLUMNS)} |",
                "|---" * (1 + len(COLUMNS)) + "|",
                *map(self._row, found.rows),
                "",
            ]
        lines += [line for table in found.tables for line in table_lines(_table(table))]
        if found.state != "done":
            lines.append(f"* **Not finished**: {found.state}.")
        lines += [f"* {note}" for note in found.notes]
        lines += [
            check_line(Check(check["what"], check["found"], check["allowed"]))
            for check in found.checks
        ]
        lines += [f"* **FAILED**: {error}." for error in found.errors]
        return "\n".join(lines) + "\n"

    def _row(self, row: dict[str, Any]) -> str:
        ratio, memory, waiting = row["times_as_fast"], row["memory_gib"], row["waiting"]
        behind = row["behind"]
        known = row["tflops"] is not None and self.peak_tflops is not None
        cells = (
            str(row["batch"]),
            cell(spread(row["samples_per_second"])),
            "" if ratio is None else cell(spread(ratio)),
            "" if behind is None else f"{median(behind):.1%}",
            f"{row['tflops'] / self.peak_tflops:.1%}" if known else "",
            "" if memory is None else number(memory),
            "" if waiting is None else f"{waiting:.1%}",
        )
        return f"| {row['what']} | {' | '.join(cells)} |"


def _table(table: Mapping[str, Any]) -> Table:
    rows = {name: tuple(values) for name, values in table["rows"].items()}
    return Table(table["title"], tuple(table["columns"]), rows)
