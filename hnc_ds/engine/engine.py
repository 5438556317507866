"""DeepSpeed's engine. No other module imports DeepSpeed.

Its state is read and written as whole fp32 tensors by parameter name, gathered from the fragments
that the ranks hold (zero.py). A checkpoint therefore needs no pickle, and resumes on any
number of ranks, ZeRO stage or precision.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial, wraps
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from hnc_ds.distributed import (
    init_process_group,
    is_lost_connection,
    own_device,
    rank,
    sum_over_ranks,
)
from hnc_ds.engine.deepspeed_keys import SCHEDULERS, SIZES
from hnc_ds.engine.zero import FlatStep, Fragments, Mirror, flatten_stage_3
from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install
from hnc_ds.launch import importing
from hnc_ds.model.half_precision import fit_buffers


def start_process_group() -> None:
    """Join the other ranks, if a launcher started several, with DeepSpeed's choice of backend.

    Raises:
        RankError: There are fewer devices than processes, or the rendezvous fails.
    """
    accelerator = _accelerator()
    if is_accelerated():
        # NCCL uses it even for Python objects.
        accelerator.set_device(own_device(accelerator.device_count()))
    init_process_group(accelerator.communication_backend_name())


def check_with_deepspeed(config: Mapping[str, Any], where: Path) -> None:
    """Validate a JSON of DeepSpeed's with DeepSpeed itself, before anything is started.

    Args:
        config: Result of ``read_deepspeed_config``.
        where: Its file, for errors.

    Raises:
        UserError: DeepSpeed refuses it, or its optimizer needs a GPU.
    """
    with _quiet():
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
    """Turn errors of DeepSpeed's configuration into one-line UserErrors, but not a lost rank."""
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
    """Whether DeepSpeed's accelerator is not the CPU."""
    return bool(_accelerator().device_name() != "cpu")


def has_bf16() -> bool:
    """Whether the accelerator computes in bf16 itself. Selects the device, so call it after
    ``start_process_group``."""
    if _accelerator().device_name() == "cuda":  # DeepSpeed's own answer counts emulation
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_accelerator().is_bf16_supported())


def device() -> torch.device:
    """This rank's device."""
    return torch.device(_accelerator().current_device_name())


WARM_UP = frozenset(kind for kind, known in SCHEDULERS.items() if "warmup_num_steps" in known)
"""DeepSpeed's schedules with a warm-up."""

PRIVATE: dict[str, tuple[str, ...]] = {
    "package": ("ops.__compatible_ops__",),
    "engine": (
        *("basic_optimizer", "global_steps", "lr_scheduler", "micro_steps", "optimizer"),
        *("skipped_steps", "zero_optimization_stage"),
    ),
    "ZeRO 1 and 2 optimizer": (
        *("_global_grad_norm", "_grad_acc_hooks", "_update_scale", "all_grad_tensors"),
        *("averaged_gradients", "bit16_groups_flat", "clip_grad", "communication_data_type"),
        *("cpu_offload", "dtype", "flatten_dense_tensors_aligned", "gradient_accumulation_dtype"),
        *("gradient_predivide_factor", "is_gradient_accumulation_boundary", "loss_scale"),
        *("optimizer", "overflow", "parallel_partitioned_bit16_groups", "partition_gradients"),
        *("partition_size", "postscale_gradients", "reduce_bucket_size", "reduce_gradients"),
        *("round_robin_bit16_groups", "round_robin_bit16_offsets", "step"),
        *("single_partition_of_fp32_groups", "torch_autocast_gradscaler", "zero_grad"),
    ),
    "ZeRO 3 optimizer": (
        *("_get_norm_groups", "_prepare_fp32_grad_for_sub_group", "averaged_gradients"),
        *("fp16_partitioned_groups_flat_numel", "fp32_partitioned_groups_flat"),
        *("get_local_fp32_grad_for_param", "get_param_id", "grad_position", "loss_scale"),
        *("offload_optimizer", "overflow", "set_local_grad_for_param"),
    ),
}
"""DeepSpeed's attributes without documentation that this file and zero.py use, by the object that
has them."""


def _check_engine(engine: Any) -> None:
    """Check that an engine has all of ``PRIVATE``, instead of failing in the middle of a run."""
    _check_private({"engine": engine})
    stage = int(engine.zero_optimization_stage())
    if stage:
        kind = "ZeRO 3 optimizer" if stage == 3 else "ZeRO 1 and 2 optimizer"
        _check_private({kind: engine.optimizer})


