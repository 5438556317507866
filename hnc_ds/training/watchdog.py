"""A run that hangs is a run that failed: a thread on every rank sees to it, and names the culprit.

Collectives wait for every rank, so one that dies or is stuck stops all of them, some back ends for
ever. Every rank tells the others in a store how far it is; when none of them has come further for
too long, or one has fallen silent, the run ends with one line that says which.
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
"""How often a rank tells that it is alive."""

SILENCE_SECONDS = 30.0
"""A process that has told nothing for so long is gone, or its machine is."""

STATUS = 3
"""Exit code of a run that was given up."""

VERDICT = "verdict"
"""Where rank 0 writes who is to blame."""


class Sign(NamedTuple):
    """What a rank told last."""

    told: int
    """How often it has told anything: grows while the process lives."""
    beats: int
    """Grows while its main thread gets on."""
    doing: str


class Seen(NamedTuple):
    """A sign, and when (by this rank's clock) its numbers were first seen."""

    sign: Sign
    alive_since: float
    beat_since: float


class Watchdog:
    """Watches the ranks from a thread of this one.

    Rank 0 sees all ranks and judges; the others see rank 0 and its judgement, so that a thousand
    ranks do not ask each other.

    Args:
        patience: Seconds without progress on any rank after which the run is given up.
        give_up: What to do then with the line to print, if this rank is to print it; ends the
            process when not given.
        hurry: Whether this process was asked to stop, as launchers do where a rank has died; who
            is silent is then given up sooner.

    The main thread calls ``beat`` whenever it gets on.
    """

    def __init__(
        self,
        patience: float,
        give_up: Callable[[str | None], None] | None = None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        self._patience, self._hurry = patience, hurry
        self._give_up = give_up or _end_process
        self._beats, self._told, self._doing, self._resting = 0, 0, "the start", False
        self._seen: dict[int, Seen] = {}
        self._over = threading.Event()
        self._store: Any = shared_store() if world_size() > 1 else None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        for number in self._watched():  # also those that never tell anything
            self._note(number, Sign(0, 0, "the start"))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2 * EVERY_SECONDS)

    def beat(self, doing: str) -> None:
        """Tell that the main thread has got on, and what it does now."""
        self._doing = doing
        self._beats += 1

    @contextmanager
    def resting(self, doing: str) -> Iterator[None]:
        """Ranks that wait for rank 0 here are not stuck, however long it takes."""
        self.beat(doing)
        self._resting = True
        try:
            yield
        finally:
            self._resting = False
            self.beat(doing)

    def gone(self, silence: float) -> str | None:
        """Which other rank has fallen silent for so many seconds, in words; None if none has."""
        now = time.monotonic()
        for number, seen in sorted(self._seen.items()):
            if number != rank() and now - seen.alive_since > silence:
                return f"rank {number} is gone; nothing was heard of it after {seen.sign.doing}"
        return None

    def stuck(self) -> str | None:
        """That no rank has got on for too long, and which is behind; None while they do."""
        now, seen = time.monotonic(), self._seen
        since = max((of_rank.beat_since for of_rank in seen.values()), default=now)
        # By then a rank that had fallen silent at the last beat is known to have.
        if rank() or self._resting or now - since <= self._patience + 3 * EVERY_SECONDS:
            return None
        beats = {number: of_rank.sign.beats for number, of_rank in seen.items()}
        behind = [number for number in sorted(beats) if beats[number] == min(beats.values())]
        who = "all ranks are" if len(behind) == len(beats) else f"rank {behind[0]} is"
        return f"nothing moved for {now - since:.0f} s; {who} stuck at {seen[behind[0]].sign.doing}"

    def explain(self, error: Exception) -> str:
        """Why a collective failed, once it is known who is gone; waits some seconds for that."""
        until = time.monotonic() + 6 * EVERY_SECONDS
        while time.monotonic() < until and not self._over.is_set():
            if found := self.gone(3 * EVERY_SECONDS):
                return found
            time.sleep(EVERY_SECONDS / 10)
        return f"the connection to another rank was lost ({str(error).strip().splitlines()[0]})"

    def _watched(self) -> range:
        return range(world_size() if rank() == 0 else 1)

    def _watch(self) -> None:
        while not self._over.wait(min(EVERY_SECONDS, self._patience / 4)):
            try:
                verdict = self._tell_and_look()
            except (RuntimeError, OSError):  # the store went away with rank 0, or at the end
                verdict, self._store = None, None
            silence = 3 * EVERY_SECONDS if self._hurry() else SILENCE_SECONDS
            problem = verdict or self.gone(silence)
            if not problem and (problem := self.stuck()):
                problem = self.gone(2 * EVERY_SECONDS) or problem
            if problem and not self._over.is_set():
                self._tell_verdict(problem)
                self._give_up(None if verdict else problem)
                return

    def _tell_and_look(self) -> str | None:
        """Exchange signs with the others; what rank 0 has judged, if it has."""
        self._told += 1
        own = Sign(self._told, self._beats, self._doing)
        self._note(rank(), own)
        if self._store is None:
            return None
        self._store.set(str(rank()), "\n".join(map(str, own)))
        for number in self._watched():
            if self._store.check([str(number)]):
                told, beats, doing = self._store.get(str(number)).decode().split("\n", 2)
                self._note(number, Sign(int(told), int(beats), doing))
        if rank() and self._store.check([VERDICT]):
            return str(self._store.get(VERDICT).decode())
        return None

    def _tell_verdict(self, problem: str) -> None:
        if self._store is not None and rank() == 0:
            self._store.set(VERDICT, problem)
            time.sleep(2 * EVERY_SECONDS)  # the others read it before the store goes

    def _note(self, number: int, sign: Sign) -> None:
        now = time.monotonic()
        before = self._seen.get(number, Seen(Sign(-1, -1, ""), now, now))
        self._seen[number] = Seen(
            sign,
            now if sign.told != before.sign.told else before.alive_since,
            now if sign.beats != before.sign.beats else before.beat_since,
        )


def _end_process(line: str | None) -> None:
    """The main thread is stuck inside of a library and cannot raise; only this ends it."""
    if line:
        print(f"train: {line}; start again with --resume", file=sys.stderr, flush=True)
    os._exit(STATUS)
