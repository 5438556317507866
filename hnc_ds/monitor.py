"""What a training run is watched by: console line, log.jsonl, TensorBoard.

    tensorboard --logdir runs

Every number is a mean over the rows, or a sum over the ranks, since the last line: what is measured
stays on the device and is put together over ranks only when a line is due. TAGS is the whole list.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from hnc_ds.captions.about import kind_of
from hnc_ds.distributed import (
    largest_over_ranks,
    raise_if_any,
    rank,
    world_size,
)
from hnc_ds.errors import UserError, counted
from hnc_ds.objective.similarities import Similarities, measure_similarities
from hnc_ds.objective.terms import Compared, LossTerms
from hnc_ds.sums import Sum, Sums
from hnc_ds.whole_files import NO_ROOM, write_whole

TAGS = {
    "loss": "weighted sum of the terms below but l2_to_start, nats",
    "loss/image_to_text": "contrastive, nats",
    "loss/text_to_image": "contrastive, nats",
    "loss/margin": "cosine",
    "loss/preference": "nats",
    "loss/distill": "KL divergence from the start model, nats",
    "loss/l2_to_start": "squared distance of the trained weights from the start weights",
    "hard_negative_accuracy": "share of hard negatives less similar to the image than its positive",
    "hard_negative_accuracy/TYPE": "the same for one negative type",
    "predicate_accuracy/NAME": "the same for negatives that state one predicate, of the most "
    "frequent ones",
    "attribute_accuracy/NAME": "the same for negatives that turn on one class of attributes",
    "margin": "mean similarity of the positive minus that of the hard negative",
    "similarity/positive": "mean cosine of an image and its caption",
    "similarity/hard_negative": "mean cosine of an image and its hard negatives",
    "similarity/in_batch": "mean cosine of an image and other images' captions",
    "retrieval_r1": "share of images whose caption is the most similar of the batch's positives",
    "temperature": "tau",
    "alpha": "weight of the hard negatives",
    "learning_rate": "of the step just done",
    "gradient_norm": "before clipping",
    "loss_scale": "fp16 only",
    "skipped_steps": "fp16 only: steps dropped for overflow since the start",
    "samples_per_second": "images of all ranks",
    "samples_per_second_per_rank": "",
    "data_wait_share": "share of the time in which training stood still for data: of an "
    "accelerator, in which it had nothing left to do",
    "padding_share": "share of text tokens that are padding",
    "tflops_per_rank": "matrix work of forward and backward, 10^12 per second",
    "peak_share": "tflops_per_rank over the accelerator's dense 16-bit peak",
    "memory_gib": "most memory of rank 0's accelerator; of its process on a CPU",
    "eval/BENCHMARK/METRIC/GROUP": "held-out scores of --eval_shards and --eval; TensorBoard has "
    "those of the most frequent predicates and classes of attributes alone",
    "eval/worst_pairs": "pictures: held-out negatives that lead most over their positives",
    "alike_negatives": "share of hard negatives whose tokens are those of their positive",
    "corrupt_images": "pictures replaced by a neighbour, since the start",
}

CONSOLE = ("loss", "hard_negative_accuracy", "retrieval_r1", "margin", "temperature")
"""What the console line names, in this order, between the step and the speed."""

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "V100": 125}
"""Dense 16-bit matrix peak by a word of the accelerator's name (vendor data sheets)."""

HISTOGRAM_EVERY = 10
"""Lines between histograms of similarities."""


class Cost(NamedTuple):
    """Multiply-adds count as two operations; forward only."""

    per_image: float
    per_token: float


