"""Look at a machine, or at every node of a job, before hours go into it: one table, exit status.

    hnc-ds doctor
    sbatch --nodes=2 --gres=gpu:4 slurm/doctor.sh --shards data/gqa/shards/train --disk runs

Every rank looks for itself, and at what only all see together; rank 0 prints what they found.
"""

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from hnc_ds.config import DoctorConfig
from hnc_ds.distributed import from_every_rank, rank, together, world_size
from hnc_ds.doctor import node
from hnc_ds.doctor.finding import Finding, Grade, Line, lines, table
from hnc_ds.doctor.ranks import all_reduce, clocks, shared_disk
from hnc_ds.errors import UserError
from hnc_ds.evaluation.evaluate import join_ranks
from hnc_ds.launch import here
from hnc_ds.training.watchdog import STATUS, Watchdog

Check = Callable[[], Iterable[Finding]]

ALIKE = ("versions", "shards")
"""Checks in which ranks must find the same, or they would do different things."""


def doctor(config: DoctorConfig) -> None:
    """Check everything and print a table. A collective.

    Raises:
        UserError: On every rank, where a check failed on any of them.
    """
    # Before ranks meet, as they would not where one of them has no device.
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    found = [*node.versions(), *node.compiler(), *node.devices(local_rank)]
    device = join_ranks()
    with Watchdog(config.patience, _give_up) as watchdog:
        for name, check in _checks(config, device).items():
            watchdog.beat(name)
            found += check()
        everyone = from_every_rank(found)
        names = from_every_rank(here())
    merged = differing(lines(everyone), world_size())
    if rank() == 0:
        print(table(merged, world_size()), flush=True)
    failed = [line for line in merged if line.grade is Grade.FAILED]
    if failed:
        worst = failed[0]
        who = f"{names[worst.ranks[0]]}: " if world_size() > 1 else ""
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(f"doctor: {worst.check}: {who}{worst.told}{more}")
    if rank() == 0:
        warnings = sum(line.grade is Grade.WARNING for line in merged)
        print(f"doctor: nothing stands in the way{f'; warnings: {warnings}' if warnings else ''}")


def _checks(config: DoctorConfig, device: torch.device) -> dict[str, Check]:
    """In their order; every rank has the same, so that collectives meet."""
    together(partial(_make_folder, config.disk))
    first_here = int(os.environ.get("LOCAL_RANK", "0")) == 0
    checks: dict[str, Check] = {
        "shared memory": node.shared_memory,
        "all-reduce": partial(all_reduce, device),
        "clocks": clocks,
        "shared disk": partial(shared_disk, config.disk),
        "free space": partial(node.free_space, config.disk, config.need_gb),
    }
    if first_here:
        checks["disk"] = partial(node.disk_speed, config.disk, str(rank()))
    if config.shards is not None:
        checks["shards"] = partial(node.shards, config.shards, rank(), world_size())
    return checks


def _make_folder(disk: Path) -> None:
    try:
        disk.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{disk}: cannot be made ({error.strerror}); name another --disk"
        ) from error


def differing(merged: list[Line], ranks: int) -> list[Line]:
    """Lines of checks in which ranks should agree and do not are failures."""
    disagree = {line.check for line in merged if line.check in ALIKE and len(line.ranks) < ranks}
    disagree -= {line.check for line in merged if line.grade is Grade.FAILED}  # which says more
    return [
        line._replace(grade=Grade.FAILED, told=f"differs between ranks: {line.told}")
        if line.check in disagree and line.grade is Grade.OK
        else line
        for line in merged
    ]


def _give_up(line: str | None) -> None:
    """A collective hangs: only this ends the process."""
    if line:
        print(f"hnc-ds: doctor: {here()}: {line}", file=sys.stderr, flush=True)
    os._exit(STATUS)
