"""Check a machine, or every node of a job, before a long training: a table and an exit status.

    hnc-ds doctor
    sbatch --nodes=2 --gres=gpu:4 slurm/doctor.sh --shards data/gqa/shards/train --disk runs

Every rank checks its own machine (versions, devices, disks, shards) and takes part in collective
checks (network, clocks, shared disk); rank 0 prints all findings.
"""

import os
import random
import secrets
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from hnc_ds.atomic_files import writing
from hnc_ds.config import DoctorConfig
from hnc_ds.distributed import (
    all_gather_object,
    all_reduce_sum,
    broadcast_object,
    join_ranks,
    raise_on_all_ranks,
    rank,
    world_size,
)
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.results import fingerprint
from hnc_ds.images import CorruptImage
from hnc_ds.installing import pip_install
from hnc_ds.launch import cores, rank_label, readers
from hnc_ds.shards.images import ImageSettings, decode_image, training_view
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import cache_of, is_url
from hnc_ds.training.watchdog import STATUS, Watchdog


class Grade(IntEnum):
    """Severity of a finding."""

    OK = 0
    WARNING = 1
    FAILED = 2


class Finding(NamedTuple):
    """Result of a check on one rank."""

    check: str
    message: str
    grade: Grade = Grade.OK


class Line(NamedTuple):
    """A line of the table: a finding that some ranks share."""

    check: str
    message: str
    grade: Grade
    ranks: tuple[int, ...]


def lines(found: Sequence[Sequence[Finding]]) -> list[Line]:
    """Findings of all ranks (``found``, by rank), equal ones merged, ordered by check."""
    alike: dict[Finding, list[int]] = {}
    for number, findings in enumerate(found):
        for finding in findings:
            alike.setdefault(finding, []).append(number)
    checks = list(dict.fromkeys(finding.check for finding in alike))
    merged = [Line(*finding, tuple(ranks)) for finding, ranks in alike.items()]
    return sorted(merged, key=lambda line: (checks.index(line.check), line.ranks))


def table(merged: Sequence[Line], ranks: int) -> str:
    """The table: grade, check, ranks, message."""
    marks = {Grade.OK: "ok", Grade.WARNING: "warning", Grade.FAILED: "FAILED"}
    who = [_named(line.ranks, ranks) for line in merged]
    widths = [max(len(line.check) for line in merged), max(map(len, who))]
    return "\n".join(
        f"{marks[line.grade]:8}{line.check:{widths[0]}}  {by:{widths[1]}}  {line.message}".rstrip()
        for line, by in zip(merged, who, strict=True)
    )


def _named(some: tuple[int, ...], ranks: int) -> str:
    if len(some) == ranks:
        return "all" if ranks > 1 else ""
    if len(some) > 4:
        return f"{len(some)} ranks, {some[0]} first"
    return f"rank{'s' * (len(some) > 1)} {', '.join(map(str, some))}"


NEEDED = ("torch", "torchvision", "deepspeed", "open_clip_torch", "webdataset", "tensorboard")
"""Required packages."""

SHARED_MEMORY_GB = 1.0
"""Minimum: DataLoader's workers pass batches through /dev/shm."""

READ = 64
"""Samples per rank to read from the shards."""

SIZE, CROP = 224, 0.9
"""Image side in pixels, and the smallest crop's share of the area, as in most trainings."""

EATEN = {"ViT-B-32": (2000, 3000), "ViT-L-14-336": (250, 300)}
"""Images/s in training on an H100 in bf16, measured: eager, compiled."""

DISK_MEGABYTES = 128
"""Size of the disk's test file."""


def versions() -> Iterator[Finding]:
    """Versions of Python and packages; they must be equal on all ranks."""
    found, missing = [f"Python {sys.version.split()[0]}"], []
    for name in NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if torch.version.cuda:
        found.append(f"CUDA {torch.version.cuda}")
    yield Finding("versions", ", ".join(found))
    if missing:
        why = f"{', '.join(missing)} not installed here; {pip_install()}"
        yield Finding("versions", why, Grade.FAILED)