def _check_private(objects: Mapping[str, Any]) -> None:
    """Raise UserError if one of DeepSpeed's objects lacks an attribute of ``PRIVATE``."""
    for kind, found in objects.items():
        for name in PRIVATE[kind]:
            try:
                attrgetter(name)(found)
            except AttributeError as error:
                raise UserError(
                    f"DeepSpeed {version('deepspeed')}: its {kind} has no {name}, which hnc-ds "
                    f"uses; install a version that hnc-ds supports ({pip_install()})"
                ) from error


class State(NamedTuple):
    """The part of an engine's state that a checkpoint keeps. Tensors are fp32 and on the CPU."""

    weights: dict[str, torch.Tensor]
    """By the model's parameter name."""
    moments: dict[str, torch.Tensor]
    """Optimizer state by ``NAME/KEY``; KEY is the optimizer's, such as exp_avg."""
    averages: dict[str, torch.Tensor]
    """Moving averages of the trained weights, by name; empty without --ema."""
    scalars: dict[str, Any]
    """JSON values: optimizer step, schedule, loss scale."""


class _Schedule(msgspec.Struct):
    last_batch_iteration: int = -1


class _Scalars(msgspec.Struct):
    """The form of ``State.scalars``."""

    optimizer_step: float
    global_steps: int
    skipped_steps: int
    schedule: _Schedule
    loss_scaler: dict[str, float | int | bool | None]


