"""Worker processes that leave signals to their parent and never outlive it.

A signal to a process group (Ctrl-C), or from SLURM to all processes of a step, reaches workers too.
The parent decides what it means: it saves, then ends its workers. Workers therefore start with
these signals blocked, in every thread and from their first instruction on; only SIGKILL ends them,
so ``terminate()`` sends SIGKILL.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import popen_fork, popen_spawn_posix, resource_tracker
from multiprocessing.context import (
    BaseContext,
    ForkContext,
    ForkProcess,
    SpawnContext,
    SpawnProcess,
)
from pathlib import Path
from typing import Any, TypeVar

from hnc_ds.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
"""Signals that only the parent handles."""

SILENT = "ignore::UserWarning:multiprocessing.resource_tracker"

PARENT_CHECK_SECONDS = 2.0
"""Interval at which a worker checks that its parent is alive, where no pipe reports its end."""


def identity(value: Any) -> Any:
    """collate_fn of a DataLoader whose data set returns whole batches."""
    return value


class _ForkPopen(popen_fork.Popen):
    def terminate(self) -> None:
        _kill(self)


class _SpawnPopen(popen_spawn_posix.Popen):
    def terminate(self) -> None:
        _kill(self)


class _ForkedWorker(ForkProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> popen_fork.Popen:  # noqa: N802
        return _start(_ForkPopen, process_obj)

    def run(self) -> None:
        _watch_parent()
        super().run()


class _SpawnedWorker(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> popen_fork.Popen:  # type: ignore[override]  # noqa: N802
        return _start(_SpawnPopen, process_obj)

    def run(self) -> None:
        _watch_parent()
        super().run()


class _Forks(ForkContext):
    Process = _ForkedWorker


class _Spawns(SpawnContext):
    Process = _SpawnedWorker

    def Lock(self) -> Any:  # noqa: N802
        """A lock, as every queue needs; the first one starts Python's resource tracker."""
        _start_tracker()
        return super().Lock()


SPAWN: BaseContext = _Spawns()
"""Start method 'spawn'; safe where the parent has threads."""

FORK: BaseContext = _Forks()
"""Start method 'fork', for ``DataLoader(multiprocessing_context=FORK)``: workers share the memory
of the parent."""


def map_in_order(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    path: Path,
    in_flight: int = 4,
    initializer: Callable[[], object] | None = None,
) -> Iterator[R]:
    """``map`` over processes: yields results in the order of the items, with bounded memory.

    Args:
        function: Runs in the workers, so it must be picklable.
        items: Iterated in this process.
        workers: Number of processes; 0 or 1 runs everything in this process.
        path: File or folder that the work is about, for messages.
        in_flight: Items per worker that are submitted and not yet yielded.
        initializer: Runs once in each worker.

    Raises:
        UserError: A worker was killed. Exceptions of ``items`` and ``function`` pass.
    """
    if workers < 2:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with _WorkerPool(workers, SPAWN, initializer) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= in_flight * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{path}: a worker process was killed, perhaps for lack of memory; run the same "
                "command again with fewer --workers"
            ) from error


class _WorkerPool(ProcessPoolExecutor):
    """When the block ends, for any reason, workers finish the running tasks and drop the rest."""

    def submit(self, *task: Any, **arguments: Any) -> "Future[Any]":
        """Submits a task; also starts the processes, which must not be interrupted."""
        with _signals_deferred():
            return super().submit(*task, **arguments)

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)


def _start(popen: type[popen_fork.Popen], process: Any) -> popen_fork.Popen:
    """Start a process with the signals blocked; it inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with _signals_deferred():
            if popen is _SpawnPopen:  # would start the tracker itself and unblock some signals
                _start_tracker()
            return popen(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer signal handlers, as they may raise: a half-started worker prints a traceback.

    Blocking the signals is not enough: another thread receives them for this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for deferred in received:
            signal.raise_signal(deferred)


def _start_tracker() -> None:
    """Start Python's resource tracker, which frees shared memory of killed processes: without its
    warnings, and with the signals blocked that reach the whole process group."""
    warnings = os.environ.get("PYTHONWARNINGS", "")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (warnings, SILENT)))
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ["PYTHONWARNINGS"] = warnings
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(popen: popen_fork.Popen) -> None:
    """Kill and reap a process: torch raises for a worker that it finds killed."""
    popen.kill()
    popen.wait()


def _watch_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()


def _end_with_parent() -> None:
    """End this process when its parent has ended for any reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Workers that were forked later also hold the pipe of an earlier one.
    while os.getppid() == parent.pid and parent.is_alive():
        parent.join(PARENT_CHECK_SECONDS)
    os._exit(1)
