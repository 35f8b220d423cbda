"""Rows of one file of a source: a parquet file, a WebDataset tar file, or a picture; not decoded, read as they are taken."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import ImageError, one_line, printable
from ..pictures.find import SUFFIXES
from ..pictures.parquet import opened, rows_of
from .tar import Members, condition_in, picture_of, samples_in

PARQUET, TAR = ".parquet", ".tar"

FEW = 64
"""Rows of a parquet file that are in memory at once."""

LARGEST, TEXT = 2**28, 2**24
"""Bytes of a picture, and of a text beside one: more would be held in memory for nothing."""

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
    """One picture, not decoded, or why it cannot be."""

    id: str
    data: bytes
    condition: Condition = None
    fault: str = ""


def kind_of(path: str) -> str:
    """`.parquet`, `.tar`, `pictures`, or what else a file is called like; in whatever case it is written."""
    ending = posixpath.splitext(path)[1].lower()
    if ending in (PARQUET, TAR):
        return ending
    return "pictures" if ending in SUFFIXES else f"files like {printable(posixpath.basename(path))}"


@dataclass(frozen=True)
class Contents:
    """What is in a file of a source.

    Attributes:
        rows: How many pictures.
        condition: Whole numbers or texts, if it has a column of them.
        without: Samples without a picture.
    """

    rows: int
    condition: type | None = None
    without: int = 0


def contents(fs: Any, path: str, columns: Columns) -> Contents:
    """What is in a file.

    Raises:
        ImageError: It cannot be read, or has no such columns.
    """
    kind = kind_of(path)
    if kind == PARQUET:
        with fs.open(path, "rb") as file, opened(path, file) as table:
            return Contents(int(table.metadata.num_rows), _checked_columns(table.schema_arrow, path, columns))
    if kind == TAR:
        with fs.open(path, "rb") as file:
            samples, without = samples_in(file, path)
        if not samples:
            raise ImageError(f"no pictures in {printable(path)}: expected a tar file of pictures, as WebDataset has them")
        return Contents(len(samples), tar_kind(columns), without)
    return Contents(1)


def tar_kind(columns: Columns) -> type | None:
    """The kind of the conditions of tar files."""
    return None if columns.condition is None else int if columns.condition == "cls" else str


def _checked_columns(schema: Any, path: str, columns: Columns) -> type | None:
    """The kind of the conditions of a parquet file whose columns are of kinds that are taken."""
    from pyarrow import types

    def of(name: str) -> Any:
        if (count := schema.names.count(name)) != 1:
            has = f"{count} columns" if count else "no column"
            raise ImageError(f"{printable(path)} has {has} {name!r}: expected one of {', '.join(schema.names)}")
        kind = schema.field(name).type
        return kind.value_type if types.is_dictionary(kind) else kind

    def refuse(name: str, expected: str, kind: Any) -> ImageError:
        return ImageError(f"column {name!r} of {printable(path)}: expected {expected}, given {kind}; name another column")

    def is_text(kind: Any) -> bool:
        return any(each(kind) for each in (types.is_string, types.is_large_string, types.is_string_view))

    kind = of(columns.image)
    inner = kind.field("bytes").type if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    known = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    if not any(each(inner) for each in known):
        paths = " (of paths or addresses give the files themselves)" if is_text(inner) else ""
        raise refuse(columns.image, "pictures as bytes, or as structs with a field `bytes`", f"{kind}{paths}")
    if columns.id is not None and not (types.is_integer(kind := of(columns.id)) or is_text(kind)):
        raise refuse(columns.id, "ids as text or whole numbers", kind)
    if columns.condition is None or types.is_null(kind := of(columns.condition)):
        return None
    if not (types.is_integer(kind) or is_text(kind)):
        raise refuse(columns.condition, "classes or captions", kind)
    return int if types.is_integer(kind) else str


def read_rows(fs: Any, piece: Piece, first: int, columns: Columns) -> Iterator[Row]:
    """The rows of a file from `first` on.

    Raises:
        ImageError: It cannot be read.
    """
    kind = kind_of(piece.path)
    if kind == PARQUET:
        names = [name for name in (columns.image, columns.id, columns.condition) if name is not None]
        for number, values in enumerate(column_values(fs, piece.path, names, first), first):
            each = dict(zip(names, values, strict=True))
            own = f"{piece.name}-{number:05d}" if columns.id is None else str(each[columns.id])
            condition = None if columns.condition is None else _condition(each[columns.condition], columns.condition)
            data = each[columns.image] or b""
            yield _row(own, len(data), partial(bytes, data), condition)
    elif kind == TAR:
        with fs.open(piece.path, "rb") as file:
            for key, members in list(samples_in(file, piece.path)[0].items())[first:]:
                yield _sample(file, f"{piece.name}/{key}", members, columns)
    else:
        try:
            yield _row(piece.name, piece.size, lambda: fs.cat_file(piece.path))
        except OSError as error:
            raise ImageError(f"cannot read {printable(piece.path)}: {one_line(error, 200)}") from None


def ids_in(fs: Any, piece: Piece, columns: Columns) -> Iterator[str]:
    """The ids of a file's rows; of a column of them, or of the keys of a tar file.

    Raises:
        ImageError: One that is missing.
    """
    if columns.id is None:
        with fs.open(piece.path, "rb") as file:
            yield from (f"{piece.name}/{key}" for key in samples_in(file, piece.path)[0])
        return
    for number, (value,) in enumerate(column_values(fs, piece.path, [columns.id])):
        if value is None:
            raise ImageError(
                f"column {columns.id!r} of {printable(piece.path)}: expected an id of each row, row {number} has none"
            )
        yield str(value)


def column_values(fs: Any, path: str, names: Sequence[str], first: int = 0) -> Iterator[tuple[Any, ...]]:
    """The values of columns of a parquet file, row after row from row `first` on; of pictures their bytes."""
    from pyarrow.types import is_struct

    with fs.open(path, "rb") as file, opened(path, file) as table:
        types = {name: table.schema_arrow.field(name).type for name in names}
        yield from rows_of(table, path, [f"{name}.bytes" if is_struct(types[name]) else name for name in names], first, FEW)


def _row(name: str, size: int, read: Callable[[], bytes], condition: Condition = None) -> Row:
    """A row, of which a picture that is too large is not read."""
    if size > LARGEST:
        return Row(name, b"", condition, f"{printable(name)} has {size:,} bytes: expected a picture of at most {LARGEST:,}")
    return Row(name, bytes(read()), condition)


def _sample(file: Any, key: str, members: Members, columns: Columns) -> Row:
    def read(ending: str) -> bytes:
        first, size = members[ending]
        file.seek(first)
        return bytes(file.read(size))

    condition: Condition = None
    if columns.condition is not None:
        ending, _, name = columns.condition.partition(".")
        if ending not in members:
            raise ImageError(f"{printable(key)} has no .{ending} beside its picture; it has {', '.join(sorted(members))}")
        if (size := members[ending][1]) > TEXT:
            raise ImageError(f"{printable(key)}.{ending} has {size:,} bytes: expected a text of at most {TEXT:,}")
        condition = _condition(condition_in(read(ending), columns.condition, key), columns.condition)
        condition = str(condition) if name and condition is not None else condition
    picture = picture_of(members, key) or ""
    return _row(key, members[picture][1], lambda: read(picture), condition)


def _condition(value: Any, column: str) -> Condition:
    if value is None or (isinstance(value, (int, str)) and not isinstance(value, bool)):
        return value
    raise ImageError(f"column {column!r}: expected classes or captions, given {type(value).__name__}; name another column")


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))
