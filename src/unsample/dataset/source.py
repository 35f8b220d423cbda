"""Where the pictures of a dataset come from: parquet files, WebDataset tar files, or folders of pictures.

Files may lie wherever fsspec opens them: here, or behind `s3://`, `gs://`, `hf://`, `memory://` ... They are listed once;
their rows are read as they are taken. Each row has an id by its place, so that the same picture has the same id, and by that
the same noise, however a dataset is cut and whoever works on it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import has_magic
from typing import Any

import numpy as np
import numpy.typing as npt
from fsspec.core import url_to_fs

from ..errors import ArgumentError, ImageError, RunError, one_line, printable
from .rows import PARQUET, TAR, Columns, Piece, Row, contents, ids_in, is_hidden, kind_of, read_rows, tar_kind
from .tar import check_name

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

COLUMNS = Columns()
"""Pictures alone, in the Hugging Face layout."""


@dataclass
class Source:
    """The files of a dataset, in order.

    Attributes:
        fs: The filesystem of all of them.
        pieces: The files.
        columns: What is read of a row.
        passed_over: Files of folders that are none, and samples of tar files that have none.
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
        kinds = {kind_of(path) for path, _ in files}
        if len(kinds) > 1:
            raise ImageError(f"expected files of one kind, given {' and '.join(sorted(kinds))}; give them one after the other")
        kind = kinds.pop()
        if kind not in (PARQUET, TAR, "pictures"):
            more = _unpack([path for path, _ in files])
            raise ImageError(f"expected pictures, {PARQUET} or {TAR} files, given {kind}{more}")
        if kind == "pictures" and (columns.condition or columns.id):
            raise ImageError("pictures by themselves have no columns: give parquet or tar files, or leave out the column")
        if kind == TAR and columns.id:
            raise ImageError("samples of tar files have their own ids: leave out the column of ids")
        pieces, conditions = [], dict[type, str]()
        for path, name in files:
            size, mark = _stamp(fs, path)
            check_name(name)
            there = contents(fs, path, columns)
            passed_over += there.without
            if there.condition is not None:
                conditions.setdefault(there.condition, path)
            pieces.append(Piece(path, name[: -len(kind)] if kind != "pictures" else name, there.rows, size, mark))
        if len(conditions) > 1:
            raise ImageError(
                f"expected conditions of one kind in column {columns.condition!r}, given whole numbers in "
                f"{printable(conditions[int])} and text in {printable(conditions[str])}; give them one after the other"
            )
        made = cls(fs, pieces, columns, passed_over)
        if not len(made):
            raise ImageError(f"no pictures in {printable(places[0])}: its files have no rows")
        return made

    @cached_property
    def condition_kind(self) -> type:
        """Classes are whole numbers, captions are text."""
        if self.columns.condition is None:
            return str
        if kind_of(self.pieces[0].path) == TAR:
            return tar_kind(self.columns) or str
        kinds = (contents(self.fs, piece.path, self.columns).condition for piece in self.pieces)
        return next((kind for kind in kinds if kind is not None), str)

    def check_ids(self) -> None:
        """Refuse ids that two pictures have.

        Raises:
            ImageError: The first of them, or one that is missing.
        """
        if self.columns.id is None:
            self._check_different(piece.name for piece in self.pieces)  # which ids begin with
        self._check_different(name for piece in self._mixed() for name in ids_in(self.fs, piece, self.columns))

    def _check_different(self, names: Iterable[str]) -> None:
        seen: set[int] = set()
        for name in names:
            if hash(name) in seen:  # of each a hash is kept
                column = f" in column {self.columns.id!r}" if self.columns.id else ""
                twice = f"{printable(name)!r} twice{column}"
                raise ImageError(f"expected different ids, given {twice}; noise is drawn from the id")
            seen.add(hash(name))

    def _mixed(self) -> Iterator[Piece]:
        """Files that could have ids of others: all with a column of ids, else tar files whose names are folders of others."""
        names = {piece.name for piece in self.pieces}
        folders = {folder for name in names for folder in _folders(name) if folder in names}
        for piece in self.pieces:
            is_mixed = kind_of(piece.path) == TAR and not folders.isdisjoint([piece.name, *_folders(piece.name)])
            if self.columns.id is not None or is_mixed:
                yield piece

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
            if (row := next(rows, None)) is None:
                raise RunError("the source changed: it has fewer pictures than were listed; give another --out")
            yield row
            self._reading = place + 1, rows

    def _from(self, first: int) -> Iterator[Row]:
        index = int(np.searchsorted(self._firsts, first, side="right")) - 1
        for i, piece in enumerate(self.pieces[index:], index):
            self._check(piece)
            number = max(0, first - int(self._firsts[i]))
            for row in read_rows(self.fs, piece, number, self.columns):
                yield row
                number += 1
            if number != piece.rows:
                raise RunError(
                    f"the source changed while it was worked on: {printable(piece.path)} has {number} pictures, and "
                    f"{piece.rows} when it was listed; give another --out"
                )

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
        every: list[str] = []
        try:
            if has_magic(path):
                found = [(each, posixpath.basename(each)) for each in sorted(fs.glob(path)) if fs.isfile(each)]
            elif fs.isdir(path):
                below = [each for each in fs.find(path, detail=True).items() if not is_hidden(each[0][len(path) :])]
                every = sorted(name for name, about in below if about.get("type", "file") == "file" or fs.isfile(name))
                kinds = {each: kind_of(each) for each in every}
                wanted = next((kind for kind in (PARQUET, TAR) if kind in kinds.values()), "pictures")
                found = [(each, each[len(path) :].lstrip("/")) for each in every if kinds[each] == wanted]
                passed_over += len(below) - len(found)
            else:
                found = [(path, posixpath.basename(path))] if fs.exists(path) else []
        except Exception as error:  # each filesystem has its own
            raise ImageError(f"cannot list {printable(place)}: {one_line(error, 200)}") from None
        if not found:
            more = _unpack(every) or "; check the path"
            raise ImageError(f"no pictures in {printable(place)}: expected pictures, {PARQUET} or {TAR} files{more}")
        files += found
    if any(type(fs) is not type(systems[0]) for fs in systems):
        raise ImageError("expected all of a source in one place, given several filesystems; run them one after the other")
    return systems[0], files, passed_over


