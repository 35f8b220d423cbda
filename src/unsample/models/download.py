"""Models too large for the package: downloaded from `weights/` of the repository, a folder or a server that holds a copy.

Each is a directory with a list of its files, `files.json`, {"path": {"sha256": ..., "bytes": ...}}. The package knows the
SHA-256 of that list, and so of every file, wherever they come from; `pooch` downloads and checks them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.batching import OnStep
from ..core.files import expanded
from ..errors import ArgumentError, ModelError, UnknownNameError
from .cards import FOLDER, Card, cards, models_folder, repository_weights
from .configs import read_json
from .parts import own_part, put_in_place

LIST = "files.json"
"""What the list of a model's files is called."""

RELEASE = ""
"""The address of a copy of `weights/` that is published with each version; "" while there is none."""

BUNDLED_MODEL = "tiny-imagenet-32-v"
"""A model that needs no download, for messages."""

CHUNK = 1 << 20
"""Bytes between two calls of `on_step`."""

TIMEOUT = 30.0
"""Seconds without an answer after which a server counts as gone."""

_PATH = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+(?:[.-][A-Za-z0-9_-]+)*\.(?:json|safetensors|md|png)")

Files = dict[str, dict[str, Any]]


def fetch(name: str, origin: str | Path | None = None, *, on_step: OnStep | None = None) -> Path:
    """Download a model, so that `load` finds it by its name; files that are already there and whole are kept.

    It goes to the folder that the environment variable UNSAMPLE_MODELS names, or to `~/.cache/unsample/models`. A download
    that is stopped keeps the files it has, and the next one continues from there. Several at once each download their own, and
    a model that is whole is never taken away.

    Args:
        name: One of `unsample models`.
        origin: A folder or an http(s) address that holds `NAME/files.json`; default is `weights/` of the repository, if
            unsample runs from one, or `RELEASE`.
        on_step: Called with the bytes that are in place and their total.

    Returns:
        Its directory.

    Raises:
        UnknownNameError: No such model.
        ArgumentError: A model that comes from elsewhere, or no origin.
        ModelError: The origin does not hold it, or holds another one; the disk is full.
    """
    card = _downloadable(name)
    target = models_folder() / name
    try:
        if _is_whole(card, target):
            return target
        place = _origin(name, origin)
        with own_part(target) as part:
            listed = _list_of(card, part, place)
            _take_over(listed, target, part)
            _complete(part, listed, place, on_step)
            put_in_place(part, target, lambda: _is_whole(card, target))
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}; free some space, or set {FOLDER}") from None
    return target


def list_files(folder: Path) -> bytes:
    """The list of a model's files as `files.json` holds it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / LIST)
    return (json.dumps({path.relative_to(folder).as_posix(): _entry(path) for path in files}, indent=0) + "\n").encode()


def how_to_fetch(name: str) -> str:
    """What to do for a model that is not here, for messages."""
    if repository_weights() or RELEASE:
        return f"`unsample models fetch {name}` gets it"
    return (
        f"`unsample models fetch {name} --from ADDRESS` gets it from a folder or server that holds `weights` of unsample's "
        f"repository; {BUNDLED_MODEL} comes with unsample"
    )


def _downloadable(name: str) -> Card:
    """The card of a model whose files the package knows."""
    known = cards()
    if name not in known:
        raise UnknownNameError("model", name, known)
    card = known[name]
    if not card.files:
        how = f"it is on the hub as {card.source}, and loaded from there" if card.on_hub else "its file is fetched by hand"
        raise ArgumentError(f"{name!r} is not fetched: {how if card.source else 'it comes with unsample'}")
    return card


def _origin(name: str, origin: str | Path | None) -> str:
    """The folder or the address of the model's directory.

    Raises:
        ArgumentError: None was given, and unsample does not run from its repository.
    """
    origin = (repository_weights() or RELEASE or None) if origin is None else origin
    if origin is None:
        raise ArgumentError(f"no place to fetch {name!r} from: {how_to_fetch(name)}")
    text = str(origin)
    if not text.strip():
        raise ArgumentError(f"expected a folder or an http(s) address, given {text!r}")
    if text.startswith(("http://", "https://")):
        return f"{text.rstrip('/')}/{name}"
    if "://" in text:
        raise ArgumentError(f"expected a folder or an http(s) address, given {text}")
    return str(expanded(text).resolve() / name)


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": _sha256(path), "bytes": path.stat().st_size}


def _sha256(path: Path) -> str:
    import pooch

    return str(pooch.file_hash(str(path), alg="sha256"))


def _is_whole(card: Card, folder: Path) -> bool:
    """Whether every file of a model is in its directory, as it should be."""
    own = folder / LIST
    if not own.is_file() or _sha256(own) != card.files:
        return False
    listed: Files = read_json(own)
    return all((folder / path).is_file() and _entry(folder / path) == entry for path, entry in listed.items())


def _list_of(card: Card, part: Path, origin: str) -> Files:
    """The list of a model's files, the very one that the package knows."""
    known = f"the list of {card.name!r} that this version of unsample knows: expected the weights of the same version"
    _retrieve(origin, LIST, part, card.files, known)
    listed: Files = read_json(part / LIST)
    astray = [path for path in listed if not _PATH.fullmatch(path)]
    if astray:
        raise ModelError(f"{LIST} of {card.name!r} names {astray[0]!r}: expected plain names inside the model's directory")
    return listed


