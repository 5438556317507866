"""Salience: weights of an image's objects in the seeded draws of captions.

Large objects, people and animals weigh more than parts and backgrounds, and so do objects with
more annotations.
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
"""Factor for people and animals, relative to other things of the same size."""
PART = 0.15
"""Factor for parts of other objects: a leg, a pipe."""
BACKGROUND = 0.3
"""Factor for a wall or the sky, whose boxes are large although nobody looks at them."""
MIN_SIDE = 0.05
"""Lower bound of an object's side, as a fraction of the image's."""
ANNOTATED = 1.25
"""Factor for having attributes, and again for relations other than left and right."""

LARGEST = 5
"""Number of objects of an image that its captions mention whenever they have statements."""

SIDES = frozenset({"to the left of", "to the right of"})
"""Predicates of 89 % of GQA's relations: annotated by rule, not because they matter."""


def salience(graph: SceneGraph) -> tuple[float, ...]:
    """A weight for each object, in the order of their sorted ids."""
    objects = [graph.objects[object_id] for object_id in sorted(graph.objects)]
    area = max(1, graph.width * graph.height)
    return tuple([_weight(found, area) for found in objects])


def _weight(found: SceneObject, area: int) -> float:
    side = sqrt(max(0, min(found.w * found.h, area)) / area)
    weight = max(MIN_SIDE, side) * _of_name(found.name)
    if found.attributes:
        weight *= ANNOTATED
    if any(relation.name not in SIDES for relation in found.relations):
        weight *= ANNOTATED
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
    """Whether a name is a background: ground or stuff that others stand on or before."""
    return is_a(name, "stuff") or is_a(name, "grounds")


@lru_cache(maxsize=1 << 14)
def is_part(name: str) -> bool:
    """Whether things of a name are parts of larger ones."""
    return is_a(name, "body_parts") or is_a(name, "parts")


def largest(graph: SceneGraph) -> tuple[int, ...]:
    """The objects with the largest boxes that are neither parts nor backgrounds, as positions among
    the sorted ids."""
    objects = [graph.objects[object_id] for object_id in sorted(graph.objects)]
    things = [
        i
        for i, found in enumerate(objects)
        if not is_part(found.name) and not is_background(found.name)
    ]
    things.sort(key=lambda i: (-objects[i].w * objects[i].h, i))
    return tuple(things[:LARGEST])


def shuffled(items: Sequence[_T], weights: Sequence[float], rng: random.Random) -> list[_T]:
    """A weighted shuffle: each next item is drawn from the rest by weight.

    Source: Efraimidis and Spirakis 2006, in the form of exponential clocks.
    """
    clock = [-log(1.0 - rng.random()) / weight for weight in weights]
    return [items[place] for place in sorted(range(len(items)), key=clock.__getitem__)]
