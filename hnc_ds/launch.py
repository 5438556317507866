"""Which process of how many this is, where no launcher said so but SLURM's srun did. No torch here.

    srun hnc-ds evaluate ...      # one task a GPU, no launcher

torchrun and deepspeed set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_*; what they set stays.
"""

import os
import re
import sys
from collections.abc import Mapping, MutableMapping

from hnc_ds.errors import RankError

FIRST_PORT, PORTS = 20_000, 20_000
"""Ports that jobs meet at, by their numbers."""


def read_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what a launcher would have set, from what srun says about its tasks.

    Outside of a step nothing is set: a batch script has SLURM's variables too, but is one process.
    With --gpus-per-task a task sees one GPU, which is then its number 0.

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
    """What was typed after the program's name: launchers put --local_rank=N in front of it, whose
    number is in LOCAL_RANK too."""
    return [word for word in sys.argv[1:] if not re.fullmatch(r"--local[_-]rank=\d+", word)]


def is_rank_zero(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process prints for all ranks; also before there is a process group."""
    return environment.get("RANK", environment.get("SLURM_PROCID", "0")) == "0"


def here(environment: MutableMapping[str, str] = os.environ) -> str:
    """This process in words: ``rank 2``, under SLURM ``rank 2 on node07``."""
    node = environment.get("SLURMD_NODENAME")
    return f"rank {environment.get('RANK', '0')}{f' on {node}' if node else ''}"


def first_host(nodes: str) -> str:
    """``node001`` for ``node[001-004,7],other``, as scontrol show hostnames has it."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else ""


def _check_gpus(environment: MutableMapping[str, str]) -> None:
    """Two ranks on one GPU would wait for each other, or end in the middle of NCCL."""
    tasks, gpus = environment["LOCAL_WORLD_SIZE"], environment.get("SLURM_GPUS_ON_NODE", "")
    if gpus.isdecimal() and int(tasks) > int(gpus):
        node = environment.get("SLURMD_NODENAME", "this node")
        raise RankError(
            f"{node} has {gpus} GPU{'s' * (gpus != '1')} for {tasks} tasks; ask for as many GPUs "
            f"as tasks a node (--gres=gpu:{tasks}), or leave --ntasks-per-node out"
        )


def _tasks_here(environment: MutableMapping[str, str]) -> str:
    """Of SLURM_STEP_TASKS_PER_NODE, ``4(x2),3``, what this node has."""
    counts: list[str] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.partition("(x")
        counts += [count] * int(times.rstrip(")") or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else "1"
