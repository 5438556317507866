"""Rows of lists of captions: COCO, Karpathy's splits, tables, JSON.

    {"images": [{id, file_name}, ...], "annotations": [{image_id, caption}, ...]}     COCO
    {"images": [{filename, split, sentences: [{raw}, ...]}, ...]}                     Karpathy
    filepath,title                                                    a header; also tabs or '|'
    {"image": "a/b.jpg", "caption": "..."}       in lines, in one array, or in one object by number

Tables and rows of JSON may have negatives in further columns. A cell holds one caption, or a list
of captions in Python or JSON syntax, as in NegCLIP and CREPE; only plain string literals are
evaluated. The layout is recognised by content; any file may be gzipped. COCO files, which separate
captions from images, are held in memory; all others are streamed and gathered by image.
"""

import ast
import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ijson
import msgspec

from hnc_ds.errors import UserError
from hnc_ds.reading import ShallowJson, decode_json, lines, parse_json
from hnc_ds.records import NOT_GROUPS

KNOWN = {
    "neg_caption": "negclip",
    "neg_captions": "negclip",
    "hard_negs": "crepe",
    "valid_hard_negs_atom": "crepe_atom",
    "valid_hard_negs_comp": "crepe_comp",
    "negative_caption": "negative",
    "negative_captions": "negative",
    "negative": "negative",
    "negatives": "negative",
    "hard_negative": "negative",
    "hard_negatives": "negative",
    "hard_negative_captions": "negative",
    "false_caption": "negative",
    "foil": "foil",
    "relation_aug_caption": "relation_aug",
    "adj_aug_caption": "adj_aug",
    "noun_aug_caption": "noun_aug",
    "verb_aug_caption": "verb_aug",
}
"""Column -> type, of columns that are recognised as negatives: those of NegCLIP, FSC-CLIP, CREPE,
SugarCrepe, CE-CLIP and others."""

UNUSED = {"neg_image": "cells of neg_image, which are not used"}
"""Columns that are not used, and the reason under which they are counted."""

_NAME = re.compile(r"[\w.+-]{1,64}")
_OPENS = re.compile(r"\[\s*['\"]")
_TEXT = re.compile(r"""\s*((?:'(?:[^'\\]|\\.)*')|(?:"(?:[^"\\]|\\.)*"))\s*(,|\]\s*\Z)""", re.DOTALL)


class NegativeColumns(NamedTuple):
    """Which columns are negatives, by the user's choice; by default those of KNOWN."""

    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """One for each name, or one for all; by default those of KNOWN, else the columns' names."""

    def check(self) -> None:
        """Check the types.

        Raises:
            UserError: A type is not a name or is in NOT_GROUPS, or their number is not that of the
                columns.
        """
        for name in self.types:
            if not _NAME.fullmatch(name):
                raise UserError(
                    f"negative_type '{name}': use letters, digits, '_', '-', '.' or '+'"
                )
            if name in NOT_GROUPS:
                raise UserError(f"negative_type '{name}' is the name of a mean; take another one")
        if len(self.types) > 1 and len(self.types) != len(self.names):
            raise UserError(
                f"negative_type names {len(self.types)} types for {len(self.names)} "
                "--negative_columns; give one for all, or one for each"
            )

    def among(self, columns: Collection[str]) -> dict[str, str]:
        """Type by column, of those that are present. Raises UserError for one of NOT_GROUPS."""
        found = {name: self._type(name) for name in self.names or KNOWN if name in columns}
        if reserved := next((name for name, type_ in found.items() if type_ in NOT_GROUPS), ""):
            raise UserError(
                f"column '{reserved}': as a type of negatives it is the name of a mean; name "
                "another one with --negative_type"
            )
        return found

    def _type(self, name: str) -> str:
        if len(self.types) > 1:
            return self.types[self.names.index(name)]
        return self.types[0] if self.types else KNOWN.get(name, name)


def texts_of(value: Any) -> list[str]:
    """The captions of a cell or JSON value; none of an empty one.

    Raises:
        ValueError: It is neither text nor a list of texts, or a broken list.
    """
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    if value is None:
        return []
    if not isinstance(value, str):
        raise ValueError("neither text nor a list of texts")
    cell = value.strip()
    if cell == "[]" or not cell:
        return []
    return list(_listed(cell)) if _OPENS.match(cell) else [value]


