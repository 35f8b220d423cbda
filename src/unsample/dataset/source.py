"""Where the pictures of a dataset come from: parquet files, WebDataset tar files, or folders of pictures.

Files may lie wherever fsspec opens them: here, or behind `s3://`, `gs://`, `hf://`, `memory://` ... They are listed once;
their rows are read as they are taken. Each row has an id by its place, so that the same picture has the same id, and by that
the same noise, however a dataset is cut and whoever works on it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from typing import Any

import numpy as np
import numpy.typing as npt
from fsspec.core import url_to_fs

from ..errors import ArgumentError, ImageError, RunError, counted, one_line, printable
from ..pictures.find import SUFFIXES
from ..pictures.parquet import opened
from .rows import PARQUET, TAR, Columns, Piece, Row, column_values, is_hidden, read_rows, rows_in

COLUMNS = Columns()
"""Pictures alone, in the Hugging Face layout."""


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
    columns: Columns = COLUMNS
    passed_over: int = 0
    _firsts: npt.NDArray[Any] = field(init=False, repr=False)
    _reading: tuple[int, Iterator[Row]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._firsts = np.cumsum([0, *(piece.rows for piece in self.pieces)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @classmethod
    def of(cls, places: Sequence[str], columns: Columns = COLUMNS) -> Source:
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
            pieces.append(Piece(path, name, rows_in(fs, path, columns), size, mark))
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
            for (value,) in column_values(self.fs, piece.path, [column]):
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
            yield from read_rows(self.fs, piece, max(0, first - int(self._firsts[i])), self.columns)

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
                every = [each for each in sorted(fs.find(path)) if not is_hidden(each[len(path) :])]
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


def described(source: Source) -> str:
    """`100000 pictures in 8 files`."""
    return f"{counted(len(source), 'picture')} in {counted(len(source.pieces), 'file')}"
