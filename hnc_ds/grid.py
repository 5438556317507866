"""A grid of hyperparameters: lists its combinations, or prints the flags of one.

    hnc-ds grid grid.json                                   # all combinations, one per line
    hnc-ds grid grid.json --number 3 --deepspeed-config zero1_bf16 --out runs/sweep

The second prints the flags of one training, one word per line, for a job array (slurm/sweep.sh).
No torch here.

    {"preset": "hnc", "alpha": [0.5, 1, 2], "tau": [null, 0.07], "lr": [1e-5, 5e-6]}
"""

from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

from hnc_ds.config import (
    DataConfig,
    GridConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScopeConfig,
    TrainConfig,
)
from hnc_ds.engine.deepspeed_config import find_deepspeed_config
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.reading import read_json

OF_THE_RUN = frozenset(
    (
        *("run", "resume", "config", "deepspeed_config"),
        *("scope", "loss", "data", "optimizer", "plan"),
    )
)
"""Fields of TrainConfig that a grid cannot vary; those of the second line are nested settings."""

Combination = dict[str, Any]


def grid(config: GridConfig) -> None:
    """Print the combinations, or the flags of one of them.

    Raises:
        UserError: The file is not a grid or has no such number, or there is no such DeepSpeed JSON.
    """
    varied, found = read_grid(config.grid)
    if config.number is None:
        for number, combination in enumerate(found):
            print(f"{number}  {config.out / name_of(combination, varied)}")
        return
    if config.number >= len(found):
        raise UserError(f"{config.grid}: has {len(found)} combinations, 0 to {len(found) - 1}")
    combination = found[config.number]
    run = config.out / name_of(combination, varied)
    print("\n".join(["--run", str(run), *_flags(combination), *_deepspeed(config)]))


def read_grid(path: Path) -> tuple[list[str], list[Combination]]:
    """Names with several values, and all combinations; the last name varies fastest.

    Raises:
        UserError: Not JSON, an unknown name, or an empty list.
    """
    content = read_json(path, "give flags and their values", "not a JSON file")
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: not a grid such as {{"alpha": [0.5, 1], "lr": 1e-5}}')
    known = _known()
    for name, values in content.items():
        if name not in known:
            raise UserError(
                f"{path}: no setting '{name}'{did_you_mean(name, known)}; a grid holds flags of "
                "'hnc-ds train'"
            )
        if values == []:
            raise UserError(f"{path}: {name} has no values")
    lists = {name: v if isinstance(v, list) else [v] for name, v in content.items()}
    varied = [name for name, values in lists.items() if len(values) > 1]
    return varied, [dict(zip(lists, chosen, strict=True)) for chosen in product(*lists.values())]


def name_of(combination: Combination, varied: list[str]) -> str:
    """Folder name of a combination, of the varied values: ``alpha=0.5_lr=1e-05``."""
    values = {n: "default" if v is None else v for n, v in combination.items()}
    parts = (f"{name}={values[name]}" for name in varied or values)
    return "_".join(parts).replace(" ", "-").replace("/", "-")


def _known() -> list[str]:
    sections = (TrainConfig, ModelConfig, ScopeConfig, LossConfig, DataConfig, OptimizerConfig)
    names = dict.fromkeys(field.name for section in sections for field in fields(section))
    return [name for name in names if name not in OF_THE_RUN]


def _flags(combination: Combination) -> list[str]:
    words = []
    for name, value in combination.items():
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *str(value).split()]
    return words


def _deepspeed(config: GridConfig) -> list[str]:
    """Flag for DeepSpeed's JSON."""
    if config.deepspeed_config is None:
        return []
    return ["--deepspeed_config", str(find_deepspeed_config(config.deepspeed_config))]
