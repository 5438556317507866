"""torch's profile of hnc_ds's step: kernels by time on the device, operations by the host's."""

from functools import partial
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]

from hnc_ds.config import ModelConfig
from hnc_ds.model.load import load_model
from speed.made import drawn_captions, made_batch
from speed.on_gpu.ground import Ground, Recorder
from speed.on_gpu.speed import asked
from speed.on_gpu.steps import NEGATIVES, backend, repeat
from speed.phases import MARK, Calls, calls_by_phase, profiled
from speed.timing import Table
from speed.variants import Ours, shipped

STEPS = 2
KERNELS, OPERATIONS, NAME = 20, 15, 90
"""Lines of both tables, and characters of a name."""


def measure(ground: Ground, recorder: Recorder) -> None:
    """Both models under ZeRO 1 in bf16, eager and compiled."""
    for name in ("l14", "b32"):
        model, (batch, *_) = asked(name, ground)
        with recorder.attempt(model):
            _of_model(model, batch, ground, recorder)
        ground.free()


def _of_model(model: str, batch: int, ground: Ground, recorder: Recorder) -> None:
    clip = load_model(ModelConfig(model=model), 0)
    captions = drawn_captions(ground.folder / f"profile-{model}", batch, NEGATIVES)
    rows = made_batch(clip, captions, range(batch)).to(ground.device)
    ours = Ours(clip, shipped("zero1_bf16", train_batch_size=batch), all_negatives=True)
    try:
        for title in (model, f"{model}, compiled"):
            if title != model:
                ours.compile(backend(ground))
            repeat(partial(ours.step, rows), 3, ground)
            _record_profile(
                f"{title}, batch {batch}", ours, partial(ours.step, rows), ground, recorder
            )
    finally:
        ours.close()


def _record_profile(title: str, ours: Ours, step: Any, ground: Ground, recorder: Recorder) -> None:
    on_cuda = ground.device.type == "cuda"
    wall = repeat(step, STEPS, ground) / STEPS
    found = profiled(step, ours.phases(), ground.wait, on_cuda, STEPS)
    averages = [k for k in found.key_averages() if not k.key.startswith(MARK)]
    if on_cuda:
        kernels = [k for k in averages if k.device_type == DeviceType.CUDA and not _is_mark(k)]
        busy = sum(k.self_device_time_total for k in kernels) / STEPS / 1e3
        recorder.note(
            f"{title}: the device is busy for {busy:.1f} of a step's {1e3 * wall:.1f} ms."
        )
        recorder.table(_top(f"{title}: kernels", kernels, "self_device_time_total", KERNELS))
    host = [k for k in averages if k.device_type == DeviceType.CPU]
    recorder.table(_top(f"{title}: host", host, "self_cpu_time_total", OPERATIONS))
    rows = {phase: _per_step(calls) for phase, calls in calls_by_phase(found, on_cuda).items()}
    recorder.table(Table(f"{title}: calls of a step", ("calls", "waits"), rows))


def _is_mark(average: Any) -> bool:
    """Whether it is a span that Python has named, and no kernel."""
    return bool(getattr(average, "is_user_annotation", False)) or "#" in average.key


def _per_step(calls: Calls) -> tuple[float, float]:
    return calls.aten / STEPS, calls.waits / STEPS


def _top(title: str, averages: list[Any], by: str, count: int) -> Table:
    """Those that take longest, with milliseconds and calls of a step."""
    top = sorted(averages, key=lambda average: float(getattr(average, by)), reverse=True)[:count]
    rows = {
        f"{number}. {_named(average.key)}": (
            getattr(average, by) / STEPS / 1e3,
            average.count / STEPS,
        )
        for number, average in enumerate(top, 1)  # names that are cut short may be equal
    }
    return Table(title, ("ms", "times"), rows)


def _named(key: str) -> str:
    """Fit for a cell."""
    return f"`{key[:NAME].replace('|', '/').replace('`', '')}`"
