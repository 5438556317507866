"""Read lists of captions as people have them: COCO, Karpathy's splits, CSV or TSV, JSON Lines.

    {"images": [{id, file_name}, ...], "annotations": [{image_id, caption}, ...]}     COCO
    {"images": [{filename, split, sentences: [{raw}, ...]}, ...]}                     Karpathy
    filepath,title                                                    a header; also tabs or '|'
    {"image": "a/b.jpg", "caption": "..."}                     in lines, or in one array

What a file is, is told by its content; any may be gzipped. COCO's captions lie apart from their
images and are held in memory, all else is streamed.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import ijson
import msgspec

from hnc_ds.captions.formats.gzipped import open_unzipped
from hnc_ds.errors import UserError
from hnc_ds.reading import ShallowJson, decode_json, lines, parse_json

IMAGE_COLUMNS = (
    "filepath", "image", "file_name", "filename", "image_path", "image_name", "image_id", "path",
)  # fmt: skip
CAPTION_COLUMNS = ("caption", "title", "text", "sentence", "comment", "raw")
"""The first that is there counts."""

_IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START_BYTES = 1 << 16
LARGEST_COCO = 1 << 28
"""Bytes of a file that is held in memory; COCO's largest has a third."""

_HELP = "give COCO's captions, Karpathy's, a CSV or TSV with a header, or JSON Lines"


class ListedImage(NamedTuple):
    """An image and its captions."""

    image_id: str
    """Its file name without folder and suffix."""
    captions: tuple[str, ...]
    """With single spaces, each once."""


class _Row(NamedTuple):
    file: str
    captions: tuple[str, ...]
    where: str


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


