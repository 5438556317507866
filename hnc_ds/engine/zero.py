"""DeepSpeed's ZeRO: its fp32 weights and gradients, and the optimizer step of ZeRO 1 and 2.

DeepSpeed's own accessors have no optimizer state before the first step, which is when a resumed run
needs it. Its own step checks, copies and re-assigns every parameter: hundreds of small kernels and
several synchronizations with the device. Here a parameter group has one flat gradient, its norm is
one kernel, and the fused optimizer skips a step that is not finite on the device. Partitions, the
loss scaler and the all-gather of weights are DeepSpeed's.

Uses DeepSpeed's private attributes (``PRIVATE`` in engine.py), but does not import it.

Source: ZeRO (Rajbhandari et al. 2020); gradients as views of one buffer as in torch's
DistributedDataParallel (gradient_as_bucket_view).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from hnc_ds.distributed import (
    Sent,
    all_gather_flat,
    all_reduce_sum,
    rank,
    sum_at,
    sum_over_ranks,
    world_size,
)


@dataclass(frozen=True)
class Fragment:
    """A range of one parameter's elements, and where this rank's optimizer keeps it."""

    name: str
    parameter: torch.nn.Parameter
    start: int
    """First element in the flattened parameter."""
    count: int
    master: torch.Tensor
    """The fp32 tensor that the optimizer updates."""
    master_start: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The fragment of a tensor that is laid out like ``master``."""
        return flat.detach().view(-1).narrow(0, self.master_start, self.count)

    def of_whole(self, whole: torch.Tensor) -> torch.Tensor:
        """The fragment of a tensor that is laid out like the parameter."""
        return whole.detach().flatten()[self.start : self.start + self.count]

    def weights(self) -> torch.Tensor:
        """The fragment's fp32 weights, shared with the optimizer."""
        return self.of(self.master)


class Fragments:
    """The fragments of an engine's trained parameters that this rank holds.

    Args:
        engine: DeepSpeed's engine.
        names: The trained parameters' names.
    """

    def __init__(self, engine: Any, names: Mapping[torch.nn.Parameter, str]) -> None:
        self.stage = int(engine.zero_optimization_stage())
        self._optimizer, self._names = engine.optimizer, names

    def __iter__(self) -> Iterator[Fragment]:
        return (self._whole, self._stage_1_2, self._stage_1_2, self._stage_3)[self.stage]()

    def masters(self) -> list[torch.Tensor]:
        """The fp32 tensors that this rank's optimizer updates: parameters in stage 0, else one flat
        tensor for each parameter group."""
        if self.stage == 0:
            return list(self._names)
        if self.stage == 3:
            return list(self._optimizer.fp32_partitioned_groups_flat)
        return list(self._optimizer.single_partition_of_fp32_groups)

    def laid_out_like_masters(
        self, whole: Mapping[str, torch.Tensor]
    ) -> dict[torch.Tensor, torch.Tensor]:
        """A tensor of the same layout for each of ``masters``.

        Args:
            whole: Values as whole tensors by parameter name; empty for copies of the weights.
        """
        found = {master: master.detach().clone() for master in self.masters()}
        for fragment in self if whole else ():
            fragment.of(found[fragment.master]).copy_(fragment.of_whole(whole[fragment.name]))
        return found

    def mirror(
        self,
        averages: Mapping[torch.Tensor, torch.Tensor],
        copies: Mapping[str, torch.nn.Parameter],
    ) -> "list[Mirror]":
        """Make other parameters views of tensors laid out like ``masters``; not in stage 3.

        Args:
            averages: A tensor for each of ``masters``.
            copies: Parameters like the trained ones, by their names.

        Returns:
            What brings the values of other ranks; nothing in stage 0, which has all of them.
        """
        if self.stage == 0:
            for parameter, name in self._names.items():
                copies[name].data = averages[parameter]
            return []
        return [self._mirror(group, averages[m], copies) for group, m in enumerate(self.masters())]

    def _mirror(
        self, group: int, average: torch.Tensor, copies: Mapping[str, torch.nn.Parameter]
    ) -> "Mirror":
        zero = self._optimizer
        whole, size = (
            zero.bit16_groups_flat[group].detach().clone(),
            int(zero.partition_size[group]),
        )
        pairs = zip(
            zero.round_robin_bit16_groups[group], zero.round_robin_bit16_offsets[group], strict=True
        )
        for parameter, start in pairs:
            view = whole.narrow(0, start, parameter.numel()).view_as(parameter)
            copies[self._names[parameter]].data = view
        return Mirror(whole, whole.narrow(0, rank() * size, size), average)

    def add_to_gradient(self, fragment: Fragment, change: torch.Tensor) -> None:
        """Add to the averaged gradient of a fragment, between the backward pass and the step; for
        stages 0 and 3."""
        if self.stage == 0:
            assert fragment.parameter.grad is not None
            fragment.parameter.grad.view(-1).add_(change)
        elif fragment.count:
            of_rank = self._optimizer.get_local_fp32_grad_for_param(fragment.parameter).view(-1)
            of_rank[: fragment.count].add_(change)
            self._optimizer.set_local_grad_for_param(of_rank, fragment.parameter)

    def gather(self, values: Mapping[str, torch.Tensor], shape: Mapping[str, torch.Size]) -> Any:
        """Whole tensors from the ranks' fragments, by parameter name. A collective.

        Fragments are disjoint, so the sum over ranks of zero-padded fragments is exact.

        Args:
            values: This rank's fragments, flat, by name.
            shape: Shapes of the whole tensors.

        Returns:
            fp32 on the CPU on rank 0, empty on other ranks.
        """
        own = {fragment.name: fragment for fragment in self}
        whole: dict[str, torch.Tensor] = {}
        for parameter, name in self._names.items():
            device = own[name].master.device if name in own else parameter.device
            flat = torch.zeros(shape[name].numel(), dtype=torch.float32, device=device)
            if name in own:
                own[name].of_whole(flat).copy_(values[name])
            if self.stage > 0:
                flat = sum_over_ranks(flat)
            if rank() == 0:
                whole[name] = flat.view(shape[name]).cpu()
        return whole

    def _whole(self) -> Iterator[Fragment]:
        for parameter, name in self._names.items():
            yield Fragment(name, parameter, 0, parameter.numel(), parameter, 0)

    def _stage_1_2(self) -> Iterator[Fragment]:
        groups = self._optimizer.single_partition_of_fp32_groups
        for parameter, name in self._names.items():
            where: Any = getattr(parameter, "_hp_mapping", None)
            if where is not None:  # None if another rank has all of it
                low, high = where.lp_fragment_address, where.hp_fragment_address
                master = groups[where.param_group_index]
                yield Fragment(name, parameter, low.start, low.numel, master, high.start)

    def _stage_3(self) -> Iterator[Fragment]:
        optimizer = self._optimizer
        for parameter, name in self._names.items():
            group, offset, count = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = count * rank()  # equal fragments, the last ones padded beyond the parameter
            count = max(0, min(count, parameter.ds_numel - start))  # type: ignore[attr-defined]
            master = optimizer.fp32_partitioned_groups_flat[group]
            yield Fragment(name, parameter, start, count, master, offset)


