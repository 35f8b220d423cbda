"""Downloads in the making: a folder for each process, claimed by a lock that ends with it, and put in place file by file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO


@contextmanager
def own_part(target: Path) -> Iterator[Path]:
    """A folder beside `target` that no other process works in; one that a stopped process has left is taken up again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(target)
    part = Path(lock.name).with_suffix(".part")
    try:
        part.mkdir(exist_ok=True)
        yield part
        shutil.rmtree(part, ignore_errors=True)  # what was not put in place
    finally:
        Path(lock.name).unlink(missing_ok=True)
        lock.close()


def put_in_place(part: Path, target: Path, is_whole: Callable[[], bool]) -> None:
    """Move the files of a whole `part` to `target`, where another process may have put them, and may read them.

    They are replaced one by one, for a folder cannot be replaced by another at once; what is in `target` besides goes last.
    """
    if not target.exists():
        try:
            part.rename(target)
        except OSError:  # another process has put it in place meanwhile
            if not target.is_dir():
                raise
        else:
            return
    if is_whole():
        return
    files = [file.relative_to(part) for file in part.rglob("*") if file.is_file()]
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part / file, target / file)
    for file in target.rglob("*"):
        if file.is_file() and file.relative_to(target) not in files:
            file.unlink()


def _lock(target: Path) -> IO[str]:
    """The first file .NAME.1.lock, .NAME.2.lock ... that is not taken; it is ours until it is closed or this process ends."""
    for number in count(1):
        file = target.with_name(f".{target.name}.{number}.lock")
        handle = file.open("a")
        if _is_locked(handle, file):
            return handle
        handle.close()
    raise AssertionError


def _is_locked(handle: IO[str], file: Path) -> bool:
    """Whether the file is ours now: another process may have it, or have removed it between opening and locking."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False
