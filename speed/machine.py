"""What a measurement was made on: machine, versions, date. No names of hosts or users."""

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import hnc_ds
from hnc_ds.launch import cores

PACKAGES = ("torch", "torchvision", "open_clip_torch", "webdataset", "pillow", "numpy", "msgspec")


def facts() -> dict[str, str]:
    """Facts by title, in order."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(cores()),
        "load before the start": _load(),
        "torch threads": "1",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "hnc_ds": hnc_ds.__version__,
        **{name: version(name) for name in PACKAGES},
    }


def _load() -> str:
    """Processes that wanted to run in the last minute."""
    load = os.getloadavg()[0]
    busy = "; the machine was busy, so two workers had less than two cores" * (load > cores() / 2)
    return f"{load:.1f}{busy}"


def _processor() -> str:
    """The CPU model's name from the kernel, or else from the platform."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
