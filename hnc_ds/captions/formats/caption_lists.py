"""Lists of captions as images with all their captions, and with the negatives that a list has.

Their layouts are in caption_rows.py. Rows of one image may lie apart.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hnc_ds.captions.formats.caption_rows import HELP, Read, rows_of
from hnc_ds.captions.formats.gathered import Row, gathered, path_of
from hnc_ds.captions.formats.gzipped import open_unzipped
from hnc_ds.captions.formats.negative_columns import KNOWN, NegativeColumns
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

GROUP_TYPE = "caption"
"""Of the groups that come from lists."""


class ListedImage(NamedTuple):
    """An image and its captions."""

    image_id: str
    """Its file name without folder and suffix."""
    captions: tuple[str, ...]
    """With single spaces, each once."""
    negatives: tuple[tuple[Negative, ...], ...]
    """That the list has of each caption; none is proven false."""


def read_caption_list(
    path: Path,
    splits: Sequence[str],
    irregular: Counter[str],
    negatives: NegativeColumns = NegativeColumns(),  # noqa: B008, a constant
    *,
    needs_negatives: bool = False,
) -> Iterator[ListedImage]:
    """The images of a list with all their captions, in the order of their first rows.

    Args:
        path: The file.
        splits: Of Karpathy's file, those that are read; all when empty.
        irregular: Is told what was left out, and why.
        negatives: Which columns they are in.
        needs_negatives: Whether there must be such a column.

    Raises:
        UserError: Missing, broken, or of no known layout; splits or columns that the file does not
            have. Names file and place.
    """
    negatives.check()
    if not path.is_file():
        raise UserError(f"{path}: no such file; {HELP}")
    read = Read(path, negatives, irregular, needs_negatives, set())
    with open_unzipped(path) as file:
        for image_id, rows in gathered(_named(rows_of(file, splits, read), read)):
            if image := _listed(image_id, rows, irregular):
                yield image


def read_listed_groups(path: Path, negatives: NegativeColumns) -> Iterator[ImageCaptions]:
    """The images of a list with negatives, as captions.jsonl has them. When the file ends, a line
    says what was read.

    Raises:
        UserError: As ``read_caption_list``; it holds no negatives at all.
    """
    irregular: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for image in read_caption_list(path, (), irregular, negatives, needs_negatives=True):
        types.update(negative.type for own in image.negatives for negative in own)
        pairs = zip(image.captions, image.negatives, strict=True)
        groups = (CaptionGroup(caption, GROUP_TYPE, own) for caption, own in pairs)
        yield ImageCaptions(image.image_id, tuple(groups))
    told = [f"{count:,} of type {name}" for name, count in sorted(types.items())]
    told = told or ["no negatives"]
    told += [f"{count:,} {what}" for what, count in sorted(irregular.items())]
    print(f"{path}: negatives that are not proven false: {', '.join(told)}")


def plain(caption: str) -> str:
    """What two captions have in common that say the same in the same words."""
    return caption.casefold().rstrip(" .!")


def _named(rows: Iterator[tuple[Row, str]], read: Read) -> Iterator[Row]:
    for row, where in rows:
        if not path_of(row.file):
            raise UserError(f"{read.path}: {where}: no image is named; mend the row")
        yield row
    if absent := [name for name in read.negatives.names if name not in read.met]:
        raise UserError(f"{read.path}: nothing has a column '{absent[0]}' (--negative_columns)")
    if read.needs_negatives and not read.met:
        raise UserError(
            f"{read.path}: a list of captions without negatives; make some with 'hnc-ds "
            "swap-words', or name their columns with --negative_columns (known without: "
            f"{', '.join(KNOWN)})"
        )


def _listed(image_id: str, rows: Sequence[Row], irregular: Counter[str]) -> ListedImage | None:
    """The captions of an image, each once, with their negatives; nothing where it has none."""
    captions: dict[str, dict[str, Negative]] = {}
    for row in rows:
        false = [(type_, " ".join(text.split())) for type_, text in row.negatives]
        for text in row.captions:
            own = captions.setdefault(" ".join(text.split()), {})
            own.update({n: Negative(n, t, open_world=True) for t, n in false if n and n not in own})
    if "" in captions:
        irregular["images with an empty caption"] += 1
        del captions[""]
    if not captions:
        return None
    # What a caption of the image says is true of it.
    true = {plain(caption) for caption in captions}
    kept = [[n for n in own.values() if plain(n.caption) not in true] for own in captions.values()]
    if dropped := sum(map(len, captions.values())) - sum(map(len, kept)):
        irregular["negatives that are a true caption of their image"] += dropped
    return ListedImage(image_id, tuple(captions), tuple(map(tuple, kept)))
