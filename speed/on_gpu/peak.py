"""The card's peak: bf16 matrix products of several large shapes, the best of them."""

import time
from collections.abc import Callable

import torch

from speed.on_gpu.ground import Ground, Recorder

SHAPES = (
    (4096, 4096, 4096),
    (8192, 8192, 8192),
    (16384, 8192, 8192),
    (8192, 4096, 16384),
    (16384, 16384, 16384),
)
"""Rows, columns, and what is summed over."""
CPU_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048))
QUICK_SHAPES = ((256, 256, 256),)
SECONDS, QUICK_SECONDS = 0.8, 0.02
"""For each shape: long enough for the clock that the card can hold, not the first moment's."""


def measure(ground: Ground, recorder: Recorder) -> None:
    """Record the peak as a fact, in 10^12 operations a second."""
    shapes = ground.pick(SHAPES, CPU_SHAPES, QUICK_SHAPES)
    found = {shape: _tflops(ground, *shape) for shape in shapes}
    best = max(found, key=lambda shape: found[shape])
    recorder.fact("peak_tflops", found[best])
    measured = ", ".join(f"{'x'.join(map(str, shape))} {found[shape]:.4g}" for shape in found)
    recorder.note(f"bf16, 10^12 operations/s by rows x columns x summed: {measured}.")


def _tflops(ground: Ground, rows: int, columns: int, summed: int) -> float:
    a = torch.randn((rows, summed), device=ground.device).bfloat16()
    b = torch.randn((summed, columns), device=ground.device).bfloat16()
    out = torch.empty((rows, columns), device=ground.device, dtype=torch.bfloat16)

    def work(times: int) -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    work(3)
    once = seconds(ground, lambda: work(3)) / 3
    times = max(1, round((QUICK_SECONDS if ground.quick else SECONDS) / once))
    return 2 * rows * columns * summed * times / seconds(ground, lambda: work(times)) / 1e12


def seconds(ground: Ground, work: Callable[[], object]) -> float:
    """What work takes on the device, by its own clock where it has one."""
    if ground.device.type != "cuda":
        before = time.perf_counter()
        work()
        return time.perf_counter() - before
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    ground.wait()
    start.record()
    work()
    end.record()
    ground.wait()
    return float(start.elapsed_time(end)) / 1e3
