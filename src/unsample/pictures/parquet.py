"""Rows of parquet files, read a few columns and a few rows at a time: a small file may unpack to gigabytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ImageError, one_line

LARGE, TIMES = 2**30, 1000
"""Bytes of a column's part that are refused where they are so many times the bytes stored: pictures do not pack like that."""

AT_ONCE = 2**28
"""Bytes of rows that are in memory at once, or else one row."""

FEW = 16
"""Rows that are in memory at once."""


def column_names(path: str | Path) -> list[str]:
    """The columns of a parquet file.

    Raises:
        ImageError: Not such a file, or pyarrow is missing.
    """
    with opened(path) as file:
        return list(file.schema_arrow.names)


def column_of(path: str | Path, name: str, few: int = FEW) -> Iterator[Any]:
    """The values of a column, or of one field of it such as `image.bytes`, row after row; read as they are taken.

    Raises:
        ImageError: Not such a file, no such column, damaged data, or pyarrow is missing.
    """
    with opened(path) as file:
        for (value,) in rows_of(file, str(path), [name], few=few):
            yield value


def rows_of(file: Any, path: str, names: Sequence[str], first: int = 0, few: int = FEW) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, or of fields of them, row after row from row `first` on; read as they are taken.

    Args:
        file: What `opened` returns.
        path: What errors call it.
        names: Columns, or one field of one, such as `image.bytes`.
        first: Rows before it are not read where they lie in other row groups.
        few: Rows that are in memory at once.

    Raises:
        ImageError: No such column, or damaged data.
    """
    for name in names:
        with _readable(path, name):
            if name.partition(".")[0] not in file.schema_arrow.names:
                raise KeyError(f"no column {name.partition('.')[0]}")
            _refuse_bomb(path, file.metadata, name)
    groups = list(range(file.metadata.num_row_groups))
    while groups and first >= (rows := file.metadata.row_group(groups[0]).num_rows):
        first -= rows
        del groups[0]
    with _readable(path, ", ".join(names)):
        for group in groups:
            count = max(1, min(few, AT_ONCE // max(1, _largest(file.metadata.row_group(group), names))))
            for batch in file.iter_batches(count, row_groups=[group], columns=list(names), use_threads=False):
                columns = [_values(batch.column(name.partition(".")[0]), name.partition(".")[2]) for name in names]
                yield from list(zip(*columns, strict=True))[first:]
                first = max(0, first - batch.num_rows)


def _values(column: Any, field: str) -> list[Any]:
    values = column.to_pylist()
    return [value and value[field] for value in values] if field else values


@contextmanager
def _readable(path: str, name: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, KeyError, IndexError, TypeError, ValueError, ArrowException) as error:
        raise ImageError(f"{path} is not a parquet file with a column {name} ({one_line(error, 200)})") from None


def _largest(row_group: Any, names: Sequence[str]) -> int:
    """Bytes that a value of a column may have: where values are kept once, in a dictionary, each row may be all of it."""
    parts = [row_group.column(index) for index in range(row_group.num_columns)]
    return sum(each.total_uncompressed_size for each in parts if each.path_in_schema in names and each.has_dictionary_page)


def _refuse_bomb(path: str | Path, metadata: Any, name: str) -> None:
    """A piece of a column is unpacked as a whole, however few rows are read."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            part = row_group.column(index)
            packed, whole = part.total_compressed_size, part.total_uncompressed_size
            if part.path_in_schema == name and whole > LARGE and whole > TIMES * packed:
                raise ImageError(f"{path} unpacks {packed} bytes to {whole}: refused as a decompression bomb")


def opened(path: str | Path, file: Any = None) -> Any:
    """A `pyarrow.parquet.ParquetFile`, of a file that is open already or of its path.

    Raises:
        ImageError: Not such a file, or pyarrow is missing.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ImageError("reading parquet needs pyarrow; install unsample[data]") from None
    try:
        return parquet.ParquetFile(path if file is None else file)
    except (OSError, ValueError, ArrowException) as error:
        raise ImageError(f"{path} is not a parquet file ({one_line(error, 200)})") from None
