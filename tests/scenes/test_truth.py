"""Scene graphs against boxes and pixels: what is written is what can be seen."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hnc_ds.config import ScenesConfig
from hnc_ds.records import SceneObject
from hnc_ds.scenes.geometry import Box, size_words
from hnc_ds.scenes.layout import COLOURS, Scene, compose
from hnc_ds.scenes.write import graph, jpeg

OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
    "in front of": "behind",
    "behind": "in front of",
}


def scenes(number: int, **settings: object) -> list[Scene]:
    config = ScenesConfig(out=Path(), **settings)
    return [compose(config, np.random.default_rng(i)) for i in range(number)]


def pixels(scene: Scene) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg(scene, np.random.default_rng(0)))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def distance(image: np.ndarray, colour: str) -> np.ndarray:
    return np.linalg.norm(image - np.array(COLOURS[colour]), axis=-1)


def holds(a: SceneObject, predicate: str, b: SceneObject, size: int) -> bool:
    """Truth from boxes alone, written down independently of the package."""
    apart = 0.02 * size
    boxes_meet = a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h
    return {
        "to the left of": b.x - (a.x + a.w) >= apart,
        "to the right of": a.x - (b.x + b.w) >= apart,
        "above": b.y - (a.y + a.h) >= apart,
        "below": a.y - (b.y + b.h) >= apart,
        "inside": b.x < a.x and b.y < a.y and a.x + a.w < b.x + b.w and a.y + a.h < b.y + b.h,
        "on": abs(a.y + a.h - b.y) <= 0.12 * b.h + 0.03 * size
        and b.x <= a.x + a.w / 2 <= b.x + b.w
        and a.y < b.y,
        "in front of": boxes_meet,
        "behind": boxes_meet,
    }[predicate]


@pytest.mark.parametrize("size", [32, 224])
def test_every_relation_is_true_of_the_boxes_and_has_its_counterpart(size: int) -> None:
    seen: Counter[str] = Counter()
    for scene in scenes(60, size=size, overlaps=0.8, shapes=12, objects=(2, 6)):
        objects = graph(scene, "x")
        edges = {(i, r.name, r.object) for i, thing in objects.items() for r in thing.relations}
        for i, predicate, j in edges:
            assert holds(objects[i], predicate, objects[j], size)
            if predicate in OPPOSITE:
                assert (j, OPPOSITE[predicate], i) in edges
        seen.update(predicate for _, predicate, _ in edges)
    assert seen.keys() == {*OPPOSITE, "on", "inside"}


def test_touching_pairs_have_no_direction() -> None:
    for scene in scenes(40, size=64, overlaps=1.0):
        objects = graph(scene, "x")
        for thing in objects.values():
            by_object: dict[str, list[str]] = {}
            for relation in thing.relations:
                by_object.setdefault(relation.object, []).append(relation.name)
            for names in by_object.values():
                assert len(names) == 1 or not {"on", "inside", "in front of", "behind"} & {*names}


def test_the_box_is_where_the_colour_is() -> None:
    for scene in scenes(30, size=96, objects=(1, 1), colours=6, shapes=12, patterned=0.0):
        (thing,) = graph(scene, "x").values()
        image = pixels(scene)
        outside = np.ones((96, 96), dtype=bool)
        left, top = max(0, thing.x - 8), max(0, thing.y - 8)
        outside[top : thing.y + thing.h + 8, left : thing.x + thing.w + 8] = False
        colour = thing.attributes[0]
        near = distance(image, colour) < distance(image[outside], colour).min() * 0.9
        ys, xs = np.nonzero(near)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        box = np.array([thing.x, thing.y, thing.x + thing.w, thing.y + thing.h])
        # Sharp points are drawn in the darker colour of the rim.
        assert np.abs(found - box).max() <= 4
        assert near[thing.y : thing.y + thing.h, thing.x : thing.x + thing.w].mean() > 0.3


def test_every_thing_shows_its_colour_and_no_other() -> None:
    for scene in scenes(30, size=96, patterned=0.0, overlaps=0.5):
        image = pixels(scene)
        for i, thing in enumerate(scene.things):
            visible = np.zeros(image.shape[:2], dtype=bool)
            for j, other in enumerate(scene.things[i:]):
                x, y, w, h = other.box
                spot = visible[y : y + h, x : x + w]
                spot[other.sprite.covered()] = j == 0
            shown = np.median(image[visible], axis=0)
            nearest = min(COLOURS, key=lambda name: float(distance(shown, name)))
            assert nearest == thing.kind.colour


def test_what_is_in_front_hides_a_part_of_what_is_behind() -> None:
    pairs = 0
    for scene in scenes(60, size=96, objects=(2, 2), overlaps=1.0, patterned=0.0):
        for fact in scene.facts:
            if fact.predicate != "in front of":
                continue
            front, behind = scene.things[fact.subject], scene.things[fact.object]
            covers = np.zeros((2, 96, 96), dtype=bool)
            for layer, thing in zip(covers, (front, behind), strict=True):
                x, y, w, h = thing.box
                layer[y : y + h, x : x + w] = thing.sprite.covered()
            both = covers.all(axis=0)
            assert 0.15 <= both.sum() / covers[1].sum() <= 0.5
            shown = np.median(pixels(scene)[both], axis=0)
            assert distance(shown, front.kind.colour) < distance(shown, behind.kind.colour)
            pairs += 1
    assert pairs > 10


def test_two_things_lie_in_every_direction_alike_whatever_they_are() -> None:
    directions: Counter[tuple[str, ...]] = Counter()
    earlier_in_alphabet: Counter[bool] = Counter()
    for scene in scenes(480, size=32, objects=(2, 2), overlaps=0.0, duplicate_shapes=0.0):
        first, second = graph(scene, "x").values()
        words = tuple(sorted(relation.name for relation in first.relations))
        directions[words] += 1
        if words in [("to the left of",), ("to the right of",)]:
            earlier_in_alphabet[(first.name < second.name) == (words[0] == "to the left of")] += 1
    assert len(directions) == 8
    assert all(40 <= count <= 80 for count in directions.values())  # 60, and 3 sigma of 7
    assert abs(earlier_in_alphabet[True] - earlier_in_alphabet[False]) < 35


def test_size_words_need_a_clear_gap() -> None:
    def words(*sides: int) -> list[str | None]:
        return size_words([Box(0, 0, side, side - 3) for side in sides])

    assert words(20, 32, 22) == ["small", "large", "small"]
    assert words(20, 22, 24) == [None] * 3
    assert words(20, 26, 36) == [None] * 3  # the middle one is neither
    assert words(20) == [None]


def test_eight_things_of_two_shapes_and_colours_fit_into_32_pixels() -> None:
    for scene in scenes(20, size=32, objects=(8, 8), shapes=2, colours=2, overlaps=0.7):
        assert len(scene.things) == 8


def test_a_share_of_the_images_has_the_fewest_objects() -> None:
    counts = [
        len(scene.things) for scene in scenes(400, size=64, objects=(2, 3), min_objects_share=0.6)
    ]
    assert 0.74 < counts.count(2) / 400 < 0.86  # 0.6 and half of the rest
    assert all(len(scene.things) == 2 for scene in scenes(9, objects=(2, 5), min_objects_share=1.0))


def test_shapes_repeat_only_with_duplicate_shapes() -> None:
    for scene in scenes(30, size=32, objects=(4, 4), duplicate_shapes=0.0):
        assert len({thing.kind.name for thing in scene.things}) == 4
    for scene in scenes(30, size=32, objects=(4, 4), duplicate_shapes=1.0):
        assert len({thing.kind.name for thing in scene.things}) < 4
