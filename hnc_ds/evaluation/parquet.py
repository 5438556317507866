"""Parquet files as Hugging Face writes data sets: columns of text, and pictures in them.

pyarrow's one home. A picture is named FILE.parquet/ROW/COLUMN; a column of pictures holds
structs {bytes, path}.
"""

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from hnc_ds.errors import UserError
from hnc_ds.reading import reading

SUFFIX = ".parquet"


def read_texts(path: Path, columns: tuple[str, ...], benchmark: str) -> list[dict[str, str]]:
    """Rows of columns of text.

    Raises:
        UserError: pyarrow is missing; the file is none, or lacks a column or a value.
    """
    file = _open(path, benchmark)
    if lacking := [name for name in columns if name not in file.schema_arrow.names]:
        raise UserError(f"{path}: no column {', '.join(lacking)}; is it a file of {benchmark}?")
    with reading(path, what="cannot be read as parquet", by="pyarrow"):
        rows: list[dict[str, str]] = file.read(columns=list(columns)).to_pylist()
    for number, row in enumerate(rows):
        if wrong := [name for name in columns if not isinstance(row[name], str)]:
            raise UserError(f"{path}: row {number}: {wrong[0]} is no text; copy the file again")
    return rows


def picture_file(name: str) -> str | None:
    """The parquet file in the name of a picture; None where it is a file of its own."""
    parent = PurePosixPath(name).parent.parent
    return str(parent) if parent.suffix == SUFFIX else None


def picture_bytes(path: Path, name: str) -> bytes:
    """The encoded picture of that name.

    Raises:
        ValueError: There is none.
        OSError: The file cannot be read.
    """
    row, column = PurePosixPath(name).parts[-2:]
    start = 0
    file = _cached_file(path)
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if int(row) < start + rows:
            value = _pictures(path, group, column)[int(row) - start].as_py()
            data = value.get("bytes") if isinstance(value, dict) else None
            if not isinstance(data, bytes):
                raise ValueError(f"{path}: row {row} has no picture in {column}")
            return data
        start += rows
    raise ValueError(f"{path}: has no row {row}")


@lru_cache(maxsize=2)
def _pictures(path: Path, group: int, column: str) -> Any:
    """A column of a group of rows; neighbours are asked for one after another."""
    return _cached_file(path).read_row_group(group, columns=[column]).column(0)


@lru_cache(maxsize=8)
def _cached_file(path: Path) -> Any:
    return _open(path, path.name)


def _open(path: Path, benchmark: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{benchmark}: parquet files need pyarrow; pip install 'hnc-ds[parquet]'"
        ) from error
    with reading(path, what="cannot be read as parquet", by="pyarrow"):
        return pyarrow.parquet.ParquetFile(path)
