"""The folders of images, looked through once: which file an image id names.

    7                a file 7.jpg (.JPG, .png, ...) anywhere below the folders
    VG_100K/7        one whose path ends so; folders may be named, as in lists of others
    7.jpg            the file of that very name

A file named so directly in one of the folders goes before files further down; in one folder the
first of SUFFIXES counts. Where several folders have the file, it must be the same image in all.
An id finds only files that were met in the folders, so none leads out of them.
"""

import filecmp
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hnc_ds.errors import UserError
from hnc_ds.images import SUFFIXES

LONGEST_ID = 200  # characters; file names end at 255 bytes

_RANK = {suffix: rank for rank, suffix in enumerate(SUFFIXES)}


class _File(NamedTuple):
    """Where a file lies: the number of its folder, and the path below it."""

    folder: int
    path: str


class ImageFolders:
    """An index of the files by their names without suffix.

    Args:
        named: The folders; one that is not there may be several with colons between them.

    Raises:
        UserError: There is no such folder, or it cannot be read.
    """

    def __init__(self, named: Sequence[Path]) -> None:
        self.folders = [folder for one in named for folder in _split(one)]
        self._by_path: defaultdict[str, list[_File]] = defaultdict(list)
        self._by_name: defaultdict[str, list[_File]] = defaultdict(list)
        """Of files in folders below those named, as others are found by their paths."""
        digest = hashlib.sha256()
        seen: set[tuple[int, int]] = set()
        for number, folder in enumerate(self.folders):
            digest.update(b"\n" * (number > 0))
            for path, entry in _walk(folder, seen):
                self._add(_File(number, path))
                status = entry.stat()
                digest.update(os.fsencode(path))
                digest.update(f"/{status.st_size}/{status.st_mtime_ns}\n".encode())
        self.digest = digest.hexdigest()
        """Of the names, sizes and times of all files."""

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders))

    def _add(self, file: _File) -> None:
        path = _without_suffix(file.path)
        above, _, name = path.rpartition("/")
        self._by_path[path].append(file)
        if above:
            self._by_name[name].append(file)

    def find(self, image_id: str) -> tuple[Path, ...]:
        """The files of an image, of which the first counts and others must be the same; none where
        it is not there.

        Raises:
            UserError: The id is the name of no file anywhere.
        """
        parts = image_id.split("/")
        outside = {"", ".", ".."} & set(parts) or {"\\", "\0"} & set(image_id)
        if outside or len(image_id) > LONGEST_ID:
            raise UserError(
                f"image id {image_id[:LONGEST_ID]!r} of the captions names no file of {self}; "
                "ids are file names without '.jpg'"
            )
        stem = _without_suffix(image_id)
        found = (
            self._by_path.get(image_id)
            or [file for file in self._by_path.get(stem, ()) if _has_name(file, parts[-1])]
            or self._further_down(image_id)
            or [file for file in self._further_down(stem) if _has_name(file, parts[-1])]
        )
        return tuple(self.folders[file.folder] / file.path for file in _one_each(found))

    def _further_down(self, wanted: str) -> list[_File]:
        """Files whose whole path, of their folder too, ends as wanted, but for the suffix."""
        above, _, name = wanted.rpartition("/")
        if not above:
            return self._by_name.get(name, [])
        files = [*self._by_path.get(name, ()), *self._by_name.get(name, ())]
        return [file for file in files if self._lies_in(file, above)]

    def _lies_in(self, file: _File, above: str) -> bool:
        folder = os.path.dirname(os.path.abspath(self.folders[file.folder] / file.path))
        return folder.endswith(f"/{above}")


def same_image(files: Sequence[Path]) -> Path:
    """The first of the files of an image, after the others were compared with it.

    Raises:
        UserError: Another one differs.
        OSError: One cannot be read.
    """
    for other in files[1:]:
        if not filecmp.cmp(files[0], other, shallow=False):
            raise UserError(
                f"{files[0]} and {other} differ and have one name; name only one of their folders "
                "with --images, or write the folder before the id: "
                f"{PurePosixPath(other.parent.name, _without_suffix(other.name))}"
            )
    return files[0]


def _split(named: Path) -> list[Path]:
    """The folder; or those of A:B where there is none of that name."""
    folders = [named] if named.exists() else [Path(part) for part in str(named).split(":")]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; --images names the folders of the images")
    return folders


def _walk(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files with their paths below a folder, those of one folder by name; links are followed,
    but no folder is entered twice. What may not be read below it is passed over."""
    waiting = [""]
    while waiting:
        above = waiting.pop()
        try:
            status = os.stat(root / above)
            with os.scandir(root / above) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if above:
                continue
            raise UserError(f"{root}: cannot be read ({error.strerror})") from error
        if (place := (status.st_dev, status.st_ino)) in seen:
            continue
        seen.add(place)
        for entry in inside:
            if entry.is_file():
                yield above + entry.name, entry
        below = [f"{above}{entry.name}/" for entry in inside if _is_folder(entry)]
        waiting += reversed(below)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir()


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and f".{suffix.lower()}" in _RANK else name


def _has_name(file: _File, name: str) -> bool:
    return file.path.rpartition("/")[2].lower() == name.lower()


def _one_each(files: Sequence[_File]) -> list[_File]:
    """Of files in one folder the first by suffix."""
    best: dict[tuple[int, str], _File] = {}
    for file in files:
        place = (file.folder, file.path.rpartition("/")[0])
        if place not in best or _rank(file) < _rank(best[place]):
            best[place] = file
    return list(best.values())


def _rank(file: _File) -> int:
    return _RANK.get(PurePosixPath(file.path).suffix.lower(), len(_RANK))