class Engine:
    """A model under DeepSpeed.

    Args:
        model: On the CPU, fp32, every trained parameter with at least one dimension.
        groups: Trained parameters, as ``Clip.parameter_groups`` returns them.
        config: Result of ``resolve``.
        not_kept: Prefix of the names of parameters that a checkpoint leaves out.

    Raises:
        UserError: DeepSpeed cannot start, or lacks an attribute of ``PRIVATE``.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        groups: list[dict[str, Any]],
        config: dict[str, Any],
        not_kept: str = "reference.",
    ) -> None:
        with _quiet():
            import deepspeed

        # On a CPU, DeepSpeed would compile its own collectives, which takes half a minute, crashes
        # without a compiler, and is no better than gloo.
        _check_private({"package": deepspeed})
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        kept = {n: p for n, p in model.named_parameters() if not n.startswith(not_kept)}
        initial = {name: p.detach().clone() for name, p in kept.items()}
        self._frozen = {name: initial[name] for name, p in kept.items() if not p.requires_grad}
        self._shapes = {name: tensor.shape for name, tensor in initial.items()}
        for section, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
            if config.get(section, {}).get("enabled"):
                fit_buffers(model, dtype)
        refused = "DeepSpeed cannot start with this JSON of its settings"
        with _one_line(refused), _compiled_when_called():
            self._engine, *_ = deepspeed.initialize(
                model=model, model_parameters=groups, config=config
            )
        _check_engine(self._engine)
        names = {p: n for n, p in self._engine.module.named_parameters() if p.requires_grad}
        self._fragments = Fragments(self._engine, names)
        self._flat_step = _flat_step(self._engine, config)
        # DeepSpeed rounds the module to 16 bits before it copies the fp32 weights from it.
        self._write_masters(initial)
        self._l2_sp, self._reference = 0.0, dict[torch.Tensor, torch.Tensor]()
        self._decay, self._averages = 0.0, dict[torch.Tensor, torch.Tensor]()
        self._mirrors = list[Mirror]()
        self._skipped = False
        # Until a warm-up schedule is stepped once, its rate is the least one: 0, unless it says
        # otherwise. The first step would train nothing, and every other one come a step late.
        schedule = self._engine.lr_scheduler
        if type(schedule).__name__ in WARM_UP and schedule.last_batch_iteration < 0:
            schedule.step(0)
        self._rate = self._next_rate()

    @property
    def device(self) -> torch.device:
        """This rank's device."""
        return torch.device(self._engine.device)

    @property
    def module(self) -> Any:
        """The model."""
        return self._engine.module

    @property
    def micro_batches(self) -> int:
        """gradient_accumulation_steps: backward passes of a step."""
        return int(self._engine.gradient_accumulation_steps())

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled (fp16), so that gradients may overflow and steps be
        skipped."""
        scalers = (
            getattr(self._engine, "torch_autocast_z0_gradscaler", None),
            getattr(self._engine.optimizer, "torch_autocast_gradscaler", None),
        )
        return bool(self._engine.fp16_enabled()) or any(s is not None for s in scalers)

    def close(self) -> None:
        """Free the memory, which DeepSpeed's hooks keep in reference cycles."""
        self._engine.destroy()

    def forward(self, *inputs: Any) -> Any:
        """The model's forward, with DeepSpeed's hooks."""
        return self._engine(*inputs)

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Backward pass of a micro-batch. After the last one of a step, also average gradients over
        ranks, clip them, and step the optimizer and the schedule.

        Gradients of micro-batches are summed, not averaged.

        Raises:
            UserError: fp16 overflows even with the smallest loss scale.
        """
        self._engine.backward(loss, scale_wrt_gas=False)
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self._flat_step is None and not self._is_ready_for_deepspeeds_step():
            return
        skipped = self._engine.skipped_steps
        self._rate = self._next_rate() if last else self._rate
        try:
            self._engine.step()
        except Exception as error:  # DeepSpeed raises a plain Exception
            if "loss scale already at minimum" in str(error):
                raise UserError(
                    "fp16 overflows even with the smallest loss scale; lower the learning rate, or "
                    "train in bf16, and start again with --resume"
                ) from error
            raise
        if last and self._decay and self._engine.skipped_steps == skipped:
            self._average()

    def unsound(self) -> torch.Tensor:
        """1 if the gradient of the last step was not finite, so that the step was skipped, else 0;
        float32, one element, on the device and equal on all ranks."""
        if self._flat_step is not None:
            return self._flat_step.unsound
        skipped = self._skipped or bool(getattr(self._engine.optimizer, "overflow", False))
        return torch.full((1,), float(skipped), device=self.device)

    def _is_ready_for_deepspeeds_step(self) -> bool:
        """Add the gradient of l2_sp, and without ZeRO skip the step if the norm is not finite, as
        DeepSpeed's own step does not. Returns False for a skipped step."""
        if self._l2_sp:
            self._add_l2_sp()
        if self._fragments.stage == 0:
            gradients = [p.grad for p in self._fragments.masters() if p.grad is not None]
            self._skipped = not bool(torch.nn.utils.get_total_norm(gradients).isfinite())
        if self._skipped:
            self._engine.zero_grad()
            self._engine.micro_steps += 1
        return not self._skipped

    def _average(self) -> None:
        """Update the moving averages, unless the step was skipped."""
        share = (1 - self._decay) * (1 - self.unsound())
        for master, average in self._averages.items():
            average.lerp_(master.detach(), share.to(average))
        for mirror in self._mirrors:
            mirror.update()

    def pull_to_reference(self, weight: float, reference: Mapping[str, torch.Tensor]) -> None:
        """Add the term l2_sp, ``weight`` times the squared distance of the trained weights from the
        reference weights: its exact gradient on the fp32 weights, under every ZeRO stage.

        Args:
            weight: Weight of the term.
            reference: Whole tensors by parameter name.

        Source: L2-SP (Li et al. 2018).
        """
        self._l2_sp = weight
        self._reference = self._fragments.laid_out_like_masters(reference)
        if self._flat_step is not None:
            self._flat_step.change = self._add_l2_sp_to

    def _add_l2_sp_to(self, gradient: torch.Tensor, master: torch.Tensor) -> None:
        """Add the term's gradient to that of the weights, which is multiplied by the loss scale."""
        scale = 2 * self._l2_sp * self._loss_scale()
        gradient.add_(master - self._reference[master], alpha=scale)

    def _loss_scale(self) -> float:
        return float(self._engine.optimizer.loss_scale) if self._engine.fp16_enabled() else 1.0

    def _add_l2_sp(self) -> None:
        scale = 2 * self._l2_sp * self._loss_scale()
        for fragment in self._fragments:
            difference = fragment.weights() - fragment.of(self._reference[fragment.master])
            self._fragments.add_to_gradient(fragment, scale * difference)

    def distance_to_reference(self) -> float:
        """Squared distance of the trained weights from the reference weights. A collective."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for master, reference in self._reference.items():
            total += (master.detach() - reference).double().square().sum().to(self.device)
        return float(sum_over_ranks(total) if self._fragments.stage else total)

    def average(self, decay: float, before: Mapping[str, torch.Tensor]) -> None:
        """Keep an exponential moving average of the trained fp32 weights.

        Args:
            decay: Factor of the previous average at each step.
            before: Averages to continue, whole, by name; empty to start from the weights.
        """
        self._decay = decay
        self._averages = self._fragments.laid_out_like_masters(before)

    def reference_follows(self, prefix: str = "reference.") -> None:
        """Make the reference model the moving average, now and after every step. A collective.

        Args:
            prefix: Of the names of its parameters.
        """
        named = self.module.named_parameters()
        copies = {name.removeprefix(prefix): p for name, p in named if name.startswith(prefix)}
        self._mirrors = self._fragments.mirror(self._averages, copies)
        for mirror in self._mirrors:
            mirror.update()

    def measures(self) -> dict[str, float]:
        """Learning rate and gradient norm before clipping, if known, of the last step, loss scale
        and skipped steps in fp16, l2_sp if it is trained, by tag of the log. A collective."""
        found = {"learning_rate": self._rate}
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            found["gradient_norm"] = float(norm)
        if self._engine.fp16_enabled():
            found["loss_scale"] = float(self._engine.optimizer.loss_scale)
            found["skipped_steps"] = float(self._engine.skipped_steps)
        if self._l2_sp:
            found["loss/l2_sp"] = self.distance_to_reference()
        return found

    def state(self) -> State:
        """Gather the whole state. A collective. Ranks other than 0 get no tensors."""
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
                {
                    fragment.name: fragment.of(optimizer[fragment.master][key])
                    for fragment in self._fragments
                }
            ).items()
        }
        averages = {
            fragment.name: fragment.of(self._averages[fragment.master])
            for fragment in (self._fragments if self._decay else ())
        }
        averages = self._gather(averages) if self._decay else {}
        return State(weights, moments, averages, self._scalars())

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """The model's fp32 weights by name, on rank 0. A collective."""
        weights = self._gather({fragment.name: fragment.weights() for fragment in self._fragments})
        if rank() == 0:
            weights.update({name: tensor.float() for name, tensor in self._frozen.items()})
        return weights

    def restore(self, moments: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> None:
        """Restore optimizer state and scalars of ``state``. The weights are those that the engine
        was made with.

        Raises:
            msgspec.ValidationError: The scalars have another form.
        """
        saved = msgspec.convert(scalars, _Scalars)
        optimizer = self._basic_optimizer()
        keys = sorted({name.rpartition("/")[2] for name in moments})
        for fragment in self._fragments:
            state = optimizer.state[fragment.master]
            for key in keys:
                if key not in state:
                    state[key] = torch.zeros_like(fragment.master)
                fragment.of(state[key]).copy_(fragment.of_whole(moments[f"{fragment.name}/{key}"]))
            _set_step(optimizer, fragment.master, saved.optimizer_step)
        self._engine.global_steps = saved.global_steps
        self._engine.skipped_steps = saved.skipped_steps
        iteration = saved.schedule.last_batch_iteration
        if self._engine.lr_scheduler is not None and iteration >= 0:
            self._engine.lr_scheduler.step(iteration)
        self._rate = self._next_rate()
        scaler = self._loss_scaler()
        for name, value in saved.loss_scaler.items() if scaler is not None else ():
            setattr(scaler, name, value)

    def _next_rate(self) -> float:
        return float(self._engine.get_lr()[0])

    def _scalars(self) -> dict[str, Any]:
        optimizer = self._basic_optimizer()
        holders = [*optimizer.state.values(), *optimizer.param_groups]  # depends on the optimizer
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
            for fragment in self._fragments:
                fragment.weights().copy_(fragment.of_whole(weights[fragment.name]))

    def _gather(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._fragments.gather(values, self._shapes)


def _flat_step(engine: Any, config: Mapping[str, Any]) -> FlatStep | None:
    """This project's optimizer step for ZeRO 1 and 2, unless a setting needs DeepSpeed's own."""
    zero, settings = engine.optimizer, config.get("zero_optimization", {})
    stage = engine.zero_optimization_stage()
    if stage == 3 and not zero.offload_optimizer:
        flatten_stage_3(zero)
    if stage not in (1, 2) or zero.cpu_offload or zero.torch_autocast_gradscaler is not None:
        return None
    return FlatStep(zero, settings.get("overlap_comm") is not False)


def _set_step(optimizer: torch.optim.Optimizer, master: torch.Tensor, step: float) -> None:
    """Set an optimizer's step count, wherever its class keeps it."""
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
    """The numbers of a loss scaler; empty without one."""
    values = vars(scaler) if scaler is not None else {}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float))}


def _accelerator() -> Any:
    with _quiet():
        from deepspeed.accelerator import get_accelerator

    return get_accelerator()


@contextmanager
def _compiled_when_called() -> Iterator[None]:
    """Functions given to torch.compile within are compiled at their first call.

    DeepSpeed decorates those of an optimizer, Muon, whatever the optimizer, and to decorate is to
    load torch's compiler: more than a second of every start.
    """
    compiled = torch.compile

    def later(function: Callable[..., Any] | None = None, **how: Any) -> Callable[..., Any]:
        if function is None or isinstance(function, torch.nn.Module):
            return compiled(function, **how)
        once = cache(partial(compiled, function, **how))
        return wraps(function)(lambda *given, **named: once()(*given, **named))

    torch.compile = later  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiled


@contextmanager
def _quiet() -> Iterator[None]:
    """Import DeepSpeed in this block, with a log that is silent but for errors; the run has its
    own."""
    # DeepSpeed calls collectives by deprecated names.
    old_names = r"`torch\.distributed\.\w+` is deprecated"
    warnings.filterwarnings("ignore", old_names, FutureWarning)
    for name in ("DeepSpeed", "deepspeed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with importing():
        yield
