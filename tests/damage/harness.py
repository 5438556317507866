"""One case: copy the inputs, damage one file, run the command in a forked child, judge its end.

The parent has imported everything, so that a child starts in milliseconds. A case fails as

traceback   it ended with a traceback, by a signal, or with a status that is neither 0 nor 2
unnamed     it ended with status 2, and its line names neither the file nor a folder that holds it
half        it ended with status 2, and a file that it was to write is there, or a temporary one
hang        it did not end
memory      its memory grew by more than LARGEST
silent      it ended with status 0 after a STRICT damage, what it made differs from what it makes of
            the sound file, and neither a line nor a counter that was not there before speaks of it

Compared are the outputs that a stage names: scores, counts, captions. A line speaks of damage when
it is not printed for the sound file and holds one of the words of REPORTS. Not compared are lines
alone: a number that only the terminal shows is part of `printed` where a stage says so.
"""

import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.damage.damages import Damage

LARGEST = 1 << 30
"""Bytes by which the memory of a command may grow."""

PATIENCE = 60.0
"""Seconds."""

REPORTS = re.compile(
    r"left out|skipped|missing|unreadable|dropped|twice|repaired|cannot|damaged|broken|cut\b|"
    r"were cut|not listed|without|empty|no longer|warn|corrupt|did not|not the|is not|lost|"
    r"irregular|too long|met \d|boxes|doubl|alike|again",
    re.IGNORECASE,
)


class Stage(NamedTuple):
    """A command on files that may be damaged."""

    name: str
    folder: str
    """Of the world; copied for each case, which runs in the copy."""
    command: Sequence[str]
    damaged: Sequence[str]
    """Files in the folder."""
    made: Callable[[Path, str], Any]
    """What is compared: the folder after the command, and its output."""
    optional: frozenset[str] = frozenset()
    """Fields that files of this kind may lack."""
    share: float = 1.0
    """Of the cases that a file has; less where a command takes seconds."""
    status: int = 0
    """Of the sound files."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    said: str
    grown: int
    seconds: float
    hung: bool


class Verdict(NamedTuple):
    """What became of a case."""

    case: str
    verdict: str
    line: str
    grown: int
    seconds: float


def copied(source: Path, target: Path) -> None:
    """Inputs of a case; large files are linked, as nothing but their replacement is written."""

    def copy(one: str, other: str) -> None:
        (os.link if os.path.getsize(one) > 1 << 20 else shutil.copyfile)(one, other)

    shutil.copytree(source, target, copy_function=copy)


def run(folder: Path, command: Sequence[str]) -> Ended:
    """A command in a forked child."""
    said = folder.parent / f"{folder.name}.said"
    before = _resident()
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_command(folder, command, said)
    hung = not _waits_for(child, started)
    if hung:
        os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    grown = max(0, used.ru_maxrss * 1024 - before)
    text = said.read_text(errors="replace")
    said.unlink()
    seconds = time.monotonic() - started
    return Ended(os.waitstatus_to_exitcode(status), text, grown, seconds, hung)


def _be_the_command(folder: Path, command: Sequence[str], said: Path) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # pytest has others, of its own
        sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
        resource.setrlimit(resource.RLIMIT_AS, (_virtual() + (6 << 30), resource.RLIM_INFINITY))
        os.chdir(folder)
        sys.argv = ["hnc-ds", *command]
        from hnc_ds.cli import main

        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _waits_for(child: int, started: float) -> bool:
    while time.monotonic() - started < PATIENCE:
        found = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return True
        time.sleep(0.003)
    return False


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def judge(
    stage: Stage, file: str, damage: Damage, case: str, world: Path, scratch: Path, sound: Any
) -> Verdict:
    """Run a case and judge it.

    Args:
        stage: The command.
        file: That is damaged.
        damage: How.
        case: Its name, which is its seed.
        world: Of the sound files.
        scratch: Where the copy lies; removed.
        sound: What the sound files make, and what is said of them.
    """
    folder = scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    copied(world / stage.folder, folder)
    target = folder / file
    content = target.read_bytes()
    target.unlink()  # perhaps a link
    target.write_bytes(content)
    damage.apply(target, random.Random(case))
    ended = run(folder, stage.command)
    verdict = _verdict(stage, file, damage, folder, ended, sound)
    last = ended.said.strip().splitlines()[-1] if ended.said.strip() else ""
    shutil.rmtree(folder, ignore_errors=True)
    return Verdict(case, verdict, last[:300], ended.grown, ended.seconds)


def _verdict(
    stage: Stage, file: str, damage: Damage, folder: Path, ended: Ended, sound: Any
) -> str:
    if ended.hung:
        return "hang"
    if ended.grown > LARGEST:
        return "memory"
    if "Traceback (most recent call last)" in ended.said or ended.status not in (0, 2):
        return "traceback"
    if ended.status == 2:
        if _is_half_written(folder, stage.command):
            return "half"
        return "ok" if _names(ended.said, file) else "unnamed"
    made, said = sound
    if not damage.strict or stage.made(folder, ended.said) == made:
        return "ok"
    new = [line for line in ended.said.splitlines() if line not in said]
    return "ok" if any(REPORTS.search(line) for line in new) else "silent"


def _is_half_written(folder: Path, command: Sequence[str]) -> bool:
    outs = [folder / name for flag, name in pairwise(command) if flag == "--out"]
    files = [out for out in outs if out.suffix and out.exists()]
    return bool(files or [*folder.rglob("*.tmp")])


def _names(said: str, file: str) -> bool:
    """Whether the last line names the file, or a folder that holds it."""
    line = said.strip().splitlines()[-1] if said.strip() else ""
    parts = Path(file).parts
    return any(part in line for part in (*parts, Path(file).stem))
