"""Whole training steps on the device, in turns on one batch, eager and compiled: hnc_ds,
open_clip's and no engine. And the phases of a step."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from hnc_ds.config import ModelConfig
from hnc_ds.model.clip import forward_cost
from hnc_ds.model.load import load_model
from speed.made import drawn_captions
from speed.on_gpu.ground import GIB, Ground, Recorder, Row
from speed.on_gpu.steps import (
    NEGATIVES,
    NO_ENGINE,
    OURS,
    THEIRS,
    VARIANTS,
    Steps,
    largest,
    repeat,
)
from speed.phases import WHOLE, calls_by_phase, profiled, seconds_by_phase
from speed.timing import Table, Timing, alternate

STEP = "engine.step"


class Asked(NamedTuple):
    """What is trained."""

    model: str
    batches: tuple[int, ...]
    """The first that fits is taken."""


ON_CUDA = {
    "l14": Asked("ViT-L-14-336", (64, 32, 16, 8)),
    "b32": Asked("ViT-B-32", (512, 256, 128)),
    "b32 largest": Asked("ViT-B-32", (1024, 768)),
    "b32 alone": Asked("ViT-B-32", (4096, 2048, 1024)),
}
ON_CPU = {
    "l14": Asked("ViT-S-32", (4,)),
    "b32": Asked("ViT-S-32-alt", (8,)),
    "b32 largest": Asked("ViT-S-32-alt", (12,)),
    "b32 alone": Asked("ViT-S-32-alt", (16,)),
}
QUICK = dict.fromkeys(ON_CUDA, Asked("tiny", (8, 4)))

ROUNDS, TURN_SECONDS, WARM_UP = 5, 0.6, 3
COMPILING_SECONDS = 60.0
"""What compiling may take: not begun with less time left."""
PHASE_STEPS = 5
Seconds = dict[str, list[float]]
"""Of a step, by variant, one per turn."""


def asked(name: str, ground: Ground) -> Asked:
    """What is trained under a name, where it is trained."""
    return ground.pick(ON_CUDA, ON_CPU, QUICK)[name]


def measure(name: str, ground: Ground, recorder: Recorder) -> None:
    """Rows of a model at the batch that it is asked for, eager and compiled, and its phases."""
    model, batches = asked(name, ground)
    clip = load_model(ModelConfig(model=model), 0)
    captions = drawn_captions(ground.folder / f"speed-{model}", max(batches), NEGATIVES)
    cost = forward_cost(clip)
    steps = largest(clip, captions, batches, ground, VARIANTS)
    if steps is None:
        recorder.note(f"Not even a batch of {min(batches)} fits with gradient checkpointing.")
        return
    recorder.note(steps.summary())
    try:
        reach(f"{name} eager", compare(steps, model, cost, ground, recorder), steps, cost, recorder)
        with recorder.attempt(f"{model}, phases"):
            recorder.table(phases(steps, f"{model}, eager, ms", ground))
        with recorder.attempt(f"{model}, torch.compile"):
            _compiled(name, model, steps, cost, ground, recorder)
        with recorder.attempt(f"{model}, calls"):
            recorder.table(calls(name, steps, model, recorder))
    finally:
        steps.close()


def _compiled(
    name: str,
    model: str,
    steps: Steps,
    cost: tuple[float, float],
    ground: Ground,
    recorder: Recorder,
) -> None:
    if not ground.quick and ground.left() < COMPILING_SECONDS:
        recorder.note("torch.compile was left out: no time.")
        return
    recorder.note(f"Compiling, first steps included: {steps.compile(ground):.0f} s.")
    seconds = compare(steps, f"{model}, compiled", cost, ground, recorder)
    reach(f"{name} compiled", seconds, steps, cost, recorder)
    recorder.table(phases(steps, f"{model}, compiled, ms", ground))


def measure_largest(ground: Ground, recorder: Recorder) -> None:
    """A batch that only larger devices have room for, and hnc_ds alone at its largest."""
    model, batches = asked("b32 largest", ground)
    _, alone = asked("b32 alone", ground)
    clip = load_model(ModelConfig(model=model), 0)
    folder = ground.folder / f"largest-{model}"
    captions = drawn_captions(folder, max(*batches, *alone), NEGATIVES)
    cost = forward_cost(clip)
    steps = largest(clip, captions, batches, ground, VARIANTS, (False,))
    if steps is None:
        recorder.note(
            f"No batch of {min(batches)} for all: open_clip's step, or all together, has no room."
        )
    else:
        recorder.note(steps.summary())
        reach("b32 eager", compare(steps, model, cost, ground, recorder), steps, cost, recorder)
        steps.close()
    own = largest(clip, captions, alone, ground, (OURS,), (False,))
    if own is not None:
        compare(own, f"{model}, largest batch of its own", cost, ground, recorder)
        own.close()


def compare(
    steps: Steps, title: str, cost: tuple[float, float], ground: Ground, recorder: Recorder
) -> Seconds:
    """Time the implementations in turns and record a row of each."""
    for work in steps.works.values():
        repeat(work, ground.pick(WARM_UP, 1, 1), ground)
    slowest = max(repeat(work, 1, ground) for work in steps.works.values())
    times = max(1, round(ground.pick(TURN_SECONDS, 0.0, 0.0) / slowest))
    memory = {name: _memory_gib(steps, name, ground) for name in steps.works}
    turns = {name: partial(repeat, work, times, ground) for name, work in steps.works.items()}
    timings = alternate(turns, ground.pick(ROUNDS, 2, 2), _clock)
    seconds = {name: [t.wall / times for t in of_way] for name, of_way in timings.items()}
    for name in steps.works:
        recorder.row(
            Row(
                f"{title}: {name}",
                steps.batch,
                [steps.batch / s for s in seconds[name]],
                ratios(seconds, THEIRS, name),
                needed_tflops(steps, cost) / median(seconds[name]),
                memory[name],
                behind=_behind(seconds, name),
            )
        )
    return seconds


def ratios(seconds: Seconds, above: str, below: str) -> list[float] | None:
    """Seconds of one variant over those of another in the same turn; None where it is not there."""
    if above not in seconds or below not in seconds:
        return None
    return [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]


def _behind(seconds: Seconds, name: str) -> list[float] | None:
    longer = None if name == NO_ENGINE else ratios(seconds, name, NO_ENGINE)
    return longer and [ratio - 1 for ratio in longer]


def needed_tflops(steps: Steps, cost: tuple[float, float]) -> float:
    """10^12 operations that a step needs; see Row."""
    per_image, per_token = cost
    return 3 * (steps.batch * per_image + steps.tokens * per_token) / 1e12


def reach(
    goal: str, seconds: Seconds, steps: Steps, cost: tuple[float, float], recorder: Recorder
) -> None:
    """Recorder what goals compare: GOAL ahead (of open_clip's step), behind (no engine), tflops."""
    if ahead := ratios(seconds, THEIRS, OURS):
        recorder.reached(f"{goal} ahead", median(ahead))
    if behind := _behind(seconds, OURS):
        recorder.reached(f"{goal} behind", median(behind))
    recorder.reached(f"{goal} tflops", needed_tflops(steps, cost) / median(seconds[OURS]))


def phases(steps: Steps, title: str, ground: Ground) -> Table:
    """Milliseconds of a step's phases, the device being waited for around each."""
    found = {
        name: seconds_by_phase(
            steps.works[name],
            steps.variants[name].phases(),
            ground.wait,
            ground.pick(PHASE_STEPS, 2, 1),
        )
        for name in (OURS, NO_ENGINE)
    }
    columns = tuple(found[OURS])
    rows = {name: tuple(1e3 * by[column] for column in columns) for name, by in found.items()}
    return Table(title, columns, rows)


def calls(goal: str, steps: Steps, model: str, recorder: Recorder) -> Table:
    """Host calls and device synchronizations of one step; records the latter."""
    ground = steps.ground
    on_cuda = ground.device.type == "cuda"
    rows = {}
    for name in (OURS, NO_ENGINE):
        found = profiled(steps.works[name], steps.variants[name].phases(), ground.wait, on_cuda)
        by_phase = calls_by_phase(found, on_cuda)
        if name == OURS:
            recorder.reached(f"{goal} waits", by_phase[WHOLE].waits)
        rows[name] = (*map(float, by_phase[STEP]), *map(float, by_phase[WHOLE]))
    columns = (f"calls in {STEP}", f"waits in {STEP}", "calls", "waits")
    return Table(f"{model}, a step", columns, rows)


def _memory_gib(steps: Steps, name: str, ground: Ground) -> float | None:
    if ground.device.type != "cuda":
        return None
    ground.free()
    repeat(steps.works[name], 1, ground)
    return (ground.most_held() - steps.held_by_others(name)) / GIB


def _clock(turn: Callable[[], Any]) -> Timing:
    return Timing(turn(), 0.0)
