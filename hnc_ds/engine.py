"""The one file that knows DeepSpeed: its engine, and what is inside its optimizers.

State goes in and out as whole fp32 tensors by parameter name, gathered from whatever pieces the
ranks hold. So a checkpoint needs no pickle, and resumes on any number of ranks, ZeRO stage or
precision. DeepSpeed's own accessors (safe_get_full_optimizer_state) know no state before the first
step, which is when a resumed run needs it; therefore the pieces are addressed here.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from hnc_ds.distributed import enter, rank, sum_over_ranks


def start_process_group() -> None:
    """Join the other ranks, if a launcher started several; DeepSpeed chooses the backend."""
    accelerator, local_rank = _accelerator(), int(os.environ.get("LOCAL_RANK", "0"))
    if is_accelerated():
        accelerator.set_device(local_rank)  # NCCL moves even Python objects through it
    enter(accelerator.communication_backend_name(), local_rank)


def is_accelerated() -> bool:
    """Whether this is more than a CPU."""
    return bool(_accelerator().device_name() != "cpu")


class State(NamedTuple):
    """Everything of an engine that a checkpoint keeps. Tensors are fp32 and on the CPU."""

    weights: dict[str, torch.Tensor]
    """By the model's parameter name; full precision, whatever the engine computes in."""
    moments: dict[str, torch.Tensor]
    """By ``NAME/KEY``, KEY being the optimizer's own, such as exp_avg."""
    scalars: dict[str, Any]
    """JSON values: optimizer steps, schedule, loss scale."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one parameter and where this rank's optimizer keeps it."""

    name: str
    start: int
    """First element in the flattened parameter."""
    count: int
    master: torch.Tensor
    """The fp32 tensor that the optimizer updates."""
    master_start: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The stretch of a tensor that is laid out like ``master``."""
        return flat.detach().view(-1).narrow(0, self.master_start, self.count)


class Engine:
    """A model under DeepSpeed.

    Args:
        model: On the CPU, fp32, every trained parameter with at least one dimension.
        groups: What trains, as ``Clip.parameter_groups`` gives it.
        config: Of ``resolve``.
    """

    def __init__(
        self, model: torch.nn.Module, groups: list[dict[str, Any]], config: dict[str, Any]
    ) -> None:
        _quiet()
        import deepspeed

        # On a CPU, DeepSpeed would compile collectives of its own (half a minute, and a crash
        # where there is no compiler) that do what gloo does.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._engine, *_ = deepspeed.initialize(model=model, model_parameters=groups, config=config)
        self._stage = self._engine.zero_optimization_stage()
        self._names = {
            parameter: name
            for name, parameter in self._engine.module.named_parameters()
            if parameter.requires_grad
        }
        self._frozen = {
            name: start[name] for name, p in model.named_parameters() if not p.requires_grad
        }
        self._shapes = {name: tensor.shape for name, tensor in start.items()}
        # DeepSpeed rounds the module to 16 bits before it copies the fp32 weights from it.
        self._write_masters(start)

    @property
    def device(self) -> torch.device:
        """Where batches must be."""
        return torch.device(self._engine.device)

    @property
    def module(self) -> Any:
        """The model, as DeepSpeed holds it."""
        return self._engine.module

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The model's forward, with DeepSpeed's hooks."""
        return self._engine(*inputs)

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Gradients averaged over ranks, clipped, one optimizer and schedule step."""
        self._engine.backward(loss)
        self._engine.step()

    def measures(self) -> dict[str, float]:
        """Learning rate, gradient norm before clipping where known, loss scale in fp16."""
        found = {"learning_rate": float(self._engine.get_lr()[0])}
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            found["gradient_norm"] = float(norm)
        if self._engine.fp16_enabled():
            found["loss_scale"] = float(self._engine.optimizer.loss_scale)
            found["skipped_steps"] = float(self._engine.skipped_steps)
        return found

    def state(self) -> State:
        """Gather the whole state. A collective: every rank calls it and gets the same.

        Returns:
            Tensors only on rank 0; the other ranks get empty dictionaries of them.
        """
        pieces = self._pieces()
        optimizer = self._basic_optimizer().state
        keys = sorted(
            {
                key
                for own in optimizer.values()
                for key, value in own.items()
                if torch.is_tensor(value) and key != "step"
            }
        )
        weights = self._gather(pieces, lambda master: master)
        moments = {
            f"{name}/{key}": tensor
            for key in keys
            for name, tensor in self._gather(
                pieces, lambda master, key=key: optimizer[master][key]
            ).items()
        }
        if rank() == 0:
            weights.update({name: tensor.float() for name, tensor in self._frozen.items()})
        return State(weights, moments, self._scalars())

    def restore(self, moments: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> None:
        """Put back what ``state`` gave; the weights were the start weights of this engine."""
        optimizer = self._basic_optimizer()
        keys = sorted({name.rpartition("/")[2] for name in moments})
        for piece in self._pieces():
            state = optimizer.state[piece.master]
            for key in keys:
                if key not in state:
                    state[key] = torch.zeros_like(piece.master)
                value = moments[f"{piece.name}/{key}"].flatten()
                piece.of(state[key]).copy_(value[piece.start : piece.start + piece.count])
            _set_step(optimizer, piece.master, scalars["optimizer_step"])
        self._engine.global_steps = scalars["global_steps"]
        self._engine.skipped_steps = scalars["skipped_steps"]
        iteration = scalars["schedule"].get("last_batch_iteration", -1)
        if self._engine.lr_scheduler is not None and iteration >= 0:
            self._engine.lr_scheduler.step(iteration)
        scaler = self._loss_scaler()
        for name, value in scalars["loss_scaler"].items() if scaler is not None else ():
            setattr(scaler, name, value)

    def _scalars(self) -> dict[str, Any]:
        optimizer = self._basic_optimizer()
        holders = [*optimizer.state.values(), *optimizer.param_groups]  # each kind has its own way
        steps = [float(holder["step"]) for holder in holders if "step" in holder]
        schedule = self._engine.lr_scheduler
        return {
            "optimizer_step": max(steps, default=0.0),
            "global_steps": self._engine.global_steps,
            "skipped_steps": self._engine.skipped_steps,
            "schedule": schedule.state_dict() if schedule is not None else {},
            "loss_scaler": _plain_values(self._loss_scaler()),
        }

    def _loss_scaler(self) -> Any:
        return self._engine.optimizer.loss_scaler if self._engine.fp16_enabled() else None

    def _basic_optimizer(self) -> torch.optim.Optimizer:
        return self._engine.basic_optimizer

    def _write_masters(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for piece in self._pieces():
                value = weights[piece.name].flatten()[piece.start : piece.start + piece.count]
                piece.of(piece.master).copy_(value)

    def _gather(self, pieces: list[Piece], layout: Any) -> dict[str, torch.Tensor]:
        """Whole tensors, by parameter name, of what the optimizer keeps in pieces; on rank 0.

        Ranks hold disjoint pieces and zeros elsewhere, so a sum puts them together exactly.
        """
        by_name: dict[str, list[Piece]] = {}
        for piece in pieces:
            by_name.setdefault(piece.name, []).append(piece)
        whole: dict[str, torch.Tensor] = {}
        for name in self._names.values():
            shape = self._shapes[name]
            flat = torch.zeros(shape.numel(), dtype=torch.float32, device=self.device)
            for piece in by_name.get(name, []):
                flat[piece.start : piece.start + piece.count] = piece.of(layout(piece.master))
            if self._stage > 0:
                flat = sum_over_ranks(flat)
            if rank() == 0:
                whole[name] = flat.view(shape).cpu()
        return whole

    def _pieces(self) -> list[Piece]:
        by_stage = (self._pieces_0, self._pieces_1_2, self._pieces_1_2, self._pieces_3)
        return list(by_stage[self._stage]())

    def _pieces_0(self) -> Iterator[Piece]:
        for parameter, name in self._names.items():
            yield Piece(name, 0, parameter.numel(), parameter, 0)

    def _pieces_1_2(self) -> Iterator[Piece]:
        optimizer = self._engine.optimizer
        for parameter, name in self._names.items():
            where = parameter._hp_mapping  # None where another rank has it
            if where is not None:
                low, high = where.lp_fragment_address, where.hp_fragment_address
                master = optimizer.single_partition_of_fp32_groups[where.param_group_index]
                yield Piece(name, low.start, low.numel, master, high.start)

    def _pieces_3(self) -> Iterator[Piece]:
        optimizer = self._engine.optimizer
        for parameter, name in self._names.items():
            group, offset, count = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = count * rank()  # equal pieces, the last ones padded beyond the parameter
            count = max(0, min(count, parameter.ds_numel - start))
            yield Piece(name, start, count, optimizer.fp32_partitioned_groups_flat[group], offset)


def _set_step(optimizer: torch.optim.Optimizer, master: torch.Tensor, step: float) -> None:
    """Tell an optimizer how often it has stepped, in the way its kind keeps the number."""
    state, groups = optimizer.state[master], optimizer.param_groups
    if not state:
        return  # plain SGD
    if any("step" in group for group in groups):  # DeepSpeed's FusedAdam
        for group in groups:
            group["step"] = int(step)
    elif type(optimizer).__module__.startswith("torch.optim"):
        on_device = groups[0].get("fused") or groups[0].get("capturable")
        state["step"] = torch.tensor(step, device=master.device if on_device else "cpu")
    else:  # DeepSpeed's CPU Adam
        state["step"] = int(step)


def _plain_values(scaler: Any) -> dict[str, Any]:
    """The numbers of a loss scaler; none without one."""
    values = vars(scaler) if scaler is not None else {}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float))}


def _accelerator() -> Any:
    _quiet()
    from deepspeed.accelerator import get_accelerator

    return get_accelerator()


def _quiet() -> None:
    """Keep DeepSpeed's lines for errors; what matters is in the run's own log."""
    for name in ("DeepSpeed", "deepspeed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
