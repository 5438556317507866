"""The optimizer step of ZeRO 1 and 2 on whole stretches of memory, not parameter by parameter.

DeepSpeed's own step looks at every gradient for overflow and norm, copies it, and sets every
parameter's storage anew: hundreds of small kernels and several waits for the device. Here a group
of parameters has one gradient, its norm is one kernel, and whether it is finite is decided by the
fused optimizer on the device. Partitions, the loss scaler and the gathering of weights stay
DeepSpeed's. Knows its attributes, but imports nothing of it.

Source: ZeRO (Rajbhandari et al. 2020); gradients as views of one buffer as in torch's
DistributedDataParallel (gradient_as_bucket_view).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from hnc_ds.distributed import Sent, add_up, gather_parts, rank, sum_at, world_size

Change = Callable[[torch.Tensor, torch.Tensor], None]
"""Adds to an fp32 gradient, given it and the weights that it is of."""


class FlatStep:
    """Takes the place of the step of DeepSpeed's ZeRO 1 or 2 optimizer, and in ZeRO 1 of its
    reduction of gradients.

    Args:
        zero: DeepSpeed's optimizer, just made.
        overlaps: Whether gradients travel while others are still computed.
    """

    def __init__(self, zero: Any, overlaps: bool) -> None:
        self._zero, self._masters = zero, zero.single_partition_of_fp32_groups
        self.unsound = torch.zeros(1, device=self._masters[0].device)
        """1 where the gradient of the last step was not finite, equal on all ranks."""
        self.change: Change | None = None
        """What is added to the gradient before it is clipped."""
        self._leaves_out = getattr(zero.optimizer, "_step_supports_amp_scaling", False)
        self.gradients: FlatGradients | None = None
        if not zero.partition_gradients and _sends_gradients_as_they_are(zero):
            self.gradients = FlatGradients(zero, overlaps)
        zero.step = self._step

    @torch.no_grad()
    def _step(self, closure: None = None) -> None:
        zero, scale = self._zero, float(self._zero.loss_scale)
        gradients = [self._gradient(group) for group in range(len(self._masters))]
        norm = _norm(gradients) / scale
        self.unsound = (~norm.isfinite()).float()
        zero.overflow = self._has_to_look() and bool(self.unsound)
        zero._update_scale(zero.overflow)  # of fp16; the others have none
        zero._global_grad_norm = norm
        if not zero.overflow:
            self._update(gradients, 1 / (scale * _excess(norm, zero.clip_grad)))
        for group in zero.averaged_gradients:
            zero.averaged_gradients[group] = zero.all_grad_tensors[group] = None

    def _has_to_look(self) -> bool:
        """Whether the host must know if a step counts, and wait for it: for the loss scale, or
        where an optimizer cannot leave out a step by itself, as torch's fused ones can."""
        return self._zero.dtype == torch.float16 or not self._leaves_out

    def _gradient(self, group: int) -> torch.Tensor:
        """Averaged gradient of this rank's weights of a group, flat, times the loss scale."""
        zero = self._zero
        found: torch.Tensor | None
        if self.gradients is not None:
            found = self.gradients.own[group]
        else:
            parts = zero.averaged_gradients[group]
            found = getattr(parts, "flat_partition", None)
        if found is None:  # ZeRO 2 that adds up in the weights' own precision
            found = zero.flatten_dense_tensors_aligned(parts, int(zero.partition_size[group]))
        assert found is not None
        if self.change is None:
            return found
        wide = found.to(torch.float32, copy=True)
        self.change(wide, self._masters[group])
        return wide

    def _update(self, gradients: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
        zero, optimizer = self._zero, self._zero.optimizer
        for master, gradient in zip(self._masters, gradients, strict=True):
            master.grad = _times(gradient, factor).to(master.dtype)
        if self._leaves_out:
            optimizer.found_inf = self.unsound[0]
        optimizer.step()
        for group, master in enumerate(self._masters):
            master.grad = None
            own = zero.parallel_partitioned_bit16_groups[group][rank()]
            own.copy_(master)
            gather_parts(zero.bit16_groups_flat[group], own)


def _sends_gradients_as_they_are(zero: Any) -> bool:
    """Whether no setting asks for sums in another precision, or divided at another place."""
    own = zero.dtype
    as_they_are = own == zero.communication_data_type == zero.gradient_accumulation_dtype
    return bool(as_they_are and zero.postscale_gradients and zero.gradient_predivide_factor == 1)


def _norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of the gradients of all ranks together, one element."""
    norms = [torch.linalg.vector_norm(part, dtype=torch.float32) for part in gradients]
    squares = torch.stack(norms).square().sum(dim=0, keepdim=True)
    add_up(squares)
    return squares.sqrt()


def _times(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """In fp32: one kernel of a device; a CPU is quicker in two."""
    return gradient * factor if gradient.is_cuda else gradient.float().mul_(factor)


def _excess(norm: torch.Tensor, most: float) -> torch.Tensor:
    """How many times a gradient is too long; 1 where it is not, or where nothing is clipped."""
    return ((norm + 1e-6) / most).clamp(min=1) if most > 0 else torch.ones_like(norm)


def flatten_stage_3(zero: Any) -> None:
    """Let ZeRO 3 take norms and gradients from the one buffer that it keeps them in, where it would
    go through parameters.

    Args:
        zero: DeepSpeed's optimizer, just made.
    """
    sizes = [int(size) for size in zero.fp16_partitioned_groups_flat_numel]

    def gradients() -> Sequence[torch.Tensor]:
        found: Sequence[torch.Tensor] = zero.grad_partitions_flat_buffer.split(sizes)
        return found

    def prepare(group: int) -> None:
        master = zero.fp32_partitioned_groups_flat[group]
        master.grad = gradients()[group].to(master.dtype)
        zero.averaged_gradients[group] = None

    zero._get_norm_groups = lambda: [_norm(gradients())[0]]
    zero._prepare_fp32_grad_for_sub_group = prepare


class _Bucket(NamedTuple):
    """A stretch of a group's gradient that is reduced at once."""

    gradient: torch.Tensor
    parts: tuple[tuple[int, torch.Tensor], ...]
    """(rank whose it is, stretch of the gradient)."""
    parameters: int


class FlatGradients:
    """One gradient a group in ZeRO 1, of which every parameter's is a view.

    The backward pass adds to it; nothing is copied. Ranks sum up buckets of it in one order, each
    part at the rank that updates it.

    Args:
        zero: DeepSpeed's optimizer, whose own hooks are taken off.
        overlaps: Whether a bucket is sent as soon as it is complete.
    """

    def __init__(self, zero: Any, overlaps: bool) -> None:
        self._zero, self._sent = zero, list[Sent]()
        self._groups = [torch.zeros_like(flat) for flat in zero.bit16_groups_flat]
        self.own = [
            flat.narrow(0, rank() * int(size), int(size))
            for flat, size in zip(self._groups, zero.partition_size, strict=True)
        ]
        """This rank's part of each group's."""
        for hook in zero._grad_acc_hooks:
            hook.remove()
        zero._grad_acc_hooks = []
        zero.reduce_gradients, zero.zero_grad = self._reduce, self._clear
        self._buckets = list[_Bucket]()
        self._missing = list[int]()
        for group in range(len(self._groups)):
            self._divide(group, hooked=overlaps and world_size() > 1)
        self._start()

    def _divide(self, group: int, hooked: bool) -> None:
        """Give parameters their views, the last first, as the backward pass comes to them."""
        zero, flat = self._zero, self._groups[group]
        stop, count = len(flat), 0
        pairs = zip(
            zero.round_robin_bit16_groups[group], zero.round_robin_bit16_offsets[group], strict=True
        )
        for parameter, start in reversed(list(pairs)):
            parameter.grad = flat.narrow(0, start, parameter.numel()).view_as(parameter)
            if hooked:
                arrived = partial(self._arrived, len(self._buckets))
                zero._grad_acc_hooks.append(parameter.register_post_accumulate_grad_hook(arrived))
            count += 1
            if start == 0 or stop - start >= zero.reduce_bucket_size:
                parts = tuple(_by_rank(flat, start, stop, int(zero.partition_size[group])))
                self._buckets.append(_Bucket(flat[start:stop], parts, count))
                stop, count = start, 0

    def _start(self) -> None:
        self._missing = [bucket.parameters for bucket in self._buckets]
        self._next = 0

    def _arrived(self, number: int, _: torch.Tensor) -> None:
        """A gradient of a bucket is there. Called within the backward pass."""
        if not self._zero.is_gradient_accumulation_boundary():
            return
        self._missing[number] -= 1
        # In one order on all ranks, whichever bucket is complete first.
        while self._next < len(self._buckets) and self._missing[self._next] == 0:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[self._next]
        self._next += 1
        if world_size() > 1:
            bucket.gradient.div_(world_size())
            self._sent += [sum_at(owner, part) for owner, part in bucket.parts]

    def _reduce(self, **_: Any) -> None:
        """Average over ranks what is not on its way yet. At the end of a step's last backward
        pass, by DeepSpeed's engine; for a device nobody waits here but its queue."""
        while self._next < len(self._buckets):
            self._send()
        for sent in self._sent:
            sent.wait()
        self._sent.clear()
        self._start()

    def _clear(self, set_to_none: bool = True) -> None:
        for flat in self._groups:
            flat.zero_()


def _by_rank(
    flat: torch.Tensor, start: int, stop: int, size: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """A stretch of a group, cut where one rank's part ends and the next one's begins."""
    for owner in range(start // size, (stop - 1) // size + 1):
        yield owner, flat[max(start, owner * size) : min(stop, (owner + 1) * size)]
