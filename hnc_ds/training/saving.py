"""Checkpoints written while training goes on, and which of them is the best.

The state is gathered at once, so that it is of one step; rank 0 then writes it from a thread. The
loop waits for that only when the next checkpoint is due, or the run ends.
"""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from hnc_ds import checkpoint
from hnc_ds.distributed import on_rank_zero, rank, together
from hnc_ds.engine import Engine
from hnc_ds.output_lock import only_writer
from hnc_ds.reading import decode_json, read_bytes
from hnc_ds.whole_files import remove_partial_folders, write_whole

BEST_NAME = "best.json"


@contextmanager
def only_run(run: Path) -> Iterator[None]:
    """Hold the lock of a run's folder for the whole group. A collective.

    Raises:
        UserError: On every rank, if another process trains this run; nothing was changed.
    """
    with ExitStack() as stack:
        on_rank_zero(partial(_lock, stack, run))
        yield


def _lock(stack: ExitStack, run: Path) -> None:
    stack.enter_context(only_writer(run))
    remove_partial_folders(run / "checkpoints")


class Best(msgspec.Struct, frozen=True):
    """The checkpoint that scored highest so far; best.json of a run."""

    step: int
    metric: str
    value: float


def read_best(run: Path) -> Best | None:
    """The best checkpoint of a run; None where none was measured.

    Raises:
        UserError: best.json is not what it should be.
    """
    path = run / BEST_NAME
    if not path.exists():
        return None
    return decode_json(read_bytes(path, "remove it"), Best, path, "remove it")


def write_best(run: Path, best: Best) -> None:
    """Remember the best checkpoint, which is then kept."""
    write_whole(run / BEST_NAME, msgspec.json.encode(best))


def forget_later(run: Path, step: int) -> None:
    """Take back a best checkpoint beyond the step that a run goes on from; what was best until then
    is so again, by the log.

    Raises:
        UserError: best.json is not what it should be.
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
        run: Its folder.
        keep_last: Checkpoints that are kept, besides the best.
    """

    def __init__(self, run: Path, keep_last: int) -> None:
        self._run, self._keep_last = run, keep_last
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever ends the run, what was begun is written first. No collective."""
        self._writer.shutdown()

    def save(self, step: int, engine: Engine) -> None:
        """Begin to write the state after a step. A collective.

        Raises:
            UserError: On every rank, if the checkpoint before could not be written.
        """
        self.wait()
        state = engine.state()
        if rank() == 0:
            made = checkpoint.contents(engine.module, *state)
            best = read_best(self._run)
            kept = (self._keep_last, best.step if best else None)
            self._writing = self._writer.submit(checkpoint.write, self._run, step, made, *kept)

    def wait(self) -> None:
        """Until what was begun is on disk. A collective.

        Raises:
            UserError: On every rank, if it could not be written; earlier checkpoints are there.
        """
        together(self._finish)

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