def _unpack(paths: Iterable[str]) -> str:
    """What to do with tar files that are packed, if there are any: their samples cannot be found without unpacking all."""
    packed = next((path for path in paths if path.lower().endswith(PACKED)), None)
    return f"; unpack {printable(posixpath.basename(packed))} to a {TAR} file" if packed else ""


def _folders(name: str) -> list[str]:
    """All folders that a name is in.

    >>> _folders("a/b/c")
    ['a', 'a/b']
    """
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def opened_place(place: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path there.

    Raises:
        ArgumentError: An address of no kind that fsspec knows, or whose library is not installed.
    """
    if not place.strip():
        raise ArgumentError(f"expected a path or an address, given {place!r}")
    try:
        place.encode()  # it is written into plans
        if "\0" in place:
            raise ValueError("expected a path or an address")
        fs, path = url_to_fs(place)
    except Exception as error:  # each filesystem has its own
        raise ArgumentError(f"cannot open {printable(place)}: {one_line(error, 200)}") from None
    return fs, path.rstrip("/") or path


def _stamp(fs: Any, path: str) -> tuple[int, str]:
    """Size of a file, and when it was written."""
    try:
        info = fs.info(path)
    except Exception as error:
        raise ImageError(f"cannot read {printable(path)}: {one_line(error, 200)}") from None
    if info.get("type", "file") != "file":
        raise ImageError(f"cannot read {printable(path)}: not a regular file")
    names = ("ETag", "etag", "checksum", "mtime", "LastModified", "last_modified", "created")
    return int(info.get("size") or 0), str(next((info[name] for name in names if info.get(name)), ""))