class Monitor:
    """Collects on every rank, writes on rank 0.

    Args:
        run: Folder of the run.
        start_step: Steps done before; later lines of an earlier attempt are dropped.
        steps: Of the whole run.
        negative_types: Names of the numbers in ``negative_type_BK``.
        batch: Images of all ranks at a step.
        cost: Of the model.
        device: Where the sums are kept.
        context: Tokens that the model takes.
        watched: Names of the numbers in ``negative_about_BK``.
    """

    def __init__(
        self,
        run: Path,
        start_step: int,
        steps: int,
        negative_types: tuple[str, ...],
        batch: int,
        cost: Cost,
        device: torch.device,
        context: int,
        watched: tuple[str, ...] = (),
    ) -> None:
        self._context, self._warned = context, False
        self._batch, self._cost, self._steps = batch, cost, steps
        self._device, self._sums = device, Sums(negative_types, tuple(map(_tag, watched)))
        self._lines = 0
        self._similarities: Similarities | None = None
        self._log = run / "log.jsonl"
        self._events = run / "tensorboard"
        self._writer: SummaryWriter | None = None
        self._on_disk(partial(self._open, start_step))
        self._start_window()

    def _open(self, start_step: int) -> None:
        with _named(self._log):
            _drop_lines_after(self._log, start_step)
        _leave_disk_errors_to_flush()
        with _named(self._events):
            self._writer = SummaryWriter(str(self._events), purge_step=start_step + 1)

    def _on_disk(self, write: Callable[[], object]) -> None:
        """Write on rank 0. A collective.

        Raises:
            UserError: On every rank, if it cannot be written.
        """
        problem = None
        try:
            if rank() == 0:
                write()
        except UserError as error:
            problem = str(error)
        # One number tells whether all is well; words travel only if it is not.
        if largest_over_ranks(int(problem is not None), self._device):
            raise_if_any(problem)

    def _start_window(self) -> None:
        self._waited = 0.0
        self._since = time.perf_counter()
        self._steps_in_window = 0

    def waited(self, seconds: float) -> None:
        """Add time in which training stood still for data."""
        self._waited += seconds

    def add(
        self,
        terms: LossTerms,
        compared: Compared,
        negative_type_BK: torch.Tensor,
        negative_about_BK: torch.Tensor,
        used_T: torch.Tensor,
        computed_T: torch.Tensor,
        alike_BK: torch.Tensor,
    ) -> None:
        """Take in one step of this rank. No collective, and no wait for the device.

        Args:
            terms: The loss.
            compared: Its embeddings.
            negative_type_BK: Positions in ``negative_types``.
            negative_about_BK: Positions in ``watched``.
            used_T: Tokens of each distinct caption, on the host.
            computed_T: The same with padding, on the host.
            alike_BK: Hard negatives that to the model are their positive, ``Batch.find_alike``, on
                the host.
        """
        self._steps_in_window += 1
        padding_T = 1 - used_T.double() / computed_T
        self._sums.add_known("tokens", float(computed_T.sum()), len(computed_T))
        self._sums.add_known("padding_share", float(padding_T.sum()), len(padding_T))
        self._sums.add_known("alike_negatives", float(alike_BK.sum()), 0)
        self._similarities = measure_similarities(compared)
        used_BK = compared.slots.negative_used_BK
        numbers = negative_type_BK, negative_about_BK
        self._sums.add(terms, self._similarities, used_BK, *numbers)

    def write(self, step: int, measures: dict[str, float]) -> dict[str, float]:
        """Put the ranks together, write a line, start anew. A collective.

        Args:
            step: Steps done.
            measures: What others know: learning rate, temperature, ...

        Returns:
            The line, on every rank.

        Raises:
            UserError: On every rank, if it cannot be written.
        """
        sums = self._sums.over_ranks(self._device)
        tokens = sums.pop("tokens").total / world_size()
        negatives = sums["hard_negative_accuracy"].of
        alike = sums["alike_negatives"] = Sum(sums["alike_negatives"].total, negatives)
        self._warn_of_alike(alike)
        means = {name: total / count for name, (total, count) in sums.items() if count}
        line = {"step": step, **means, **measures, **self._speed(tokens)}
        self._on_disk(partial(self._write_line, step, line))
        self._lines += 1
        self._start_window()
        return line

    def _warn_of_alike(self, alike: Sum) -> None:
        """Once, where hard negatives are found that the model cannot tell from their positive."""
        if alike.total and not self._warned and rank() == 0:
            self._warned = True
            told = counted(int(alike.of), "hard negative")
            print(
                f"train: {int(alike.total):,} of {told} so far are their positive to the model, as "
                f"what differs is beyond the {self._context} tokens that it takes, or is none to "
                "its tokenizer; nothing is learned from them (alike_negatives in the log)",
                file=sys.stderr,
                flush=True,
            )

    def _speed(self, tokens: float) -> dict[str, float]:
        """Of the window just ended; ``tokens`` are those of one rank."""
        seconds = time.perf_counter() - self._since
        images = self._batch * self._steps_in_window
        forward = images / world_size() * self._cost.per_image + tokens * self._cost.per_token
        tflops = 3 * forward / seconds / 1e12  # backward is twice the forward
        found = {
            "samples_per_second": images / seconds,
            "samples_per_second_per_rank": images / seconds / world_size(),
            "data_wait_share": self._waited / seconds,
            "tflops_per_rank": tflops,
            "memory_gib": _memory_gib(self._device),
        }
        if peak := _peak_tflops(self._device):
            found["peak_share"] = tflops / peak
        return found

    def _write_line(self, step: int, line: dict[str, float]) -> None:
        self._append(line)
        with _named(self._events):
            self._write_events(step, line)
        known = [f"{name} {line[name]:.4f}" for name in CONSOLE if name in line]
        speed = f"{line['samples_per_second']:.0f} images/s"
        print(f"step {step}/{self._steps}  {'  '.join(known)}  {speed}", flush=True)

    def write_held_out(
        self,
        step: int,
        scores: dict[str, float],
        worst: np.ndarray | None,
        logged_only: Collection[str] = (),
    ) -> None:
        """Add what was measured on held-out data to the log. On rank 0; a UserError if it cannot.

        Args:
            step: Steps done.
            scores: By BENCHMARK/METRIC/GROUP.
            worst: A picture of the pairs that are most wrong, uint8 [height, width, 3].
            logged_only: Scores that TensorBoard does not show, as there are so many.
        """
        line = {f"eval/{name}": value for name, value in scores.items()}
        self._append({"step": step, **line})
        with _named(self._events):
            if self._writer is not None:
                for name, value in scores.items():
                    if name not in logged_only:
                        self._writer.add_scalar(f"eval/{name}", value, step)
                if worst is not None:
                    self._writer.add_image("eval/worst_pairs", worst, step, dataformats="HWC")
                self._writer.flush()

    def _append(self, line: dict[str, float]) -> None:
        with _named(self._log), self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _write_events(self, step: int, line: dict[str, float]) -> None:
        writer = self._writer
        assert writer is not None
        for name, value in line.items():
            if name != "step":
                writer.add_scalar(name, value, step)
        if self._similarities is not None and self._lines % HISTOGRAM_EVERY == 0:
            self._write_histograms(writer, self._similarities, step)
        writer.flush()

    def _write_histograms(self, writer: SummaryWriter, found: Similarities, step: int) -> None:
        parts = {
            "positive": found.positive_B,
            "hard": found.hard_BK,
            "in_batch": found.some_others[found.some_others.isfinite()],
        }
        for part, values in parts.items():
            if values.numel():
                writer.add_histogram(f"similarities/{part}", values, step)

    def close(self) -> None:
        """Flush and close what is open. A collective; a UserError on every rank if it cannot."""
        self._on_disk(self._close)

    def _close(self) -> None:
        with _named(self._events):
            if self._writer is not None:
                self._writer.close()


