"""The log of a training run: console, log.jsonl, and the trackers of --log_to.

    tensorboard --logdir runs

Every number is a mean over rows or a sum over ranks since the previous line. Values stay on the
device and are reduced over ranks only when a line is due. TAGS lists all of them.
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.captions.language.attribute_classes import kind_of
from hnc_ds.config import LOSS_TERMS
from hnc_ds.distributed import max_over_ranks, raise_if_any, rank, world_size
from hnc_ds.errors import UserError, counted
from hnc_ds.metrics import Similarities, Sum, Sums
from hnc_ds.objective.terms import LossTerms
from hnc_ds.trackers import Tracker, open_trackers

RESUME = "start again with --resume"
"""What to do after an error of the disk."""

TAGS = {
    "loss": "weighted sum of the terms below but l2_sp, nats",
    **{f"loss/{tag}": what for term in LOSS_TERMS.values() for tag, what in term.tags.items()},
    "hard_negative_accuracy": "fraction of hard negatives less similar to the image than its "
    "positive",
    "hard_negative_accuracy/TYPE": "the same for one negative type",
    "predicate_accuracy/NAME": "the same for negatives about one of the most frequent predicates",
    "attribute_accuracy/NAME": "the same for negatives about one attribute class",
    "margin": "mean similarity of the positive minus that of the hard negative; cosines, or of "
    "image-text matching models log-odds",
    "similarity/positive": "mean cosine of an image and its caption, or log-odds",
    "similarity/hard_negative": "mean cosine of an image and its hard negatives",
    "similarity/in_batch": "mean cosine of an image and other images' captions",
    "retrieval_r1": "fraction of images whose caption is the most similar of the batch's "
    "positives; of image-text matching models, of its unrelated captions",
    "temperature": "tau",
    "alpha": "weight of the hard negatives",
    "bias": "logit_bias of the sigmoid loss",
    "learning_rate": "of the last step",
    "gradient_norm": "before clipping",
    "loss_scale": "fp16 only",
    "skipped_steps": "fp16 only: steps skipped for overflow since the start",
    "samples_per_second": "images of all ranks",
    "samples_per_second_per_rank": "",
    "data_wait_fraction": "fraction of the time in which the device was idle for lack of data; "
    "on a CPU, in which the process waited for the loader",
    "padding_fraction": "fraction of text tokens that are padding",
    "tflops_per_rank": "matrix operations of forward and backward, 10^12 per second",
    "peak_share": "tflops_per_rank over the accelerator's dense 16-bit peak",
    "memory_gib": "peak memory of rank 0's accelerator; of its process on a CPU",
    "eval/BENCHMARK/METRIC/GROUP": "held-out scores of --eval_shards and --eval; trackers have "
    "only those of the most frequent predicates and attribute classes",
    "eval/worst_pairs": "image: held-out pairs with the smallest margin",
    "alike_negatives": "fraction of hard negatives with the same tokens as their positive",
    "corrupt_images": "images replaced by another one since the start",
}

CONSOLE = (
    ("step", 0),
    ("epoch", 4),
    ("loss", 1),
    ("neg acc", 2),
    ("lr", 6),
    ("images/s", 5),
    ("wait", 7),
    ("eta", 3),
    ("GiB", 8),
)
"""Parts of the console line in their order. The larger the number, the sooner a part is left out
where the terminal is too narrow."""

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "V100": 125}
"""Dense 16-bit matrix peak by a word in the accelerator's name (vendor data sheets)."""

HISTOGRAM_EVERY = 10
"""Log lines between histograms of similarities."""


class Cost(NamedTuple):
    """Operations of a forward pass; a multiply-add counts as two."""

    per_image: float
    per_token: float


