"""Decoding steps: masks, positions and state at fixed addresses, replayed as CUDA graphs.

A row of keys holds its image's prefix, then the questions, then an answer token of every question
for every step: [P | Q * L | Q | Q | ...]. Masks are additive: 0, or -inf for keys that are hidden.
A question sees the prefix, itself without its padding, and its own answer. Nothing here but the
capture of a graph synchronizes with the device.

With graphs Python does not launch each kernel. A step of a 7B model has about nine hundred: 7 ms of
GPU time, and 20 ms or more of Python. Capturing takes as long as several steps, so only recurring
shapes are captured. The first replay must give the same tokens as the step without a graph, else
graphs are switched off.

I images, Q slots of a row, L tokens of the longest question, N = Q * L, P tokens of the prefix,
K tokens of capacity, V words.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Forward = Callable[..., torch.Tensor]

HIDDEN = float("-inf")
ALIGNED = 8
"""Elements: attention on CUDA copies masks whose rows do not start at a multiple of it."""


def question_mask(
    used_IQ: torch.Tensor, length: int, prefix: int, dtype: torch.dtype
) -> torch.Tensor:
    """Additive mask [I, 1, N, P + N] of the questions' tokens.

    Padding sees the prefix: a fully masked row would give NaN.

    Args:
        used_IQ: Tokens of each question.
        length: L.
        prefix: P.
        dtype: The model's.
    """
    images, slots = used_IQ.shape
    device, count = used_IQ.device, slots * length
    token_N = torch.arange(count, device=device)
    slot_N, place_N = token_N // length, token_N % length
    own_NN = (slot_N[:, None] == slot_N) & (place_N[:, None] >= place_N)
    seen_INN = own_NN & _real(used_IQ, length)[:, None]
    columns = -(-(prefix + count) // ALIGNED) * ALIGNED
    mask = torch.zeros(images, 1, count, columns, dtype=dtype, device=device)
    mask = mask[..., : prefix + count]
    mask[..., prefix:].masked_fill_(~seen_INN[:, None], HIDDEN)
    return mask


def _real(used_IQ: torch.Tensor, length: int) -> torch.Tensor:
    """Boolean mask [I, N] of the tokens that are not padding."""
    place_L = torch.arange(length, device=used_IQ.device)
    return (place_L >= length - used_IQ[:, :, None]).flatten(1)


def question_positions(used_IQ: torch.Tensor, length: int, prefix: int) -> torch.Tensor:
    """Position ids [I, N] of the questions' tokens, each question directly after the prefix.

    Args:
        used_IQ: Tokens of each question.
        length: L.
        prefix: P.
    """
    place_L = torch.arange(length, device=used_IQ.device)
    place_IQL = place_L - (length - used_IQ[:, :, None])
    return prefix + place_IQL.clamp_min(0).flatten(1)


@dataclass(frozen=True)
class DecodingState:
    """Tensors that a step reads and changes in place."""

    ids_IQ: torch.Tensor
    """Input tokens."""
    position_IQ: torch.Tensor
    """Their position ids."""
    place_Q: torch.Tensor
    """Their indices in a row of keys."""
    mask_I1QK: torch.Tensor
    """Their additive mask."""
    own_1QQ: torch.Tensor
    """The columns of the mask that a step adds."""

    @classmethod
    def empty(
        cls, images: int, slots: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> "DecodingState":
        """Allocate the tensors of a shape; ``start`` fills them."""
        whole = torch.int64
        own_QQ = torch.full((slots, slots), HIDDEN, dtype=dtype, device=device)
        return cls(
            torch.zeros(images, slots, dtype=whole, device=device),
            torch.zeros(images, slots, dtype=whole, device=device),
            torch.zeros(slots, dtype=whole, device=device),
            torch.zeros(images, 1, slots, capacity, dtype=dtype, device=device),
            own_QQ.fill_diagonal_(0.0)[None],
        )

    def start(
        self, token_IQ: torch.Tensor, used_IQ: torch.Tensor, length: int, prefix: int
    ) -> None:
        """Set the state before the first step.

        Args:
            token_IQ: The first token of each answer.
            used_IQ: Tokens of each question.
            length: L.
            prefix: P.
        """
        slots = used_IQ.shape[1]
        end = prefix + slots * length
        slot_Q = torch.arange(slots, device=used_IQ.device)
        self.ids_IQ.copy_(token_IQ)
        self.position_IQ.copy_(used_IQ).add_(prefix)
        self.place_Q.copy_(slot_Q).add_(end)
        own_QN = slot_Q[:, None] == slot_Q.repeat_interleave(length, output_size=slots * length)
        seen_IQN = own_QN & _real(used_IQ, length)[:, None]
        self.mask_I1QK[..., :prefix].zero_()
        self.mask_I1QK[..., prefix:].fill_(HIDDEN)
        self.mask_I1QK[..., prefix:end].masked_fill_(seen_IQN[:, None], 0.0)

    def copy_from(self, other: "DecodingState", kept: torch.Tensor | None) -> None:
        """Copy the state of another shape.

        Args:
            other: State with more images, or less capacity.
            kept: int64 indices of its rows to copy, on the device; None for all.
        """
        pairs = [
            (self.ids_IQ, other.ids_IQ),
            (self.position_IQ, other.position_IQ),
            (self.mask_I1QK[..., : other.mask_I1QK.shape[3]], other.mask_I1QK),
        ]
        self.mask_I1QK.fill_(HIDDEN)
        for mine, theirs in pairs:
            mine.copy_(theirs if kept is None else theirs.index_select(0, kept))
        self.place_Q.copy_(other.place_Q)

    def advance(self, forward: Forward, cache: Any, visible: int) -> torch.Tensor:
        """Compute the next token of each answer; NO_TOKEN where logits are not finite.

        Args:
            forward: Maps token ids, mask and positions to logits.
            cache: The SharedCache.
            visible: Number of keys that attention reads, this step's included.
        """
        images, _, slots, _ = self.mask_I1QK.shape
        own_I1QQ = self.own_1QQ.expand(images, 1, slots, slots)
        self.mask_I1QK.index_copy_(3, self.place_Q, own_I1QQ)
        cache.write_at(self.place_Q, visible)
        mask = self.mask_I1QK[..., :visible]
        logits_IQV = forward(self.ids_IQ, mask, self.position_IQ)
        self.place_Q.add_(slots)
        self.position_IQ.add_(1)
        token_IQ = logits_IQV.argmax(dim=2)
        self.ids_IQ.copy_(token_IQ)
        return checked_tokens(logits_IQV, token_IQ)


NO_TOKEN = -1
"""Stands for a token whose logits are not finite."""


def checked_tokens(logits_IQV: torch.Tensor, token_IQ: torch.Tensor) -> torch.Tensor:
    """Tokens [I, Q], NO_TOKEN where the logits are not finite."""
    return token_IQ.masked_fill(~logits_IQV.isfinite().all(dim=2), NO_TOKEN)


CAPTURED_AFTER = 6
"""Steps of a shape before its graph is captured."""


@dataclass(frozen=True)
class _Captured:
    graph: Any
    report_IQ: torch.Tensor
    """Result of the step; each replay overwrites it."""


class StepGraphs:
    """A CUDA graph for each shape."""

    def __init__(self) -> None:
        self._captured: dict[int, _Captured] = {}
        self._met: Counter[int] = Counter()
        self._pool: Any = None
        self._version = -1
        self._usable = True

    def forget(self) -> None:
        """Free all graphs."""
        self._captured.clear()
        self._met.clear()
        self._pool = None

    def advance(self, steps: DecodingState, forward: Forward, cache: Any) -> torch.Tensor:
        """``steps.advance`` over the full capacity; unwritten keys are masked.

        Args:
            steps: State tensors at fixed addresses.
            forward: As in ``steps.advance``.
            cache: As in ``steps.advance``.
        """
        if cache.version != self._version:  # graphs hold old addresses
            self.forget()
            self._version = cache.version
        found = self._captured.get(id(steps))
        if found is not None:
            cache.write_at(steps.place_Q, cache.capacity)
            found.graph.replay()
            return found.report_IQ
        self._met[id(steps)] += 1
        if not self._usable or self._met[id(steps)] <= CAPTURED_AFTER:
            return steps.advance(forward, cache, cache.capacity)
        return self._captured_now(steps, forward, cache)

    def _captured_now(self, steps: DecodingState, forward: Forward, cache: Any) -> torch.Tensor:
        """Do a step without a graph, capture it, and compare its replay."""
        changed = (steps.ids_IQ, steps.position_IQ, steps.place_Q)
        before = [tensor.clone() for tensor in changed]
        expected_IQ = steps.advance(forward, cache, cache.capacity)
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

    def _capture(self, steps: DecodingState, forward: Forward, cache: Any) -> _Captured:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            report_IQ = steps.advance(forward, cache, cache.capacity)
        return _Captured(graph, report_IQ)

    def _give_up(self, why: str) -> None:
        self._usable = False
        self.forget()
        print(f"answer: continues without CUDA graphs ({why})")


def _restore(tensors: tuple[torch.Tensor, ...], values: list[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
