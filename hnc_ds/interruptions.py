"""How commands end: with one line for errors that the user can fix, and for signals.

A signal's line states what is kept and how to continue. Ctrl-C, SIGTERM and SIGUSR1 raise an
exception in the main thread. Worker processes block them (worker_processes.py) and are ended by
their parent. ``train`` handles signals itself (training/signals.py). Any other exception is a
defect of this package and keeps its traceback.
"""

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hnc_ds.errors import RankError, Stopped, UserError
from hnc_ds.launch import is_rank_zero

DISK_ERRORS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or ask for a larger quota",
    errno.EFBIG: "the disk or a limit (ulimit -f) does not allow files of this size",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EIO: "the disk has a fault",
    errno.ESTALE: "the network disk lost it; start again",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ELOOP: "its symbolic links form a cycle",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.ENOENT: "was it removed meanwhile?",
}
"""Errors of disks and paths -> what to do."""


def run(program: str, command: Callable[[], object]) -> int:
    """Run a command to its end.

    Args:
        program: Its name, which starts the line.
        command: The whole work of the command.

    Returns:
        0; 2 for errors that the user can fix; 130 when interrupted, 128 + number for other signals.
        A closed pipe ('hnc-ds benchmarks | head') is no error.
    """
    try:
        command()
        sys.stdout.flush()
        return 0
    except UserError as error:
        # All ranks raise the same error, except RankErrors.
        return _end(program, str(error), 2, isinstance(error, RankError))
    except Stopped as end:
        return _end(program, str(end), end.status)
    except KeyboardInterrupt:
        return _end(program, "interrupted", 130)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 0
    except MemoryError as error:
        reason = str(error).strip().partition("\n")[0]
        what = f"not enough memory{f' ({reason})' if reason else ''}"
        return _end(program, f"{what}; request more, or use smaller settings", 2, True)
    except OSError as error:
        if (line := _disk_error(error)) is None:
            raise
        return _end(program, line, 2, True)


def _end(program: str, line: str, status: int, always: bool = False) -> int:
    if always or is_rank_zero():
        print(f"{program}: {line}".encode(errors="replace").decode(), file=sys.stderr, flush=True)
    return status


def _disk_error(error: OSError) -> str | None:
    """The line about an unusable path; None if the error has no path, as that of a socket, unless
    the disk is full or faulty."""
    if error.errno not in DISK_ERRORS:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    if error.filename is None and not full:
        return None
    named = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    where = f"{' -> '.join(named)}: " if named else ""
    return f"{where}{error.strerror or error}; {DISK_ERRORS[error.errno]}"


def _reader_is_gone() -> bool:
    """Whether stdout is a closed pipe; redirects it to /dev/null, as Python would raise again."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""SIGUSR1 is SLURM's warning before the time limit; slurm/job.sh then requeues the job."""

SAME_SECONDS = 0.5
"""Launchers forward signals that the group received too; repeats within this time are ignored."""

CONTINUES = "run the same command again, it continues where it stopped"
ANEW = "nothing was written; run the same command again"
AFTER = {
    "scenes": CONTINUES,
    "generate": CONTINUES,
    "swap-words": CONTINUES,
    "rewrite": CONTINUES,
    "pack": CONTINUES,
    "answer": CONTINUES,
    "demo": CONTINUES,
    "demo-llava": CONTINUES,
    "tables": ANEW,
    "mine": ANEW,
    "export": ANEW,
    "score": ANEW,
    "compare": ANEW,
    "report": ANEW,
    "evaluate": "results that were written are complete; run the same command again, it starts "
    "from the beginning",
    "interpolate": "points that were measured are kept; run the same command again, it continues "
    "with the others",
}
"""Command -> what remains after a stop, and how to continue."""


class Interrupted(KeyboardInterrupt):
    """Raised by a signal to stop.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_raise(command: str) -> Iterator[None]:
    """Raise Interrupted at the first signal; exit immediately at a second Ctrl-C.

    Signals that are ignored, as under nohup, stay ignored.

    Args:
        command: Name of the running command.
    """
    first: float | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            raise Interrupted(number)
        if number == signal.SIGINT and time.monotonic() - first > SAME_SECONDS:
            _exit_at_once(command)

    def on_unraisable(ignored: Any) -> None:
        """Send the signal again if it came where exceptions are ignored, as in __del__. Hide later
        ignored errors: they come from objects that the exception left half-built."""
        nonlocal first
        if not isinstance(ignored.exc_value, Interrupted):
            if first is None:
                hook(ignored)
            return
        first = None
        threading.Timer(0.05, os.kill, (os.getpid(), ignored.exc_value.number)).start()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    hook, sys.unraisablehook = sys.unraisablehook, on_unraisable
    try:
        yield
    finally:
        if first is None:
            sys.unraisablehook = hook
        for number, handler in before.items():
            if signal.getsignal(number) is on_signal:  # a stopped training keeps ignoring them
                signal.signal(number, handler if first is None else signal.SIG_IGN)


@contextmanager
def signals_cancel(cancel: Callable[[], object]) -> Iterator[None]:
    """Call ``cancel`` at the first signal, and raise it at the end of the block.

    For an event loop: an exception in the middle of its own code, or of a task that nobody awaits
    any more, would be lost or reported as an error of asyncio. A second signal raises at once.

    Args:
        cancel: Makes the block end soon. Called in the main thread, between any two bytecodes.
    """
    before = {int(number): signal.getsignal(number) for number in SIGNALS}
    first: list[tuple[int, float]] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        if not first:
            first.append((number, time.monotonic()))
            cancel()
        elif callable(handler) and time.monotonic() - first[0][1] > SAME_SECONDS:
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        if first:
            signal.raise_signal(first[0][0])


def _exit_at_once(command: str) -> None:
    if is_rank_zero():
        line = f"{command} was stopped by Ctrl-C at once; run the same command again"
        os.write(2, f"hnc-ds: {line}\n".encode())
    os._exit(128 + signal.SIGINT)


@contextmanager
def explained(command: str) -> Iterator[None]:
    """Raise interruptions as Stopped, with what is kept and how to continue.

    Raises:
        Stopped: The command was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        then = AFTER.get(command, "run the same command again")
        raise Stopped(f"{command} was stopped by {by}; {then}", 128 + number) from None
