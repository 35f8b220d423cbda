"""Reads texts and JSON that people wrote, damaged ones too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST = 1 << 28
"""Bytes of a text: 256 MiB is more than the largest config or mapping file by far."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not UTF-8, or much too large.
    """
    if path.stat().st_size > MOST:
        raise ValueError(f"expected at most {MOST >> 20} MiB, given {path.stat().st_size >> 20}")
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON, or is nested too deep to be read.
    """
    return json_of(read_text(path))


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is not JSON, or is nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
