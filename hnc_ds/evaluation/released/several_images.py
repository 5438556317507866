"""Benchmarks that match captions to several images.

Two captions and two images: Winoground, EqBen, Cola, MMVP-VLM and BiVLC. Retrieval in a set of
images: COCO and Flickr30k.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hnc_ds.arrow_tables import PARQUET
from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import (
    converted,
    file_in,
    read_captioned_lines,
    read_csv,
    read_json,
    read_json_lines,
)
from hnc_ds.evaluation.released.images import read_texts
from hnc_ds.evaluation.released.rules import EACH_ITS_OWN, IDENTICAL, ImageRef, Question

COLA_FILE = "COLA_multiobjects_matching_benchmark.json"
MMVP_PROMPT = "a photo of "


class _Winoground(msgspec.Struct):
    id: int | str
    image_0: str
    image_1: str
    caption_0: str
    caption_1: str
    collapsed_tag: str = "all"
    tag: str = ""
    secondary_tag: str = ""
    num_main_preds: int | None = None


def read_winoground(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """examples.jsonl; groups are the collapsed tags. Images: ex_ID_img_K.png.

    Raises:
        UserError: As ``read_json``.

    Source: Thrush et al. 2022; gated at hf.co/datasets/facebook/winoground.
    """
    path = file_in(place, "examples.jsonl", "Winoground")
    for row in read_json_lines(path, _Winoground, "Winoground"):
        images = tuple(ImageRef("winoground", _png(n)) for n in (row.image_0, row.image_1))
        tags = tuple(tag for tag in (row.tag, row.secondary_tag) if tag)
        if row.num_main_preds is not None:
            tags += (f"main predicates: {row.num_main_preds}",)
        captions = (row.caption_0, row.caption_1)
        yield each_its_own(f"winoground/{row.id}", images, captions, row.collapsed_tag, tags)


EQBEN_FILES = ("eqben_subset_10percent_final.json", "all_select.json")
"""The 10 % subset, and the smaller one for language models."""


class _EqBen(msgspec.Struct):
    image0: str
    image1: str
    caption0: str
    caption1: str


def read_eqben(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """[{image0, image1, caption0, caption1}]; groups are the sub-sets, the images' first folder.

    Raises:
        UserError: As ``read_json``.

    Source: Wang et al. 2023, https://github.com/Wangt-CN/EqBen (src/eqben/eqben_utils.py).
    """
    name = next((name for name in EQBEN_FILES if (place / name).is_file()), EQBEN_FILES[0])
    path = file_in(place, name, "EqBen")
    for number, row in enumerate(read_json(path, list[_EqBen], "EqBen")):
        images = tuple(ImageRef("eqben", image) for image in (row.image0, row.image1))
        group = PurePosixPath(row.image0).parts[0] if row.image0 else ""
        captions = (row.caption0, row.caption1)
        yield each_its_own(f"eqben/{number}", images, captions, group, ())


def read_cola(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """COLA_multiobjects_matching_benchmark.json: [[url, caption, url, caption], ...].

    Raises:
        UserError: As ``read_json``.

    Source: Ray et al. 2023, https://github.com/arijitray1993/COLA.
    """
    path = file_in(place, COLA_FILE, "Cola")
    rows = read_json(path, list[tuple[str, str, str, str]], "Cola")
    for number, (url_0, caption_0, url_1, caption_1) in enumerate(rows):
        names = (PurePosixPath(urlsplit(url).path).name for url in (url_0, url_1))
        images = tuple(ImageRef("vg", name) for name in names)
        yield each_its_own(f"cola/{number}", images, (caption_0, caption_1), "multi-object", ())


def read_mmvp(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """Questions.csv: rows 2k - 1 and 2k are a pair; images TYPE/ID.jpg.

    Raises:
        UserError: As ``read_csv``; rows are not pairs.

    Source: Tong et al. 2024, hf.co/datasets/MMVP/MMVP_VLM.
    """
    path = file_in(place, "Questions.csv", "MMVP-VLM")
    rows = list(read_csv(path, ("Question ID", "Type", "Statement"), "MMVP-VLM"))
    if len(rows) % 2:
        raise UserError(f"{path}: {len(rows)} rows are not pairs; copy the file again")
    for one, other in list(pairwise(rows))[::2]:
        if one["Type"] != other["Type"]:
            raise UserError(
                f"{path}: questions {one['Question ID']} and {other['Question ID']} differ in "
                "type; copy the file again"
            )
        images = tuple(
            ImageRef("mmvp", f"{row['Type']}/{row['Question ID']}.jpg") for row in (one, other)
        )
        captions = tuple(MMVP_PROMPT + row["Statement"] for row in (one, other))
        yield each_its_own(f"mmvp/{one['Question ID']}", images, captions, one["Type"], ())


def each_its_own(
    id: str,
    images: tuple[ImageRef, ...],
    captions: tuple[str, ...],
    group: str,
    tags: tuple[str, ...],
) -> Question:
    """Two images that match a caption each."""
    broken = (IDENTICAL,) if captions[0] == captions[1] else ()
    return Question(id, images, captions, EACH_ITS_OWN, group, (*tags, *broken))


def _png(name: str) -> str:
    return name if "." in name else f"{name}.png"


BIVLC_SOURCE = "bivlc"
BIVLC_RELEASED = {
    "add_att": 76,
    "add_obj": 399,
    "replace_att": 437,
    "replace_obj": 1200,
    "replace_rel": 462,
    "swap_att": 278,
    "swap_obj": 81,
}
"""Items by group, counted in the authors' results."""

BIVLC_TEXTS = ("caption", "negative_caption", "type", "subtype")
BIVLC_IMAGES = ("image", "negative_image")


def read_bivlc(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """The parquet files of a folder; groups are TYPE_SUBTYPE, tags the types.

    Raises:
        UserError: There is no such file; as ``read_texts``.

    Source: Miranda et al. 2024, hf.co/datasets/imirandam/BiVLC.
    """
    files = [place] if place.is_file() else sorted(place.rglob(f"*{PARQUET}"))
    if not files:
        raise UserError(f"{place}: holds no *{PARQUET}; BiVLC needs those of its test split")
    folder = place.parent if place.is_file() else place
    for path in files:
        name = path.relative_to(folder).as_posix()
        for number, row in enumerate(read_texts(path, BIVLC_TEXTS, "BiVLC")):
            images = tuple(
                ImageRef(BIVLC_SOURCE, f"{name}/{number}/{column}") for column in BIVLC_IMAGES
            )
            captions = (row["caption"], row["negative_caption"])
            group, tags = f"{row['type']}_{row['subtype']}", (row["type"],)
            yield each_its_own(f"{name}/{number}", images, captions, group, tags)


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
    """COCO's Karpathy test split. Raises UserError as ``read_captioned``."""
    path = file_in(place, "coco_karpathy_test.json", "COCO retrieval")
    return read_captioned(path, "coco2014", "COCO retrieval")


def read_flickr_retrieval(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """Flickr30k's Karpathy test split. Raises UserError as ``read_captioned``."""
    path = file_in(place, "flickr30k_test.json", "Flickr30k retrieval")
    return read_captioned(path, "flickr30k", "Flickr30k retrieval")


def read_captioned(path: Path, source: str, benchmark: str) -> Iterator[Question]:
    """One question per image with all its captions, in the order of the file.

    Layouts: [{image, caption: [...]}] (BLIP's coco_karpathy_test.json), {images: [{filename, split,
    sentences}]} test split only (Karpathy's dataset_coco.json), and lines of
    image,caption (Flickr30k's txt).

    Raises:
        UserError: As ``read_json``; an image has no caption.
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
