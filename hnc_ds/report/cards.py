"""Cards of a gallery: pictures small enough for a page, captions with words marked, scores."""

import base64
import difflib
import io
import re
from dataclasses import dataclass

from hnc_ds.images import CorruptImage, as_rgb, check_box, open_image

CARDS = 4
"""Pairs in a gallery."""
THUMBNAIL_PIXELS = 320
THUMBNAIL_QUALITY = 82

Words = list[tuple[str, bool]]
"""A caption in pieces, each with whether it differs from the other caption."""


@dataclass(frozen=True, slots=True)
class Score:
    """How one run saw what a card shows."""

    run: int
    true: str
    false: str
    right: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One pair or question with its pictures."""

    pictures: list[str]
    """data: URIs; an empty one where there is none."""
    key: str
    type: str
    lines: list[tuple[str, Words]]
    """Captions, each 'true' or 'false' of the picture, or 'first' or 'second' of two."""
    scores: list[Score]
    heads: tuple[str, str] = ("true", "false")
    """What the two numbers of a score are."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """A few pairs chosen by one rule."""

    title: str
    about: str
    cards: list[Card]


def thumbnail(data: bytes, box: tuple[int, int, int, int] | None = None) -> str:
    """Shrink and encode a picture anew, so that only pixels reach the page; "" if it is damaged.

    Args:
        data: The encoded picture.
        box: What of it to show, in pixels; all of it for None.
    """
    try:
        picture = open_image(data)
        if box is None:
            picture.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        else:
            check_box(box)
        small = as_rgb(picture)
    except CorruptImage:
        return ""
    if box is not None:
        small = small.crop(box)
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def mark_differences(caption: str, other: str) -> Words:
    """Cut a caption into the words that it shares with the other and those that it does not."""
    own, others = _tokens(caption), _tokens(other)
    pieces: Words = []
    matcher = difflib.SequenceMatcher(None, own, others, autojunk=False)
    for operation, first, last, _, _ in matcher.get_opcodes():
        if first < last:
            pieces.append(("".join(own[first:last]), operation != "equal"))
    return _without_gaps(pieces)


def _tokens(caption: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", caption)


def _without_gaps(pieces: Words) -> Words:
    """Mark a bare space between two marked pieces too, and join neighbours of one kind."""
    joined: Words = []
    for index, (text, marked) in enumerate(pieces):
        between = 0 < index < len(pieces) - 1 and text.isspace() and pieces[index + 1][1]
        if joined and joined[-1][1] == (marked or between):
            joined[-1] = (joined[-1][0] + text, joined[-1][1])
        else:
            joined.append((text, marked))
    return joined
