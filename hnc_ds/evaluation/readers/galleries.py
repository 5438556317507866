"""Sets of pictures with captions, for retrieval, in the layouts that people have them in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import ImageRef, Question
from hnc_ds.evaluation.readers.annotations import converted, file_in, read_json
from hnc_ds.evaluation.readers.tables import read_captioned_lines


class _Captioned(msgspec.Struct):
    image: str
    caption: list[str] | str


class _Sentence(msgspec.Struct):
    raw: str


class _Split(msgspec.Struct):
    filename: str
    split: str
    sentences: list[_Sentence]


class _Karpathy(msgspec.Struct):
    images: list[_Split]


def read_coco_retrieval(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """COCO's Karpathy test split. Raises UserError as ``read_captioned`` does."""
    path = file_in(place, "coco_karpathy_test.json", "COCO retrieval")
    return read_captioned(path, "coco2014", "COCO retrieval")


def read_flickr_retrieval(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """Flickr30k's Karpathy test split. Raises UserError as ``read_captioned`` does."""
    path = file_in(place, "flickr30k_test.json", "Flickr30k retrieval")
    return read_captioned(path, "flickr30k", "Flickr30k retrieval")


def read_captioned(path: Path, source: str, benchmark: str) -> Iterator[Question]:
    """A picture and all its captions an item, in the order of the file.

    Layouts: [{image, caption: [...]}] (BLIP's coco_karpathy_test.json), {images: [{filename, split,
    sentences}]} of which the test split is taken (Karpathy's dataset_coco.json), and lines of
    image,caption (Flickr30k's txt).

    Raises:
        UserError: As the readers of annotations; a picture without captions.
    """
    if path.suffix in (".txt", ".csv"):
        found = _of_lines(path, benchmark)
    else:
        content = read_json(path, object, benchmark)
        found = _of_json(content, f"{path}", benchmark)
    for number, (name, captions) in enumerate(found.items()):
        if not captions:
            raise UserError(f"{path}: {name} has no caption; remove it")
        match = frozenset((0, column) for column in range(len(captions)))
        image = ImageRef(source, Path(name).name)
        yield Question(f"{source}/{number}", (image,), tuple(captions), match, "all")


def _of_json(content: Any, where: str, benchmark: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if isinstance(content, dict):
        for split in converted(content, _Karpathy, where, benchmark).images:
            if split.split == "test":
                found.setdefault(split.filename, []).extend(s.raw for s in split.sentences)
        return found
    for row in converted(content, list[_Captioned], where, benchmark):
        captions = [row.caption] if isinstance(row.caption, str) else row.caption
        found.setdefault(row.image, []).extend(captions)
    return found


def _of_lines(path: Path, benchmark: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image, caption in read_captioned_lines(path, benchmark):
        found.setdefault(image.partition("#")[0], []).append(caption)
    return found
