"""Finds the image of an id in folders of image files, tars, parquet and Arrow files."""

import filecmp
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hnc_ds.archives import KINDS, Held, digest_of, find_archives, is_archive, read_held, samples
from hnc_ds.errors import UserError
from hnc_ds.images import SUFFIXES, read_image_file

LONGEST_ID = 200  # characters; file names are limited to 255 bytes

_RANK = {suffix: rank for rank, suffix in enumerate(SUFFIXES)}


ImageFile = Path | Held
"""Where an image lies: a file, or a place in an archive."""


class _File(NamedTuple):
    """A file: the index of its folder, and its path below it."""

    folder: int
    path: str
    held: Held | None = None
    """Its place, if it lies in an archive."""


class ImageFolders:
    """An index of image folders by file names without suffix: finds the file of an image id.

        7                a file 7.jpg (.JPG, .png, ...) anywhere below the folders
        VG_100K/7        a file whose path ends so, as in lists of other projects
        7.jpg            the file of that name

    A file directly in one of the folders takes precedence over files in subfolders; in one folder
    the first of SUFFIXES counts. If several folders have the file, its contents must be the same in
    all. Ids only match files that the scan found, so none can leave the folders.

    In a folder without image files the archives are searched, each as if it were a folder.

    Args:
        named: Folders or archives (``is_archive``); a name that does not exist may be several,
            separated by colons.
        captions: The file of captions; archives that hold the images, if none are named.
        splits: Splits of these archives.

    Raises:
        UserError: A folder does not exist or cannot be read; an archive is broken; archives are
            named that hold no images; nothing is named and the captions hold no images.
    """

    def __init__(
        self, named: Sequence[Path], captions: Path | None = None, splits: Sequence[str] = ()
    ) -> None:
        self._captions = captions or "the captions"
        self._named = [part for one in named for part in _split(one)] or _own(captions)
        self.folders: list[Path] = []
        self._by_path: defaultdict[str, list[_File]] = defaultdict(list)
        self._by_name: defaultdict[str, list[_File]] = defaultdict(list)
        """Files in subfolders; files directly in a folder are found by their path."""
        digest = hashlib.sha256()
        seen: set[tuple[int, int]] = set()
        for number, folder in enumerate(self._named):
            digest.update(b"\n" * (number > 0))
            if named and folder.is_dir() and not self._add_folder(folder, seen, digest):
                continue
            self._add_archives(folder, () if named else splits, digest)
        self.digest = digest.hexdigest()
        """sha256 of the names, sizes and times of all files."""

    def _add_folder(
        self, folder: Path, seen: set[tuple[int, int]], digest: "hashlib._Hash"
    ) -> bool:
        """Add the files below a folder; returns whether it has archives, and no images."""
        self.folders.append(folder)
        suffixes = set()
        for path, entry in _walk(folder, seen):
            self._add(_File(len(self.folders) - 1, path))
            status = entry.stat()
            digest.update(os.fsencode(path))
            digest.update(f"/{status.st_size}/{status.st_mtime_ns}\n".encode())
            suffixes.add(PurePosixPath(path).suffix.lower())
        return bool(suffixes & set(KINDS)) and not suffixes & set(SUFFIXES)

    def _add_archives(self, named: Path, splits: Sequence[str], digest: "hashlib._Hash") -> None:
        root, archives = find_archives(named, splits)
        self.folders.append(root)
        digest.update(digest_of(archives).encode())
        count = 0
        for sample in (one for archive in archives for one in samples(archive, texts=False)):
            if sample.image:
                self._add(_File(len(self.folders) - 1, sample.name, sample.image))
                count += 1
        if not count:
            raise UserError(f"{named}: holds no images; name their folder with --images")

    def __str__(self) -> str:
        return ", ".join(map(str, self._named))

    def _add(self, file: _File) -> None:
        path = _without_suffix(file.path)
        above, _, name = path.rpartition("/")
        self._by_path[path].append(file)
        if above:
            self._by_name[name].append(file)

    def find(self, image_id: str) -> tuple[ImageFile, ...]:
        """The files of an image, one per folder that has it; all must have the same contents.

        Raises:
            UserError: The id cannot be a file name.
        """
        parts = image_id.split("/")
        outside = {"", ".", ".."} & set(parts) or {"\\", "\0"} & set(image_id)
        if outside or len(image_id) > LONGEST_ID:
            raise UserError(
                f"image id {image_id[:LONGEST_ID]!r} of {self._captions} names no file of {self}; "
                "ids are file names without '.jpg'"
            )
        stem = _without_suffix(image_id)
        found = (
            self._by_path.get(image_id)
            or [file for file in self._by_path.get(stem, ()) if _has_name(file, parts[-1])]
            or self._in_subfolders(image_id)
            or [file for file in self._in_subfolders(stem) if _has_name(file, parts[-1])]
        )
        return tuple(f.held or self.folders[f.folder] / f.path for f in _one_each(found))

    def _in_subfolders(self, path: str) -> list[_File]:
        """Files whose full path without suffix ends with ``path``."""
        above, _, name = path.rpartition("/")
        if not above:
            return self._by_name.get(name, [])
        files = [*self._by_path.get(name, ()), *self._by_name.get(name, ())]
        return [file for file in files if self._lies_in(file, above)]

    def _lies_in(self, file: _File, above: str) -> bool:
        folder = os.path.dirname(os.path.abspath(self.folders[file.folder] / file.path))
        return folder.endswith(f"/{above}")


