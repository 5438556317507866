"""Compose a scene: draw its things and their positions; write.py paints it.

Shapes, colours, patterns and sizes are drawn independently of positions, so appearance carries no
information about them. Positions are whole pixels, so the boxes of placed sprites are exact. Two
separate things are clearly side by side, one above the other, or diagonal. All eight directions are
equally likely and independent of what the things are, so only the image reveals them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hnc_ds.config import ScenesConfig
from hnc_ds.scenes.geometry import (
    PAIRINGS,
    SHAPES,
    Box,
    Fact,
    Offset,
    Sprite,
    draw,
    margin,
    snug_side,
)

COLOURS = {
    "red": (216, 38, 44),
    "blue": (38, 82, 214),
    "green": (40, 160, 62),
    "yellow": (247, 214, 38),
    "purple": (130, 46, 172),
    "orange": (246, 130, 22),
    "white": (247, 247, 245),
    "black": (26, 26, 30),
    "pink": (248, 142, 190),
    "brown": (122, 74, 38),
    "teal": (16, 148, 150),
}
"""Colour word -> sRGB, 0..255; each image varies them slightly. Settings take the first ones."""

PATTERNS = ("striped", "dotted")
"""Attributes of things that are not plain."""

USUAL_SIDE = {1: 0.44, 2: 0.35, 3: 0.31, 4: 0.28, 5: 0.25, 6: 0.23, 7: 0.21, 8: 0.195}
"""Number of things -> side of a thing, as a fraction of the image's side."""

HOST_SIDE = 1.75
"""Scale of a thing that contains another."""

MAX_DEGREES = 12.0
"""Maximum rotation in either direction; more would turn squares into diamonds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Name and appearance of one thing."""

    name: str
    colour: str
    pattern: str | None
    side: float
    degrees: float


def choose(
    config: ScenesConfig, count: int, pairing: str | None, rng: np.random.Generator
) -> list[Kind]:
    """Draw the kinds of all things. With a pairing, the first two are its host and guest."""
    names = _names(config, count, pairing, rng)
    colours = _colours(config, count, pairing, rng)
    sides = _sides(names, pairing, config.size, rng)
    kinds = []
    for i, name in enumerate(names):
        patterned = rng.random() < config.patterned
        pattern = str(rng.choice(PATTERNS)) if patterned else None
        upright = not SHAPES[name].turns or (pairing == "on" and i < 2)
        degrees = 0.0 if upright else float(rng.uniform(-MAX_DEGREES, MAX_DEGREES))
        kinds.append(Kind(name, colours[i], pattern, sides[i], degrees))
    return kinds


