"""What is true of a rendered scene: relations and size words, read off the exact boxes.

Left, right, above and below are written only where the boxes stand apart by a margin, always in
both directions. On, inside, in front of and behind come from how the scene was laid out; boxes
of such pairs do not stand apart, so that nothing contradicts them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from hnc_ds.records import Relation, SceneObject

SIZE_GAP = 1.35
"""'small' and 'large' need two groups of sizes that are this far apart ..."""
SIZE_SPREAD = 1.25
"""... while sizes in each group differ at most this much."""


class Box(NamedTuple):
    """Pixels; x, y is the top left corner and y grows downwards."""

    x: int
    y: int
    w: int
    h: int


class Fact(NamedTuple):
    """A relation that was laid out, between two objects by their number in the scene."""

    subject: int
    predicate: str
    object: int


def margin(size: int) -> int:
    """Pixels by which boxes must stand apart in a picture of ``size`` pixels: 3 %."""
    return max(1, round(0.03 * size))


def directions(a: Box, b: Box, gap: int) -> list[str]:
    """Where a lies as seen from b: up to one word of left/right and one of above/below."""
    found = []
    if a.x + a.w + gap <= b.x:
        found.append("to the left of")
    if b.x + b.w + gap <= a.x:
        found.append("to the right of")
    if a.y + a.h + gap <= b.y:
        found.append("above")
    if b.y + b.h + gap <= a.y:
        found.append("below")
    return found


def size_words(boxes: Sequence[Box]) -> list[str | None]:
    """'small', 'large' or None for each box, by its longer side.

    Words are given only if the sizes fall into two tight groups with a clear gap between.
    """
    sides = [max(box.w, box.h) for box in boxes]
    ranked = sorted(sides)
    for smaller, larger in pairwise(ranked):
        tight = smaller <= SIZE_SPREAD * ranked[0] and ranked[-1] <= SIZE_SPREAD * larger
        if larger >= SIZE_GAP * smaller and tight:
            return ["small" if side <= smaller else "large" for side in sides]
    return [None] * len(sides)


def scene_objects(
    ids: Sequence[str],
    names: Sequence[str],
    attributes: Sequence[Sequence[str]],
    boxes: Sequence[Box],
    facts: Sequence[Fact],
    size: int,
) -> dict[str, SceneObject]:
    """The annotated objects of one scene, all sequences in the same order.

    Args:
        ids: Object ids.
        names: Nouns.
        attributes: Colour and pattern; size words are added here.
        boxes: Full extents, also of what is partly hidden.
        facts: Relations that were laid out.
        size: The picture's side in pixels.
    """
    words = size_words(boxes)
    objects = {}
    for i, box in enumerate(boxes):
        found = [(fact.predicate, fact.object) for fact in facts if fact.subject == i]
        for j, other in enumerate(boxes):
            if j != i:
                found += [(word, j) for word in directions(box, other, margin(size))]
        word = words[i]
        objects[ids[i]] = SceneObject(
            name=names[i],
            x=box.x,
            y=box.y,
            w=box.w,
            h=box.h,
            attributes=tuple(attributes[i]) + ((word,) if word else ()),
            relations=tuple(Relation(name=name, object=ids[j]) for name, j in found),
        )
    return objects
