"""Write captions in the layout of the released HNC files, for programs that read those.

    {"2386621": {"captions": {"0": {caption, label, type, ..., cpt_p_id}, "1": {...}, ...}}, ...}

Every negative has a positive record of its own before it, of the same type, and names it in
``cpt_p_id``. Caption ids count through the whole file. No caption is marked as ambiguous or noisy:
what is written was proven, and 'the star' is one object and no other. Negatives that are only not
annotated are left out, as the layout has no field that says so.

Source: layout of Doenmez et al. 2023 (HNC), doi:10.18419/darus-4341.
"""

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Literal, cast

import msgspec

from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.errors import UserError, counted
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, SceneGraph
from hnc_ds.whole_files import whole_file

OPEN_WORLD = "negatives that are not proven false"
"""What is left out."""

_LABELS = {"xor_logic_attr": None, "xor_logic_rel": "both"}
"""What stands in ``textual_label`` of these false captions, instead of the replaced words."""

GZIP_LEVEL = 6
"""Level 9 takes several times as long to save little."""


class _Rectangle(msgspec.Struct):
    x: int
    y: int
    w: int
    h: int


class _Box(msgspec.Struct):
    bbox: _Rectangle
    name: str


class _Ambiguity(msgspec.Struct, frozen=True):
    ambiguous: bool = False


class _Record(msgspec.Struct):
    """One caption; the order of the fields is the release's."""

    caption: str
    label: Literal[0, 1]
    type: str
    textual_label: str | None
    """The words that were replaced; the release gives them on the true side of relations too."""
    bboxes: dict[str, _Box]
    ambiguity: _Ambiguity = _Ambiguity()
    noisy: bool = False
    replaced: tuple[str, str] | None = None
    cpt_p_id: int | None = None
    """Of a negative, the id of its positive."""


def write_release(captions: Path, scene_graphs: Path, out: Path) -> int:
    """Write a file of captions in HNC's layout; says what was written and what was left out.

    Images are read from both files in step and written one at a time, so memory holds one of them.

    Args:
        captions: What ``hnc-ds generate`` made.
        scene_graphs: What it was made from: names and boxes come from here.
        out: .json or .json.gz; there whole or not at all. An existing one is replaced.

    Returns:
        The pairs of captions that were written.

    Raises:
        UserError: Another name of ``out``, captions of other graphs (with the image), unreadable
            or broken input, disk full.
    """
    check_release_name(out)
    tally: Counter[str] = Counter()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as file, _packed(file, out) as stream:
            stream.writelines(_pieces(_in_step(captions, scene_graphs), tally))
    except OSError as error:
        raise UserError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error}); "
            "mend that and run it again"
        ) from error
    left_out = f"{tally[OPEN_WORLD]:,} {OPEN_WORLD}" if tally[OPEN_WORLD] else "none"
    print(
        f"{out}: {counted(tally['pairs'], 'pair')} of captions of "
        f"{counted(tally['images'], 'image')}; "
        f"left out: {left_out}"
    )
    return tally["pairs"]


def check_release_name(out: Path) -> None:
    """Refuse a name that does not say how the file is to be written.

    Raises:
        UserError: It ends neither in .json nor in .json.gz.
    """
    if not out.name.endswith((".json", ".json.gz")):
        raise UserError(f"hnc_json is {out}; its name must end in .json or .json.gz")


@contextmanager
def _packed(file: BinaryIO, out: Path) -> Iterator[BinaryIO]:
    if out.suffix != ".gz":
        yield file
        return
    # Neither name nor time inside: the same captions are the same bytes.
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as stream:
        yield cast(BinaryIO, stream)


def _in_step(captions: Path, scene_graphs: Path) -> Iterator[tuple[ImageCaptions, SceneGraph]]:
    """Each image's captions with its graph; both files have the same images in the same order."""
    for said, graph in zip_longest(read_captions(captions), read_scene_graphs(scene_graphs)):
        if said is None or graph is None or said.image_id != graph.image_id:
            raise UserError(
                f"{captions}: {_called(said)} where {scene_graphs} has {_called(graph)}; "
                "give the scene graphs that the captions were made from"
            )
        if not _objects(said) <= set(range(len(graph.objects))):
            raise UserError(
                f"{captions}: image '{said.image_id}' speaks of objects that {scene_graphs} does "
                "not have; give the scene graphs that the captions were made from"
            )
        yield said, graph


def _called(image: ImageCaptions | SceneGraph | None) -> str:
    return f"image '{image.image_id}'" if image else "no more images"


def _objects(said: ImageCaptions) -> set[int]:
    """The numbers of all objects that an image's captions speak of."""
    numbers: set[int] = set()
    for group in said.groups:
        numbers.update(group.objects, *(negative.objects for negative in group.negatives))
    return numbers


def _pieces(
    images: Iterable[tuple[ImageCaptions, SceneGraph]], tally: Counter[str]
) -> Iterator[bytes]:
    """The file, image by image, each on a line of its own."""
    yield b"{"
    for said, graph in images:
        records = _records(said, _boxes(graph), 2 * tally["pairs"], tally)
        yield b",\n" if tally["images"] else b"\n"
        yield msgspec.json.encode(said.image_id) + b": "
        yield msgspec.json.encode({"captions": records})
        tally["images"] += 1
        tally["pairs"] += len(records) // 2
    yield b"\n}\n"


def _boxes(graph: SceneGraph) -> list[tuple[str, _Box]]:
    """(object id, box), at the number by which captions refer to the object."""
    return [
        (object_id, _Box(_Rectangle(found.x, found.y, found.w, found.h), found.name))
        for object_id, found in sorted(graph.objects.items())
    ]


def _records(
    said: ImageCaptions, boxes: list[tuple[str, _Box]], first_id: int, tally: Counter[str]
) -> dict[str, _Record]:
    """The records of an image by their ids, true and false ones in turn."""
    records: dict[str, _Record] = {}
    for group in said.groups:
        for negative in group.negatives:
            if negative.open_world:
                tally[OPEN_WORLD] += 1
                continue
            number = first_id + len(records)
            positive, wrong = _pair(group, negative, boxes, number)
            records |= {str(number): positive, str(number + 1): wrong}
    return records


def _pair(
    group: CaptionGroup, negative: Negative, boxes: list[tuple[str, _Box]], positive_id: int
) -> tuple[_Record, _Record]:
    before = negative.replaced[0] if negative.replaced else None
    positive = _Record(
        caption=group.positive,
        label=1,
        type=negative.type,
        textual_label=before if negative.type.startswith("relation_") else None,
        bboxes=_shown(boxes, group.objects),
    )
    wrong = _Record(
        caption=negative.caption,
        label=0,
        type=negative.type,
        textual_label=_LABELS.get(negative.type, before),
        bboxes=_shown(boxes, group.objects + negative.objects),
        replaced=negative.replaced,
        cpt_p_id=positive_id,
    )
    return positive, wrong


def _shown(boxes: list[tuple[str, _Box]], objects: Iterable[int]) -> dict[str, _Box]:
    return dict(boxes[number] for number in sorted(set(objects)))