def _listed(cell: str) -> Iterator[str]:
    """The strings of a list in Python or JSON syntax."""
    at, end = 1, ","
    while end == ",":
        if cell[at : at + 9].strip() == "]":  # a trailing comma
            return
        found = _TEXT.match(cell, at)
        if found is None:
            raise ValueError(f"a list that is truncated or not of texts at '{cell[at : at + 40]}'")
        yield _text(found[1])
        at, end = found.end(), found[2]


def _text(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal.replace("\n", "\\n").replace("\r", "\\r")))
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"not a text: {literal[:40]}") from error


IMAGE_COLUMNS = (
    "filepath", "image", "file_name", "filename", "image_path", "image_name", "image_id", "path",
    "image_url", "url",
)  # fmt: skip
CAPTION_LISTS = ("captions", "sentences")
CAPTION_COLUMNS = (
    "caption", "title", "text", "sentence", "comment", "raw", "txt", *CAPTION_LISTS,
)  # fmt: skip
"""The first that is present is used."""

_BOX = frozenset(("x", "y", "width", "height"))
"""Columns of CREPE, whose captions describe a part of the image."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START_BYTES = 1 << 16
LARGEST_COCO = 1 << 28
"""Maximum bytes of a file that is held in memory; COCO's largest has a third of it."""

NO_SPLITS = "has no splits; leave out --split, which is for Karpathy's files and data sets"
HELP = (
    "give COCO's captions, Karpathy's, a CSV or TSV with a header, JSON Lines, parquet, or a "
    "folder of WebDataset tars or of parquet"
)


class Row(NamedTuple):
    """One row of a list: an image with captions."""

    file: str
    """The image's path as in the list, with folders and suffix."""
    captions: tuple[str, ...]
    negatives: tuple[tuple[str, str], ...] = ()
    """(type, caption) of each; they apply to all captions of the row."""


