"""Training on one CUDA device, beside open_clip's step and beside no engine: an unattended run of
less than 10 minutes, of which the first 4 hold the peak, the checks, both models and the loader.

    python speed/gpu.py                          writes speed/GPU.md and GPU.json
    python speed/gpu.py --only llava memory      these, into that page in place of the old
    python speed/gpu.py --profile                with tables of kernels and calls
    python speed/gpu.py --device cpu             all sections, small models: build/gpu/GPU.md
    python speed/gpu.py --device cpu --quick     the logic alone, in a minute

Needs no network. Sections run in processes of their own, most wanted first; one that fails, dies or
hangs is reported on the page, which is rewritten after every finding.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from hnc_ds.errors import UserError, did_you_mean
from speed.machine import facts
from speed.on_gpu import sections as on_gpu
from speed.on_gpu.page import Book, Found
from speed.on_gpu.sections import SECTIONS, TOGETHER, WHEN_ASKED

HERE = Path(__file__).parent
RESERVE_SECONDS = 25.0
"""Of the minutes, for imports, ending and writing."""
LOOKS_SECONDS = 0.2
"""Seconds between reads of a section's findings."""
LAST_WORDS = 300
"""Characters of what a process wrote before it died."""


@dataclass(frozen=True)
class Settings:
    """Measure training on one CUDA device."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu: to see that everything works, on ViT-S-32 in small batches, in minutes."""

    quick: bool = False
    """Tiny model, few steps: whether it works, not how fast."""

    only: tuple[str, ...] = ()
    """Sections by name; what GPU.json holds of the others stays."""

    profile: bool = False
    """Also tables of the kernels, operations and host waits of a step."""

    out: Path | None = None
    """Folder for GPU.md and GPU.json: speed/, or build/gpu/ if nothing is measured."""

    minutes: float = 10.0
    """It ends before; what there is no time for is left out."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in SECTIONS:
                raise UserError(
                    f"unknown section '{name}'{did_you_mean(name, SECTIONS)}; "
                    f"there are {', '.join(SECTIONS)}"
                )

    def names(self) -> list[str]:
        """Of the sections that run."""
        wanted = {*self.only} or {*SECTIONS} - {*WHEN_ASKED}
        wanted |= {"profile"} if self.profile else set()
        return [name for name in SECTIONS if name in wanted]

    def is_real(self) -> bool:
        """Whether its numbers mean something."""
        return self.device == "cuda" and not self.quick

    def folder(self) -> Path:
        """Where to write."""
        return self.out or (HERE if self.is_real() else HERE.parent / "build" / "gpu")


def run(settings: Settings) -> Book:
    """Every section in turn, as far as the time goes."""
    until = time.time() + 60 * settings.minutes - RESERVE_SECONDS
    names = settings.names()
    found = {name: Found(SECTIONS[name].title) for name in names}
    of_machine = facts()
    of_machine.pop("torch threads")  # as many as torch likes
    book = Book(of_machine, settings.is_real(), found)
    if settings.only:
        book.keep(settings.folder(), {name: section.title for name, section in SECTIONS.items()})
    with tempfile.TemporaryDirectory(prefix="hnc_ds-gpu-") as scratch:
        for number, group in enumerate(_groups(names, settings)):
            book.write(settings.folder())
            folder = Path(scratch) / str(number)
            folder.mkdir()
            _run_group(group, folder, until, settings, book)
    book.write(settings.folder())
    return book


def _groups(names: Sequence[str], settings: Settings) -> list[tuple[str, ...]]:
    """Sections that share a process. On a device few do, as an error there may spoil all that
    follows; on a CPU starting them would take longer than they do."""
    if settings.device == "cpu":
        return [tuple(names)]
    together = {name: group for group in TOGETHER for name in group}
    groups = dict.fromkeys(together.get(name, (name,)) for name in names)
    return [tuple(name for name in group if name in names) for group in groups]


def _run_group(
    names: Sequence[str], folder: Path, until: float, settings: Settings, book: Book
) -> None:
    first, left = SECTIONS[names[0]], until - time.time()
    if left < on_gpu.needed(first, settings.quick):
        for name in names:
            book.sections[name].state = on_gpu.left_out(SECTIONS[name], left)
        return
    print(f"measuring {', '.join(names)} ...", flush=True)
    asked = {
        "names": names,
        "device": settings.device,
        "quick": settings.quick,
        "folder": str(folder),
        "file": str(folder / "findings.jsonl"),
        "until": until,
    }
    command = [sys.executable, str(HERE / "on_gpu" / "sections.py"), json.dumps(asked)]
    watch(command, folder, until, book, names, settings.folder())


def watch(
    command: Sequence[str], folder: Path, until: float, book: Book, names: Sequence[str], out: Path
) -> None:
    """Run a process, and read its findings from FOLDER/findings.jsonl until it ends.

    Args:
        command: The process.
        folder: For what it writes.
        until: Of ``time.time()``: then it is killed with all it has started.
        book: Receives the findings.
        names: Sections that the process runs.
        out: Where the book is written to.
    """
    taken, killed = 0, False
    with (folder / "printed").open("w+") as printed:
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=printed,
            env=_environment(folder),
            start_new_session=True,
        )
        while True:
            ended = process.poll() is not None
            lines = _complete_lines(folder / "findings.jsonl")
            for line in lines[taken:]:
                book.take(line)
            if len(lines) > taken:
                book.write(out)
            taken = len(lines)
            if ended:
                break
            if time.time() > until:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed = True
            time.sleep(LOOKS_SECONDS)
        printed.seek(0)
        ended_as = f"its process ended with status {process.returncode}"
        why = "no time was left" if killed else ended_as
        _tell_unfinished(book, names, why, printed.read())


def _tell_unfinished(book: Book, names: Sequence[str], why: str, printed: str) -> None:
    words = " ".join(printed.split())[-LAST_WORDS:]
    for name in names:
        if book.sections[name].state in ("running", "not begun"):
            book.sections[name].errors.append(f"{why}; the last it wrote: {words or 'nothing'}")


def _complete_lines(file: Path) -> list[dict[str, Any]]:
    """Whole lines."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(True) if line.endswith("\n")]


def _environment(folder: Path) -> dict[str, str]:
    """Without a launcher's variables: each process is a run of one rank."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in launcher}
    return kept | {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "inductor"),  # for all sections
    }


def main() -> int:
    """0, 1 when something failed, 2 without the device or section that is asked for; goals that are
    missed are on the page alone."""
    try:
        settings = tyro.cli(Settings)
    except UserError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    if settings.device == "cuda" and not torch.cuda.is_available():
        print("gpu: no CUDA device; --device cpu --quick tries the logic alone", file=sys.stderr)
        return 2
    if settings.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    book = run(settings)
    print(book.page())
    print(f"wrote {settings.folder() / 'GPU.md'} and GPU.json")
    return 0 if book.holds() else 1


if __name__ == "__main__":
    sys.exit(main())
