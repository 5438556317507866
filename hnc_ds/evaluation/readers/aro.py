"""ARO: who does what to whom (VG-Relation), which is how (VG-Attribution), and word order.

The pictures of the first two are cut to the box of both things before the model sees them.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from hnc_ds.evaluation.question import FIRST, ImageRef, Question, choice
from hnc_ds.evaluation.readers.annotations import file_in, read_json

RELATION_FILE = "visual_genome_relation.json"
ATTRIBUTION_FILE = "visual_genome_attribution.json"


class _Row(msgspec.Struct):
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


class _Relation(_Row):
    relation_name: str


class _Attribution(_Row):
    attributes: tuple[str, str]


class _Order(msgspec.Struct):
    image_path: str
    caption_options: list[str]


def read_relation(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """visual_genome_relation.json; groups are relations.

    Raises:
        UserError: As the readers of annotations.

    Source: Yuksekgonul et al. 2023, https://github.com/mertyg/vision-language-models-are-bows.
    """
    path = file_in(place, RELATION_FILE, "ARO VG-Relation")
    for number, row in enumerate(read_json(path, list[_Relation], "ARO VG-Relation")):
        yield row.question(f"relation/{number}", row.relation_name)


def read_attribution(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """visual_genome_attribution.json; groups are pairs of attributes, joined by _ as ARO does.

    Raises:
        UserError: As the readers of annotations.

    Source: as ``read_relation``.
    """
    path = file_in(place, ATTRIBUTION_FILE, "ARO VG-Attribution")
    for number, row in enumerate(read_json(path, list[_Attribution], "ARO VG-Attribution")):
        yield row.question(f"attribution/{number}", "_".join(row.attributes))


def read_order(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """A frozen file of word orders: [{image_path, caption_options}], the true one first.

    ARO makes them when it is loaded, and what comes out depends on the versions of its libraries;
    so the options are read from a file and never made here.

    Raises:
        UserError: As the readers of annotations.

    Source: as ``read_relation``.
    """
    path = file_in(place, "order.json", "ARO Order")
    for number, row in enumerate(read_json(path, list[_Order], "ARO Order")):
        name = Path(row.image_path).name
        source = "coco2014" if name.startswith("COCO_") else "flickr30k"
        captions = tuple(row.caption_options)
        yield Question(f"order/{number}", (ImageRef(source, name),), captions, FIRST, source)
