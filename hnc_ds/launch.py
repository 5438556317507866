"""The start of a process: its imports, what a launcher gives it (rank, world size), and its share
of a node's cores. No torch.

    srun hnc-ds evaluate ...      # one task per GPU, no launcher

Under srun without another launcher, RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* are set from SLURM's
variables; they are unchanged if torchrun or deepspeed has set them. A container may see all cores
of its machine but have the quota of a few, and the ranks of a node share its cores.
"""

import gc
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hnc_ds.errors import RankError

FIRST_PORT, PORTS = 20_000, 20_000
"""Range of the rendezvous port, which depends on the job's number."""

MAX_READERS = 16
"""Maximum number of workers of one rank. On one H100 a step of ViT-B-32 takes 2,000 to 3,000
images/s; a core decodes and crops 400 to 850."""

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries in this block without garbage collections.

    torch and what it brings make very many objects that stay to the end. Collections that visit
    them, during the imports, later and at the exit, cost a short command seconds.
    """
    was_enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        if was_enabled:
            gc.enable()


def read_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables of a launcher from those of srun.

    Outside of a job step nothing is set: a batch script has SLURM's variables, too, but is one
    process. With --gpus-per-task a task sees one GPU, whose number is then 0.

    Raises:
        RankError: A node has fewer GPUs than tasks.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS")
    if "RANK" in environment or "SLURM_PROCID" not in environment or tasks is None:
        return
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    place = environment.get("SLURM_LOCALID", "0")
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    sees_one = len(environment.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = tasks
    environment["LOCAL_RANK"] = "0" if sees_one else place
    environment["LOCAL_WORLD_SIZE"] = _tasks_here(environment)
    _check_gpus(environment)
    environment.setdefault("MASTER_ADDR", first_host(nodes) or "127.0.0.1")
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + (7 * job + step) % PORTS))


def own_arguments() -> list[str]:
    """The command line's arguments without --local_rank=N, which launchers insert."""
    return [word for word in sys.argv[1:] if not re.fullmatch(r"--local[_-]rank=\d+", word)]


def is_rank_zero(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process prints for all ranks; also before there is a process group."""
    return environment.get("RANK", environment.get("SLURM_PROCID", "0")) == "0"


def rank_label(environment: MutableMapping[str, str] = os.environ) -> str:
    """Name of this process for messages: ``rank 2``, under SLURM ``rank 2 on node07``."""
    node = environment.get("SLURMD_NODENAME")
    return f"rank {environment.get('RANK', '0')}{f' on {node}' if node else ''}"


def first_host(nodes: str) -> str:
    """``node001`` for ``node[001-004,7],other``, as with scontrol show hostnames."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else ""


def _check_gpus(environment: MutableMapping[str, str]) -> None:
    """Raise RankError for two ranks on one GPU, which would hang or fail in NCCL."""
    tasks, gpus = environment["LOCAL_WORLD_SIZE"], environment.get("SLURM_GPUS_ON_NODE", "")
    if gpus.isdecimal() and int(tasks) > int(gpus):
        node = environment.get("SLURMD_NODENAME", "this node")
        raise RankError(
            f"{node} has {gpus} GPU{'s' * (gpus != '1')} for {tasks} tasks; request as many GPUs "
            f"as tasks per node (--gres=gpu:{tasks}), or omit --ntasks-per-node"
        )


def _tasks_here(environment: MutableMapping[str, str]) -> str:
    """This node's number in SLURM_STEP_TASKS_PER_NODE, ``4(x2),3``."""
    counts: list[str] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.partition("(x")
        counts += [count] * int(times.rstrip(")") or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else "1"


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use: the smallest of its affinity, its container's quota and the
    job's cores on this node under SLURM; at least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    of_job = environment.get("SLURM_CPUS_ON_NODE", "")
    limits = [bound or 1, *_quotas(CGROUPS, OWN_CGROUP)]
    if of_job.isdecimal():
        limits.append(int(of_job))
    return max(1, int(min(limits)))


def own_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores of this rank; at least 1.

    Ranks that torchrun or deepspeed starts share the launcher's cores equally. A task of srun has
    --cpus-per-task cores of its own, or is bound to fewer cores than the job has.
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
    """Ranks on this node, as torchrun or deepspeed set it; at least 1."""
    ranks = environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE") or ""
    return max(1, int(ranks)) if ranks.isdecimal() else 1


def readers(accelerated: bool = True) -> int:
    """Default number of workers of this rank: with an accelerator one for each core but that of the
    main process; one on a CPU, where the model needs the cores."""
    return min(MAX_READERS, max(1, own_cores() - 1)) if accelerated else 1


def _is_task(environment: Mapping[str, str]) -> bool:
    """Whether srun started this rank directly, without torchrun or deepspeed."""
    task, tasks = environment.get("SLURM_PROCID"), environment.get("SLURM_STEP_NUM_TASKS")
    ranks = environment.get("RANK"), environment.get("WORLD_SIZE")
    return tasks is not None and ranks == (task, tasks)  # read_slurm has set them


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """CPU quotas, in cores, of each control group that contains this process.

    Version 2: cpu.max is ``QUOTA PERIOD`` or ``max PERIOD``. Version 1: cpu.cfs_quota_us is -1
    without a limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max.
    """
    for line in _text_of(own).splitlines():
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
                    _text_of(folder / "cpu.cfs_quota_us"),
                    _text_of(folder / "cpu.cfs_period_us"),
                )
            else:
                quota, _, period = _text_of(folder / "cpu.max").partition(" ")
            quota, period = quota.strip(), period.strip()
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
