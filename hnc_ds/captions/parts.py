"""Numbered part files: how a long run that writes one file survives being killed.

    OUT.parts/settings.json        what the parts are made from; other settings start afresh
    OUT.parts/part-00000.stats     counts of the part, written first
    OUT.parts/part-00000           the part; it exists only if it is whole

Every file appears under its name by a rename, so what is there is complete. Joining the parts
leaves them in place until the joined file is, too.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.whole_files import whole_file


class Parts:
    """The part files of one output."""

    def __init__(self, out: Path, settings: bytes) -> None:
        """Open the folder of parts, emptied if it holds those of other settings."""
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        path = self.folder / "settings.json"
        if path.is_file() and path.read_bytes() == settings:
            return
        try:
            self.remove()
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be made ({error.strerror or error})") from error
        write_part(path, [settings])

    def finished(self) -> int:
        """How many parts are complete: 0 .. n-1."""
        count = 0
        while self._part(count).is_file():
            count += 1
        return count

    def add(self, number: int, content: Iterable[bytes], stats: bytes) -> None:
        """Write one part and its counts.

        Raises:
            UserError: Disk full, or another reason why it cannot be written.
        """
        write_part(self._stats(number), [stats])
        write_part(self._part(number), content)

    def stats(self, number: int) -> bytes:
        """The counts of a finished part."""
        return self._stats(number).read_bytes()

    def join(self, count: int) -> None:
        """Write the parts 0 .. count-1, one after the other, as the output file."""
        write_part(self.out, (self._part(i).read_bytes() for i in range(count)))

    def remove(self) -> None:
        """Delete the parts and their folder."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}"

    def _stats(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.stats"


def write_part(path: Path, content: Iterable[bytes]) -> None:
    """Write a file so that it exists under its name only when it is complete and on the disk.

    Raises:
        UserError: Disk full, no permission; nothing is left behind.
    """
    try:
        with whole_file(path) as file:
            file.writelines(content)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room and run it again, "
            "finished parts are kept"
        ) from error
