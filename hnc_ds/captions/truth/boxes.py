"""What two boxes in the picture say about where things are. Pixels; y grows downwards.

Boxes only ever refute, and only by a margin: a box is drawn by hand, and a thing in front of
another in the scene can be anywhere beside it in the picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hnc_ds.records import SceneObject

MARGIN = 0.25
"""How far one centre must lie beyond the other: in sides of the smaller box ..."""
LEAST_MARGIN = 0.01
"""... but at least this share of the picture's side."""
GAP = 0.05
"""Things that touch have boxes no further apart than this share of the picture's longer side."""
LARGER = 1.5
"""A box this much wider and higher than another is not inside it."""
TWICE = 0.75
"""Two boxes of one name that share this much of their union may be one thing, annotated twice."""

STRAIGHT = 0.5
"""Share of the narrower box's width that lies over or under the other one."""

LEFT, RIGHT, ABOVE, BELOW, APART, TOO_LARGE, DOUBLE, KNOWN, OVER, UNDER, LOWER, AWAY = (
    1 << bit for bit in range(12)
)
"""Bits of ``places``: a lies clearly to the left of b (...), too far from it to touch it, is too
large to be inside it, covers nearly the same place; both boxes have an area; a lies straight over
b (under it), with most of the narrower one's width; a begins where b ends, or below that. AWAY is
set by others: a is too far from b to touch it, but may hold it by a string."""


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


def nearly_one(a: Box, b: Box) -> bool:
    """Whether two boxes cover nearly the same place, as DOUBLE of ``places``, for a single pair."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    if width <= 0 or height <= 0:
        return False
    areas = sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width * height > TWICE * (areas - width * height)


def places(boxes: Sequence[Box | None], width: int, height: int) -> NDArray[np.int64]:
    """What is clear of each pair (a, b) of boxes of a picture: bits, as rows a of columns b.

    All pairs at once: it is asked of most of them, and numpy does it in the time of a few.
    """
    corners = np.array([box or (0, 0, 0, 0) for box in boxes], dtype=np.float64).reshape(-1, 4)
    left, top, right, bottom = corners.T
    is_left, gap_x, wider = _along(left, right, width)
    is_above, gap_y, higher = _along(top, bottom, height)
    shared = np.minimum(gap_x, 0) * np.minimum(gap_y, 0)
    area = (right - left) * (bottom - top)
    # One over the other: no overlap in height, and most of the smaller one's width is shared.
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
    """Of spans a and b along a picture's side of so many pixels, for each pair (a, b).

    Returns:
        Whether a clearly precedes b: both its ends come first, and its middle by a margin, so that
        a span within another neither precedes it nor follows it. The gap between them, negative
        where they overlap. Whether a is much longer.
    """
    a_low, a_high, length = low[:, None], high[:, None], high - low
    a_length = length[:, None]
    margin = np.maximum(MARGIN * np.minimum(a_length, length), LEAST_MARGIN * side)
    middle = low + high  # twice the middle
    precedes = (a_low < low) & (a_high < high) & (middle - middle[:, None] > 2 * margin)
    gap = np.maximum(a_low, low) - np.minimum(a_high, high)
    return precedes, gap, a_length > LARGER * length
