"""Read scene graphs in GQA's JSON layout: {image id: {width, height, objects: {...}}}.

Streams one image at a time. Known faults of real files (relations to missing objects, boxes without
area, empty names, fractional pixels) are fixed or dropped, and counted; any other layout is a
UserError. ``hnc-ds generate --check FILE`` reads and decodes every graph as generate.py does, so
generate.py can read a file that passes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from tqdm import tqdm

from hnc_ds.captions.formats.json_members import Member, members
from hnc_ds.captions.truth.boxes import Box, box_of, nearly_one
from hnc_ds.errors import UserError, counted
from hnc_ds.reading import is_gzipped, kind_of, refuse_repeated_keys
from hnc_ds.records import Relation, SceneGraph, SceneObject

NO_NAME = "objects without a name"
NO_AREA = "boxes without area"
MISSING_END = "relations to a missing object"
NO_PREDICATE = "relations without a name"
TO_ITSELF = "relations of an object to itself"
EMPTY_ATTRIBUTE = "empty attributes"
SEEN_TWICE = "images that occur twice"
DOUBLES = "objects that may be annotated twice"


LARGEST = 1e6
"""Maximum coordinate in pixels; no image is larger."""


@dataclass
class ReadCounts:
    """Counts that grow while the graphs are iterated."""

    images: int = 0
    irregular: Counter[str] = field(default_factory=Counter)
    """Number of irregularities by the reasons above. They were dropped, except boxes without area,
    which prove nothing, and possible duplicates, which are not counted in captions."""


class _GqaRelation(msgspec.Struct):
    name: str
    object: str


_Place = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
_Size = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]


class _GqaObject(msgspec.Struct):
    name: str
    x: _Place
    y: _Place
    w: _Place
    h: _Place
    attributes: list[str] = []
    relations: list[_GqaRelation] = []


class _GqaGraph(msgspec.Struct):
    width: _Size
    height: _Size
    objects: dict[str, _GqaObject]


_BYTE = re.compile(r" \(byte (\d+)\)$")
"""The end of msgspec's messages about broken JSON."""

_decoder = msgspec.json.Decoder(_GqaGraph)


def read_scene_graphs(path: Path, counts: ReadCounts | None = None) -> Iterator[SceneGraph]:
    """The scene graphs of a file, in file order, one at a time.

    Args:
        path: train_sceneGraphs.json or any file of that layout, .json or .json.gz.
        counts: Receives the counts.

    Raises:
        UserError: Missing file, broken JSON (with its position), not GQA's layout (with image id
            and field).
    """
    counts = ReadCounts() if counts is None else counts
    for member in scene_graph_members(path, counts):
        yield decode_scene_graph(path, member, counts.irregular)


def scene_graph_members(path: Path, counts: ReadCounts) -> Iterator[Member]:
    """The undecoded graphs of a file; cheap enough for one process to feed all workers.

    If an image occurs twice, the first is used.
    """
    seen: set[str] = set()
    for member in members(path):
        if member.key in seen:
            counts.irregular[SEEN_TWICE] += 1
            continue
        seen.add(member.key)
        counts.images += 1
        yield member


def decode_scene_graph(path: Path, member: Member, irregular: Counter[str]) -> SceneGraph:
    """Decode, check and clean one graph; ``irregular`` receives what was fixed or dropped."""
    where = f"{path}: image '{member.key}'"
    try:
        graph = _decoder.decode(member.value)
        if member.value.count(b":") != _colons(graph, member.value):
            refuse_repeated_keys(member.value, where)
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply; copy the file again") from error
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_not_gqa(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        byte, what = _place(member.value, str(error))
        raise UserError(
            f"{where}: broken JSON at byte {member.offset + byte}: {what}; copy the file again"
        ) from error
    return _cleaned(graph, member.key, irregular)


def convert_scene_graph(where: str, value: Any, image_id: str) -> SceneGraph:
    """``decode_scene_graph`` of a graph in memory.

    Args:
        where: Prefix of messages.
        value: The graph as JSON values.
        image_id: Its id.

    Raises:
        UserError: It is not in GQA's layout.
    """
    try:
        graph = msgspec.convert(value, _GqaGraph)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_not_gqa(error)}") from error
    return _cleaned(graph, image_id, Counter())


def _not_gqa(error: msgspec.ValidationError) -> str:
    return f"not a GQA scene graph ({error}); expected width, height and objects"


def _cleaned(graph: _GqaGraph, image_id: str, irregular: Counter[str]) -> SceneGraph:
    _clean_names(graph, irregular)
    objects = {
        object_id: _clean(object_id, obj, graph, irregular)
        for object_id, obj in graph.objects.items()
    }
    _count_doubles(objects.values(), irregular)
    return SceneGraph(image_id, _pixels(graph.width), _pixels(graph.height), objects)


