"""VALSE: captions and foils of six linguistic phenomena, on pictures from six collections."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import ImageRef, Question, choice
from hnc_ds.evaluation.readers.annotations import files_in, read_json

FILES = {
    name: f"{name}.json"
    for name in (
        "existence",
        "plurals",
        "counting-hard",
        "counting-small-quant",
        "counting-adversarial",
        "relations",
        "action-replacement",
        "actant-swap",
        "coreference-standard",
        "coreference-hard",
        "foil-it",
    )
}
"""As they are in the repository; the names in its own config.py differ."""

VALID_VOTES = 2
"""Of three annotators for whom the caption, and not the foil, had to fit: fewer, and the item is
not one of the benchmark."""

VALID = {
    "existence": 505,
    "plurals": 851,
    "counting-hard": 868,
    "counting-small-quant": 900,
    "counting-adversarial": 691,
    "relations": 535,
    "action-replacement": 648,
    "actant-swap": 949,
    "coreference-standard": 708,
    "coreference-hard": 104,
    "foil-it": 943,
}
"""Valid items of the release, 7,702 of 8,782."""

SOURCES = {
    "visual7w": "visual7w",
    "coco2017": "coco2017",
    "coco_2017": "coco2017",
    "FOIL dataset": "coco2014",
    "SWiG": "swig",
}


class _Votes(msgspec.Struct):
    caption: int


class _Row(msgspec.Struct):
    dataset: str
    image_file: str
    caption: str
    foil: str
    mturk: _Votes


def read_valse(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """INSTRUMENT.json: {KEY: {dataset, image_file, caption, foil, mturk, ...}}; the valid ones.

    Raises:
        UserError: As the readers of annotations; pictures of a collection that is not VALSE's.

    Source: Parcalabescu et al. 2022, https://github.com/Heidelberg-NLP/VALSE.
    """
    for group, path in files_in(place, FILES, "VALSE", allow_missing).items():
        for key, row in read_json(path, dict[str, _Row], "VALSE").items():
            if row.mturk.caption >= VALID_VOTES:
                image = ImageRef(_source(row, f"{path}: {key}"), row.image_file)
                yield choice(f"{group}/{key}", image, row.caption, row.foil, group)


def _source(row: _Row, where: str) -> str:
    if row.dataset == "VisDial_v1.0":
        is_train = row.image_file.startswith("COCO_train2014")
        return "coco2014-train" if is_train else "visdial"
    if row.dataset not in SOURCES:
        raise UserError(f"{where}: pictures of '{row.dataset}', which VALSE has not; copy it again")
    return SOURCES[row.dataset]
