"""DeepSpeed's JSON: found by path or name, validated, and completed for a number of ranks.

It is the only place for optimizer, schedule, precision and ZeRO; flags may override batch size,
learning rate, warm-up and weight decay. DeepSpeed ignores unknown keys; here they are errors.
Nothing here imports DeepSpeed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from hnc_ds.engine.deepspeed_keys import (
    AUTO,
    IN_ANY_CASE,
    INSTEAD,
    MAY_BE_AUTO,
    NEEDED,
    OPTIMIZERS,
    OTHER_TYPES,
    SCHEDULERS,
    SECTIONS,
    SIZES,
    UNSUPPORTED_SECTIONS,
    Kind,
    Section,
)
from hnc_ds.errors import UserError, counted, did_you_mean
from hnc_ds.reading import read_json

SHIPPED_CONFIGS = (
    Path(__file__).parents[1] / "ds_configs",  # installed
    Path(__file__).parents[2] / "ds_configs",  # a checkout
)


HALVES = ("fp16", "bf16")
"""Sections that enable 16-bit training."""


def find_deepspeed_config(given: Path) -> Path:
    """The file with a path, or with the name of a shipped configuration.

    Raises:
        UserError: There is no such file.
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
    """Read and validate DeepSpeed's JSON.

    Raises:
        UserError: It is not JSON, or keys are unknown or have values that cannot work; names the
            first of them.
    """
    config = read_json(path, "write DeepSpeed's JSON anew", "not a JSON file")
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a DeepSpeed config; it must be a JSON object")
    if found := list(islice(_faults(config), MOST_FAULTS)) or list(_cannot_be(config)):
        raise UserError(f"{path}: {'. Also, '.join(found)}")
    return config


MOST_FAULTS = 4
"""Faults in one error message."""


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Unknown keys, and values of a wrong type or out of range."""
    yield from _autos(config)
    yield from _of_section(config, SECTIONS, "")
    for section, known in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)):
        if isinstance(given := config.get(section), dict):
            yield from _of_type(given, section, known)


def _of_type(given: Mapping[str, Any], section: str, known: Mapping[str, Section]) -> Iterator[str]:
    """Faults of an optimizer or a schedule, whose parameters depend on its type."""
    kind, params = given.get("type"), given.get("params", {})
    if "type" not in given:
        yield f"{section}.type is missing; write one of {', '.join(known)}"
    if section == "scheduler" and "params" not in given:
        yield "scheduler.params is missing; write a section {...}"
    if not isinstance(kind, str) or not isinstance(params, dict) or kind in OTHER_TYPES:
        return
    name = next((own for own in known if own.lower() == kind.lower()), None)
    if name is None or (name != kind and name not in IN_ANY_CASE):
        nearest = f"; did you mean '{name}'?" if name else did_you_mean(kind, known)
        yield f"{section}.type is {_shown(kind)}{nearest}; there are {', '.join(known)}"
        return
    yield from _of_section(params, known[name], f"{section}.params.")
    for needed in NEEDED.get(name, ()):
        if needed not in params:
            can = f"; '{AUTO}' is the --steps of the run" if needed == "total_num_steps" else ""
            yield f"{section}.params.{needed} is missing{can}"


def _of_section(given: Mapping[str, Any], known: Section, within: str) -> Iterator[str]:
    for key, value in given.items():
        kind = known.get(key)
        if kind is None:
            yield _unknown(key, known, within)
        elif value == AUTO:
            continue  # reported by _autos
        elif isinstance(kind, Kind):
            if not kind.fits(value):
                yield f"{within}{key} is {_shown(value)}; it must be {kind.description}"
        elif isinstance(value, dict):
            yield from _of_section(value, kind, f"{within}{key}.")
        else:
            yield f"{within}{key} is {_shown(value)}; it must be a section {{...}}, or be left out"


def _unknown(key: str, known: Section, within: str) -> str:
    what = f"{'key' if within else 'section'} '{within}{key[:60]}'"
    if key in UNSUPPORTED_SECTIONS and known in (SECTIONS, SECTIONS["zero_optimization"]):
        return f"{what} is not supported here; remove it"
    if key in INSTEAD:
        return f"unknown {what}; {INSTEAD[key]}"
    return f"unknown {what}; DeepSpeed would ignore it{did_you_mean(key, known)}"


def _autos(config: Mapping[str, Any]) -> Iterator[str]:
    """Values that are left to Hugging Face's Trainer."""
    found = [f"{place}{allowed}" for place, allowed in _places_of_auto(config, SECTIONS, "")]
    if found:
        are = "are" if len(found) > 1 else "is"
        yield (
            f"{', '.join(found)} {are} '{AUTO}', which only Hugging Face's Trainer fills in; write "
            "values, or leave out keys whose default will do"
        )


