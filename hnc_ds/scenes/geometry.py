"""The shapes of rendered scenes, relations of exact boxes, and pairs of things that touch.

Outlines are in a unit frame: y grows downwards, and an upright outline extends from -1 to 1 in one
direction, except the square, which would look too large. The first six shapes are distinguishable
at ten pixels.

Left, right, above and below hold only if a margin separates the boxes; they are always given in
both directions. On, inside, in front of and behind come from the layout of touching pairs, whose
boxes are not separated, so nothing contradicts them. The guest of a pair is painted over its host.
A place is the guest's offset from the host's box, in whole pixels. Overlap is measured on the drawn
pixels, not on outlines.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hnc_ds.records import Relation, SceneObject

Outline = tuple[tuple[float, float], ...]

SUPERSAMPLING = 4
COVERED = 128
"""A pixel belongs to a shape if the shape covers at least COVERED / 255 of it."""

PAD = 1
"""Pixels around a sprite's box for its antialiased edge."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An outline, and how other shapes can be placed with it."""

    outline: Outline
    hole: float = 0.0
    """Radius of a round hole around the origin; 0 for none."""
    turns: bool = True
    """Whether rotation is visible; it is not for a circle."""
    holds: tuple[float, float] | None = None
    """(y of the centre, radius) of a circle in which something inside is clearly visible."""
    carries: bool = False
    """Whether things can stand on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A drawn shape without position; its box is exactly ``w`` x ``h`` pixels."""

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
        The sprite, cropped to the tight box of its covered pixels.
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
"""Noun -> shape. Settings take the first ones; all plurals are regular."""


SIZE_GAP = 1.35
"""Minimum ratio between the two groups of sizes, 'small' and 'large'."""
SIZE_SPREAD = 1.25
"""Maximum ratio of sizes within a group."""


class Box(NamedTuple):
    """Pixels; x, y is the top left corner and y grows downwards."""

    x: int
    y: int
    w: int
    h: int


class Fact(NamedTuple):
    """A relation of the layout, between two objects by their number in the scene."""

    subject: int
    predicate: str
    object: int


def margin(size: int) -> int:
    """Minimum distance of separate boxes in an image of ``size`` pixels: 3 %."""
    return max(1, round(0.03 * size))


def directions(a: Box, b: Box, gap: int) -> list[str]:
    """Direction of a from b: at most one of left/right and one of above/below."""
    words = []
    if a.x + a.w + gap <= b.x:
        words.append("to the left of")
    if b.x + b.w + gap <= a.x:
        words.append("to the right of")
    if a.y + a.h + gap <= b.y:
        words.append("above")
    if b.y + b.h + gap <= a.y:
        words.append("below")
    return words


def size_words(boxes: Sequence[Box]) -> list[str | None]:
    """'small', 'large' or None for each box, by its longer side.

    All are None unless the sizes form two tight groups with a clear gap.
    """
    sides = [max(box.w, box.h) for box in boxes]
    ranked = sorted(sides)
    for smaller, larger in pairwise(ranked):
        tight = smaller <= SIZE_SPREAD * ranked[0] and ranked[-1] <= SIZE_SPREAD * larger
        if larger >= SIZE_GAP * smaller and tight:
            return ["small" if side <= smaller else "large" for side in sides]
    return [None] * len(sides)


def scene_objects(
    ids: Sequence[str],
    names: Sequence[str],
    attributes: Sequence[Sequence[str]],
    boxes: Sequence[Box],
    facts: Sequence[Fact],
    size: int,
) -> dict[str, SceneObject]:
    """The annotated objects of one scene, all sequences in the same order.

    Args:
        ids: Object ids.
        names: Nouns.
        attributes: Colour and pattern; size words are added here.
        boxes: Full extents, including hidden parts.
        facts: Relations of the layout.
        size: The image's side in pixels.
    """
    words = size_words(boxes)
    objects = {}
    for i, box in enumerate(boxes):
        found = [(fact.predicate, fact.object) for fact in facts if fact.subject == i]
        for j, other in enumerate(boxes):
            if j != i:
                found += [(word, j) for word in directions(box, other, margin(size))]
        word = words[i]
        objects[ids[i]] = SceneObject(
            name=names[i],
            x=box.x,
            y=box.y,
            w=box.w,
            h=box.h,
            attributes=tuple(attributes[i]) + ((word,) if word else ()),
            relations=tuple(Relation(name=name, object=ids[j]) for name, j in found),
        )
    return objects


Offset = tuple[int, int]

HIDDEN = (0.16, 0.4)
"""Fraction of the host's pixels that something in front of it hides (minimum, maximum)."""

