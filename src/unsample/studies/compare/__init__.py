"""Inversion methods compared on the same photographs at equal cost: whiteness of the latents against reconstruction."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ...core.files import write_atomically
from ...core.model import Model
from ...errors import ArgumentError
from ...methods.registry import METHODS
from ...pictures.read import Photo, read_photos
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


def compare(
    model: Model,
    photos: Given,
    *,
    methods: str | Sequence[str] = "all",
    forwards: str | Sequence[str] = ("0", "2"),
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
        photos: Images [B, C, H, W] in [-1, 1]; or files, folders, globs and parquet files; or what `read_photos` returned.
        methods: As on the command line, in a sequence or separated by commas; or all.
        forwards: Starts as on the command line, likewise.
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
    >>> found = compare(us.load(), us.pictures.read.demo_photos()[:1], methods="ddim", forwards="0,1", nfe=2)
    >>> [(candidate.title, candidate.steps) for candidate in found.candidates]
    [('ddim, usual inversion', 2), ('ddim, forward start 1', 3)]
    """
    candidates = candidates_of(model, methods, forwards, nfe, spacing)
    ready = _photos(photos, model, names)
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
    model: Model, methods: str | Sequence[str], forwards: str | Sequence[str], nfe: int, spacing: str | None = None
) -> list[Candidate]:
    """What `compare` compares; arguments and errors as there."""
    return equal_cost(tuple(METHODS) if methods == "all" else listed(methods), listed(forwards), nfe, model, spacing)


def listed(text: str | Sequence[str]) -> tuple[str, ...]:
    """Names split at commas, except commas inside brackets.

    >>> listed("ddim, renoise:average=(0,1)")
    ('ddim', 'renoise:average=(0,1)')
    """
    parts = re.split(r",(?![^(]*\))", text) if isinstance(text, str) else text
    return tuple(part.strip() for part in parts)


def _photos(given: Given, model: Model, names: Sequence[str] | None) -> list[Photo]:
    """Photos that fit the model; files come after the photos that were already read."""
    if isinstance(given, Tensor):
        check_images(model, given)
        labels = [f"{i:04d}" for i in range(len(given))] if names is None else list(names)
        if len(labels) != len(given):
            raise ArgumentError(f"expected one name per image: {len(given)} images, {len(labels)} names")
        return [Photo.of(image, name) for image, name in zip(given, labels, strict=True)]
    if names is not None:
        raise ArgumentError("names are for the images of a tensor; photos have their own")
    places = [given] if isinstance(given, (str, Path)) else list(given)
    photos = [place for place in places if isinstance(place, Photo)]
    photos += read_photos([place for place in places if not isinstance(place, Photo)], model.image_size)
    if not photos:
        raise ArgumentError("expected at least one photo, given none")
    for photo in photos:
        check_images(model, photo.pixels[None])
    return photos
