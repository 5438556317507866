"""The training loop: batch, step, log, checkpoint, evaluation, early end.

All ranks run it in step. A problem or a signal of one rank is reported to the others before they
reach that step, so that no rank waits for one that has left. The host launches a step while the
device still computes the previous one: the report of a step, which ranks exchange in one small
all-reduce, is read when the next one has been launched, or immediately if the step is logged or
saved. Its flag for data is therefore about the batch after the next (``AHEAD`` in feed.py): every
rank knows that one of them has no batch before any of them starts the step.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hnc_ds.config import LossConfig, TrainConfig
from hnc_ds.distributed import (
    all_gather_object,
    all_reduce_max,
    is_lost_connection,
    max_over_ranks,
    on_rank_zero,
    raise_if_any,
    rank,
)
from hnc_ds.engine.engine import Engine, is_accelerated
from hnc_ds.errors import RankError, UserError
from hnc_ds.metrics import Similarities, measure_similarities
from hnc_ds.model.clip import Clip
from hnc_ds.monitor import Monitor
from hnc_ds.objective.terms import LossInputs, LossTerms, objective
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training import grad_cache, matching
from hnc_ds.training.checkpointing import HeldOut, Saver, Validation, is_missing, was_enough
from hnc_ds.training.feed import AHEAD, Feed, batches
from hnc_ds.training.grad_cache import Embedded, gather_inputs
from hnc_ds.training.image_embeddings import with_embeddings
from hnc_ds.training.signals import Signals
from hnc_ds.training.watchdog import Watchdog


class Report(NamedTuple):
    """The merged report of all ranks, equal on all of them."""

    step: int
    """After which it was sent, counted from 0."""
    wish: int
    """The largest ``Signals.wish``; 0 for none."""
    has_problem: bool
    """Whether a rank has no batch for step ``step + AHEAD``."""
    is_finite: bool
    """Whether the loss of the step is finite."""
    is_sound: bool
    """Whether its gradient is finite."""


class _Sent(NamedTuple):
    step: int
    values: torch.Tensor
    """On the host, valid after ``arrived``."""
    arrived: Any
    """An event of the device; None on a CPU."""


class Reports:
    """Sends this rank's reports and reads the merged ones.

    Args:
        device: The device of losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sent: deque[_Sent] = deque()

    def send(
        self,
        step: int,
        wish: int,
        has_problem: bool,
        loss: torch.Tensor | None = None,
        unsound: torch.Tensor | None = None,
    ) -> None:
        """Send this rank's report after a step, without waiting for the device. A collective.

        Args:
            step: Counted from 0.
            wish: ``Signals.wish``.
            has_problem: Whether there is no batch for the step after the next.
            loss: One element; None counts as finite.
            unsound: ``Engine.unsound``; None counts as 0.
        """
        none = torch.zeros((), device=self._device)
        broken = none if loss is None else (~loss.detach().isfinite()).float().reshape(())
        values = torch.stack(
            [
                torch.full_like(none, wish),
                torch.full_like(none, has_problem),
                broken,
                none if unsound is None else unsound.reshape(()),
            ]
        )
        all_reduce_max(values)
        self._sent.append(_Sent(step, *self._to_host(values)))

    def read(self, until: int) -> Iterator[Report]:
        """The unread reports up to a step, in order. Waits until the device has done these steps.

        Args:
            until: The last step to read.
        """
        while self._sent and self._sent[0].step <= until:
            step, values, arrived = self._sent.popleft()
            if arrived is not None:
                arrived.synchronize()
            wish, problem, broken, unsound = values.tolist()
            yield Report(step, int(wish), bool(problem), not broken, not unsound)

    def _to_host(self, values: torch.Tensor) -> tuple[torch.Tensor, Any]:
        if values.device.type == "cpu":
            return values, None
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.get_device_module(values.device).Event()
        arrived.record()
        return host, arrived


MAX_CORRUPT_FRACTION = 0.01


class Run(NamedTuple):
    """The objects that the loop uses."""

    config: TrainConfig
    folder: Path
    engine: Engine
    data: TrainingData
    monitor: Monitor
    saver: Saver
    validation: Validation | None
    stops: Signals
    images: NDArray[np.float32] | None = None
    """Embeddings of all images [N, D], if the image tower is frozen and they were made before."""


