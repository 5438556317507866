"""Train: the loop, and the script that launchers start.

    deepspeed hnc_ds/train.py --deepspeed_config ds_configs/zero2_bf16.json --shards DIR --run DIR
    deepspeed --module hnc_ds.train --deepspeed_config ...     (installed)

Only functions here: run as a script this module is ``__main__``, and a class defined in it could
not be unpickled by anyone else.
"""

import sys

if __name__ == "__main__" and not __package__:  # started by path, not by -m
    import os

    # Python put hnc_ds/ itself first on the path. Put the checkout there instead, so that
    # `import hnc_ds` works uninstalled and none of our files hides a library's module.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import tyro

from hnc_ds import checkpoint
from hnc_ds.checkpoint import (
    Saved,
    complete_checkpoints,
    next_free_run,
    read_settings,
    refuse_existing,
    start_run,
)
from hnc_ds.config import DataConfig, ScenesConfig, TrainConfig
from hnc_ds.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.distributed import (
    all_finite,
    first_to_speak,
    from_every_rank,
    gather_constants,
    gather_rows,
    on_rank_zero,
    raise_if_any,
    rank,
    together,
    world_size,
)
from hnc_ds.engine import Engine, is_accelerated, start_process_group
from hnc_ds.errors import UserError
from hnc_ds.loss import Columns, Features, LossTerms, contrastive_loss, other_true_pairs
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.load import load_model
from hnc_ds.monitor import Cost, Monitor
from hnc_ds.prepare import prepare
from hnc_ds.settings_file import to_json, updated
from hnc_ds.shards.loader import EMPTY, Batch, TrainingData, batches
from hnc_ds.shards.similar import read_neighbours

DEFAULT_SCENES = Path("data/scenes")
MOST_CORRUPT_SHARE = 0.01


def train(config: TrainConfig) -> Path:
    """Train a run, or continue it.

    Started on several ranks by a launcher, or alone.

    Args:
        config: Settings; with ``resume``, those of the run that is continued.

    Returns:
        The run's folder.

    Raises:
        UserError: On every rank alike, for whatever the user can mend.
    """
    if config.deepspeed_config is None:
        raise UserError("no --deepspeed_config; give a JSON file or a name such as cpu, zero2_bf16")
    path = find_deepspeed_config(config.deepspeed_config)
    written = read_deepspeed_config(path)
    start_process_group()
    deepspeed = together(partial(resolve, written, path, world_size(), config.steps))
    config, run, shards = on_rank_zero(partial(_settle, config, deepspeed))
    _train(config, run, shards, deepspeed)
    return run


def _settle(config: TrainConfig, deepspeed: dict[str, Any]) -> tuple[TrainConfig, Path, Path]:
    """Choose the run's folder and its shards. On rank 0."""
    run = config.run or next_free_run()
    refuse_existing(run, config.resume)
    shards = config.data.shards
    if shards is None:
        print(f"no --shards given: training on rendered scenes, kept in {DEFAULT_SCENES}")
        shards = prepare(ScenesConfig(out=DEFAULT_SCENES)) / "train"
    config = replace(config, run=run, data=replace(config.data, shards=shards))
    if config.resume and complete_checkpoints(run):
        _check_same_course(config, deepspeed, read_settings(run), run)
    return config, run, shards


def _check_same_course(
    config: TrainConfig, deepspeed: dict[str, Any], before: dict[str, Any], run: Path
) -> None:
    """Refuse to continue with settings under which the steps done would have been others."""
    now, then = to_json(config), before["settings"]
    drawn = to_json(DataConfig()) | then["data"]  # what a run of before did not know was off
    pairs = [
        ("seed", now["seed"], then["seed"]),
        ("model", now["model"], then["model"]),
        *((key, now["data"][key], drawn[key]) for key in now["data"] if key != "workers"),
        (
            "train_batch_size",
            deepspeed["train_batch_size"],
            before["deepspeed"]["train_batch_size"],
        ),
    ]
    for name, new, old in pairs:
        if new != old:
            raise UserError(
                f"{run}: was trained with {name} {old}, not {new}; resume with the same, "
                f"for example with --config {run / 'config.json'}"
            )


