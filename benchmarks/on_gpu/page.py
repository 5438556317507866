"""What gpu.py found as JSON and as a page. No measuring here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import cell, check_line, number
from benchmarks.timing import Check, spread
from hnc_ds.whole_files import write_whole

HEAD = """# Speed on one CUDA device

Written by `python benchmarks/gpu.py`; every turn is in GPU.json. Cells are medians over the turns
and, in brackets, smallest and largest. hnc_ds: bf16 under ZeRO 1, torch's fused AdamW, equal
captions encoded once, no padding beyond what the model's form of text needs, the loss in slices.
open_clip's way: autocast to bf16, torch's AdamW, every caption encoded with 77 tokens, negatives
appended, the loss as matrices of logits in fp32. In both, images compete with the hard negatives of
all images. Both have the same batch in memory and take turns.

Share of the peak: operations that the training needs (pictures, real tokens of distinct captions;
backward twice the forward) over the whole step's time, as a share of the measured peak. What a way
computes beyond that does not count for it.
"""
MEANS_NOTHING = (
    "\n**Not a measurement: a run to see that everything works. Its numbers mean nothing.**\n"
)
COLUMNS = ("batch", "samples/s", "times as fast", "share of peak", "GiB", "waiting for data")


@dataclass
class Found:
    """What is known of a section so far."""

    title: str
    state: str = "not begun"
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
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

    def take(self, line: Mapping[str, Any]) -> None:
        """What a section tells."""
        found, kind, value = self.sections[line["section"]], line["kind"], line["value"]
        if kind == "state":
            found.state = value
        elif kind == "fact" and value[0] == "peak_tflops":
            self.peak_tflops = value[1]
        elif kind == "fact":
            self.facts[value[0]] = value[1]
        else:
            getattr(found, f"{kind}s").append(value)

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
            "sections": {name: vars(found) for name, found in self.sections.items()},
        }
        write_whole(folder / "GPU.json", (json.dumps(content, indent=1) + "\n").encode())
        write_whole(folder / "GPU.md", self.page().encode())

    def page(self) -> str:
        """For people."""
        told = "".join(f"\n| {fact} | {value} |" for fact, value in self.facts.items())
        if self.peak_tflops is not None:
            told += f"\n| measured bf16 peak, 10^12 operations/s | {number(self.peak_tflops)} |"
        sections = "".join(self._section(found) for found in self.sections.values())
        return f"{HEAD}{'' if self.real else MEANS_NOTHING}\n| | |\n|---|---|{told}\n{sections}"

    def _section(self, found: Found) -> str:
        lines = [f"\n## {found.title}\n"]
        if found.rows:
            lines += [
                f"| | {' | '.join(COLUMNS)} |",
                "|---" * (1 + len(COLUMNS)) + "|",
                *map(self._row, found.rows),
                "",
            ]
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
        known = row["tflops"] is not None and self.peak_tflops is not None
        cells = (
            str(row["batch"]),
            cell(spread(row["samples_per_second"])),
            "" if ratio is None else cell(spread(ratio)),
            f"{row['tflops'] / self.peak_tflops:.1%}" if known else "",
            "" if memory is None else number(memory),
            "" if waiting is None else f"{waiting:.1%}",
        )
        return f"| {row['what']} | {' | '.join(cells)} |"