def _tag(about: str) -> str:
    """Of the accuracy on negatives about one thing: 'predicate_accuracy/to_the_left_of'."""
    return f"{kind_of(about)}_accuracy/{about.replace(' ', '_')}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file that cannot be written.

    Raises:
        UserError: It cannot.
    """
    try:
        yield
    except OSError as error:
        what = "make room" if error.errno in NO_ROOM else "see to its permissions"
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); {what} and start again with "
            "--resume"
        ) from error


def _leave_disk_errors_to_flush() -> None:
    """TensorBoard's thread keeps what it meets for the next flush; it is not to print it too."""
    before = threading.excepthook

    def hook(met: threading.ExceptHookArgs) -> None:
        own = type(met.thread).__name__ == "_AsyncWriterThread"
        if not (own and isinstance(met.exc_value, OSError)):
            before(met)

    threading.excepthook = hook


def _memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _peak_tflops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for word, peak in PEAK_TFLOPS.items() if word in name), None)


def _drop_lines_after(log: Path, step: int) -> None:
    """Forget what an earlier attempt logged beyond the step that is resumed from."""
    if not log.exists():
        return
    kept = []
    for line in log.read_bytes().splitlines():
        try:
            logged: Any = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # torn by a kill
        if isinstance(logged, int | float) and logged <= step:
            kept.append(line + b"\n")
    write_whole(log, *kept)
