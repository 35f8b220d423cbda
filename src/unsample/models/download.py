"""Models too large for the package: put in place from `weights/` of the repository, a folder or a server that holds a copy.

Each is a directory with a list of its files, `files.json`, {"path": {"sha256": ..., "bytes": ...}}. The package knows the
SHA-256 of that list, and so of every file, wherever they come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any

from ..core.batching import OnStep
from ..errors import ArgumentError, ModelError, UnknownNameError
from .cards import FOLDER, Card, cards, checkout, store

__all__ = ["LIST", "fetch", "list_files"]

LIST = "files.json"
"""What the list of a model's files is called."""

CHUNK = 1 << 20
LARGEST_LIST = 1 << 20
TIMEOUT = 30.0
_PATH = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+(?:[.-][A-Za-z0-9_-]+)*\.(?:json|safetensors|md|png)")


def fetch(name: str, origin: str | Path | None = None, *, on_step: OnStep | None = None) -> Path:
    """Put a model in place, so that `load` finds it by its name; files that are already there and whole are kept.

    It goes to the folder that the environment variable UNSAMPLE_MODELS names, or to `~/.cache/unsample/models`. A fetch that
    is stopped keeps the files it has, and the next one goes on from there.

    Args:
        name: One of `unsample models`.
        origin: A folder or an http(s) address that holds `NAME/files.json`; default is `weights/` of the repository, if
            unsample runs from one.
        on_step: Called with the bytes that are in place and their total.

    Returns:
        Its directory.

    Raises:
        UnknownNameError: No such model.
        ArgumentError: A model that comes from elsewhere, or no origin.
        ModelError: The origin does not hold it, or holds another one; the disk is full.
    """
    known = cards()
    if name not in known:
        raise UnknownNameError("model", name, known)
    card = known[name]
    if not card.files:
        how = f"it is on the hub as {card.source}, and loaded from there" if card.on_hub else "its file is fetched by hand"
        raise ArgumentError(f"{name!r} is not fetched: {how if card.source else 'it comes with unsample'}")
    target = store() / name
    part = target.with_name(f".{name}.part")
    try:
        if _is_whole(card, target):
            return target
        if target.is_dir() and not part.exists():
            target.rename(part)  # to mend what is there
        place = _origin(name, origin)
        _complete(part, _list_of(card, part, place), place, on_step)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}; free some space, or set {FOLDER}") from None
    return target


def list_files(folder: Path) -> bytes:
    """The list of a model's files as `files.json` holds it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / LIST)
    return (json.dumps({path.relative_to(folder).as_posix(): _entry(path) for path in files}, indent=0) + "\n").encode()


def _entry(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def _is_whole(card: Card, folder: Path) -> bool:
    """Whether every file of a model is in its directory, as it should be."""
    if not _is_listed(card, folder):
        return False
    listed = json.loads((folder / LIST).read_bytes())
    return all((folder / path).is_file() and _entry(folder / path) == entry for path, entry in listed.items())


def _is_listed(card: Card, folder: Path) -> bool:
    own = folder / LIST
    return own.is_file() and hashlib.sha256(own.read_bytes()).hexdigest() == card.files


def _list_of(card: Card, part: Path, origin: str | None) -> dict[str, dict[str, Any]]:
    """The list of a model's files, the very one that the package knows."""
    own = part / LIST
    if not _is_listed(card, part):
        text = b"".join(islice(_chunks(origin, LIST), LARGEST_LIST // CHUNK))
        if hashlib.sha256(text).hexdigest() != card.files:
            raise ModelError(
                f"{origin}/{LIST} is not the list of {card.name!r} that this version of unsample knows: "
                "expected the weights of the same version"
            )
        part.mkdir(parents=True, exist_ok=True)
        own.write_bytes(text)
    listed: dict[str, dict[str, Any]] = json.loads(own.read_bytes())
    astray = [path for path in listed if not _PATH.fullmatch(path)]
    if astray:
        raise ModelError(f"{LIST} of {card.name!r} names {astray[0]!r}: expected plain names inside the model's directory")
    return listed


def _complete(part: Path, listed: dict[str, dict[str, Any]], origin: str | None, on_step: OnStep | None) -> None:
    """Fetch what is missing or damaged, and remove what is not listed."""
    done, total = 0, sum(entry["bytes"] for entry in listed.values())
    tell = on_step or (lambda done, total: None)
    for file in part.rglob("*"):
        if file.is_file() and file != part / LIST and file.relative_to(part).as_posix() not in listed:
            file.unlink()
    for path, entry in listed.items():
        file = part / path
        if not (file.is_file() and _entry(file) == entry):
            file.parent.mkdir(parents=True, exist_ok=True)
            for count in _copied(origin, path, file, entry):
                tell(done + count, total)
        done += entry["bytes"]
        tell(done, total)


def _copied(origin: str | None, path: str, file: Path, entry: dict[str, Any]) -> Iterator[int]:
    """Write a file of the origin, a piece at a time; how many bytes are written so far."""
    count, found = 0, hashlib.sha256()
    with open(file, "wb") as target:
        for chunk in _chunks(origin, path):
            target.write(chunk)
            found.update(chunk)
            count += len(chunk)
            yield count
            if count > entry["bytes"]:
                break
    if (found.hexdigest(), count) != (entry["sha256"], entry["bytes"]):
        os.unlink(file)
        raise ModelError(
            f"{origin}/{path} is not what {LIST} says: expected {entry['bytes']} bytes, given {count} or others; try again"
        )


def _origin(name: str, origin: str | Path | None) -> str | None:
    """The address of the model's directory; None if nobody said, and unsample does not run from its repository."""
    if origin is None:
        origin = checkout()
        if origin is None:
            return None
    text = str(origin)
    if text.startswith(("http://", "https://")):
        return f"{text.rstrip('/')}/{name}"
    if "://" in text:
        raise ArgumentError(f"expected a folder or an http(s) address, given {text}")
    return (Path(text).expanduser().resolve() / name).as_uri()


def _chunks(origin: str | None, path: str) -> Iterator[bytes]:
    """What a file of the origin holds, a piece at a time."""
    if origin is None:
        raise ArgumentError(
            "unsample does not run from its repository: give --from the folder `weights` of a copy, or its address"
        )
    try:
        with urllib.request.urlopen(f"{origin}/{path}", timeout=TIMEOUT) as source:
            while chunk := source.read(CHUNK):
                yield chunk
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(f"cannot read {origin}/{path} ({reason}): expected the folder `weights` of unsample") from None
