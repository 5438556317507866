"""Tables of annotations as text: CSV, and Flickr30k's lines of image,caption.

A row with more cells than the header has is never cut: it is refused, or, where the caption comes
last and stands without quotes, its commas are its own.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.evaluation.readers.annotations import lines_of, read_text

CAPTIONED = ["image", "caption"]
"""The header of Flickr30k's lines."""


def read_csv(path: Path, columns: Sequence[str], benchmark: str) -> Iterator[dict[str, str]]:
    """Rows of a CSV file by column name.

    Raises:
        UserError: Missing, without one of the columns, or with a row that has fewer or more cells
            than the header, or quotes that are wrong.
    """
    rows = csv.reader(io.StringIO(read_text(path, benchmark), newline=""), strict=True)
    names = _next(rows, path) or []
    if lacking := [name for name in columns if name not in names]:
        raise UserError(f"{path}: no column {', '.join(lacking)}; is it a file of {benchmark}?")
    while (cells := _next(rows, path)) is not None:
        if not cells:
            continue
        if len(cells) != len(names):
            raise UserError(
                f"{path}:{rows.line_num}: {len(cells)} columns where the header has {len(names)}; "
                "put text with commas in quotes, or copy the file again"
            )
        yield {name: cells[names.index(name)] for name in columns}


def read_captioned_lines(path: Path, benchmark: str) -> Iterator[tuple[str, str]]:
    """(image, caption) of a file with those two columns, whether captions stand in quotes or not.

    A row that is right as CSV is read as such; in any other the caption is all that comes after
    the first comma, as CLIP_benchmark reads flickr30k_test_karpathy.txt.

    Raises:
        UserError: As ``read_csv``; a row without a caption.
    """
    header, *lines = lines_of(read_text(path, benchmark))
    if [name.strip() for name in header.split(",")] != CAPTIONED:
        rows = read_csv(path, CAPTIONED, benchmark)
        yield from ((row["image"], row["caption"]) for row in rows)
        return
    for number, line in enumerate(lines, start=2):
        if line.strip():
            image, caption = _captioned(line, f"{path}:{number}")
            yield image, caption


def _captioned(line: str, where: str) -> tuple[str, str]:
    image, comma, caption = line.partition(",")
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as error:
        if "unexpected end" in str(error):  # a quote that is opened, and never closed
            raise UserError(f"{where}: a quote is not closed; mend the line") from error
        cells = []
    if len(cells) == len(CAPTIONED):
        image, caption = cells
    if not comma or not image.strip() or not caption.strip():
        raise UserError(f"{where}: not an image, a comma and a caption; mend the line")
    return image, caption


def _next(rows: Iterator[list[str]], path: Path) -> list[str] | None:
    """The next row, None after the last."""
    try:
        return next(rows, None)
    except csv.Error as error:
        line = getattr(rows, "line_num", 0)
        raise UserError(
            f"{path}:{line}: not a row of CSV ({error}); copy the file again"
        ) from error
