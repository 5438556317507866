"""The inputs of a shard folder: image folders, what it was packed from, and a check before packing.

Inputs are recorded in source.json of an unfinished folder, and in index.json of a finished one;
they decide which of its files may be kept. ``hnc-ds pack ... --check`` takes seconds and writes
nothing: it looks up the image of every caption's id, decodes a sample of images, and compares sizes
with the free disk space.
"""

import filecmp
import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from hnc_ds.atomic_files import is_temporary, writing
from hnc_ds.captions.formats.caption_rows import NegativeColumns
from hnc_ds.captions.formats.captions import captioned_images
from hnc_ds.config import PackConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.images import JPEG, SUFFIXES, CorruptImage, as_rgb, open_image, read_image_file
from hnc_ds.reading import sha256_of
from hnc_ds.shards.format import FORMAT_VERSION, INDEX_NAME, read_index, shard_file

LONGEST_ID = 200  # characters; file names are limited to 255 bytes

_RANK = {suffix: rank for rank, suffix in enumerate(SUFFIXES)}


class _File(NamedTuple):
    """A file: the index of its folder, and its path below it."""

    folder: int
    path: str


class ImageFolders:
    """An index of image folders by file names without suffix: finds the file of an image id.

        7                a file 7.jpg (.JPG, .png, ...) anywhere below the folders
        VG_100K/7        a file whose path ends so, as in lists of other projects
        7.jpg            the file of that name

    A file directly in one of the folders takes precedence over files in subfolders; in one folder
    the first of SUFFIXES counts. If several folders have the file, its contents must be the same in
    all. Ids only match files that the scan found, so none can leave the folders.

    Args:
        named: The folders; a name that does not exist may be several, separated by colons.

    Raises:
        UserError: A folder does not exist or cannot be read.
    """

    def __init__(self, named: Sequence[Path]) -> None:
        self.folders = [folder for one in named for folder in _split(one)]
        self._by_path: defaultdict[str, list[_File]] = defaultdict(list)
        self._by_name: defaultdict[str, list[_File]] = defaultdict(list)
        """Files in subfolders; files directly in a folder are found by their path."""
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
        """sha256 of the names, sizes and times of all files."""

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders))

    def _add(self, file: _File) -> None:
        path = _without_suffix(file.path)
        above, _, name = path.rpartition("/")
        self._by_path[path].append(file)
        if above:
            self._by_name[name].append(file)

    def find(self, image_id: str) -> tuple[Path, ...]:
        """The files of an image, one per folder that has it; all must have the same contents.

        Raises:
            UserError: The id cannot be a file name.
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
            or self._in_subfolders(image_id)
            or [file for file in self._in_subfolders(stem) if _has_name(file, parts[-1])]
        )
        return tuple(self.folders[file.folder] / file.path for file in _one_each(found))

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


def same_image(files: Sequence[Path]) -> Path:
    """The first file of an image, after comparing the others with it.

    Raises:
        UserError: Another file differs.
        OSError: A file cannot be read.
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
    """The folder, or the folders of A:B if it does not exist."""
    folders = [named] if named.exists() else [Path(part) for part in str(named).split(":")]
    for folder in folders:
        if not folder.is_dir():
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
    """One file per folder, the first by suffix."""
    best: dict[tuple[int, str], _File] = {}
    for file in files:
        place = (file.folder, file.path.rpartition("/")[0])
        if place not in best or _rank(file) < _rank(best[place]):
            best[place] = file
    return list(best.values())


def _rank(file: _File) -> int:
    return _RANK.get(PurePosixPath(file.path).suffix.lower(), len(_RANK))


SOURCE_NAME = "source.json"
_OUR_FILES = re.compile(r"shard-\d{6,}\.(tar|json)(\.\d+\.tmp)?|(index|source)\.json\.\d+\.tmp")


class _Sourced(msgspec.Struct):
    """The common part of source.json and index.json."""

    source: dict[str, str]


