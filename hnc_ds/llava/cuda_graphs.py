"""Steps of decoding replayed as CUDA graphs, so that Python does not launch each kernel.

A step of a 7B model is some nine hundred kernels: seven milliseconds of the device's work, and
twenty or more of Python's. A graph is captured for shapes that come again and again, as that takes
as long as several steps. Its first replay must give the tokens of the same step without a graph,
else none is used any more.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from hnc_ds.llava.decoding import Forward, Steps

CAPTURED_AFTER = 6
"""Steps of a shape."""


@dataclass(frozen=True)
class _Captured:
    graph: Any
    report_IQ: torch.Tensor
    """What the step returns, where each replay writes it."""


class StepGraphs:
    """A graph for each shape."""

    def __init__(self) -> None:
        self._captured: dict[int, _Captured] = {}
        self._met: Counter[int] = Counter()
        self._pool: Any = None
        self._version = -1
        self._usable = True

    def forget(self) -> None:
        """Free what graphs hold; they are captured again."""
        self._captured.clear()
        self._met.clear()
        self._pool = None

    def advance(self, steps: Steps, forward: Forward, cache: Any) -> torch.Tensor:
        """As ``steps.advance`` with all room visible: what is not written yet is masked.

        Args:
            steps: One of a generator's, which it keeps.
            forward: As there.
            cache: As there.
        """
        if cache.version != self._version:  # graphs hold the old addresses
            self.forget()
            self._version = cache.version
        found = self._captured.get(id(steps))
        if found is not None:
            cache.write_at(steps.place_Q, cache.room)
            found.graph.replay()
            return found.report_IQ
        self._met[id(steps)] += 1
        if not self._usable or self._met[id(steps)] <= CAPTURED_AFTER:
            return steps.advance(forward, cache, cache.room)
        return self._captured_now(steps, forward, cache)

    def _captured_now(self, steps: Steps, forward: Forward, cache: Any) -> torch.Tensor:
        """Do a step without a graph, capture it, and see whether its replay does the same."""
        changed = (steps.ids_IQ, steps.position_IQ, steps.place_Q)
        before = [tensor.clone() for tensor in changed]
        expected_IQ = steps.advance(forward, cache, cache.room)
        after = [tensor.clone() for tensor in changed]
        try:
            captured = self._capture(steps, forward, cache)
            _restore(changed, before)
            captured.graph.replay()
            same = torch.equal(captured.report_IQ, expected_IQ)
        except RuntimeError as error:
            self._give_up(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        else:
            if same:
                self._captured[id(steps)] = captured
            else:
                self._give_up("a replayed step gave other tokens")
        _restore(changed, after)
        return expected_IQ

    def _capture(self, steps: Steps, forward: Forward, cache: Any) -> _Captured:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            report_IQ = steps.advance(forward, cache, cache.room)
        return _Captured(graph, report_IQ)

    def _give_up(self, why: str) -> None:
        self._usable = False
        self.forget()
        print(f"answer: goes on without CUDA graphs ({why})")


def _restore(tensors: tuple[torch.Tensor, ...], values: list[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