def _places_of_auto(value: Any, known: Any, place: str) -> Iterator[tuple[str, str]]:
    """Keys with the value auto, and a description of their values."""
    if isinstance(value, dict):
        known = _params_of(value, known)
        for key, part in value.items():
            kind = known.get(key) if isinstance(known, Mapping) else None
            yield from _places_of_auto(part, kind, f"{place}.{key}" if place else key)
    elif value == AUTO and place not in MAY_BE_AUTO:
        yield place, f" ({known.description})" if isinstance(known, Kind) else ""


def _params_of(section: Mapping[str, Any], known: Any) -> Any:
    """The schema of a section, with the parameters of its type."""
    kinds = {name.lower(): params for name, params in (OPTIMIZERS | SCHEDULERS).items()}
    named = section.get("type")
    if isinstance(named, str) and isinstance(known, Mapping) and named.lower() in kinds:
        return {**known, "params": kinds[named.lower()]}
    return known


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _cannot_be(config: Mapping[str, Any]) -> Iterator[str]:
    """Combinations of valid values that cannot work."""
    if not any(name in config for name in SIZES[:2]):
        yield "no train_batch_size; it is the batch of all GPUs together"
    if "optimizer" not in config:
        yield "no optimizer section"
    zero = config.get("zero_optimization", {})
    kind = config.get("optimizer", {}).get("type", "")
    if kind in NOT_SAVED or (kind.lower() == "adagrad" and zero.get("stage", 0) > 0):
        yield (
            f"optimizer.type {kind}{' under ZeRO' if kind not in NOT_SAVED else ''} has a state "
            "that checkpoints cannot hold; choose another one, such as AdamW"
        )
    if zero.get("stage", 0) == 0 and any(_enabled(config, name) for name in HALVES):
        yield (
            "16-bit training needs its fp32 weights in ZeRO; "
            "set zero_optimization.stage to 1, 2 or 3"
        )
    accumulates = config.get("data_types", {}).get("grad_accum_dtype")
    if zero.get("stage", 0) == 1 and _enabled(config, "bf16") and accumulates == "fp32":
        yield (
            "data_types.grad_accum_dtype fp32 with bf16 is another optimizer of DeepSpeed's in "
            "stage 1; set zero_optimization.stage to 2, where it is the default"
        )
    if all(_enabled(config, name) for name in HALVES):
        yield "fp16 and bf16 are both enabled; choose one"
    if zero.get("stage", 0) != 3 and zero.get("offload_param", {}).get("device", "none") != "none":
        yield "zero_optimization.offload_param is for stage 3; remove it, or set the stage to 3"
    if any(value is True for value in config.get("activation_checkpointing", {}).values()):
        yield "activation_checkpointing does nothing here; the flag --grad_checkpointing does it"
    for section, package in MONITORS.items():
        if _enabled(config, section):
            yield from _monitor_faults(section, package, config[section])


NOT_SAVED = frozenset(("NAdam", "ASGD", "Muon", "muon"))
"""Optimizers whose state is not a tensor in the form of each weight."""

MONITORS = {
    "tensorboard": "tensorboard",
    "csv_monitor": None,
    "wandb": "wandb",
    "comet": "comet_ml",
}
"""DeepSpeed's own monitors, and the package that each needs."""


def _monitor_faults(section: str, package: str | None, given: Mapping[str, Any]) -> Iterator[str]:
    own = "the run has a log.jsonl and TensorBoard of its own"
    if package and find_spec(package) is None:
        yield f"{section} needs the package {package}: pip install it, or remove the section; {own}"
    if section in ("tensorboard", "csv_monitor"):
        place = Path(given.get("output_path", "")) / given.get("job_name", "DeepSpeedJobName")
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield f"{section}.output_path: {place} cannot be written; name another, as {own}"


def overridden(
    config: dict[str, Any],
    where: Path,
    *,
    lr: float | None = None,
    batch_size: int | None = None,
    warmup_steps: int | None = None,
    weight_decay: float | None = None,
) -> dict[str, Any]:
    """A copy of DeepSpeed's JSON with the values of flags; None leaves a value.

    Args:
        config: Result of ``read_deepspeed_config``.
        where: Its file, for errors.
        lr: Peak learning rate of the optimizer and of the schedule.
        batch_size: train_batch_size. The size of micro-batches stays, their number follows.
        warmup_steps: Steps of the schedule's warm-up; 0 for none.
        weight_decay: Of the optimizer.

    Raises:
        UserError: The JSON's schedule has no such value.
    """
    changed: dict[str, Any] = json.loads(json.dumps(config))
    params = changed["optimizer"].setdefault("params", {})
    params |= {} if weight_decay is None else {"weight_decay": weight_decay}
    if batch_size is not None:
        changed["train_batch_size"] = batch_size
        if SIZES[1] in changed:
            changed.pop(SIZES[2], None)
    if lr is not None:
        params["lr"] = lr
        _set_peak(changed.get("scheduler", {}), where, lr)
    if warmup_steps is not None:
        _set_warmup(changed.get("scheduler", {}), where, warmup_steps, params.get("lr"))
    return changed


