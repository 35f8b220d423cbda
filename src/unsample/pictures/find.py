"""Finds pictures: files, the pictures in folders, and what globs match, in the order in which they are given.

What is a picture in a folder is seen by its name or its content. Other files of a folder are passed over and listed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from PIL import Image

from ..errors import ImageError, printable
from .decode import FORMATS, open_picture

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
    | {".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"}
)
"""A file of a folder that is called so and cannot be read is a broken picture; one called otherwise is no picture."""

LONGEST = 120
"""Characters of a place that an error quotes."""


@dataclass(frozen=True)
class Found:
    """Files to be read.

    Attributes:
        paths: The pictures, and parquet files that are named.
        passed_over: Files of folders that are no pictures; hidden ones are not listed.
    """

    paths: list[Path]
    passed_over: list[Path]


def find_photos(places: Sequence[str | Path]) -> list[Path]:
    """The paths of `find_in`."""
    return find_in(places).paths


def find_in(places: Sequence[str | Path]) -> Found:
    """Files, the pictures in folders (not below them), and what globs match; sorted within a folder or glob.

    A file that is given again is there again.

    Raises:
        ImageError: A place that is missing, is neither file nor folder, or holds no picture.
    """
    pictures_found = Found([], [])
    for place in places:
        path, shown = os.path.expanduser(place), printable(str(place))
        shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
        if os.path.isdir(path):
            pictures, others = _in_folder(Path(path))
            if not pictures:
                raise ImageError(f"no pictures in folder {shown}: expected files of {', '.join(FORMATS)}{_listed(others)}")
            pictures_found.paths.extend(pictures)
            pictures_found.passed_over.extend(others)
        elif os.path.isfile(path):
            pictures_found.paths.append(Path(path))
        elif os.path.exists(path):
            raise ImageError(f"{shown} is a pipe or a device; expected a file or a folder")
        elif has_magic(path):
            matches = sorted(Path(match) for match in glob(path, recursive=True) if os.path.isfile(match))
            if not matches:
                raise ImageError(f"no file matches {shown}; check the pattern")
            pictures_found.paths.extend(matches)
        else:
            raise ImageError(f"no such file or folder: {shown}; check the path")
    return pictures_found


def is_picture(path: Path) -> bool:
    """Whether a file is called like a picture, or is one whatever it is called."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_picture(path) as opened:
            return opened.format != "TGA"  # which has no signature
    except Image.DecompressionBombError:
        return True
    except Exception:  # on other files a decoder may raise anything
        return False


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The names of files, each with as many folders before it as tell it from the others of its name; ready to print.

    >>> distinct_names([Path("dogs/one.jpg"), Path("cats/one.jpg"), Path("cats/two.jpg")])
    ['dogs/one.jpg', 'cats/one.jpg', 'two.jpg']
    """
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    names = [""] * len(whole)
    left, length = list(range(len(whole))), 1
    while left:
        ends: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for i in left:
            ends.setdefault(whole[i][-length:], set()).add(whole[i])
        for i in left:
            names[i] = printable("/".join(whole[i][-length:]))
        left = [i for i in left if len(ends[whole[i][-length:]]) > 1]
        length += 1
    return names


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Its pictures, and its other files but for the hidden ones."""
    try:
        every = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    except OSError as error:
        raise ImageError(f"cannot read the folder {folder}: {error.strerror}; check that it may be read") from None
    pictures = [path for path in every if path.is_file() and is_picture(path)]
    return pictures, [path for path in every if path not in set(pictures)]


def _listed(others: Sequence[Path]) -> str:
    return f"; it holds {others[0].name}{' and others' if len(others) > 1 else ''}" if others else ""
