"""Where a run can be watched: TensorBoard, wandb, trackio (--log_to). On rank 0.

Names of the log become tags in few groups, the same everywhere: train/, eval/, speed/, data/, and
types/ for scores of single types, predicates and categories, which viewers sort last. log.jsonl
keeps the plain names.
"""

import json
import os
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from hnc_ds.atomic_files import atomic_write
from hnc_ds.config.checks import flat_settings
from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install

PROJECT = "hnc-ds"
"""Project of wandb and trackio; WANDB_PROJECT replaces it for wandb."""

GROUP_OF = {
    "samples_per_second": "speed",
    "samples_per_second_per_rank": "speed",
    "data_wait_fraction": "speed",
    "tflops_per_rank": "speed",
    "peak_share": "speed",
    "memory_gib": "speed",
    "padding_fraction": "data",
    "alike_negatives": "data",
    "corrupt_images": "data",
}
"""Groups of names of the log; others are in train/."""

BY_TYPE = frozenset({"hard_negative_accuracy", "predicate_accuracy", "attribute_accuracy"})
"""Names whose parts are in types/."""

OFTEN_CONSTANT = frozenset(
    {
        "alpha",
        "temperature",
        "bias",
        "learning_rate",
        "loss_scale",
        "skipped_steps",
        "memory_gib",
        *(name for name, group in GROUP_OF.items() if group == "data"),
    }
)
"""Names that TensorBoard shows only once their value has changed."""

SHOWN_SETTINGS = {
    "alpha": "loss.alpha",
    "batch": "deepspeed.train_batch_size",
    "hard_negatives": "data.hard_negatives",
    "lr": "deepspeed.optimizer.params.lr",
    "model": "model.model",
    "preset": "preset",
    "pretrained": "model.pretrained",
    "ranks": "ranks",
    "seed": "seed",
    "shards": "data.shards",
    "steps": "steps",
    "tau": "loss.tau",
    "towers": "scope.towers",
    "towers_lora_rank": "scope.lora_rank",
    "weight_decay": "deepspeed.optimizer.params.weight_decay",
    "weight_ema": "ema",
}
"""Columns of TensorBoard's table of hyperparameters, with their keys in config.json. It shows the
first five by alphabet until others are chosen; its text card has every setting."""

SHOWN_SCORES = (
    "train/loss",
    "train/hard_negative_accuracy",
    "train/retrieval_r1",
    "eval/hnc-shards/pair_accuracy",
    "eval/retrieval/image_to_text_R@1",
    "eval/retrieval/text_to_image_R@1",
)
"""Scores of that table."""


def tag_of(name: str) -> str:
    """The tag of a name of the log: ``train/loss``, ``eval/retrieval/text_to_image_R@1``."""
    parent, _, part = name.partition("/")
    if parent == "eval":
        metric, _, group = part.rpartition("/")
        is_main = group == "all" and not metric.endswith("/ties")
        return f"eval/{metric}" if is_main else f"types/{name}"
    if part and parent in BY_TYPE:
        return f"types/{name}"
    return f"{GROUP_OF.get(parent, 'train')}/{name}"


