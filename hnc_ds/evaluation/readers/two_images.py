"""Benchmarks that ask which of two captions belongs to which of two pictures."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import EACH_ITS_OWN, IDENTICAL, ImageRef, Question
from hnc_ds.evaluation.readers.annotations import file_in, read_json, read_json_lines
from hnc_ds.evaluation.readers.tables import read_csv

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
    """examples.jsonl; groups are the collapsed tags. Pictures: ex_ID_img_K.png.

    Raises:
        UserError: As the readers of annotations.

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


def read_cola(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """COLA_multiobjects_matching_benchmark.json: [[url, caption, url, caption], ...].

    Raises:
        UserError: As the readers of annotations.

    Source: Ray et al. 2023, https://github.com/arijitray1993/COLA.
    """
    path = file_in(place, COLA_FILE, "Cola")
    rows = read_json(path, list[tuple[str, str, str, str]], "Cola")
    for number, (url_0, caption_0, url_1, caption_1) in enumerate(rows):
        names = (PurePosixPath(urlsplit(url).path).name for url in (url_0, url_1))
        images = tuple(ImageRef("vg", name) for name in names)
        yield each_its_own(f"cola/{number}", images, (caption_0, caption_1), "multi-object", ())


def read_mmvp(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """Questions.csv: rows 2k - 1 and 2k are a pair; pictures TYPE/ID.jpg.

    Raises:
        UserError: As the readers of annotations; rows that are no pairs.

    Source: Tong et al. 2024, hf.co/datasets/MMVP/MMVP_VLM.
    """
    path = file_in(place, "Questions.csv", "MMVP-VLM")
    rows = list(read_csv(path, ("Question ID", "Type", "Statement"), "MMVP-VLM"))
    if len(rows) % 2:
        raise UserError(f"{path}: {len(rows)} rows, which are no pairs; copy the file again")
    for one, other in list(pairwise(rows))[::2]:
        if one["Type"] != other["Type"]:
            raise UserError(
                f"{path}: questions {one['Question ID']} and {other['Question ID']} are of two "
                "types; copy the file again"
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
    """Two images with a caption each."""
    broken = (IDENTICAL,) if captions[0] == captions[1] else ()
    return Question(id, images, captions, EACH_ITS_OWN, group, (*tags, *broken))


def _png(name: str) -> str:
    return name if "." in name else f"{name}.png"
