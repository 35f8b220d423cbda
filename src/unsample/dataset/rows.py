"""Rows of one file of a source: a parquet file, a WebDataset tar file, or a picture; not decoded, read as they are taken."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError, one_line, printable
from ..pictures.find import SUFFIXES
from ..pictures.parquet import opened, rows_of

PARQUET, TAR = ".parquet", ".tar"

FEW = 64
"""Rows of a parquet file that are in memory at once."""

Condition = int | str | None


@dataclass(frozen=True)
class Columns:
    """What of a row is read; in a tar file a column is the ending of a name, such as `cls`, or a key such as `json.caption`.

    Attributes:
        image: A column of pictures: bytes, or what Hugging Face's datasets make of them. Of parquet files alone.
        id: A column of ids, all different; by default an id is the name of the file and the number of the row.
        condition: A column of classes or captions, one for each picture.
    """

    image: str = "image"
    id: str | None = None
    condition: str | None = None


@dataclass(frozen=True)
class Piece:
    """A file of a source.

    Attributes:
        path: As the filesystem has it.
        name: What ids of its rows begin with.
        rows: How many pictures it has.
        size: Bytes.
        mark: When it was written, or what else tells it from what may take its place.
    """

    path: str
    name: str
    rows: int
    size: int
    mark: str


@dataclass(frozen=True)
class Row:
    """One picture, not decoded."""

    id: str
    data: bytes
    condition: Condition = None


def rows_in(fs: Any, path: str, columns: Columns) -> int:
    """How many pictures a file has.

    Raises:
        ImageError: It cannot be read, or has no such columns.
    """
    if path.endswith(PARQUET):
        with fs.open(path, "rb") as file, opened(path, file) as table:
            names = table.schema_arrow.names
            for name in (columns.image, columns.id, columns.condition):
                if name is not None and name not in names:
                    raise ImageError(f"{printable(path)} has no column {name!r}: expected one of {', '.join(names)}")
            return int(table.metadata.num_rows)
    if path.endswith(TAR):
        with fs.open(path, "rb") as file:
            samples = _samples(file, path)
        if not samples:
            raise ImageError(f"no pictures in {printable(path)}: expected a tar file of pictures, as WebDataset has them")
        return len(samples)
    return 1


def read_rows(fs: Any, piece: Piece, first: int, columns: Columns) -> Iterator[Row]:
    """The rows of a file from `first` on."""
    if piece.path.endswith(PARQUET):
        names = [name for name in (columns.image, columns.id, columns.condition) if name is not None]
        for number, values in enumerate(column_values(fs, piece.path, names, first), first):
            each = dict(zip(names, values, strict=True))
            own = f"{piece.name}-{number:05d}" if columns.id is None else str(each[columns.id])
            condition = None if columns.condition is None else _condition(each[columns.condition], columns.condition)
            yield Row(own, bytes(each[columns.image] or b""), condition)
    elif piece.path.endswith(TAR):
        with fs.open(piece.path, "rb") as file:
            for key, members in list(_samples(file, piece.path).items())[first:]:
                yield _sample(file, f"{piece.name}/{key}", members, columns)
    else:
        try:
            data = fs.cat_file(piece.path)
        except OSError as error:
            raise ImageError(f"cannot read {printable(piece.path)}: {one_line(error, 200)}") from None
        yield Row(piece.name, data)


def column_values(fs: Any, path: str, names: Sequence[str], first: int = 0) -> Iterator[tuple[Any, ...]]:
    """The values of columns of a parquet file, row after row from row `first` on; of pictures their bytes."""
    from pyarrow.types import is_struct

    with fs.open(path, "rb") as file, opened(path, file) as table:
        types = {name: table.schema_arrow.field(name).type for name in names}
        yield from rows_of(table, path, [f"{name}.bytes" if is_struct(types[name]) else name for name in names], first, FEW)


Members = dict[str, tuple[int, int]]
"""The files of a sample by the ending of their names: where each begins in the tar file, and how long it is."""


def _samples(file: Any, path: str) -> dict[str, Members]:
    """The samples of a tar file that have a picture, by their keys: what comes before the first dot of a name."""
    samples: dict[str, Members] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                folder, name = posixpath.split(member.name)
                key, _, ending = name.partition(".")
                if member.isfile() and key and not is_hidden(name):
                    sample = samples.setdefault(posixpath.join(folder, key), {})
                    if ending in sample:
                        raise ImageError(f"{printable(path)} has {printable(member.name)} twice; ids must differ")
                    sample[ending.lower()] = member.offset_data, member.size
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ImageError(f"{printable(path)} is not a tar file ({one_line(error, 200)})") from None
    return {key: members for key, members in samples.items() if _picture_of(members)}


def _picture_of(members: Members) -> str | None:
    return next((ending for ending in members if f".{ending.rpartition('.')[2]}" in SUFFIXES), None)


def _sample(file: Any, key: str, members: Members, columns: Columns) -> Row:
    def read(ending: str | None) -> bytes:
        first, size = members.get(ending or "", (0, 0))
        file.seek(first)
        return bytes(file.read(size))

    condition: Condition = None
    if columns.condition is not None:
        ending, _, name = columns.condition.partition(".")
        if ending not in members:
            raise ImageError(f"{printable(key)} has no .{ending} beside its picture; it has {', '.join(sorted(members))}")
        text = read(ending).decode(errors="replace").strip()
        try:
            value = json.loads(text).get(name) if name else int(text) if ending == "cls" else text
        except (ValueError, AttributeError, RecursionError) as error:
            raise ImageError(f"{printable(key)}.{ending}: {one_line(error, 100)}") from None
        condition = _condition(value, ending)
        condition = str(condition) if name and condition is not None else condition
    return Row(key, read(_picture_of(members)), condition)


def _condition(value: Any, column: str) -> Condition:
    if value is None or (isinstance(value, (int, str)) and not isinstance(value, bool)):
        return value
    raise ImageError(f"column {column!r}: expected classes or captions, given {type(value).__name__}; name another column")


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))
