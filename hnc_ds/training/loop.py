"""The training loop: draw, learn, write; and how it ends before its last step.

All ranks run it in step. What one of them meets, a problem or a signal, the others hear of before
they come to that step or leave, so that none waits for one that has left. The host launches a step
while the device still computes the one before: what is reported of a step (reports.py) is read when
the next one is launched, or at once where something is written of it.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from hnc_ds.config import LossConfig, TrainConfig
from hnc_ds.distributed import (
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
from hnc_ds.training.feed import AHEAD, Feed
from hnc_ds.training.reports import Reports
from hnc_ds.training.saving import Saver
from hnc_ds.training.stops import Stops
from hnc_ds.training.validation import HeldOut, Validation, is_missing
from hnc_ds.training.watchdog import Watchdog

MOST_CORRUPT_SHARE = 0.01


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
            _train(run, start, watchdog)
            run.saver.wait()
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise RankError(
                f"{run.folder}: {watchdog.explain(error)}; start again with --resume"
            ) from error
    run.monitor.close()


def _train(run: Run, start: int, watchdog: Watchdog) -> None:
    missing = on_rank_zero(partial(is_missing, run.config, run.folder, start))
    if not missing or not _is_enough(run, start, watchdog):
        _Steps(run, start, watchdog).run()


class _Steps:
    """The steps of a run, and what is under way between them.

    Args:
        run: What they work with.
        start: Steps done before.
        watchdog: Hears what is done.
    """

    def __init__(self, run: Run, start: int, watchdog: Watchdog) -> None:
        self._run, self._watchdog, self._device = run, watchdog, run.engine.device
        self._steps = range(start, run.config.steps)
        stream = batches(run.data, self._steps, run.config.data.workers, is_accelerated())
        self._feed = Feed(stream, self._device, self._as_needed)
        self._reports = Reports(self._device)
        self._wish = 0
        self._without_batch: int | None = None
        self._corrupt = set[str]()

    def run(self) -> None:
        """All of them, or fewer where held-out scores get no better.

        Raises:
            UserError: On every rank.
            Stopped: On every rank, after a step that is saved.
        """
        first = self._steps.start - AHEAD
        for step in range(first, first + AHEAD):
            self._reports.send(step, self._run.stops.wish, self._draw(step + AHEAD))
        self._hear(first)
        for step in self._steps:
            if self._without_batch == step:
                raise_if_any(self._feed.problem())
            if self._step(step):
                return

    def _step(self, step: int) -> bool:
        """Launch a step, prepare those that follow, write what is due; whether it is the last."""
        run, config, last = self._run, self._run.config, self._is_last(step)
        self._watchdog.beat(f"step {step + 1}")
        compared, alpha, loss = self._learn(step)
        has_problem = self._draw(step + AHEAD)
        self._watchdog.beat(f"step {step + 1}")
        self._reports.send(step, run.stops.wish, has_problem, loss, self._unsound())
        is_measured = run.validation is not None and run.validation.is_due(step + 1)
        is_saved = last or is_measured or (step + 1) % config.save_every == 0
        # Else of the step before, so that the device has work meanwhile.
        self._hear(step if is_saved or self._is_logged(step) else step - 1)
        if self._is_logged(step):
            extra = {"temperature": float(1 / compared.scale.detach()), "alpha": alpha}
            self._write(step, extra)
        if self._wish or is_saved:
            self._hear(step)  # nothing wrong is saved
            self._watchdog.beat(f"the checkpoint of step {step + 1}")
            run.saver.save(step + 1, run.engine)
        if is_measured and _is_enough(run, step + 1, self._watchdog):
            return True
        if self._wish and not last:
            run.saver.wait()
            raise run.stops.stopped(self._wish, f"after step {step + 1} of {config.steps}")
        return last

    def _is_last(self, step: int) -> bool:
        return step + 1 == self._run.config.steps

    def _is_logged(self, step: int) -> bool:
        return self._is_last(step) or (step + 1) % self._run.config.log_every == 0

    def _as_needed(self, step: int, batch: Batch) -> Batch:
        """A batch without hard negatives where nothing is learned from them nor measured."""
        is_needed = self._run.config.loss.sees_negatives() or self._is_logged(step)
        return batch if is_needed else batch.without_negatives()

    def _draw(self, step: int) -> bool:
        """Have the batch of a step, if the run has that many; whether there is a problem."""
        if step not in self._steps:
            return False
        self._watchdog.beat(f"the data of step {step + 1}")
        return not self._feed.draw(step)

    def _learn(self, step: int) -> tuple[Compared, float, torch.Tensor]:
        """Launch the computation of a step; what was compared, alpha and this rank's loss."""
        run, (batch, alike_BK, _) = self._run, self._feed.take()
        self._corrupt.update(batch.corrupt)
        alpha = run.config.loss.alpha_at(step)
        seed = hash((run.config.seed, step, rank()))  # for models with dropout
        of = partial(_objective, run.config.loss, batch, alpha)
        terms, compared = passes.step(run.engine, batch, of, seed)
        computed_T = run.engine.module.computed_tokens(batch.token_TL, batch.used_T)
        tokens = batch.used_T, computed_T, alike_BK
        numbers = batch.negative_type_BK, batch.negative_about_BK
        run.monitor.add(terms, compared, *numbers, *tokens)
        return compared, alpha, terms.total

    def _unsound(self) -> torch.Tensor | None:
        """Whether the gradient is not finite, where that is not in the nature of the precision."""
        return None if self._run.engine.scales_loss else self._run.engine.unsound()

    def _hear(self, until: int) -> None:
        """Take in the reports of all ranks on the steps up to one.

        Raises:
            UserError: On every rank, if a loss or a gradient is not finite.
        """
        for report in self._reports.read(until):
            if not (report.is_finite and report.is_sound):
                what = "gradient" if report.is_finite else "loss"
                raise UserError(
                    f"{self._run.folder}: the {what} is not finite at step {report.step + 1}; "
                    "lower the learning rate or the precision's risk (bf16 rather than fp16) and "
                    "start again with --resume"
                )
            self._wish = max(self._wish, report.wish)
            if report.has_problem and self._without_batch is None:
                self._without_batch = report.step + AHEAD

    def _write(self, step: int, extra: dict[str, float]) -> None:
        """A line of the log. A collective."""
        run = self._run
        extra |= _count_corrupt(self._corrupt, run.data)
        run.monitor.waited(self._feed.lost())
        run.monitor.write(step + 1, run.engine.measures() | extra)


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
    run.monitor.write_held_out(step, found.scores, found.worst, found.rare)
    return run.validation.is_enough(step, found.scores)


def _objective(
    loss: LossConfig, batch: Batch, alpha: float, embedded: Embedded
) -> tuple[LossTerms, Compared]:
    """The loss over all ranks. A collective."""
    compared = compare(embedded, batch, loss.negatives_from == "all_images")
    return objective(compared, loss, alpha), compared


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