def _train(config: TrainConfig, run: Path, shards: Path, deepspeed: dict[str, Any]) -> None:
    saved = together(partial(_newest, run, config.resume))
    clip = saved.model if saved else together(partial(load_model, config.model, config.seed))
    if config.loss.tau is not None:
        clip.fix_temperature(config.loss.tau)
    per_rank = deepspeed["train_micro_batch_size_per_gpu"]
    data = together(
        lambda: TrainingData(
            shards,
            config.data,
            config.seed,
            deepspeed["train_batch_size"],
            range(rank() * per_rank, (rank() + 1) * per_rank),
            clip.image_settings,
            clip.tokenize,
        )
    )
    record = {
        "settings": to_json(config),
        "deepspeed": deepspeed,
        "ranks": world_size(),
        "versions": {name: version(name) for name in ("torch", "deepspeed", "open_clip_torch")},
        "commit": _commit(),
    }
    on_rank_zero(partial(start_run, run, record))
    cost = Cost(*forward_cost(clip))
    start = saved.step if saved else 0
    on_rank_zero(partial(_announce, config, clip, data, start))
    engine = Engine(clip, clip.parameter_groups(), deepspeed)
    if saved:
        engine.restore(saved.moments, saved.scalars)
    monitor = Monitor(
        run,
        start,
        config.steps,
        data.negative_types,
        deepspeed["train_batch_size"],
        cost,
        engine.device,
    )
    _loop(config, run, engine, data, monitor, start)


def _commit() -> str | None:
    """The commit of the checkout this runs from; None where it is installed."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return None
    return asked.stdout.strip() or None


def _newest(run: Path, resume: bool) -> Saved | None:
    found = complete_checkpoints(run) if resume else []
    return checkpoint.read(found[-1]) if found else None


def _announce(config: TrainConfig, clip: Clip, data: TrainingData, start: int) -> None:
    parameters = sum(p.numel() for p in clip.parameters() if p.requires_grad)
    print(
        f"train: {config.model.model} ({parameters / 1e6:.1f} M parameters) on {len(data.reader)} "
        f"images, {world_size()} ranks, steps {start} to {config.steps}, in {config.run}",
        flush=True,
    )
    if config.data.similar:
        near = read_neighbours(config.data.similar, data.reader).first(config.data.nearest)
        print(f"train: each image beside one of its {near.described()}", flush=True)


def _loop(
    config: TrainConfig,
    run: Path,
    engine: Engine,
    data: TrainingData,
    monitor: Monitor,
    start: int,
) -> None:
    """Steps ``start`` to the last: draw, compare, learn, write."""
    corrupt: set[str] = set()
    stream = batches(data, range(start, config.steps), config.data.workers, is_accelerated())
    for step in range(start, config.steps):
        batch = _next_batch(stream, monitor, engine.device)
        corrupt.update(batch.corrupt)
        last = step + 1 == config.steps
        due = last or (step + 1) % config.log_every == 0
        if config.loss.alpha == 0 and not due:
            batch = batch.without_negatives()  # nothing is learned from them, only measured
        torch.manual_seed(hash((config.seed, step, rank())))  # for models with dropout
        features, columns, scale = compare(engine.forward, batch)
        terms = contrastive_loss(features, columns, scale, config.loss.alpha)
        _check_finite(terms, step, run)
        engine.backward_and_step(terms.total)
        monitor.add(terms, features, columns, batch.negative_type_BK, batch.token_TL)
        if due:
            found = _count_corrupt(corrupt, data)
            extra = {"temperature": float(1 / scale.detach()), "alpha": config.loss.alpha, **found}
            monitor.write(step + 1, engine.measures() | extra)
        if last or (step + 1) % config.save_every == 0:
            save(run, step + 1, engine, config.keep_last)
    monitor.close()


def _next_batch(
    stream: Iterator[Batch | UserError], monitor: Monitor, device: torch.device
) -> Batch:
    """This rank's next batch on its device, once every rank has its own."""
    before = time.perf_counter()
    batch = next(stream)
    monitor.waited(time.perf_counter() - before)
    problem = str(batch) if isinstance(batch, UserError) else None
    # One number tells whether all is well; words travel only if it is not.
    if not all_finite(torch.tensor(0.0 if problem is None else torch.nan, device=device)):
        raise_if_any(problem)
    return cast(Batch, batch).to(device)


