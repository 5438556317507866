"""BiVLC: SugarCrepe's captions with a picture made for each false one. In parquet files."""

from collections.abc import Iterator
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.evaluation.parquet import SUFFIX, read_texts
from hnc_ds.evaluation.question import ImageRef, Question
from hnc_ds.evaluation.readers.two_images import each_its_own

SOURCE = "bivlc"
RELEASED = {
    "add_att": 76,
    "add_obj": 399,
    "replace_att": 437,
    "replace_obj": 1200,
    "replace_rel": 462,
    "swap_att": 278,
    "swap_obj": 81,
}
"""Counted in the authors' results for each item."""

TEXTS = ("caption", "negative_caption", "type", "subtype")
PICTURES = ("image", "negative_image")


def read_bivlc(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """The parquet files of a folder; groups are TYPE_SUBTYPE, tags the types.

    Raises:
        UserError: There is none; as ``read_texts``.

    Source: Miranda et al. 2024, hf.co/datasets/imirandam/BiVLC.
    """
    files = [place] if place.is_file() else sorted(place.rglob(f"*{SUFFIX}"))
    if not files:
        raise UserError(f"{place}: no *{SUFFIX} is there; BiVLC needs those of its test split")
    folder = place.parent if place.is_file() else place
    for path in files:
        name = path.relative_to(folder).as_posix()
        for number, row in enumerate(read_texts(path, TEXTS, "BiVLC")):
            images = tuple(ImageRef(SOURCE, f"{name}/{number}/{column}") for column in PICTURES)
            captions = (row["caption"], row["negative_caption"])
            group, tags = f"{row['type']}_{row['subtype']}", (row["type"],)
            yield each_its_own(f"{name}/{number}", images, captions, group, tags)
