"""Visual Genome's annotations of an image in GQA's layout.

    scene_graphs.json    {image_id, objects: [...], relationships: [{predicate, subject_id, ...}]}
    relationships.json   {image_id, relationships: [{predicate, subject: {...}, object: {...}}]}
    attributes.json      {image_id, attributes: [{object_id, names, attributes, x, y, w, h}]}

The three may be joined, as objects have the same ids in all. The size of an image is in
image_data.json; without it the boxes' extent stands for it.

Source: Visual Genome 1.2 to 1.4 (Krishna et al. 2017).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from hnc_ds.errors import UserError

LISTS = ("objects", "relationships", "attributes")
"""Keys of an entry that hold lists."""


class _Object(msgspec.Struct):
    object_id: int | str
    x: float
    y: float
    w: float
    h: float
    names: list[str] = []
    name: str = ""
    attributes: list[str] | None = None


class _Relationship(msgspec.Struct):
    predicate: str
    subject_id: int | str | None = None
    object_id: int | str | None = None
    subject: _Object | None = None
    object: _Object | None = None

    def ends(self) -> Iterator[_Object]:
        """The objects that it holds itself."""
        yield from (end for end in (self.subject, self.object) if end is not None)

    def ids(self) -> tuple[str, str]:
        """Ids of subject and object."""
        subject = self.subject_id if self.subject is None else self.subject.object_id
        obj = self.object_id if self.object is None else self.object.object_id
        return str(subject), str(obj)


class _Entry(msgspec.Struct):
    objects: list[_Object] = []
    relationships: list[_Relationship] = []
    attributes: list[_Object] = []
    width: float | None = None
    height: float | None = None


def is_visual_genome(graph: Mapping[str, Any]) -> bool:
    """Whether an annotation has Visual Genome's lists."""
    return any(isinstance(graph.get(name), list) for name in LISTS)


def as_gqa(where: str, graph: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of Visual Genome as a scene graph of GQA.

    Args:
        where: Prefix of messages.
        graph: The entry.

    Raises:
        UserError: It has another layout.
    """
    try:
        entry = msgspec.convert(dict(graph), _Entry)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{where}: not a scene graph of Visual Genome ({error}); expected lists of objects and "
            "relationships"
        ) from error
    objects = _objects(entry)
    for relationship in entry.relationships:
        subject, obj = relationship.ids()
        if subject in objects:
            relation = {"name": _plain(relationship.predicate), "object": obj}
            objects[subject]["relations"].append(relation)
    width, height = _extent(objects.values())
    return {
        "width": width if entry.width is None else entry.width,
        "height": height if entry.height is None else entry.height,
        "objects": objects,
    }


_AROUND = re.compile(r"^(?:is|are|was|were)\s+|\s+(?:an?|the|some|his|her|its|their|my)$")


def _plain(predicate: str) -> str:
    """A predicate without the words around it that captions add: 'is wearing a' -> 'wearing'."""
    return _AROUND.sub("", predicate.strip().lower())


def _objects(entry: _Entry) -> dict[str, dict[str, Any]]:
    """All objects by id; attributes of one that occurs several times are joined."""
    found: dict[str, dict[str, Any]] = {}
    ends = chain.from_iterable(relationship.ends() for relationship in entry.relationships)
    for one in chain(entry.objects, entry.attributes, ends):
        name = one.name or next(iter(one.names), "")
        box = {"x": one.x, "y": one.y, "w": one.w, "h": one.h}
        made = {"name": name, **box, "attributes": [], "relations": []}
        found.setdefault(str(one.object_id), made)["attributes"] += one.attributes or []
    return found


def _extent(objects: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Width and height up to the last box."""
    boxes = [(one["x"] + one["w"], one["y"] + one["h"]) for one in objects]
    return max((right for right, _ in boxes), default=0), max((end for _, end in boxes), default=0)
