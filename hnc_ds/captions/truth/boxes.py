"""Spatial evidence from pairs of bounding boxes. Pixels; y grows downwards.

Boxes mostly refute relations, and only by a margin, because they are drawn by hand and show no
depth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hnc_ds.records import SceneObject

MARGIN = 0.25
"""Minimum distance of two centres for a direction, in sides of the smaller box ..."""
MIN_MARGIN = 0.01
"""... and in sides of the image."""
GAP = 0.05
"""Maximum distance between the boxes of touching objects, in longer sides of the image."""
LARGER = 1.5
"""A box this many times as wide and as high as another cannot be inside it."""
TWICE = 0.75
"""Intersection over union from which on two boxes of one name may be one object annotated twice."""

STRAIGHT = 0.5
"""Minimum overlap in width for one box to lie over another, as a fraction of the narrower one."""

LEFT, RIGHT, ABOVE, BELOW, APART, TOO_LARGE, DOUBLE, KNOWN, OVER, UNDER, LOWER, AWAY = (
    1 << bit for bit in range(12)
)
"""Bits of ``places`` for boxes (a, b).

LEFT, RIGHT, ABOVE, BELOW: a lies clearly in that direction of b. APART: too far away to touch.
TOO_LARGE: a cannot be inside b. DOUBLE: nearly the same place. KNOWN: both boxes have an area.
OVER, UNDER: straight over or under b. LOWER: the top of a is not above the bottom of b. AWAY (set
by indexed_graph.py): too far away to touch, but a may hold b by a string."""


class Box(NamedTuple):
    """Corners; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def box_of(found: SceneObject) -> Box | None:
    """An object's box; None if it has no area."""
    if found.w <= 0 or found.h <= 0:
        return None
    return Box(found.x, found.y, found.x + found.w, found.y + found.h)


def nearly_one(a: Box, b: Box) -> bool:
    """Whether two boxes cover nearly the same place: DOUBLE for a single pair."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    if width <= 0 or height <= 0:
        return False
    areas = sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width * height > TWICE * (areas - width * height)


def places(boxes: Sequence[Box | None], width: int, height: int) -> NDArray[np.int64]:
    """The bits of all pairs (a, b) of an image's boxes, as rows a of columns b."""
    corners = np.array([box or (0, 0, 0, 0) for box in boxes], dtype=np.float64).reshape(-1, 4)
    left, top, right, bottom = corners.T
    is_left, gap_x, wider = _along(left, right, width)
    is_above, gap_y, higher = _along(top, bottom, height)
    shared = np.minimum(gap_x, 0) * np.minimum(gap_y, 0)
    area = (right - left) * (bottom - top)
    # One over the other: no overlap in height, but in most of the narrower one's width.
    width_least = np.minimum(right - left, (right - left)[:, None])
    straight = (gap_y >= 0) & (-gap_x > STRAIGHT * width_least)
    bits: NDArray[np.int64] = (
        KNOWN
        + is_left * LEFT
        + is_left.T * RIGHT
        + is_above * ABOVE
        + is_above.T * BELOW
        + (np.maximum(gap_x, gap_y) > GAP * max(width, height)) * APART
        + (wider & higher) * TOO_LARGE
        + (shared > TWICE * (area[:, None] + area - shared)) * DOUBLE
        + (straight & is_above) * OVER
        + (straight & is_above.T) * UNDER
        + ((gap_y >= 0) & is_above.T) * LOWER
    )
    unknown = [box is None for box in boxes]
    bits[unknown] = 0
    bits[:, unknown] = 0
    return bits


def _along(
    low: NDArray[np.float64], high: NDArray[np.float64], side: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Compares all pairs of spans (a, b) along one side of an image.

    Returns:
        Whether a clearly precedes b (both ends come first, the middle by a margin); the gap between
        them, negative where they overlap; whether a is much longer.
    """
    a_low, a_high, length = low[:, None], high[:, None], high - low
    a_length = length[:, None]
    margin = np.maximum(MARGIN * np.minimum(a_length, length), MIN_MARGIN * side)
    middle = low + high  # twice the middle
    precedes = (a_low < low) & (a_high < high) & (middle - middle[:, None] > 2 * margin)
    gap = np.maximum(a_low, low) - np.minimum(a_high, high)
    return precedes, gap, a_length > LARGER * length
