"""Checkpoints written in the background, their held-out evaluation, and which is the best.

The state is gathered at once; rank 0 then writes it in a thread. The loop waits for the thread only
before the next checkpoint and at the end of the run. All ranks evaluate the checkpoint that was
just written, in the same way as ``hnc-ds evaluate``, without touching the random state of training;
early stopping follows. TensorBoard gets an image of the largest errors.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch

from hnc_ds import checkpoint
from hnc_ds.atomic_files import atomic_write, remove_partial_folders
from hnc_ds.captions.language.attribute_classes import KINDS
from hnc_ds.checkpoint import AVERAGE_NAME, checkpoint_folder
from hnc_ds.config import MeasuredOn, TrainConfig
from hnc_ds.distributed import on_rank_zero, raise_on_all_ranks, rank
from hnc_ds.engine.engine import Engine
from hnc_ds.errors import UserError, counted, did_you_mean
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.evaluate import affordable, measure_all
from hnc_ds.evaluation.inputs import read_inputs
from hnc_ds.evaluation.results import Item, ItemsHeader, PairItem, key_of, write_results
from hnc_ds.evaluation.similarity import Scorer
from hnc_ds.evaluation.tables import most_frequent, of_kind
from hnc_ds.launch import readers
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import is_cross_encoder, load_folder
from hnc_ds.output_lock import only_writer
from hnc_ds.reading import decode_json, read_bytes
from hnc_ds.records import CaptionGroup, Negative, Result, TrainingSample
from hnc_ds.shards.contents import drawn_sheet
from hnc_ds.shards.reader import ShardReader

if TYPE_CHECKING:
    from hnc_ds.model.cross_encoder import CrossEncoder

BEST_NAME = "best.json"


@contextmanager
def only_run(run: Path) -> Iterator[None]:
    """Hold the lock of a run's folder for the whole group. A collective.

    Raises:
        UserError: On every rank, if another process trains this run.
    """
    with ExitStack() as stack:
        on_rank_zero(partial(_lock, stack, run))
        yield


def _lock(stack: ExitStack, run: Path) -> None:
    stack.enter_context(only_writer(run))
    remove_partial_folders(run / "checkpoints")


class Best(msgspec.Struct, frozen=True):
    """The checkpoint with the highest score so far; a run's best.json."""

    step: int
    metric: str
    value: float


def read_best(run: Path) -> Best | None:
    """The best checkpoint of a run; None if none was evaluated.

    Raises:
        UserError: best.json is damaged.
    """
    path = run / BEST_NAME
    if not path.exists():
        return None
    return decode_json(read_bytes(path, "remove it"), Best, path, "remove it")


def write_best(run: Path, best: Best) -> None:
    """Write best.json; that checkpoint is kept from now on."""
    atomic_write(run / BEST_NAME, msgspec.json.encode(best))


def forget_later(run: Path, step: int) -> None:
    """Restore best.json, from the log, to what it was at the step that a run resumes from.

    Raises:
        UserError: best.json is damaged.
    """
    best = read_best(run)
    if best is None or best.step <= step:
        return
    name, log = f"eval/{best.metric}", run / "log.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    whole = [line for line in lines if f'"{name}"' in line and line.endswith("}")]
    found = [json.loads(line) for line in whole]
    earlier = [Best(line["step"], best.metric, line[name]) for line in found]
    earlier = [one for one in earlier if one.step <= step]
    if earlier:
        write_best(run, max(earlier, key=lambda one: one.value))
    else:
        (run / BEST_NAME).unlink()


