"""Processes that form one group of ranks on the CPU and run functions on request.

They stay, so that variants of the same work can take turns without starting anew. Each has one
thread; their rendezvous is a file, not a port.
"""

import os
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hnc_ds.distributed import destroy_process_group

Work = Callable[..., Any]

PRELOADED = ["open_clip"]
"""What every rank would else import for itself, in seconds; DeepSpeed looks for its device then."""

PATIENCE = 5.0
"""Seconds in which a process has to end by itself."""


class Ranks:
    """``count`` processes, each of which has made something to work with.

    Args:
        folder: Where they meet and leave what they print; each group needs one of its own.
        count: Of ranks.
        make: A function of a module; called on every rank, it gives what ``ask`` calls there.
        arguments: Its own; picklable.
    """

    def __init__(
        self, folder: Path, count: int, make: Callable[..., Work], *arguments: Any
    ) -> None:
        folder.mkdir(parents=True)
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        for rank in range(count):
            here, there = context.Pipe()
            process = context.Process(
                target=_be_rank, args=(rank, count, folder, there, make, arguments), daemon=True
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def ask(self, *arguments: Any) -> list[Any]:
        """What the work gives on every rank, in rank order.

        Raises:
            RuntimeError: It failed on one of them.
        """
        for pipe in self._pipes:
            pipe.send(arguments)
        answers: dict[int, Any] = {}
        while len(answers) < len(self._pipes):  # whoever fails first: the others may wait for it
            waited = [pipe for n, pipe in enumerate(self._pipes) if n not in answers]
            for pipe in connection.wait(waited):
                rank = self._pipes.index(pipe)
                answers[rank], problem = _received(pipe)
                if problem:
                    raise RuntimeError(f"rank {rank}: {problem}")
        return [answers[rank] for rank in range(len(self._pipes))]

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End them; those that wait for each other are killed."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(PATIENCE)
            process.kill()
            process.join()


def _received(pipe: Any) -> tuple[Any, str]:
    try:
        return pipe.recv()
    except EOFError:
        return None, "is gone"


def _be_rank(
    rank: int, count: int, folder: Path, pipe: Any, make: Callable[..., Work], arguments: Any
) -> None:
    """Until the other end of the pipe is closed."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    _print_into(folder / f"rank-{rank}.log")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), count)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    work: Work | None = None
    try:
        while True:
            given = pipe.recv()
            try:
                work = work or make(*arguments)
                pipe.send((work(*given), ""))
            except Exception as error:  # the other end raises it
                pipe.send((None, repr(error)))
    except EOFError:
        destroy_process_group()


def _print_into(log: Path) -> None:
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
