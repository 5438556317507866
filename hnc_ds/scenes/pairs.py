"""Two things that touch: one inside, on, or in front of another.

A host is drawn first and its guest over it. A place is the guest's offset from the host's box,
in whole pixels. What overlaps is measured on the drawn pixels, not on outlines.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hnc_ds.scenes.relations import Fact
from hnc_ds.scenes.shapes import Shape, Sprite, reach

Offset = tuple[int, int]

HIDDEN = (0.16, 0.4)
"""Share of the host's pixels that something in front of it hides."""

SEEN_BESIDE = 0.4
"""Least share of the pixels in front that stick out of the host's box: else it were inside."""

SUNK = 0.12
"""Most that something standing on a rounded host reaches below its top, in host heights."""


def snug_side(host: Shape, guest: Shape, host_side: float) -> float:
    """The guest's side at which it fits well into a host of ``host_side`` pixels.

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
    """In the middle of the host's free circle, a little off."""
    centre = shape.holds[0] if shape.holds else 0.0
    wobble_x, wobble_y = rng.uniform(-0.02, 0.02, 2)
    x = (host.w - guest.w) / 2 + wobble_x * host.w
    y = (host.h - guest.h) / 2 + (wobble_y + centre / 2) * host.h
    if min(x, y) < 1 or x + guest.w > host.w - 1 or y + guest.h > host.h - 1:
        return None
    return round(x), round(y)


def place_on(shape: Shape, host: Sprite, guest: Sprite, rng: np.random.Generator) -> Offset | None:
    """Let the guest down on the middle of the host until their pixels touch."""
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
    y += max(1, guest.h // 40)  # pressed down by a hair, so that softened edges close
    return (x, y) if sunk <= SUNK * host.h else None


def place_in_front(
    shape: Shape, host: Sprite, guest: Sprite, rng: np.random.Generator
) -> Offset | None:
    """Over a part of the host, from a random side, so that both stay recognisable."""
    angle = rng.uniform(0, 2 * math.pi)
    far = (math.hypot(host.w, host.h) + math.hypot(guest.w, guest.h)) / 2
    found = []
    for distance in np.linspace(0.25, 0.85, 13) * far:
        x = round((host.w - guest.w) / 2 + distance * math.cos(angle))
        y = round((host.h - guest.h) / 2 + distance * math.sin(angle))
        hidden, beside = overlap(host, guest, (x, y))
        if HIDDEN[0] <= hidden <= HIDDEN[1] and beside >= SEEN_BESIDE:
            found.append((x, y))
    return found[int(rng.integers(len(found)))] if found else None


def overlap(host: Sprite, guest: Sprite, offset: Offset) -> tuple[float, float]:
    """(share of the host's pixels that the guest hides, share of the guest's outside its box)."""
    x, y = offset
    left, right = max(0, x), min(host.w, x + guest.w)
    top, bottom = max(0, y), min(host.h, y + guest.h)
    if left >= right or top >= bottom:
        return 0.0, 1.0
    host_pixels, guest_pixels = host.covered(), guest.covered()
    window = guest_pixels[top - y : bottom - y, left - x : right - x]
    hidden = np.count_nonzero(host_pixels[top:bottom, left:right] & window)
    beside = 1 - np.count_nonzero(window) / np.count_nonzero(guest_pixels)
    return hidden / np.count_nonzero(host_pixels), beside


@dataclass(frozen=True, slots=True)
class Pairing:
    """One way for two things to touch."""

    can_host: Callable[[Shape], bool]
    place: Callable[[Shape, Sprite, Sprite, np.random.Generator], Offset | None]
    """(host's shape, host, guest, generator) -> the guest's offset, None if it did not work."""
    facts: tuple[Fact, ...]
    """What is then true of thing 0, the host, and thing 1, the guest."""


PAIRINGS = {
    "inside": Pairing(lambda shape: shape.holds is not None, place_inside, (Fact(1, "inside", 0),)),
    "on": Pairing(lambda shape: shape.carries, place_on, (Fact(1, "on", 0),)),
    "in front of": Pairing(
        lambda shape: True,
        place_in_front,
        (Fact(1, "in front of", 0), Fact(0, "behind", 1)),
    ),
}
"""Name -> pairing. All are drawn alike often."""
