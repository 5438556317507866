"""The one file that knows DeepSpeed: its engine, and what is inside its optimizers.

State goes in and out as whole fp32 tensors by parameter name, gathered from whatever pieces the
ranks hold (zero_pieces.py). So a checkpoint needs no pickle, and resumes on any number of ranks,
ZeRO stage or precision.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from hnc_ds.deepspeed_keys import SIZES
from hnc_ds.distributed import enter, is_lost_connection, own_device, rank, sum_over_ranks
from hnc_ds.errors import UserError
from hnc_ds.zero_pieces import Pieces
from hnc_ds.zero_step import FlatStep, flatten_stage_3


def start_process_group() -> None:
    """Join the other ranks, if a launcher started several; DeepSpeed chooses the backend.

    Raises:
        RankError: Fewer devices than processes; ranks that do not find each other.
    """
    accelerator, local_rank = _accelerator(), int(os.environ.get("LOCAL_RANK", "0"))
    if is_accelerated():
        # NCCL moves even Python objects through it.
        accelerator.set_device(own_device(accelerator.device_count()))
    enter(accelerator.communication_backend_name(), local_rank)


def refuse_what_deepspeed_refuses(config: Mapping[str, Any], where: Path) -> None:
    """Let DeepSpeed read its JSON before anything begins.

    Args:
        config: Of ``read_deepspeed_config``.
        where: Its file.

    Raises:
        UserError: What DeepSpeed has against it.
    """
    _quiet()
    from deepspeed.runtime.config import DeepSpeedConfig

    with _one_line(f"{where}: DeepSpeed refuses it"):
        DeepSpeedConfig(dict(config) | dict.fromkeys(SIZES, 1))
    optimizer = config["optimizer"]
    needs_gpu = optimizer.get("type", "").lower() in ("adam", "adamw", "lamb", "lion")
    offloads = config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device")
    is_torchs = optimizer.get("params", {}).get("torch_adam", False)
    if needs_gpu and not is_torchs and offloads in (None, "none") and not is_accelerated():
        raise UserError(
            f"{where}: optimizer.type {optimizer['type']} of DeepSpeed needs a GPU; on a CPU write "
            'AdamW with "torch_adam": true in optimizer.params'
        )


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever DeepSpeed raises at its configuration, as a UserError; but not a lost rank."""
    try:
        yield
    except Exception as error:
        if is_lost_connection(error):
            raise
        details = getattr(error, "errors", None)  # pydantic's
        if callable(details) and (found := details()):
            place = ".".join(str(part) for part in found[0]["loc"])
            raise UserError(f"{what} ({place}: {found[0]['msg']})") from error
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"{what} ({type(error).__name__}: {lines[0][:300]})") from error


def is_accelerated() -> bool:
    """Whether this is more than a CPU."""
    return bool(_accelerator().device_name() != "cpu")


def device() -> torch.device:
    """Where this rank computes."""
    return torch.device(_accelerator().current_device_name())


class State(NamedTuple):
    """Everything of an engine that a checkpoint keeps. Tensors are fp32 and on the CPU."""

    weights: dict[str, torch.Tensor]
    """By the model's parameter name; full precision, whatever the engine computes in."""
    moments: dict[str, torch.Tensor]
    """By ``NAME/KEY``, KEY being the optimizer's own, such as exp_avg."""
    averages: dict[str, torch.Tensor]
    """The trained weights averaged over steps, by name; nothing where they are not."""
    scalars: dict[str, Any]
    """JSON values: optimizer steps, schedule, loss scale."""


class _Schedule(msgspec.Struct):
    last_batch_iteration: int = -1


class _Scalars(msgspec.Struct):
    """``State.scalars`` as a checkpoint has them."""

    optimizer_step: float
    global_steps: int
    skipped_steps: int
    schedule: _Schedule
    loss_scaler: dict[str, float | int | bool | None]


