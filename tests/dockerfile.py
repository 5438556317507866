"""The Dockerfile as instructions."""

import shlex
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each, with continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in pairs]


def arguments_of(name: str) -> list[str]:
    """Arguments of every instruction of a name."""
    return [rest for own, rest in instructions() if own == name]


def copies() -> list[tuple[list[str], str]]:
    """Sources and target of each COPY."""
    found = [shlex.split(rest) for rest in arguments_of("COPY")]
    return [(words[:-1], words[-1]) for words in found]


def copy_all(folder: Path) -> Path:
    """A folder with what the image has below its WORKDIR of sources."""
    for sources, target in copies():
        for source in sources:
            if (ROOT / source).is_dir():
                leave = shutil.ignore_patterns("__pycache__", "logs")
                shutil.copytree(ROOT / source, folder / target, ignore=leave)
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, folder / target)
    return folder
