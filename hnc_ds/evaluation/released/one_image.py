"""Benchmarks of one image with true and false captions.

ARO (VG-Relation, VG-Attribution, Order; images of the first two are cropped to the box of both
objects), SugarCrepe and SugarCrepe++, VALSE, VSR and What'sUp, and the test set that people wrote
for HNC. captions/formats/hnc_release.py reads HNC's training captions and leaves out wrong ones;
the benchmark is complete.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import (
    converted,
    file_in,
    files_in,
    read_json,
    read_json_lines,
)
from hnc_ds.evaluation.released.rules import DEV, FIRST, IDENTICAL, ImageRef, Question, choice

RELATION_FILE = "visual_genome_relation.json"
ATTRIBUTION_FILE = "visual_genome_attribution.json"

ARO_LEFT_OUT = frozenset(
    " ".join(name.split())
    for name in """
adjusting, around, attached to, beside, between, bigger than, biting, boarding, brushing, by,
chewing, cleaning, climbing, close to, coming from, coming out of, contain, crossing, dragging,
draped over, drinking, drinking from, driving, driving down, driving on, eating from, eating in,
enclosing, exiting, facing, filled with, floating in, floating on, flying, flying above, flying
in, flying over, flying through, full of, going down, going into, going through, grazing in,
growing in, growing on, guiding, hanging from, hanging in, hanging off, hanging over, higher
than, holding onto, hugging, in between, jumping off, jumping on, jumping over, kept in, larger
than, leading, leaning over, leaving, licking, longer than, looking in, looking into, looking
out, looking over, looking through, lying next to, lying on top of, making, mixed with, mounted
on, moving, near, next to, of, on the back of, on the edge of, on the front of, on the other
side of, on the side of, opening, painted on, parked at, parked beside, parked by, parked in,
parked in front of, parked near, parked next to, perched on, petting, piled on, playing, playing
in, playing on, playing with, pouring, reaching for, reading, reflected on, riding on, running
in, running on, running through, seen through, sitting behind, sitting beside, sitting by,
sitting in front of, sitting near, sitting next to, sitting under, skiing down, skiing on,
sleeping in, sleeping on, smiling at, sniffing, splashing, sprinkled on, stacked on, standing
against, standing around, standing behind, standing beside, standing in front of, standing near,
standing next to, staring at, stuck in, surrounding, swimming in, swinging, talking to, topped
with, touching, traveling down, traveling on, tying, typing on, underneath, wading in, waiting
for, walking across, walking by, walking down, walking next to, walking through, with, working
in, working on, worn on, wrapped around, wrapped in
""".split(",")
)
"""Relations of VG-Relation outside ARO's official mean, from the authors' notebook (notebooks/ of
https://github.com/mertyg/vision-language-models-are-bows)."""


class _Exchange(msgspec.Struct):
    image_path: str
    bbox_x: int
    bbox_y: int
    bbox_w: int
    bbox_h: int
    true_caption: str
    false_caption: str

    def question(self, id: str, group: str) -> Question:
        left, top = self.bbox_x, self.bbox_y
        crop = (left, top, left + self.bbox_w, top + self.bbox_h)
        image = ImageRef("vg", self.image_path, crop)
        return choice(id, image, self.true_caption, self.false_caption, group)


class _Relation(_Exchange):
    relation_name: str


class _Attribution(_Exchange):
    attributes: tuple[str, str]


Options = Annotated[list[str], msgspec.Meta(min_length=2)]
"""Captions, the true one first."""


class _Order(msgspec.Struct):
    image_path: str
    caption_options: Options


def read_relation(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """visual_genome_relation.json; groups are relations.

    Raises:
        UserError: As ``read_json``.

    Source: Yuksekgonul et al. 2023, https://github.com/mertyg/vision-language-models-are-bows.
    """
    path = file_in(place, RELATION_FILE, "ARO VG-Relation")
    for number, row in enumerate(read_json(path, list[_Relation], "ARO VG-Relation")):
        yield row.question(f"relation/{number}", row.relation_name)


def read_attribution(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """visual_genome_attribution.json; groups are attribute pairs, joined by _ as in ARO.

    Raises:
        UserError: As ``read_json``.

    Source: as ``read_relation``.
    """
    path = file_in(place, ATTRIBUTION_FILE, "ARO VG-Attribution")
    for number, row in enumerate(read_json(path, list[_Attribution], "ARO VG-Attribution")):
        yield row.question(f"attribution/{number}", "_".join(row.attributes))


def read_order(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """A file of word orders: [{image_path, caption_options}], the true caption first.

    ARO's code generates them at load time, with results that depend on library versions, so they
    are read from a file here.

    Raises:
        UserError: As ``read_json``.

    Source: as ``read_relation``.
    """
    path = file_in(place, "order.json", "ARO Order")
    for number, row in enumerate(read_json(path, list[_Order], "ARO Order")):
        name = Path(row.image_path).name
        source = "coco2014" if name.startswith("COCO_") else "flickr30k"
        captions = tuple(row.caption_options)
        yield Question(f"order/{number}", (ImageRef(source, name),), captions, FIRST, source)


SUGARCREPE_FILES = {
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
PLUS_FILES = {name: file for name, file in SUGARCREPE_FILES.items() if not name.startswith("add")}

SUGARCREPE_RELEASED = {
    "add_obj": 2062,
    "add_att": 692,
    "replace_obj": 1652,
    "replace_att": 788,
    "replace_rel": 1406,
    "swap_obj": 245,
    "swap_att": 666,
}
"""Items of the release. The paper counts one more: swap_obj.json has no key 108."""


class _SugarCrepe(msgspec.Struct):
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
        UserError: As ``read_json``.

    Source: Hsieh et al. 2023, https://github.com/RAIVNLab/sugar-crepe.
    """
    for group, path in files_in(place, SUGARCREPE_FILES, "SugarCrepe", allow_missing).items():
        for key, row in read_json(path, dict[str, _SugarCrepe], "SugarCrepe").items():
            image = ImageRef("coco2017", row.filename)
            yield choice(f"{group}/{key}", image, row.caption, row.negative_caption, group)


def read_sugarcrepe_pp(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """CATEGORY.json: [{id, filename, caption, caption2, negative_caption}]; two true captions each.

    Captions differ from SugarCrepe's. In two items of swap_obj a true caption equals the false one.

    Raises:
        UserError: As ``read_json``.

    Source: Dumpala et al. 2024, https://github.com/Sri-Harsha/scpp.
    """
    both = frozenset({(0, 0), (0, 1)})
    for group, path in files_in(place, PLUS_FILES, "SugarCrepe++", allow_missing).items():
        for row in read_json(path, list[_PlusRow], "SugarCrepe++"):
            captions = (row.caption, row.caption2, row.negative_caption)
            broken = (IDENTICAL,) if row.negative_caption in captions[:2] else ()
            image = ImageRef("coco2017", row.filename)
            yield Question(f"{group}/{row.id}", (image,), captions, both, group, broken)


VALSE_FILES = {
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
"""File names in the repository; those in its config.py differ."""

VALID_VOTES = 2
"""Fewest of three annotators who chose the caption over the foil in a valid item."""

VALSE_VALID = {
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

VALSE_SOURCES = {
    "visual7w": "visual7w",
    "coco2017": "coco2017",
    "coco_2017": "coco2017",
    "FOIL dataset": "coco2014",
    "SWiG": "swig",
}


class _Votes(msgspec.Struct):
    caption: int


class _Foil(msgspec.Struct):
    dataset: str
    image_file: str
    caption: str
    foil: str
    mturk: _Votes


def read_valse(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """INSTRUMENT.json: {KEY: {dataset, image_file, caption, foil, mturk, ...}}; valid items only.

    Raises:
        UserError: As ``read_json``; an image is of an unknown collection.

    Source: Parcalabescu et al. 2022, https://github.com/Heidelberg-NLP/VALSE.
    """
    for group, path in files_in(place, VALSE_FILES, "VALSE", allow_missing).items():
        for key, row in read_json(path, dict[str, _Foil], "VALSE").items():
            if row.mturk.caption >= VALID_VOTES:
                image = ImageRef(_valse_source(row, f"{path}: {key}"), row.image_file)
                yield choice(f"{group}/{key}", image, row.caption, row.foil, group)


def _valse_source(row: _Foil, where: str) -> str:
    if row.dataset == "VisDial_v1.0":
        is_train = row.image_file.startswith("COCO_train2014")
        return "coco2014-train" if is_train else "visdial"
    if row.dataset not in VALSE_SOURCES:
        raise UserError(
            f"{where}: images of '{row.dataset}' are not part of VALSE; copy the file again"
        )
    return VALSE_SOURCES[row.dataset]


VSR_FILES = {"test": "test.jsonl", "dev": "dev.jsonl"}

WHATSUP_CONTROLLED = {"A": "controlled_images_dataset.json", "B": "controlled_clevr_dataset.json"}
WHATSUP_PAIRS = {
    "coco-one": ("coco_qa_one_obj.json", "coco2017"),
    "coco-two": ("coco_qa_two_obj.json", "coco2017"),
    "vg-one": ("vg_qa_one_obj.json", "vg"),
    "vg-two": ("vg_qa_two_obj.json", "vg"),
}
"""Annotation file and image source of each subset."""

VSR_KINDS = {
    "Adjacency": "adjacent to, alongside, at the side of, at the right side of, at the left side "
    "of, attached to, at the back of, ahead of, against, at the edge of",
    "Directional": "off, past, toward, down, deep down, up, away from, along, around, from, into, "
    "to, across, across from, through, down from",
    "Orientation": "facing, facing away from, parallel to, perpendicular to",
    "Projective": "on top of, beneath, beside, behind, left of, right of, under, in front of, "
    "below, above, over, in the middle of",
    "Proximity": "by, close to, near, far from, far away from",
    "Topological": "connected to, detached from, has as a part, part of, contains, within, at, on, "
    "in, with, surrounding, among, consists of, out of, between, inside, outside, touching",
    "Unallocated": "beyond, next to, opposite to, after, among, enclosed by",
}

# A relation in two kinds belongs to the last one.
VSR_KIND_OF = {
    " ".join(relation.split()): kind
    for kind, relations in VSR_KINDS.items()
    for relation in relations.split(",")
}
"""Kind of each relation of VSR, from analysis_scripts/rel_meta_category_dict.txt of
https://github.com/cambridgeltl/visual-spatial-reasoning (Apache-2.0)."""


class _Statement(msgspec.Struct):
    image: str
    caption: str
    label: Literal[0, 1]
    relation: str


class _Options(msgspec.Struct):
    image_path: str
    caption_options: Options


def read_vsr(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """test.jsonl and dev.jsonl: {image, caption, label, relation, ...} per line. Groups are
    relations, tags kinds of relations, and DEV for dev.jsonl.

    Raises:
        UserError: As ``read_json_lines``.

    Source: Liu et al. 2023, https://github.com/cambridgeltl/visual-spatial-reasoning.
    """
    for split, path in files_in(place, VSR_FILES, "VSR", allow_missing).items():
        is_dev = (DEV,) if split == "dev" else ()
        for number, row in enumerate(read_json_lines(path, _Statement, "VSR")):
            match = FIRST if row.label else frozenset[tuple[int, int]]()
            image = ImageRef("coco2017", row.image)
            id = f"{split}/{number}"
            kind = VSR_KIND_OF.get(row.relation)
            tags = is_dev if kind is None else (*is_dev, kind)
            yield Question(id, (image,), (row.caption,), match, row.relation, tags)


def read_whatsup(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """controlled_*.json: [{image_path, caption_options}], *_qa_*.json: [[id, true, false], ...];
    the true caption first. Groups are subsets; tags of the controlled ones name pair and set.

    Raises:
        UserError: As ``read_json``; a file name does not follow the naming scheme.

    Source: Kamath et al. 2023, https://github.com/amitakamath/whatsup_vlms.
    """
    names = WHATSUP_CONTROLLED | {name: file for name, (file, _) in WHATSUP_PAIRS.items()}
    for group, path in files_in(place, names, "What'sUp", allow_missing).items():
        if group in WHATSUP_CONTROLLED:
            for number, row in enumerate(read_json(path, list[_Options], "What'sUp")):
                yield _controlled(f"{group}/{number}", row, group, path)
            continue
        source = WHATSUP_PAIRS[group][1]
        rows = read_json(path, list[tuple[int | str, str, str]], "What'sUp")
        for number, (image, true, false) in enumerate(rows):
            name = f"{str(image).zfill(12) if source == 'coco2017' else image}.jpg"
            tags = (f"{group} {_preposition(true, group)}",)
            yield choice(f"{group}/{number}", ImageRef(source, name), true, false, group, tags)


def _preposition(true: str, group: str) -> str:
    """Preposition of a true caption, as in What'sUp's code: the last word if there is one
    object."""
    if group.endswith("one"):
        return (true.split() or [""])[-1].rstrip(".")
    known = ("left of", "right of", "above", "below", "front of", "behind")
    last = "below" if group == "coco-two" else "top"
    return next((name.removesuffix(" of") for name in known if name in true), last)


AXES = {"left": "x", "right": "x", "on": "y", "under": "y", "in-front": "y", "behind": "y"}
"""Axis of each preposition; opposites share one."""


def _controlled(id: str, row: _Options, group: str, path: Path) -> Question:
    """beer-bottle_left_of_armchair.jpeg: both objects name the set, with the axis the pair."""
    name = Path(row.image_path).name
    parts = Path(name).stem.split("_")
    if len(parts) < 3 or parts[1] not in AXES:
        raise UserError(
            f"{path}: '{name}' does not name two objects and a preposition; copy it again"
        )
    things = f"{parts[0]}_{parts[-1]}"
    image = ImageRef("whatsup", "/".join(Path(row.image_path).parts[-2:]))
    captions = tuple(row.caption_options)
    tags = (f"set:{things}", f"pair:{things}:{AXES[parts[1]]}", f"{group} {parts[1]}")
    return Question(id, (image,), captions, FIRST, group, tags)


HNC_TEST_FILE = "hnc_clean_strict_test.json"


class _Caption(msgspec.Struct):
    caption: str
    label: Literal[0, 1]
    type: str
    cpt_p_id: int | str | None = None


def read_hnc_test(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """{IMAGE: {NUMBER: {caption, label, type, ...}}}; captions 2k and 2k + 1 are a pair, unless
    negatives name their positive in cpt_p_id. Groups are types.

    Raises:
        UserError: As ``read_json``; a false caption has no true one.

    Source: Doenmez et al. 2023 (HNC), doi:10.18419/darus-4341.
    """
    path = file_in(place, HNC_TEST_FILE, "the HNC test")
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
    """(key of the negative, (positive, negative))."""
    for key, caption in captions.items():
        if caption.label == 0:
            positive = captions.get(_positive_of(key, caption))
            if positive is None or positive.label == 0:
                raise UserError(
                    f"{where}: false caption {key} has no true one; copy the file again"
                )
            yield key, (positive, caption)


def _positive_of(key: str, negative: _Caption) -> str:
    if negative.cpt_p_id is not None:
        return str(negative.cpt_p_id)
    return str(int(key) ^ 1) if key.isdecimal() else ""