class Mirror(NamedTuple):
    """A tensor of which every rank computes a part, whole on all of them."""

    whole: torch.Tensor
    own: torch.Tensor
    """This rank's part of ``whole``."""
    part: torch.Tensor
    """What it should be, fp32."""

    def update(self) -> None:
        """Copy all ranks' parts. A collective."""
        self.own.copy_(self.part)
        all_gather_flat(self.whole, self.own)


Change = Callable[[torch.Tensor, torch.Tensor], None]
"""Adds to an fp32 gradient in place; arguments are the gradient and its weights."""


class FlatStep:
    """Replaces the step of DeepSpeed's ZeRO 1 or 2 optimizer, and in ZeRO 1 its reduction of
    gradients.

    Args:
        zero: DeepSpeed's optimizer, new.
        overlaps: Whether gradients are reduced during the backward pass (overlap_comm).
    """

    def __init__(self, zero: Any, overlaps: bool) -> None:
        self._zero, self._masters = zero, zero.single_partition_of_fp32_groups
        self.unsound = torch.zeros(1, device=self._masters[0].device)
        """1 if the gradient of the last step was not finite, else 0; equal on all ranks."""
        self.change: Change | None = None
        """Applied to the gradient before it is clipped."""
        self._skips = getattr(zero.optimizer, "_step_supports_amp_scaling", False)
        self.gradients: FlatGradients | None = None
        if not zero.partition_gradients and _reduces_without_conversion(zero):
            self.gradients = FlatGradients(zero, overlaps)
        zero.step = self._step

    @torch.no_grad()
    def _step(self, closure: None = None) -> None:
        zero, scale = self._zero, float(self._zero.loss_scale)
        gradients = [self._gradient(group) for group in range(len(self._masters))]
        norm = _norm(gradients) / scale
        self.unsound = (~norm.isfinite()).float()
        zero.overflow = self._must_synchronize() and bool(self.unsound)
        zero._update_scale(zero.overflow)  # of fp16; the others have none
        zero._global_grad_norm = norm
        if not zero.overflow:
            self._update(gradients, 1 / (scale * _excess(norm, zero.clip_grad)))
        for group in zero.averaged_gradients:
            zero.averaged_gradients[group] = zero.all_grad_tensors[group] = None

    def _must_synchronize(self) -> bool:
        """Whether the host must wait to learn if the gradient is finite: for the loss scale of
        fp16, or for an optimizer that cannot skip a step itself, as torch's fused optimizers
        can."""
        return self._zero.dtype == torch.float16 or not self._skips

    def _gradient(self, group: int) -> torch.Tensor:
        """Averaged gradient of this rank's partition of a group, flat, times the loss scale."""
        zero = self._zero
        found: torch.Tensor | None
        if self.gradients is not None:
            found = self.gradients.own[group]
        else:
            parts = zero.averaged_gradients[group]
            found = getattr(parts, "flat_partition", None)
        if found is None:  # ZeRO 2 that accumulates in the weights' precision
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
        if self._skips:
            optimizer.found_inf = self.unsound[0]
        optimizer.step()
        for group, master in enumerate(self._masters):
            master.grad = None
            own = zero.parallel_partitioned_bit16_groups[group][rank()]
            own.copy_(master)
            all_gather_flat(zero.bit16_groups_flat[group], own)


