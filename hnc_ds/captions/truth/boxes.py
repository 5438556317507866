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

LEFT, RIGHT, ABOVE, BELOW, APART, TOO_LARGE, DOUBLE, KNOWN = (1 << bit for bit in range(8))
"""Bits of ``places``: a lies clearly to the left of b (...), too far from it to touch it, is too
large to be inside it, covers nearly the same place; both boxes have an area."""


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


def places(boxes: Sequence[Box | None], width: int, height: int) -> list[list[int]]:
    """What is clear of each pair (a, b) of boxes of a picture: bits, as rows a of columns b.

    All pairs at once: it is asked of most of them, and numpy does it in the time of a few.
    """
    if not boxes:
        return []
    corners = np.array([box or (0, 0, 0, 0) for box in boxes], dtype=np.float64)
    known = np.array([box is not None for box in boxes])
    left, top, right, bottom = corners.T
    is_left = _precedes(left, right, width)
    is_above = _precedes(top, bottom, height)
    gap_x = np.maximum.outer(left, left) - np.minimum.outer(right, right)
    gap_y = np.maximum.outer(top, top) - np.minimum.outer(bottom, bottom)
    wider = np.greater.outer(right - left, LARGER * (right - left))
    higher = np.greater.outer(bottom - top, LARGER * (bottom - top))
    shared = np.maximum(-gap_x, 0) * np.maximum(-gap_y, 0)
    area = (right - left) * (bottom - top)
    bits = (
        KNOWN
        + is_left * LEFT
        + is_left.T * RIGHT
        + is_above * ABOVE
        + is_above.T * BELOW
        + (np.maximum(gap_x, gap_y) > GAP * max(width, height)) * APART
        + (wider & higher) * TOO_LARGE
        + (shared > TWICE * (np.add.outer(area, area) - shared)) * DOUBLE
    )
    rows: list[list[int]] = np.where(np.logical_and.outer(known, known), bits, 0).tolist()
    return rows


def _precedes(low: NDArray[np.float64], high: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Whether the span of a clearly precedes that of b in a picture of ``side`` pixels.

    Both ends come first, and the middle by a margin. A span within another neither precedes it
    nor follows it.
    """
    length = high - low
    margin = np.maximum(MARGIN * np.minimum.outer(length, length), LEAST_MARGIN * side)
    middle = low + high  # twice the middle
    beyond = -np.subtract.outer(middle, middle) > 2 * margin
    ends: NDArray[np.bool_] = np.less.outer(low, low) & np.less.outer(high, high) & beyond
    return ends
