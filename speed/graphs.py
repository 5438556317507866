"""Random scene graphs that cost what GQA's cost: as many objects, attributes and relations.

Names, attributes and predicates come as words do, few of them often and most of them seldom, and
what is said of what makes sense: men wear shirts, cups stand on tables, with boxes that touch.
Most relations are left and right, said from both sides and true of the boxes. Of the images
nothing is known: the graphs are for measuring speed and balance, not for training.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.records import CaptionGroup
from speed.words import ATTRIBUTES, ATTRIBUTES_OF, GROUPS, RULES, SETTINGS, Placement, Rule

WIDTH, HEIGHT = 500, 375
OBJECTS = 16.4
"""Mean of an image, in GQA; so are the next three."""
SPREAD = 6
ATTRIBUTE_COUNTS = {0: 0.52, 1: 0.34, 2: 0.12, 3: 0.02}
"""Share of the objects with so many attributes."""
SIDE_PAIRS = 1.38
"""Pairs with a left and a right relation, for each object."""
OTHER_RELATIONS = 6
FIRST_OBJECT_ID = 1_000_000
SIZES = {"grounds": (0.5, 1.0), "people": (0.15, 0.6), "built": (0.1, 0.6), "parts": (0.03, 0.15)}
"""Group -> smallest and largest side of a box, as shares of the image's."""
USUAL_SIZE = (0.05, 0.35)

GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}

Box = tuple[float, float, float, float]
"""x, y, w, h in pixels; y grows downwards."""


def write_graphs(path: Path, images: int, seed: int, different: int | None = None) -> Path:
    """A file of random graphs in GQA's layout; returns its path.

    Args:
        path: Of the file.
        images: How many it has.
        seed: Same seed, same bytes.
        different: So many graphs are drawn, and come again and again under other ids; None: each
            image has its own.
    """
    rng = random.Random(seed)
    drawn = [json.dumps(_graph(rng)) for _ in range(min(images, different or images))]
    with path.open("w") as file:
        for number in range(images):
            file.write(f'{", " if number else "{"}"{number:07}": {drawn[number % len(drawn)]}')
        file.write("}")
    return path


def caption_sets(folder: Path, images: int, most: int) -> list[tuple[CaptionGroup, ...]]:
    """The caption groups of random images, at most ``most`` of each, as hnc_ds makes them."""
    path = write_graphs(folder / "captioned_sceneGraphs.json", images, seed=1)
    options = Options(max_groups=most)
    found = (
        caption_groups(graph, DEFAULT_TYPES, 0, options).groups for graph in read_scene_graphs(path)
    )
    return [groups for groups in found if groups]


def _graph(rng: random.Random) -> dict[str, Any]:
    count = max(2, round(rng.gauss(OBJECTS, SPREAD)))
    setting = SETTINGS[rng.choice(list(SETTINGS))]
    groups = rng.choices(list(setting), list(setting.values()), k=count)
    names = [_common_first(rng, GROUPS[group]) for group in groups]
    boxes = [_box(rng, group) for group in groups]
    relations: list[list[tuple[str, int]]] = [[] for _ in names]
    for subject, predicate, object_ in _sensible_relations(rng, names, boxes):
        relations[subject].append((predicate, object_))
    for left, right in _side_by_side(rng, boxes):
        relations[left].append(("to the left of", right))
        relations[right].append(("to the right of", left))
    ids = [str(FIRST_OBJECT_ID + number) for number in rng.sample(range(9 * 10**6), count)]
    objects = {
        ids[i]: _object(
            name,
            boxes[i],
            _attributes(rng, name),
            [{"name": p, "object": ids[j]} for p, j in relations[i]],
        )
        for i, name in enumerate(names)
    }
    return {"width": WIDTH, "height": HEIGHT, "objects": objects}


def _object(
    name: str, box: Box, attributes: list[str], relations: list[dict[str, str]]
) -> dict[str, Any]:
    sides = dict(zip("xywh", map(round, box), strict=True))
    return {"name": name, **sides, "attributes": attributes, "relations": relations}


