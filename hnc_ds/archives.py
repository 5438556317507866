"""Images that lie in one file with others, and the texts beside them. No torch here.

    00000.tar                          WebDataset: KEY.jpg, KEY.txt, KEY.json, as of img2dataset
    train-00000-of-00004.parquet       rows with an image, and Arrow files of ``save_to_disk``

An image is addressed by its place, a range of bytes or a row and a column, so that any process
reads it alone. It is named as if its archive were a folder: 00000/KEY.jpg. Nothing is unpacked to a
disk, and nothing is decoded but texts, JSON and images.
"""

import glob
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from hnc_ds.arrow_tables import ARROW, PARQUET, Table, table_image
from hnc_ds.errors import UserError
from hnc_ds.images import MOST_FILE_BYTES, SUFFIXES, TOO_LARGE, CorruptImage
from hnc_ds.reading import AGAIN, LONGEST_LINE, read_json, reading

TAR = ".tar"
KINDS = (TAR, PARQUET, ARROW)
"""Suffixes of archives. A folder is read as the first kind that it holds: img2dataset writes a
parquet file without images beside each tar."""
PACKED = (".tar.gz", ".tgz")
"""Refused: their images cannot be read by place, and hardly shrink."""


class Archive(NamedTuple):
    """A file that holds images."""

    path: Path
    name: str
    """Its path below the folder of all archives, without suffix."""


class Held(NamedTuple):
    """An image in an archive."""

    path: Path
    """The archive."""
    name: str
    """Path of the image, as if the archive were a folder."""
    start: int
    """Offset of its bytes in a tar, its row in a table."""
    size: int
    """Bytes; in a table the mean of its rows."""
    column: str = ""
    """Column of a table; empty in a tar."""

    def __str__(self) -> str:
        return f"{self.path} ({PurePosixPath(self.name).name})"


class Sample(NamedTuple):
    """One sample of a tar, or one row of a table."""

    name: str
    """Path of its image, as in Held; empty in a table without images."""
    image: Held | None
    fields: dict[str, Any]
    """KEY.json with KEY.txt as 'caption', or the columns of texts; by names in lower case."""
    broken: str = ""
    """What is wrong with its texts."""


def is_archive(named: Path) -> bool:
    """Whether a path names archives: one, a folder of them, or a pattern as webdataset's.

    a/{00..31}.tar and a.tar::b.tar keep their order; the files of a/*.tar are sorted.
    """
    return named.is_dir() or named.name.endswith((*KINDS, *PACKED)) or _is_pattern(named)


def _is_pattern(named: Path) -> bool:
    return any(mark in str(named) for mark in ("*", "?", "[", "{", "::")) and not named.exists()


def find_archives(named: Path, splits: Sequence[str] = ()) -> tuple[Path, list[Archive]]:
    """The folder of all archives of a name, and the archives, in the order of reading.

    Args:
        named: As in ``is_archive``.
        splits: If files are named by splits, those of these splits alone.

    Raises:
        UserError: There are none, or one does not exist.
    """
    paths = _in_folder(named) if named.is_dir() else _expanded(named)
    if not paths:
        raise UserError(
            f"{named}: no WebDataset tars, parquet or Arrow files here; name a file of captions, "
            "or a folder or pattern of such files"
        )
    if absent := next((path for path in paths if not path.is_file()), None):
        raise UserError(f"{absent}: no such file")
    if other := next((path for path in paths if path.suffix not in KINDS), None):
        raise UserError(f"{other}: not a .tar, .parquet or .arrow file; unpack a compressed one")
    absolute = [Path(os.path.abspath(path)) for path in paths]
    root = Path(os.path.abspath(named))
    if not named.is_dir():
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    names = [path.relative_to(root).with_suffix("").as_posix() for path in absolute]
    found = list(map(Archive, paths, names))
    return root, [one for one in found if split_names(one) & set(splits)] or found


def split_names(archive: Archive) -> set[str]:
    """What may name its split: train/0.arrow, data/train-00000-of-00004.parquet."""
    *folders, name = archive.name.split("/")
    return {*folders, name.partition("-")[0]}


def _in_folder(folder: Path) -> list[Path]:
    """The archives of a folder and of those below it, all of one kind, sorted."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in KINDS and path.is_file()]
    files = [path for path in files if not _is_hidden(path.relative_to(folder)) and _is_own(path)]
    kinds = ([path for path in files if path.suffix == kind] for kind in KINDS)
    return next(filter(None, kinds), [])


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_own(path: Path) -> bool:
    """Whether state.json of ``save_to_disk``, if there is one, lists it; caches lie beside."""
    state = path.with_name("state.json")
    if path.suffix != ARROW or not state.is_file():
        return True
    found = read_json(state)
    listed = found.get("_data_files") if isinstance(found, dict) else None
    return not isinstance(listed, list) or {"filename": path.name} in listed


def _expanded(named: Path) -> list[Path]:
    """The files of a pattern; of a file itself."""
    if not _is_pattern(named):
        return [named]
    from webdataset.shardlists import expand_urls

    found: list[Path] = []
    for path in map(Path, expand_urls(str(named))):
        matches = sorted(glob.glob(str(path))) if _is_pattern(path) else [str(path)]
        found += map(Path, matches)
    return found


def digest_of(archives: Sequence[Archive]) -> str:
    """sha256 of the names, sizes and times of archives; of their bytes it would read all images.

    Raises:
        UserError: One cannot be read.
    """
    found = hashlib.sha256()
    for path, name in archives:
        with reading(path):
            status = path.stat()
        found.update(os.fsencode(f"{name}{path.suffix}"))
        found.update(f"/{status.st_size}/{status.st_mtime_ns}\n".encode())
    return found.hexdigest()


def samples(archive: Archive, texts: bool) -> Iterator[Sample]:
    """The samples of an archive in their order, one in memory at a time.

    Args:
        archive: From ``find_archives``.
        texts: Whether to read texts as well as the images' places.

    Raises:
        UserError: The archive is damaged, ends too early, has a member that leads out of it, or
            needs pyarrow, which is not installed.
    """
    read = _tar_samples if archive.path.suffix == TAR else _table_samples
    return read(archive, texts)


def read_held(image: Held) -> bytes | None:
    """The bytes of an image; None if its row has none.

    Raises:
        CorruptImage: It is too large for an image.
        OSError, UserError: The archive cannot be read, or is damaged.
    """
    if image.column:
        return table_image(image.path, image.start, image.column)
    return _bytes_at(image.path, image.name, image.start, image.size)


def leads_out(name: str) -> bool:
    """Whether a file name leads out of its folder."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def member_bytes(path: Path, name: str) -> bytes:
    """Content of a file in a tar.

    Raises:
        ValueError: There is no such file.
        CorruptImage: It is too large for an image.
        OSError, UserError: The tar cannot be read.
    """
    if name not in (members := tar_members(path)):
        raise ValueError(f"{path}: has no {name}")
    return _bytes_at(path, name, *members[name])


