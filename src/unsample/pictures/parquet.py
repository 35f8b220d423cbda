"""Rows of parquet files, read one column at a time and a few rows at a time: a small file may unpack to gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ImageError, one_line

LARGE, TIMES = 2**30, 1000
"""Bytes of a column's part that are refused where they are so many times the bytes stored: pictures do not pack like that."""

FEW = 16
"""Rows that are in memory at once."""


def column_names(path: str | Path) -> list[str]:
    """The columns of a parquet file.

    Raises:
        ImageError: Not such a file, or pyarrow is missing.
    """
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def column_of(path: str | Path, name: str, few: int = FEW) -> Iterator[Any]:
    """The values of a column, or of one field of it such as `image.bytes`, row after row; read as they are taken.

    Raises:
        ImageError: Not such a file, no such column, damaged data, or pyarrow is missing.
    """
    from pyarrow import ArrowException

    with _opened(path) as file:
        top, _, field = name.partition(".")
        try:
            if top not in file.schema_arrow.names:
                raise KeyError(f"no column {top}")
            _refuse_bomb(path, file.metadata, name)
            for batch in file.iter_batches(few, columns=[name], use_threads=False):
                for value in batch.column(0):
                    yield value.as_py()[field] if field else value.as_py()
        except (OSError, KeyError, IndexError, TypeError, ArrowException) as error:
            raise ImageError(f"{path} is not a parquet file with a column {name} ({one_line(error, 200)})") from None


def _refuse_bomb(path: str | Path, metadata: Any, name: str) -> None:
    """A piece of a column is unpacked as a whole, however few rows are read."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            part = row_group.column(index)
            packed, whole = part.total_compressed_size, part.total_uncompressed_size
            if part.path_in_schema == name and whole > LARGE and whole > TIMES * packed:
                raise ImageError(f"{path} unpacks {packed} bytes to {whole}: refused as a decompression bomb")


def _opened(path: str | Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ImageError("reading parquet needs pyarrow; install unsample[data]") from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise ImageError(f"{path} is not a parquet file ({one_line(error, 200)})") from None
