"""Samples of WebDataset tar files: files of one name but for their endings, of which one is a picture."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterable
from typing import Any

from ..core.reading import json_of, whole_of
from ..errors import ImageError, one_line, printable
from ..pictures.find import SUFFIXES

Members = dict[str, tuple[int, int]]
"""The files of a sample by the ending of their names: where each begins in the tar file, and how long it is."""


def samples_in(file: Any, path: str) -> tuple[dict[str, Members], int]:
    """The samples of a tar file that have a picture, by the key that their names begin with, and how many have none.

    Raises:
        ImageError: It is not a tar file, or it does not say which picture is whose.
    """
    samples: dict[str, Members] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.size < 0 or member.issparse():
                    raise ValueError(f"{printable(member.name)} is sparse, or of {member.size} bytes")
                folder, name = posixpath.split(member.name)
                key, _, ending = name.partition(".")
                if not member.isfile() or not key:
                    continue
                check_name(member.name, path)
                sample = samples.setdefault(posixpath.join(folder, key), {})
                if ending.lower() in sample:
                    raise ImageError(f"{printable(path)} has {printable(member.name)} twice; names differ by more than case")
                sample[ending.lower()] = member.offset_data, member.size
    except ImageError:
        raise
    except Exception as error:  # of odd bytes tarfile raises many kinds
        raise ImageError(f"{printable(path)} is not a tar file ({one_line(error, 200)})") from None
    pictures = {key: members for key, members in samples.items() if picture_of(members, f"{path}: {key}")}
    return pictures, len(samples) - len(pictures)


def picture_of(members: Iterable[str], key: str) -> str | None:
    """The ending of a sample's picture: the only one or, of several, the one without a dot: `png`, not `seg.png`.

    Raises:
        ImageError: Two that could be it.
    """
    every = sorted(ending for ending in members if f".{ending.rpartition('.')[2]}" in SUFFIXES)
    plain = [ending for ending in every if "." not in ending]
    if len(every) > 1 and len(plain) != 1:
        one, other = (plain or every)[:2]
        raise ImageError(
            f"{printable(key)} has several pictures, .{one} and .{other}: expected one of each name; leave out the others"
        )
    return next(iter(plain or every), None)


def condition_in(text: bytes, column: str, key: str) -> Any:
    """What `cls`, `txt` or `json.caption` says.

    Raises:
        ImageError: No class, or no JSON object.
    """
    ending, _, name = column.partition(".")
    said = text.decode(errors="replace").strip()
    try:
        if not name:
            return whole_of(said) if ending == "cls" else said
        value = json_of(said)
        if not isinstance(value, dict):
            raise ValueError(f"expected an object with {name!r}, given {type(value).__name__}; name another column")
        return value.get(name)
    except ValueError as error:
        raise ImageError(f"{printable(key)}.{ending}: {one_line(error, 200)}") from None


def check_name(name: str, path: str = "") -> None:
    """Refuse the name of a file that no id, which is text, can be made of.

    Raises:
        ImageError: It is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        where = f" in {printable(path)}" if path else ""
        raise ImageError(f"the name '{printable(name)}'{where} is not UTF-8, and ids are text: rename it") from None