def compiler() -> Iterator[Finding]:
    """The compiler that DeepSpeed builds its operators with at first use."""
    absent = [name for name in ("ninja", os.environ.get("CXX", "c++")) if not shutil.which(name)]
    if absent:
        why = f"no {' and no '.join(absent)}: DeepSpeed cannot build its CPU Adam (offload)"
        yield Finding("compiler", why, Grade.WARNING)
    else:
        yield Finding("compiler", "ninja and a C++ compiler found")


def devices(local_rank: int) -> Iterator[Finding]:
    """This rank's GPU and its free memory; cores where there is no GPU."""
    promised = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    if not torch.cuda.is_available():
        if promised.isdecimal() and int(promised) and os.environ.get("DS_ACCELERATOR") != "cpu":
            gave = f"SLURM gave {counted(int(promised), 'GPU')}"
            why = f"{gave} and torch {torch.__version__} sees none; is it a CPU build, or its "
            why += "driver too old?"
            yield Finding("device", why, Grade.FAILED)
        else:
            yield Finding(
                "device", f"no GPU, {counted(cores(), 'core')}, {torch.get_num_threads()} threads"
            )
        return
    free, total = (size / 1e9 for size in torch.cuda.mem_get_info(local_rank))
    message = f"{torch.cuda.get_device_name(local_rank)}, {free:.0f} of {total:.0f} GB free"
    taken = free < 0.9 * total
    yield Finding("device", message, Grade.WARNING if taken else Grade.OK)


def shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Space for batches in shared memory."""
    if folder.is_dir():
        free = shutil.disk_usage(folder).free / 1e9
        little = free < SHARED_MEMORY_GB
        message = f"{free:.1f} GB free" + ("; give the container a larger --shm-size" * little)
        yield Finding(str(folder), message, Grade.WARNING if little else Grade.OK)


def free_space(disk: Path, need_gb: float) -> Iterator[Finding]:
    """Disk space for checkpoints."""
    free = shutil.disk_usage(disk).free / 1e9
    message = f"{free:,.0f} GB free, {need_gb:g} GB required (--need-gb)"
    yield Finding("free space", message, Grade.FAILED if free < need_gb else Grade.OK)


def disk_speed(disk: Path, name: str) -> Iterator[Finding]:
    """Speed of writing and reading a file, synced and dropped from the page cache."""
    path, block = disk / f".doctor-{name}", os.urandom(1 << 20)
    try:
        start = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(DISK_MEGABYTES):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        written = time.perf_counter()
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
        read = time.perf_counter()
    except OSError as error:
        yield Finding("disk", f"{disk}: {error.strerror or error}", Grade.FAILED)
        return
    finally:
        path.unlink(missing_ok=True)
    speeds = [DISK_MEGABYTES / seconds for seconds in (written - start, read - written)]
    message = f"{speeds[0]:,.0f} MB/s written, {speeds[1]:,.0f} MB/s read in {disk}"
    yield Finding("disk", message, Grade.WARNING if min(speeds) < 20 else Grade.OK)


def shards(location: str, rank: int, ranks: int) -> Iterator[Finding]:
    """Read and decode samples spread over the shards, different ones on each rank."""
    try:
        reader = ShardReader(location if is_url(location) else Path(location), cache_of(None, None))
        mine = range(rank, len(reader), max(ranks, len(reader) // READ))
        corrupt, speed = _read(reader, mine)
    except UserError as error:
        yield Finding("shards", str(error), Grade.FAILED)
        return
    size = f"{counted(len(reader), 'image')} in {counted(len(reader.shard_sizes), 'shard')}"
    yield Finding("shards", f"{size}, index {fingerprint(reader.index)[:12]}")
    if corrupt:
        why = f"{corrupt} of {len(mine)} do not decode"
        yield Finding("corrupt images", why, Grade.WARNING)
    if len(mine):
        yield feeding(speed, torch.cuda.is_available())


def feeding(speed: float, has_gpu: bool) -> Finding:
    """Whether a rank's cores decode as many images as its GPU trains on.

    Args:
        speed: Images/s that a core reads, decodes and crops.
        has_gpu: Whether the rank has a GPU.
    """
    workers = readers(has_gpu)
    message = f"{speed:,.0f} images/s a core, {counted(workers, 'worker')} a rank"
    if not has_gpu:
        return Finding("reading", message)
    message += f": {workers * speed:,.0f} images/s a GPU"
    short = [name for name, (least, _) in EATEN.items() if workers * speed < least]
    if not short:
        return Finding("reading", message)
    eaten = " and ".join(f"{EATEN[name][0]} to {EATEN[name][1]} of {name}" for name in short)
    message += f"; an H100 trains on {eaten}: give more cores a GPU (--cpus-per-gpu), pack smaller "
    return Finding("reading", f"{message}images, or train with --decode gpu", Grade.WARNING)


def _read(reader: ShardReader, samples: range) -> tuple[int, float]:
    """Number of samples that do not decode, and images/s of one core."""
    view = ImageSettings(SIZE, (0.0,) * 3, (1.0,) * 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in DataLoader's workers
    try:
        for sample in samples[:1]:  # opening files is not timed
            _is_corrupt(reader, sample, view)
        start = time.perf_counter()
        corrupt = sum(_is_corrupt(reader, sample, view) for sample in samples)
        seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return corrupt, len(samples) / seconds


def _is_corrupt(reader: ShardReader, sample: int, view: ImageSettings) -> bool:
    try:
        image_3HW = decode_image(reader.image_bytes(sample))
    except CorruptImage:
        return True
    training_view(image_3HW, view, CROP, random.Random(sample))
    return False


REDUCED_MEGABYTES = {"cuda": 256, "cpu": 16}
"""Size of the all-reduce, like the gradients of a model."""

TIMES = 5

APART = 1.0, 60.0
"""Seconds between clocks that give a warning and a failure: files would have future times, and
certificates would be invalid."""

SEEN_WITHIN = 20.0
"""Seconds until a file must be visible on other machines; network disks cache for some seconds."""


def all_reduce(device: torch.device) -> Iterator[Finding]:
    """Speed of an all-reduce, and whether its sum is correct."""
    ranks = world_size()
    if ranks == 1:
        yield Finding("all-reduce", "skipped: one rank")
        return
    megabytes = REDUCED_MEGABYTES[device.type]
    values = torch.empty(megabytes * (1 << 18), device=device)
    seconds, right = [], True
    for _ in range(TIMES + 1):
        values.fill_(rank() + 1)
        _wait(device)
        all_gather_object(None)  # a barrier
        start = time.perf_counter()
        all_reduce_sum(values)
        _wait(device)
        seconds.append(time.perf_counter() - start)
        right &= bool((values == ranks * (ranks + 1) / 2).all())
    if not right:
        yield Finding("all-reduce", "the sum over all ranks is wrong on this one", Grade.FAILED)
    # Bus bandwidth as defined by NCCL's tests.
    speed = 2 * (ranks - 1) / ranks * megabytes / 1e3 / statistics.median(seconds[1:])
    slowest = min(all_gather_object(speed))
    yield Finding(
        "all-reduce", f"{slowest:.2f} GB/s bus bandwidth, {megabytes} MB, {counted(ranks, 'rank')}"
    )


def clocks() -> Iterator[Finding]:
    """Offset of this rank's clock from rank 0's."""
    offsets = []
    for _ in range(TIMES):
        all_gather_object(None)
        times = all_gather_object(time.time())
        offsets.append(times[rank()] - times[0])
    apart = min(offsets, key=abs)
    grade = Grade(sum(abs(apart) > limit for limit in APART))
    if grade is Grade.OK:
        yield Finding("clock", f"within {APART[0]:g} s of rank 0's")
    else:
        yield Finding("clock", f"{apart:+.1f} s from rank 0's; is NTP running?", grade)


def shared_disk(disk: Path) -> Iterator[Finding]:
    """Whether all ranks see files of rank 0, which alone writes checkpoints."""
    name = broadcast_object(f".doctor-{secrets.token_hex(8)}")
    path = disk / name
    if rank() == 0:
        path.write_text(name)
    all_gather_object(None)
    until, seen = time.monotonic() + SEEN_WITHIN, False
    while not seen and time.monotonic() < until:
        seen = path.is_file() and path.read_text() == name
        if not seen:
            os.scandir(disk).close()  # refreshes the client's cache
            time.sleep(0.2)
    all_gather_object(None)
    if rank() == 0:
        path.unlink(missing_ok=True)
    if seen:
        yield Finding("shared disk", f"{disk.resolve()} is the same folder on all ranks")
    else:
        why = f"{disk.resolve()} is not the folder of rank 0; name one on a shared disk (--disk)"
        yield Finding("shared disk", why, Grade.FAILED)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


Check = Callable[[], Iterable[Finding]]

ALIKE = ("versions", "shards")
"""Checks whose findings must be equal on all ranks."""


def doctor(config: DoctorConfig) -> None:
    """Run all checks and print a table. A collective.

    Raises:
        UserError: On every rank, if a check failed on any rank.
    """
    # Before the rendezvous, which would hang if a rank had no device.
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    found = [*versions(), *compiler(), *devices(local_rank)]
    device = join_ranks()
    with Watchdog(config.hang_timeout, _give_up) as watchdog:
        for name, check in _checks(config, device).items():
            watchdog.beat(name)
            found += check()
        everyone = all_gather_object(found)
        names = all_gather_object(rank_label())
    merged = differing(lines(everyone), world_size())
    if rank() == 0:
        print(table(merged, world_size()), flush=True)
    failed = [line for line in merged if line.grade is Grade.FAILED]
    if failed:
        worst = failed[0]
        who = f"{names[worst.ranks[0]]}: " if world_size() > 1 else ""
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(f"doctor: {worst.check}: {who}{worst.message}{more}")
    if rank() == 0:
        warnings = sum(line.grade is Grade.WARNING for line in merged)
        print(f"doctor: all checks passed{f'; warnings: {warnings}' if warnings else ''}")


def _checks(config: DoctorConfig, device: torch.device) -> dict[str, Check]:
    """The checks in order; collective ones are the same on every rank."""
    raise_on_all_ranks(partial(_make_folder, config.disk))
    first_here = int(os.environ.get("LOCAL_RANK", "0")) == 0
    checks: dict[str, Check] = {
        "shared memory": shared_memory,
        "all-reduce": partial(all_reduce, device),
        "clocks": clocks,
        "shared disk": partial(shared_disk, config.disk),
        "free space": partial(free_space, config.disk, config.need_gb),
    }
    if first_here:
        checks["disk"] = partial(disk_speed, config.disk, str(rank()))
    if config.shards is not None:
        checks["shards"] = partial(shards, config.shards, rank(), world_size())
    return checks


def _make_folder(disk: Path) -> None:
    with writing(disk, "run it again with another --disk"):
        disk.mkdir(parents=True, exist_ok=True)


def differing(merged: list[Line], ranks: int) -> list[Line]:
    """Mark lines as failed where ranks should agree and do not."""
    disagree = {line.check for line in merged if line.check in ALIKE and len(line.ranks) < ranks}
    disagree -= {line.check for line in merged if line.grade is Grade.FAILED}
    return [
        line._replace(grade=Grade.FAILED, message=f"differs between ranks: {line.message}")
        if line.check in disagree and line.grade is Grade.OK
        else line
        for line in merged
    ]


def _give_up(line: str | None) -> None:
    """End a process whose collective hangs; an exception could not."""
    if line:
        print(f"hnc-ds: doctor: {rank_label()}: {line}", file=sys.stderr, flush=True)
    os._exit(STATUS)