class Engine:
    """A model under DeepSpeed.

    Args:
        model: On the CPU, fp32, every trained parameter with at least one dimension.
        groups: What trains, as ``Clip.parameter_groups`` gives it.
        config: Of ``resolve``.
        not_kept: What the names of parameters begin with that a checkpoint does not keep.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        groups: list[dict[str, Any]],
        config: dict[str, Any],
        not_kept: str = "start.",
    ) -> None:
        _quiet()
        import deepspeed

        # On a CPU, DeepSpeed would compile collectives of its own (half a minute, and a crash
        # where there is no compiler) that do what gloo does.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        kept = {n: p for n, p in model.named_parameters() if not n.startswith(not_kept)}
        start = {name: p.detach().clone() for name, p in kept.items()}
        self._frozen = {name: start[name] for name, p in kept.items() if not p.requires_grad}
        self._shapes = {name: tensor.shape for name, tensor in start.items()}
        with _one_line("DeepSpeed cannot start with this JSON of its settings"):
            self._engine, *_ = deepspeed.initialize(
                model=model, model_parameters=groups, config=config
            )
        names = {p: n for n, p in self._engine.module.named_parameters() if p.requires_grad}
        self._pieces = Pieces(self._engine, names)
        self._flat_step = _flat_step(self._engine, config)
        # DeepSpeed rounds the module to 16 bits before it copies the fp32 weights from it.
        self._write_masters(start)
        self._pull, self._start = 0.0, dict[torch.Tensor, torch.Tensor]()
        self._decay, self._averages = 0.0, dict[torch.Tensor, torch.Tensor]()
        self._left_out = False

    @property
    def device(self) -> torch.device:
        """Where batches must be."""
        return torch.device(self._engine.device)

    @property
    def module(self) -> Any:
        """The model, as DeepSpeed holds it."""
        return self._engine.module

    @property
    def parts(self) -> int:
        """Backward passes of a step: gradient_accumulation_steps."""
        return int(self._engine.gradient_accumulation_steps())

    @property
    def scales_loss(self) -> bool:
        """Whether gradients overflow now and then by design (fp16), and the step is left out."""
        scalers = (
            getattr(self._engine, "torch_autocast_z0_gradscaler", None),
            getattr(self._engine.optimizer, "torch_autocast_gradscaler", None),
        )
        return bool(self._engine.fp16_enabled()) or any(s is not None for s in scalers)

    def close(self) -> None:
        """Let go of the memory: DeepSpeed's hooks hold it in circles that Python does not see."""
        self._engine.destroy()

    def forward(self, *inputs: Any) -> Any:
        """The model's forward, with DeepSpeed's hooks."""
        return self._engine(*inputs)

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Gradients averaged over ranks; clipped, and one optimizer and schedule step, after the
        last of a step's ``parts``. The gradients of the parts are added, not averaged.

        Raises:
            UserError: fp16 overflows even with the smallest loss scale.
        """
        self._engine.backward(loss, scale_wrt_gas=False)
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self._flat_step is None and not self._is_ready_for_deepspeeds_step():
            return
        skipped = self._engine.skipped_steps
        try:
            self._engine.step()
        except Exception as error:  # DeepSpeed has no type of its own for it
            if "loss scale already at minimum" in str(error):
                raise UserError(
                    "fp16 overflows even with the smallest loss scale; lower the learning rate, or "
                    "train in bf16, and start again with --resume"
                ) from error
            raise
        if last and self._decay and self._engine.skipped_steps == skipped:
            self._average()

    def unsound(self) -> torch.Tensor:
        """Whether the gradient of the last step was not finite, so that the step was left out;
        float32, one element, 1 or 0, on the device and equal on all ranks.

        In fp16 that happens now and then, and the loss scale is made smaller.
        """
        if self._flat_step is not None:
            return self._flat_step.unsound
        left_out = self._left_out or bool(getattr(self._engine.optimizer, "overflow", False))
        return torch.full((1,), float(left_out), device=self.device)

    def _is_ready_for_deepspeeds_step(self) -> bool:
        """Do what DeepSpeed's own steps leave to be done: add the pull, and without ZeRO look at
        the norm before weights change. False: the step is left out."""
        if self._pull:
            self._add_pull()
        if self._pieces.stage == 0:
            gradients = [p.grad for p in self._pieces.masters() if p.grad is not None]
            self._left_out = not bool(torch.nn.utils.get_total_norm(gradients).isfinite())
        if self._left_out:
            self._engine.zero_grad()
            self._engine.micro_steps += 1
        return not self._left_out

    def _average(self) -> None:
        """One step of the averages; none where the weights did not take it."""
        share = (1 - self._decay) * (1 - self.unsound())
        for master, average in self._averages.items():
            average.lerp_(master.detach(), share.to(average))

    def pull_to_start(self, weight: float, start: Mapping[str, torch.Tensor]) -> None:
        """Add ``weight`` times the squared distance of the trained weights from ``start`` to the
        loss, exactly: as its gradient, on the fp32 weights, under every ZeRO stage.

        Args:
            weight: Of the term l2_to_start.
            start: Whole tensors by parameter name.

        Source: L2-SP (Li et al. 2018).
        """
        self._pull = weight
        self._start = self._pieces.beside_masters(start)
        if self._flat_step is not None:
            self._flat_step.change = self._pulled

    def _pulled(self, gradient: torch.Tensor, master: torch.Tensor) -> None:
        """Add the term's gradient to that of the weights, which is times the loss scale."""
        scale = 2 * self._pull * self._loss_scale()
        gradient.add_(master - self._start[master], alpha=scale)

    def _loss_scale(self) -> float:
        return float(self._engine.optimizer.loss_scale) if self._engine.fp16_enabled() else 1.0

    def _add_pull(self) -> None:
        scale = 2 * self._pull * self._loss_scale()
        for piece in self._pieces:
            apart = piece.weights() - piece.of(self._start[piece.master])
            self._pieces.add_to_gradient(piece, scale * apart)

    def distance_to_start(self) -> float:
        """Squared distance of the trained weights from the start weights. A collective."""
        own = torch.zeros((), dtype=torch.float64, device=self.device)
        for master, start in self._start.items():
            own += (master.detach() - start).double().square().sum().to(self.device)
        return float(sum_over_ranks(own) if self._pieces.stage else own)

    def average(self, decay: float, before: Mapping[str, torch.Tensor]) -> None:
        """Keep an exponential moving average of the trained fp32 weights.

        Args:
            decay: Share of the average that stays at each step.
            before: Averages to go on from, whole, by name; nothing starts from the weights.
        """
        self._decay = decay
        self._averages = self._pieces.beside_masters(before)

    def measures(self) -> dict[str, float]:
        """Learning rate, gradient norm before clipping where known, loss scale in fp16, distance
        from the start weights where they pull. A collective."""
        found = {"learning_rate": float(self._engine.get_lr()[0])}
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            found["gradient_norm"] = float(norm)
        if self._engine.fp16_enabled():
            found["loss_scale"] = float(self._engine.optimizer.loss_scale)
            found["skipped_steps"] = float(self._engine.skipped_steps)
        if self._pull:
            found["loss/l2_to_start"] = self.distance_to_start()
        return found

    def state(self) -> State:
        """Gather the whole state. A collective: every rank calls it and gets the same.

        Returns:
            Tensors only on rank 0; the other ranks get empty dictionaries of them.
        """
        optimizer = self._basic_optimizer().state
        keys = sorted(
            {
                key
                for own in optimizer.values()
                for key, value in own.items()
                if torch.is_tensor(value) and key != "step"
            }
        )
        weights = self.whole_weights()
        moments = {
            f"{name}/{key}": tensor
            for key in keys
            for name, tensor in self._gather(
                {piece.name: piece.of(optimizer[piece.master][key]) for piece in self._pieces}
            ).items()
        }
        averages = self._gather(self._own_averages()) if self._decay else {}
        return State(weights, moments, averages, self._scalars())

    def _own_averages(self) -> dict[str, torch.Tensor]:
        return {piece.name: piece.of(self._averages[piece.master]) for piece in self._pieces}

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """The model's fp32 weights by name, on rank 0. A collective."""
        weights = self._gather({piece.name: piece.weights() for piece in self._pieces})
        if rank() == 0:
            weights.update({name: tensor.float() for name, tensor in self._frozen.items()})
        return weights

    def restore(self, moments: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> None:
        """Put back what ``state`` gave; the weights were the start weights of this engine.

        Raises:
            msgspec.ValidationError: The scalars are not what ``state`` gives.
        """
        told = msgspec.convert(scalars, _Scalars)
        optimizer = self._basic_optimizer()
        keys = sorted({name.rpartition("/")[2] for name in moments})
        for piece in self._pieces:
            state = optimizer.state[piece.master]
            for key in keys:
                if key not in state:
                    state[key] = torch.zeros_like(piece.master)
                piece.of(state[key]).copy_(piece.of_whole(moments[f"{piece.name}/{key}"]))
            _set_step(optimizer, piece.master, told.optimizer_step)
        self._engine.global_steps = told.global_steps
        self._engine.skipped_steps = told.skipped_steps
        iteration = told.schedule.last_batch_iteration
        if self._engine.lr_scheduler is not None and iteration >= 0:
            self._engine.lr_scheduler.step(iteration)
        scaler = self._loss_scaler()
        for name, value in told.loss_scaler.items() if scaler is not None else ():
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
            for piece in self._pieces:
                piece.weights().copy_(piece.of_whole(weights[piece.name]))

    def _gather(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._pieces.gather(values, self._shapes)


def _flat_step(engine: Any, config: Mapping[str, Any]) -> FlatStep | None:
    """This project's step of ZeRO 1 and 2, where nothing needs DeepSpeed's own."""
    zero, settings = engine.optimizer, config.get("zero_optimization", {})
    stage = engine.zero_optimization_stage()
    if stage == 3 and not zero.offload_optimizer:
        flatten_stage_3(zero)
    if stage not in (1, 2) or zero.cpu_offload or zero.torch_autocast_gradscaler is not None:
        return None
    return FlatStep(zero, settings.get("overlap_comm") is not False)


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
    # It calls collectives by names that torch is about to give up.
    old_names = r"`torch\.distributed\.\w+` is deprecated"
    warnings.filterwarnings("ignore", old_names, FutureWarning)
    for name in ("DeepSpeed", "deepspeed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
