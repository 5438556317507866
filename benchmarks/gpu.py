"""Whole training steps on one CUDA device, unattended in less than eight minutes, no network.

    python benchmarks/gpu.py                         writes benchmarks/GPU.json and GPU.md
    python benchmarks/gpu.py --device cpu --quick    the same with the tiny model; no real numbers

Every section stands alone: one that fails or for which no time is left is told, and the others go
on. What is there is written after each. Random weights, bf16 with fp32 masters under ZeRO 1,
torch's fused AdamW; pictures and captions are made up, captions as long as HNC's.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find benchmarks and hnc_ds
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.gpu_steps import (
    LOSS_CASES,
    Measured,
    losses_fall,
    our_steps,
    packed_is_padded,
    peak_of_matmuls,
    slices_are_the_matrix,
    their_steps,
    with_real_data,
)
from benchmarks.machine import facts
from hnc_ds.errors import UserError
from hnc_ds.whole_files import write_whole

HERE = Path(__file__).parent
MODELS = {"ViT-B-32": (4096, 2048, 1024, 512, 256), "ViT-L-14-336": (512, 256, 128, 64, 32, 16)}
"""Models, and the batches that are tried, the largest first."""

LARGE = 4096
"""Batch that is taken in parts."""


@dataclass(frozen=True)
class Settings:
    """Measure training steps on a CUDA device."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu only tries the logic, with --quick."""

    quick: bool = False
    """Tiny model, few steps: whether it works, not how fast."""

    minutes: float = 7.5
    """After which nothing new is begun."""

    out: Path = HERE
    """Folder for GPU.json and GPU.md."""


