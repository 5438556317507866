"""The rows of lists of captions as people have them: COCO, Karpathy's splits, tables, JSON.

    {"images": [{id, file_name}, ...], "annotations": [{image_id, caption}, ...]}     COCO
    {"images": [{filename, split, sentences: [{raw}, ...]}, ...]}                     Karpathy
    filepath,title                                                    a header; also tabs or '|'
    {"image": "a/b.jpg", "caption": "..."}       in lines, in one array, or in one object by number

Tables and rows of JSON may have negatives in further columns (negative_columns.py). What a file is,
is told by its content; any may be gzipped. COCO's captions lie apart from their images and are held
in memory, all else is streamed, and gathered by image.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ijson
import msgspec

from hnc_ds.captions.formats.gathered import Row
from hnc_ds.captions.formats.negative_columns import KNOWN, UNUSED, NegativeColumns, texts_of
from hnc_ds.errors import UserError
from hnc_ds.reading import ShallowJson, decode_json, lines, parse_json

IMAGE_COLUMNS = (
    "filepath", "image", "file_name", "filename", "image_path", "image_name", "image_id", "path",
)  # fmt: skip
CAPTION_COLUMNS = ("caption", "title", "text", "sentence", "comment", "raw")
"""The first that is there counts."""

_BOX = frozenset(("x", "y", "width", "height"))
"""Columns of CREPE's, whose captions are of a part of the image."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START_BYTES = 1 << 16
LARGEST_COCO = 1 << 28
"""Bytes of a file that is held in memory; COCO's largest has a third."""

HELP = "give COCO's captions, Karpathy's, a CSV or TSV with a header, or JSON Lines"


