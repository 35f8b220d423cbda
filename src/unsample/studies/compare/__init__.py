"""Inversion methods compared on the same photographs at equal cost: whiteness of the latents against reconstruction."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..._arguments import one_of, optional, shown, text, whole
from ..._tensors import as_state, check_rows
from ...core.files import write_atomically
from ...core.model import Model
from ...errors import ArgumentError
from ...methods.registry import METHODS
from ...pictures.read import Photo, read_photos
from ...uses.door import a_model, use
from ...uses.invert import check_images
from .budget import Candidate
from .candidates import Measured, equal_cost, measure_candidate, run_candidate
from .result import BRIEF, COLUMNS, Comparison, pareto, table

__all__ = [
    "BRIEF",
    "COLUMNS",
    "Candidate",
    "Comparison",
    "Measured",
    "candidates_of",
    "compare",
    "equal_cost",
    "listed",
    "measure_candidate",
    "pareto",
    "run_candidate",
    "table",
]

Given = Tensor | str | Path | Sequence[str | Path | Photo]

StartsLike = str | int | Sequence[str | int]
"""Starts as people type them, or numbers of moves."""


def _names(name: str, value: Any) -> str | tuple[str, ...]:
    """Names of methods or starts as people type them; a number is a start of so many moves."""
    if isinstance(value, str):
        return value
    several = [value] if isinstance(value, (int, np.integer)) else value
    kinds = (str, int, np.integer) if name == "starts" else (str,)
    fine = isinstance(several, (list, tuple)) and not any(isinstance(each, bool) for each in several)
    if not fine or not several or not all(isinstance(each, kinds) for each in several):
        raise ArgumentError(f'expected {name} as on the command line, "a,b" or ["a", "b"], given {shown(value)}')
    return tuple(map(str, several))


def _labels(name: str, value: Any) -> list[str]:
    """A text for each image."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise ArgumentError(f"expected {name} as a list with a text for each image, given {shown(value)}")
    return list(value)


READERS = {
    "model": a_model,
    "methods": _names,
    "starts": _names,
    "nfe": whole(1),
    "spacing": optional(text),
    "batch_size": whole(1),
    "names": optional(_labels),
    "out": optional(one_of("a folder", str, Path)),
}


@use(READERS, photos="images", forwards="starts")
def compare(
    model: Model,
    images: Given,
    *,
    methods: str | Sequence[str] = "all",
    starts: StartsLike = ("0", "2"),
    nfe: int = 50,
    spacing: str | None = None,
    seed: int = 0,
    batch_size: int = 64,
    names: Sequence[str] | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Each method from each start, with as many steps as `nfe` evaluations on the way up allow.

    A method that diverges or is too expensive is reported as such and does not stop the others. A method whose path is forward
    diffusion alone has no start and is listed once.

    Args:
        model: What `unsample.load` returns, or your own `Model`.
        images: Pixels [B, C, H, W] in [-1, 1]; or files, folders, globs and parquet files; or what `read_photos` returned.
        methods: As on the command line, in a sequence or separated by commas; or all.
        starts: Starts as on the command line, likewise, or numbers of moves.
        nfe: Network evaluations per photo on the way up, the same for all.
        spacing: Of the grid; default is the model's own.
        seed: Of the starts' noise, together with each photo's content.
        batch_size: Photos per network call.
        names: Of the images of a tensor.
        out: Folder for `comparison.md`, `.png` and `.json`, and for the runs, which a later call resumes; by default nothing
            is kept.

    Raises:
        ArgumentError: An unknown method or start, photos that do not fit the model, or a budget too small for all.
        ImageError: Photos that cannot be read.
        RunError: `out` holds something else, or runs of another version.

    >>> import unsample as us
    >>> found = compare(us.load(), us.pictures.read.demo_photos()[:1], methods="ddim", starts="0,1", nfe=2)
    >>> [(candidate.title, candidate.steps) for candidate in found.candidates]
    [('ddim, usual inversion', 2), ('ddim, forward start 1', 3)]
    """
    candidates = candidates_of(model, methods, starts, nfe, spacing)
    ready = _photos(images, model, names)
    if out is not None and not model.digest:
        raise ArgumentError("runs are kept under the model's digest, and this model has none: give it one, or leave out `out`")
    with tempfile.TemporaryDirectory(prefix="unsample-") as scratch:
        runs = Path(scratch if out is None else out) / "runs"
        found = {one: measure_candidate(model, ready, one, runs, batch_size=batch_size, seed=seed) for one in candidates}
    refused = [measured.failure.startswith("refused") for candidate, measured in found.items() if candidate.steps]
    if all(refused):
        raise ArgumentError(next(measured.failure.partition(": ")[2] for one, measured in found.items() if one.steps))
    compared = Comparison(found, nfe, len(ready))
    if out is not None:
        write_atomically(Path(out) / "comparison.png", compared.picture().png)
        write_atomically(Path(out) / "comparison.json", json.dumps(compared.to_dict(), indent=1, allow_nan=False).encode())
        text = "\n\n".join([table(found).markdown(), *compared.failures])
        write_atomically(Path(out) / "comparison.md", (text + "\n").encode())
    return compared


def candidates_of(
    model: Model, methods: str | Sequence[str], starts: StartsLike, nfe: int, spacing: str | None = None
) -> list[Candidate]:
    """What `compare` compares; arguments and errors as there."""
    return equal_cost(tuple(METHODS) if methods == "all" else listed(methods), listed(starts), nfe, model, spacing)


def listed(given: StartsLike) -> tuple[str, ...]:
    """Names split at commas, except commas inside brackets.

    >>> listed("ddim, renoise:average=(0,1)")
    ('ddim', 'renoise:average=(0,1)')
    """
    parts = re.split(r",(?![^(]*\))", given) if isinstance(given, str) else [given] if isinstance(given, int) else given
    return tuple(str(part).strip() for part in parts)


def _photos(given: Given, model: Model, names: Sequence[str] | None) -> list[Photo]:
    """Photos that fit the model; files come after the photos that were already read."""
    if isinstance(given, Tensor):
        check_rows(given, "images")
        given = as_state(given)
        check_images(model, given)
        labels = [f"{i:04d}" for i in range(len(given))] if names is None else list(names)
        if len(labels) != len(given):
            raise ArgumentError(f"expected one name per image: {len(given)} images, {len(labels)} names")
        return [Photo.of(image, name) for image, name in zip(given, labels, strict=True)]
    if names is not None:
        raise ArgumentError("names are for the images of a tensor; photos have their own")
    if not isinstance(given, (str, Path, list, tuple)):
        raise ArgumentError(f"expected images as a tensor, files or photos, given {shown(given)}")
    places = [given] if isinstance(given, (str, Path)) else list(given)
    if any(not isinstance(place, (str, Path, Photo)) for place in places):
        raise ArgumentError("expected images as a tensor, files or photos, given a list of something else")
    photos = [place for place in places if isinstance(place, Photo)]
    photos += read_photos([place for place in places if not isinstance(place, Photo)], model.image_size)
    if not photos:
        raise ArgumentError("expected at least one photo, given none")
    for photo in photos:
        check_images(model, photo.pixels[None])
    return photos
