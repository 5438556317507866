"""Where DeepSpeed keeps what belongs to a parameter: stretches of fp32 weights and of gradients.

Each ZeRO stage lays them out in its own way, and its accessors know no optimizer state before the
first step, which is when a resumed run needs it. Knows DeepSpeed's attributes, but imports nothing
of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hnc_ds.distributed import rank, sum_over_ranks


@dataclass(frozen=True)
class Piece:
    """A stretch of one parameter and where this rank's optimizer keeps it."""

    name: str
    parameter: torch.nn.Parameter
    start: int
    """First element in the flattened parameter."""
    count: int
    master: torch.Tensor
    """The fp32 tensor that the optimizer updates."""
    master_start: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The stretch of a tensor that is laid out like ``master``."""
        return flat.detach().view(-1).narrow(0, self.master_start, self.count)

    def of_whole(self, whole: torch.Tensor) -> torch.Tensor:
        """The stretch of a tensor that is laid out like the parameter."""
        return whole.detach().flatten()[self.start : self.start + self.count]

    def weights(self) -> torch.Tensor:
        """The fp32 weights of the stretch, shared with the optimizer."""
        return self.of(self.master)


class Pieces:
    """The stretches that this rank holds of an engine's trained parameters.

    Args:
        engine: DeepSpeed's.
        names: Of the trained parameters.
    """

    def __init__(self, engine: Any, names: Mapping[torch.nn.Parameter, str]) -> None:
        self.stage = int(engine.zero_optimization_stage())
        self._optimizer, self._names = engine.optimizer, names

    def __iter__(self) -> Iterator[Piece]:
        return (self._whole, self._stage_1_2, self._stage_1_2, self._stage_3)[self.stage]()

    def masters(self) -> list[torch.Tensor]:
        """The fp32 tensors that this rank's optimizer updates: parameters in stage 0, else a flat
        one for each group of them."""
        if self.stage == 0:
            return list(self._names)
        if self.stage == 3:
            return list(self._optimizer.fp32_partitioned_groups_flat)
        return list(self._optimizer.single_partition_of_fp32_groups)

    def beside_masters(self, whole: Mapping[str, torch.Tensor]) -> dict[torch.Tensor, torch.Tensor]:
        """Values laid out like the fp32 weights, by these.

        Args:
            whole: Whole tensors by parameter name; of what has none, the weights as they are.
        """
        found = {master: master.detach().clone() for master in self.masters()}
        for piece in self if whole else ():
            piece.of(found[piece.master]).copy_(piece.of_whole(whole[piece.name]))
        return found

    def add_to_gradient(self, piece: Piece, change: torch.Tensor) -> None:
        """Add to the averaged gradient of a stretch, between the backward pass and the step; in
        stages 0 and 3."""
        if self.stage == 0:
            assert piece.parameter.grad is not None
            piece.parameter.grad.view(-1).add_(change)
        elif piece.count:
            of_rank = self._optimizer.get_local_fp32_grad_for_param(piece.parameter).view(-1)
            of_rank[: piece.count].add_(change)
            self._optimizer.set_local_grad_for_param(of_rank, piece.parameter)

    def gather(self, values: Mapping[str, torch.Tensor], shape: Mapping[str, torch.Size]) -> Any:
        """Whole tensors of what each rank holds of them, by parameter name. A collective.

        Ranks hold disjoint stretches and zeros elsewhere, so a sum puts them together exactly.

        Args:
            values: This rank's stretches, flat, by name.
            shape: Of the whole tensors.

        Returns:
            fp32 on the CPU on rank 0, nothing elsewhere.
        """
        own = {piece.name: piece for piece in self}
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

    def _whole(self) -> Iterator[Piece]:
        for parameter, name in self._names.items():
            yield Piece(name, parameter, 0, parameter.numel(), parameter, 0)

    def _stage_1_2(self) -> Iterator[Piece]:
        groups = self._optimizer.single_partition_of_fp32_groups
        for parameter, name in self._names.items():
            where: Any = getattr(parameter, "_hp_mapping", None)
            if where is not None:  # None where another rank has all of it
                low, high = where.lp_fragment_address, where.hp_fragment_address
                master = groups[where.param_group_index]
                yield Piece(name, parameter, low.start, low.numel, master, high.start)

    def _stage_3(self) -> Iterator[Piece]:
        optimizer = self._optimizer
        for parameter, name in self._names.items():
            group, offset, count = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = count * rank()  # equal pieces, the last ones padded beyond the parameter
            count = max(0, min(count, parameter.ds_numel - start))  # type: ignore[attr-defined]
            master = optimizer.fp32_partitioned_groups_flat[group]
            yield Piece(name, parameter, start, count, master, offset)