class Monitor:
    """Collects on every rank, writes on rank 0.

    Args:
        run: Folder of the run.
        start_step: Steps done before; later lines of the log are dropped.
        steps: Steps of the whole run.
        negative_types: Names of the numbers in ``negative_type_BK``.
        batch: Images of all ranks in a step.
        cost: The model's cost; None if it is not known.
        device: Where sums are kept.
        context: The model's context length in tokens.
        watched: Names of the numbers in ``negative_about_BK``.
        log_to: Trackers, as in ``TrainConfig``.
        record: The content of config.json, for the trackers.
        epoch: Images of all ranks in an epoch; None if it is not known.
    """

    def __init__(
        self,
        run: Path,
        start_step: int,
        steps: int,
        negative_types: tuple[str, ...],
        batch: int,
        cost: Cost | None,
        device: torch.device,
        context: int,
        watched: tuple[str, ...] = (),
        log_to: Sequence[str] = ("tensorboard",),
        record: Mapping[str, Any] = MappingProxyType({}),
        epoch: int | None = None,
    ) -> None:
        self._epoch = epoch
        self._pace: tuple[float, int] | None = None
        self._context, self._warned = context, False
        self._batch, self._cost, self._steps = batch, cost, steps
        self._device, self._sums = device, Sums(negative_types, tuple(map(_tag, watched)))
        self._lines = 0
        self._similarities: Similarities | None = None
        self._log = run / "log.jsonl"
        self._run = run
        self._trackers: list[Tracker] = []
        self._on_disk(partial(self._open, log_to, start_step, record))
        self._start_window()

    def _open(self, log_to: Sequence[str], start_step: int, record: Mapping[str, Any]) -> None:
        with writing(self._log, RESUME):
            _drop_lines_after(self._log, start_step)
        with writing(self._run, RESUME):
            self._trackers = open_trackers(log_to, self._run, start_step, record)

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
        # The message is sent only if there is a problem.
        if max_over_ranks(int(problem is not None), self._device):
            raise_if_any(problem)

    def _start_window(self) -> None:
        self._waited = 0.0
        self._since = time.perf_counter()
        self._steps_in_window = 0

    def waited(self, seconds: float) -> None:
        """Add time in which training waited for data."""
        self._waited += seconds

    def add(
        self,
        terms: LossTerms,
        found: Similarities,
        used_BK: torch.Tensor,
        negative_type_BK: torch.Tensor,
        negative_about_BK: torch.Tensor,
        used_T: torch.Tensor,
        computed_T: torch.Tensor,
        alike_BK: torch.Tensor,
    ) -> None:
        """Add a step of this rank. Not a collective, and without waiting for the device.

        Args:
            terms: The loss.
            found: Similarities of its images with captions.
            used_BK: bool: False for an empty slot of hard negatives.
            negative_type_BK: Positions in ``negative_types``.
            negative_about_BK: Positions in ``watched``.
            used_T: Tokens of each distinct caption, on the host.
            computed_T: The same with padding, on the host.
            alike_BK: Hard negatives with their positive's tokens, ``Batch.find_alike``, on the
                host.
        """
        self._steps_in_window += 1
        if self._pace is None:  # the first step includes what is done once
            self._pace = time.perf_counter(), 0
        else:
            self._pace = self._pace[0], self._pace[1] + 1
        padding_T = 1 - used_T.double() / computed_T
        self._sums.add_known("tokens", float(computed_T.sum()), len(computed_T))
        self._sums.add_known("padding_fraction", float(padding_T.sum()), len(padding_T))
        self._sums.add_known("alike_negatives", float(alike_BK.sum()), 0)
        self._similarities = found
        self._sums.add(terms, found, used_BK, negative_type_BK, negative_about_BK)

    def write(self, step: int, measures: dict[str, float]) -> dict[str, float]:
        """Reduce over ranks, write a line, and reset. A collective.

        Args:
            step: Steps done.
            measures: Further values: learning rate, temperature, ...

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
        """Warn once of hard negatives that have the same tokens as their positive."""
        if alike.total and not self._warned and rank() == 0:
            self._warned = True
            total = counted(int(alike.of), "hard negative")
            print(
                f"train: {int(alike.total):,} of {total} so far have the same tokens as their "
                f"positive, as the difference is cut off at {self._context} tokens or lost in "
                "tokenization; the model cannot learn from them (alike_negatives in the log)",
                file=sys.stderr,
                flush=True,
            )

    def _speed(self, tokens: float) -> dict[str, float]:
        """Speed since the previous line; ``tokens`` are those of one rank."""
        seconds = time.perf_counter() - self._since
        images = self._batch * self._steps_in_window
        found = {
            "samples_per_second": images / seconds,
            "samples_per_second_per_rank": images / seconds / world_size(),
            "data_wait_fraction": self._waited / seconds,
            "memory_gib": _memory_gib(self._device),
        }
        if (cost := self._cost) is not None:
            forward = images / world_size() * cost.per_image + tokens * cost.per_token
            tflops = 3 * forward / seconds / 1e12  # backward is twice the forward
            found["tflops_per_rank"] = tflops
            if peak := _peak_tflops(self._device):
                found["peak_share"] = tflops / peak
        return found

    def _write_line(self, step: int, line: dict[str, float]) -> None:
        self._append(line)
        with writing(self._run, RESUME):
            self._track(step, line)
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(console_line(self._console_parts(line), columns), flush=True)

    def _console_parts(self, line: dict[str, float]) -> dict[str, str]:
        """Parts of the console line, by names in CONSOLE."""
        step = int(line["step"])
        parts = {"step": f"step {step}/{self._steps}", "loss": f"loss {line['loss']:.4f}"}
        if self._epoch is not None:
            parts["epoch"] = f"epoch {step * self._batch / self._epoch:.2f}"
        if (accuracy := line.get("hard_negative_accuracy")) is not None:
            parts["neg acc"] = f"neg acc {accuracy:.3f}"
        if (rate := line.get("learning_rate")) is not None:
            parts["lr"] = f"lr {rate:.1e}"
        parts["images/s"] = f"{line['samples_per_second']:.0f} images/s"
        parts["wait"] = f"wait {line['data_wait_fraction']:.0%}"
        if (seconds := self._seconds_left(step)) is not None:
            parts["eta"] = f"eta {timedelta(seconds=round(seconds))}"
        if self._device.type == "cuda":
            parts["GiB"] = f"{line['memory_gib']:.1f} GiB"
        return parts

    def _seconds_left(self, step: int) -> float | None:
        """At the mean pace since the first step of this process, evaluations included; None after
        that step alone."""
        if self._pace is None or not self._pace[1]:
            return None
        since, steps = self._pace
        return (time.perf_counter() - since) / steps * (self._steps - step)

    def write_held_out(
        self,
        step: int,
        scores: dict[str, float],
        worst: np.ndarray | None,
        logged_only: Collection[str] = (),
    ) -> None:
        """Add held-out scores to the log. On rank 0.

        Args:
            step: Steps done.
            scores: By BENCHMARK/METRIC/GROUP.
            worst: Image of the pairs with the largest errors, uint8 [height, width, 3].
            logged_only: Scores that only log.jsonl has, as there are so many.

        Raises:
            UserError: The log cannot be written.
        """
        line = {f"eval/{name}": value for name, value in scores.items()}
        self._append({"step": step, **line})
        shown = {f"eval/{name}": v for name, v in scores.items() if name not in logged_only}
        with writing(self._run, RESUME):
            for tracker in self._trackers:
                tracker.log(shown, step)
                if worst is not None:
                    tracker.log_image("eval/worst_pairs", worst, step)
                tracker.flush()

    def _append(self, line: dict[str, float]) -> None:
        with writing(self._log, RESUME), self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _track(self, step: int, line: Mapping[str, float]) -> None:
        values = {name: value for name, value in line.items() if name != "step"}
        for tracker in self._trackers:
            tracker.log(values, step)
            if self._similarities is not None and self._lines % HISTOGRAM_EVERY == 0:
                _log_histograms(tracker, self._similarities, step)
            tracker.flush()

    def close(self) -> None:
        """Flush and close. A collective; raises UserError on every rank if it fails."""
        self._on_disk(self._close)

    def _close(self) -> None:
        with writing(self._run, RESUME):
            for tracker in self._trackers:
                tracker.close()


def _log_histograms(tracker: Tracker, found: Similarities, step: int) -> None:
    parts = {
        "positive": found.positive_B,
        "hard": found.hard_BK,
        "in_batch": found.some_others,
    }
    for part, cosines in parts.items():
        values_N = cosines[cosines.isfinite()]
        if values_N.numel():
            tracker.log_histogram(f"similarities/{part}", values_N, step)


def console_line(parts: Mapping[str, str], columns: int | None) -> str:
    """Join parts of CONSOLE in their order.

    Args:
        parts: Text by name; any may be missing.
        columns: Width of the terminal. The least important parts are left out until the line is
            narrower, but for the step. None leaves out none.
    """
    names = [name for name, _ in CONSOLE if name in parts]
    for name, _ in sorted(CONSOLE[1:], key=lambda part: -part[1]):
        line = "  ".join(parts[kept] for kept in names)
        if columns is None or len(line) < columns:
            break
        names = [kept for kept in names if kept != name]
    return "  ".join(parts[kept] for kept in names)


def _tag(about: str) -> str:
    """Tag of the accuracy on negatives about something: 'predicate_accuracy/to_the_left_of'."""
    return f"{kind_of(about)}_accuracy/{about.replace(' ', '_')}"


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
    """Drop lines of the log after the step that the run resumes from."""
    if not log.exists():
        return
    kept = []
    for line in log.read_bytes().splitlines():
        try:
            logged: Any = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # cut off by a kill
        if isinstance(logged, int | float) and logged <= step:
            kept.append(line + b"\n")
    atomic_write(log, *kept)
