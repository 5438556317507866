"""What a process can see of its own machine: versions, devices, disks, shards."""

import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from hnc_ds.config.cores import cores, readers
from hnc_ds.doctor.finding import Finding, Grade
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.items import fingerprint
from hnc_ds.images import CorruptImage
from hnc_ds.shards.images import ImageSettings, decode_image, training_view
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import cache_of, is_url

NEEDED = ("torch", "torchvision", "deepspeed", "open_clip_torch", "webdataset", "tensorboard")
"""Packages without which nothing runs."""

SHARED_MEMORY_GB = 1.0
"""DataLoader's workers hand batches over through /dev/shm."""

READ = 64
"""Samples that a rank reads of the shards."""

SIZE, CROP = 224, 0.9
"""Pixels on a side that images are cropped to, as most models have it, and the least share kept."""

EATEN = {"ViT-B-32": (2000, 3000), "ViT-L-14-336": (250, 300)}
"""Images/s that an H100 trains on in bf16, measured: eager, compiled."""

MEGABYTES = 128
"""That are written to the disk, to see how fast it is."""


def versions() -> Iterator[Finding]:
    """Of Python and the packages; ranks whose line differs do not run the same programs."""
    told, missing = [f"Python {sys.version.split()[0]}"], []
    for name in NEEDED:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if torch.version.cuda:
        told.append(f"CUDA {torch.version.cuda}")
    yield Finding("versions", ", ".join(told))
    if missing:
        why = f"{', '.join(missing)} not installed here; pip install hnc-ds"
        yield Finding("versions", why, Grade.FAILED)


def compiler() -> Iterator[Finding]:
    """What DeepSpeed compiles its operators with, when they are first used."""
    absent = [name for name in ("ninja", os.environ.get("CXX", "c++")) if not shutil.which(name)]
    if absent:
        why = f"no {' and no '.join(absent)}: DeepSpeed cannot build its CPU Adam (offload)"
        yield Finding("compiler", why, Grade.WARNING)
    else:
        yield Finding("compiler", "ninja and a C++ compiler are there")


def devices(local_rank: int) -> Iterator[Finding]:
    """The GPU of this rank, and whether others are on it; cores where there is none."""
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
    told = f"{torch.cuda.get_device_name(local_rank)}, {free:.0f} of {total:.0f} GB free"
    taken = free < 0.9 * total
    yield Finding("device", told, Grade.WARNING if taken else Grade.OK)


def shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Whether batches find room on their way from the processes that read."""
    if folder.is_dir():
        free = shutil.disk_usage(folder).free / 1e9
        little = free < SHARED_MEMORY_GB
        told = f"{free:.1f} GB free" + ("; give the container a larger --shm-size" * little)
        yield Finding(str(folder), told, Grade.WARNING if little else Grade.OK)


def free_space(disk: Path, need_gb: float) -> Iterator[Finding]:
    """Whether checkpoints will find room."""
    free = shutil.disk_usage(disk).free / 1e9
    told = f"{free:,.0f} GB free, {need_gb:g} GB are wanted (--need-gb)"
    yield Finding("free space", told, Grade.FAILED if free < need_gb else Grade.OK)


def disk_speed(disk: Path, name: str) -> Iterator[Finding]:
    """Write and read some megabytes, flushed, past the machine's own memory where it lets us."""
    path, block = disk / f".doctor-{name}", os.urandom(1 << 20)
    try:
        start = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(MEGABYTES):
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
    speeds = [MEGABYTES / seconds for seconds in (written - start, read - written)]
    told = f"{speeds[0]:,.0f} MB/s written, {speeds[1]:,.0f} MB/s read in {disk}"
    yield Finding("disk", told, Grade.WARNING if min(speeds) < 20 else Grade.OK)


def shards(location: str, rank: int, ranks: int) -> Iterator[Finding]:
    """Read and decode samples all over the shards, others on every rank."""
    try:
        reader = ShardReader(location if is_url(location) else Path(location), cache_of(None, None))
        mine = range(rank, len(reader), max(ranks, len(reader) // READ))
        corrupt, speed = _read(reader, mine)
    except UserError as error:
        yield Finding("shards", str(error), Grade.FAILED)
        return
    told = f"{counted(len(reader), 'image')} in {counted(len(reader.shard_sizes), 'shard')}"
    yield Finding("shards", f"{told}, index {fingerprint(reader.index)[:12]}")
    if corrupt:
        why = f"{corrupt} of {len(mine)} do not decode"
        yield Finding("corrupt images", why, Grade.WARNING)
    if len(mine):
        yield feeding(speed, torch.cuda.is_available())


def feeding(speed: float, has_gpu: bool) -> Finding:
    """Whether the cores of a rank give its GPU as many images as it trains on.

    Args:
        speed: Images/s that a core reads, decodes and crops.
        has_gpu: Whether there is one to be fed.
    """
    workers = readers(has_gpu)
    told = f"{speed:,.0f} images/s a core, {counted(workers, 'worker')} a rank"
    if not has_gpu:
        return Finding("reading", told)
    told += f": {workers * speed:,.0f} images/s a GPU"
    short = [name for name, (least, _) in EATEN.items() if workers * speed < least]
    if not short:
        return Finding("reading", told)
    eaten = " and ".join(f"{EATEN[name][0]} to {EATEN[name][1]} of {name}" for name in short)
    why = (
        f"{told}; an H100 trains on {eaten}: give more cores a GPU (--cpus-per-gpu), pack smaller "
    )
    return Finding("reading", f"{why}images, or train with --decode gpu", Grade.WARNING)


def _read(reader: ShardReader, samples: range) -> tuple[int, float]:
    """How many of the samples do not decode, and images/s of one core."""
    view = ImageSettings(SIZE, (0.0,) * 3, (1.0,) * 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers have it
    try:
        for sample in samples[:1]:  # opens files; not timed
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
