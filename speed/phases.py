"""Where a training step's time goes: its phases, the calls that the host makes in each, and how
often it waits for the device. Knows nothing of what a step is.

A phase is a method that a step calls once, given as (object, name of the method).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

Work = Callable[[], object]
Wait = Callable[[], None]
"""Until the device has done what it was given."""

WHOLE = "the whole step"
MARK = "phase: "
CUDA_WAITS = frozenset(
    ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
)
"""Calls of CUDA's runtime in which the host waits."""
CPU_WAITS = frozenset(
    (
        "aten::_local_scalar_dense",  # float(), int(), bool(), item() and tolist() of a tensor
        "aten::nonzero",  # an index of booleans as well
        "aten::masked_select",
        "aten::equal",
        "aten::unique_consecutive",
        "aten::unique_dim",
        "aten::_unique2",
    )
)
"""Calls that would wait for a device if their tensors lay there. On a CPU that is unknown,
so that their number is the most that there can be."""


class Calls(NamedTuple):
    """What the host does in a phase."""

    aten: int
    """Operations of torch that no other operation has called."""
    waits: int
    """See CUDA_WAITS and CPU_WAITS."""


def seconds_by_phase(
    step: Work, phases: Mapping[str, tuple[Any, str]], wait: Wait, times: int
) -> dict[str, float]:
    """Medians over some steps, the device being waited for around each phase, and the whole's.

    Args:
        step: Done ``times`` times, after one that does not count.
        phases: Of the step.
        wait: For the device.
        times: Steps.
    """
    taken: dict[str, list[float]] = {name: [] for name in (*phases, WHOLE)}

    @contextmanager
    def clocked(name: str) -> Iterator[None]:
        wait()
        before = time.perf_counter()
        yield
        wait()
        taken[name].append(time.perf_counter() - before)

    with within(phases, clocked):
        for _ in range(1 + times):
            with clocked(WHOLE):
                step()
    return {name: median(seconds[1:]) for name, seconds in taken.items()}


@contextmanager
def within(phases: Mapping[str, tuple[Any, str]], around: Any) -> Iterator[None]:
    """Have the phases run within ``around(name)``, a context manager, for a while."""
    kept = {name: getattr(holder, method) for name, (holder, method) in phases.items()}

    def wrapped(name: str) -> Callable[..., Any]:
        def run(*inputs: Any, **options: Any) -> Any:
            with around(name):
                return kept[name](*inputs, **options)

        return run

    own = {name: vars(holder).get(method) for name, (holder, method) in phases.items()}
    for name, (holder, method) in phases.items():
        setattr(holder, method, wrapped(name))
    try:
        yield
    finally:
        for name, (holder, method) in phases.items():
            if own[name] is None:
                delattr(holder, method)
            else:
                setattr(holder, method, own[name])


def profiled(
    step: Work, phases: Mapping[str, tuple[Any, str]], wait: Wait, on_cuda: bool, times: int = 1
) -> profile:
    """torch's profile of some steps whose phases are marked in it.

    Args:
        step: Done before by whoever calls, so that nothing is done for the first time.
        phases: Of the step.
        wait: For the device.
        on_cuda: Whether its kernels are wanted.
        times: Steps.
    """
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_cuda]
    wait()
    with (
        within(phases, lambda name: record_function(MARK + name)),
        profile(activities=activities) as found,
    ):
        for _ in range(times):
            with record_function(MARK + WHOLE):
                step()
        wait()
    return found


def calls_by_phase(found: profile, on_cuda: bool) -> dict[str, Calls]:
    """Calls of each phase, and of the whole, in all the steps of a profile."""
    events = list(found.events() or ())
    names = CUDA_WAITS if on_cuda else CPU_WAITS
    operations = [event.time_range.start for event in events if _is_outermost(event)]
    waits = [e.time_range.start for e in events if e.name in names and not _is_of_cpu_only(e)]
    calls: dict[str, Calls] = {}
    for event in events:
        if event.name.startswith(MARK) and event.device_type == DeviceType.CPU:
            name, span = event.name.removeprefix(MARK), event.time_range
            before = calls.get(name, Calls(0, 0))
            counts = (sum(span.start <= s <= span.end for s in of) for of in (operations, waits))
            calls[name] = Calls(*map(sum, zip(before, counts, strict=True)))
    whole = {WHOLE: calls.pop(WHOLE)} if WHOLE in calls else {}
    return calls | whole


def _is_of_cpu_only(event: Any) -> bool:
    """Whether a fused optimizer's kernel for CPUs has called it, which a device's does not."""
    while event is not None and not event.name.startswith("aten::_fused_"):
        event = event.cpu_parent
    return event is not None


def _is_outermost(event: Any) -> bool:
    """Whether it is an operation of torch that none other has called."""
    parent = event.cpu_parent
    return event.name.startswith("aten::") and not (
        parent is not None and parent.name.startswith("aten::")
    )
