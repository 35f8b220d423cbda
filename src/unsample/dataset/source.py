"""Where the pictures of a dataset come from: parquet files, WebDataset tar files, or folders of pictures.

Files may lie wherever fsspec opens them: here, or behind `s3://`, `gs://`, `hf://`, `memory://` ... They are listed once;
their rows are read as they are taken. Each row has an id by its place, so that the same picture has the same id, and by that
the same noise, however a dataset is cut and whoever works on it.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from typing import Any

import numpy as np
import numpy.typing as npt
from fsspec.core import url_to_fs

from ..errors import ArgumentError, ImageError, RunError, counted, one_line, printable
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


@dataclass
class Source:
    """The files of a dataset, in order.

    Attributes:
        fs: The filesystem of all of them.
        pieces: The files.
        columns: What is read of a row.
        passed_over: Files of folders that are none.
    """

    fs: Any
    pieces: Sequence[Piece]
    columns: Columns = Columns()
    passed_over: int = 0
    _firsts: npt.NDArray[Any] = field(init=False, repr=False)
    _reading: tuple[int, Iterator[Row]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._firsts = np.cumsum([0, *(piece.rows for piece in self.pieces)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @classmethod
    def of(cls, places: Sequence[str], columns: Columns = Columns()) -> Source:
        """The files of folders (and all folders below), globs and paths; parquet files, or tar files, or else pictures.

        Raises:
            ImageError: A place that is missing, cannot be opened or holds no picture; files of several kinds; no such column.
        """
        fs, files, passed_over = _files(places)
        kinds = {_kind(path) for path, _ in files}
        if len(kinds) > 1:
            raise ImageError(f"expected files of one kind, given {' and '.join(sorted(kinds))}; give them one after the other")
        kind = kinds.pop()
        if kind == "pictures" and (columns.condition or columns.id):
            raise ImageError("pictures by themselves have no columns: give parquet or tar files, or leave out the column")
        if kind == TAR and columns.id:
            raise ImageError("samples of tar files have their own ids: leave out the column of ids")
        pieces = []
        for path, name in files:
            size, mark = _stamp(fs, path)
            name = name.removesuffix(PARQUET).removesuffix(TAR)
            pieces.append(Piece(path, name, _rows_in(fs, path, columns), size, mark))
        return cls(fs, pieces, columns, passed_over)

    @property
    def condition_kind(self) -> type:
        """Classes are whole numbers, captions are text."""
        name, path = self.columns.condition, self.pieces[0].path
        if name is None or not path.endswith(PARQUET):
            return int if name == "cls" else str
        from pyarrow.types import is_integer

        with self.fs.open(path, "rb") as file, opened(path, file) as table:
            return int if is_integer(table.schema_arrow.field(name).type) else str

    def check_ids(self) -> None:
        """Refuse ids that two pictures have.

        Raises:
            ImageError: The first of them.
        """
        names = [piece.name for piece in self.pieces]
        twice = next((name for i, name in enumerate(sorted(names)[1:]) if sorted(names)[i] == name), None)
        if twice is None and self.columns.id is not None:
            twice = self._id_twice(self.columns.id)
        if twice is not None:
            column = f" in column {self.columns.id!r}" if self.columns.id else ""
            raise ImageError(f"expected different ids, given {printable(twice)!r} twice{column}; noise is drawn from the id")

    def _id_twice(self, column: str) -> str | None:
        """The first id that a column has twice; of each id seen a hash is kept."""
        seen: set[int] = set()
        for piece in self.pieces:
            for (value,) in _column(self.fs, piece.path, [column]):
                if hash(str(value)) in seen:
                    return str(value)
                seen.add(hash(str(value)))
        return None

    def rows(self, first: int, count: int) -> Iterator[Row]:
        """The rows from `first` on; reading goes on where the last call left off, if that is there.

        Raises:
            RunError: A file is not the one that was listed.
            ImageError: A file that cannot be read.
        """
        if self._reading is None or self._reading[0] != first:
            self._reading = first, self._from(first)
        rows = self._reading[1]
        self._reading = None
        for place in range(first, min(first + count, len(self))):
            yield next(rows)
            self._reading = place + 1, rows

    def _from(self, first: int) -> Iterator[Row]:
        index = int(np.searchsorted(self._firsts, first, side="right")) - 1
        for i, piece in enumerate(self.pieces[index:], index):
            self._check(piece)
            yield from _read(self.fs, piece, max(0, first - int(self._firsts[i])), self.columns)

    def _check(self, piece: Piece) -> None:
        try:
            same = _stamp(self.fs, piece.path) == (piece.size, piece.mark)
        except ImageError as error:
            raise RunError(
                f"the source changed, or is not where this worker is: {error}; all workers read the same path"
            ) from None
        if not same:
            raise RunError(
                f"the source changed while it was worked on: {printable(piece.path)} is not what it was when it was listed; "
                "put it back, or give another --out"
            )


def _files(places: Sequence[str]) -> tuple[Any, list[tuple[str, str]], int]:
    """The filesystem, the files with their names, and how many files of folders are of no kind that is taken."""
    if not places:
        raise ImageError("expected a source of pictures, given none")
    systems, files, passed_over = [], [], 0
    for place in places:
        fs, path = opened_place(place)
        systems.append(fs)
        try:
            if has_magic(path):
                found = [(each, posixpath.basename(each)) for each in sorted(fs.glob(path)) if fs.isfile(each)]
            elif fs.isdir(path):
                every = [each for each in sorted(fs.find(path)) if not _is_hidden(each[len(path) :])]
                wanted = next((kind for kind in (PARQUET, TAR) if any(each.endswith(kind) for each in every)), "pictures")
                found = [(each, each[len(path) :].lstrip("/")) for each in every if _kind(each) == wanted]
                passed_over += len(every) - len(found)
            else:
                found = [(path, posixpath.basename(path))] if fs.exists(path) else []
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot list {printable(place)}: {one_line(error, 200)}") from None
        if not found:
            raise ImageError(f"no pictures in {printable(place)}: expected pictures, {PARQUET} or {TAR} files; check the path")
        files += found
    if any(type(fs) is not type(systems[0]) for fs in systems):
        raise ImageError("expected all of a source in one place, given several filesystems; run them one after the other")
    return systems[0], files, passed_over


def opened_place(place: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path there.

    Raises:
        ArgumentError: An address of no kind that fsspec knows, or whose library is not installed.
    """
    try:
        fs, path = url_to_fs(place)
    except (ImportError, ValueError, OSError) as error:
        raise ArgumentError(f"cannot open {printable(place)}: {one_line(error, 200)}") from None
    return fs, path.rstrip("/") or path


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _kind(path: str) -> str:
    ending = posixpath.splitext(path)[1].lower()
    return (
        ending if ending in (PARQUET, TAR) else "pictures" if ending in SUFFIXES else f"files like {posixpath.basename(path)}"
    )


def _stamp(fs: Any, path: str) -> tuple[int, str]:
    """Size of a file, and when it was written."""
    try:
        info = fs.info(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {printable(path)}: {one_line(error, 200)}") from None
    names = ("ETag", "etag", "checksum", "mtime", "LastModified", "last_modified", "created")
    return int(info.get("size") or 0), str(next((info[name] for name in names if info.get(name)), ""))


def _rows_in(fs: Any, path: str, columns: Columns) -> int:
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


def _read(fs: Any, piece: Piece, first: int, columns: Columns) -> Iterator[Row]:
    """The rows of a file from `first` on."""
    if piece.path.endswith(PARQUET):
        names = [name for name in (columns.image, columns.id, columns.condition) if name is not None]
        for number, values in enumerate(_column(fs, piece.path, names, first), first):
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


def _column(fs: Any, path: str, names: Sequence[str], first: int = 0) -> Iterator[tuple[Any, ...]]:
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
                if member.isfile() and key and not _is_hidden(name):
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


def described(source: Source) -> str:
    """`100000 pictures in 8 files`."""
    return f"{counted(len(source), 'picture')} in {counted(len(source.pieces), 'file')}"