def _reduces_without_conversion(zero: Any) -> bool:
    """Whether no setting asks for sums in another precision, or for another order of division."""
    same_dtype = zero.dtype == zero.communication_data_type == zero.gradient_accumulation_dtype
    return bool(same_dtype and zero.postscale_gradients and zero.gradient_predivide_factor == 1)


def _norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Norm of all ranks' gradients, one element."""
    norms = [torch.linalg.vector_norm(part, dtype=torch.float32) for part in gradients]
    squares = torch.stack(norms).square().sum(dim=0, keepdim=True)
    all_reduce_sum(squares)
    return squares.sqrt()


def _times(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The product in fp32: one kernel on a GPU; on a CPU two operations are faster."""
    return gradient * factor if gradient.is_cuda else gradient.float().mul_(factor)


def _excess(norm: torch.Tensor, most: float) -> torch.Tensor:
    """What clipping divides a gradient by; 1 without clipping."""
    return ((norm + 1e-6) / most).clamp(min=1) if most > 0 else torch.ones_like(norm)


def flatten_stage_3(zero: Any) -> None:
    """Make ZeRO 3 take norms and gradients from its one flat buffer instead of from each parameter.

    Args:
        zero: DeepSpeed's optimizer, new.
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
    """A slice of a group's gradient that is reduced at once."""

    gradient: torch.Tensor
    parts: tuple[tuple[int, torch.Tensor], ...]
    """(owner rank, its slice of the gradient)."""
    parameters: int
    """How many parameters have their gradient in it."""


class FlatGradients:
    """One flat gradient for each group in ZeRO 1; every parameter's gradient is a view of it.

    The backward pass accumulates into it without copies. All ranks reduce its buckets in one order,
    each part to the rank that owns it.

    Args:
        zero: DeepSpeed's optimizer, whose own hooks are removed.
        overlaps: Whether a bucket is reduced as soon as it is complete.
    """

    def __init__(self, zero: Any, overlaps: bool) -> None:
        self._zero, self._sent = zero, list[Sent]()
        self._groups = [torch.zeros_like(flat) for flat in zero.bit16_groups_flat]
        self.own = [
            flat.narrow(0, rank() * int(size), int(size))
            for flat, size in zip(self._groups, zero.partition_size, strict=True)
        ]
        """This rank's partition of each group's gradient."""
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
        """Assign each parameter its view and bucket, in the order of the backward pass: last
        first."""
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
        """Count a gradient of a bucket. A hook of the backward pass."""
        if not self._zero.is_gradient_accumulation_boundary():
            return
        self._missing[number] -= 1
        # In the same order on all ranks, whichever bucket is complete first.
        while self._next < len(self._buckets) and self._missing[self._next] == 0:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[self._next]
        self._next += 1
        if world_size() > 1:
            bucket.gradient.div_(world_size())
            self._sent += [sum_at(owner, part) for owner, part in bucket.parts]

    def _reduce(self, **_: Any) -> None:
        """Reduce the remaining buckets and wait for all (on a GPU only its stream waits).
        DeepSpeed's engine calls it at the end of a step's last backward pass."""
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
    """A slice of a group's gradient, divided at the borders of the ranks' partitions."""
    for owner in range(start // size, (stop - 1) // size + 1):
        yield owner, flat[max(start, owner * size) : min(stop, (owner + 1) * size)]
