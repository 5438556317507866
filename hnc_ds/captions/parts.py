"""Numbered part files: a killed run of a long stage continues after its last part.

    OUT.parts/settings.json        settings of the parts; parts of other settings are removed
    OUT.parts/part-00000.stats     counts of the part, written first
    OUT.parts/part-00000           the part

All files are atomic, so existing ones are complete. The parts are kept until the joined file
exists. Several processes may write parts of one output on a shared disk; the one that finds all
parts finished joins them.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from hnc_ds.atomic_files import atomic_file, writing
from hnc_ds.errors import UserError

PARTS_SUFFIX = ".parts"


class JoinedElsewhere(Exception):
    """Another process has joined and removed the parts."""


class Parts:
    """The part files of one output.

    Args:
        out: The output.
        settings: Everything the parts depend on. Parts of other settings are removed.
        shared: Other processes write parts of the same output; nothing is removed then.

    Raises:
        UserError: The folder cannot be created; it is shared and has other settings.
    """

    def __init__(self, out: Path, settings: bytes, shared: bool = False) -> None:
        self.out = out
        self.folder = out.with_name(out.name + PARTS_SUFFIX)
        path = self.folder / "settings.json"
        before = path.read_bytes() if path.is_file() else None
        if before == settings:
            return
        if shared and before is not None:
            raise UserError(
                f"{self.folder}: holds parts of other settings; remove it to start again"
            )
        with writing(self.folder):
            if not shared:
                self.remove()
            self.folder.mkdir(parents=True, exist_ok=shared)
        write_part(path, [settings])

    def finished(self) -> set[int]:
        """Numbers of the parts that are complete."""
        names = (path.name.removeprefix("part-") for path in self.folder.glob("part-*"))
        return {int(name) for name in names if name.isdecimal()}

    def add(self, number: int, content: Iterable[bytes], stats: bytes) -> None:
        """Write one part and its counts.

        Raises:
            UserError: They cannot be written.
        """
        write_part(self._stats(number), [stats])
        write_part(self._part(number), content)

    def stats(self, number: int) -> bytes:
        """The counts of a finished part.

        Raises:
            JoinedElsewhere: They are gone.
        """
        return _read(self._stats(number))

    def join(self, count: int) -> None:
        """Concatenate the parts 0 .. count-1 into the output file.

        Raises:
            JoinedElsewhere: They are gone.
            UserError: It cannot be written.
        """
        write_part(self.out, (_read(self._part(i)) for i in range(count)))

    def remove(self) -> None:
        """Delete the folder of parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}"

    def _stats(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.stats"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise JoinedElsewhere from error


def write_part(path: Path, content: Iterable[bytes]) -> None:
    """Write a file atomically.

    Raises:
        UserError: It cannot be written; finished parts are kept.
    """
    with writing(path, "run it again, finished parts are kept"), atomic_file(path) as file:
        file.writelines(content)