def loop(run: Run, start: int) -> None:
    """Run steps ``start`` to the last under a watchdog. The last checkpoint is on disk at the
    end."""
    watched = Watchdog(run.config.hang_timeout, hurry=lambda: bool(run.stops.asked))
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
    done = run.config, run.folder, start
    if on_rank_zero(partial(is_missing, *done)):
        ended = _is_enough(run, start, watchdog)
    else:
        ended = start > 0 and on_rank_zero(partial(was_enough, *done))
    if not ended:
        _Steps(run, start, watchdog).run()


class _Launched(NamedTuple):
    """A step whose computation has been launched."""

    terms: LossTerms
    found: Similarities
    used_BK: torch.Tensor
    """bool: False for an empty slot of hard negatives."""
    values: dict[str, torch.Tensor]
    """Further values for the log, one element each."""


class _Steps:
    """The steps of a run, and the state between them.

    Args:
        run: The objects that they use.
        start: Steps done before.
        watchdog: Gets a heartbeat for each phase of a step.
    """

    def __init__(self, run: Run, start: int, watchdog: Watchdog) -> None:
        self._run, self._watchdog, self._device = run, watchdog, run.engine.device
        self._steps = range(start, run.config.steps)
        stream = batches(run.data, self._steps, run.config.data.workers, is_accelerated())
        self._feed = Feed(stream, self._device, self._prepare)
        self._reports = Reports(self._device)
        self._wish = 0
        self._without_batch: int | None = None
        self._corrupt = set[str]()

    def run(self) -> None:
        """Run all steps, or fewer with early stopping.

        Raises:
            UserError: On every rank.
            Stopped: On every rank, after a step that is saved.
        """
        first = self._steps.start - AHEAD
        for step in range(first, first + AHEAD):
            self._reports.send(step, self._run.stops.wish, self._draw(step + AHEAD))
        self._read_reports(first)
        for step in self._steps:
            if self._without_batch == step:
                raise_if_any(self._feed.problem())
            if self._step(step):
                return

    def _step(self, step: int) -> bool:
        """Launch a step, draw the next batch, log, save and evaluate. Returns whether to end."""
        run, config, last = self._run, self._run.config, self._is_last(step)
        self._watchdog.beat(f"step {step + 1}")
        launched, alpha = self._launch(step)
        has_problem = self._draw(step + AHEAD)
        self._watchdog.beat(f"step {step + 1}")
        self._reports.send(step, run.stops.wish, has_problem, launched.terms.total, self._unsound())
        is_measured = run.validation is not None and run.validation.is_due(step + 1)
        is_saved = last or is_measured or (step + 1) % config.save_every == 0
        # Otherwise those of the previous step, so that the device has work meanwhile.
        self._read_reports(step if is_saved or self._is_logged(step) else step - 1)
        if self._is_logged(step):
            values = {name: float(value) for name, value in launched.values.items()}
            self._write(step, {"alpha": alpha, **values})
        if self._wish or is_saved:
            self._read_reports(step)  # no step that is not finite is saved
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

    def _prepare(self, step: int, batch: Batch) -> Batch:
        """The batch with the embeddings that were made before, if there are any, and without hard
        negatives if they are neither trained on nor logged."""
        if self._run.images is not None:
            batch = with_embeddings(batch, self._run.images, is_accelerated())
        is_needed = self._run.config.loss.sees_negatives() or self._is_logged(step)
        return batch if is_needed else batch.without_negatives()

    def _draw(self, step: int) -> bool:
        """Draw the batch of a step, if the run has that step. Returns whether there is a
        problem."""
        if step not in self._steps:
            return False
        self._watchdog.beat(f"the data of step {step + 1}")
        return not self._feed.draw(step)

    def _launch(self, step: int) -> tuple[_Launched, float]:
        """Launch a step's computation. Returns also alpha."""
        run, (batch, alike_BK, _) = self._run, self._feed.take()
        self._corrupt.update(batch.corrupt)
        alpha = run.config.loss.alpha_at(step)
        seed = hash((run.config.seed, step, rank()))  # for models with dropout
        launch = _contrasted if isinstance(run.engine.module, Clip) else _matched
        launched = launch(run, batch, alpha, step, seed)
        computed_T = run.engine.module.computed_tokens(batch.token_TL, batch.used_T)
        tokens = batch.used_T, computed_T, alike_BK
        numbers = batch.negative_type_BK, batch.negative_about_BK
        run.monitor.add(launched.terms, launched.found, launched.used_BK, *numbers, *tokens)
        return launched, alpha

    def _unsound(self) -> torch.Tensor | None:
        """Whether the gradient is not finite; None in fp16, where that is normal."""
        return None if self._run.engine.scales_loss else self._run.engine.unsound()

    def _read_reports(self, until: int) -> None:
        """Process the reports of all ranks on the steps up to one.

        Raises:
            UserError: On every rank, if a loss or a gradient is not finite.
        """
        for report in self._reports.read(until):
            if not (report.is_finite and report.is_sound):
                what = "gradient" if report.is_finite else "loss"
                raise UserError(
                    f"{self._run.folder}: the {what} is not finite at step {report.step + 1}; "
                    "lower the learning rate, or use bf16 instead of fp16, and start again with "
                    "--resume"
                )
            self._wish = max(self._wish, report.wish)
            if report.has_problem and self._without_batch is None:
                self._without_batch = report.step + AHEAD

    def _write(self, step: int, extra: dict[str, float]) -> None:
        """Write a log line. A collective."""
        run = self._run
        extra |= _count_corrupt(self._corrupt, run.data)
        run.monitor.waited(self._feed.lost())
        run.monitor.write(step + 1, run.engine.measures() | extra)