class Saver:
    """Writes the checkpoints of a run.

    Args:
        run: The run's folder.
        keep_last: How many of the newest checkpoints to keep, besides the best.
    """

    def __init__(self, run: Path, keep_last: int) -> None:
        self._run, self._keep_last = run, keep_last
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the checkpoint under way, whatever ends the run. Not a collective."""
        self._writer.shutdown()

    def save(self, step: int, engine: Engine) -> None:
        """Start to write the state after a step. A collective.

        Raises:
            UserError: On every rank, if the previous checkpoint could not be written.
        """
        self.wait()
        state = engine.state()
        if rank() == 0:
            files = checkpoint.contents(engine.module, *state)
            best = read_best(self._run)
            kept = (self._keep_last, best.step if best else None)
            self._writing = self._writer.submit(checkpoint.write, self._run, step, files, *kept)

    def wait(self) -> None:
        """Wait until the checkpoint under way is on disk. A collective.

        Raises:
            UserError: On every rank, if it could not be written; earlier checkpoints remain.
        """
        raise_on_all_ranks(self._finish)

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


IMAGES = 3
"""Images of a sheet, which is one row."""


def draw_worst(items: Iterable[Item], reader: ShardReader) -> np.ndarray | None:
    """Draw the pairs with the smallest margin of the positive over the negative, one per image.

    Args:
        items: Items of an evaluation; other items than pairs are ignored.
        reader: The shards that were evaluated.

    Returns:
        uint8 RGB [height, width, 3]; None if there are no pairs.
    """
    of_image: dict[int, PairItem] = {}
    for item in items:
        if isinstance(item, PairItem):
            known = of_image.get(item.image)
            if known is None or item.margin < known.margin:
                of_image[item.image] = item
    worst = heapq.nsmallest(IMAGES, of_image.values(), key=lambda item: item.margin)
    if not worst:
        return None
    cards = [(reader.image_bytes(item.image), _alone(item, reader)) for item in worst]
    return np.asarray(drawn_sheet(cards, seed=0))


def _alone(item: PairItem, reader: ShardReader) -> TrainingSample:
    """The sample with this pair as its only captions."""
    sample = reader.sample(item.image)
    negative = Negative(caption=item.negative, type=item.type)
    group = CaptionGroup(positive=item.positive, type=item.statement, negatives=(negative,))
    title = f"{item.key}   margin {item.margin:+.3f}"
    return TrainingSample(title, sample.width, sample.height, (group,))


Scores = dict[str, float]
"""By BENCHMARK/METRIC/GROUP."""


class HeldOut(NamedTuple):
    """Result of one evaluation."""

    scores: Scores
    worst: np.ndarray | None
    """Image of the pairs with the largest errors, uint8 RGB [height, width, 3]; on rank 0."""
    results: list[Result]
    header: ItemsHeader

    @property
    def rare(self) -> set[str]:
        """Names of the scores of less frequent predicates and attribute classes."""
        keys = [key_of(row) for row in self.results]
        rest = {key for kind in KINDS for key in of_kind(kind, keys)}
        rest -= {key for shown in most_frequent(keys).values() for key in shown}
        return {"/".join(key) for key in rest}


class Validation:
    """Evaluates the checkpoints of a run.

    Args:
        config: With ``eval_shards`` or ``eval``.
        run: The run's folder.
        device: Where models are evaluated.

    Raises:
        UserError: No such shards, benchmark or files.
    """

    def __init__(self, config: TrainConfig, run: Path, device: torch.device) -> None:
        self._run, self._device = run, device
        measured_on = MeasuredOn(
            shards=config.eval_shards, data=config.eval, images=config.eval_images
        )
        self._inputs = read_inputs(measured_on)
        self._training = config
        self._metric = config.eval_metric

    def is_due(self, step: int) -> bool:
        """Whether the checkpoint after a step is to be evaluated."""
        return _is_due(self._training, step)

    def measure_initial(self, model: "Clip | CrossEncoder") -> HeldOut:
        """Evaluate the initial model. A collective.

        Raises:
            UserError: There is no score with the name of ``eval_metric``.
        """
        found = self._measure(model.eval().to(self._device), 0)
        model.train().to("cpu")  # as the engine needs it
        return found

    def measure_checkpoint(self, step: int) -> HeldOut:
        """Evaluate the checkpoint of a step; its averaged weights if there are any. A
        collective."""
        folder = checkpoint_folder(self._run, step)
        average = folder / AVERAGE_NAME
        chosen = average if average.is_dir() else folder
        model = raise_on_all_ranks(lambda: self._load(chosen))
        return self._measure(model.to(self._device), step)

    def _load(self, folder: Path) -> "Clip | CrossEncoder":
        if not is_cross_encoder(self._training.model.model):
            return load_folder(folder)
        from hnc_ds.model.cross_encoder import load_cross_encoder  # needs transformers

        return load_cross_encoder(str(folder))

    def write(self, step: int, found: HeldOut) -> None:
        """Write the scores of an evaluation, without items, to results/step-000500.json of the run.
        On rank 0.

        Raises:
            UserError: They cannot be written.
        """
        write_results(self._out(step), found.results, found.header, ())

    def is_enough(self, step: int, scores: Scores) -> bool:
        """Update best.json. Returns whether early stopping ends training. On rank 0."""
        metric = self._metric or next(iter(scores))
        before, value = read_best(self._run), scores[metric]
        is_best = before is None or before.metric != metric or value > before.value
        best = Best(step, metric, value) if before is None or is_best else before
        write_best(self._run, best)
        other = "best so far" if is_best else f"best {best.value:.4f} at step {best.step}"
        print(f"eval step {step}  {metric} {value:.4f}  {other}", flush=True)
        return was_enough(self._training, self._run, step)

    def _measure(self, model: "Clip | CrossEncoder", step: int) -> HeldOut:
        scorer = self._scorer(model, f"step-{step}")
        inputs = affordable(scorer, self._inputs)
        measured = measure_all(scorer, inputs, self._out(step).parent)
        scores = {f"{r.benchmark}/{r.metric}/{r.group}": r.value for r in measured.results}
        if self._metric is not None and self._metric not in scores:
            some = [name for name in scores if name.endswith("/all")]
            raise UserError(
                f"eval_metric: there is no score '{self._metric}'"
                f"{did_you_mean(self._metric, scores)}; known are {', '.join(some)}, and others "
                "for each group"
            )
        shown = self._inputs.reader if rank() == 0 else None
        worst = draw_worst(measured.items, shown) if shown else None
        return HeldOut(scores, worst, measured.results, measured.header)

    def _scorer(self, model: "Clip | CrossEncoder", name: str) -> Scorer:
        if isinstance(model, Clip):
            return Encoder(model, self._device, 256, readers(), name=name)
        from hnc_ds.evaluation.cross_scorer import CrossScorer  # needs transformers

        return CrossScorer(model, self._device, 256, readers(), name)

    def _out(self, step: int) -> Path:
        return _results(self._run, step)


def is_missing(config: TrainConfig, run: Path, step: int) -> bool:
    """Whether the checkpoint of a step is due but was not evaluated, as the run was stopped."""
    due = config.measures and step > 0 and _is_due(config, step)
    return due and not _results(run, step).exists()


def was_enough(config: TrainConfig, run: Path, step: int) -> bool:
    """Whether early stopping ends a run at a step whose checkpoint was evaluated, which is then
    printed. On rank 0."""
    patience, best = config.early_stopping_patience, read_best(run)
    if patience is None or best is None or not _is_due(config, step):
        return False
    if best.metric != (config.eval_metric or best.metric):
        return False
    if step - best.step < patience * _every(config):
        return False
    if step < config.steps:
        print(f"train: no better score in {counted(patience, 'measurement')}", flush=True)
    return True


def _every(config: TrainConfig) -> int:
    return config.eval_every or config.save_every


def _is_due(config: TrainConfig, step: int) -> bool:
    return step % _every(config) == 0 or step == config.steps


def _results(run: Path, step: int) -> Path:
    return run / "results" / f"step-{step:06d}.json"
