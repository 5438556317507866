"""Numbered part files: how a long run that writes one file survives being killed.

    OUT.parts/settings.json        what the parts are made from; other settings start afresh
    OUT.parts/part-00000.stats     counts of the part, written first
    OUT.parts/part-00000           the part; it exists only if it is whole

Every file appears under its name by a rename, so what is there is complete. Joining the parts
leaves them in place until the joined file is, too. Several processes may make parts of one output
on a shared disk; whichever finds all of them joins.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.whole_files import NO_ROOM, whole_file

PARTS_SUFFIX = ".parts"


class JoinedElsewhere(Exception):
    """Another process has joined the parts, and removed them."""


class Parts:
    """The part files of one output.

    Args:
        out: The output.
        settings: What the parts are made from. Those of other settings are removed.
        shared: Other processes make parts of the same output; nothing is removed then.

    Raises:
        UserError: The folder of parts cannot be made; it is shared and of other settings.
    """

    def __init__(self, out: Path, settings: bytes, shared: bool = False) -> None:
        self.out = out
        self.folder = out.with_name(out.name + PARTS_SUFFIX)
        path = self.folder / "settings.json"
        there = path.read_bytes() if path.is_file() else None
        if there == settings:
            return
        if shared and there is not None:
            raise UserError(
                f"{self.folder}: holds parts of other settings; remove it to begin anew"
            )
        try:
            if not shared:
                self.remove()
            self.folder.mkdir(parents=True, exist_ok=shared)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be made ({error.strerror or error})") from error
        write_part(path, [settings])

    def finished(self) -> set[int]:
        """Numbers of the parts that are complete."""
        names = (path.name.removeprefix("part-") for path in self.folder.glob("part-*"))
        return {int(name) for name in names if name.isdecimal()}

    def add(self, number: int, content: Iterable[bytes], stats: bytes) -> None:
        """Write one part and its counts.

        Raises:
            UserError: Disk full, or another reason why it cannot be written.
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
        """Write the parts 0 .. count-1, one after the other, as the output file.

        Raises:
            JoinedElsewhere: They are gone.
            UserError: Disk full, or another reason why it cannot be written.
        """
        write_part(self.out, (_read(self._part(i)) for i in range(count)))

    def remove(self) -> None:
        """Delete the parts and their folder, or what another process leaves of them."""
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
    """Write a file so that it exists under its name only when it is complete and on the disk.

    Raises:
        UserError: Disk full, no permission; nothing is left behind.
    """
    try:
        with whole_file(path) as file:
            file.writelines(content)
    except OSError as error:
        what = "make room" if error.errno in NO_ROOM else "see to it"
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); {what} and run it again, "
            "finished parts are kept"
        ) from error
