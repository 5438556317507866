"""Which things a rendered scene shows and where they lie; nothing is painted here.

Positions are whole pixels, so the box of a placed sprite is exact. Two things apart lie clearly
side by side, one over the other, or diagonally. All eight directions are equally likely and
drawn without regard to what the things are, so that nothing but the picture tells them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hnc_ds.config import ScenesConfig
from hnc_ds.scenes.kinds import Kind, choose
from hnc_ds.scenes.pairs import PAIRINGS, Offset
from hnc_ds.scenes.relations import Box, Fact, margin
from hnc_ds.scenes.shapes import SHAPES, Sprite, draw

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where the second of two things lies as seen from the first: signs of x and y."""

SPACING = 0.05
"""Room between things that do not touch, as a share of the picture's side: they are not 'on'."""

LEVEL = 0.25
"""Most that the centres of two things side by side differ in height, in heights."""

CANDIDATES = 256
"""Random places that are tried at once."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in its place."""

    kind: Kind
    sprite: Sprite
    box: Box


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture to be painted."""

    size: int
    things: tuple[Thing, ...]
    """From back to front."""
    facts: tuple[Fact, ...]
    order: tuple[int, ...]
    """The things in random order, for the graph: the order of painting tells who hides whom."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Things that are placed as one."""

    sprites: tuple[Sprite, ...]
    offsets: tuple[Offset, ...]
    """Of each sprite's box, from the unit's corner."""
    w: int
    h: int


def compose(config: ScenesConfig, rng: np.random.Generator) -> Scene:
    """Draw one scene at random.

    Raises:
        RuntimeError: Nothing fits, which the limits of ScenesConfig rule out.
    """
    for _ in range(50):
        few, many = config.objects
        if config.fewest and rng.random() < config.fewest:
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
    """Draw and place things; None where no place was found."""
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
    """CANDIDATES corners, int [CANDIDATES, 2], that keep a unit within the picture."""
    edge = margin(size)
    room = (size - 2 * edge - unit.w, size - 2 * edge - unit.h)
    if min(room) < 0:
        return None
    return edge + rng.integers(0, np.array(room) + 1, (CANDIDATES, 2))


def _two_corners(
    size: int, units: Sequence[Unit], direction: tuple[int, int], rng: np.random.Generator
) -> list[Offset] | None:
    """Corners of two units of which the second lies in a direction from the first."""
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
    """Corners of units that all stand apart, largest placed first."""
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
