"""Schema of DeepSpeed's JSON: keys and value types of each section.

DeepSpeed validates some sections when its engine starts, with a traceback, and others not at all. A
test compares THE TABLE with DeepSpeed's own models.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

AUTO = "auto"
"""Value of scheduler.params.total_num_steps for the steps of the run."""


class Kind(NamedTuple):
    """The values that a key may have."""

    description: str
    """As in 'it must be ...'."""
    fits: Callable[[Any], bool]


Section: TypeAlias = "Mapping[str, Kind | Section]"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def whole(least: int, most: float = math.inf) -> Kind:
    """An integer, also in the form 5e8."""
    return Kind(
        f"a whole number from {least}" + ("" if most == math.inf else f" to {most}"),
        lambda value: _is_number(value) and value == int(value) and least <= value <= most,
    )


def number(least: float = -math.inf, most: float = math.inf) -> Kind:
    """A number in a closed range."""
    low = "" if least == -math.inf else f" from {least:g}"
    high = "" if most == math.inf else f" to {most:g}"
    return Kind(f"a number{low}{high}", lambda value: _is_number(value) and least <= value <= most)


def one_of(*names: str) -> Kind:
    """One of several strings."""
    return Kind("one of " + ", ".join(names), lambda value: value in names)


def or_else(kind: Kind, value: Any, description: str) -> Kind:
    """A kind, or one more value."""
    return Kind(
        f"{kind.description} or {description}", lambda given: given == value or kind.fits(given)
    )


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OFF = Kind("false", lambda value: value is False)
TEXT = Kind("a text", lambda value: isinstance(value, str) and bool(value))
TEXTS = Kind("a list of texts", lambda v: isinstance(v, list) and all(map(TEXT.fits, v)))
ANY_SECTION = Kind("a section {...}", lambda value: isinstance(value, dict))
BETAS = Kind(
    "two numbers from 0 to less than 1",
    lambda v: isinstance(v, list) and len(v) == 2 and all(_is_number(b) and 0 <= b < 1 for b in v),
)
RATE = number(0)
RATES = Kind(
    "a number from 0, or a list of them",
    lambda value: all(map(RATE.fits, value if isinstance(value, list) else [value])),
)
COUNT = whole(0)
DTYPE = one_of("fp32", "fp16", "bf16")
STEPS_OF_RUN = or_else(whole(1), AUTO, f'"{AUTO}", the --steps of the run')


def maybe(kind: Kind) -> Kind:
    """A kind, or null."""
    return or_else(kind, None, "null")


_TORCH: dict[str, Kind] = {
    "foreach": FLAG,
    "maximize": FLAG,
    "capturable": FLAG,
    "differentiable": OFF,
}
_ADAM: dict[str, Kind] = {
    **{"lr": RATE, "betas": BETAS, "eps": RATE, "weight_decay": RATE, "amsgrad": FLAG},
    **{"torch_adam": FLAG, "adam_w_mode": FLAG, "bias_correction": FLAG, "set_grad_none": FLAG},
    **{"fp32_optimizer_states": FLAG, "fused": FLAG, "adamw_mode": FLAG},
    **_TORCH,
}
_DECAYED: dict[str, Kind] = {"lr": RATE, "weight_decay": RATE}
OPTIMIZERS: dict[str, Section] = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Adagrad": {**_DECAYED, "eps": RATE, "lr_decay": RATE, "initial_accumulator_value": RATE}
    | {"fused": FLAG, "amsgrad": FLAG}
    | _TORCH,
    "Lamb": {**_DECAYED, "betas": BETAS, "eps": RATE, "bias_correction": FLAG, "amsgrad": FLAG}
    | {"eps_inside_sqrt": FLAG, "max_coeff": RATE, "min_coeff": RATE},
    "Lion": {**_DECAYED, "betas": BETAS, "set_grad_none": FLAG, "fp32_optimizer_states": FLAG},
    "SGD": {**_DECAYED, "momentum": RATE, "dampening": RATE, "nesterov": FLAG, "fused": FLAG}
    | {"foreach": FLAG, "maximize": FLAG, "differentiable": OFF},
    "RMSprop": {**_DECAYED, "alpha": RATE, "eps": RATE, "momentum": RATE, "centered": FLAG}
    | _TORCH,
    "Adamax": {**_DECAYED, "betas": BETAS, "eps": RATE} | _TORCH,
    "NAdam": {**_DECAYED, "betas": BETAS, "eps": RATE, "momentum_decay": RATE}
    | {"decoupled_weight_decay": FLAG}
    | _TORCH,
    "RAdam": {**_DECAYED, "betas": BETAS, "eps": RATE, "decoupled_weight_decay": FLAG} | _TORCH,
    "Adadelta": {**_DECAYED, "rho": RATE, "eps": RATE} | _TORCH,
}
"""Parameters of optimizers, by DeepSpeed's or torch's name."""

IN_ANY_CASE = frozenset(("Adam", "AdamW", "Adagrad", "Lamb", "Lion"))
"""Optimizers whose name DeepSpeed matches case-insensitively."""

OTHER_TYPES = frozenset(
    (
        *("ASGD", "Adafactor", "Muon", "muon", "Rprop", "MuAdam", "MuAdamW", "MuSGD", "ConstantLR"),
        *("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR"),
        *("LinearLR", "MultiStepLR", "OneCycleLR", "PolynomialLR", "StepLR"),
    )
)
"""Other optimizers and schedules that DeepSpeed accepts; their parameters are not checked here."""

_WARMUP: dict[str, Kind] = {"warmup_num_steps": whole(1), "warmup_type": one_of("log", "linear")}
_LAST: dict[str, Kind] = {"last_batch_iteration": whole(-1)}
SCHEDULERS: dict[str, Section] = {
    "LRRangeTest": {"lr_range_test_min_lr": RATES, "lr_range_test_step_size": whole(1)}
    | {"lr_range_test_step_rate": RATE, "lr_range_test_staircase": FLAG}
    | _LAST,
    "OneCycle": {"cycle_min_lr": RATES, "cycle_max_lr": RATES, "decay_lr_rate": RATE}
    | {"cycle_first_step_size": whole(1), "cycle_second_step_size": maybe(whole(1))}
    | {"cycle_first_stair_count": COUNT, "cycle_second_stair_count": maybe(COUNT)}
    | {"decay_step_size": COUNT, "cycle_momentum": FLAG, "cycle_min_mom": RATE}
    | {"cycle_max_mom": RATE, "decay_mom_rate": RATE}
    | _LAST,
    "WarmupLR": {"warmup_min_lr": RATES, "warmup_max_lr": maybe(RATES)} | _WARMUP | _LAST,
    "WarmupDecayLR": {"total_num_steps": STEPS_OF_RUN, "warmup_min_lr": RATES}
    | {"warmup_max_lr": RATES}
    | _WARMUP
    | _LAST,
    "WarmupCosineLR": {"total_num_steps": STEPS_OF_RUN, "warmup_min_ratio": number(0, 1)}
    | {"cos_min_ratio": number(0, 1)}
    | _WARMUP
    | _LAST,
}
"""Parameters of DeepSpeed's schedules."""

