"""Rows of archives with captions: WebDataset tars, parquet files, folders of Hugging Face datasets.

    KEY.jpg, KEY.txt, KEY.json                   {"caption": ..., "status": "success", ...}
    image, caption                               columns; or filename, caption with images elsewhere

hnc_ds/archives.py reads the files. Captions are in the columns of caption_rows.py, KEY.txt before
KEY.json; negatives as in tables. Samples that have no image or no caption are counted.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from hnc_ds.archives import TAR, Archive, Sample, find_archives, samples, split_names
from hnc_ds.captions.formats.caption_rows import (
    CAPTION_COLUMNS,
    HELP,
    IMAGE_COLUMNS,
    Read,
    Row,
    missing_column,
    negatives_of,
)
from hnc_ds.errors import UserError

NO_IMAGE = "samples without an image"
NO_CAPTION = "samples without a caption"
FAILED = "samples whose status is not success"
BROKEN = "samples with a broken KEY.json or KEY.txt"

LARGEST_SHARE_BROKEN = 0.01
"""Allowed share of samples whose texts are broken."""


def archive_rows(splits: Sequence[str], read: Read) -> Iterator[tuple[Row, str]]:
    """The rows of archives, each with its place for messages.

    A sample that is left out has a row without captions: its name tells others apart.

    Args:
        splits: Splits to read, by names of files or folders, else by a column 'split'; all when
            empty.
        read: How to read.

    Raises:
        UserError: An archive is broken, or has no column of captions or images; there is no such
            split; no sample can be used, or more than 1 % are broken.
    """
    _, archives = find_archives(read.path, splits)
    rest = _splits_of_rows(archives, splits, read)
    seen, used, met = 0, 0, set[str]()
    for archive in archives:
        for sample in samples(archive, texts=True):
            seen += 1
            split = str(sample.fields.get("split", ""))
            met.add(split)
            where = f"{archive.path.name}: sample {seen}"
            chosen = not rest or split in rest
            if row := _row(sample, archive, chosen, read, where):
                used += bool(row.captions)
                yield row, where
    _check_splits(rest, met, read)
    _check_counts(seen, used, read)


def _splits_of_rows(archives: Sequence[Archive], splits: Sequence[str], read: Read) -> set[str]:
    """The splits to choose rows by; none if the files are those of the splits."""
    names = set[str]().union(*map(split_names, archives))
    if not names & set(splits):
        return set(splits)
    if absent := sorted(set(splits) - names):
        raise UserError(f"{read.path}: no file or folder of split '{absent[0]}'")
    return set()


def _row(sample: Sample, archive: Archive, chosen: bool, read: Read, where: str) -> Row | None:
    """The row of a sample; without captions if it is left out, None if it has no image."""
    fields = sample.fields
    file = sample.name or _named(IMAGE_COLUMNS, sample, archive, read)
    if not chosen:
        return Row(str(file or ""), ()) if file else None
    is_tar = archive.path.suffix == TAR
    if not file or (is_tar and sample.image is None):
        read.irregular[NO_IMAGE] += 1
        return None
    caption = _named(CAPTION_COLUMNS, sample, archive, read)
    texts = tuple(_texts(caption))
    failed = (is_tar or "key" in fields) and fields.get("status", "success") != "success"
    if sample.broken or failed or not texts:
        read.irregular[BROKEN if sample.broken else FAILED if failed else NO_CAPTION] += 1
        return Row(str(file), ())
    return Row(str(file), texts, negatives_of(fields, read.columns(fields), read, where))


def _named(known: Sequence[str], sample: Sample, archive: Archive, read: Read) -> Any:
    """The value of the first known column; None if a tar's sample has none.

    Raises:
        UserError: A table has none.
    """
    fields = sample.fields
    if (name := next((name for name in known if name in fields), None)) is not None:
        return fields[name]
    if archive.path.suffix != TAR:
        raise missing_column(known, list(fields), f"{archive.path}")
    return None


def _texts(value: Any) -> list[str]:
    """The captions of a value that is a text or a list; empty ones are none."""
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _check_splits(rest: Collection[str], met: Collection[str], read: Read) -> None:
    if absent := sorted(set(rest) - set(met)):
        there = ", ".join(sorted(filter(None, met)))
        raise UserError(
            f"{read.path}: split '{absent[0]}' has no images: no file or folder begins with its "
            f"name, and {f'rows are of {there}' if there else 'no column names splits'}"
        )


def _check_counts(seen: int, used: int, read: Read) -> None:
    if not used:
        reasons = ", ".join(f"{count:,} {what}" for what, count in sorted(read.irregular.items()))
        raise UserError(
            f"{read.path}: none of its {seen:,} samples can be used ({reasons or 'it is empty'}); "
            "a tar holds KEY.jpg with KEY.txt, or with KEY.json that has 'caption'"
        )
    if (broken := read.irregular[BROKEN]) > LARGEST_SHARE_BROKEN * seen:
        raise UserError(f"{read.path}: {broken:,} of {seen:,} {BROKEN}, more than 1 %; {HELP}")
