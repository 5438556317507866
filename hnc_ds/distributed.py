"""Process-group facts and the collectives the project needs.

Everything works in a single process: without a process group the world size is 1 and a gather
returns its input. No other module of hnc_ds imports torch.distributed.
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
from hnc_ds.launch import rank_label

T = TypeVar("T")

RENDEZVOUS_TIMEOUT = timedelta(minutes=5)
"""How long ranks wait for each other at the start; enough for slow disks."""

GLOO_GRACE_SECONDS = 0.25
"""Time for gloo's threads to free the tensors of the last collective."""


def join_ranks() -> torch.device:
    """Join the other ranks, if a launcher started several; return this rank's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        local_device()  # raises before NCCL would fail
        init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return local_device()


def local_device() -> torch.device:
    """This process's GPU, selected by LOCAL_RANK, or the CPU.

    Raises:
        RankError: The machine has GPUs, but fewer than processes.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(own_device(torch.cuda.device_count()))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def init_process_group(backend: str) -> None:
    """Join the process group that a launcher set in the environment, or make one of one process.

    It is destroyed when the process ends, not before: DeepSpeed keeps groups that must stay valid
    for another run in the same process.

    Args:
        backend: 'nccl' or 'gloo'.

    Raises:
        RankError: The rendezvous fails.
    """
    if _in_group():
        return
    if backend == "gloo" and "OMP_NUM_THREADS" not in os.environ:  # ranks share the cores
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks_here))
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _rendezvous(backend)
    else:  # no launcher, no network: a store in this process
        os.environ.setdefault("LOCAL_RANK", "0")
        store = dist.HashStore()  # type: ignore[attr-defined]  # missing in the stubs
        dist.init_process_group(backend, store=store, rank=0, world_size=1)

    atexit.register(destroy_process_group)


def own_device(devices: int) -> int:
    """The number of this process's device on its node.

    Raises:
        RankError: The node has fewer devices.
    """
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= devices:
        raise RankError(
            f"{rank_label()}: is process {number} of its node, counted from 0, but sees "
            f"{devices} GPUs; start one process per GPU"
        )
    return number


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank() if _in_group() else 0


def world_size() -> int:
    """Number of processes (W), 1 without a process group."""
    return dist.get_world_size() if _in_group() else 1


def all_gather(rows_BD: torch.Tensor) -> torch.Tensor:
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


def all_gather_no_grad(rows: torch.Tensor) -> torch.Tensor:
    """All ranks' rows in rank order, without gradients."""
    return _all_gather(rows.detach()) if world_size() > 1 else rows.detach()


def all_gather_uneven(rows: torch.Tensor) -> torch.Tensor:
    """All ranks' rows in rank order, however many each has, without gradients.

    Args:
        rows: Of one width and dtype on all ranks that have any.
    """
    if world_size() == 1:
        return rows
    shapes = all_gather_object((len(rows), rows.shape[1:]))
    most = max(count for count, _ in shapes)
    width = next((shape for count, shape in shapes if count), rows.shape[1:])
    padded = rows.new_zeros((most, *width))
    padded[: len(rows)] = rows.view(len(rows), *width)
    parts = _all_gather(padded).split(most) if most else ()
    return torch.cat([part[:count] for part, (count, _) in zip(parts, shapes, strict=bool(most))])


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The element-wise sum of every rank's values."""
    total = values.detach().clone()
    all_reduce_sum(total)
    return total


