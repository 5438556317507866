"""Train: the loop, and the script that launchers start.

    deepspeed hnc_ds/train.py --deepspeed_config ds_configs/zero1_bf16.json --shards DIR --run DIR
    deepspeed --module hnc_ds.train --deepspeed_config ...     (installed)

Started as a script this module only imports itself under its name, and calls ``main``.
"""

import sys

if __name__ == "__main__":
    if not __package__:  # started by path, not by -m
        import os

        # Python put hnc_ds/ itself first on the path. Put the checkout there instead, so that
        # `import hnc_ds` works uninstalled and none of our files hides a library's module.
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from hnc_ds.training.stops import Stops

    with Stops(ends_process=True) as heard:  # also while libraries are imported
        from hnc_ds import train as itself

        sys.exit(itself.main(stops=heard))

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from hnc_ds import checkpoint, exits
from hnc_ds.checkpoint import (
    CONTINUED_FROM,
    Saved,
    latest,
    next_free_run,
    read_settings,
    refuse_existing,
    start_run,
    step_of,
)
from hnc_ds.config import PRESETS, LossConfig, ScenesConfig, TrainConfig
from hnc_ds.config.cores import readers
from hnc_ds.config.flags import check_flags
from hnc_ds.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.distributed import (
    is_lost_connection,
    on_rank_zero,
    rank,
    together,
    world_size,
)
from hnc_ds.engine import (
    Engine,
    device,
    is_accelerated,
    refuse_what_deepspeed_refuses,
    start_process_group,
)
from hnc_ds.errors import RankError, UserError, counted, did_you_mean
from hnc_ds.evaluation.items import fingerprint
from hnc_ds.launch import own_arguments, read_slurm
from hnc_ds.model.backends import suit
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.compiled import check_compiler, compile_blocks, described
from hnc_ds.monitor import Cost, Monitor
from hnc_ds.prepare import prepare
from hnc_ds.reading import reading
from hnc_ds.settings_file import updated
from hnc_ds.shards import on_device
from hnc_ds.shards.loader import TrainingData
from hnc_ds.shards.similar import read_neighbours
from hnc_ds.training import course
from hnc_ds.training.loop import Run, judge, loop
from hnc_ds.training.saving import Saver, forget_later, only_run, read_best
from hnc_ds.training.stops import Stops
from hnc_ds.training.validation import Validation, is_missing

DEFAULT_SCENES = Path("data/scenes")


def train(config: TrainConfig, stops: Stops | None = None) -> Path:
    """Train a run, or continue it.

    Started on several ranks by a launcher, or alone.

    Args:
        config: Settings; with ``resume``, those of the run that is continued.
        stops: Hears the signals already, where the caller has begun to.

    Returns:
        The run's folder.

    Raises:
        UserError: On every rank alike, for whatever the user can mend.
        Stopped: After SIGTERM, SIGUSR1 or SIGINT, on every rank alike; the run is saved.
    """
    if stops is None:
        with Stops() as stops:
            return train(config, stops)
    if config.deepspeed_config is None:
        raise UserError("no --deepspeed_config; give a JSON file or a name such as cpu, zero1_bf16")
    path = find_deepspeed_config(config.deepspeed_config)
    written = read_deepspeed_config(path)
    refuse_what_deepspeed_refuses(written, path)
    start_process_group()
    deepspeed = together(partial(resolve, written, path, world_size(), config.steps))
    config, run, shards, found = on_rank_zero(partial(_settle, config, deepspeed))
    if on_rank_zero(partial(_is_done, config, run, found)):
        if rank() == 0:
            print(f"train: {run} is done already, step {config.steps} of {config.steps}")
        return run
    try:
        with only_run(run):
            _train(config, run, shards, deepspeed, found, stops)
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise RankError(
            f"the connection to another rank was lost ({reason}); start again"
        ) from error
    if rank() == 0:
        best = read_best(run)
        at = f"; best {best.metric} {best.value:.4f} at step {best.step}" if best else ""
        print(f"train: done{at}; tensorboard --logdir {run.parent}", flush=True)
    return run


def _settle(
    config: TrainConfig, deepspeed: dict[str, Any]
) -> tuple[TrainConfig, Path, str, Path | None]:
    """Choose the run's folder, its shards and the checkpoint to go on from. On rank 0."""
    run = config.run or next_free_run()
    refuse_existing(run, config.resume)
    if "\udc80" <= max(str(run)) <= "\udcff":  # TensorBoard takes no such name
        raise UserError(f"--run {str(run)!a}: is not UTF-8; name another folder")
    shards = config.data.shards
    if shards is None:
        print(f"no --shards given: training on rendered scenes, kept in {DEFAULT_SCENES}")
        shards = str(prepare(ScenesConfig(out=DEFAULT_SCENES)) / "train")
    config = replace(config, run=run, data=replace(config.data, shards=shards))
    found = latest(run, CONTINUED_FROM) if config.resume else None
    if found:
        before = read_settings(run)
        what = "not the settings of a training"
        with reading(run / "config.json", "put the file back", what, by="as it was read"):
            course.check_same_course(config, deepspeed, before, run)
        course.check_steps(config, step_of(found), run)
    return config, run, shards, found


def _is_done(config: TrainConfig, run: Path, found: Path | None) -> bool:
    at_end = found is not None and step_of(found) == config.steps
    return at_end and not is_missing(config, run, config.steps)


