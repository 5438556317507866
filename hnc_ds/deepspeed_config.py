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

SIZES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
"""The first is the product of the other two and the number of ranks."""

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
    if not any(name in config for name in SIZES[:2]):
        raise UserError(f"{path}: no train_batch_size; it is the batch of all GPUs together")
    for name in SIZES:
        if name in config and (type(config[name]) is not int or config[name] < 1):
            raise UserError(f"{path}: {name} is {config[name]!r}; it must be a whole number from 1")


def resolve(config: dict[str, Any], where: Path, ranks: int, steps: int) -> dict[str, Any]:
    """Fill in what depends on the number of ranks and the length of the run.

    Args:
        config: Of ``read_deepspeed_config``.
        where: Its file, for errors.
        ranks: Processes that train.
        steps: Of the whole run.

    Returns:
        A copy with train_batch_size, train_micro_batch_size_per_gpu and
        gradient_accumulation_steps that fit together. The last is in how many parts a rank's rows
        go through the towers; the loss is that of the whole batch all the same.

    Raises:
        UserError: The batch does not divide.
    """
    resolved = json.loads(json.dumps(config))
    resolved.update(zip(SIZES, _sizes(config, where, ranks), strict=True))
    resolved.setdefault("steps_per_print", 10**9)  # the monitor prints
    schedule = resolved.get("scheduler", {}).get("params", {})
    if schedule.get("total_num_steps") == AUTO:
        schedule["total_num_steps"] = steps
    return resolved


def _sizes(config: dict[str, Any], where: Path, ranks: int) -> tuple[int, int, int]:
    """Batch of all ranks, rows of a rank at a time, and parts; any two give the third."""
    batch, per_part, parts = (config.get(name) for name in SIZES)
    if batch is None:
        return int(per_part or 1) * ranks * (parts or 1), int(per_part or 1), parts or 1
    if per_part is not None and parts is None and batch % (ranks * per_part) == 0:
        parts = batch // (ranks * per_part)
    parts = parts or 1
    rows = batch // (ranks * parts)
    if batch % (ranks * parts) or (per_part is not None and per_part != rows):
        wanted = f" times {parts} gradient_accumulation_steps" if parts > 1 else ""
        of_part = f", but {SIZES[1]} is {per_part}" if per_part else ""
        raise UserError(
            f"{where}: train_batch_size {batch} does not divide by {ranks} ranks{wanted}{of_part}; "
            f"{batch - batch % (ranks * parts) or ranks * parts} would"
        )
    return batch, rows, parts


def _enabled(config: dict[str, Any], section: str) -> bool:
    return bool(config.get(section, {}).get("enabled", False))
