"""Reads texts, numbers, JSON and TOML that people wrote, damaged ones too."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import shortened
from .files import regular

MOST = 1 << 28
"""Bytes of a text: 256 MiB is more than the largest config or mapping file by far."""

DEEPEST = 100
"""Lists within lists: configs, manifests and recipes have a tenth of it, and what reads them may call itself for each."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)


def is_index(text: str) -> bool:
    """Whether a text is a whole number from 0 on, in ASCII digits and nothing else."""
    return text.isascii() and text.isdecimal()


def whole_of(text: str) -> int:
    """The whole number that a text is, in ASCII digits: Python's own `int` also takes those of other scripts, and `1_0`.

    Raises:
        ValueError: It is none.
    """
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"expected a whole number in digits 0 to 9, given {shortened(repr(text))}")
    return int(text)


def number_of(text: str) -> float:
    """The number that a text is, likewise; `inf` and `nan` are numbers here.

    Raises:
        ValueError: It is none.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"expected a number in digits 0 to 9, given {shortened(repr(text))}")
    return float(text)


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: It cannot be read, or is a pipe or a device.
        ValueError: It is much too large.
    """
    if regular(path).stat().st_size > MOST:
        raise ValueError(f"expected at most {MOST >> 20} MiB, given {path.stat().st_size >> 20}")
    return path.read_bytes()


def read_text(path: Path) -> str:
    """The text of a regular file.

    Raises:
        OSError: It cannot be read, or is a pipe or a device.
        ValueError: It is not UTF-8, or much too large.
    """
    return read_bytes(path).decode()


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: It cannot be read, or is a pipe or a device.
        ValueError: As `json_of`, or much too large.
    """
    return json_of(read_bytes(path))


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text; its numbers may be infinite, as in configs of schedulers.

    Raises:
        ValueError: It is not JSON, is nested too deep, or holds NaN.
    """
    return _sound(json.loads, text)


def toml_of(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: It is not TOML, is nested too deep, or holds NaN.
    """
    table: dict[str, Any] = _sound(tomllib.loads, text)
    return table


def _sound(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        value = parse(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value]
    for _ in range(DEEPEST):
        if any(isinstance(each, float) and each != each for each in level):
            raise ValueError("it holds NaN, which is no number")
        lists = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [child for each in lists for child in each]
        if not level:
            return value
    raise ValueError("it is nested too deep")
