"""SugarCrepe and SugarCrepe++: captions with a fluent false one, on COCO's validation pictures."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from hnc_ds.evaluation.question import IDENTICAL, ImageRef, Question, choice
from hnc_ds.evaluation.readers.annotations import files_in, read_json

FILES = {
    name: f"{name}.json"
    for name in (
        "replace_obj",
        "replace_att",
        "replace_rel",
        "swap_obj",
        "swap_att",
        "add_obj",
        "add_att",
    )
}
PLUS_FILES = {name: file for name, file in FILES.items() if not name.startswith("add")}

RELEASED = {
    "add_obj": 2062,
    "add_att": 692,
    "replace_obj": 1652,
    "replace_att": 788,
    "replace_rel": 1406,
    "swap_obj": 245,
    "swap_att": 666,
}
"""Items of the release. The paper counts one more: swap_obj.json has no key 108."""


class _Row(msgspec.Struct):
    filename: str
    caption: str
    negative_caption: str


class _PlusRow(msgspec.Struct):
    id: int | str
    filename: str
    caption: str
    caption2: str
    negative_caption: str


def read_sugarcrepe(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """CATEGORY.json: {KEY: {filename, caption, negative_caption}}; keys have gaps.

    Raises:
        UserError: As the readers of annotations.

    Source: Hsieh et al. 2023, https://github.com/RAIVNLab/sugar-crepe.
    """
    for group, path in files_in(place, FILES, "SugarCrepe", allow_missing).items():
        for key, row in read_json(path, dict[str, _Row], "SugarCrepe").items():
            image = ImageRef("coco2017", row.filename)
            yield choice(f"{group}/{key}", image, row.caption, row.negative_caption, group)


def read_sugarcrepe_pp(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """CATEGORY.json: [{id, filename, caption, caption2, negative_caption}]; two true captions each.

    Captions differ from SugarCrepe's. In two items of swap_obj a true caption is the false one.

    Raises:
        UserError: As the readers of annotations.

    Source: Dumpala et al. 2024, https://github.com/Sri-Harsha/scpp.
    """
    both = frozenset({(0, 0), (0, 1)})
    for group, path in files_in(place, PLUS_FILES, "SugarCrepe++", allow_missing).items():
        for row in read_json(path, list[_PlusRow], "SugarCrepe++"):
            captions = (row.caption, row.caption2, row.negative_caption)
            broken = (IDENTICAL,) if row.negative_caption in captions[:2] else ()
            image = ImageRef("coco2017", row.filename)
            yield Question(f"{group}/{row.id}", (image,), captions, both, group, broken)