def fingerprint(config: PackConfig, images: str) -> dict[str, str]:
    """Everything that shards depend on: the captions' bytes, and the images' names, sizes and
    times. Hashing the images' bytes would read everything twice.

    Args:
        config: Captions and settings.
        images: ``ImageFolders.digest``.

    Raises:
        UserError: The captions file does not exist.
    """
    if not config.captions.is_file():
        raise UserError(f"{config.captions}: no such file; make it with 'hnc-ds generate'")
    columns = [*config.negative_columns, ":", *config.negative_type]
    return {
        **({"negatives": " ".join(columns)} if len(columns) > 1 else {}),
        **({"split": " ".join(sorted(config.split))} if config.split else {}),
        "captions": sha256_of(config.captions),
        "images": images,
        "samples_per_shard": str(config.samples_per_shard),
        "format": str(FORMAT_VERSION),
    }


def recorded_source(path: Path) -> dict[str, str] | None:
    """The source in a source.json or index.json; None if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Sourced).source
    except (OSError, ValueError, RecursionError):  # msgspec's are ValueErrors
        return None


def is_finished(config: PackConfig, source: dict[str, str]) -> bool:
    """Whether the folder already holds all shards of this source.

    A finished folder that lost a shard becomes an unfinished one.

    Raises:
        UserError: It holds shards of another source, without --overwrite.
    """
    index = config.out / INDEX_NAME
    if not index.exists():
        return False
    if recorded_source(index) == source:
        try:
            read_index(config.out)
        except UserError as error:
            print(f"pack: {error}; doing that now")
            with suppress(FileNotFoundError):  # another part was faster
                index.replace(config.out / SOURCE_NAME)
            return False
        return True
    if not config.overwrite:
        raise UserError(
            f"{config.out}: holds shards of other captions, images or settings; "
            "choose another --out, or replace them with --overwrite"
        )
    return False


def prepare(out: Path, source: dict[str, str], shared: bool = False) -> bool:
    """Create ``out``, and remove shards of other sources from it.

    Args:
        out: Output folder.
        source: The source of this run.
        shared: Other processes write shards of this source there; nothing is removed.

    Returns:
        Whether there is work; another process may have finished the folder meanwhile.

    Raises:
        UserError: It cannot be created or written, or is shared and holds shards of another source.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    # Listed before the source is read: other parts write source.json before their shards.
    existing = _our_files(out)
    keep = recorded_source(out / SOURCE_NAME) == source
    if shared:
        if keep:
            return True
        if recorded_source(out / INDEX_NAME) == source:
            return False
        if not all(map(is_temporary, existing)):
            raise UserError(
                f"{out}: holds unfinished shards of something else; remove them to begin"
            )
    else:
        (out / INDEX_NAME).unlink(missing_ok=True)
        for path in existing:
            if is_temporary(path) or not keep:
                path.unlink()
    with shard_file(out / SOURCE_NAME) as file:
        file.write(msgspec.json.encode(_Sourced(source)))
    return True


def _our_files(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if _OUR_FILES.fullmatch(path.name))


def leave_no_trace(out: Path) -> None:
    """Remove the folder unless it holds shards or other files."""
    if not _our_files(out):
        (out / SOURCE_NAME).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()


DECODED = 100
"""Images to decode, spread evenly over the captions file."""

NAMED = 5
"""Maximum number of names in a message."""

TAR_BYTES = 2048
"""Upper bound for a sample's two headers and padding."""


class _Found(NamedTuple):
    """Image files of a captions file."""

    folders: ImageFolders
    files: dict[Path, int]
    """File sizes in bytes, in the order of the captions."""
    missing: list[str]
    """Image ids without a file."""
    caption_bytes: int


def check_pack(config: PackConfig) -> str:
    """Check the inputs of packing.

    Returns:
        A line that describes the inputs.

    Raises:
        UserError: All problems in one line: captions or images missing, empty or not decodable,
            too little disk space, a folder of other shards.
    """
    found = _find(config)
    broken, reencoded = _decode_sample(found)
    problems = [*_missing(found), *_empty(found), *broken]
    needed = sum(found.files.values()) + found.caption_bytes + TAR_BYTES * len(found.files)
    state, conflicts = _state(config, found.folders.digest)
    free = _free(config.out)
    if needed > free:
        problems.append(
            f"{config.out}: {_size(needed)} needed, {_size(free)} free; make room or name "
            "another --out"
        )
    problems += conflicts
    if problems:
        raise UserError("; ".join(problems))
    return (
        f"pack: complete: all {len(found.files):,} images of {config.captions} are in "
        f"{found.folders}, {min(DECODED, len(found.files))} of them decoded{reencoded}; about "
        f"{_size(needed)} of shards, {_size(free)} free; {config.out}: {state}"
    )


