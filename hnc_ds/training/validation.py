"""Held-out scores while training: which checkpoint is best, and whether it is worth going on.

All ranks measure the checkpoint that was just written, with the measures of ``hnc-ds evaluate``. So
what is scored is what is kept, and nothing that training draws is touched.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hnc_ds.captions.about import KINDS
from hnc_ds.checkpoint import AVERAGE_NAME, checkpoint_folder
from hnc_ds.config import EvaluateConfig, TrainConfig
from hnc_ds.distributed import rank, together
from hnc_ds.errors import UserError, counted, did_you_mean
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.evaluate import measure_all, read_asked
from hnc_ds.evaluation.items import ItemsHeader, write_results
from hnc_ds.evaluation.table import key_of, most_frequent, of_kind
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_folder
from hnc_ds.records import Result
from hnc_ds.training.saving import Best, read_best, write_best
from hnc_ds.training.worst import draw_worst

Scores = dict[str, float]
"""By BENCHMARK/METRIC/GROUP."""


class HeldOut(NamedTuple):
    """What one measurement found."""

    scores: Scores
    worst: np.ndarray | None
    """The pairs that are most wrong, uint8 RGB [height, width, 3]; on rank 0."""
    results: list[Result]
    header: ItemsHeader

    @property
    def rare(self) -> set[str]:
        """Names of the scores of less frequent predicates and classes of attributes."""
        keys = [key_of(row) for row in self.results]
        rest = {key for kind in KINDS for key in of_kind(kind, keys)}
        rest -= {key for shown in most_frequent(keys).values() for key in shown}
        return {"/".join(key) for key in rest}


class Validation:
    """Measures the checkpoints of a run.

    Args:
        config: With ``eval_shards`` or ``eval``.
        run: Its folder.
        device: Of the measuring.

    Raises:
        UserError: No such shards, benchmark or files.
    """

    def __init__(self, config: TrainConfig, run: Path, device: torch.device) -> None:
        self._run, self._device = run, device
        self._config = EvaluateConfig(
            models=(str(run),),
            out=run / "results" / "start.json",
            shards=config.eval_shards,
            data=config.eval,
            images=config.eval_images,
        )
        self._asked = read_asked(self._config)
        self._training = config
        self._metric, self._patience = config.eval_metric, config.stop_early

    def is_due(self, step: int) -> bool:
        """Whether the weights after a step are to be measured."""
        return _is_due(self._training, step)

    def of_start(self, clip: Clip) -> HeldOut:
        """The start model measured. A collective.

        Raises:
            UserError: The metric to choose by is none of them.
        """
        found = self._measure(clip.eval().to(self._device), 0)
        clip.train().to("cpu")  # as the engine takes it
        return found

    def of_checkpoint(self, step: int) -> HeldOut:
        """The checkpoint of a step measured; its averaged weights where there are any. A
        collective."""
        folder = checkpoint_folder(self._run, step)
        average = folder / AVERAGE_NAME
        clip = together(lambda: load_folder(average if average.is_dir() else folder))
        return self._measure(clip.to(self._device), step)

    def write(self, step: int, found: HeldOut) -> None:
        """Keep the rows of a measurement, without single items, as results/step-000500.json of the
        run. On rank 0.

        Raises:
            UserError: They cannot be written.
        """
        write_results(self._out(step), found.results, found.header, ())

    def is_enough(self, step: int, scores: Scores) -> bool:
        """Remember the best checkpoint, and say whether it is time to stop. On rank 0."""
        metric = self._metric or next(iter(scores))
        before, value = read_best(self._run), scores[metric]
        is_best = before is None or before.metric != metric or value > before.value
        best = Best(step, metric, value) if before is None or is_best else before
        write_best(self._run, best)
        other = "best so far" if is_best else f"best {best.value:.4f} at step {best.step}"
        print(f"eval step {step}  {metric} {value:.4f}  {other}", flush=True)
        if self._patience is None or step - best.step < self._patience * _every(self._training):
            return False
        if step < self._training.steps:
            print(f"train: no better score in {counted(self._patience, 'measurement')}", flush=True)
        return True

    def _measure(self, clip: Clip, step: int) -> HeldOut:
        config, asked = replace(self._config, out=self._out(step)), self._asked
        name = f"step-{step}"
        encoder = Encoder(clip, self._device, config.batch, config.workers, name=name)
        measured = measure_all(encoder, name, asked, config)
        scores = {f"{r.benchmark}/{r.metric}/{r.group}": r.value for r in measured.results}
        if self._metric is not None and self._metric not in scores:
            some = [name for name in scores if name.endswith("/all")]
            raise UserError(
                f"eval_metric: there is no score '{self._metric}' of these"
                f"{did_you_mean(self._metric, scores)}; there are {', '.join(some)}, and others "
                "for each group"
            )
        shown = asked.reader if rank() == 0 else None
        worst = draw_worst(measured.items, shown) if shown else None
        return HeldOut(scores, worst, measured.results, measured.header)

    def _out(self, step: int) -> Path:
        return _results(self._run, step)


def is_missing(config: TrainConfig, run: Path, step: int) -> bool:
    """Whether the checkpoint of a step should have been measured, but the run was stopped."""
    due = config.measures and step > 0 and _is_due(config, step)
    return due and not _results(run, step).exists()


def _every(config: TrainConfig) -> int:
    return config.eval_every or config.save_every


def _is_due(config: TrainConfig, step: int) -> bool:
    return step % _every(config) == 0 or step == config.steps


def _results(run: Path, step: int) -> Path:
    return run / "results" / f"step-{step:06d}.json"
