"""Peak memory of a command and all its child processes, from Linux's /proc."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

PROC = Path("/proc")
EVERY_SECONDS = 0.02


def peak_mebibytes(command: Sequence[str]) -> float:
    """Run a command; the largest sum of resident memory of it and its descendants at one time.

    Looked at fifty times a second; pages that processes share are counted in each. NaN where there
    is no /proc.

    Raises:
        subprocess.CalledProcessError: The command failed; what it wrote is in the error.
    """
    peak = 0 if PROC.is_dir() else float("nan")
    with TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, sum(map(_resident, _family(process.pid))))
            time.sleep(EVERY_SECONDS)
        if process.returncode:
            output.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, output.read())
    return peak / 2**20


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for task in (PROC / str(parent) / "task").glob("*/children"):
            found += [int(child) for child in _text(task).split()]
    return found


def _resident(pid: int) -> int:
    fields = _text(PROC / str(pid) / "statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _text(path: Path) -> str:
    """'' if the process has ended in the meantime."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