def _take_over(listed: Files, target: Path, part: Path) -> None:
    """Copy the files that are whole in a damaged model."""
    for path, entry in listed.items():
        own = target / path
        if own.is_file() and not (part / path).exists() and _entry(own) == entry:
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(own, part / path)


def _complete(part: Path, listed: Files, origin: str, on_step: OnStep | None) -> None:
    """Download what is missing or damaged, and remove what is not listed."""
    for file in part.rglob("*"):
        if file.is_file() and file != part / LIST and file.relative_to(part).as_posix() not in listed:
            file.unlink()
    done, total = 0, sum(entry["bytes"] for entry in listed.values())
    for path, entry in listed.items():
        size = entry["bytes"]
        progress = _Progress(lambda count, done=done: on_step and on_step(done + count, total), size)  # type: ignore[misc]
        _retrieve(origin, path, part, entry["sha256"], f"what {LIST} says: expected {size} bytes; try again", progress)
        progress.update(size)
        done += size


@dataclass
class _Progress:
    """What pooch reports the bytes of a file to; never more than its size, and never fewer than before."""

    report: Callable[[int], object]
    size: int
    count: int = 0
    total: int = 0

    def update(self, count: int) -> None:
        self.count = min(self.count + count, self.size)
        self.report(self.count)

    def reset(self) -> None:
        """The file is read; pooch reports its whole size again."""

    def close(self) -> None:
        """Pooch calls it at the end; there is nothing to close."""


def _retrieve(origin: str, path: str, part: Path, sha256: str, expected: str, progress: _Progress | None = None) -> None:
    """Have a file of the origin in `part`, unless it is there already; `expected` says what it should be."""
    import pooch
    from requests.exceptions import RequestException

    pooch.get_logger().setLevel(logging.WARNING)
    (part / path).parent.mkdir(parents=True, exist_ok=True)
    from_server = origin.startswith(("http://", "https://"))
    download = pooch.HTTPDownloader(progress or False, CHUNK, timeout=TIMEOUT) if from_server else _copied
    try:
        pooch.retrieve(f"{origin}/{path}", f"sha256:{sha256}", path, part, downloader=download)
        (part / path).chmod(0o644)  # pooch leaves it to the owner alone
    except ValueError:
        raise ModelError(f"{origin}/{path} is not {expected}") from None
    except RequestException as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(f"cannot read {origin}/{path} ({reason}): expected the folder `weights` of unsample") from None


def _copied(source: str, target: str, _pooch: Any) -> None:
    """What pooch calls to get a file from a folder."""
    if not os.access(source, os.R_OK):
        raise ModelError(f"cannot read {source}: expected the folder `weights` of unsample")
    shutil.copyfile(source, target)
