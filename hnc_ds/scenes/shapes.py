"""The shapes of the rendered scenes and their pixel masks. Knows no colours and no places.

Outlines live in a unit frame: y grows downwards, and an upright outline fills -1 to 1 in one
direction, except for the square, which would look larger than the others. The first six
shapes stay apart even when ten pixels across.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

Outline = tuple[tuple[float, float], ...]

SUPERSAMPLING = 4
COVERED = 128
"""A pixel belongs to a shape if the shape covers at least COVERED / 255 of it."""

PAD = 1
"""Pixels around a sprite's box that keep its softened edge."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What can be drawn, and what other shapes can do with it."""

    outline: Outline
    hole: float = 0.0
    """Radius of a round hole around the origin; 0 for none."""
    turns: bool = True
    """Whether slight rotation shows; a circle is the same at any angle."""
    holds: tuple[float, float] | None = None
    """(y of the centre, radius) of a free circle in which something inside is seen well."""
    carries: bool = False
    """Whether things can stand on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A drawn shape without a place: its box is exactly ``w`` x ``h`` pixels."""

    mask: Image.Image
    """Coverage 0..255, ``w + 2 * PAD`` by ``h + 2 * PAD``."""
    w: int
    h: int

    def covered(self) -> np.ndarray:
        """The pixels inside the box that belong to the shape, bool [h, w]."""
        return np.asarray(self.mask)[PAD:-PAD, PAD:-PAD] >= COVERED


def draw(shape: Shape, side: float, degrees: float = 0.0) -> Sprite:
    """Draw a shape with smooth edges.

    Args:
        shape: A value of SHAPES.
        side: Pixels that -1 to 1 of the unit frame become.
        degrees: Clockwise rotation.

    Returns:
        The sprite, cut to the tight box of the pixels that it covers.
    """
    half = side / 2 * SUPERSAMPLING
    pixels = math.ceil(side * math.sqrt(2)) + 2 * PAD + 4
    middle = pixels * SUPERSAMPLING / 2
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    points = [middle * (1 + 1j) + complex(x, y) * turn * half for x, y in shape.outline]
    canvas = Image.new("L", (pixels * SUPERSAMPLING, pixels * SUPERSAMPLING))
    pencil = ImageDraw.Draw(canvas)
    pencil.polygon([(point.real, point.imag) for point in points], fill=255)
    if shape.hole:
        near, far = middle - shape.hole * half, middle + shape.hole * half
        pencil.ellipse((near, near, far, far), fill=0)
    mask = canvas.reduce(SUPERSAMPLING)
    box = mask.point([0] * COVERED + [255] * (256 - COVERED)).getbbox()
    if box is None:
        raise ValueError(f"a side of {side} pixels is too small to draw")
    left, top, right, bottom = box
    mask = mask.crop((left - PAD, top - PAD, right + PAD, bottom + PAD))
    return Sprite(mask, right - left, bottom - top)


@cache
def reach(shape: Shape) -> float:
    """Distance from the origin of the outline's farthest point, 1 to 1.4."""
    return max(math.hypot(x, y) for x, y in shape.outline)


def _fitted(points: list[tuple[float, float]]) -> Outline:
    """Move and scale points so that their box is centred and its longer side is 2."""
    xs, ys = zip(*points, strict=True)
    scale = 2 / max(max(xs) - min(xs), max(ys) - min(ys))
    centre_x, centre_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return tuple(((x - centre_x) * scale, (y - centre_y) * scale) for x, y in points)


def _round(radius: Callable[[float], float], points: int = 96) -> Outline:
    """A closed curve from its radius at each angle; angle 0 points up."""
    angles = [2 * math.pi * i / points for i in range(points)]
    return _fitted([(radius(a) * math.sin(a), -radius(a) * math.cos(a)) for a in angles])


def _corners(*radii: float) -> Outline:
    """Points at equal angles, the first one up."""
    return _round(lambda a: radii[round(a / (2 * math.pi) * len(radii))], points=len(radii))


def _cross(arm: float = 0.36) -> Outline:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return _fitted(points)


def _heart() -> Outline:
    """The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    points = []
    for step in range(96):
        t = 2 * math.pi * step / 96
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3, -y))
    return _fitted(points)


def _moon() -> Outline:
    """A crescent that opens to the right: a circle without the part under a second one."""
    offset, radius = 0.5, 0.74  # of the second circle
    meet_x = (1 - radius**2 + offset**2) / (2 * offset)
    outer = math.acos(meet_x)
    inner = math.acos((meet_x - offset) / radius)
    points = []
    for step in range(65):
        a = outer + (2 * math.pi - 2 * outer) * step / 64
        points.append((math.cos(a), math.sin(a)))
    for step in range(65):
        a = (2 * math.pi - inner) - (2 * math.pi - 2 * inner) * step / 64
        points.append((offset + radius * math.cos(a), radius * math.sin(a)))
    return _fitted(points)


_ARROW = [(0, -1), (0.85, -0.1), (0.34, -0.1), (0.34, 1), (-0.34, 1), (-0.34, -0.1), (-0.85, -0.1)]

SHAPES = {
    "circle": Shape(_round(lambda a: 1), turns=False, holds=(0, 0.9), carries=True),
    "square": Shape(
        ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)), holds=(0, 0.8), carries=True
    ),
    "triangle": Shape(_corners(1, 1, 1), holds=(0.3, 0.5)),
    "star": Shape(_corners(*[1, 0.45] * 5)),
    "ring": Shape(_round(lambda a: 1), hole=0.6, turns=False, holds=(0, 0.56), carries=True),
    "cross": Shape(_cross(), carries=True),
    "heart": Shape(_heart(), holds=(-0.1, 0.6)),
    "moon": Shape(_moon()),
    "diamond": Shape(_fitted([(0, -1), (0.72, 0), (0, 1), (-0.72, 0)]), holds=(0, 0.5)),
    "arrow": Shape(_fitted(_ARROW)),
    "flower": Shape(_round(lambda a: 0.7 + 0.3 * abs(math.cos(2.5 * a))), holds=(0, 0.6)),
    "hexagon": Shape(
        _fitted([(math.cos(math.pi * i / 3), math.sin(math.pi * i / 3)) for i in range(6)]),
        holds=(0, 0.75),
        carries=True,
    ),
}
"""Noun -> shape. Settings take shapes from the front; every plural is regular."""