def _find(config: PackConfig) -> _Found:
    folders = ImageFolders(config.images)
    captions: dict[str, int] = {}
    columns = NegativeColumns(config.negative_columns, config.negative_type)
    for image_id, size in captioned_images(config.captions, columns, config.split):
        if image_id in captions:
            raise UserError(f"{config.captions}: image {image_id} occurs twice")
        captions[image_id] = size
    if not captions:
        raise UserError(f"{config.captions}: holds no captions, so there is nothing to pack")
    files = {image_id: folders.find(image_id) for image_id in captions}
    return _Found(
        folders=folders,
        files={own[0]: own[0].stat().st_size for own in files.values() if own},
        missing=[image_id for image_id, own in files.items() if not own],
        caption_bytes=sum(captions.values()),
    )


def _missing(found: _Found) -> list[str]:
    if not found.missing:
        return []
    images = len(found.files) + len(found.missing)
    return [
        f"{found.folders}: {len(found.missing):,} of {images:,} images missing, e.g. "
        f"{_listed([f'{name}.jpg' for name in found.missing])}; check --images, or get "
        "them (docs/data.md lists sources)"
    ]


def _empty(found: _Found) -> list[str]:
    empty = [path.name for path, size in found.files.items() if size == 0]
    return [f"{found.folders}: {len(empty):,} empty files, e.g. {_listed(empty)}"] if empty else []


def _decode_sample(found: _Found) -> tuple[list[str], str]:
    """Decode a sample of the images; returns problems, and a note on images that are no JPEG."""
    paths = list(found.files)
    count = min(DECODED, len(paths))
    sample = [paths[i * len(paths) // count] for i in range(count)]
    kinds = {path: _decoded(path) for path in sample if found.files[path]}
    broken = [f"{path.name} ({why})" for path, why in kinds.items() if isinstance(why, str)]
    others = sum(kind is False for kind in kinds.values())
    note = f", {others} of which are no JPEG and will be encoded as one" if others else ""
    if not broken:
        return [], note
    return [
        f"{found.folders}: {len(broken)} of {len(sample)} checked images did not decode, e.g. "
        f"{_listed(broken)}; get them again"
    ], note


def _decoded(path: Path) -> bool | str:
    """Whether the file is a JPEG, or the reason why it cannot be decoded."""
    try:
        image = open_image(read_image_file(path))
        as_rgb(image)
    except CorruptImage as error:
        return str(error)
    except OSError as error:
        return str(error.strerror)
    return image.format in JPEG


def _free(out: Path) -> int:
    """Bytes available for shards: free space, and the size of shards already in the folder, which
    are kept or removed first."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    existing = sum(shard.stat().st_size for shard in out.glob("shard-*.tar"))
    return shutil.disk_usage(folder).free + existing


def _state(config: PackConfig, images: str) -> tuple[str, list[str]]:
    """A description of the output folder, and problems with it."""
    out = config.out
    if out.exists() and not out.is_dir():
        return "", [f"{out}: is a file; --out names a folder"]
    shards = len(list(out.glob("shard-*.tar")))
    finished = recorded_source(out / INDEX_NAME)
    unfinished = recorded_source(out / SOURCE_NAME)
    if not shards or (finished or unfinished) is None:
        return "no shards yet", []
    if fingerprint(config, images) != (finished or unfinished):
        if finished and not config.overwrite:
            return "", [
                f"{out}: holds shards of other captions, images or settings; choose another "
                "--out, or replace them with --overwrite"
            ]
        return f"shards of something else, which will be replaced: {shards}", []
    return _finished(out) if finished else f"shards already done: {shards}", []


def _finished(out: Path) -> str:
    try:
        return f"packed already, {counted(read_index(out).samples, 'image')}"
    except UserError as error:
        return f"packed, but {error}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED])


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
