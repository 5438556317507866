"""Numbered part files: a killed run of a long stage continues after its last part.

    OUT.parts/settings.json        settings of the parts; parts of other settings are removed
    OUT.parts/part-00000.stats     counts of the part, written first
    OUT.parts/part-00000           the part

All files are atomic, so existing ones are complete. The parts are kept until the joined file
exists. Several processes may write parts of one output on a shared disk; the one that finds all
parts finished joins them.
"""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from hnc_ds.atomic_files import CannotWrite, atomic_file, writing
from hnc_ds.errors import UserError

SETTINGS = "settings.json"


class JoinedElsewhere(Exception):
    """Another process has joined and removed the parts, so all of them were finished."""


class Parts:
    """The part files of one output.

    Args:
        out: The output.
        settings: Everything the parts depend on. Parts of other settings are removed.
        shared: Other processes write parts of the same output; nothing is removed then.
        resumed: ``unfinished`` was true before; with ``shared``, the parts then were joined
            elsewhere if there are none now.

    Raises:
        UserError: The folder cannot be created; it is shared and has other settings.
        JoinedElsewhere: Another process joined the parts meanwhile.
    """

    def __init__(
        self, out: Path, settings: bytes, shared: bool = False, resumed: bool = False
    ) -> None:
        self.out = out
        self.folder = _folder(out)
        self._shared = shared
        before = _settings(self.folder)
        if before == settings:
            return
        if shared and before is not None:
            raise UserError(
                f"{self.folder}: holds parts of other settings; remove it to start again"
            )
        if shared and resumed:
            raise JoinedElsewhere
        with writing(self.folder):
            if not shared:
                self.remove()
            self.folder.mkdir(parents=True, exist_ok=shared)
        self.keep(SETTINGS, settings)

    @staticmethod
    def unfinished(out: Path, settings: bytes | None = None) -> bool:
        """Whether there are parts of an output; of these settings, if given."""
        return _folder(out).exists() if settings is None else _settings(_folder(out)) == settings

    def keep(self, name: str, content: bytes) -> Path:
        """Write a file that all parts use.

        Raises:
            UserError: It cannot be written.
            JoinedElsewhere: The folder is gone.
        """
        path = self.folder / name
        try:
            write_part(path, [content])
        except CannotWrite as error:
            if self._shared and error.errno == errno.ENOENT:
                raise JoinedElsewhere from error
            raise
        return path

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


def _folder(out: Path) -> Path:
    return out.with_name(out.name + ".parts")


def _settings(folder: Path) -> bytes | None:
    try:
        return (folder / SETTINGS).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


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
