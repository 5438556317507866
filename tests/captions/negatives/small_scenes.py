"""Scene graphs made by hand, and the captions that come out of them."""

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import Relation, SceneGraph, SceneObject

ALL = tuple(NEGATIVE_TYPES)


def thing(name, box, attributes=(), *relations):
    """relations: (predicate, object id)."""
    edges = tuple(Relation(name=p, object=o) for p, o in relations)
    return SceneObject(name, *box, attributes=tuple(attributes), relations=edges)


def star_above_ring(star=("red",), ring=("blue",), edge="above"):
    return {
        "a": thing("star", (40, 10, 20, 20), star, (edge, "b")),
        "b": thing("ring", (40, 70, 20, 20), ring),
    }


def in_a_row():
    """star, box, ring and cross from left to right; two dogs, three cats."""
    left, right = "to the left of", "to the right of"
    objects = {
        "a": thing("star", (10, 90, 9, 9), ["red"], (left, "c"), (left, "d")),
        "b": thing("box", (30, 90, 9, 9), ["yellow"], (left, "c"), (left, "d")),
        "c": thing("ring", (50, 90, 9, 9), ["blue"], (right, "a"), (right, "b"), (left, "d")),
        "d": thing("cross", (70, 90, 9, 9), ["green"], (right, "c"), (right, "a")),
    }
    for name, count in (("dog", 2), ("cat", 3)):
        for i in range(count):
            objects[f"{name}{i}"] = thing(name, (20 * i, 10 if name == "dog" else 40, 9, 9))
    return objects


def groups_of(objects, types=DEFAULT_TYPES, seed=0, most=48, image_id="1", **options):
    graph = SceneGraph(image_id, 100, 100, objects)
    return caption_groups(graph, types, seed, Options(max_groups=most, **options)).groups


def over_seeds(objects, types=DEFAULT_TYPES, seeds=30, **options):
    """Every (positive, type, negative) that some seed gives."""
    return {
        (group.positive, negative.type, negative.caption)
        for seed in range(seeds)
        for group in groups_of(objects, types, seed, **options)
        for negative in group.negatives
    }


def proposed(objects, type_, seeds=40):
    """Every (true caption, false caption) that a type proposes for balance over the data set."""
    found = set()
    for seed in range(seeds):
        graph = SceneGraph("1", 100, 100, objects)
        image = DescribedImage(graph, f"{seed}/1", Options(balance="data"))
        for proposal in NEGATIVE_TYPES[type_].proposals(image):
            found |= {(pair.positive, pair.negative.caption) for pair in proposal.make_bundle()}
    return found
