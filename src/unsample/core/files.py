"""Writing files so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import RunError

__all__ = ["write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which holds all of it afterwards or is left as it was.

    Raises:
        RunError: The disk is full or the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
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