def _colons(graph: _GqaGraph, value: bytes) -> int:
    """Expected number of colons in a graph of GQA without repeated keys."""
    edges = sum(len(obj.relations) for obj in graph.objects.values())
    more = (b'"location"' in value) + (b'"weather"' in value)
    return 3 + more + 8 * len(graph.objects) + 2 * edges


def _place(value: bytes, error: str) -> tuple[int, str]:
    """Offset of the fault from the start of a value, and its description."""
    if match := _BYTE.search(error):
        return int(match[1]), error[: match.start()].removeprefix("JSON is malformed: ")
    try:
        value.decode()
    except UnicodeDecodeError as wrong:
        return wrong.start, "not UTF-8"
    return 0, error


def _clean_names(graph: _GqaGraph, irregular: Counter[str]) -> None:
    for object_id, obj in list(graph.objects.items()):
        obj.name = " ".join(obj.name.lower().split())
        if not obj.name:
            irregular[NO_NAME] += 1
            del graph.objects[object_id]


def _count_doubles(objects: Iterable[SceneObject], irregular: Counter[str]) -> None:
    """Count objects of one name with nearly equal boxes: probably one thing, annotated twice."""
    boxes_by_name: dict[str, list[Box]] = {}
    for obj in objects:
        box = box_of(obj)
        if box is not None:
            others = boxes_by_name.setdefault(obj.name, [])
            if any(nearly_one(box, other) for other in others):
                irregular[DOUBLES] += 1
            others.append(box)


def _clean(
    object_id: str, obj: _GqaObject, graph: _GqaGraph, irregular: Counter[str]
) -> SceneObject:
    if obj.w <= 0 or obj.h <= 0:
        irregular[NO_AREA] += 1
    attributes = tuple(dict.fromkeys(" ".join(a.lower().split()) for a in obj.attributes))
    if "" in attributes:
        irregular[EMPTY_ATTRIBUTE] += 1
        attributes = tuple(a for a in attributes if a)
    return SceneObject(
        name=obj.name,
        x=_pixels(obj.x),
        y=_pixels(obj.y),
        w=_pixels(obj.w),
        h=_pixels(obj.h),
        attributes=attributes,
        relations=tuple(_relations(object_id, obj, graph, irregular)),
    )


def _relations(
    object_id: str, obj: _GqaObject, graph: _GqaGraph, irregular: Counter[str]
) -> Iterator[Relation]:
    for relation in obj.relations:
        name = " ".join(relation.name.lower().split())
        if relation.object not in graph.objects:
            irregular[MISSING_END] += 1
        elif relation.object == object_id:
            irregular[TO_ITSELF] += 1
        elif not name:
            irregular[NO_PREDICATE] += 1
        else:
            yield Relation(name=name, object=relation.object)


def _pixels(value: float) -> int:
    return math.floor(value + 0.5)


GQA_IMAGES = {"train_sceneGraphs.json": 74_942, "val_sceneGraphs.json": 10_696}
"""Graphs in GQA's own files, by their names.

Source: counts of GQA 1.1 reported by its readers, github.com/XiaoxinHe/G-Retriever/issues/5.
"""

AGAIN = "unpack or download it again (sources: docs/data.md)"


def check_scene_graphs(path: Path) -> str:
    """Read every graph of a file and compare their number with that of GQA.

    Args:
        path: A .json or .json.gz file. The number is checked only if the file is named as one of
            GQA's and its ids are numbers, as GQA's are.

    Returns:
        One line with the counts.

    Raises:
        UserError: Missing, cut off, broken or empty file, not GQA's layout, or images missing.
    """
    _check_start(path)
    read = ReadCounts()
    objects = relations = 0
    numbered = True
    for graph in tqdm(read_scene_graphs(path, read), desc="check", unit=" images", disable=None):
        objects += len(graph.objects)
        relations += sum(len(obj.relations) for obj in graph.objects.values())
        numbered = numbered and graph.image_id.isdecimal()
    expected = GQA_IMAGES.get(path.name.removesuffix(".gz")) if numbered else None
    _check_number(path, read.images, expected)
    met = ", ".join(f"{number:,} {reason}" for reason, number in sorted(read.irregular.items()))
    return (
        f"{path}: complete: {counted(read.images, 'image')}{', as GQA has' if expected else ''}, "
        f"{counted(objects, 'object')}, {counted(relations, 'relation')}"
        + (f"; met {met}" if met else "")
    )


def _check_start(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give GQA's train_sceneGraphs.json or one of that layout"
        )
    if not is_gzipped(path) and (kind := kind_of(path)):
        raise UserError(f"{path}: is {kind}")


def _check_number(path: Path, images: int, expected: int | None) -> None:
    if not images:
        raise UserError(f"{path}: holds no images; {AGAIN}")
    if expected and images != expected:
        raise UserError(
            f"{path}: {images:,} images, but GQA's file of this name has {expected:,}; {AGAIN}, "
            "or give a part of it another name"
        )
