"""Process-group facts and the collectives the project needs.

Everything here works unchanged in a single process: with no process group the world size is 1
and a gather returns its input. Nothing else in hnc_ds may import torch.distributed, so this file
is the only place to look when ranks disagree.
"""

import atexit
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.distributed as dist

from hnc_ds.errors import RankError, UserError
from hnc_ds.launch import here

T = TypeVar("T")

MEETING = timedelta(minutes=5)
"""How long ranks wait for each other at the start: for slow disks, not for ever."""

THREADS_REST = 0.25
"""Seconds that gloo's threads get to free what the last collective moved."""


def enter(backend: str, local_rank: int) -> None:
    """Join the process group that a launcher described in the environment, or be one alone.

    Left when the process ends, not before: DeepSpeed keeps groups of its own that must stay
    valid for another run in the same process.

    Args:
        backend: 'nccl' or 'gloo'.
        local_rank: This process's number on its machine; its accelerator.

    Raises:
        RankError: The ranks do not find each other.
    """
    if _in_group():
        return
    if backend == "gloo" and "OMP_NUM_THREADS" not in os.environ:  # ranks share the cores
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks_here))
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _meet(backend)
    else:  # no launcher, no network: a store in this process
        os.environ.setdefault("LOCAL_RANK", str(local_rank))
        store = dist.HashStore()  # type: ignore[attr-defined]  # there, but not in its stubs
        dist.init_process_group(backend, store=store, rank=0, world_size=1)

    atexit.register(leave)


def own_device(devices: int) -> int:
    """The number of this process's device on its machine.

    Raises:
        RankError: The machine has fewer devices.
    """
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= devices:
        raise RankError(
            f"{here()}: it is process {number} of its machine, counted from 0, but sees {devices} "
            "GPUs; start one process a GPU"
        )
    return number


def rank() -> int:
    """This process's number, 0 without a process group."""
    return dist.get_rank() if _in_group() else 0


def world_size() -> int:
    """Processes in the group (W), 1 without one."""
    return dist.get_world_size() if _in_group() else 1


def gather_rows(rows_BD: torch.Tensor) -> torch.Tensor:
    """All ranks' rows in rank order; gradients flow back to the rank a row came from.

    Each rank's loss depends on every rank's rows, so a row's gradient is the sum over ranks.
    An engine that averages parameter gradients over ranks then gets exactly the gradient of the
    mean of the ranks' losses.

    Args:
        rows_BD: The same shape on every rank.

    Returns:
        [W * B, D].
    """
    return _GatherRows.apply(rows_BD) if world_size() > 1 else rows_BD


def gather_constants(rows: torch.Tensor) -> torch.Tensor:
    """All ranks' rows in rank order, without gradients."""
    return _all_gather(rows.detach()) if world_size() > 1 else rows.detach()


def gather_uneven(rows: torch.Tensor) -> torch.Tensor:
    """All ranks' rows in rank order, however many each has, without gradients.

    Args:
        rows: Of one width and type on all ranks that have any.
    """
    if world_size() == 1:
        return rows
    shapes = from_every_rank((len(rows), rows.shape[1:]))
    most = max(count for count, _ in shapes)
    width = next((shape for count, shape in shapes if count), rows.shape[1:])
    padded = rows.new_zeros((most, *width))
    padded[: len(rows)] = rows.view(len(rows), *width)
    parts = _all_gather(padded).split(most) if most else ()
    return torch.cat([part[:count] for part, (count, _) in zip(parts, shapes, strict=bool(most))])


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The element-wise sum of every rank's values."""
    total = values.detach().clone()
    add_up(total)
    return total