class Tracker(Protocol):
    """Something that shows a run. ``name`` is one of the log; errors of the disk are OSErrors."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values by name."""

    def log_histogram(self, name: str, values_N: torch.Tensor, step: int) -> None:
        """Add finite values of one step."""

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Add an image, uint8 RGB [height, width, 3]."""

    def flush(self) -> None:
        """Write what was added."""

    def close(self) -> None:
        """Flush and end."""


def require(names: Iterable[str]) -> None:
    """Raise UserError if the library of a --log_to is not installed."""
    for name in names:
        if name != "tensorboard":
            _module(name)


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"--log_to {name}: {name} is not installed ({error}); {pip_install(name)}"
        ) from error


def commands_to_watch(names: Iterable[str], run: Path) -> list[str]:
    """The commands that show a run in the trackers of --log_to. wandb prints its own address.

    Args:
        names: Values of --log_to.
        run: Folder of the run.
    """
    commands = {
        "tensorboard": f"tensorboard --logdir {run.parent}",
        "trackio": f"trackio show --project {PROJECT}",
    }
    return [commands[name] for name in names if name in commands]


def open_trackers(
    names: Sequence[str], run: Path, start_step: int, record: Mapping[str, Any]
) -> list[Tracker]:
    """Open the trackers of a run.

    Args:
        names: Values of --log_to.
        run: Folder of the run.
        start_step: Steps done before; what TensorBoard has of later ones is dropped.
        record: The content of config.json.

    Raises:
        UserError: A library is not installed, or refuses to start.
    """
    return [OPENERS[name](name, run, start_step, record) for name in dict.fromkeys(names)]


class TensorBoard:
    """Event files in the run's folder, so that TensorBoard names the run as its folder is named."""

    def __init__(self, run: Path, start_step: int, record: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _leave_disk_errors_to_flush()
        # Of a run that starts over, nothing of before is kept.
        purge = start_step + 1 if start_step else 0
        self._writer = SummaryWriter(str(run), purge_step=purge)
        self._first: dict[str, float] = {}
        self._changed: set[str] = set()
        for line in _lines(run / "log.jsonl"):
            self._shown(line)
        self._write_settings(flat_settings(record), start_step)

    def _write_settings(self, settings: Mapping[str, str], step: int) -> None:
        if not settings:
            return
        from torch.utils.tensorboard.summary import hparams

        rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in settings.items())
        table = "\n".join(["| setting | value |", "|---|---|", *rows])
        self._writer.add_text("settings", table, step)
        shown = {
            name: _value(settings[key]) for name, key in SHOWN_SETTINGS.items() if key in settings
        }
        writer: Any = self._writer.file_writer
        for summary in hparams(shown, dict.fromkeys(SHOWN_SCORES, 0.0)):
            writer.add_summary(summary, step)

    def _shown(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values without those that are often constant and have been so far. What was shown
        before a resume depends on the log alone, so it is the same as without the interruption."""
        for name in OFTEN_CONSTANT & values.keys() - self._changed:
            if self._first.setdefault(name, values[name]) != values[name]:
                self._changed.add(name)
        hidden = OFTEN_CONSTANT - self._changed
        return {name: value for name, value in values.items() if name not in hidden}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values by name."""
        for name, value in self._shown(values).items():
            self._writer.add_scalar(tag_of(name), value, step)

    def log_histogram(self, name: str, values_N: torch.Tensor, step: int) -> None:
        """Add finite values of one step."""
        self._writer.add_histogram(tag_of(name), values_N, step)

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Add an image, uint8 RGB [height, width, 3]."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Write what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and end."""
        self._writer.close()


class Hosted:
    """A run of wandb or of trackio, which has wandb's interface.

    Args:
        module: The library.
        run: The library's run.
    """

    def __init__(self, module: ModuleType, run: Any) -> None:
        self._module, self._run = module, run
        self._first = int(getattr(run, "step", 0))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values by name. wandb already has the steps that a resumed run repeats, and refuses
        them."""
        self._log({tag_of(name): value for name, value in values.items()}, step)

    def log_histogram(self, name: str, values_N: torch.Tensor, step: int) -> None:
        """Add finite values of one step."""
        values = values_N.float().cpu().numpy()
        self._log({tag_of(name): self._module.Histogram(values)}, step)

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Add an image, uint8 RGB [height, width, 3]."""
        self._log({name: self._module.Image(image)}, step)

    def _log(self, values: dict[str, Any], step: int) -> None:
        if step >= self._first:
            self._run.log(values, step=step)

    def flush(self) -> None:
        """Nothing: both write in a process or thread of their own."""

    def close(self) -> None:
        """Flush and end."""
        self._run.finish()


def _open_tensorboard(_: str, run: Path, start_step: int, record: Mapping[str, Any]) -> Tracker:
    return TensorBoard(run, start_step, record)


def _open_wandb(name: str, run: Path, _: int, record: Mapping[str, Any]) -> Tracker:
    wandb = _module(name)
    try:
        opened = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.resolve().name,
            id=_id(run / "wandb" / "id"),
            resume="allow",
            dir=str(run),
            config=dict(record),
        )
    except wandb.Error as error:
        raise UserError(
            f"--log_to wandb: {_first_line(error)} WANDB_MODE=offline writes to {run}/wandb alone"
        ) from error
    return Hosted(wandb, opened)


def _open_trackio(name: str, run: Path, start_step: int, record: Mapping[str, Any]) -> Tracker:
    trackio = _module(name)
    resume = "allow" if start_step else "never"
    title = run.resolve().name
    opened = trackio.init(project=PROJECT, name=title, resume=resume, config=dict(record))
    return Hosted(trackio, opened)


OPENERS = {"tensorboard": _open_tensorboard, "wandb": _open_wandb, "trackio": _open_trackio}
"""By value of --log_to."""


def _id(path: Path) -> str:
    """The run's id at wandb: made once, so that a resumed run continues there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, uuid.uuid4().hex[:8].encode())
    return path.read_text().strip()


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line};"


def _lines(log: Path) -> list[dict[str, float]]:
    """The lines of a log, which is whole."""
    return [json.loads(line) for line in log.read_bytes().splitlines()] if log.is_file() else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _leave_disk_errors_to_flush() -> None:
    """Suppress the traceback of OSErrors in TensorBoard's thread, which the next flush raises
    again."""
    before = threading.excepthook

    def hook(met: threading.ExceptHookArgs) -> None:
        own = type(met.thread).__name__ == "_AsyncWriterThread"
        if not (own and isinstance(met.exc_value, OSError)):
            before(met)

    threading.excepthook = hook