def all_reduce_sum(values: torch.Tensor) -> None:
    """Replace values by their sum over ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(values)


class Sent(Protocol):
    """An asynchronous collective."""

    def wait(self) -> Any:
        """Wait for its result."""


def sum_at(owner: int, values: torch.Tensor) -> Sent:
    """Start to reduce values to their sum on one rank; undefined on the others afterwards.

    Args:
        owner: The rank that gets the sum.
        values: The same shape on every rank.
    """
    return cast(Sent, dist.reduce(values, dst=owner, async_op=True))


def all_reduce_max(values: torch.Tensor) -> None:
    """Replace values by their element-wise maximum over ranks, in place; on a GPU without waiting
    on the host."""
    if world_size() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX)


def all_gather_flat(whole: torch.Tensor, own: torch.Tensor) -> None:
    """Fill a flat tensor with every rank's part of it, in rank order.

    Args:
        whole: W equal parts.
        own: This rank's part, which may be a view of ``whole``.
    """
    if world_size() > 1:
        dist.all_gather_into_tensor(whole, own)


def max_over_ranks(value: int, device: torch.device) -> int:
    """The maximum of every rank's value."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error means that another rank is gone."""
    lost = (dist.DistBackendError, dist.DistNetworkError)
    return isinstance(error, lost) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def shared_store() -> Any:
    """A key-value store that every rank can use without waiting for others; rank 0 hosts it. A
    collective."""
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    seconds = timedelta(seconds=30)
    make: Any = dist.TCPStore  # type: ignore[attr-defined]  # missing in the stubs
    if rank() == 0:
        store = make(host, 0, is_master=True, timeout=seconds, wait_for_workers=False)
        broadcast_object(store.port)
        return store
    port = broadcast_object(None)
    return make(host, port, is_master=False, timeout=seconds, wait_for_workers=False)


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, for small Python objects."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(value: Any) -> list[Any]:
    """Every rank's value in rank order, for small Python objects."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def raise_on_all_ranks(do: Callable[[], T]) -> T:
    """Run ``do`` on every rank. If one raises UserError, all do, so that none waits in a collective
    for a rank that has raised.

    Raises:
        UserError: That of the first such rank, with its label unless it is rank 0.
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
    """Run ``do`` on rank 0 while the others wait, and return its result on all.

    Raises:
        UserError: Rank 0's, on every rank.
    """
    return cast(T, broadcast_object(raise_on_all_ranks(lambda: do() if rank() == 0 else None)))


def raise_if_any(problem: str | None) -> None:
    """Raise UserError on all ranks if one of them has a problem.

    Raises:
        UserError: The first rank's problem.
    """
    own = None if problem is None else f"[{rank_label()}] {problem}" if rank() else problem
    for found in all_gather_object(own):
        if found is not None:
            raise UserError(found)


def destroy_process_group() -> None:
    """Close the process group, if there is one."""
    if _in_group():
        dist.destroy_process_group()
        # Gloo's threads outlive it, as DeepSpeed still has references to the group. They need the
        # GIL to free the tensors of a collective, and Python before 3.14 aborts (SIGABRT) if a
        # thread takes the GIL while the process ends.
        time.sleep(GLOO_GRACE_SECONDS)


def _rendezvous(backend: str) -> None:
    try:
        # Like init_process_group, which waits for half an hour.
        meet: Any = dist.rendezvous  # type: ignore[attr-defined]  # missing in the stubs
        store, own, ranks = next(meet("env://", timeout=RENDEZVOUS_TIMEOUT))
        store.set_timeout(dist.default_pg_timeout)
        dist.init_process_group(backend, store=store, rank=own, world_size=ranks)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise RankError(
                f"{rank_label()}: the port of {where} is in use by another process; start again, "
                "or set MASTER_PORT to another one"
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise RankError(
            f"{rank_label()}: the rendezvous at {where} failed ({reason}); are all ranks started, "
            "and can their nodes reach each other?"
        ) from error


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _all_gather(rows: torch.Tensor) -> torch.Tensor:
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _GatherRows(torch.autograd.Function):
    """all_gather whose backward returns the sum of every rank's gradient of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows_BD: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(rows_BD)
        return _all_gather(rows_BD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient_ND = gradients[0].contiguous()
        if dist.get_backend() == "nccl":  # moves 1/W of the bytes; gloo lacks it
            own_BD = torch.empty_like(gradient_ND[: ctx.rows])
            dist.reduce_scatter_tensor(own_BD, gradient_ND)
            return own_BD
        dist.all_reduce(gradient_ND)
        first = dist.get_rank() * ctx.rows
        return gradient_ND[first : first + ctx.rows]
