"""The human-written test set of HNC: pairs of a true and a false caption, taken as they are.

The captions of training are read by captions/formats/hnc_release.py, which leaves out what can be
told to be wrong; a benchmark leaves nothing out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import ImageRef, Question, choice
from hnc_ds.evaluation.readers.annotations import converted, file_in, read_json

TEST_FILE = "hnc_clean_strict_test.json"


class _Caption(msgspec.Struct):
    caption: str
    label: Literal[0, 1]
    type: str
    cpt_p_id: int | str | None = None


def read_hnc_test(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """{IMAGE: {NUMBER: {caption, label, type, ...}}}; captions 2k and 2k + 1 are a pair, unless
    negatives name their positive in cpt_p_id. Groups are types.

    Raises:
        UserError: As the readers of annotations; captions that are no pairs.

    Source: Doenmez et al. 2023 (HNC), doi:10.18419/darus-4341.
    """
    path = file_in(place, TEST_FILE, "the HNC test")
    for name, content in read_json(path, dict[str, dict[str, dict]], "the HNC test").items():
        where = f"{path}: image {name}"
        layer = content.get("captions", content)
        captions = converted(layer, dict[str, _Caption], where, "the HNC test")
        image = ImageRef("gqa", name if "." in name else f"{name}.jpg")
        for key, (true, false) in _pairs(captions, where):
            yield choice(f"{name}/{key}", image, true.caption, false.caption, false.type)


def _pairs(
    captions: dict[str, _Caption], where: str
) -> Iterator[tuple[str, tuple[_Caption, _Caption]]]:
    """The key of each negative, and its pair."""
    for key, caption in captions.items():
        if caption.label == 0:
            positive = captions.get(_positive_of(key, caption))
            if positive is None or positive.label == 0:
                raise UserError(f"{where}: caption {key} is false of no true one; copy it again")
            yield key, (positive, caption)


def _positive_of(key: str, negative: _Caption) -> str:
    if negative.cpt_p_id is not None:
        return str(negative.cpt_p_id)
    return str(int(key) ^ 1) if key.isdecimal() else ""
