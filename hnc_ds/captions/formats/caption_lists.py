"""Read lists of captions: images with all their captions, and negatives if the list has some.

caption_rows.py reads the layouts of files, archive_rows.py those of tars and parquet. Rows of one
image need not be adjacent: an external sort by the first row of the image gathers them in bounded
memory. What exceeds MOST_HELD bytes goes to unnamed temporary files, which are merged at the end.
"""

import heapq
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import msgspec

from hnc_ds.archives import digest_of, find_archives, is_archive
from hnc_ds.captions.formats.archive_rows import archive_rows
from hnc_ds.captions.formats.caption_rows import HELP, NegativeColumns, Read, Row, rows_of
from hnc_ds.errors import UserError
from hnc_ds.images import SUFFIXES
from hnc_ds.reading import open_unzipped, sha256_of
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

MOST_HELD = 1 << 26


class _Placed(NamedTuple):
    image: int
    """Rank of the image by its first row."""
    row: int
    content: bytes


def gathered(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(image id, all its rows) of every image, in the order in which images first appear.

    An id is the file name without folder and suffix, preceded by as many folders as are needed to
    distinguish files of one name.

    Raises:
        UserError: No room for temporary files.
    """
    places: dict[str, int] = {}
    with _Sorter() as sorter:
        for number, row in enumerate(rows):
            image = places.setdefault(path_of(row.file), len(places))
            sorter.add(_Placed(image, number, msgspec.msgpack.encode(row)))
        ids = _ids(places)
        for image, group in groupby(sorter.sorted(), key=lambda placed: placed.image):
            yield ids[image], [msgspec.msgpack.decode(placed.content, type=Row) for placed in group]


def path_of(file: str) -> str:
    """'a\\b\\9.JPG' -> 'a/b/9', without '..'; of a URL without its query."""
    file = file.partition("?")[0] if "://" in file else file
    parts = PurePosixPath(file.strip().replace("\\", "/")).parts
    path = "/".join(part for part in parts if part not in ("/", ".."))
    suffix = suffix_of(path)
    return path[: -len(suffix)] if suffix and path != suffix else path


def suffix_of(file: str) -> str:
    """'.JPG' of 'b/9.JPG', of a URL too; empty if it is none of an image."""
    file = file.partition("?")[0] if "://" in file else file
    _, dot, suffix = file.strip().rpartition(".")
    return dot + suffix if f".{suffix.lower()}" in SUFFIXES else ""


def _ids(paths: Iterable[str]) -> list[str]:
    """The shortest ends of the paths that are unique."""
    of_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        of_name[path.rpartition("/")[2]].append(path)
    ids: dict[str, str] = {}
    for name, alike in of_name.items():
        ids.update([(alike[0], name)] if len(alike) == 1 else _unique_ends(alike))
    return [ids[path] for path in paths]


def _unique_ends(paths: list[str]) -> Iterator[tuple[str, str]]:
    length, ends = 1, [""]
    while len(set(ends)) < len(paths):
        length += 1
        ends = ["/".join(path.split("/")[-length:]) for path in paths]
    return zip(paths, ends, strict=True)


class _Sorter:
    """An external merge sort."""

    def __init__(self) -> None:
        self._held: list[_Placed] = []
        self._bytes = 0
        self._files: list[BinaryIO] = []

    def __enter__(self) -> "_Sorter":
        return self

    def __exit__(self, *reason: object) -> None:
        for file in self._files:
            file.close()

    def add(self, placed: _Placed) -> None:
        """Add one row."""
        self._held.append(placed)
        self._bytes += len(placed.content) + 150  # overhead of the Python objects
        if self._bytes > MOST_HELD:
            self._put_aside()

    def sorted(self) -> Iterator[_Placed]:
        """All rows, in order."""
        self._held.sort()
        return heapq.merge(*map(_read, self._files), self._held)

    def _put_aside(self) -> None:
        self._held.sort()
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115, closed by __exit__
            self._files.append(file)
            for placed in self._held:
                content = msgspec.msgpack.encode(placed)
                file.write(len(content).to_bytes(4, "big") + content)
            file.flush()
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no room for temporary files ({error.strerror}); set "
                "TMPDIR to another folder"
            ) from error
        self._held, self._bytes = [], 0


def _read(file: BinaryIO) -> Iterator[_Placed]:
    file.seek(0)
    while size := file.read(4):
        yield msgspec.msgpack.decode(file.read(int.from_bytes(size, "big")), type=_Placed)


GROUP_TYPE = "caption"
"""Type of caption groups from lists."""


class ListedImage(NamedTuple):
    """An image and its captions."""

    image_id: str
    """Its file name without folder and suffix."""
    captions: tuple[str, ...]
    """Unique, with single spaces."""
    negatives: tuple[tuple[Negative, ...], ...]
    """The list's negatives of each caption; none is proven false."""


def read_caption_list(
    path: Path,
    splits: Sequence[str],
    irregular: Counter[str],
    negatives: NegativeColumns = NegativeColumns(),  # noqa: B008, a constant
) -> Iterator[ListedImage]:
    """The images of a list with all their captions, in the order of their first rows.

    Args:
        path: The file; or archives, as in ``is_archive``.
        splits: Splits to read of Karpathy's file or of archives; all when empty.
        irregular: Receives counts of what is left out, by reason.
        negatives: Columns of negatives.

    Raises:
        UserError: Missing, broken, or of unknown layout; splits or columns that the file does not
            have. The message names file and place.
    """
    negatives.check()
    read = Read(path, negatives, irregular, set())
    for image_id, rows in gathered(_named(_rows(splits, read), read)):
        if len({suffix_of(row.file) for row in rows}) > 1:
            irregular["images named with several suffixes (1.jpg, 1.png), taken as one"] += 1
        if image := _listed(image_id, rows, irregular):
            yield image
        elif not is_archive(path) and not any(row.captions for row in rows):
            irregular["images without captions"] += 1


def _rows(splits: Sequence[str], read: Read) -> Iterator[tuple[Row, str]]:
    if is_archive(read.path):
        yield from archive_rows(splits, read)
        return
    check_is_list(read.path)
    with open_unzipped(read.path) as file:
        yield from rows_of(file, splits, read)


def check_is_list(path: Path) -> None:
    """Check that a list of captions exists.

    Raises:
        UserError: There is no such file; no archives of that name.
    """
    if is_archive(path):
        find_archives(path)
    elif not path.is_file():
        raise UserError(f"{path}: no such file; {HELP}")


def digest_of_captions(path: Path) -> str:
    """sha256 of a file of captions; of archives see ``digest_of``.

    Raises:
        UserError: It cannot be read.
    """
    return digest_of(find_archives(path)[1]) if is_archive(path) else sha256_of(path)


def read_listed_groups(
    path: Path, negatives: NegativeColumns, splits: Sequence[str] = ()
) -> Iterator[ImageCaptions]:
    """The images of a list as in captions.jsonl; captions without negatives have none. Prints a
    summary at the end.

    Args and errors as ``read_caption_list``.
    """
    irregular: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for image in read_caption_list(path, splits, irregular, negatives):
        types.update(negative.type for own in image.negatives for negative in own)
        pairs = zip(image.captions, image.negatives, strict=True)
        groups = (CaptionGroup(caption, GROUP_TYPE, own) for caption, own in pairs)
        yield ImageCaptions(image.image_id, tuple(groups))
    parts = [f"{count:,} of type {name}" for name, count in sorted(types.items())]
    parts = parts or ["none (--negative_columns names their columns)"]
    parts += [f"{count:,} {what}" for what, count in sorted(irregular.items())]
    print(f"{path}: negatives that are not proven false: {', '.join(parts)}")


def plain(caption: str) -> str:
    """A caption without differences of case and final punctuation."""
    return caption.casefold().rstrip(" .!")


def _named(rows: Iterator[tuple[Row, str]], read: Read) -> Iterator[Row]:
    for row, where in rows:
        if not path_of(row.file):
            raise UserError(f"{read.path}: {where}: no image is named; fix the row")
        yield row
    if absent := [name for name in read.negatives.names if name not in read.met]:
        raise UserError(f"{read.path}: no row has a column '{absent[0]}' (--negative_columns)")


def _listed(image_id: str, rows: Sequence[Row], irregular: Counter[str]) -> ListedImage | None:
    """The unique captions of an image with their negatives; None if it has no caption."""
    captions: dict[str, dict[str, Negative]] = {}
    for row in rows:
        false = [(type_, " ".join(text.split())) for type_, text in row.negatives]
        for text in row.captions:
            own = captions.setdefault(" ".join(text.split()), {})
            own.update({n: Negative(n, t, open_world=True) for t, n in false if n and n not in own})
    if "" in captions:
        irregular["images with an empty caption"] += 1
        del captions[""]
    if not captions:
        return None
    # Other captions of the image are true of it.
    true = {plain(caption) for caption in captions}
    kept = [[n for n in own.values() if plain(n.caption) not in true] for own in captions.values()]
    if dropped := sum(map(len, captions.values())) - sum(map(len, kept)):
        irregular["negatives that are a true caption of their image"] += dropped
    return ListedImage(image_id, tuple(captions), tuple(map(tuple, kept)))