def read_caption_list(
    path: Path, splits: Sequence[str], irregular: Counter[str]
) -> Iterator[ListedImage]:
    """The images of a list with their captions, in file order.

    Args:
        path: The file.
        splits: Of Karpathy's file, those that are read; all when empty.
        irregular: Is told what was left out, and why.

    Raises:
        UserError: Missing, broken, or of no known layout; splits where the file has none; an image
            whose rows lie apart. Names file and place.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_HELP}")
    with open_unzipped(path) as file:
        yield from _grouped(_rows(file, path, splits, irregular), path, irregular)


def _rows(
    file: BinaryIO, path: Path, splits: Sequence[str], irregular: Counter[str]
) -> Iterator[_Row]:
    start = file.read(_START_BYTES).removeprefix(_BYTE_ORDER_MARK)
    file.seek(0)
    if b'"sentences"' in start and start.lstrip()[:1] == b"{":
        return _karpathy_rows(file, path, splits)
    if splits:
        raise UserError(f"{path}: has no splits; leave out --split, which is for Karpathy's files")
    match start.lstrip()[:1]:
        case b"{":
            lines = _is_row(start.partition(b"\n")[0])
            return _json_lines(file, path) if lines else _coco_rows(file, path, irregular)
        case b"[":
            return _array_rows(file, path)
        case b"":
            raise UserError(f"{path}: empty; {_HELP}")
    return _table_rows(file, path)


def _is_row(line: bytes) -> bool:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return isinstance(found, dict) and "images" not in found


def _grouped(rows: Iterable[_Row], path: Path, irregular: Counter[str]) -> Iterator[ListedImage]:
    """Neighbouring rows of one image as one."""
    known: set[str] = set()
    for file, group in groupby(rows, key=lambda row: row.file):
        image_id, captions = image_id_of(file), dict[str, None]()
        for row in group:
            if not captions and (image_id in known or not image_id):
                raise UserError(f"{path}: {row.where}: {_fault(image_id)}")
            for text in row.captions:
                captions[" ".join(text.split())] = None
        known.add(image_id)
        if "" in captions:
            irregular["images with an empty caption"] += 1
            del captions[""]
        if captions:
            yield ListedImage(image_id, tuple(captions))


def _fault(image_id: str) -> str:
    if not image_id:
        return "no image is named; mend the row"
    return (
        f"image '{image_id}' has captions further above, too; sort the rows by image, and give no "
        "two files one name"
    )


def image_id_of(file: str) -> str:
    """'train2017/000000000009.jpg' -> '000000000009'."""
    name = PurePosixPath(file.strip().replace("\\", "/")).name
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in _IMAGE_SUFFIXES else name


def _coco_rows(file: BinaryIO, path: Path, irregular: Counter[str]) -> Iterator[_Row]:
    content = file.read(LARGEST_COCO + 1).removeprefix(_BYTE_ORDER_MARK)
    if len(content) > LARGEST_COCO:
        raise UserError(f"{path}: has more than {LARGEST_COCO >> 20} MiB; {_HELP}")
    coco = decode_json(content, _Coco, path, _HELP, "not captions in COCO's layout")
    captions: dict[int, list[str]] = {image.id: [] for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id in captions:
            captions[annotation.image_id].append(annotation.caption)
        else:
            irregular["captions of images that are not listed"] += 1
    for number, image in enumerate(coco.images):
        if not captions[image.id]:
            irregular["images without captions"] += 1
        yield _Row(image.file_name, tuple(captions[image.id]), f"images[{number}]")


def _karpathy_rows(file: BinaryIO, path: Path, splits: Sequence[str]) -> Iterator[_Row]:
    met: set[str] = set()
    for number, item in enumerate(_items(file, path, "images.item")):
        where = f"images[{number}]"
        image = _converted(item, _KarpathyImage, path, where)
        met.add(image.split)
        if not splits or image.split in splits:
            yield _Row(image.filename, tuple(s.raw for s in image.sentences), where)
    if absent := sorted(set(splits) - met):
        raise UserError(
            f"{path}: split '{absent[0]}' has no images; there are {', '.join(sorted(met))}"
        )


def _array_rows(file: BinaryIO, path: Path) -> Iterator[_Row]:
    for number, item in enumerate(_items(file, path, "item")):
        where = f"element {number}"
        yield _row(_converted(item, dict[str, Any], path, where), path, where)


def _json_lines(file: BinaryIO, path: Path) -> Iterator[_Row]:
    for number, line in enumerate(lines(file, path), start=1):
        if line.isspace():
            continue
        where = f"line {number}"
        found = parse_json(line, f"{path}: {where}", "mend the line", "broken JSON")
        yield _row(_converted(found, dict[str, Any], path, where), path, where)


def _table_rows(file: BinaryIO, path: Path) -> Iterator[_Row]:
    reader: Any = None
    try:
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        header = text.readline()
        reader = csv.reader(text, delimiter=_delimiter(header))
        names = next(csv.reader([header], delimiter=_delimiter(header)))
        image, caption = _columns([name.strip().lower() for name in names], path)
        for cells in reader:
            where = f"line {reader.line_num + 1}"
            if cells and len(cells) <= max(image, caption):
                raise UserError(f"{path}: {where}: fewer columns than the header; mend the line")
            if cells:
                yield _Row(cells[image], (cells[caption],), where)
    except (csv.Error, UnicodeDecodeError) as error:
        line = reader.line_num + 1 if reader else 0
        raise UserError(
            f"{path}: after line {line}: not UTF-8 text in columns ({error}); {_HELP}"
        ) from error


def _delimiter(header: str) -> str:
    return next((mark for mark in "\t|" if mark in header), ",")


def _columns(names: list[str], path: Path) -> tuple[int, int]:
    found = [
        next((names.index(name) for name in known if name in names), None)
        for known in (IMAGE_COLUMNS, CAPTION_COLUMNS)
    ]
    image, caption = found
    if image is None or caption is None:
        missing, known = (
            ("images", IMAGE_COLUMNS) if image is None else ("captions", CAPTION_COLUMNS)
        )
        shown = ", ".join(names)[:200]
        raise UserError(
            f"{path}: line 1: no column of {missing} among '{shown}'; name it {', '.join(known)}"
        )
    return image, caption


def _row(found: dict[str, Any], path: Path, where: str) -> _Row:
    image = next((found[name] for name in IMAGE_COLUMNS if name in found), None)
    caption = next((found[name] for name in CAPTION_COLUMNS if name in found), None)
    captions: list[Any] = caption if isinstance(caption, list) else [caption]
    if not isinstance(image, str | int) or not all(isinstance(text, str) for text in captions):
        raise UserError(
            f"{path}: {where}: needs an image ({', '.join(IMAGE_COLUMNS)}) and a caption "
            f"({', '.join(CAPTION_COLUMNS)}), both as text"
        )
    return _Row(str(image), tuple(captions), where)


def _items(file: BinaryIO, path: Path, prefix: str) -> Iterator[Any]:
    """Elements of a JSON array, one in memory at a time."""
    count = 0
    try:
        shallow = ShallowJson(file, path, prefix.count(".") + 1)
        for item in ijson.items(shallow, prefix, use_float=True, map_type=shallow.map_type):
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
        raise UserError(f"{path}: {where}: {error}; {_HELP}") from error
