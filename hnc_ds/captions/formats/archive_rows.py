"""Rows of archives with captions: WebDataset tars, parquet files, folders of Hugging Face datasets.

    KEY.jpg, KEY.txt, KEY.json                   {"caption": ..., "status": "success", ...}
    image, caption                               columns; or filename, caption with images elsewhere

hnc_ds/archives.py reads the files. Captions are in the columns of caption_rows.py, KEY.txt before
KEY.json; negatives as in tables. Samples that have no image or no caption are counted.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hnc_ds.archives import TAR, Archive, Sample, find_archives, samples, split_names
from hnc_ds.captions.formats.caption_rows import (
    CAPTION_COLUMNS,
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
SUCCESS = "success"
"""img2dataset's status of a downloaded image, a key of KEY.json or a column."""
BROKEN = "samples with a broken KEY.json or KEY.txt"

LARGEST_SHARE_BROKEN = 0.01
"""Allowed share of samples whose texts are broken."""


def archive_rows(splits: Sequence[str], read: Read) -> Iterator[tuple[Row, str]]:
    """The rows of archives, each with its place for messages.

    A sample that is left out has a row without captions: by its name it is not counted as another.

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
    found = _Found()
    for archive in archives:
        for sample in samples(archive, texts=True):
            where = f"{archive.path.name}: sample {found.samples}"
            split = str(sample.fields.get("split", ""))
            row = _row(sample, archive, not rest or split in rest, read, where)
            found.add(sample, split, row, where)
            if row:
                yield row, where
    _check_splits(rest, found, read)
    _check_counts(found, read)


@dataclass
class _Found:
    """What has been read."""

    samples: int = 0
    used: int = 0
    splits: set[str] = field(default_factory=set)
    """Of rows."""
    broken: str = ""
    """A sample with broken texts, and the reason."""

    def add(self, sample: Sample, split: str, row: Row | None, where: str) -> None:
        self.samples += 1
        self.used += bool(row and row.captions)
        self.splits.add(split)
        if sample.broken and not self.broken:
            self.broken = f"{where} ({sample.broken})"


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
    file = sample.name or _named(IMAGE_COLUMNS, sample, archive)
    if not file or (sample.name and sample.image is None):
        read.irregular[NO_IMAGE] += 1
        return None
    if not chosen:
        return Row(str(file), ())
    texts = _texts(_named(CAPTION_COLUMNS, sample, archive))
    if reason := _unusable(sample, texts):
        read.irregular[reason] += 1
        return Row(str(file), ())
    columns = read.columns(sample.fields)
    return Row(str(file), texts, negatives_of(sample.fields, columns, read, where))


def _unusable(sample: Sample, texts: Sequence[str]) -> str:
    """Why a sample is left out; empty if it is not."""
    if sample.broken:
        return BROKEN
    if sample.fields.get("status", SUCCESS) != SUCCESS:
        return FAILED
    return "" if texts else NO_CAPTION


def _named(known: Sequence[str], sample: Sample, archive: Archive) -> Any:
    """The value of the first known column; None if a tar's sample has none.

    Raises:
        UserError: A table has none.
    """
    fields = sample.fields
    if (name := next((name for name in known if name in fields), None)) is not None:
        return fields[name]
    if archive.path.suffix != TAR:
        raise missing_column(known, list(fields), str(archive.path))
    return None


def _texts(value: Any) -> tuple[str, ...]:
    """The captions of a value that is a text or a list; empty ones are none."""
    texts = value if isinstance(value, list) else [value]
    return tuple(text for text in texts if isinstance(text, str) and text.strip())


def _check_splits(rest: Collection[str], found: _Found, read: Read) -> None:
    if absent := sorted(set(rest) - found.splits):
        there = ", ".join(sorted(filter(None, found.splits)))
        raise UserError(
            f"{read.path}: split '{absent[0]}' has no images: no file or folder begins with its "
            f"name, and {f'rows are of {there}' if there else 'no column names splits'}"
        )


def _check_counts(found: _Found, read: Read) -> None:
    if not found.used:
        reasons = ", ".join(f"{count:,} {what}" for what, count in sorted(read.irregular.items()))
        raise UserError(
            f"{read.path}: none of its {found.samples:,} samples can be used "
            f"({reasons or 'it is empty'}); a tar holds KEY.jpg with KEY.txt, or with KEY.json "
            "that has 'caption'"
        )
    if (broken := read.irregular[BROKEN]) > LARGEST_SHARE_BROKEN * found.samples:
        raise UserError(
            f"{read.path}: {broken:,} of {found.samples:,} {BROKEN}, more than "
            f"{LARGEST_SHARE_BROKEN:.0%}, e.g. {found.broken}; make the tars again"
        )
