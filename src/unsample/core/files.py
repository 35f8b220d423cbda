"""Paths as people type them, and files that appear whole or not at all, only below the folder that they belong to."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from ..errors import ArgumentError, RunError


class NotRegularError(OSError):
    """What lies at a path is a folder, a pipe, a socket or a device; reading the last three might never end."""


ABSENT = (FileNotFoundError, NotADirectoryError, NotRegularError)
"""What opening a path raises where there is no file, whatever else is there."""


def regular(path: str | Path) -> Path:
    """A path at which a regular file is, or a link to one: every reader of files that others may have put there asks first.

    Raises:
        OSError: There is none, or it cannot be looked at.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotRegularError(errno.EINVAL, "not a regular file", str(path))
    return Path(path)


def expanded(path: str | Path) -> Path:
    """A path whose leading `~` stands for a home folder; as it is where there is no such home, as in a shell.

    Raises:
        ArgumentError: It can be the name of no file, as "" can, which Python takes for the current folder.

    >>> expanded("~no such user/x").as_posix()
    '~no such user/x'
    """
    if not str(path).strip():
        raise ArgumentError(f"expected a path, given {str(path)!r}")
    place = Path(os.path.expanduser(path))
    try:
        os.lstat(place)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if not isinstance(error, OSError) or error.errno == errno.ENAMETOOLONG:
            raise ArgumentError(f"expected a path, given {str(path)[:80]!r}...: {reason}") from None
    return place


def inside(root: Path, name: str) -> Path:
    """The path of the file `name` below `root`.

    Raises:
        RunError: The name, or a link on the way, leads out of `root`, so that another folder would be read or written.
    """
    path = root / name
    try:
        leads_out = not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        leads_out = True
    if leads_out:
        raise RunError(f"{path} leads out of {root}, where it belongs: remove the link, and give the same command again")
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which holds all of it afterwards or is left as it was.

    Raises:
        RunError: The disk is full or the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # numbers of processes are the same in many containers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:  # Ctrl-C, too, leaves nothing behind
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        raise RunError(f"cannot write {path}: {error.strerror}; free some space or choose another --out") from None
