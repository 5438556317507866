"""DeepSpeed's JSON: found by path or name, checked, and completed for a number of ranks.

Batch, optimizer, learning rate, schedule, precision and ZeRO live there and nowhere else. DeepSpeed
ignores what it does not know; here that is refused. Nothing here imports DeepSpeed.
"""

import json
from pathlib import Path
from typing import Any

from hnc_ds.errors import UserError, did_you_mean

SHIPPED_CONFIGS = (
    Path(__file__).parent / "ds_configs",  # installed
    Path(__file__).parent.parent / "ds_configs",  # a checkout
)

KNOWN_SECTIONS = frozenset(
    (
        "activation_checkpointing",
        "aio",
        "autotuning",
        "bf16",
        "checkpoint",
        "comms_logger",
        "communication_data_type",
        "comet",
        "compile",
        "csv_monitor",
        "data_types",
        "disable_allgather",
        "disable_python_gc",
        "dump_state",
        "flops_profiler",
        "fp16",
        "fp32_allreduce",
        "gradient_accumulation_steps",
        "gradient_allreduce_op",
        "gradient_clipping",
        "gradient_predivide_factor",
        "log_level",
        "memory_breakdown",
        "optimizer",
        "prescale_gradients",
        "scheduler",
        "sparse_gradients",
        "steps_per_print",
        "tensorboard",
        "timers",
        "torch_autocast",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "wall_clock_breakdown",
        "wandb",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "zero_optimization",
    )
)
"""Top-level sections that DeepSpeed reads and that mean something here. It ignores all others."""

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
        "tensor_parallel",
        "weight_quantization",
    )
)
"""Sections by which DeepSpeed would train something else than what this project computes."""

AUTO = "auto"
"""scheduler.params.total_num_steps may be this: the steps of the run."""


def find_deepspeed_config(given: Path) -> Path:
    """The file meant by a path, or by the name of a shipped configuration.

    Raises:
        UserError: There is none.
    """
    if given.is_file():
        return given
    by_name = given.parent in (Path(), Path("ds_configs"))
    for folder in SHIPPED_CONFIGS if by_name else ():
        if (shipped := folder / f"{given.name.removesuffix('.json')}.json").is_file():
            return shipped
    names = sorted({path.stem for folder in SHIPPED_CONFIGS for path in folder.glob("*.json")})
    raise UserError(
        f"no DeepSpeed config at {given}; give a file or one of {', '.join(names)} "
        "with --deepspeed_config"
    )


def read_deepspeed_config(path: Path) -> dict[str, Any]:
    """Read DeepSpeed's JSON and refuse what DeepSpeed would silently ignore or get wrong.

    Raises:
        UserError: Not JSON, an unknown section, or a setting that cannot work here.
    """
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a DeepSpeed config; it must be a JSON object")
    for section in config:
        if section in UNSUPPORTED_SECTIONS:
            raise UserError(f"{path}: section '{section}' is not supported here; remove it")
        if section not in KNOWN_SECTIONS:
            raise UserError(
                f"{path}: unknown section '{section}'; DeepSpeed would ignore it"
                f"{did_you_mean(section, KNOWN_SECTIONS)}"
            )
    _check_batch(config, path)
    if "optimizer" not in config:
        raise UserError(f"{path}: no optimizer section")
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise UserError(f"{path}: zero_optimization.stage is {stage}; it must be 0, 1, 2 or 3")
    if stage == 0 and (_enabled(config, "fp16") or _enabled(config, "bf16")):
        raise UserError(
            f"{path}: 16-bit training needs its fp32 weights in ZeRO; "
            "set zero_optimization.stage to 1, 2 or 3"
        )
    return config


def _check_batch(config: dict[str, Any], path: Path) -> None:
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu")
    if not any(name in config for name in sizes):
        raise UserError(f"{path}: no train_batch_size; it is the batch of all GPUs together")
    for name in sizes:
        if name in config and (not isinstance(config[name], int) or config[name] < 1):
            raise UserError(f"{path}: {name} is {config[name]!r}; it must be a number of images")
    if config.get("gradient_accumulation_steps", 1) != 1:
        raise UserError(
            f"{path}: gradient_accumulation_steps is {config['gradient_accumulation_steps']}; a "
            "contrastive batch cannot be added up from smaller ones, set it to 1"
        )


def resolve(config: dict[str, Any], where: Path, ranks: int, steps: int) -> dict[str, Any]:
    """Fill in what depends on the number of ranks and the length of the run.

    Args:
        config: Of ``read_deepspeed_config``.
        where: Its file, for errors.
        ranks: Processes that train.
        steps: Of the whole run.

    Returns:
        A copy with train_batch_size and train_micro_batch_size_per_gpu that fit together.

    Raises:
        UserError: The batch does not divide.
    """
    resolved = json.loads(json.dumps(config))
    batch = config.get("train_batch_size")
    per_rank = config.get("train_micro_batch_size_per_gpu")
    if batch is None:
        batch = config["train_micro_batch_size_per_gpu"] * ranks
    if batch % ranks or (per_rank is not None and per_rank * ranks != batch):
        wanted = f", but train_micro_batch_size_per_gpu is {per_rank}" if per_rank else ""
        raise UserError(
            f"{where}: train_batch_size {batch} does not divide by {ranks} ranks{wanted}; "
            f"{batch - batch % ranks or ranks} would"
        )
    resolved["train_batch_size"] = batch
    resolved["train_micro_batch_size_per_gpu"] = batch // ranks
    resolved["gradient_accumulation_steps"] = 1
    resolved.setdefault("steps_per_print", 10**9)  # the monitor prints
    schedule = resolved.get("scheduler", {}).get("params", {})
    if schedule.get("total_num_steps") == AUTO:
        schedule["total_num_steps"] = steps
    return resolved


def _enabled(config: dict[str, Any], section: str) -> bool:
    return bool(config.get(section, {}).get("enabled", False))
