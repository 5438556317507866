"""The training loop: draw, learn, write; and how it ends before its last step.

All ranks run it in step. What one of them meets, a problem or a signal, the others hear of at the
next step, so that none waits for one that has left.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from hnc_ds.config import TrainConfig
from hnc_ds.distributed import (
    all_finite,
    from_every_rank,
    is_lost_connection,
    largest_over_ranks,
    on_rank_zero,
    raise_if_any,
    rank,
)
from hnc_ds.engine import Engine, is_accelerated
from hnc_ds.errors import RankError, UserError
from hnc_ds.monitor import Monitor
from hnc_ds.objective.terms import Compared, LossTerms, objective
from hnc_ds.shards.ahead import batches
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training import passes
from hnc_ds.training.compare import Embedded, compare
from hnc_ds.training.saving import Saver
from hnc_ds.training.stops import Stops
from hnc_ds.training.validation import HeldOut, Validation, is_missing
from hnc_ds.training.watchdog import Watchdog

MOST_CORRUPT_SHARE = 0.01

PROBLEM = 1000
"""What a rank tells the others before a step when it has one; smaller is a wish to stop."""


class Run(NamedTuple):
    """What the loop works with."""

    config: TrainConfig
    folder: Path
    engine: Engine
    data: TrainingData
    monitor: Monitor
    saver: Saver
    validation: Validation | None
    stops: Stops


def loop(run: Run, start: int) -> None:
    """Steps ``start`` to the last, watched over; the last checkpoint is on disk at the end."""
    watched = Watchdog(run.config.patience, hurry=lambda: bool(run.stops.asked))
    with watched as watchdog, run.saver:
        run.stops.after_steps(run.folder)
        try:
            _steps(run, start, watchdog)
            run.saver.wait()
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise RankError(
                f"{run.folder}: {watchdog.explain(error)}; start again with --resume"
            ) from error
    run.monitor.close()


def _steps(run: Run, start: int, watchdog: Watchdog) -> None:
    """Draw, learn, write."""
    config, corrupt = run.config, set[str]()
    missing = on_rank_zero(partial(is_missing, config, run.folder, start))
    if missing and _is_enough(run, start, watchdog):
        return
    steps = range(start, config.steps)
    stream = batches(run.data, steps, config.data.workers, is_accelerated())
    for step in steps:
        watchdog.beat(f"the data of step {step + 1}")
        batch, wish = _next_batch(run, stream)
        watchdog.beat(f"step {step + 1}")
        corrupt.update(batch.corrupt)
        last = step + 1 == config.steps
        due = last or (step + 1) % config.log_every == 0
        if not config.loss.sees_negatives() and not due:
            batch = batch.without_negatives()  # nothing is learned from them, only measured
        alpha = config.loss.alpha_at(step)
        seed = hash((config.seed, step, rank()))  # for models with dropout
        of = partial(_objective, run, batch, step, alpha)
        terms, compared = passes.step(run.engine, batch, of, seed)
        clip, token_TL = run.engine.module, batch.token_TL
        tokens = clip.tokenize.used_tokens(token_TL), clip.computed_tokens(token_TL)
        run.monitor.add(terms, compared, batch.negative_type_BK, *tokens, batch.find_alike())
        if due:
            extra = {"temperature": float(1 / compared.scale.detach()), "alpha": alpha}
            extra |= _count_corrupt(corrupt, run.data)
            run.monitor.write(step + 1, run.engine.measures() | extra)
        measured = run.validation is not None and run.validation.is_due(step + 1)
        if wish or last or measured or (step + 1) % config.save_every == 0:
            watchdog.beat(f"the checkpoint of step {step + 1}")
            run.saver.save(step + 1, run.engine)
        if measured and _is_enough(run, step + 1, watchdog):
            return
        if wish and not last:
            run.saver.wait()
            raise run.stops.stopped(wish, f"after step {step + 1} of {config.steps}")


def _is_enough(run: Run, step: int, watchdog: Watchdog) -> bool:
    """Measure the checkpoint of a step; whether training ends with it. A collective."""
    validation = run.validation
    assert validation is not None
    run.saver.wait()
    when = f"while step {step} of {run.config.steps} was measured"
    with watchdog.resting(f"the measurement of step {step}"), run.stops.at_once(when):
        if wish := largest_over_ranks(run.stops.wish, run.engine.device):
            raise run.stops.stopped(wish, f"after step {step} of {run.config.steps}")
        found = validation.of_checkpoint(step)
        return on_rank_zero(lambda: judge(run, step, found))


def judge(run: Run, step: int, found: HeldOut) -> bool:
    """Log and keep what was measured; whether training should end. On rank 0."""
    assert run.validation is not None
    run.validation.write(step, found)
    run.monitor.write_held_out(step, found.scores, found.worst)
    return run.validation.is_enough(step, found.scores)


def _objective(
    run: Run, batch: Batch, step: int, alpha: float, embedded: Embedded
) -> tuple[LossTerms, Compared]:
    """The loss over all ranks. A collective.

    Raises:
        UserError: On every rank, if it is not finite on one of them.
    """
    loss = run.config.loss
    compared = compare(embedded, batch, loss.negatives_from == "all_images")
    terms = objective(compared, loss, alpha)
    if not all_finite(terms.total):
        raise UserError(
            f"{run.folder}: the loss is not finite at step {step + 1}; lower the learning rate or "
            "the precision's risk (bf16 rather than fp16) and start again with --resume"
        )
    return terms, compared


def _next_batch(run: Run, stream: Iterator[Batch | UserError]) -> tuple[Batch, int]:
    """This rank's next batch on its device, once every rank has its own, and the largest wish of
    the ranks to stop after it."""
    before = time.perf_counter()
    batch = next(stream)
    run.monitor.waited(time.perf_counter() - before)
    problem = str(batch) if isinstance(batch, UserError) else None
    # One number tells whether all is well; words travel only if it is not.
    told = largest_over_ranks(PROBLEM if problem else run.stops.wish, run.engine.device)
    if told == PROBLEM:
        raise_if_any(problem)
    return cast(Batch, batch).to(run.engine.device), told


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
