"""Worker processes that leave signals to their parent, and never outlive it.

A signal to a process group (Ctrl-C), or from SLURM to all processes of a step, reaches workers too.
The parent decides what it means: it saves, and ends its workers itself. So they are started with
these signals blocked, in every thread and from their first instruction on. Nothing but SIGKILL
ends such a worker, which therefore is what ``terminate()`` sends.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import popen_fork, popen_spawn_posix, resource_tracker
from multiprocessing.context import (
    BaseContext,
    ForkContext,
    ForkProcess,
    SpawnContext,
    SpawnProcess,
)
from typing import Any

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
"""That are the parent's matter."""

SILENT = "ignore::UserWarning:multiprocessing.resource_tracker"

LOOK_SECONDS = 2.0
"""How often a worker looks whether its parent is there, where no pipe says that it is gone."""


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
        """As every queue needs; the first one starts Python's process that tracks them."""
        _start_tracker()
        return super().Lock()


SPAWN: BaseContext = _Spawns()
"""Safe where the parent has threads."""

FORK: BaseContext = _Forks()
"""For ``DataLoader(multiprocessing_context=FORK)``: workers share what the parent has read."""


class WorkerPool(ProcessPoolExecutor):
    """Processes that work; whatever ends the block, they finish only what they have begun.

    Args:
        workers: How many.
        initializer: What each does first.
    """

    def __init__(self, workers: int, initializer: Callable[[], object] | None = None) -> None:
        super().__init__(workers, SPAWN, initializer)

    def submit(self, *task: Any, **arguments: Any) -> "Future[Any]":
        """As ProcessPoolExecutor's, which also starts the processes."""
        with _undisturbed():
            return super().submit(*task, **arguments)

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)


def _start(popen: type[popen_fork.Popen], process: Any) -> popen_fork.Popen:
    """Start a process with the signals blocked; it inherits that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with _undisturbed():
            if popen is _SpawnPopen:  # starts a process of its own, and unblocks some signals then
                _start_tracker()
            return popen(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let handlers wait, as they may raise: a worker that is started by half prints a traceback.

    Blocked signals are not enough, as another thread gets them for this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for again in came:
            signal.raise_signal(again)


def _start_tracker() -> None:
    """Start the process that removes what a killed one leaves in shared memory: without a word, and
    deaf to the signals, too, that are sent to the whole group."""
    warnings = os.environ.get("PYTHONWARNINGS", "")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (warnings, SILENT)))
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ["PYTHONWARNINGS"] = warnings
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(popen: popen_fork.Popen) -> None:
    """End a process, and reap it: torch raises for a worker that it finds killed."""
    popen.kill()
    popen.wait()


def _watch_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()


def _end_with_parent() -> None:
    """End this process when its parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # The pipe of a forked worker is also held by workers that were forked later.
    while os.getppid() == parent.pid and parent.is_alive():
        parent.join(LOOK_SECONDS)
    os._exit(1)
