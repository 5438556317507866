"""What the things of a scene are: shapes, colours, patterns, sizes. Drawn, not placed.

Every draw is independent of where a thing will lie, so that looks say nothing about places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hnc_ds.config import ScenesConfig
from hnc_ds.scenes.pairs import PAIRINGS, snug_side
from hnc_ds.scenes.palette import COLOURS, PATTERNS
from hnc_ds.scenes.shapes import SHAPES

USUAL_SIDE = {1: 0.44, 2: 0.35, 3: 0.31, 4: 0.28, 5: 0.25, 6: 0.23, 7: 0.21, 8: 0.195}
"""Side of a thing as a share of the picture's, by how many things there are."""

HOST_SIDE = 1.75
"""How much larger than usual a thing is that holds another."""

MOST_DEGREES = 12.0
"""Rotation either way; more would turn squares into diamonds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one thing is and how it is to be drawn."""

    name: str
    colour: str
    pattern: str | None
    side: float
    degrees: float


def choose(
    config: ScenesConfig, count: int, pairing: str | None, rng: np.random.Generator
) -> list[Kind]:
    """Draw what the things are. With a pairing, the first two are its host and its guest."""
    names = _names(config, count, pairing, rng)
    colours = _colours(config, count, pairing, rng)
    sides = _sides(names, pairing, config.size, rng)
    kinds = []
    for i, name in enumerate(names):
        patterned = rng.random() < config.patterned
        pattern = str(rng.choice(PATTERNS)) if patterned else None
        upright = not SHAPES[name].turns or (pairing == "on" and i < 2)
        degrees = 0.0 if upright else float(rng.uniform(-MOST_DEGREES, MOST_DEGREES))
        kinds.append(Kind(name, colours[i], pattern, sides[i], degrees))
    return kinds


def _names(
    config: ScenesConfig, count: int, pairing: str | None, rng: np.random.Generator
) -> list[str]:
    """Shapes: all different, unless namesakes are drawn or there are fewer shapes than things."""
    known = list(SHAPES)[: config.shapes]
    hosts = [n for n in known if PAIRINGS[pairing].can_host(SHAPES[n])] if pairing else known
    first = str(rng.choice(hosts))
    others = [name for name in known if name != first]
    names = [first, *(str(name) for name in rng.permutation(others))]
    while len(names) < count:
        names.append(str(rng.choice(known)))
    if count > 1 and rng.random() < config.namesakes:
        for _ in range(rng.integers(1, max(1, count // 2) + 1)):
            place = int(rng.integers(1, count))
            names.insert(place, names[int(rng.integers(place))])
    return names[:count]


def _colours(
    config: ScenesConfig, count: int, pairing: str | None, rng: np.random.Generator
) -> list[str]:
    palette = list(COLOURS)[: config.colours]
    colours = [str(colour) for colour in rng.choice(palette, count)]
    if pairing:  # of the same colour, the guest could hardly be told from its host
        colours[1] = str(rng.choice([colour for colour in palette if colour != colours[0]]))
    return colours


def _sides(
    names: Sequence[str], pairing: str | None, size: int, rng: np.random.Generator
) -> list[float]:
    """Sides in pixels. In half of the pictures all are about alike, else some small, some large."""
    count = len(names)
    factors = rng.uniform(0.93, 1.07, count)
    if count > 1 and rng.random() < 0.5:
        large = rng.random(count) < 0.5
        if large.all() or not large.any():
            large[rng.integers(count)] ^= True
        factors = np.where(large, 1.25, 0.8) * rng.uniform(0.97, 1.03, count)
    sides = [float(factor) * USUAL_SIDE[count] * size for factor in factors]
    if pairing == "inside":
        sides[0] = HOST_SIDE * USUAL_SIDE[count] * size * float(rng.uniform(0.93, 1.07))
        snug = snug_side(SHAPES[names[0]], SHAPES[names[1]], sides[0])
        sides[1] = snug * float(rng.uniform(0.88, 1))
    if pairing == "in front of":  # else little would be seen of the one behind
        sides[1] = sides[0] * float(rng.uniform(0.88, 1.12))
    return sides
