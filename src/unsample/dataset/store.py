"""A folder of files that appear whole or not at all, on any filesystem that fsspec opens.

On disk a file is written under another name, synced and renamed; to an object store it goes in one PUT.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from ..core.files import inside, regular, write_atomically
from ..errors import RunError, one_line, printable
from .source import opened_place


class Store:
    """The folder `place`.

    Attributes:
        place: Its path, or its address.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self.fs, self.root = opened_place(self.place)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    @property
    def outlives(self) -> bool:
        """Whether what is written is there for other processes, and when this one has ended."""
        fs = self.fs
        while (inner := getattr(fs, "fs", None)) is not None:  # of a cache, a folder
            fs = inner
        return not isinstance(fs, MemoryFileSystem)

    @property
    def address(self) -> str:
        """Where it is, for any process."""
        return self.root if self.is_local else str(self.fs.unstrip_protocol(self.root))

    def path(self, name: str) -> str:
        """The path of a file, as the filesystem has it."""
        return str(inside(Path(self.root), name)) if self.is_local else posixpath.join(self.root, name)

    @contextmanager
    def held(self, *, shared: bool) -> Iterator[None]:
        """Hold the folder while the block runs, with others that share it, or alone; only on a disk, and where it can be held.

        Raises:
            RunError: Another process holds it.
        """
        with ExitStack() as stack:
            if self.is_local:
                with suppress(OSError, ImportError):  # writing says what is wrong; and what cannot be held is not
                    import fcntl

                    os.makedirs(self.root, exist_ok=True)
                    stack.callback(os.close, folder := os.open(self.root, os.O_RDONLY))
                    try:
                        fcntl.flock(folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    except BlockingIOError:
                        raise RunError(
                            f"another process works on {printable(self.place)}: wait until it is done; for several processes "
                            "at once give --engine torchrun or ray"
                        ) from None
            yield

    def write(self, name: str, data: bytes) -> str:
        """Write a file, whole or not at all; its digest.

        Raises:
            RunError: The disk is full, or the place cannot be written.
        """
        if self.is_local:
            write_atomically(Path(self.path(name)), data)
        else:
            try:
                self.fs.makedirs(posixpath.dirname(self.path(name)), exist_ok=True)
                self.fs.pipe_file(self.path(name), data)
            except Exception as error:  # each filesystem has its own
                raise RunError(
                    f"cannot write {printable(self.path(name))}: {one_line(error, 200)}; choose another --out"
                ) from None
        return hashlib.sha256(data).hexdigest()

    def read(self, name: str) -> bytes | None:
        """What a file holds; None if it is not there.

        Raises:
            RunError: It cannot be read.
        """
        path = self.path(name)
        try:
            if self.is_local:
                regular(path)
            return bytes(self.fs.cat_file(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise RunError(f"cannot read {printable(self.path(name))}: {one_line(error, 200)}") from None

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """What many files hold, those that are there; of an object store several are read at once.

        Raises:
            RunError: They cannot be read.
        """
        paths = {self.path(name): name for name in names}
        if self.is_local:
            paths = {path: name for path, name in paths.items() if os.path.isfile(path)}
        try:
            found: dict[str, bytes] = self.fs.cat(list(paths), on_error="omit") if paths else {}
        except Exception as error:
            raise RunError(f"cannot read {printable(self.place)}: {one_line(error, 200)}") from None
        return {paths[path]: data for path, data in found.items()}

    def checked(self, name: str, digest: str) -> bytes:
        """What a file holds, which is what was written.

        Raises:
            RunError: It is missing, or damaged.
        """
        data = self.read(name)
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise RunError(
                f"{printable(self.path(name))} is missing or damaged; delete it, and give the command that made it again"
            )
        return data

    def sizes(self, folder: str = "", *, is_file: bool = True) -> dict[str, int]:
        """The files of a folder, not below it, and how long they are; what is being written, or hidden, is left out.

        Folders, pipes and the like are left out, too, unless `is_file` is False.

        Raises:
            RunError: It cannot be listed.
        """
        try:
            self.fs.invalidate_cache()
            every: list[dict[str, Any]] = self.fs.ls(self.path(folder) if folder else self.root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:
            raise RunError(f"cannot list {printable(self.place)}: {one_line(error, 200)}") from None
        kept = [each for each in every if not is_file or each.get("type", "file") == "file"]
        sizes = {posixpath.basename(each["name"].rstrip("/")): int(each.get("size") or 0) for each in kept}
        return {name: size for name, size in sizes.items() if not name.startswith(".")}
