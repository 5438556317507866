"""Ends a run that hangs, and names the rank that caused it.

Collectives wait for every rank, so one that dies or is stuck blocks all of them, with some backends
for ever. A thread on every rank writes heartbeats to a store. When no rank makes progress for too
long, or one sends no heartbeats, the run ends with one line that names it.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from hnc_ds.distributed import rank, shared_store, world_size

EVERY_SECONDS = 2.0
"""Interval of heartbeats."""

SILENCE_SECONDS = 30.0
"""A rank without heartbeats for this long counts as gone."""

STATUS = 3
"""Exit code of a run that the watchdog ends."""

VERDICT = "verdict"
"""Key of the store for rank 0's verdict."""


class Heartbeat(NamedTuple):
    """State of a rank."""

    sent: int
    """Grows while the process lives."""
    beats: int
    """Grows while its main thread makes progress."""
    doing: str


class Seen(NamedTuple):
    """A heartbeat, and when (by this rank's clock) its numbers were first seen."""

    heartbeat: Heartbeat
    alive_since: float
    beat_since: float


class Watchdog:
    """Watches the ranks from a thread.

    Rank 0 reads all ranks' heartbeats and decides; the others read rank 0's heartbeats and verdict,
    so that the number of reads grows linearly with ranks.

    Args:
        hang_timeout: Seconds without progress on any rank after which the run ends.
        give_up: Called at the end with the line to print, None if another rank prints it; ends the
            process when not given.
        hurry: Whether this process got a signal to stop, as launchers send when a rank has died;
            silent ranks then count as gone sooner.

    The main thread calls ``beat`` whenever it makes progress.
    """

    def __init__(
        self,
        hang_timeout: float,
        give_up: Callable[[str | None], None] | None = None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hang_timeout, self._hurry = hang_timeout, hurry
        self._give_up = give_up or _end_process
        self._beats, self._count, self._doing, self._paused = 0, 0, "the start", False
        self._seen: dict[int, Seen] = {}
        self._over = threading.Event()
        self._store: Any = shared_store() if world_size() > 1 else None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        for number in self._watched():  # also ranks that never send a heartbeat
            self._note(number, Heartbeat(0, 0, "the start"))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2 * EVERY_SECONDS)

    def beat(self, doing: str) -> None:
        """Record progress of the main thread, and what it does now."""
        self._doing = doing
        self._beats += 1

    @contextmanager
    def paused(self, doing: str) -> Iterator[None]:
        """In this block no rank counts as stuck, however long it takes."""
        self.beat(doing)
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
            self.beat(doing)

    def gone(self, silence: float) -> str | None:
        """Message naming a rank without heartbeats for so many seconds; None if all send them."""
        now = time.monotonic()
        for number, seen in sorted(self._seen.items()):
            if number != rank() and now - seen.alive_since > silence:
                return (
                    f"rank {number} is gone; nothing was heard of it after {seen.heartbeat.doing}"
                )
        return None

    def stuck(self) -> str | None:
        """Message naming the rank that is behind, if none made progress for too long; else None."""
        now, seen = time.monotonic(), self._seen
        since = max((of_rank.beat_since for of_rank in seen.values()), default=now)
        # The margin is for a rank that went silent at its last beat to count as gone first.
        if rank() or self._paused or now - since <= self._hang_timeout + 3 * EVERY_SECONDS:
            return None
        beats = {number: of_rank.heartbeat.beats for number, of_rank in seen.items()}
        behind = [number for number in sorted(beats) if beats[number] == min(beats.values())]
        who = "all ranks are" if len(behind) == len(beats) else f"rank {behind[0]} is"
        doing = seen[behind[0]].heartbeat.doing
        return f"nothing moved for {now - since:.0f} s; {who} stuck at {doing}"

    def explain(self, error: Exception) -> str:
        """Why a collective failed; waits some seconds to find out which rank is gone."""
        until = time.monotonic() + 6 * EVERY_SECONDS
        while time.monotonic() < until and not self._over.is_set():
            if found := self.gone(3 * EVERY_SECONDS):
                return found
            time.sleep(EVERY_SECONDS / 10)
        return f"the connection to another rank was lost ({str(error).strip().splitlines()[0]})"

    def _watched(self) -> range:
        return range(world_size() if rank() == 0 else 1)

    def _watch(self) -> None:
        while not self._over.wait(min(EVERY_SECONDS, self._hang_timeout / 4)):
            try:
                verdict = self._exchange()
            except (RuntimeError, OSError):  # the store is gone with rank 0, or at the end
                verdict, self._store = None, None
            silence = 3 * EVERY_SECONDS if self._hurry() else SILENCE_SECONDS
            problem = verdict or self.gone(silence)
            if not problem and (problem := self.stuck()):
                problem = self.gone(2 * EVERY_SECONDS) or problem
            if problem and not self._over.is_set():
                self._publish(problem)
                self._give_up(None if verdict else problem)
                return

    def _exchange(self) -> str | None:
        """Send and read heartbeats. Returns rank 0's verdict, if there is one."""
        self._count += 1
        own = Heartbeat(self._count, self._beats, self._doing)
        self._note(rank(), own)
        if self._store is None:
            return None
        self._store.set(str(rank()), "\n".join(map(str, own)))
        for number in self._watched():
            if self._store.check([str(number)]):
                count, beats, doing = self._store.get(str(number)).decode().split("\n", 2)
                self._note(number, Heartbeat(int(count), int(beats), doing))
        if rank() and self._store.check([VERDICT]):
            return str(self._store.get(VERDICT).decode())
        return None

    def _publish(self, problem: str) -> None:
        if self._store is not None and rank() == 0:
            self._store.set(VERDICT, problem)
            time.sleep(2 * EVERY_SECONDS)  # the others read it before the store goes

    def _note(self, number: int, heartbeat: Heartbeat) -> None:
        now = time.monotonic()
        before = self._seen.get(number, Seen(Heartbeat(-1, -1, ""), now, now))
        self._seen[number] = Seen(
            heartbeat,
            now if heartbeat.sent != before.heartbeat.sent else before.alive_since,
            now if heartbeat.beats != before.heartbeat.beats else before.beat_since,
        )


def _end_process(line: str | None) -> None:
    """End the process; its main thread is stuck inside a library and cannot raise."""
    if line:
        print(f"train: {line}; start again with --resume", file=sys.stderr, flush=True)
    os._exit(STATUS)
