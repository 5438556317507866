"""Random scene graphs as dense as GQA's: 16 objects and 50 relations an image.

Most relations are left and right, said from both sides and true of the boxes, as in GQA. Of the
pictures themselves nothing is known: the graphs are for measuring speed, not for training.
"""

import json
import random
from pathlib import Path
from typing import Any

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negative_types import NEGATIVE_TYPES
from hnc_ds.captions.scene_graphs import read_scene_graphs
from hnc_ds.records import CaptionGroup

WIDTH, HEIGHT = 500, 375
OBJECTS = 16
SIDE_PAIRS = 22
"""Pairs of objects with a left and a right relation: 44 of the 50 relations."""
OTHER_RELATIONS = 6

NAMES = (
    "man woman boy girl dog cat horse shirt pants jacket hat shoe table chair bench sofa lamp cup "
    "plate bottle bag book window door wall building tree bush grass sky cloud road car bus "
    "bicycle sign pole fence ball umbrella"
)
ATTRIBUTES = (
    "red blue green white black brown gray yellow large small tall short wooden metal round open "
    "closed clean dirty wet dry"
)
PREDICATES = "on, in, wearing, holding, near, behind, in front of, next to, above, below"


def write_graphs(path: Path, images: int, seed: int) -> Path:
    """A file of random graphs in GQA's layout; returns its path."""
    rng = random.Random(seed)
    path.write_text(json.dumps({f"{number:07}": _graph(rng) for number in range(images)}))
    return path


def caption_sets(folder: Path, images: int, most: int) -> list[tuple[CaptionGroup, ...]]:
    """The caption groups of random images, at most ``most`` of each, as hnc_ds makes them."""
    path = write_graphs(folder / "captioned_sceneGraphs.json", images, seed=1)
    types = tuple(NEGATIVE_TYPES)
    found = (caption_groups(graph, types, 0, most).groups for graph in read_scene_graphs(path))
    return [groups for groups in found if groups]


def _graph(rng: random.Random) -> dict[str, Any]:
    objects = {str(number): _object(rng) for number in range(OBJECTS)}
    pairs = [(one, other) for one in objects for other in objects if one < other]
    drawn = rng.sample(pairs, SIDE_PAIRS + OTHER_RELATIONS)
    for one, other in drawn[:SIDE_PAIRS]:
        left, right = sorted((one, other), key=lambda number: _centre(objects[number]))
        _relate(objects[left], "to the left of", right)
        _relate(objects[right], "to the right of", left)
    for one, other in drawn[SIDE_PAIRS:]:
        _relate(objects[one], rng.choice(PREDICATES.split(", ")), other)
    return {"width": WIDTH, "height": HEIGHT, "objects": objects}


def _object(rng: random.Random) -> dict[str, Any]:
    w, h = rng.randint(20, 200), rng.randint(20, 200)
    return {
        "name": rng.choice(NAMES.split()),
        "x": rng.randint(0, WIDTH - w),
        "y": rng.randint(0, HEIGHT - h),
        "w": w,
        "h": h,
        "attributes": rng.sample(ATTRIBUTES.split(), rng.choice([0, 0, 1, 1, 2])),
        "relations": [],
    }


def _relate(subject: dict[str, Any], name: str, other: str) -> None:
    subject["relations"].append({"name": name, "object": other})


def _centre(thing: dict[str, Any]) -> float:
    return float(thing["x"] + thing["w"] / 2)