@dataclass
class Page:
    """What was found so far, written after every section."""

    settings: Settings
    started: float = field(default_factory=time.monotonic)
    peak: float = float("nan")
    """Measured bf16 TFLOP/s."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def section(self, title: str, needs: float) -> Iterator[bool]:
        """Whether there is time for a section; what goes wrong in it is noted, not raised.

        Args:
            title: Of the section.
            needs: Minutes that it may take.
        """
        left = self.settings.minutes - (time.monotonic() - self.started) / 60
        if left < (0 if self.settings.quick and self.settings.minutes else needs):
            self.notes.append(f"{title}: left out, {left:.1f} minutes were left of {needs}")
            yield False
        else:
            print(f"{title} ...", flush=True)
            try:
                yield True
            except Exception as error:  # whatever it is, the other sections are worth having
                reason = (str(error).strip().splitlines() or [""])[0]
                self.notes.append(f"{title}: FAILED, {type(error).__name__}: {reason}")
        free_memory()
        self.write()

    def add(self, title: str, found: Measured) -> None:
        """A row of the table."""
        self.rows.append(
            {
                "what": title,
                "batch": found.batch,
                "samples_per_second": found.rate,
                "share_of_peak": found.tflops / self.peak,
                "memory_gib": found.memory_gib,
                "data_wait_share": found.waited,
            }
        )

    def write(self) -> None:
        """GPU.json and GPU.md."""
        self.settings.out.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": dict(facts()) | {"device": device_name(self.settings)},
            "quick": self.settings.quick,
            "peak_tflops": self.peak,
            "rows": self.rows,
            "notes": self.notes,
        }
        write_whole(self.settings.out / "GPU.json", (json.dumps(content, indent=1) + "\n").encode())
        write_whole(self.settings.out / "GPU.md", self._page().encode())

    def _page(self) -> str:
        head = (
            "# Speed on one CUDA device\n\nWritten by `python benchmarks/gpu.py`. "
            f"{device_name(self.settings)}, torch {torch.__version__}; measured bf16 peak of large "
            f"matrix products {self.peak:.0f} TFLOP/s. Share of peak: work of the real tokens and "
            "pictures, backward as twice the forward, over the whole step.\n"
        )
        if self.settings.quick:
            head += "\n**A quick run, to see that everything works: the numbers mean nothing.**\n"
        lines = [
            "| | batch | samples/s | share of peak | memory, GiB | waiting for data |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['what']} | {row['batch']} | {row['samples_per_second']:.1f} | "
                f"{row['share_of_peak']:.1%} | {row['memory_gib']:.1f} | "
                f"{row['data_wait_share']:.1%} |"
                for row in self.rows
            ),
        ]
        return head + "\n" + "\n".join(lines) + "\n\n" + "".join(f"* {n}\n" for n in self.notes)


def run(settings: Settings) -> Page:
    """Every section in turn."""
    page, device = Page(settings), torch.device(settings.device)
    with page.section("peak of matrix products", 0.3) as go:
        if go:
            page.peak = peak_of_matmuls(device, settings.quick)
    _checks(page, device)
    models = {"tiny": (16, 8)} if settings.quick else MODELS
    with tempfile.TemporaryDirectory(prefix="hnc_ds-gpu-") as folder:
        for model, batches in models.items():
            _steps(page, device, model, batches, Path(folder))
    page.write()
    return page


def _checks(page: Page, device: torch.device) -> None:
    """What only a CUDA device can show."""
    checks: dict[str, Callable[[], float]] = {
        "largest difference of packed from padded text, bf16 cosine": partial(
            packed_is_padded, device
        ),
        "loss after 20 steps of one batch over that before, bf16": partial(losses_fall, device),
    }
    for name, case in LOSS_CASES.items():
        title = f"loss in slices against the whole matrix, {name}"
        checks[title] = partial(slices_are_the_matrix, device, case)
    if device.type == "cuda":
        fp16 = partial(losses_fall, device, "fp16")
        checks["loss after 20 steps of one batch over that before, fp16"] = fp16
    for title, check in checks.items():
        with page.section(title, 0.3) as go:
            if go:
                page.notes.append(f"Checked: {title}: {check():.2g}")


def _steps(
    page: Page, device: torch.device, model: str, batches: tuple[int, ...], folder: Path
) -> None:
    """Ours with and without torch.compile, in parts, with real data; and the peer's."""
    quick, fits = page.settings.quick, [batches[-1]]

    def largest(title: str, needs: float, steps: Callable[[int], Measured]) -> None:
        with page.section(f"{model}, {title}", needs) as go:
            if go:
                found = first_that_fits(batches, steps)
                fits.append(found.batch)
                page.add(f"{model}, {title}", found)

    def same(title: str, needs: float, steps: Callable[[], Measured]) -> None:
        with page.section(f"{model}, {title}", needs) as go:
            if go:
                page.add(f"{model}, {title}", steps())

    ours = partial(our_steps, device, model, folder, quick)
    largest("hnc_ds", 0.8, ours)
    batch = fits[-1]
    half = max(1, batch // 2)
    same("open_clip's way", 0.8, partial(their_steps, device, model, folder, quick, half))
    same("hnc_ds at open_clip's batch", 0.5, partial(ours, half))
    same("hnc_ds, image tower compiled", 1.2, partial(ours, batch, compiled=True))
    parts = max(1, (32 if quick else LARGE) // batch)
    in_parts = partial(ours, batch * parts, parts=parts)
    same(f"hnc_ds, in {parts} parts", 0.8, in_parts)
    real = partial(with_real_data, device, model, folder, quick, batch)
    same("hnc_ds, shards from disk", 1.2, real)


def first_that_fits(batches: tuple[int, ...], steps: Callable[[int], Measured]) -> Measured:
    """The first batch that does not run out of memory.

    Raises:
        UserError: None of them fits.
    """
    for batch in batches:
        try:
            return steps(batch)
        except torch.OutOfMemoryError:
            pass  # outside of the handler, so that nothing keeps what was allocated
        free_memory()
    raise UserError(f"not even a batch of {batches[-1]} fits")


def free_memory() -> None:
    """Give back what earlier sections held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def device_name(settings: Settings) -> str:
    """As its maker calls it."""
    return torch.cuda.get_device_name() if settings.device == "cuda" else "CPU"


def main() -> int:
    """0, or 2 without the device that is asked for."""
    settings = tyro.cli(Settings)
    if settings.device == "cuda" and not torch.cuda.is_available():
        print("gpu: no CUDA device here; --device cpu --quick tries the logic", file=sys.stderr)
        return 2
    if settings.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    page = run(settings)
    print((page.settings.out / "GPU.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
