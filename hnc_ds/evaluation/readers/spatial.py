"""Benchmarks of where things are: VSR and What'sUp."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import DEV, FIRST, ImageRef, Question, choice
from hnc_ds.evaluation.readers.annotations import files_in, read_json, read_json_lines
from hnc_ds.evaluation.readers.vsr_relations import KIND_OF

VSR_FILES = {"test": "test.jsonl", "dev": "dev.jsonl"}

CONTROLLED = {"A": "controlled_images_dataset.json", "B": "controlled_clevr_dataset.json"}
PAIRS = {
    "coco-one": ("coco_qa_one_obj.json", "coco2017"),
    "coco-two": ("coco_qa_two_obj.json", "coco2017"),
    "vg-one": ("vg_qa_one_obj.json", "vg"),
    "vg-two": ("vg_qa_two_obj.json", "vg"),
}
"""File and collection of pictures by sub-set."""


class _Statement(msgspec.Struct):
    image: str
    caption: str
    label: Literal[0, 1]
    relation: str


class _Options(msgspec.Struct):
    image_path: str
    caption_options: list[str]


def read_vsr(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """test.jsonl: {image, caption, label, relation, ...} a line; a caption each, true or not. Those
    of dev.jsonl, by which a threshold is chosen, are tagged; groups are relations, tags what kind
    of relation they are.

    Raises:
        UserError: As the readers of annotations.

    Source: Liu et al. 2023, https://github.com/cambridgeltl/visual-spatial-reasoning.
    """
    for split, path in files_in(place, VSR_FILES, "VSR", allow_missing).items():
        is_dev = (DEV,) if split == "dev" else ()
        for number, row in enumerate(read_json_lines(path, _Statement, "VSR")):
            match = FIRST if row.label else frozenset[tuple[int, int]]()
            image = ImageRef("coco2017", row.image)
            id = f"{split}/{number}"
            kind = KIND_OF.get(row.relation)
            tags = is_dev if kind is None else (*is_dev, kind)
            yield Question(id, (image,), (row.caption,), match, row.relation, tags)


def read_whatsup(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """controlled_*.json: [{image_path, caption_options}], *_qa_*.json: [[id, true, false], ...];
    the true one first. Groups are the sub-sets; tags of the controlled ones name pair and set.

    Raises:
        UserError: As the readers of annotations; a name from which its pair cannot be told.

    Source: Kamath et al. 2023, https://github.com/amitakamath/whatsup_vlms.
    """
    names = CONTROLLED | {name: file for name, (file, _) in PAIRS.items()}
    for group, path in files_in(place, names, "What'sUp", allow_missing).items():
        if group in CONTROLLED:
            for number, row in enumerate(read_json(path, list[_Options], "What'sUp")):
                yield _controlled(f"{group}/{number}", row, group, path)
            continue
        source = PAIRS[group][1]
        rows = read_json(path, list[tuple[int | str, str, str]], "What'sUp")
        for number, (image, true, false) in enumerate(rows):
            name = f"{str(image).zfill(12) if source == 'coco2017' else image}.jpg"
            tags = (f"{group} {_preposition(true, group)}",)
            yield choice(f"{group}/{number}", ImageRef(source, name), true, false, group, tags)


def _preposition(true: str, group: str) -> str:
    """That of a true caption, as its own code tells it: the last word where one thing is named."""
    if group.endswith("one"):
        return (true.split() or [""])[-1].rstrip(".")
    known = ("left of", "right of", "above", "below", "front of", "behind")
    last = "below" if group == "coco-two" else "top"
    return next((name.removesuffix(" of") for name in known if name in true), last)


AXES = {"left": "x", "right": "x", "on": "y", "under": "y", "in-front": "y", "behind": "y"}
"""Prepositions that are each other's opposite."""


def _controlled(id: str, row: _Options, group: str, path: Path) -> Question:
    """beer-bottle_left_of_armchair.jpeg: both things are the set, with the axis the pair."""
    name = Path(row.image_path).name
    parts = Path(name).stem.split("_")
    if len(parts) < 3 or parts[1] not in AXES:
        raise UserError(f"{path}: '{name}' tells no two things and a preposition; copy it again")
    things = f"{parts[0]}_{parts[-1]}"
    image = ImageRef("whatsup", "/".join(Path(row.image_path).parts[-2:]))
    captions = tuple(row.caption_options)
    tags = (f"set:{things}", f"pair:{things}:{AXES[parts[1]]}", f"{group} {parts[1]}")
    return Question(id, (image,), captions, FIRST, group, tags)
