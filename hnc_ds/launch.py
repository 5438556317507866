"""Which process of how many this is, where no launcher said so but SLURM's srun did. No torch here.

    srun hnc-ds evaluate ...      # one task a GPU, no launcher

torchrun and deepspeed set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_*; what they set stays.
"""

import os
import re
from collections.abc import MutableMapping

FIRST_PORT, PORTS = 20_000, 20_000
"""Ports that jobs meet at, by their numbers."""


def read_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what a launcher would have set, from what srun says about its tasks.

    Outside of a step nothing is set: a batch script has SLURM's variables too, but is one process.
    With --gpus-per-task a task sees one GPU, which is then its number 0.
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
    environment.setdefault("MASTER_ADDR", first_host(nodes) or "127.0.0.1")
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + (7 * job + step) % PORTS))


def first_host(nodes: str) -> str:
    """``node001`` for ``node[001-004,7],other``, as scontrol show hostnames has it."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else ""


def _tasks_here(environment: MutableMapping[str, str]) -> str:
    """Of SLURM_STEP_TASKS_PER_NODE, ``4(x2),3``, what this node has."""
    counts: list[str] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.partition("(x")
        counts += [count] * int(times.rstrip(")") or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else "1"