MIN_OUTSIDE = 0.4
"""Minimum fraction of the front thing outside the host's box; with less it would be inside."""

SUNK = 0.12
"""Maximum depth of something on a rounded host below its top, as a fraction of the height."""


def snug_side(host: Shape, guest: Shape, host_side: float) -> float:
    """The side of a guest that fits well into a host of ``host_side`` pixels.

    Raises:
        ValueError: The host cannot hold anything.
    """
    if host.holds is None:
        raise ValueError("this shape holds nothing")
    radius = host.holds[1] * host_side / 2
    return min(0.5 * host_side, 0.92 * 2 * radius / reach(guest))


def place_inside(
    shape: Shape, host: Sprite, guest: Sprite, rng: np.random.Generator
) -> Offset | None:
    """Near the centre of the host's free circle."""
    centre = shape.holds[0] if shape.holds else 0.0
    wobble_x, wobble_y = rng.uniform(-0.02, 0.02, 2)
    x = (host.w - guest.w) / 2 + wobble_x * host.w
    y = (host.h - guest.h) / 2 + (wobble_y + centre / 2) * host.h
    if min(x, y) < 1 or x + guest.w > host.w - 1 or y + guest.h > host.h - 1:
        return None
    return round(x), round(y)


def place_on(shape: Shape, host: Sprite, guest: Sprite, rng: np.random.Generator) -> Offset | None:
    """Lower the guest onto the middle of the host until their pixels touch."""
    x = round((host.w - guest.w) / 2 + rng.uniform(-0.05, 0.05) * host.w)
    columns = np.arange(max(0, x), min(host.w, x + guest.w))
    host_pixels, guest_pixels = host.covered()[:, columns], guest.covered()[:, columns - x]
    both = host_pixels.any(axis=0) & guest_pixels.any(axis=0)
    if not both.any():
        return None
    top = host_pixels.argmax(axis=0)
    bottom = guest.h - guest_pixels[::-1].argmax(axis=0)
    y = int((top - bottom)[both].min())
    sunk = y + guest.h
    y += max(1, guest.h // 40)  # closes the gap of the antialiased edges
    return (x, y) if sunk <= SUNK * host.h else None


def place_in_front(
    shape: Shape, host: Sprite, guest: Sprite, rng: np.random.Generator
) -> Offset | None:
    """Over a part of the host from a random side; both stay recognisable."""
    angle = rng.uniform(0, 2 * math.pi)
    far = (math.hypot(host.w, host.h) + math.hypot(guest.w, guest.h)) / 2
    offsets = []
    for distance in np.linspace(0.25, 0.85, 13) * far:
        x = round((host.w - guest.w) / 2 + distance * math.cos(angle))
        y = round((host.h - guest.h) / 2 + distance * math.sin(angle))
        hidden, outside = overlap(host, guest, (x, y))
        if HIDDEN[0] <= hidden <= HIDDEN[1] and outside >= MIN_OUTSIDE:
            offsets.append((x, y))
    return offsets[int(rng.integers(len(offsets)))] if offsets else None


def overlap(host: Sprite, guest: Sprite, offset: Offset) -> tuple[float, float]:
    """(fraction of the host hidden by the guest, fraction of the guest outside the host's box)."""
    x, y = offset
    left, right = max(0, x), min(host.w, x + guest.w)
    top, bottom = max(0, y), min(host.h, y + guest.h)
    if left >= right or top >= bottom:
        return 0.0, 1.0
    host_pixels, guest_pixels = host.covered(), guest.covered()
    window = guest_pixels[top - y : bottom - y, left - x : right - x]
    hidden = np.count_nonzero(host_pixels[top:bottom, left:right] & window)
    outside = 1 - np.count_nonzero(window) / np.count_nonzero(guest_pixels)
    return hidden / np.count_nonzero(host_pixels), outside


@dataclass(frozen=True, slots=True)
class Pairing:
    """One way for two things to touch."""

    can_host: Callable[[Shape], bool]
    place: Callable[[Shape, Sprite, Sprite, np.random.Generator], Offset | None]
    """(host's shape, host, guest, generator) -> the guest's offset, or None if none fits."""
    facts: tuple[Fact, ...]
    """Relations between thing 0, the host, and thing 1, the guest."""


PAIRINGS = {
    "inside": Pairing(lambda shape: shape.holds is not None, place_inside, (Fact(1, "inside", 0),)),
    "on": Pairing(lambda shape: shape.carries, place_on, (Fact(1, "on", 0),)),
    "in front of": Pairing(
        lambda shape: True, place_in_front, (Fact(1, "in front of", 0), Fact(0, "behind", 1))
    ),
}
"""Name -> pairing. All are equally likely."""
