"""What flags leave open: DeepSpeed's JSON by the machine, steps by the epochs."""

from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hnc_ds.checkpoint import read_settings
from hnc_ds.config import DataConfig, TrainConfig
from hnc_ds.distributed import world_size
from hnc_ds.engine.deepspeed_config import (
    batch_size_of,
    find_deepspeed_config,
    overridden,
    read_deepspeed_config,
)
from hnc_ds.engine.engine import check_with_deepspeed, has_bf16, is_accelerated
from hnc_ds.reading import reading
from hnc_ds.shards.folders import ShardFolders
from hnc_ds.shards.order import epoch_positions, steps_of_epochs
from hnc_ds.shards.remote import cache_of


def reading_settings(run: Path) -> AbstractContextManager[None]:
    """Report a run's config.json that does not hold what a block takes from it."""
    what = "not the settings of a training run"
    return reading(run / "config.json", "put the file back", what, by="as it was read")


def read_deepspeed(config: TrainConfig) -> tuple[Path, dict[str, Any]]:
    """DeepSpeed's JSON with the values of flags, and its path.

    Raises:
        UserError: There is no such file, or DeepSpeed or this project refuses it.
    """
    assert config.deepspeed_config is not None
    path = find_deepspeed_config(config.deepspeed_config)
    written = overridden(read_deepspeed_config(path), path, **asdict(config.optimizer))
    if not config.plan.dry_run:  # the machine of the plan may be another one
        check_with_deepspeed(written, path)
    return path, written


def with_deepspeed_config(config: TrainConfig) -> TrainConfig:
    """Settings with the DeepSpeed JSON of the run that is resumed, or one by what the machine has.
    On rank 0."""
    run = config.run
    if config.resume and run is not None and (run / "config.json").is_file():
        chosen, why = _deepspeed_config_of(run), "as before"
    else:
        chosen, why = shipped_for(config)
    config = replace(config, deepspeed_config=chosen)
    path, written = read_deepspeed(config)
    lr = written["optimizer"]["params"].get("lr", "DeepSpeed's own")
    batch = batch_size_of(written, path, world_size())
    print(f"train: --deepspeed_config {chosen}, {why}: batch {batch}, lr {lr}", flush=True)
    return config


def _deepspeed_config_of(run: Path) -> Path:
    with reading_settings(run):
        return Path(read_settings(run)["settings"]["deepspeed_config"])


def shipped_for(config: TrainConfig) -> tuple[Path, str]:
    """A shipped DeepSpeed JSON for this machine and these weights, and the reason."""
    if is_accelerated():
        if has_bf16():
            return Path("zero1_bf16"), "as the GPU has bf16"
        return Path("zero1_fp16"), "as the GPU has no bf16"
    if config.model.pretrained or ":" in config.model.model:
        return Path("zero1_fp32"), "as there is no GPU, and the weights are pretrained"
    return Path("cpu"), "as there is no GPU, and the weights are random"


def with_steps(config: TrainConfig, batch: int) -> TrainConfig:
    """Settings with the steps of --epochs."""
    if config.epochs is None:
        return config
    positions = epoch_positions(count_images(config.data), config.data)
    return replace(config, steps=steps_of_epochs(config.epochs, positions, batch))


def count_images(data: DataConfig) -> int:
    """Images of all --shards."""
    return len(ShardFolders(data.folders, cache_of(data.cache, data.cache_gb)))