def _is_enough(run: Run, step: int, watchdog: Watchdog) -> bool:
    """Evaluate the checkpoint of a step. Returns whether training ends with it. A collective."""
    validation = run.validation
    assert validation is not None
    run.saver.wait()
    when = f"while step {step} of {run.config.steps} was measured"
    with watchdog.paused(f"the measurement of step {step}"), run.stops.at_once(when):
        if wish := max_over_ranks(run.stops.wish, run.engine.device):
            raise run.stops.stopped(wish, f"after step {step} of {run.config.steps}")
        found = validation.measure_checkpoint(step)
        return on_rank_zero(lambda: judge(run, step, found))


def judge(run: Run, step: int, found: HeldOut) -> bool:
    """Log and write an evaluation. Returns whether training should end. On rank 0."""
    assert run.validation is not None
    run.validation.write(step, found)
    run.monitor.write_held_out(step, found.scores, found.worst, found.rare)
    return run.validation.is_enough(step, found.scores)


def _contrasted(run: Run, batch: Batch, alpha: float, step: int, seed: int) -> _Launched:
    """A step of a model with embeddings."""
    compute = partial(_objective, run.config.loss, batch, alpha)
    terms, inputs = grad_cache.step(run.engine, batch, compute, seed)
    values = {"temperature": 1 / inputs.scale.detach()}
    if inputs.bias is not None and run.config.loss.trains_bias():
        values["bias"] = inputs.bias.detach()
    used_BK = inputs.masks.negative_used_BK
    return _Launched(terms, measure_similarities(inputs), used_BK, values)


def _matched(run: Run, batch: Batch, alpha: float, step: int, seed: int) -> _Launched:
    """A step of an image-text matching model."""
    draws = hash((run.config.seed, step))
    terms, inputs = matching.step(run.engine, batch, run.config, alpha, (seed, draws))
    return _Launched(terms, matching.similarities(inputs), inputs.hard_used_BK, {})


def _objective(
    loss: LossConfig, batch: Batch, alpha: float, embedded: Embedded
) -> tuple[LossTerms, LossInputs]:
    """The loss over all ranks. A collective."""
    inputs = gather_inputs(embedded, batch, loss)
    return objective(inputs, loss, alpha), inputs


def _count_corrupt(own: set[str], data: TrainingData) -> dict[str, float]:
    """How many images could not be decoded so far, over all ranks.

    Raises:
        UserError: On every rank, if they are more than MAX_CORRUPT_FRACTION of the data.
    """
    keys = set().union(*all_gather_object(own))
    if len(keys) > MAX_CORRUPT_FRACTION * len(data.reader):
        raise UserError(
            f"{len(keys)} of {len(data.reader)} images cannot be decoded, {min(keys)} for "
            f"example; more than {MAX_CORRUPT_FRACTION:.0%} is refused, pack the shards again"
        )
    return {"corrupt_images": float(len(keys))}
