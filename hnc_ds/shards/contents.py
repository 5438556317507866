"""``hnc-ds inspect`` for shards: counts per negative type, and a PNG sheet of samples.

The sheet has images, positives, and negatives with their changed words in red. With ``--verify``,
every byte is read and compared with the index.
"""

import difflib
import random
import tarfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from hnc_ds.atomic_files import atomic_file, writing
from hnc_ds.captions.caption_stats import without_negatives
from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.images import CorruptImage, read_rgb
from hnc_ds.reading import reading, sha256_of
from hnc_ds.records import CaptionGroup, TrainingSample
from hnc_ds.shards.format import (
    AGAIN,
    INDEX_NAME,
    DatasetIndex,
    SampleOffsets,
    ShardIndex,
    ShardSummary,
    decode_sample,
    read_shard_index,
    sample_key,
)
from hnc_ds.shards.negatives import OF_FOLDER, SeenAbouts
from hnc_ds.shards.reader import ShardReader

COLUMNS = 3
CARD = 560  # pixels, as all lengths here
IMAGE_HEIGHT = 400
MARGIN, PADDING = 28, 20
TEXT, SMALL, LINE = 19, 14, 26

PAGE, PAPER, FRAME, BACKDROP = "#eceff3", "#ffffff", "#d5dae1", "#f3f5f8"
INK, FAINT, TRUE, FALSE = "#59616d", "#8a93a0", "#116b3c", "#c4231c"
TYPE_COLOURS = ("#2f5fb3", "#8a4fb0", "#b3671a", "#0f7c86", "#a33a6a", "#5d6b1f", "#5a5f9e")

GROUPS, NEGATIVES = 2, 4
"""Maximum number of caption groups of an image, and of negatives of a group, on the sheet."""

_Item = TypeVar("_Item")
_Word = tuple[str, str]
"""Word and colour."""


def draw_sheet(samples: list[tuple[bytes, TrainingSample]], path: Path, seed: int) -> None:
    """Write ``drawn_sheet`` as a PNG.

    Args:
        samples: JPEG bytes and captions of each sample.
        path: The PNG; an existing one is replaced.
        seed: Seed for the choice among an image's captions.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path) as file:
        drawn_sheet(samples, seed).save(file, "PNG")


def drawn_sheet(samples: list[tuple[bytes, TrainingSample]], seed: int) -> Image.Image:
    """The sheet of samples (JPEG bytes, captions), three in a row."""
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
    """One sample's card, as high as its captions need."""
    rng = random.Random(f"{seed} {sample.image_id}")
    groups = _drawn(sample.groups, GROUPS, rng)
    canvas = Image.new("RGB", (CARD, IMAGE_HEIGHT + 200 * (1 + GROUPS * (1 + NEGATIVES))), PAPER)
    canvas.paste(_image(data), (0, 0))
    page = _Page(canvas, IMAGE_HEIGHT + PADDING - 4, labels=list(colours))
    shown = f"{len(groups)} of {len(sample.groups)} groups"
    page.line(f"{sample.image_id}   {sample.width} x {sample.height}   {shown}", FAINT)
    for group in groups:
        _write_group(page, group, colours, rng)
    return canvas.crop((0, 0, CARD, min(page.y + PADDING, canvas.height)))