OWN_RATES = ("OneCycle", "LRRangeTest")
"""Schedules that do not start from the optimizer's learning rate."""


def _set_peak(scheduler: dict[str, Any], where: Path, lr: float) -> None:
    if (kind := scheduler.get("type")) in OWN_RATES:
        raise UserError(
            f"{where}: scheduler.type {kind} has learning rates of its own; change them there, and "
            "leave out --lr"
        )
    if (params := scheduler.get("params", {})).get("warmup_max_lr") is not None:
        params["warmup_max_lr"] = lr


def _set_warmup(scheduler: dict[str, Any], where: Path, steps: int, lr: float | None) -> None:
    kind = scheduler.get("type")
    if kind not in SCHEDULERS or "warmup_num_steps" not in SCHEDULERS[kind]:
        has = f"scheduler.type {kind}, which has no warm-up" if kind else "no scheduler section"
        raise UserError(
            f"{where}: {has}; leave out --warmup_steps, or write a schedule such as WarmupCosineLR"
        )
    params = scheduler["params"]
    params["warmup_num_steps"] = max(1, steps)
    if steps == 0 and kind == "WarmupCosineLR":
        params["warmup_min_ratio"] = 1.0
    elif steps == 0 and (peak := params.get("warmup_max_lr") or lr) is not None:
        params["warmup_min_lr"] = peak


def batch_size_of(config: dict[str, Any], where: Path, ranks: int) -> int:
    """train_batch_size: images of all ranks in a step.

    Raises:
        UserError: As ``resolve``.
    """
    return _sizes(config, where, ranks)[0]


def resolve(config: dict[str, Any], where: Path, ranks: int, steps: int) -> dict[str, Any]:
    """Fill in what depends on the number of ranks and the length of the run.

    Args:
        config: Result of ``read_deepspeed_config``.
        where: Its file, for errors.
        ranks: Number of training processes.
        steps: Steps of the whole run.

    Returns:
        A copy with consistent train_batch_size, train_micro_batch_size_per_gpu and
        gradient_accumulation_steps. The last is the number of micro-batches in which a rank's rows
        go through the towers; the loss is that of the whole batch.

    Raises:
        UserError: The batch is not divisible.
    """
    resolved = json.loads(json.dumps(config))
    resolved.update(zip(SIZES, _sizes(config, where, ranks), strict=True))
    resolved.setdefault("steps_per_print", 10**9)  # the monitor prints
    _set_fast_defaults(resolved, ranks)
    schedule = resolved.get("scheduler", {}).get("params", {})
    if schedule.get("total_num_steps") == AUTO:
        schedule["total_num_steps"] = steps
    if resolved.get("scheduler", {}).get("type") == "WarmupDecayLR":
        # DeepSpeed would take 0.001; WarmupLR takes the optimizer's, too.
        peak = resolved["optimizer"].get("params", {}).get("lr")
        if peak is not None and schedule.get("warmup_max_lr") is None:
            schedule["warmup_max_lr"] = peak
    return resolved


def _set_fast_defaults(resolved: dict[str, Any], ranks: int) -> None:
    """Faster defaults for keys that the JSON leaves out; ds_configs/README.md gives the reasons."""
    zero = resolved.get("zero_optimization", {})
    stage, offloads = zero.get("stage", 0), "offload_optimizer" in zero
    if stage in (1, 2):
        zero.setdefault("parameter_alignment", True)
    if stage == 2 and not offloads and any(_enabled(resolved, name) for name in HALVES):
        resolved.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    if _enabled(resolved, "bf16") and not offloads:
        resolved["bf16"].setdefault("check_grad_overflow", False)
    if ranks == 1 and stage < 3:
        zero.pop(
            "overlap_comm", None
        )  # with one rank it only makes DeepSpeed synchronize with the device


def _sizes(config: dict[str, Any], where: Path, ranks: int) -> tuple[int, int, int]:
    """Batch size of all ranks, micro-batch size of a rank, and number of micro-batches; any two
    give the third."""
    batch, micro_batch, count = (config.get(name) for name in SIZES)
    if batch is None:
        return int(micro_batch or 1) * ranks * (count or 1), int(micro_batch or 1), count or 1
    if micro_batch is not None and count is None and batch % (ranks * micro_batch) == 0:
        count = batch // (ranks * micro_batch)
    count = count or 1
    rows = batch // (ranks * count)
    if batch % (ranks * count) or (micro_batch is not None and micro_batch != rows):
        times = f" times {count} gradient_accumulation_steps" if count > 1 else ""
        but = f", but {SIZES[1]} is {micro_batch}" if micro_batch else ""
        raise UserError(
            f"{where}: train_batch_size {batch} does not divide by "
            f"{counted(ranks, 'rank')}{times}{but}; "
            f"{batch - batch % (ranks * count) or ranks * count} would"
        )
    return batch, rows, count


def _enabled(config: Mapping[str, Any], section: str) -> bool:
    return bool(config.get(section, {}).get("enabled", False))