def same_image(files: Sequence[ImageFile]) -> ImageFile:
    """The first file of an image, after comparing the others with it.

    Raises:
        CorruptImage: A file is too large for an image.
        UserError: Another file differs.
        OSError: A file cannot be read.
    """
    for other in files[1:]:
        if not _are_equal(files[0], other):
            path = PurePosixPath(other.name if isinstance(other, Held) else other)
            raise UserError(
                f"{files[0]} and {other} differ and have one name; name only one of their folders "
                "with --images, or write the folder before the id: "
                f"{PurePosixPath(path.parent.name, _without_suffix(path.name))}"
            )
    return files[0]


def _are_equal(one: ImageFile, other: ImageFile) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return filecmp.cmp(one, other, shallow=False)
    return read_image(one) == read_image(other)


def read_image(file: ImageFile) -> bytes | None:
    """The bytes of an image; None if its row in an archive has none.

    Raises:
        CorruptImage: It is too large for an image.
        OSError: It cannot be read.
        UserError: Its archive is damaged.
    """
    return read_held(file) if isinstance(file, Held) else read_image_file(file)


def bytes_of(file: ImageFile) -> int:
    """The size of an image in bytes."""
    return file.size if isinstance(file, Held) else file.stat().st_size


def _own(captions: Path | None) -> list[Path]:
    if captions is None or not is_archive(captions):
        raise UserError(f"{captions}: holds no images; name their folder with --images")
    return [captions]


def _split(named: Path) -> list[Path]:
    """The folder or archives, or those of A:B if there is no such name."""
    whole = named.exists() or (is_archive(named) and ":" not in str(named))
    folders = [named] if whole else [Path(part) for part in str(named).split(":")]
    for folder in folders:
        if not is_archive(folder):
            raise UserError(f"{folder}: no such folder; --images names the folders of the images")
    return folders


def _walk(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files below a folder with their paths, sorted by name in each folder. Links are followed,
    no folder is entered twice, and unreadable subfolders are skipped."""
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
    """One file per folder, the first by suffix; of a table every row."""
    best: dict[tuple[int, str, int], _File] = {}
    for file in files:
        row = file.held.start if file.held else 0
        place = (file.folder, file.path.rpartition("/")[0], row)
        if place not in best or _rank(file) < _rank(best[place]):
            best[place] = file
    return list(best.values())


def _rank(file: _File) -> int:
    return _RANK.get(PurePosixPath(file.path).suffix.lower(), len(_RANK))
