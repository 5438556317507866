"""A PNG sheet of samples: pictures, their true captions, and what is made false in the others.

For human eyes only. The words of a negative that its positive lacks are set in red.
"""

import difflib
import random
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

from hnc_ds.images import CorruptImage, read_rgb
from hnc_ds.records import CaptionGroup, TrainingSample
from hnc_ds.whole_files import whole_file

COLUMNS = 3
CARD = 560  # pixels, as all lengths here
PICTURE_HEIGHT = 400
MARGIN, PADDING = 28, 20
TEXT, SMALL, LINE = 19, 14, 26

PAGE, PAPER, FRAME, BACKDROP = "#eceff3", "#ffffff", "#d5dae1", "#f3f5f8"
INK, FAINT, TRUE, FALSE = "#59616d", "#8a93a0", "#116b3c", "#c4231c"
TYPE_COLOURS = ("#2f5fb3", "#8a4fb0", "#b3671a", "#0f7c86", "#a33a6a", "#5d6b1f", "#5a5f9e")

GROUPS, NEGATIVES = 2, 4
"""Most caption groups of a picture, and most negatives of a group, that are drawn."""

_Item = TypeVar("_Item")
_Word = tuple[str, str]
"""(word, its colour)"""


def draw_sheet(samples: list[tuple[bytes, TrainingSample]], path: Path, seed: int) -> None:
    """Write ``drawn_sheet`` as a PNG.

    Args:
        samples: (JPEG bytes, captions) of each.
        path: The PNG; an existing one is replaced.
        seed: Of the choice among an image's captions.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(path) as file:
        drawn_sheet(samples, seed).save(file, "PNG")


def drawn_sheet(samples: list[tuple[bytes, TrainingSample]], seed: int) -> Image.Image:
    """The samples, three in a row: (JPEG bytes, captions) of each."""
    names = sorted({n.type for _, s in samples for group in s.groups for n in group.negatives})
    colours = {name: TYPE_COLOURS[i % len(TYPE_COLOURS)] for i, name in enumerate(names)}
    cards = [_card(data, sample, colours, seed) for data, sample in samples]
    rows = [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]
    columns = max(map(len, rows), default=1)
    height = MARGIN + sum(max(card.height for card in row) + MARGIN for row in rows)
    sheet = Image.new("RGB", (MARGIN + columns * (CARD + MARGIN), height), PAGE)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for row in rows:
        bottom = top + max(card.height for card in row)
        for column, card in enumerate(row):
            left = MARGIN + column * (CARD + MARGIN)
            frame = (left - 1, top - 1, left + CARD, bottom)
            draw.rectangle(frame, fill=PAPER, outline=FRAME)
            sheet.paste(card, (left, top))
        top = bottom + MARGIN
    return sheet


def _card(data: bytes, sample: TrainingSample, colours: dict[str, str], seed: int) -> Image.Image:
    """One sample, as high as its captions need."""
    rng = random.Random(f"{seed} {sample.image_id}")
    groups = _drawn(sample.groups, GROUPS, rng)
    canvas = Image.new("RGB", (CARD, PICTURE_HEIGHT + 200 * (1 + GROUPS * (1 + NEGATIVES))), PAPER)
    canvas.paste(_picture(data), (0, 0))
    page = _Page(canvas, PICTURE_HEIGHT + PADDING - 4, labels=list(colours))
    shown = f"{len(groups)} of {len(sample.groups)} groups"
    page.line(f"{sample.image_id}   {sample.width} x {sample.height}   {shown}", FAINT)
    for group in groups:
        _write_group(page, group, colours, rng)
    return canvas.crop((0, 0, CARD, min(page.y + PADDING, canvas.height)))


def _picture(data: bytes) -> Image.Image:
    """The whole picture, as large as fits, on a dark ground; the ground alone if it is damaged."""
    ground = Image.new("RGB", (CARD, PICTURE_HEIGHT), BACKDROP)
    try:
        picture = read_rgb(data)
    except CorruptImage:
        return ground
    scale = min(CARD / picture.width, PICTURE_HEIGHT / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    fitted = picture.resize(size, Image.Resampling.LANCZOS)
    ground.paste(fitted, ((CARD - size[0]) // 2, (PICTURE_HEIGHT - size[1]) // 2))
    return ground


def _write_group(
    page: "_Page", group: CaptionGroup, colours: dict[str, str], rng: random.Random
) -> None:
    page.space(10)
    page.paragraph([(word, TRUE) for word in group.positive.split()])
    for negative in _drawn(group.negatives, NEGATIVES, rng):
        page.paragraph(
            [
                (word, FALSE if new else INK)
                for word, new in _compared(group.positive, negative.caption)
            ],
            label=(negative.type, colours[negative.type]),
        )
    if (more := len(group.negatives) - NEGATIVES) > 0:
        page.line(f"and {more} more", FAINT)


def _drawn(items: tuple[_Item, ...], most: int, rng: random.Random) -> list[_Item]:
    """At most so many, drawn evenly, in their own order."""
    return [items[i] for i in sorted(rng.sample(range(len(items)), min(most, len(items))))]


def _compared(positive: str, negative: str) -> list[tuple[str, bool]]:
    """The words of the negative, each with whether it differs from the positive there."""
    ours, theirs = positive.split(), negative.split()
    marked: list[tuple[str, bool]] = []
    match = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for kind, _, _, start, end in match.get_opcodes():
        marked += [(word, kind != "equal") for word in theirs[start:end]]
    return marked


class _Page:
    """Text that runs down a card; labels stand in a column of their own."""

    def __init__(self, canvas: Image.Image, y: int, labels: list[str]) -> None:
        self.y = y
        self._draw = ImageDraw.Draw(canvas)
        self._text = ImageFont.load_default(size=TEXT)
        self._small = ImageFont.load_default(size=SMALL)
        self._label_column = max(map(self._label_width, labels), default=0) + 10

    def space(self, pixels: int) -> None:
        self.y += pixels

    def line(self, text: str, colour: str) -> None:
        """A small line, cut where the card ends."""
        while text and self._small.getlength(text) > CARD - 2 * PADDING:
            text = text[:-1]
        self._draw.text((PADDING, self.y), text, colour, self._small)
        self.y += SMALL + 6

    def paragraph(self, words: list[_Word], label: tuple[str, str] | None = None) -> None:
        """Words wrapped between the margins, beside a coloured label if there is one."""
        left = PADDING
        if label:
            self._label(*label)
            left += self._label_column
        x: float = left
        space = self._text.getlength(" ")
        for word, colour in words:
            width = self._text.getlength(word)
            if x + width > CARD - PADDING and x > left:
                x = left
                self.y += LINE
            self._draw.text((x, self.y), word, colour, self._text)
            x += width + space
        self.y += LINE + 4

    def _label(self, name: str, colour: str) -> None:
        box = (PADDING, self.y + 2, PADDING + self._label_width(name), self.y + TEXT + 4)
        self._draw.rounded_rectangle(box, radius=5, fill=colour)
        self._draw.text((PADDING + 6, self.y + 4), name, PAPER, self._small)

    def _label_width(self, name: str) -> int:
        return round(self._small.getlength(name)) + 12