def add_up(values: torch.Tensor) -> None:
    """Turn values into their sum over ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(values)


class Sent(Protocol):
    """A collective under way."""

    def wait(self) -> Any:
        """Let what comes next see its result."""


def sum_at(owner: int, values: torch.Tensor) -> Sent:
    """Begin to turn one rank's values into their sum over ranks; the others' hold anything after.

    Args:
        owner: The rank.
        values: Of the same shape on every rank.
    """
    return cast(Sent, dist.reduce(values, dst=owner, async_op=True))


def keep_largest(values: torch.Tensor) -> None:
    """Turn values into their element-wise maximum over ranks, in place. A device is not waited
    for, but its queue does."""
    if world_size() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX)


def gather_parts(whole: torch.Tensor, own: torch.Tensor) -> None:
    """Fill a flat tensor with every rank's part of it, in rank order.

    Args:
        whole: Of W equal parts.
        own: This rank's, which may be a view of ``whole``.
    """
    if world_size() > 1:
        dist.all_gather_into_tensor(whole, own)


def largest_over_ranks(value: int, device: torch.device) -> int:
    """The largest of every rank's values, on all of them."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone."""
    lost = (dist.DistBackendError, dist.DistNetworkError)
    return isinstance(error, lost) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def shared_store() -> Any:
    """A store that every rank can write and read without waiting for others; kept by rank 0.

    A collective.
    """
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    seconds = timedelta(seconds=30)
    make: Any = dist.TCPStore  # type: ignore[attr-defined]  # there, but not in its stubs
    if rank() == 0:
        store = make(host, 0, is_master=True, timeout=seconds, wait_for_workers=False)
        from_rank_zero(store.port)
        return store
    port = from_rank_zero(None)
    return make(host, port, is_master=False, timeout=seconds, wait_for_workers=False)


def from_rank_zero(value: Any) -> Any:
    """Rank 0's value, on every rank. Small Python objects only."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_every_rank(value: Any) -> list[Any]:
    """Every rank's value in rank order. Small Python objects only."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def together(do: Callable[[], T]) -> T:
    """Run ``do`` on every rank; if any of them meets a UserError, all raise it.

    One rank alone must never raise where the others wait in a collective.

    Raises:
        UserError: The first rank's that had one; the rank is named if it is not the first.
    """
    result: T | None = None
    problem: str | None = None
    try:
        result = do()
    except UserError as error:
        problem = str(error)
    raise_if_any(problem)
    return cast(T, result)


def on_rank_zero(do: Callable[[], T]) -> T:
    """Run ``do`` on rank 0 while the others wait, and give all of them its result.

    Raises:
        UserError: Rank 0's, on every rank.
    """
    return cast(T, from_rank_zero(together(lambda: do() if rank() == 0 else None)))


def raise_if_any(problem: str | None) -> None:
    """Raise on all ranks if one of them has a problem.

    Raises:
        UserError: The first rank's problem.
    """
    own = None if problem is None else f"[{here()}] {problem}" if rank() else problem
    for found in from_every_rank(own):
        if found is not None:
            raise UserError(found)


def leave() -> None:
    """Close the process group, if there is one."""
    if _in_group():
        dist.destroy_process_group()
        # Gloo's threads outlive it where something else still holds the group, as DeepSpeed does.
        # To free the tensors of a collective they need the interpreter, and Python before 3.14
        # aborts a process (SIGABRT) in which a thread asks for it while it ends.
        time.sleep(THREADS_REST)


def _meet(backend: str) -> None:
    try:
        # As init_process_group does, which waits for half an hour.
        meet: Any = dist.rendezvous  # type: ignore[attr-defined]  # there, but not in its stubs
        store, own, ranks = next(meet("env://", timeout=MEETING))
        store.set_timeout(dist.default_pg_timeout)
        dist.init_process_group(backend, store=store, rank=own, world_size=ranks)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise RankError(
                f"{here()}: the port of {where} is in use by another process; start again, or set "
                "MASTER_PORT to another one"
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise RankError(
            f"{here()}: the ranks do not meet at {where} ({reason}); are all of them started, and "
            "do their nodes reach each other?"
        ) from error


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _all_gather(rows: torch.Tensor) -> torch.Tensor:
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _GatherRows(torch.autograd.Function):
    """all_gather whose backward sums every rank's gradient of a row where the row came from."""

    @staticmethod
    def forward(ctx: Any, rows_BD: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(rows_BD)
        return _all_gather(rows_BD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient_ND = gradients[0].contiguous()
        if dist.get_backend() == "nccl":  # moves 1/W of the bytes; gloo has no such collective
            own_BD = torch.empty_like(gradient_ND[: ctx.rows])
            dist.reduce_scatter_tensor(own_BD, gradient_ND)
            return own_BD
        dist.all_reduce(gradient_ND)
        first = dist.get_rank() * ctx.rows
        return gradient_ND[first : first + ctx.rows]
