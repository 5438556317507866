"""A SLURM cluster of two virtual nodes on this machine, thrown away after the tests.

Real daemons of Debian's packages, started by hand as root: no systemd, cgroups or accounting. All
listen on this host's own address alone. A GPU is a link to /dev/null, which SLURM counts and hands
out. A job of the partition `urgent` takes the nodes from those of `batch`, which are queued again.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

NODES = ("hncnode1", "hncnode2")
GPUS, CPUS, MEGABYTES = 4, 32, 320_000
"""Of a node, as it claims; nothing is enforced."""

GRACE_SECONDS = 30
"""That a job has to save when another takes its nodes."""

PACKAGES = ["munge", "slurmctld", "slurmd", "slurm-client"]
HOSTS = Path("/etc/hosts")

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
"""States of jobs that stay."""

Environment = Mapping[str, str]


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    if os.geteuid() != 0:
        return "SLURM's daemons and fake GPUs need root"
    if not shutil.which("slurmctld") and not shutil.which("apt-get"):
        return "SLURM is not installed, and only apt-get is known to install it"
    if not os.access(HOSTS, os.W_OK):
        return f"{HOSTS} cannot be written, so virtual nodes would have no addresses"
    return None


def install() -> str | None:
    """Install SLURM and munge if they are not there; why it cannot, or None."""
    if all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))):
        return None
    policy = Path("/usr/sbin/policy-rc.d")  # apt starts no services where this returns 101
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            done = _run(["apt-get", "-qq", *command], os.environ | quiet, seconds=300)
            if done.returncode:
                return f"apt-get {command[0]} failed: {done.stderr.strip()[-200:]}"
    finally:
        if ours:
            policy.unlink()
    return None


class Job(NamedTuple):
    """A job of the cluster."""

    number: str
    log: Path


class Cluster:
    """Starts on entering, and leaves nothing when left.

    Args:
        folder: For all of its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._mark = f"# tests of hnc_ds in {folder}"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        self._write_files()
        self._start("munged", "--foreground", *self._munge_flags())
        self.wait_until((self.folder / "munged.socket").exists, "munged", 30)
        self._start("slurmctld", "-D")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        self.wait_until(self._is_idle, "the nodes to be idle", 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel_all()
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(30)
        others = [x for x in HOSTS.read_text().splitlines(True) if self._mark not in x]
        HOSTS.write_text("".join(others))

    def call(self, *command: object) -> str:
        """What a command of SLURM prints."""
        done = _run([str(word) for word in command], self.environment, seconds=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self, number: str) -> str:
        """RUNNING, COMPLETED, ...; of an array all that its jobs are in, with commas."""
        message = self.call("scontrol", "show", "job", number).split("JobState=")[1:]
        return ",".join(sorted({one.split()[0] for one in message}))

    def restarts(self, number: str) -> int:
        """How often the job was queued again."""
        message = self.call("scontrol", "show", "job", number)
        return int(message.partition("Restarts=")[2].split()[0])

    def cancel_all(self) -> None:
        """Again and again, as a job may be on its way back into the queue."""
        for _ in range(30):
            jobs = self.call("squeue", "-h", "-o", "%A").split()
            if not jobs:
                return
            _run(["scancel", *jobs], self.environment, seconds=60)
            time.sleep(1)
        raise AssertionError(f"jobs would not end: {jobs}")

    def wait_for_end(self, job: Job, seconds: float) -> None:
        """Wait until a job has ended for good, whatever its end."""

        def is_over() -> bool:
            return set(self.state(job.number).split(",")) <= ENDED

        self.wait_until(is_over, f"{job.log.name} to end", seconds)

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for something."""
        patience = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < patience, f"waited {seconds} s for {what}"
            time.sleep(0.2)

    def _is_idle(self) -> bool:
        done = _run(["sinfo", "-h", "-N", "-o", "%t"], self.environment, seconds=60)
        return done.stdout.split() == ["idle"] * 2 * len(NODES)

    def _start(self, *command: str) -> None:
        """A daemon in the foreground, which ends with the tests however these end."""
        with (self.folder / f"{command[0]}.out").open("ab") as out:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=self.environment,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )
        self._daemons.append(daemon)

    def _munge_flags(self) -> list[str]:
        files = {"key-file": "key", "socket": "socket", "seed-file": "seed"}
        files |= {"pid-file": "pid", "log-file": "log"}
        return [f"--{flag}={self.folder / f'munged.{name}'}" for flag, name in files.items()]

    def _write_files(self) -> None:
        self.folder.chmod(0o755)
        key = self.folder / "munged.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        for number in range(GPUS):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        gpus = f"{self.folder}/gpu[0-{GPUS - 1}]"
        lines = "".join(f"NodeName={node} Name=gpu File={gpus}\n" for node in NODES)
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\n{lines}")
        (self.folder / "slurm.conf").write_text(self._configuration())
        names = "".join(f"{_address()} {node} {self._mark}\n" for node in NODES)
        HOSTS.write_text(HOSTS.read_text() + names)  # in place: it may be mounted

    def _configuration(self) -> str:
        host, address, folder = socket.gethostname(), _address(), self.folder
        control, *ports = _free_ports(1 + len(NODES))
        nodes = "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port} CPUs={CPUS} "
            f"RealMemory={MEGABYTES} Gres=gpu:{GPUS}\n"
            for node, port in zip(NODES, ports, strict=True)
        )
        return f"""ClusterName=hnctest
SlurmctldHost={host}({address})
SlurmctldPort={control}
SlurmUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits as long as credentials are valid.
AuthInfo=socket={folder}/munged.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# What nodes claim counts, not what this machine has.
SlurmdParameters=config_overrides
DefMemPerCPU={MEGABYTES // CPUS}
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=20
ReturnToService=2
{nodes}PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 GraceTime={GRACE_SECONDS}
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def _run(
    command: list[str], environment: Environment, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )


def _address() -> str:
    """Where daemons that listen on this host's own address alone do so."""
    return socket.gethostbyname(socket.gethostname())


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
