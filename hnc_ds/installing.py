"""How to add to this installation, for messages. hnc-ds is on no package index."""

import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout, or the folder of installed packages."""


def pip_install(extra: str = "") -> str:
    """The command that installs what an extra needs, or what every command needs.

    A checkout is installed from its folder. An installed wheel goes by its name, for which pip
    takes the version that is there.

    Args:
        extra: A name of setup.py's extras_require.
    """
    brackets = f"[{extra}]" if extra else ""
    if not (ROOT / "setup.py").is_file():
        return f"pip install {shlex.quote(f'hnc-ds{brackets}')}"
    folder = "." if Path.cwd() == ROOT else str(ROOT)
    return f"pip install -e {shlex.quote(folder + brackets)}"
