"""What the engine does after the backward pass, on one rank: its time, the calls of the host, and
how often the host waits for the device; beside the same work without an engine.

    python speed/engine_step.py                               ViT-B-32 under zero1_bf16
    python speed/engine_step.py --model ViT-L-14 --deepspeed_config zero2_bf16
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro

from hnc_ds.config import ModelConfig
from hnc_ds.model.load import load_model
from speed.made import drawn_captions, made_batch
from speed.phases import WHOLE, Calls, calls_by_phase, profiled, within
from speed.timing import Check, Comparison, Table, Timing, alternate
from speed.variants import NoEngine, Ours, shipped

OURS, NO_ENGINE = "hnc_ds", "no engine"
STEP, NEGATIVES, BATCH = "engine.step", 4, 4
BETWEEN = "outside forward and backward"
MOST_WAITS = 1
"""Of the host for the device, a step of the engine."""
ROUNDED = 0.01
"""What the losses may differ by, as a share; bf16 has 8 bits."""


@dataclass(frozen=True)
class Settings:
    """Measure the engine's step."""

    model: str = "ViT-B-32"
    """open_clip's name."""

    deepspeed_config: str = "zero1_bf16"
    """Name of a shipped file, or a path."""

    steps: int = 7
    """Of each, in turns."""

    threads: int = 1
    """Of torch, on a CPU."""


class Watched:
    """Steps of one implementation, whose phases can be looked at.

    Args:
        steps: The implementation.
        batch: What it steps on.
    """

    def __init__(self, steps: Ours | NoEngine, batch: Any) -> None:
        self._steps, self._device = steps, batch.images_B3RR.device
        self.step = partial(steps.step, batch)
        self.whole: list[float] = []
        """Seconds of each turn, forward and backward included."""

    def turn(self) -> Timing:
        """A whole step; what the part behind the backward pass took."""
        taken: list[Timing] = []

        @contextmanager
        def clocked(_: str) -> Iterator[None]:
            self.wait()
            wall, cpu = time.perf_counter(), time.process_time()
            yield
            self.wait()
            taken.append(Timing(time.perf_counter() - wall, time.process_time() - cpu))

        before = time.perf_counter()
        with within({STEP: self._steps.phases()[STEP]}, clocked):
            self.step()
        self.whole.append(time.perf_counter() - before)
        return taken[0]

    def calls(self) -> dict[str, Calls]:
        """Of one step, by phase; what is neither forward nor backward under BETWEEN."""
        on_cuda = self._device.type == "cuda"
        found = profiled(self.step, self._steps.phases(), self.wait, on_cuda)
        calls = calls_by_phase(found, on_cuda)
        others = zip(calls[WHOLE], calls["forward"], calls["backward"], strict=True)
        return calls | {BETWEEN: Calls(*(all_ - a - b for all_, a, b in others))}

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def measure(folder: Path, quick: bool) -> Comparison:
    """Seconds of the engine's step."""
    torch.set_num_threads(1)
    model, rounds = ("tiny", 2) if quick else ("ViT-B-32", 5)
    return compared(folder, model, "zero1_bf16", rounds)


def compared(folder: Path, model: str, deepspeed_config: str, rounds: int) -> Comparison:
    """The engine's step and its counterpart without an engine, in turns."""
    variants = made(folder, model, deepspeed_config)
    first, other = (float(variant.step()) for variant in variants.values())
    timings = alternate({name: variant.turn for name, variant in variants.items()}, rounds, _report)
    calls = {name: variant.calls() for name, variant in variants.items()}
    of_step = {
        name: (
            1e3 * median(timing.wall for timing in timings[name]),
            1e3 * median(timing.cpu for timing in timings[name]),
            1e3 * median(variant.whole[1:]),
            *calls[name][STEP],
            *calls[name][BETWEEN],
            calls[name]["backward"].aten,
        )
        for name, variant in variants.items()
    }
    columns = (
        f"ms of {STEP}",
        f"CPU ms of {STEP}",
        "ms of the step",
        f"calls in {STEP}",
        f"waits in {STEP}",
        f"calls {BETWEEN}",
        f"waits {BETWEEN}",
        "calls in backward",
    )
    return Comparison(
        clock="cpu",
        baseline=NO_ENGINE,
        timings=timings,
        checks=(
            Check(f"host waits in {STEP}", calls[OURS][STEP].waits, MOST_WAITS),
            Check("difference of the first losses, as a share", abs(first / other - 1), ROUNDED),
        ),
        notes=(
            f"{model} under {deepspeed_config}, one rank, batch {BATCH}; {STEP} is what comes "
            "after the backward pass: norm, clipping, AdamW, new weights.",
            "No engine: weights, gradients and moments in one precision, clip_grad_norm_ and "
            "torch's fused AdamW; in bf16 it has no fp32 weights and moments to read and write.",
            "Calls are torch's operations that no other operation calls. Waits on a CPU are calls "
            "that would wait if their tensors lay on a device: the most there can be.",
        ),
        tables=(Table("one step", columns, of_step),),
    )


def made(folder: Path, model: str, deepspeed_config: str) -> dict[str, Watched]:
    """Both, of the same start weights and batch."""
    clip = load_model(ModelConfig(model=model), 0)
    captions = drawn_captions(folder / "engine", BATCH, NEGATIVES)
    batch = made_batch(clip, captions, range(BATCH))
    config = shipped(deepspeed_config, train_batch_size=BATCH)
    dtype = torch.bfloat16 if config.get("bf16", {}).get("enabled") else torch.float32
    ours = Ours(clip, config, all_negatives=True)
    device = ours.engine.device
    other = load_model(ModelConfig(model=model), 0)
    without = NoEngine(other, device, dtype, all_negatives=True)
    on_device = batch.to(device)
    return {OURS: Watched(ours, on_device), NO_ENGINE: Watched(without, on_device)}


def _report(turn: Any) -> Timing:
    """``turn`` has its own clock."""
    timing: Timing = turn()
    return timing


def main() -> None:
    """Print what was found."""
    settings = tyro.cli(Settings)
    torch.set_num_threads(settings.threads)
    with TemporaryDirectory(prefix="hnc_ds-bench-") as folder:
        found = compared(Path(folder), settings.model, settings.deepspeed_config, settings.steps)
    (table,) = found.tables
    for name, numbers in table.rows.items():
        print(f"{name}: {settings.model}, {settings.deepspeed_config}")
        for column, number in zip(table.columns, numbers, strict=True):
            print(f"  {column:44} {number:10.1f}")


if __name__ == "__main__":
    main()
