"""Read scene graphs in GQA's JSON layout: {image id: {width, height, objects: {...}}}.

Streams: one image at a time, whatever the size of the file. What real files are known to hold
wrong (relations to objects that are not there, boxes without area, empty names, fractions of
pixels) is mended or dropped and counted; what is not GQA's layout at all is a UserError.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from hnc_ds.captions.formats.json_members import Member, members
from hnc_ds.captions.truth.boxes import Box, box_of, nearly_one
from hnc_ds.errors import UserError
from hnc_ds.reading import refuse_twins
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
"""Pixels; of no image, so that a larger number is no place in one."""


@dataclass
class ReadCounts:
    """What a reading met: grows while the graphs are iterated."""

    images: int = 0
    irregular: Counter[str] = field(default_factory=Counter)
    """How often each of the reasons above occurred. What has such a reason was dropped, but for
    boxes without area, which prove nothing, and doubles, of which no number is told."""


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
"""How msgspec ends what it says of broken JSON."""

_decoder = msgspec.json.Decoder(_GqaGraph)


def read_scene_graphs(path: Path, counts: ReadCounts | None = None) -> Iterator[SceneGraph]:
    """The scene graphs of a file, in file order, one at a time.

    Args:
        path: train_sceneGraphs.json or any file of that layout, .json or .json.gz.
        counts: Is filled with what was met on the way.

    Raises:
        UserError: Missing file, broken JSON (with its position), JSON that is not GQA's layout
            (with image id and field).
    """
    counts = ReadCounts() if counts is None else counts
    for member in scene_graph_members(path, counts):
        yield decode_scene_graph(path, member, counts.irregular)


def scene_graph_members(path: Path, counts: ReadCounts) -> Iterator[Member]:
    """The undecoded graphs of a file: what is cheap enough to be done for all workers by one.

    Of an image that occurs twice the first one counts.
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
    """Decode, check and clean one graph; what was mended or dropped is added to ``irregular``."""
    where = f"{path}: image '{member.key}'"
    try:
        graph = _decoder.decode(member.value)
        if member.value.count(b":") != _colons(graph, member.value):
            refuse_twins(member.value, where)
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply; copy the file again") from error
    except msgspec.ValidationError as error:
        raise UserError(
            f"{where}: not a GQA scene graph ({error}); expected width, height and objects"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        byte, what = _place(member.value, str(error))
        raise UserError(
            f"{where}: broken JSON at byte {member.offset + byte}: {what}; copy the file again"
        ) from error
    _mend_names(graph, irregular)
    objects = {
        object_id: _clean(object_id, found, graph, irregular)
        for object_id, found in graph.objects.items()
    }
    _count_doubles(objects.values(), irregular)
    return SceneGraph(member.key, _pixels(graph.width), _pixels(graph.height), objects)


def _colons(graph: _GqaGraph, value: bytes) -> int:
    """How many there are in a graph as GQA has them, no key of which stands twice."""
    edges = sum(len(found.relations) for found in graph.objects.values())
    more = (b'"location"' in value) + (b'"weather"' in value)
    return 3 + more + 8 * len(graph.objects) + 2 * edges


def _place(value: bytes, error: str) -> tuple[int, str]:
    """Where a value is broken, counted from its start, and how."""
    if match := _BYTE.search(error):
        return int(match[1]), error[: match.start()].removeprefix("JSON is malformed: ")
    try:
        value.decode()
    except UnicodeDecodeError as wrong:
        return wrong.start, "not UTF-8"
    return 0, error


def _mend_names(graph: _GqaGraph, irregular: Counter[str]) -> None:
    for object_id, found in list(graph.objects.items()):
        found.name = " ".join(found.name.lower().split())
        if not found.name:
            irregular[NO_NAME] += 1
            del graph.objects[object_id]


def _count_doubles(objects: Iterable[SceneObject], irregular: Counter[str]) -> None:
    """Objects of one name in nearly one place: perhaps one thing, boxed by two people."""
    namesakes: dict[str, list[Box]] = {}
    for found in objects:
        box = box_of(found)
        if box is not None:
            others = namesakes.setdefault(found.name, [])
            if any(nearly_one(box, other) for other in others):
                irregular[DOUBLES] += 1
            others.append(box)


def _clean(
    object_id: str, found: _GqaObject, graph: _GqaGraph, irregular: Counter[str]
) -> SceneObject:
    if found.w <= 0 or found.h <= 0:
        irregular[NO_AREA] += 1
    attributes = tuple(dict.fromkeys(" ".join(a.lower().split()) for a in found.attributes))
    if "" in attributes:
        irregular[EMPTY_ATTRIBUTE] += 1
        attributes = tuple(a for a in attributes if a)
    return SceneObject(
        name=found.name,
        x=_pixels(found.x),
        y=_pixels(found.y),
        w=_pixels(found.w),
        h=_pixels(found.h),
        attributes=attributes,
        relations=tuple(_relations(object_id, found, graph, irregular)),
    )


def _relations(
    object_id: str, found: _GqaObject, graph: _GqaGraph, irregular: Counter[str]
) -> Iterator[Relation]:
    for relation in found.relations:
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