def _bytes_at(path: Path, name: str, start: int, size: int) -> bytes:
    if size > MOST_FILE_BYTES:
        gigabytes = f"{size / 1e9:.1f} GB"
        raise CorruptImage(f"{path}: {name} has {gigabytes}, too large for an image", TOO_LARGE)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


Places = dict[str, tuple[int, int]]
"""Offset and bytes, by name or by suffix."""


@lru_cache(maxsize=64)
def tar_members(path: Path) -> Places:
    """Offset and bytes of every file in a tar, by name.

    Raises:
        UserError: The tar is damaged, ends too early, or repeats a name.
    """
    found: Places = {}
    with reading(path), tarfile.open(path, "r:") as tar, path.open("rb") as file:
        for member in tar:
            if member.isreg() and not member.issparse():
                if member.name in found:
                    raise UserError(f"{path}: {member.name} occurs twice; {AGAIN}")
                found[member.name] = (member.offset_data, member.size)
        file.seek(tar.offset)  # tarfile takes a damaged header for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise UserError(f"{path}: truncated or broken after {len(found):,} files; {AGAIN}")
    return found


def _tar_samples(archive: Archive, texts: bool) -> Iterator[Sample]:
    with archive.path.open("rb") as file:
        for key, parts in _by_key(archive.path):
            kind = next((suffix[1:] for suffix in SUFFIXES if suffix[1:] in parts), "")
            name = f"{archive.name}/{key}.{kind or 'jpg'}"
            image = Held(archive.path, name, *parts[kind]) if kind else None
            sample = Sample(name, image, {})
            yield _with_texts(sample, file, parts) if texts else sample


def _by_key(path: Path) -> Iterator[tuple[str, Places]]:
    """(key, places by suffix in lower case) of each sample, as webdataset groups a tar's files."""
    from webdataset.tariterators import group_by_keys

    members = tar_members(path)
    if outside := next(filter(leads_out, members), None):
        raise UserError(
            f"{path}: the member '{outside}' leads out of the folder; make the tar without it"
        )
    files = (
        {"fname": _below(name), "data": place, "__url__": ""}
        for name, place in members.items()
        if not name.startswith("__")  # webdataset's own
    )
    with reading(path, by="webdataset"):
        for sample in group_by_keys(files):
            key, _ = sample.pop("__key__"), sample.pop("__url__")
            yield key, sample


def _with_texts(sample: Sample, file: BinaryIO, parts: Places) -> Sample:
    """The sample with its KEY.json and KEY.txt."""
    try:
        fields = json.loads(_content(file, parts["json"])) if "json" in parts else {}
        fields = {name.lower(): value for name, value in fields.items()}
        if "txt" in parts:
            fields["caption"] = _content(file, parts["txt"]).decode("utf-8-sig")
        json.dumps(fields, ensure_ascii=False).encode()  # half a character has no UTF-8
    except (ValueError, AttributeError, RecursionError) as error:
        return sample._replace(broken=str(error))
    return sample._replace(fields=fields)


def _content(file: BinaryIO, place: tuple[int, int]) -> bytes:
    start, size = place
    if size > LONGEST_LINE:
        raise ValueError(f"more than {LONGEST_LINE >> 20} MiB of text")
    file.seek(start)
    return file.read(size)


NAMES = ("filepath", "file_name", "filename", "image_path", "image_name", "image_id", "path", "key")
"""Columns that name the images of a table, by precedence. Rows of one name are of one image."""


def _table_samples(archive: Archive, texts: bool) -> Iterator[Sample]:
    """A row of a table that names no images is named by its file and its number."""
    path, stem = archive.path, archive.name.rpartition("/")[2]
    table = Table(path, path.name)
    columns = {name.lower(): name for name in table.texts()}
    named = next((columns[name] for name in NAMES if name in columns), "")
    size = path.stat().st_size // max(table.rows, 1)
    wanted = list(columns.values()) if texts else [named] if named else []
    for row, found in enumerate(table.read(wanted)):
        fields = {name.lower(): value for name, value in found.items()}
        if not table.image:
            yield Sample("", None, fields)
            continue
        own = _below(found.get(named)) or f"{stem}-{row}"
        image = Held(path, f"{archive.name}/{own}", row, size, table.image)
        yield Sample(image.name, image, fields)


def _below(value: Any) -> str:
    """A name as a path that leads nowhere upwards; empty if there is none."""
    name = "" if value is None else str(value).strip().replace("\\", "/")
    parts = PurePosixPath(name).parts
    return "/".join(part for part in parts if part not in ("/", ".."))
