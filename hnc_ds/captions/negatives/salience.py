"""What one sees first: how much each object of an image is worth speaking of.

Large things and living ones come before parts and backgrounds, and what annotators said more about
before the rest. A weight is the chance of an object in seeded draws, beside others.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from math import log, sqrt
from typing import TypeVar

from hnc_ds.captions.language.kinds import is_a, is_animate
from hnc_ds.records import SceneGraph, SceneObject

_T = TypeVar("_T")

ANIMATE = 3.0
"""Times as likely as another thing of the same size."""
PART = 0.15
"""A leg, a pipe: beside a thing that is not part of another one."""
BACKGROUND = 0.3
"""A wall, the sky: their boxes are large whether or not one looks at them."""
LEAST = 0.05
"""Share of the image's side that the smallest thing counts as."""
TOLD = 1.25
"""For having attributes, and again for relations other than to its sides."""

LARGEST = 5
"""Things of an image that its captions are to mention wherever something can be said of them."""

SIDES = frozenset({"to the left of", "to the right of"})
"""The predicates of nine relations in ten of GQA: annotated by rule, not because they matter."""


def salience(graph: SceneGraph) -> tuple[float, ...]:
    """A weight for each object, in the order of their sorted ids."""
    objects = [graph.objects[object_id] for object_id in sorted(graph.objects)]
    area = max(1, graph.width * graph.height)
    return tuple([_weight(found, area) for found in objects])


def _weight(found: SceneObject, area: int) -> float:
    side = sqrt(max(0, min(found.w * found.h, area)) / area)
    weight = max(LEAST, side) * _of_name(found.name)
    if found.attributes:
        weight *= TOLD
    if any(relation.name not in SIDES for relation in found.relations):
        weight *= TOLD
    return weight


@lru_cache(maxsize=1 << 14)
def _of_name(name: str) -> float:
    if is_animate(name):
        return ANIMATE
    if is_part(name):
        return PART
    return BACKGROUND if is_background(name) else 1.0


@lru_cache(maxsize=1 << 14)
def is_background(name: str) -> bool:
    """Whether things of a name are what others stand on or before."""
    return is_a(name, "stuff") or is_a(name, "grounds")


@lru_cache(maxsize=1 << 14)
def is_part(name: str) -> bool:
    """Whether things of a name belong to larger ones."""
    return is_a(name, "body_parts") or is_a(name, "parts")


def largest(graph: SceneGraph) -> tuple[int, ...]:
    """The largest things of an image that are neither parts nor backgrounds, by the area of their
    boxes; places among the sorted ids."""
    objects = [graph.objects[object_id] for object_id in sorted(graph.objects)]
    things = [
        i
        for i, found in enumerate(objects)
        if not is_part(found.name) and not is_background(found.name)
    ]
    things.sort(key=lambda i: (-objects[i].w * objects[i].h, i))
    return tuple(things[:LARGEST])


def shuffled(items: Sequence[_T], weights: Sequence[float], rng: random.Random) -> list[_T]:
    """All items in drawn order: the first one by its weight, the next among the rest, and so on.

    Source: Efraimidis and Spirakis 2006, as a race of exponential clocks.
    """
    clock = [-log(1.0 - rng.random()) / weight for weight in weights]
    return [items[place] for place in sorted(range(len(items)), key=clock.__getitem__)]
