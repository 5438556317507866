"""Cores that a process may use, and how many processes of a rank read data with them.

A container may see all cores of its machine and have the time of a few; a rank shares those of its
node with others.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

MAX_READERS = 16
"""Processes that read for one rank. On one H100 (../benchmarks/GPU.md) a step of ViT-B-32 takes
2,000 to 3,000 images/s; a core decodes and crops 400 to 850."""

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use: those it is bound to, within the quota of its container and
    what SLURM gave the job on this node; at least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    of_job = environment.get("SLURM_CPUS_ON_NODE", "")
    limits = [bound or 1, *_quotas(CGROUPS, OWN_CGROUP)]
    if of_job.isdecimal():
        limits.append(int(of_job))
    return max(1, int(min(limits)))


def own_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores of this rank: its part of those that the ranks of this node share; at least 1.

    Ranks of a launcher (torchrun, deepspeed) share what the launcher has. A task of srun has
    --cpus-per-task of its own, or is bound to fewer cores than the job has.
    """
    have = cores(environment)
    if _is_task(environment):
        each, of_job = (environment.get(f"SLURM_CPUS_{of}", "") for of in ("PER_TASK", "ON_NODE"))
        if each.isdecimal():
            return max(1, min(have, int(each)))
        if of_job.isdecimal() and have < int(of_job):
            return have
    return max(1, have // ranks_here(environment))


def ranks_here(environment: Mapping[str, str] = os.environ) -> int:
    """Ranks on this node, as torchrun and deepspeed say it; at least 1."""
    ranks = environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE") or ""
    return max(1, int(ranks)) if ranks.isdecimal() else 1


def readers(accelerated: bool = True) -> int:
    """Processes that read data for this rank where nobody says how many.

    An accelerator leaves the cores to them, all but the one that launches its work; on a CPU the
    model needs the cores itself.
    """
    return min(MAX_READERS, max(1, own_cores() - 1)) if accelerated else 1


def _is_task(environment: Mapping[str, str]) -> bool:
    """Whether srun started this rank, and no launcher in between."""
    task, tasks = environment.get("SLURM_PROCID"), environment.get("SLURM_STEP_NUM_TASKS")
    ranks = environment.get("RANK"), environment.get("WORLD_SIZE")
    return tasks is not None and ranks == (task, tasks)  # launch.read_slurm has set them


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """Cores' worth of time that each control group around this process may take, of both versions:
    cpu.max holds ``QUOTA PERIOD`` or ``max PERIOD``, cpu.cfs_quota_us -1 where there is no limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max.
    """
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container sees its own group as the root, whatever the host calls it.
        around = {PurePosixPath("/"), *(place := PurePosixPath(path)).parents, place}
        for group in around:
            folder = root / (controllers and "cpu") / str(group).lstrip("/")
            if controllers:
                quota, period = (
                    _read(folder / "cpu.cfs_quota_us"),
                    _read(folder / "cpu.cfs_period_us"),
                )
            else:
                quota, _, period = _read(folder / "cpu.max").partition(" ")
            quota, period = quota.strip(), period.strip()
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
