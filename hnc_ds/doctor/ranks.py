"""What ranks can only find out together: network, clocks, a disk that all see. Collectives."""

import os
import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from hnc_ds.distributed import add_up, from_every_rank, from_rank_zero, rank, world_size
from hnc_ds.doctor.finding import Finding, Grade
from hnc_ds.errors import counted

MEGABYTES = {"cuda": 256, "cpu": 16}
"""That are added up over all ranks: like the gradients of a model."""

TIMES = 5

APART = 1.0, 60.0
"""Seconds between clocks that are worth a warning, and that are refused: files would seem to come
from the future, and certificates to be invalid."""

SEEN_WITHIN = 20.0
"""Seconds after which a file must be seen on other machines; network disks remember for some."""


def all_reduce(device: torch.device) -> Iterator[Finding]:
    """Speed of the collective that training waits for, and whether its sum is right."""
    ranks = world_size()
    if ranks == 1:
        yield Finding("all-reduce", "one rank, nothing to add up")
        return
    megabytes = MEGABYTES[device.type]
    values = torch.empty(megabytes * (1 << 18), device=device)
    seconds, right = [], True
    for _ in range(TIMES + 1):
        values.fill_(rank() + 1)
        _wait(device)
        from_every_rank(None)  # begin together
        start = time.perf_counter()
        add_up(values)
        _wait(device)
        seconds.append(time.perf_counter() - start)
        right &= bool((values == ranks * (ranks + 1) / 2).all())
    if not right:
        yield Finding("all-reduce", "the sum over all ranks is wrong on this one", Grade.FAILED)
    # What a link carries at least, as NCCL's own tests count it.
    speed = 2 * (ranks - 1) / ranks * megabytes / 1e3 / statistics.median(seconds[1:])
    slowest = min(from_every_rank(speed))
    yield Finding(
        "all-reduce", f"{slowest:.2f} GB/s bus bandwidth, {megabytes} MB, {counted(ranks, 'rank')}"
    )


def clocks() -> Iterator[Finding]:
    """How far this rank's clock is from rank 0's."""
    offsets = []
    for _ in range(TIMES):
        from_every_rank(None)
        told = from_every_rank(time.time())
        offsets.append(told[rank()] - told[0])
    apart = min(offsets, key=abs)
    grade = Grade(sum(abs(apart) > limit for limit in APART))
    if grade is Grade.OK:
        yield Finding("clock", f"within {APART[0]:g} s of rank 0's")
    else:
        yield Finding("clock", f"{apart:+.1f} s from rank 0's; is NTP running?", grade)


def shared_disk(disk: Path) -> Iterator[Finding]:
    """Whether all ranks see what rank 0 writes: checkpoints are written by it alone."""
    name = from_rank_zero(f".doctor-{secrets.token_hex(8)}")
    path = disk / name
    if rank() == 0:
        path.write_text(name)
    from_every_rank(None)
    until, seen = time.monotonic() + SEEN_WITHIN, False
    while not seen and time.monotonic() < until:
        seen = path.is_file() and path.read_text() == name
        if not seen:
            os.scandir(disk).close()  # asks the server again
            time.sleep(0.2)
    from_every_rank(None)
    if rank() == 0:
        path.unlink(missing_ok=True)
    if seen:
        yield Finding("shared disk", f"what rank 0 writes is seen in {disk.resolve()}")
    else:
        why = f"{disk.resolve()} is not the folder of rank 0; name one on a shared disk (--disk)"
        yield Finding("shared disk", why, Grade.FAILED)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