def compare(forward: Any, batch: Batch) -> tuple[Features, Columns, torch.Tensor]:
    """Embed a batch and gather what it competes with.

    Args:
        forward: ``Clip.forward``, or the engine's around it.
        batch: This rank's rows.

    Returns:
        This rank's features, every rank's columns, and 1 / tau.
    """
    image_BD, text_TD, scale = forward(batch.images_B3RR, batch.token_TL)
    text_BD = text_TD[batch.positive_B]
    all_image_ND, all_text_ND = gather_rows(torch.cat([image_BD, text_BD], dim=1)).chunk(2, dim=1)
    index_B2 = torch.stack([batch.image_index_B, batch.text_index_B], dim=1)
    index_N2 = gather_constants(index_B2)
    first_row = rank() * len(image_BD)
    excluded_BN = other_true_pairs(index_B2, index_N2, first_row)
    features = Features(
        image_BD,
        text_BD,
        text_TD[batch.negative_BK.clamp(min=0)],
        batch.negative_BK != EMPTY,
        text_TD[batch.unrelated_BM.clamp(min=0)],
        batch.unrelated_BM != EMPTY,
    )
    return features, Columns(all_image_ND, all_text_ND, excluded_BN, first_row), scale


def save(run: Path, step: int, engine: Engine, keep_last: int) -> None:
    """Write a checkpoint of the engine's state. A collective.

    Raises:
        UserError: On every rank, if rank 0 cannot write it.
    """
    state = engine.state()
    on_rank_zero(partial(checkpoint.save, run, step, engine.module, *state, keep_last))


def _check_finite(terms: LossTerms, step: int, run: Path) -> None:
    if not all_finite(terms.total):
        raise UserError(
            f"{run}: the loss is not finite at step {step + 1}; lower the learning rate "
            "or the precision's risk (bf16 rather than fp16) and start again with --resume"
        )


def _count_corrupt(own: set[str], data: TrainingData) -> dict[str, float]:
    """How many pictures of the data could not be decoded so far, over all ranks.

    Raises:
        UserError: On every rank, when they are more than MOST_CORRUPT_SHARE of the data.
    """
    keys = set().union(*from_every_rank(own))
    if len(keys) > MOST_CORRUPT_SHARE * len(data.reader):
        raise UserError(
            f"{len(keys)} of {len(data.reader)} pictures cannot be decoded, {min(keys)} for "
            f"example; more than {MOST_CORRUPT_SHARE:.0%} is refused, pack the shards again"
        )
    return {"corrupt_images": float(len(keys))}


def parse(arguments: list[str]) -> TrainConfig:
    """Settings from flags; with --config FILE, that run's settings overridden by the flags.

    Raises:
        UserError: FILE is not the settings of a run.
    """
    config = tyro.cli(TrainConfig, args=arguments, prog="train")
    if config.config is None:
        return config
    before = read_settings(config.config.parent).get("settings", {})
    for name in ("run", "resume", "config"):  # of that run, not of this one
        before.pop(name, None)
    defaults = updated(TrainConfig(), before, str(config.config))
    return tyro.cli(TrainConfig, args=arguments, default=defaults, prog="train")


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, and say what went wrong in one line. Exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    # The deepspeed launcher inserts --local_rank=N; the same number is in LOCAL_RANK.
    given = [argument for argument in given if not argument.startswith("--local_rank=")]
    try:
        run = train(parse(given))
    except UserError as error:
        if first_to_speak():
            print(f"train: {error}", file=sys.stderr, flush=True)
        return 2
    if first_to_speak():
        print(f"train: done; tensorboard --logdir {run.parent}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
