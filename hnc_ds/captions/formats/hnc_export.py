"""Write captions in the layout of the released HNC files.

    {"2386621": {"captions": {"0": {caption, label, type, ..., cpt_p_id}, "1": {...}, ...}}, ...}

Each negative follows its own positive record of the same type and refers to it in ``cpt_p_id``.
Caption ids are consecutive over the whole file. No caption is marked as ambiguous or noisy: all are
proven, and 'the star' is exactly one object. Open-world negatives are left out, as the layout has
no field for them.

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

from hnc_ds.atomic_files import atomic_file, writing
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.errors import UserError, counted
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, SceneGraph

OPEN_WORLD = "negatives that are not proven false"

_LABELS = {"xor_logic_attr": None, "xor_logic_rel": "both"}
"""``textual_label`` of false captions of these types, instead of the replaced words."""

GZIP_LEVEL = 6
"""Level 9 takes several times as long and saves little."""


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
    """The replaced words; in the release also present in true captions of relations."""
    bboxes: dict[str, _Box]
    ambiguity: _Ambiguity = _Ambiguity()
    noisy: bool = False
    replaced: tuple[str, str] | None = None
    cpt_p_id: int | None = None
    """In a negative, the id of its positive."""


def write_release(captions: Path, scene_graphs: Path, out: Path) -> int:
    """Write a file of captions in HNC's layout, and print what was written and left out.

    Both files are read in parallel; memory holds one image at a time.

    Args:
        captions: Output of ``hnc-ds generate``.
        scene_graphs: Its input; the source of names and boxes.
        out: .json or .json.gz, written atomically. An existing file is replaced.

    Returns:
        The number of pairs of captions.

    Raises:
        UserError: Wrong suffix of ``out``, captions of other graphs (names the image), unreadable
            or broken input, full disk.
    """
    check_release_name(out)
    tally: Counter[str] = Counter()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as file, _compressed(file, out) as stream:
            stream.writelines(_content(_aligned(captions, scene_graphs), tally))
    left_out = f"{tally[OPEN_WORLD]:,} {OPEN_WORLD}" if tally[OPEN_WORLD] else "none"
    print(
        f"{out}: {counted(tally['pairs'], 'pair')} of captions of "
        f"{counted(tally['images'], 'image')}; "
        f"left out: {left_out}"
    )
    return tally["pairs"]


def check_release_name(out: Path) -> None:
    """Check the suffix of the output.

    Raises:
        UserError: It is neither .json nor .json.gz.
    """
    if not out.name.endswith((".json", ".json.gz")):
        raise UserError(f"hnc_json is {out}; its name must end in .json or .json.gz")


@contextmanager
def _compressed(file: BinaryIO, out: Path) -> Iterator[BinaryIO]:
    if out.suffix != ".gz":
        yield file
        return
    # Without name and time in the header, equal captions give equal bytes.
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as stream:
        yield cast(BinaryIO, stream)


def _aligned(captions: Path, scene_graphs: Path) -> Iterator[tuple[ImageCaptions, SceneGraph]]:
    """Captions and graph of each image; both files have the same images in the same order."""
    for image, graph in zip_longest(read_captions(captions), read_scene_graphs(scene_graphs)):
        if image is None or graph is None or image.image_id != graph.image_id:
            raise UserError(
                f"{captions}: {_called(image)} where {scene_graphs} has {_called(graph)}; "
                "give the scene graphs that the captions were made from"
            )
        if not _objects(image) <= set(range(len(graph.objects))):
            raise UserError(
                f"{captions}: image '{image.image_id}' refers to objects that {scene_graphs} "
                "does not have; give the scene graphs that the captions were made from"
            )
        yield image, graph


def _called(image: ImageCaptions | SceneGraph | None) -> str:
    return f"image '{image.image_id}'" if image else "no more images"


def _objects(image: ImageCaptions) -> set[int]:
    """The numbers of all objects that an image's captions refer to."""
    numbers: set[int] = set()
    for group in image.groups:
        numbers.update(group.objects, *(negative.objects for negative in group.negatives))
    return numbers


def _content(
    images: Iterable[tuple[ImageCaptions, SceneGraph]], tally: Counter[str]
) -> Iterator[bytes]:
    """The content of the file, one image per line."""
    yield b"{"
    for image, graph in images:
        records = _records(image, _boxes(graph), 2 * tally["pairs"], tally)
        yield b",\n" if tally["images"] else b"\n"
        yield msgspec.json.encode(image.image_id) + b": "
        yield msgspec.json.encode({"captions": records})
        tally["images"] += 1
        tally["pairs"] += len(records) // 2
    yield b"\n}\n"


def _boxes(graph: SceneGraph) -> list[tuple[str, _Box]]:
    """(object id, box); captions refer to objects by their index here."""
    return [
        (object_id, _Box(_Rectangle(obj.x, obj.y, obj.w, obj.h), obj.name))
        for object_id, obj in sorted(graph.objects.items())
    ]


def _records(
    image: ImageCaptions, boxes: list[tuple[str, _Box]], first_id: int, tally: Counter[str]
) -> dict[str, _Record]:
    """The records of an image by their ids, alternately true and false."""
    records: dict[str, _Record] = {}
    for group in image.groups:
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
        bboxes=_boxes_of(boxes, group.objects),
    )
    wrong = _Record(
        caption=negative.caption,
        label=0,
        type=negative.type,
        textual_label=_LABELS.get(negative.type, before),
        bboxes=_boxes_of(boxes, group.objects + negative.objects),
        replaced=negative.replaced,
        cpt_p_id=positive_id,
    )
    return positive, wrong


def _boxes_of(boxes: list[tuple[str, _Box]], objects: Iterable[int]) -> dict[str, _Box]:
    return dict(boxes[number] for number in sorted(set(objects)))