class Read(NamedTuple):
    """How a list is read, and what is met."""

    path: Path
    negatives: NegativeColumns
    irregular: Counter[str]
    needs_negatives: bool
    met: set[str]
    """Columns of negatives that were there."""

    def columns(self, names: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
        """Those of negatives, with their types."""
        found = self.negatives.among(names)
        self.met.update(found)
        return found


class _CocoImage(msgspec.Struct):
    id: int
    file_name: str


class _CocoCaption(msgspec.Struct):
    image_id: int
    caption: str


class _Coco(msgspec.Struct):
    images: list[_CocoImage]
    annotations: list[_CocoCaption]


class _Sentence(msgspec.Struct):
    raw: str


class _KarpathyImage(msgspec.Struct):
    filename: str
    sentences: list[_Sentence]
    split: str = ""


def is_list(start: bytes) -> bool:
    """Whether a file that starts so is a list of captions, and none of captions.jsonl or HNC."""
    start = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start[:1] != b"{":
        return True
    return _are_members(start) or _is_row(start.partition(b"\n")[0], CAPTION_COLUMNS)


def rows_of(file: BinaryIO, splits: Sequence[str], read: Read) -> Iterator[tuple[Row, str]]:
    """The rows of a list, each with where it stands.

    Args:
        file: Open at its start.
        splits: Of Karpathy's file, those that are read; all when empty.
        read: How.

    Raises:
        UserError: Broken, or of no known layout; splits where there are none. Names the place.
    """
    path = read.path
    start = file.read(_START_BYTES).removeprefix(_BYTE_ORDER_MARK)
    file.seek(0)
    if b'"sentences"' in start and start.lstrip()[:1] == b"{":
        return _karpathy_rows(file, path, splits)
    if splits:
        raise UserError(f"{path}: has no splits; leave out --split, which is for Karpathy's files")
    match start.lstrip()[:1]:
        case b"{":
            if _is_row(start.partition(b"\n")[0]):
                return _json_lines(file, read)
            if _are_members(start):
                return _member_rows(file, read)
            return _coco_rows(file, path, read.irregular)
        case b"[":
            return _array_rows(file, read)
        case b"":
            raise UserError(f"{path}: empty; {HELP}")
    return _table_rows(file, read)


def _is_row(line: bytes, wanted: Sequence[str] = ()) -> bool:
    """Whether a line is an object that is no file of its own; with one of the keys, if any."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    if not isinstance(found, dict) or "images" in found or _are_members(line):
        return False
    return not wanted or any(name in found for name in wanted)


_MEMBERS = re.compile(
    rb'\s*\{\s*"[^"\\]*"\s*:\s*\{\s*"(?:%s)"\s*:\s*["\[]'
    % "|".join((*IMAGE_COLUMNS, *CAPTION_COLUMNS, *KNOWN)).encode()
)
"""{"0": {"filename": "a.jpg", ... : SugarCrepe's."""


def _are_members(start: bytes) -> bool:
    return _MEMBERS.match(start) is not None


def _coco_rows(file: BinaryIO, path: Path, irregular: Counter[str]) -> Iterator[tuple[Row, str]]:
    content = file.read(LARGEST_COCO + 1).removeprefix(_BYTE_ORDER_MARK)
    if len(content) > LARGEST_COCO:
        raise UserError(f"{path}: has more than {LARGEST_COCO >> 20} MiB; {HELP}")
    coco = decode_json(content, _Coco, path, HELP, "not captions in COCO's layout")
    captions: dict[int, list[str]] = {image.id: [] for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id in captions:
            captions[annotation.image_id].append(annotation.caption)
        else:
            irregular["captions of images that are not listed"] += 1
    for number, image in enumerate(coco.images):
        if not captions[image.id]:
            irregular["images without captions"] += 1
        yield Row(image.file_name, tuple(captions[image.id])), f"images[{number}]"


def _karpathy_rows(file: BinaryIO, path: Path, splits: Sequence[str]) -> Iterator[tuple[Row, str]]:
    met: set[str] = set()
    for number, item in enumerate(_items(file, path, "images.item")):
        where = f"images[{number}]"
        image = _converted(item, _KarpathyImage, path, where)
        met.add(image.split)
        if not splits or image.split in splits:
            yield Row(image.filename, tuple(s.raw for s in image.sentences)), where
    if absent := sorted(set(splits) - met):
        raise UserError(
            f"{path}: split '{absent[0]}' has no images; there are {', '.join(sorted(met))}"
        )


def _array_rows(file: BinaryIO, read: Read) -> Iterator[tuple[Row, str]]:
    for number, item in enumerate(_items(file, read.path, "item")):
        where = f"element {number}"
        yield _row(_converted(item, dict[str, Any], read.path, where), read, where), where


def _member_rows(file: BinaryIO, read: Read) -> Iterator[tuple[Row, str]]:
    for name, item in _items(file, read.path, ""):
        where = f"member {name[:40]!r}"
        yield _row(_converted(item, dict[str, Any], read.path, where), read, where), where


def _json_lines(file: BinaryIO, read: Read) -> Iterator[tuple[Row, str]]:
    for number, line in enumerate(lines(file, read.path), start=1):
        if line.isspace():
            continue
        where = f"line {number}"
        found = parse_json(line, f"{read.path}: {where}", "mend the line", "broken JSON")
        yield _row(_converted(found, dict[str, Any], read.path, where), read, where), where


def _table_rows(file: BinaryIO, read: Read) -> Iterator[tuple[Row, str]]:
    reader: Any = None
    try:
        text = (line.decode() for line in lines(file, read.path))
        header = next(text, "").removeprefix("\ufeff")
        reader = csv.reader(text, delimiter=_delimiter(header), strict=True)
        names = next(csv.reader([header], delimiter=_delimiter(header)))
        places: dict[str, int] = {}
        for n, name in enumerate(names):
            key = name.strip().lower()
            if key and key in places:
                raise UserError(f"{read.path}: the column '{key}' stands twice; remove one")
            places.setdefault(key, n)
        wanted = _columns(list(places), read)
        for cells in reader:
            where = f"line {reader.line_num + 1}"
            if any(cells[len(names) :]):
                raise UserError(
                    f"{read.path}: {where}: more columns than the header; put quotes around "
                    "captions that hold a comma"
                )
            if cells:
                found = {name: cells[n] for name, n in places.items() if n < len(cells)}
                yield _table_row(found, wanted, read, where), where
    except (csv.Error, UnicodeDecodeError) as error:
        line = reader.line_num + 1 if reader else 0
        raise UserError(
            f"{read.path}: after line {line}: not UTF-8 text in columns ({error}); {HELP}"
        ) from error


def _delimiter(header: str) -> str:
    return next((mark for mark in "\t|" if mark in header), ";" if "," not in header else ",")


class _Wanted(NamedTuple):
    """The columns of a table that are read."""

    image: str
    caption: str
    negatives: dict[str, str]


def _columns(names: Sequence[str], read: Read) -> _Wanted:
    image, caption = (
        next((name for name in known if name in names), None)
        for known in (IMAGE_COLUMNS, CAPTION_COLUMNS)
    )
    if image is None or caption is None:
        missing, known = (
            ("images", IMAGE_COLUMNS) if image is None else ("captions", CAPTION_COLUMNS)
        )
        shown = ", ".join(names)[:200]
        raise UserError(
            f"{read.path}: line 1: no column of {missing} among '{shown}'; "
            f"name it {', '.join(known)}"
        )
    return _Wanted(image, caption, read.columns(names))


def _table_row(cells: dict[str, str], wanted: _Wanted, read: Read, where: str) -> Row:
    if any(n not in cells for n in (wanted.image, wanted.caption, *wanted.negatives)):
        raise UserError(f"{read.path}: {where}: fewer columns than the header; mend the line")
    captions = _texts(cells[wanted.caption], wanted.caption, read, where)
    # An empty cell is counted as an empty caption.
    return Row(
        cells[wanted.image], captions or ("",), _negatives(cells, wanted.negatives, read, where)
    )


def _row(found: dict[str, Any], read: Read, where: str) -> Row:
    image = next((found[name] for name in IMAGE_COLUMNS if name in found), None)
    caption = next((found[name] for name in CAPTION_COLUMNS if name in found), None)
    captions: list[Any] = caption if isinstance(caption, list) else [caption]
    if not isinstance(image, str | int) or not all(isinstance(text, str) for text in captions):
        raise UserError(
            f"{read.path}: {where}: needs an image ({', '.join(IMAGE_COLUMNS)}) and a caption "
            f"({', '.join(CAPTION_COLUMNS)}), both as text"
        )
    return Row(str(image), tuple(captions), _negatives(found, read.columns(found), read, where))


def _negatives(
    found: Mapping[str, Any], columns: Mapping[str, str], read: Read, where: str
) -> tuple[tuple[str, str], ...]:
    """(type, caption) of a row's; and what of it is not used is counted."""
    read.irregular.update(what for name, what in UNUSED.items() if found.get(name))
    if columns and found.keys() >= _BOX:
        read.irregular["captions of a part of an image (x, y, width, height)"] += 1
    return tuple(
        (type_, text)
        for name, type_ in columns.items()
        for text in _texts(found[name], name, read, where)
    )


def _texts(value: Any, name: str, read: Read, where: str) -> tuple[str, ...]:
    try:
        return tuple(texts_of(value))
    except ValueError as error:
        raise UserError(f"{read.path}: {where}: {name}: {error}; mend the row") from error


def _items(file: BinaryIO, path: Path, prefix: str) -> Iterator[Any]:
    """Elements of a JSON array, or (key, value) of the top level without a prefix; one in memory at
    a time."""
    count = 0
    try:
        shallow = ShallowJson(file, path, prefix.count(".") + 1)
        items = ijson.items if prefix else ijson.kvitems
        for item in items(shallow, prefix, use_float=True, map_type=shallow.map_type):
            yield item
            count += 1
    except (ijson.JSONError, UnicodeError, OverflowError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: after {count} elements: truncated or broken JSON ({reason}); copy it again"
        ) from error


def _converted(item: Any, type_: Any, path: Path, where: str) -> Any:
    try:
        return msgspec.convert(item, type_)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {where}: {error}; {HELP}") from error