def _names(
    config: ScenesConfig, count: int, pairing: str | None, rng: np.random.Generator
) -> list[str]:
    """Shape names; unique unless duplicates are drawn or there are fewer shapes than things."""
    known = list(SHAPES)[: config.shapes]
    hosts = [n for n in known if PAIRINGS[pairing].can_host(SHAPES[n])] if pairing else known
    first = str(rng.choice(hosts))
    others = [name for name in known if name != first]
    names = [first, *(str(name) for name in rng.permutation(others))]
    while len(names) < count:
        names.append(str(rng.choice(known)))
    if count > 1 and rng.random() < config.duplicate_shapes:
        for _ in range(rng.integers(1, max(1, count // 2) + 1)):
            place = int(rng.integers(1, count))
            names.insert(place, names[int(rng.integers(place))])
    return names[:count]


def _colours(
    config: ScenesConfig, count: int, pairing: str | None, rng: np.random.Generator
) -> list[str]:
    palette = list(COLOURS)[: config.colours]
    colours = [str(colour) for colour in rng.choice(palette, count)]
    if pairing:  # in the same colour, the guest would be hard to see
        colours[1] = str(rng.choice([colour for colour in palette if colour != colours[0]]))
    return colours


def _sides(
    names: Sequence[str], pairing: str | None, size: int, rng: np.random.Generator
) -> list[float]:
    """Sides in pixels: similar in half of the images, else some small and some large."""
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
    if pairing == "in front of":  # so that enough of the one behind is visible
        sides[1] = sides[0] * float(rng.uniform(0.88, 1.12))
    return sides


DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Direction from the first to the second of two things: signs of x and y."""

SPACING = 0.05
"""Distance between things that do not touch, as a fraction of the image's side."""

LEVEL = 0.25
"""Maximum vertical offset of the centres of two things side by side, as a fraction of the
height."""

CANDIDATES = 256
"""Random positions that are tried at once."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One placed thing."""

    kind: Kind
    sprite: Sprite
    box: Box


@dataclass(frozen=True, slots=True)
class Scene:
    """An image to be painted."""

    size: int
    things: tuple[Thing, ...]
    """From back to front."""
    facts: tuple[Fact, ...]
    order: tuple[int, ...]
    """Random order of the things in the graph; the painting order would reveal occlusion."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Things that are placed together."""

    sprites: tuple[Sprite, ...]
    offsets: tuple[Offset, ...]
    """Offset of each sprite's box from the unit's corner."""
    w: int
    h: int


def compose(config: ScenesConfig, rng: np.random.Generator) -> Scene:
    """Draw one scene at random.

    Raises:
        RuntimeError: Nothing fits; the limits of ScenesConfig exclude it.
    """
    for _ in range(50):
        few, many = config.objects
        if config.min_objects_share and rng.random() < config.min_objects_share:
            many = few
        count = int(rng.integers(few, many + 1))
        paired = count > 1 and rng.random() < config.overlaps
        pairing = str(rng.choice(list(PAIRINGS))) if paired else None
        kinds = choose(config, count, pairing, rng)
        direction = DIRECTIONS[int(rng.integers(len(DIRECTIONS)))]
        for attempt in range(8):
            shrink = 0.94**attempt
            if scene := _arrange(config.size, kinds, pairing, direction, shrink, rng):
                return scene
    raise RuntimeError(f"no room for {config.objects} things in {config.size} pixels")


def _arrange(
    size: int,
    kinds: Sequence[Kind],
    pairing: str | None,
    direction: tuple[int, int],
    shrink: float,
    rng: np.random.Generator,
) -> Scene | None:
    """Draw and place things; None if no position was found."""
    sprites = [draw(SHAPES[kind.name], kind.side * shrink, kind.degrees) for kind in kinds]
    units = [Unit((sprite,), ((0, 0),), sprite.w, sprite.h) for sprite in sprites]
    if pairing:
        host, guest = sprites[:2]
        offset = PAIRINGS[pairing].place(SHAPES[kinds[0].name], host, guest, rng)
        if offset is None:
            return None
        units[:2] = [_joined(host, guest, offset)]
    if len(units) == 2:
        corners = _two_corners(size, units, direction, rng)
    else:
        corners = _free_corners(size, units, rng)
    if corners is None:
        return None
    boxes = [
        Box(x + dx, y + dy, sprite.w, sprite.h)
        for unit, (x, y) in zip(units, corners, strict=True)
        for sprite, (dx, dy) in zip(unit.sprites, unit.offsets, strict=True)
    ]
    return Scene(
        size=size,
        things=tuple(Thing(*parts) for parts in zip(kinds, sprites, boxes, strict=True)),
        facts=PAIRINGS[pairing].facts if pairing else (),
        order=tuple(int(i) for i in rng.permutation(len(kinds))),
    )


def _joined(host: Sprite, guest: Sprite, offset: Offset) -> Unit:
    x, y = offset
    left, top = min(0, x), min(0, y)
    right, bottom = max(host.w, x + guest.w), max(host.h, y + guest.h)
    offsets = ((-left, -top), (x - left, y - top))
    return Unit((host, guest), offsets, right - left, bottom - top)


def _spacing(size: int) -> int:
    return max(margin(size), round(SPACING * size))


def _random_corners(size: int, unit: Unit, rng: np.random.Generator) -> np.ndarray | None:
    """CANDIDATES corners, int [CANDIDATES, 2], that keep a unit within the image."""
    edge = margin(size)
    room = (size - 2 * edge - unit.w, size - 2 * edge - unit.h)
    if min(room) < 0:
        return None
    return edge + rng.integers(0, np.array(room) + 1, (CANDIDATES, 2))


def _two_corners(
    size: int, units: Sequence[Unit], direction: tuple[int, int], rng: np.random.Generator
) -> list[Offset] | None:
    """Corners of two units, the second in the given direction from the first."""
    first, second = (_random_corners(size, unit, rng) for unit in units)
    if first is None or second is None:
        return None
    gap = _spacing(size)
    spans = np.array([(unit.w, unit.h) for unit in units])
    good = np.ones(CANDIDATES, dtype=bool)
    for axis, sign in enumerate(direction):
        after = second[:, axis] - first[:, axis] - spans[0, axis] >= gap
        before = first[:, axis] - second[:, axis] - spans[1, axis] >= gap
        centres = (second[:, axis] - first[:, axis]) + (spans[1, axis] - spans[0, axis]) / 2
        level = np.abs(centres) <= LEVEL * spans[:, axis].min()
        good &= {1: after, -1: before, 0: level}[sign]
    if not good.any():
        return None
    pick = int(good.argmax())
    return [(int(x), int(y)) for x, y in (first[pick], second[pick])]


def _free_corners(
    size: int, units: Sequence[Unit], rng: np.random.Generator
) -> list[Offset] | None:
    """Corners of units that do not touch; the largest is placed first."""
    gap = _spacing(size)
    corners: dict[int, Offset] = {}
    for i in sorted(range(len(units)), key=lambda i: -units[i].w * units[i].h):
        places = _random_corners(size, units[i], rng)
        if places is None:
            return None
        x, y = places.T
        free = np.ones(CANDIDATES, dtype=bool)
        for j, (other_x, other_y) in corners.items():
            apart_x = (x + units[i].w + gap <= other_x) | (other_x + units[j].w + gap <= x)
            apart_y = (y + units[i].h + gap <= other_y) | (other_y + units[j].h + gap <= y)
            free &= apart_x | apart_y
        if not free.any():
            return None
        corners[i] = (int(x[free.argmax()]), int(y[free.argmax()]))
    return [corners[i] for i in range(len(units))]