def _common_first(rng: random.Random, words: Sequence[str]) -> str:
    """A word of a list, the nth with a frequency of 1 / n, as words have it (Zipf)."""
    return rng.choices(words, [1 / rank for rank in range(1, len(words) + 1)])[0]


def _attributes(rng: random.Random, name: str) -> list[str]:
    count = rng.choices(list(ATTRIBUTE_COUNTS), list(ATTRIBUTE_COUNTS.values()))[0]
    values = ATTRIBUTES_OF.get(name, ATTRIBUTES[GROUP_OF[name]])
    return list(dict.fromkeys(_common_first(rng, values) for _ in range(count)))


def _box(rng: random.Random, group: str) -> Box:
    smallest, largest = SIZES.get(group, USUAL_SIZE)
    w, h = (rng.uniform(smallest, largest) * side for side in (WIDTH, HEIGHT))
    return rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h), w, h


def _sensible_relations(
    rng: random.Random, names: list[str], boxes: list[Box]
) -> list[tuple[int, str, int]]:
    """Relations other than left and right; moves boxes to where the relation puts them."""
    options = [(rule, *_ends(rule, names)) for rule in RULES]
    options = [(rule, subjects, objects) for rule, subjects, objects in options if subjects]
    if not options:
        return []
    found: dict[tuple[int, int], str] = {}
    fixed: set[int] = set()
    wanted = max(0, round(rng.gauss(OTHER_RELATIONS, 2)))
    for rule, subjects, objects in rng.choices(options, [o[0].weight for o in options], k=30):
        i, j = rng.choice(subjects), rng.choice(objects)
        # What is worn or held moves to whoever does it, all else to its object.
        moved, host = (j, i) if rule.predicate in ("wearing", "holding", "carrying") else (i, j)
        if len(found) == wanted or i == j or (i, j) in found or (j, i) in found or moved in fixed:
            continue
        boxes[moved] = _placed(rng, boxes[moved], boxes[host], rule.placement)
        fixed |= {moved, host} if rule.placement != "anywhere" else set()
        found[i, j] = rule.predicate
    return [(i, predicate, j) for (i, j), predicate in found.items()]


def _ends(rule: Rule, names: list[str]) -> tuple[list[int], list[int]]:
    """Objects that may be a rule's subject, and its object; none of either if one is lacking."""
    subjects = [i for i, name in enumerate(names) if {name, GROUP_OF[name]} & {*rule.subjects}]
    objects = [i for i, name in enumerate(names) if {name, GROUP_OF[name]} & {*rule.objects}]
    return (subjects, objects) if subjects and objects else ([], [])


def _placed(rng: random.Random, box: Box, host: Box, placement: Placement) -> Box:
    """The box where it belongs, beside its host's, and within the image."""
    x, y, w, h = host
    own_w, own_h = box[2], box[3]
    if placement == "anywhere":
        return box
    if placement in ("inside", "onto"):
        own_w, own_h = min(own_w, 0.6 * w), min(own_h, 0.6 * h)
    left = x + rng.uniform(0, max(0.0, w - own_w))
    top = {
        "inside": y + rng.uniform(0, max(0.0, h - own_h)),
        "onto": y + rng.uniform(-own_h, 0) + 0.2 * h,
        "beneath": y + h - 0.1 * own_h,
        "above": y - 0.9 * own_h,
    }.get(placement, y + h - own_h)
    if placement == "beside":
        left = rng.choice([x - 0.9 * own_w, x + w - 0.1 * own_w])
    return _within(left, WIDTH - own_w), _within(top, HEIGHT - own_h), own_w, own_h


def _within(value: float, most: float) -> float:
    return min(max(0.0, value), max(0.0, most))


def _side_by_side(rng: random.Random, boxes: list[Box]) -> list[tuple[int, int]]:
    """Pairs of which the first lies to the left of the second."""
    centres = [x + w / 2 for x, _, w, _ in boxes]
    pairs = [
        (i, j)
        for i in range(len(boxes))
        for j in range(len(boxes))
        if centres[j] - centres[i] > 0.04 * WIDTH
    ]
    return rng.sample(pairs, min(len(pairs), round(SIDE_PAIRS * len(boxes))))
