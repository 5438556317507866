"""What two boxes in the picture say about where things are. Pixels; y grows downwards.

Boxes only ever refute, and only by a margin: a box is drawn by hand, and a thing in front of
another in the scene can be anywhere beside it in the picture.
"""

from typing import NamedTuple

from hnc_ds.records import SceneObject

MARGIN = 0.25
"""How far one centre must lie beyond the other: in sides of the smaller box ..."""
LEAST_MARGIN = 0.01
"""... but at least this share of the picture's side."""
GAP = 0.05
"""Things that touch have boxes no further apart than this share of the picture's longer side."""
LARGER = 1.5
"""A box this much wider and higher than another is not inside it."""


class Box(NamedTuple):
    """Corners; right and bottom are beyond the last pixel."""

    left: int
    top: int
    right: int
    bottom: int


def box_of(found: SceneObject) -> Box | None:
    """An object's box; None if it has no area and so says nothing."""
    if found.w <= 0 or found.h <= 0:
        return None
    return Box(found.x, found.y, found.x + found.w, found.y + found.h)


def is_before(low: int, high: int, other_low: int, other_high: int, side: int) -> bool:
    """Whether the span low..high clearly precedes the other one in a picture of ``side`` pixels.

    Both ends come first, and the middle by a margin. A span within another neither precedes it
    nor follows it.
    """
    if low >= other_low or high >= other_high:
        return False
    margin = max(MARGIN * min(high - low, other_high - other_low), LEAST_MARGIN * side)
    return (other_low + other_high) - (low + high) > 2 * margin


def is_left(a: Box, b: Box, width: int) -> bool:
    """Whether a lies clearly more to the left than b."""
    return is_before(a.left, a.right, b.left, b.right, width)


def is_above(a: Box, b: Box, height: int) -> bool:
    """Whether a lies clearly higher than b."""
    return is_before(a.top, a.bottom, b.top, b.bottom, height)


def are_apart(a: Box, b: Box, side: int) -> bool:
    """Whether the boxes lie too far apart to touch, in a picture whose longer side is ``side``."""
    gap_x = max(a.left, b.left) - min(a.right, b.right)
    gap_y = max(a.top, b.top) - min(a.bottom, b.bottom)
    return max(gap_x, gap_y) > GAP * side


def is_larger(a: Box, b: Box) -> bool:
    """Whether a is too wide and too high to be inside b."""
    wider = a.right - a.left > LARGER * (b.right - b.left)
    return wider and a.bottom - a.top > LARGER * (b.bottom - b.top)
