"""Parquet files, and Arrow files as ``save_to_disk`` of Hugging Face's datasets writes them.

A column of images holds structs {bytes, path}, or bytes alone. Texts are streamed. An image is read
by row and column: of a parquet file with its row group, of an Arrow file from mapped memory. No
other module imports pyarrow.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install
from hnc_ds.reading import reading

PARQUET, ARROW = ".parquet", ".arrow"
IMAGES = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes")
"""Columns of images, by precedence. Another column of bytes counts if it is the only one."""
BATCH_ROWS = 256


class Table:
    """A parquet or Arrow file.

    Args:
        path: The file.
        purpose: What needs it, for messages.

    Raises:
        UserError: It is broken, or pyarrow is not installed.
    """

    def __init__(self, path: Path, purpose: str) -> None:
        self._path = path
        self._types, opened = _pyarrow(purpose)
        with self._reading():
            self.file: Any = opened(path)
        schema = self.file.schema if path.suffix == ARROW else self.file.schema_arrow
        self._fields = {field.name: field.type for field in schema}
        counts = self.file if path.suffix == ARROW else self.file.metadata
        self.rows: int = counts.num_rows
        self.columns = tuple(self._fields)
        one = self._image_column()
        self.image = one if one and self._has_bytes(one) else ""
        """The column of images; empty if there is none, or if it has their paths alone."""
        self._paths = one if one != self.image else ""

    def texts(self) -> list[str]:
        """Columns of texts, of lists of texts, of whole numbers, and of the paths of images."""
        texts = [name for name, type_ in self._fields.items() if self._is_text(type_)]
        return [*texts, self._paths] if self._paths else texts

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows, with these columns; of an image its path.

        Raises:
            UserError: A column is damaged.
        """
        if not columns:
            yield from ({} for _ in range(self.rows))
            return
        with self._reading():
            for batch in self._batches(list(columns)):
                for row in batch.to_pylist():
                    if self._paths and self._paths in row:
                        row[self._paths] = (row[self._paths] or {}).get("path")
                    yield row

    def value(self, row: int, column: str) -> Any:
        """A value of a column of images.

        Raises:
            ValueError: There is no such row.
            UserError: The column is damaged.
        """
        if row >= self.rows:
            raise ValueError(f"{self._path}: has no row {row}")
        with self._reading():
            if self._path.suffix == ARROW:
                return self.file.column(column)[row].as_py()
            group = 0
            while row >= (rows := self.file.metadata.row_group(group).num_rows):
                group, row = group + 1, row - rows
            return _row_group(self._path, group, column)[row].as_py()

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        if self._path.suffix == ARROW:
            return self.file.select(columns).to_batches(max_chunksize=BATCH_ROWS)
        return self.file.iter_batches(BATCH_ROWS, columns=columns)

    def _reading(self) -> AbstractContextManager[None]:
        kind = "an Arrow file" if self._path.suffix == ARROW else "parquet"
        return reading(self._path, what=f"cannot be read as {kind}", by="pyarrow")

    def _image_column(self) -> str:
        held = [name for name, type_ in self._fields.items() if self._is_image(type_)]
        known = [name for name in IMAGES if name in held]
        return known[0] if known else held[0] if len(held) == 1 else ""

    def _is_image(self, type_: Any) -> bool:
        if self._types.is_struct(type_) and type_.get_field_index("bytes") >= 0:
            return self._is_image(type_.field("bytes").type)
        return self._types.is_binary(type_) or self._types.is_large_binary(type_)

    def _is_text(self, type_: Any) -> bool:
        types = self._types
        holders = types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_dictionary
        if any(is_holder(type_) for is_holder in holders):
            return self._is_text(type_.value_type)
        return types.is_string(type_) or types.is_large_string(type_) or types.is_integer(type_)

    def _has_bytes(self, column: str) -> bool:
        """Whether any row has bytes; by the statistics of a parquet file, if it has some."""
        if not self._types.is_struct(self._fields[column]):
            return True
        if self._path.suffix == ARROW:
            chunks = (chunk.field("bytes") for chunk in self.file.column(column).chunks)
            return any(chunk.null_count < len(chunk) for chunk in chunks)
        metadata = self.file.metadata
        groups = (metadata.row_group(n) for n in range(metadata.num_row_groups))
        parts = (group.column(n) for group in groups for n in range(group.num_columns))
        return not all(_is_null(p) for p in parts if p.path_in_schema == f"{column}.bytes")


def _is_null(part: Any) -> bool:
    found = part.statistics
    return found is not None and found.has_null_count and found.null_count == part.num_values


def table_image(path: Path, row: int, column: str) -> bytes | None:
    """The encoded image of a row; None if it has none.

    Raises:
        ValueError: There is no such row.
        UserError: The file is damaged.
    """
    value = _cached(path).value(row, column)
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else None


@lru_cache(maxsize=8)
def _cached(path: Path) -> Table:
    return Table(path, path.name)


@lru_cache(maxsize=2)
def _row_group(path: Path, group: int, column: str) -> Any:
    """A column of a row group, cached because neighbouring rows are read in turn."""
    return _cached(path).file.read_row_group(group, columns=[column]).column(0)


def _pyarrow(purpose: str) -> tuple[Any, Any]:
    """pyarrow's module of types, and a function that opens a file of either kind."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{purpose}: parquet and Arrow files need pyarrow; {pip_install('parquet')}"
        ) from error

    def opened(path: Path) -> Any:
        if path.suffix != ARROW:
            return pyarrow.parquet.ParquetFile(path)
        table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
        table.validate(full=True)  # a damaged offset would be read outside of the mapped memory
        return table

    return pyarrow.types, opened
