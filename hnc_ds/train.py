"""``hnc-ds train``, and the script that launchers start.

    deepspeed hnc_ds/train.py --deepspeed_config ds_configs/zero1_bf16.json --shards DIR --run DIR
    deepspeed --module hnc_ds.train --deepspeed_config ...     (installed)

Started as a script, this module only imports itself under its real name and calls ``main``.
"""

import sys

if __name__ == "__main__":
    if not __package__:  # started by path, not by -m
        import os

        # Python put hnc_ds/ first on the path. Replace it with the checkout, so that `import
        # hnc_ds` works uninstalled and no file of hnc_ds/ shadows a library's module.
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from hnc_ds.launch import importing
    from hnc_ds.training.signals import Signals

    with Signals(ends_process=True) as signals:  # also while libraries are imported
        with importing():
            from hnc_ds import train as itself

        sys.exit(itself.main(stops=signals))

from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from hnc_ds import checkpoint, interruptions
from hnc_ds.checkpoint import (
    CONTINUED_FROM,
    Checkpoint,
    latest,
    next_free_run,
    read_settings,
    read_settings_file,
    refuse_existing,
    start_run,
    step_of,
    updated,
)
from hnc_ds.config import PRESET_EMA, PRESETS, LossConfig, ScenesConfig, TrainConfig
from hnc_ds.config.flags import EXCLUSIVE, check_flags, given_flags, one_line_errors, value_in
from hnc_ds.demo import prepare
from hnc_ds.distributed import (
    is_lost_connection,
    on_rank_zero,
    raise_on_all_ranks,
    rank,
    world_size,
)
from hnc_ds.engine.deepspeed_config import (
    batch_size_of,
    resolve,
)
from hnc_ds.engine.engine import (
    Engine,
    device,
    is_accelerated,
    start_process_group,
)
from hnc_ds.errors import RankError, UserError, counted, did_you_mean, holding
from hnc_ds.evaluation.results import fingerprint
from hnc_ds.launch import own_arguments, read_slurm, readers
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.compiled import check_compiler, compile_blocks, described, suit
from hnc_ds.model.load import is_cross_encoder
from hnc_ds.monitor import Cost, Monitor
from hnc_ds.reading import reading
from hnc_ds.shards import images
from hnc_ds.shards.loader import TrainingData
from hnc_ds.shards.order import images_fingerprint, read_neighbours
from hnc_ds.trackers import commands_to_watch, require
from hnc_ds.training import choices, costs, matching, setup
from hnc_ds.training.checkpointing import (
    Saver,
    Validation,
    forget_later,
    is_missing,
    only_run,
    read_best,
)
from hnc_ds.training.image_embeddings import (
    encodes_once,
    image_embeddings,
    key_of,
    unreadable,
)
from hnc_ds.training.loop import Run, judge, loop
from hnc_ds.training.signals import Signals

DEFAULT_SCENES = ScenesConfig(out=Path("data/scenes"), train=1000, val=100)
"""What a run without --shards trains on: ready within a minute."""


def train(config: TrainConfig, stops: Signals | None = None) -> Path:
    """Train or resume a run, on all ranks of a launcher or in a single process.

    Args:
        config: Settings.
        stops: The signal handler, if the caller has started one.

    Returns:
        The run's folder.

    Raises:
        UserError: On every rank alike.
        Stopped: After SIGTERM, SIGUSR1 or SIGINT, on every rank alike; the run is saved.
    """
    if stops is None:
        with Signals() as stops:
            return train(config, stops)
    given = choices.read_deepspeed(config) if config.deepspeed_config else None
    start_process_group()
    on_rank_zero(partial(require, config.log_to))
    if given is None:
        config = on_rank_zero(partial(choices.with_deepspeed_config, config))
        given = raise_on_all_ranks(partial(choices.read_deepspeed, config))
    path, written = given
    batch = raise_on_all_ranks(partial(batch_size_of, written, path, world_size()))
    config = raise_on_all_ranks(lambda: _with_terms(config))
    config, run, found = on_rank_zero(partial(_settle, config, batch))
    deepspeed = resolve(written, path, world_size(), config.steps)
    if on_rank_zero(partial(_is_done, config, run, found)):
        if rank() == 0:
            print(f"train: {run} is done already, step {config.steps} of {config.steps}")
        return run
    try:
        with only_run(run):
            _train(config, run, deepspeed, found, stops)
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
        watch = commands_to_watch(config.log_to, run)
        print(f"train: {'; '.join([f'done{at}', *watch])}", flush=True)
    return run