NEEDED = {
    "OneCycle": ("cycle_min_lr", "cycle_max_lr"),
    "WarmupDecayLR": ("total_num_steps",),
    "WarmupCosineLR": ("total_num_steps",),
}
"""Required parameters of schedules."""

_OFFLOADED: Section = {
    "device": Kind(
        "one of none, cpu, nvme; without the section all stays on the GPU",
        lambda value: value in ("none", "cpu", "nvme"),
    ),
    **{"nvme_path": maybe(TEXT), "buffer_count": COUNT, "pin_memory": FLAG},
}
STAGE = Kind("0, 1, 2 or 3, a number", lambda value: type(value) is int and 0 <= value <= 3)
_ZERO: Section = {
    "stage": STAGE,
    **dict.fromkeys(("contiguous_gradients", "reduce_scatter", "allgather_partitions"), FLAG),
    **dict.fromkeys(("use_multi_rank_bucket_allreduce", "load_from_fp32_weights"), FLAG),
    "reduce_bucket_size": whole(1),
    **dict.fromkeys(("allgather_bucket_size", "sub_group_size"), COUNT),
    "overlap_comm": maybe(FLAG),
    **dict.fromkeys(("compute_grad_norm", "elastic_checkpoint", "legacy_stage1"), FLAG),
    "offload_param": {**_OFFLOADED, "buffer_size": COUNT, "max_in_cpu": COUNT},
    "offload_optimizer": {
        **_OFFLOADED,
        **dict.fromkeys(("pipeline_read", "pipeline_write", "fast_init", "super_offload"), FLAG),
        **dict.fromkeys(("ratio", "cpuadam_cores_perc"), number(0, 1)),
    },
    **dict.fromkeys(("cpu_offload", "cpu_offload_param"), maybe(FLAG)),
    "cpu_offload_use_pin_memory": maybe(FLAG),
    **{
        name: kind
        for short, kind in (
            ("prefetch_bucket_size", COUNT),
            ("param_persistence_threshold", COUNT),
            ("model_persistence_threshold", COUNT),
            ("max_live_parameters", COUNT),
            ("max_reuse_distance", COUNT),
            ("gather_16bit_weights_on_model_save", FLAG),
            ("module_granularity_threshold", COUNT),
            ("use_all_reduce_for_fetch_params", FLAG),
            ("allgather_sequential", FLAG),
        )
        for name in (short, f"stage3_{short}")
    },
    "stage3_gather_fp16_weights_on_model_save": FLAG,
    **dict.fromkeys(("ignore_unused_parameters", "round_robin_gradients"), FLAG),
    **dict.fromkeys(("parameter_alignment", "memory_efficient_linear"), FLAG),
    "zero_hpz_partition_size": COUNT,
    **dict.fromkeys(("zero_quantized_weights", "zero_quantized_gradients"), FLAG),
    "zero_quantized_nontrainable_weights": FLAG,
    **dict.fromkeys(("pipeline_loading_checkpoint", "override_module_apply"), FLAG),
    **dict.fromkeys(("log_trace_cache_warnings", "enable_sanity_checks"), FLAG),
    "save_muon_momentum_buffer_in_memory": FLAG,
    "leaf_module": {"classes": TEXTS, "names": TEXTS, "name_suffixes": TEXTS},
}