def _image(data: bytes) -> Image.Image:
    """The whole image, scaled to fit, on a background; the background alone if it is damaged."""
    ground = Image.new("RGB", (CARD, IMAGE_HEIGHT), BACKDROP)
    try:
        image = read_rgb(data)
    except CorruptImage:
        return ground
    scale = min(CARD / image.width, IMAGE_HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    fitted = image.resize(size, Image.Resampling.LANCZOS)
    ground.paste(fitted, ((CARD - size[0]) // 2, (IMAGE_HEIGHT - size[1]) // 2))
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
    """A random sample of at most ``most`` items, in their order."""
    return [items[i] for i in sorted(rng.sample(range(len(items)), min(most, len(items))))]


def _compared(positive: str, negative: str) -> list[tuple[str, bool]]:
    """The words of the negative, each with whether it differs from the positive."""
    ours, theirs = positive.split(), negative.split()
    marked: list[tuple[str, bool]] = []
    match = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for kind, _, _, start, end in match.get_opcodes():
        marked += [(word, kind != "equal") for word in theirs[start:end]]
    return marked


class _Page:
    """Text that runs down a card, with labels in their own column."""

    def __init__(self, canvas: Image.Image, y: int, labels: list[str]) -> None:
        self.y = y
        self._draw = ImageDraw.Draw(canvas)
        self._text = ImageFont.load_default(size=TEXT)
        self._small = ImageFont.load_default(size=SMALL)
        self._label_column = max(map(self._label_width, labels), default=0) + 10

    def space(self, pixels: int) -> None:
        self.y += pixels

    def line(self, text: str, colour: str) -> None:
        """A small line, truncated to the card's width."""
        while text and self._small.getlength(text) > CARD - 2 * PADDING:
            text = text[:-1]
        self._draw.text((PADDING, self.y), text, colour, self._small)
        self.y += SMALL + 6

    def paragraph(self, words: list[_Word], label: tuple[str, str] | None = None) -> None:
        """Words wrapped between the margins, after an optional coloured label."""
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


SHEET_NAME = "sheet.png"
SAMPLES = 12
"""Default number of images on the sheet."""
MOST_READ = 2000
"""Maximum number of samples, spread evenly, whose captions are read for mean lengths."""


def inspect_shards(config: InspectConfig) -> None:
    """Print a folder's statistics and draw a sheet of its samples.

    Raises:
        UserError: The folder is not finished, shards are damaged, or the sheet cannot be written.
    """
    reader = ShardReader(config.shards)
    if config.verify:
        shards, samples = verify(reader)
        print(
            f"verified: every byte of {counted(samples, 'sample')} in {counted(shards, 'shard')} "
            "matches the index"
        )
    print("\n".join(_table(reader.location, reader.index, _words(reader))))
    sheet = config.sheet or (Path() if reader.is_remote else reader.folder) / SHEET_NAME
    most = min(config.samples or SAMPLES, len(reader))
    drawn = random.Random(config.seed).sample(range(len(reader)), most)
    images = [(reader.image_bytes(i), reader.sample(i)) for i in sorted(drawn)]
    with closing(reader), writing(sheet, "run it again with another --sheet"):
        draw_sheet(images, sheet, config.seed)
    print(f"{counted(len(images), 'sample')} drawn on {sheet}")


def verify(reader: ShardReader) -> tuple[int, int]:
    """Compare every shard with its index.

    Returns:
        Numbers of shards and samples.

    Raises:
        UserError: Names the first difference, with shard and member.
    """
    index = reader.index
    groups = plain = 0
    negatives, abouts = Counter[str](), SeenAbouts(OF_FOLDER)
    with tqdm(desc="verify", total=index.samples, unit=" images", disable=None) as bar:
        for number, shard in enumerate(index.shards):
            recorded = _verify_shard(reader.fetch(number), shard)
            groups += recorded.groups
            plain += recorded.groups_without_negatives
            negatives.update(recorded.negatives)
            abouts.add_shard(recorded.negatives, recorded.about)
            bar.update(shard.samples)
    of_index = index.groups, index.groups_without_negatives, index.negatives, index.about
    if of_index != (groups, plain, dict(negatives), abouts.summary()):
        raise UserError(
            f"{reader.location}/{INDEX_NAME}: its counts are not the sums of its shards; {AGAIN}"
        )
    return len(index.shards), index.samples


def _verify_shard(path: Path, shard: ShardSummary) -> ShardIndex:
    recorded = read_shard_index(path.parent, shard.file)
    if sha256_of(path) != shard.sha256 or recorded.summary != shard:
        raise UserError(f"{path}: differs from its sha256 or index; delete it and pack again")
    again = "delete it and pack again"
    with reading(path, again, "not a whole tar"), tarfile.open(path) as tar:
        members = tar.getmembers()
        if len(members) != 2 * len(recorded.samples):
            raise UserError(
                f"{path}: {len(members)} members for {counted(len(recorded.samples), 'sample')}; "
                "delete it and pack again"
            )
        for at, image, captions in zip(recorded.samples, members[::2], members[1::2], strict=True):
            _verify_sample(path, at, image, captions)
            _verify_captions(path, tar, captions)
    return recorded


def _verify_sample(
    path: Path, at: SampleOffsets, image: tarfile.TarInfo, captions: tarfile.TarInfo
) -> None:
    found = [(member.name, member.offset_data, member.size) for member in (image, captions)]
    if found != [
        (f"{at.key}.jpg", at.image_offset, at.image_bytes),
        (f"{at.key}.json", at.json_offset, at.json_bytes),
    ]:
        raise UserError(
            f"{path}: {image.name} is not where the index says; delete it and pack again"
        )


def _verify_captions(path: Path, tar: tarfile.TarFile, captions: tarfile.TarInfo) -> None:
    file = tar.extractfile(captions)
    where = f"{path}:{captions.name}"
    sample = decode_sample(file.read() if file else b"", where)
    if f"{sample_key(sample.image_id)}.json" != captions.name:
        raise UserError(f"{where}: is of image {sample.image_id}; delete the shard and pack again")


_Words = dict[str, tuple[int, int]]
"""Negative type, or '' for true captions -> (words, captions)."""


def _words(reader: ShardReader) -> _Words:
    words: Counter[str] = Counter()
    captions: Counter[str] = Counter()
    step = -(-len(reader) // MOST_READ)
    for i in tqdm(range(0, len(reader), step), desc="read", unit=" images", disable=None):
        for kind, text in _texts(reader.sample(i)):
            words[kind] += len(text.split())
            captions[kind] += 1
    return {kind: (words[kind], captions[kind]) for kind in captions}


def _texts(sample: TrainingSample) -> list[tuple[str, str]]:
    true = [("", group.positive) for group in sample.groups]
    return true + [(each.type, each.caption) for group in sample.groups for each in group.negatives]


def _table(folder: str, index: DatasetIndex, words: _Words) -> list[str]:
    total = sum(index.negatives.values())
    wide = max(map(len, ("true captions", *index.negatives)))
    rows = [
        f"{folder}: {counted(index.samples, 'image')}, {counted(index.groups, 'group')}"
        f"{without_negatives(index.groups_without_negatives)}, "
        f"{counted(total, 'negative')} in "
        f"{counted(len(index.shards), 'shard')} "
        f"({sum(shard.bytes for shard in index.shards) / 1e6:.1f} MB)",
        f"  {'':{wide}} {'captions':>12} {'per image':>10} {'share':>8} {'mean words':>11}"
        + ("   most are about" if index.about else ""),
    ]
    counts = {"true captions": index.groups} | index.negatives
    for name, count in counts.items():
        share = f"{count / total:.1%}" if total and name in index.negatives else ""
        total_words, captions = words.get("" if name == "true captions" else name, (0, 0))
        mean = f"{total_words / captions:.1f}" if captions else "-"
        row = f"  {name:{wide}} {count:>12,} {count / index.samples:>10.2f} {share:>8} {mean:>11}"
        rows.append(f"{row}   {_largest(name, index)}".rstrip())
    skipped = ", ".join(f"{count} {reason}" for reason, count in index.skipped.items())
    rows.append(f"  images left out when packing: {skipped or 'none'}")
    return rows


def _largest(type_: str, index: DatasetIndex) -> str:
    """The most common predicate or attribute class of a type's negatives: 'on 24.0%'."""
    counts = index.about.counts.get(type_, {}) if index.about else {}
    most = max(sorted(about for about in counts if about), key=counts.__getitem__, default="")
    return f"{most} {counts[most] / sum(counts.values()):.1%}" if most else ""