def _train(
    config: TrainConfig,
    run: Path,
    shards: str,
    deepspeed: dict[str, Any],
    found: Path | None,
    stops: Stops,
) -> None:
    saved = together(lambda: checkpoint.read(found)) if found else None
    clip, start_weights, digest = together(partial(course.begin, config, saved))
    together(partial(course.refuse_inexact, config, clip, deepspeed))
    suit(device())
    batch = deepspeed["train_batch_size"]
    rows = range(rank() * batch // world_size(), (rank() + 1) * batch // world_size())
    views = (clip.image_settings, clip.tokenize)
    data = together(lambda: TrainingData(shards, config.data, config.seed, batch, rows, *views))
    if data.on_device:
        first = data.reader.image_bytes(0)
        together(partial(on_device.check, clip.image_settings, first, device()))
    start = saved.step if saved else 0
    validation = together(partial(_make_validation, config, run))
    if config.compile:
        together(partial(check_compiler, device()))
    measured = None
    if validation and not saved:
        measured = validation.of_start(clip)
    record = course.record(config, deepspeed, digest, fingerprint(data.reader.index), clip)
    config = _with_workers(config)  # its record keeps what was asked for
    record["workers"] = config.data.workers
    on_rank_zero(partial(_start_run, run, record, saved.step if saved else None))
    cost = Cost(*forward_cost(clip))
    context = clip.tokenize.context_length
    names, watched = data.negative_types, data.watched
    monitor = Monitor(run, start, config.steps, names, batch, cost, device(), context, watched)
    on_rank_zero(partial(_announce, config, clip, data, start))
    if config.compile:  # what is measured before is not: the start model, costs
        blocks = described(compile_blocks(clip))
        on_rank_zero(lambda: print(f"train: {blocks}", flush=True))
    engine = _make_engine(config, clip, deepspeed, saved, start_weights)
    saver = Saver(run, config.keep_last)
    work = Run(config, run, engine, data, monitor, saver, validation, stops)
    if measured:
        on_rank_zero(partial(judge, work, 0, measured))
    loop(work, start)


def _with_workers(config: TrainConfig) -> TrainConfig:
    """The settings with the number of processes that read for this rank."""
    if config.data.workers is not None:
        return config
    return replace(config, data=replace(config.data, workers=readers(is_accelerated())))


def _make_validation(config: TrainConfig, run: Path) -> Validation | None:
    return Validation(config, run, device()) if config.measures else None


def _start_run(run: Path, record: dict[str, Any], continued: int | None) -> None:
    if continued is not None:
        before = read_settings(run)
        what = "not the settings of a training"
        with reading(run / "config.json", "put the file back", what, by="as it was read"):
            course.check_same_content(before, record, run)
        forget_later(run, continued)
    start_run(run, record)


def _make_engine(
    config: TrainConfig,
    clip: Clip,
    deepspeed: dict[str, Any],
    saved: Saved | None,
    start_weights: dict[str, torch.Tensor],
) -> Engine:
    engine = Engine(clip, clip.parameter_groups(), deepspeed)
    if saved:
        again = "remove it to resume from the one before"
        with reading(saved.folder, again, "not a checkpoint of this training", by="DeepSpeed"):
            engine.restore(saved.moments, saved.scalars)
    if weight := config.loss.weights().get("l2_to_start"):
        engine.pull_to_start(weight, start_weights)
    if config.ema is not None:
        engine.average(config.ema, saved.averages if saved else {})
    return engine


def _announce(config: TrainConfig, clip: Clip, data: TrainingData, start: int) -> None:
    trained = sum(p.numel() for p in clip.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in clip.towers.parameters())
    of = "" if trained == whole else f" of {whole / 1e6:.1f} M"
    print(
        f"train: {config.model.model} ({trained / 1e6:.1f} M{of} parameters) on "
        f"{counted(len(data.reader), 'image')}, {counted(world_size(), 'rank')} with "
        f"{counted(config.data.workers or 0, 'worker')}, steps {start} to {config.steps}, "
        f"in {config.run}",
        flush=True,
    )
    if told := data.repeats(config.steps):
        print(f"train: {told}", file=sys.stderr, flush=True)
    if config.data.similar:
        near = read_neighbours(config.data.similar, data.reader).first(config.data.nearest)
        print(f"train: each image beside one of its {near.described()}", flush=True)


def parse(arguments: list[str]) -> TrainConfig:
    """Settings from flags, over those of --preset, over those of the run of --config.

    Raises:
        UserError: No such flag or preset, or --config is not the settings of a run.
    """
    check_flags(TrainConfig, arguments)
    config = tyro.cli(TrainConfig, args=arguments, prog="train")
    if config.config is None and config.preset is None:
        return config
    defaults = TrainConfig() if config.config is None else _settings_of(config.config)
    if config.preset is not None:
        defaults = replace(defaults, loss=preset(config.preset))
    return tyro.cli(TrainConfig, args=arguments, default=defaults, prog="train")


def _settings_of(file: Path) -> TrainConfig:
    before = read_settings(file.parent).get("settings", {})
    for name in ("run", "resume", "config", "preset"):  # of that run, not of this one
        before.pop(name, None)
    return updated(TrainConfig(), before, str(file))


def preset(name: str) -> LossConfig:
    """Loss settings by the name under which people compare them.

    Raises:
        UserError: There are none of that name.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"no preset '{name}'{did_you_mean(name, PRESETS)}; there are {known}")
    return LossConfig(**PRESETS[name])


def main(arguments: list[str] | None = None, stops: Stops | None = None) -> int:
    """Parse, train, and say what went wrong in one line. Exit status, as ``exits.run`` has it."""
    given = own_arguments() if arguments is None else arguments
    return exits.run("train", partial(_parse_and_train, given, stops))


def _parse_and_train(given: list[str], stops: Stops | None) -> None:
    read_slurm()
    train(parse(given), stops)