SIZES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
"""The first is the product of the other two and the number of ranks."""

SECTIONS: Section = {
    **dict.fromkeys(SIZES, Kind("a whole number from 1", lambda v: type(v) is int and v >= 1)),
    "optimizer": {"type": TEXT, "params": ANY_SECTION, "legacy_fusion": FLAG},
    "scheduler": {"type": TEXT, "params": ANY_SECTION},
    "zero_optimization": _ZERO,
    "bf16": {
        **dict.fromkeys(("enabled", "immediate_grad_update", "check_grad_overflow"), FLAG),
        **dict.fromkeys(("bf16_master_weights_and_grads", "bf16_optimizer_states"), FLAG),
    },
    "fp16": {
        **dict.fromkeys(("enabled", "auto_cast", "consecutive_hysteresis"), FLAG),
        "loss_scale": RATE,
        "initial_scale_power": whole(0, 127),
        **dict.fromkeys(("loss_scale_window", "min_loss_scale"), whole(1)),
        "hysteresis": COUNT,
        "fp16_master_weights_and_grads": FLAG,
    },
    "torch_autocast": {"enabled": FLAG, "dtype": TEXT, "lower_precision_safe_modules": TEXTS},
    "gradient_clipping": RATE,
    "gradient_predivide_factor": number(1e-30),
    "gradient_allreduce_op": one_of("mean"),
    "communication_data_type": maybe(DTYPE),
    **dict.fromkeys(("prescale_gradients", "fp32_allreduce", "disable_allgather"), FLAG),
    **dict.fromkeys(("disable_python_gc", "dump_state", "memory_breakdown"), FLAG),
    **dict.fromkeys(("wall_clock_breakdown", "zero_allow_untested_optimizer"), FLAG),
    "zero_force_ds_cpu_optimizer": FLAG,
    "steps_per_print": maybe(whole(1)),
    "log_level": TEXT,
    "data_types": {
        **dict.fromkeys(("grad_accum_dtype", "param_dtype", "buffer_dtype"), maybe(DTYPE)),
        "keep_in_fp32_modules": or_else(TEXTS, AUTO, f'"{AUTO}"'),
    },
    "activation_checkpointing": {
        **dict.fromkeys(("partition_activations", "contiguous_memory_optimization"), FLAG),
        **dict.fromkeys(("cpu_checkpointing", "synchronize_checkpoint_boundary", "profile"), FLAG),
        "number_checkpoints": maybe(COUNT),
    },
    "aio": {
        **dict.fromkeys(("block_size", "queue_depth", "intra_op_parallelism"), whole(1)),
        **dict.fromkeys(("single_submit", "overlap_events", "use_gds"), FLAG),
        "thread_count": whole(1),
    },
    "checkpoint": ANY_SECTION,
    "autotuning": ANY_SECTION,
    "compile": ANY_SECTION,
    "comms_logger": {
        **dict.fromkeys(("enabled", "prof_all", "verbose", "debug"), FLAG),
        "prof_ops": TEXTS,
    },
    "flops_profiler": {
        **dict.fromkeys(("enabled", "detailed"), FLAG),
        "recompute_fwd_factor": RATE,
        **dict.fromkeys(("profile_step", "top_modules"), whole(1)),
        "module_depth": whole(-1),
        "output_file": maybe(TEXT),
    },
    "timers": {"throughput": {"enabled": FLAG, "synchronized": FLAG}},
    "tensorboard": {"enabled": FLAG, "output_path": TEXT, "job_name": TEXT},
    "csv_monitor": {"enabled": FLAG, "output_path": TEXT, "job_name": TEXT},
    "wandb": {"enabled": FLAG, "group": maybe(TEXT), "team": maybe(TEXT), "project": TEXT},
    "comet": {
        "enabled": FLAG,
        "samples_log_interval": whole(1),
        **dict.fromkeys(("project", "workspace", "api_key", "experiment_name"), maybe(TEXT)),
        **dict.fromkeys(("experiment_key", "mode"), maybe(TEXT)),
        "online": maybe(FLAG),
    },
}
"""THE TABLE. Top-level sections that DeepSpeed reads and that are supported here."""

MAY_BE_AUTO = frozenset(("scheduler.params.total_num_steps", "data_types.keep_in_fp32_modules"))

UNSUPPORTED_SECTIONS = frozenset(
    (
        "compression_training",
        "curriculum_learning",
        "data_efficiency",
        "elasticity",
        "expert_parallel",
        "hybrid_engine",
        "pipeline",
        "sequence_parallel_size",
        "sparse_gradients",
        "tensor_parallel",
        "weight_quantization",
        "zenflow",
    )
)
"""Sections that would change what this project computes, or that DeepSpeed has dropped."""

INSTEAD = {
    "gradient_checkpointing": "the flag --grad_checkpointing does it",
    "bfloat16": "write bf16",
    "amp": "write bf16 or fp16",
    "max_grad_norm": "write gradient_clipping at the top",
    "lr": "write optimizer.params.lr",
    "learning_rate": "write optimizer.params.lr",
    "weight_decay": "write optimizer.params.weight_decay",
    "warmup_steps": "write scheduler.params.warmup_num_steps",
    "max_steps": "the flag --steps does it",
    "num_train_epochs": "the flag --epochs does it",
    "seed": "the flag --seed does it",
}
"""What replaces common keys of other configurations."""