def _with_terms(config: TrainConfig) -> TrainConfig:
    """Settings with the terms of the kind of model, if none are given.

    Raises:
        UserError: As ``check_settings``.
    """
    if is_cross_encoder(config.model.model) and not config.loss.terms:
        config = replace(config, loss=replace(config.loss, terms={"itm": 1.0}))
    matching.check_settings(config)
    return config


def _settle(config: TrainConfig, batch: int) -> tuple[TrainConfig, Path, Path | None]:
    """Choose the run's folder, its shards, its steps and the checkpoint to resume from. On rank
    0."""
    run = config.run or next_free_run()
    refuse_existing(run, config.resume)
    if "\udc80" <= max(str(run)) <= "\udcff":  # TensorBoard takes no such name
        raise UserError(f"--run {str(run)!a}: is not UTF-8; choose another folder")
    config = replace(config, run=run)
    if config.data.shards is None:
        print(f"no --shards given: training on rendered scenes, kept in {DEFAULT_SCENES.out}")
        shards = str(prepare(DEFAULT_SCENES) / "train")
        config = replace(config, data=replace(config.data, shards=shards))
    config = choices.with_steps(config, batch)
    found = latest(run, CONTINUED_FROM) if config.resume else None
    if found:
        before = read_settings(run)
        with choices.reading_settings(run):
            setup.check_same_settings(config, batch, before, run)
        setup.check_steps(config, step_of(found), run)
    return config, run, found


def _is_done(config: TrainConfig, run: Path, found: Path | None) -> bool:
    at_end = found is not None and step_of(found) == config.steps
    return at_end and not is_missing(config, run, config.steps)


def _train(
    config: TrainConfig,
    run: Path,
    deepspeed: dict[str, Any],
    found: Path | None,
    stops: Signals,
) -> None:
    saved = raise_on_all_ranks(lambda: checkpoint.read(found)) if found else None
    model, reference_weights, digest = raise_on_all_ranks(partial(setup.set_up, config, saved))
    raise_on_all_ranks(partial(setup.refuse_inexact, config, model, deepspeed))
    clip = model if isinstance(model, Clip) else None  # with embeddings
    suit(device())
    batch = deepspeed["train_batch_size"]
    rows = range(rank() * batch // world_size(), (rank() + 1) * batch // world_size())
    views = (model.image_settings, model.tokenize)
    data = raise_on_all_ranks(
        lambda: TrainingData(config.data.folders, config.data, config.seed, batch, rows, *views)
    )
    raise_on_all_ranks(partial(setup.check_negatives, config, data.negative_types))
    if data.on_device:
        first = data.reader.image_bytes(0)
        raise_on_all_ranks(partial(images.check_gpu, model.image_settings, first, device()))
    key = None
    if clip and raise_on_all_ranks(partial(encodes_once, config, clip, data, batch)):
        key = key_of(clip, deepspeed, images_fingerprint(*data.reader.readers))
    start = saved.step if saved else 0
    validation = raise_on_all_ranks(
        lambda: Validation(config, run, device()) if config.measures else None
    )
    if config.compile:
        raise_on_all_ranks(partial(check_compiler, device()))
    measured = None
    if validation and not saved:
        measured = validation.measure_initial(model)
    shards = [fingerprint(reader.index) for reader in data.reader.readers]
    record = setup.record(config, deepspeed, digest, shards, model)
    config = _with_workers(config)  # the record keeps the setting as given
    record["workers"] = config.data.workers
    on_rank_zero(partial(_start_run, run, record, saved.step if saved else None))
    cost = Cost(*forward_cost(clip)) if clip else None
    cost = cost._replace(per_image=0.0) if cost and key else cost
    context = model.tokenize.context_length
    names, watched = data.negative_types, data.watched
    counts = (start, config.steps, names, batch, cost, device(), context, watched)
    monitor = Monitor(run, *counts, config.log_to, record, data.epoch)
    on_rank_zero(partial(_announce, config, model, data, start))
    if clip and config.compile:  # the evaluation of the initial model and the costs are without
        blocks = described(compile_blocks(clip))
        on_rank_zero(lambda: print(f"train: {blocks}", flush=True))
    engine = _make_engine(config, model, deepspeed, saved, reference_weights)
    embeddings = None
    if key is not None:
        embeddings = image_embeddings(run, key, engine, data, config.data.workers)
        data = data.without_images(unreadable(embeddings))
    saver = Saver(run, config.keep_last)
    work = Run(config, run, engine, data, monitor, saver, validation, stops, embeddings)
    if measured:
        on_rank_zero(partial(judge, work, 0, measured))
    loop(work, start)


def _with_workers(config: TrainConfig) -> TrainConfig:
    """The settings with this rank's number of data loading workers."""
    if config.data.workers is not None:
        return config
    return replace(config, data=replace(config.data, workers=readers(is_accelerated())))


def _start_run(run: Path, record: dict[str, Any], continued: int | None) -> None:
    if continued is not None:
        before = read_settings(run)
        with choices.reading_settings(run):
            setup.check_same_content(before, record, run)
        forget_later(run, continued)
    start_run(run, record)


def _make_engine(
    config: TrainConfig,
    model: setup.Model,
    deepspeed: dict[str, Any],
    saved: Checkpoint | None,
    reference_weights: dict[str, torch.Tensor],
) -> Engine:
    engine = Engine(model, model.parameter_groups(), deepspeed)
    if saved:
        advice = "remove it to resume from the previous one"
        with reading(saved.folder, advice, "not a checkpoint of this run", by="DeepSpeed"):
            engine.restore(saved.moments, saved.scalars)
    if weight := config.loss.weights().get("l2_sp"):
        engine.pull_to_reference(weight, reference_weights)
    if config.ema is not None:
        engine.average(config.ema, saved.averages if saved else {})
    if config.loss.follows_average():
        engine.reference_follows()
    return engine


def _announce(config: TrainConfig, model: setup.Model, data: TrainingData, start: int) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.towers.parameters())
    of = "" if trained == whole else f" of {whole / 1e6:.1f} M"
    print(
        f"train: {config.model.model} ({trained / 1e6:.1f} M{of} parameters) on "
        f"{counted(len(data.reader), 'image')}, {counted(world_size(), 'rank')} with "
        f"{counted(config.data.workers or 0, 'worker')}, steps {start} to {config.steps}, "
        f"in {config.run}",
        flush=True,
    )
    for line in data.reader.described(config.data.proportions):
        print(f"train: {line}", flush=True)
    plain = None
    if config.loss.sees_negatives() and not data.negative_types:
        plain = f"{holding(config.data.folders)} no hard negatives, so alpha has no effect"
    for note in filter(None, (plain, model.start_note(), data.repeats(config.steps))):
        print(f"train: {note}", file=sys.stderr, flush=True)
    if config.data.similar:
        reader = data.reader.readers[0]
        near = read_neighbours(config.data.similar, reader).first(config.data.nearest)
        print(f"train: each image is drawn with one of its {near.described()}", flush=True)