class Read(NamedTuple):
    """How a list is read, and what has been found."""

    path: Path
    negatives: NegativeColumns
    irregular: Counter[str]
    met: set[str]
    """Columns of negatives that occurred."""

    def columns(self, names: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
        """Type by column of negatives."""
        columns = self.negatives.among(names)
        self.met.update(columns)
        return columns


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
    """Whether a file with this start is a list of captions, neither captions.jsonl nor HNC."""
    start = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start[:1] != b"{":
        return True
    is_row = _is_row(start.partition(b"\n")[0], CAPTION_COLUMNS)
    return is_row or _are_members(start) or _ARRAYS.match(start) is not None


_ARRAYS = re.compile(rb'\{\s*"(?:info|licenses|images|annotations|dataset)"\s*:')
"""The first key of COCO's and of Karpathy's files."""


def rows_of(file: BinaryIO, splits: Sequence[str], read: Read) -> Iterator[tuple[Row, str]]:
    """The rows of a list, each with its place for messages.

    Args:
        file: Open at its start.
        splits: Splits of Karpathy's file to read; all when empty.
        read: How to read.

    Raises:
        UserError: Broken, or of unknown layout; splits of a file without splits. Names the place.
    """
    path = read.path
    start = file.read(_START_BYTES).removeprefix(_BYTE_ORDER_MARK)
    file.seek(0)
    first = start.partition(b"\n")[0]
    if b'"sentences"' in start and start.lstrip()[:1] == b"{" and not _is_row(first):
        return _karpathy_rows(file, path, splits)
    if splits:
        raise UserError(f"{path}: {NO_SPLITS}")
    match start.lstrip()[:1]:
        case b"{":
            if _is_row(first):
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
    """Whether a line is the JSON object of one row; with one of the keys, if any are given."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    if not isinstance(found, dict) or "images" in found or _are_members(line):
        return False
    return not wanted or any(name in found for name in wanted)


_MEMBERS = re.compile(
    rb'\s*\{\s*"[^"\\]*"\s*:\s*\{\s*"(?:%s)"\s*:\s*["\[]'
    % "|".join({*IMAGE_COLUMNS, *CAPTION_COLUMNS, *KNOWN}.difference(CAPTION_LISTS)).encode()
)
"""{"0": {"filename": "a.jpg", ...: SugarCrepe's layout. In HNC's an image has "captions"."""


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
        found = parse_json(line, f"{read.path}: {where}", "fix the line", "broken JSON")
        yield _row(_converted(found, dict[str, Any], read.path, where), read, where), where


def _table_rows(file: BinaryIO, read: Read) -> Iterator[tuple[Row, str]]:
    reader: Any = None
    try:
        text = (line.decode() for line in lines(file, read.path))
        header = next(text, "").removeprefix("\ufeff")
        mark = _delimiter(header)
        reader = csv.reader(text, delimiter=mark, strict=True)
        names = next(csv.reader([header], delimiter=mark))
        places: dict[str, int] = {}
        for n, name in enumerate(names):
            key = name.strip().lower()
            if key and key in places:
                raise UserError(f"{read.path}: the column '{key}' occurs twice; remove one")
            places.setdefault(key, n)
        wanted = _columns(list(places), read)
        for cells in reader:
            where = f"line {reader.line_num + 1}"
            # Captions may have line ends, but hardly tabs or bars: these rows are not quoted.
            if mark in "\t|" and any("\n" in cell and mark in cell for cell in cells):
                first = reader.line_num + 1 - sum(cell.count("\n") for cell in cells)
                raise UserError(
                    f"{read.path}: line {first}: a quote opens a cell and none ends it; put the "
                    "cell in quotes, and double the quotes in it"
                )
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
        what = "quotes around part of a cell" if isinstance(error, csv.Error) else "not UTF-8 text"
        raise UserError(
            f"{read.path}: after line {line}: {what} in columns ({error}); {HELP}"
        ) from error


def _delimiter(header: str) -> str:
    return next((mark for mark in "\t|" if mark in header), ";" if "," not in header else ",")


class _Wanted(NamedTuple):
    """The columns to read of a table."""

    image: str
    caption: str
    negatives: dict[str, str]


def _columns(names: Sequence[str], read: Read) -> _Wanted:
    image, caption = (
        next((name for name in known if name in names), None)
        for known in (IMAGE_COLUMNS, CAPTION_COLUMNS)
    )
    if image is None:
        raise missing_column(IMAGE_COLUMNS, names, f"{read.path}: line 1")
    if caption is None:
        raise missing_column(CAPTION_COLUMNS, names, f"{read.path}: line 1")
    return _Wanted(image, caption, read.columns(names))


def missing_column(known: Sequence[str], names: Sequence[str], where: str) -> UserError:
    """The error that a table has none of the columns of images, or of captions."""
    what = "images" if known is IMAGE_COLUMNS else "captions"
    shown = ", ".join(names)[:200]
    return UserError(f"{where}: no column of {what} among '{shown}'; name it {', '.join(known)}")


def _table_row(cells: dict[str, str], wanted: _Wanted, read: Read, where: str) -> Row:
    if any(n not in cells for n in (wanted.image, wanted.caption, *wanted.negatives)):
        raise UserError(f"{read.path}: {where}: fewer columns than the header; fix the line")
    captions = _texts(cells[wanted.caption], wanted.caption, read, where)
    # An empty cell is counted as an empty caption.
    return Row(
        cells[wanted.image], captions or ("",), negatives_of(cells, wanted.negatives, read, where)
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
    return Row(str(image), tuple(captions), negatives_of(found, read.columns(found), read, where))


def negatives_of(
    found: Mapping[str, Any], columns: Mapping[str, str], read: Read, where: str
) -> tuple[tuple[str, str], ...]:
    """(type, caption) of a row's negatives; counts what is not used."""
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
        raise UserError(f"{read.path}: {where}: {name}: {error}; fix the row") from error


def _items(file: BinaryIO, path: Path, prefix: str) -> Iterator[Any]:
    """Elements of a JSON array, or (key, value) of the top level if the prefix is empty; one in
    memory at a time."""
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