def start(config: TrainConfig, stops: Signals | None) -> None:
    """Train, or print what it would cost with --dry_run."""
    if config.plan.dry_run:
        start_process_group()
        config = raise_on_all_ranks(lambda: _with_terms(config))
        on_rank_zero(partial(costs.dry_run, config, DEFAULT_SCENES.train))
    else:
        train(config, stops)


def parse(arguments: list[str]) -> TrainConfig:
    """Settings from flags, which override --preset, which overrides --config.

    Raises:
        UserError: No such flag, value or preset, or --config is not a run's config.json.
    """
    check_flags(TrainConfig, arguments)
    # Their values are found first: flags mean little without the settings that they change.
    file, name = (value_in(arguments, flag) for flag in ("--config", "--preset"))
    defaults = _settings_of(Path(file)) if file else TrainConfig()
    if file and set(EXCLUSIVE) & set(given_flags(arguments)):
        defaults = _unchecked(defaults, epochs=None)
    if name:
        ema = PRESET_EMA.get(name, defaults.ema)
        defaults = _unchecked(defaults, loss=preset(name), ema=ema)
    with one_line_errors(arguments):
        return tyro.cli(TrainConfig, args=arguments, default=defaults, prog="train")


def _unchecked(config: TrainConfig, **changes: Any) -> TrainConfig:
    """A copy with other values, which are checked when the flags are known."""
    changed = copy(config)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


def _settings_of(path: Path) -> TrainConfig:
    """Settings of --config: a run's config.json, or the folder of the run."""
    content = read_settings(path) if path.is_dir() else read_settings_file(path)
    before = content.get("settings", {})
    for name in ("run", "resume", "config", "preset"):  # they belong to that run
        before.pop(name, None)
    return updated(TrainConfig(), before, str(path))


def preset(name: str) -> LossConfig:
    """Loss settings by name.

    Raises:
        UserError: There is no such preset.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"no preset '{name}'{did_you_mean(name, PRESETS)}; known are {known}")
    return LossConfig(**PRESETS[name])


def main(arguments: list[str] | None = None, stops: Signals | None = None) -> int:
    """Parse the arguments and train. Prints errors as one line; returns the exit status."""
    given = own_arguments() if arguments is None else arguments
    return interruptions.run("train", partial(_parse_and_train, given, stops))


def _parse_and_train(given: list[str], stops: Signals | None) -> None:
    read_slurm()
    start(parse(given), stops)
