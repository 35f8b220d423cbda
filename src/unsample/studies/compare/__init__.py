"""Inversion methods compared on the same photographs at equal cost: whiteness of the latents against reconstruction."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue
from torch import Tensor

from ..._arguments import Reader, one_of, optional, shown, text, whole
from ..._tensors import as_state, check_rows
from ...core.corrections import Corrected
from ...core.files import inside
from ...core.model import Condition, Model
from ...core.starts import Start
from ...core.stepper import Stepper
from ...errors import ArgumentError, counted
from ...methods.registry import METHODS, method_text, parse_method
from ...methods.starts import start_text
from ...models import load
from ...pictures.find import find_photos
from ...pictures.read import Photo, read_photos
from ...runs.directory import Run
from ...runs.parts import item_of
from ...runs.settings import precision_of
from ...uses.door import use
from ...uses.invert import check_images
from ...uses.sources import Picture, Source, one_condition, opened
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
    "settings_of",
    "table",
]

Place = str | Path | Photo | Picture
Given = Tensor | Place | Sequence[Place]

MethodsLike = str | Stepper | Corrected | Sequence[str | Stepper | Corrected]
StartsLike = str | int | Start | Sequence[str | int | Start]
"""One or several, as people type them or as objects; a number is a start of so many moves."""


def _texts(kinds: tuple[Any, ...], text_of: Callable[[Any], str]) -> Reader:
    """A reader of methods or starts, which are written as people type them."""

    def read(name: str, value: Any) -> str | tuple[str, ...]:
        if isinstance(value, str):
            return value
        several = [value] if isinstance(value, kinds) else value
        fine = isinstance(several, (list, tuple)) and not any(isinstance(each, (bool, type)) for each in several)
        if not fine or not several or not all(isinstance(each, (str, *kinds)) for each in several):
            raise ArgumentError(f'expected {name} as on the command line, "a,b" or ["a", "b"], given {shown(value)}')
        return tuple(each if isinstance(each, str) else text_of(each) for each in several)

    return read


def _start_text(start: Any) -> str:
    return str(start) if isinstance(start, (int, np.integer)) else start_text(start)


def _labels(name: str, value: Any) -> list[str]:
    """A text for each image."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise ArgumentError(f"expected {name} as a list with a text for each image, given {shown(value)}")
    return list(value)


MOST_NFE = 1_000
"""Every number of steps that the evaluations allow is tried."""

READERS = {
    "methods": _texts((Stepper, Corrected), method_text),
    "starts": _texts((int, np.integer, Start), _start_text),
    "nfe": whole(1, MOST_NFE),
    "spacing": optional(text),
    "batch_size": whole(1),
    "names": optional(_labels),
    "out": optional(one_of("a folder", str, Path)),
}


@use(READERS, photos="images", forwards="starts")
def compare(
    model: Source,
    images: Given,
    *,
    methods: MethodsLike = "all",
    starts: StartsLike = ("0", "4%"),
    nfe: int = 50,
    spacing: str | None = None,
    condition: Condition = None,
    prompt: Condition = None,
    guidance: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    names: Sequence[str] | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Each method from each start, with as many steps as `nfe` evaluations on the way up allow.

    A method that diverges or is too expensive is reported as such and does not stop the others. A method whose path is forward
    diffusion alone has no start and is listed once.

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name.
        images: Pixels [B, C, H, W] in [-1, 1]; or files, folders, globs and parquet files, PIL images and arrays of bytes; or
            what `read_photos` returned.
        methods: As on the command line, in a sequence or separated by commas; or as objects; or all.
        starts: Starts as on the command line or as objects, likewise, or numbers of moves.
        nfe: Network evaluations per photo on the way up, the same for all.
        spacing: Of the grid; default is the model's own.
        condition: What all photos show, a class or prompt; `prompt` is another name of it.
        prompt: See `condition`.
        guidance: w in eps_u + w (eps_c - eps_u), both ways; other than 1 it costs two evaluations each.
        seed: Of the starts' noise, together with each photo's content.
        batch_size: Photos per network call.
        names: Of the images of a tensor.
        out: Folder for `comparison.md`, `.png` and `.json`, and for the runs, which a later call with the same arguments
            resumes; by default nothing is kept.

    Raises:
        ArgumentError: An unknown method or start, photos that do not fit the model, or a budget too small for all.
        ImageError: Photos that cannot be read.
        RunError: `out` holds something else, another comparison, or one of another version.

    >>> import unsample as us
    >>> results = compare(us.load(), us.pictures.read.demo_photos()[:1], methods="ddim", starts="0,1", nfe=2)
    >>> [(candidate.title, candidate.steps) for candidate in results.candidates]
    [('ddim, usual inversion', 2), ('ddim, forward start 1', 3)]
    """
    wanted = one_condition(condition, prompt)
    label = wanted if wanted is None or isinstance(wanted, str) else str(wanted)
    for name in () if methods == "all" else listed(methods):
        parse_method(name)  # refused before a model is loaded
    loaded, ready = _opened(model, images, names)
    candidates = candidates_of(loaded, methods, starts, nfe, spacing, label, guidance)
    if out is not None and not loaded.digest:
        raise ArgumentError("runs are kept under the model's digest, and this model has none: give it one, or leave out `out`")
    run = None
    if out is not None:
        known: dict[str, Any] = {"nfe": nfe, "spacing": spacing, "seed": seed, "batch_size": batch_size}
        settings = settings_of(loaded, methods, starts, condition=label, guidance=guidance, **known)
        run = Run.open(out, "compare", settings, [item_of(photo) for photo in ready])
    with tempfile.TemporaryDirectory(prefix="unsample-") as scratch:
        runs = Path(scratch) if run is None else inside(run.path, "runs")
        results = {one: measure_candidate(loaded, ready, one, runs, batch_size=batch_size, seed=seed) for one in candidates}
    refused = [measured.failure.startswith("refused") for candidate, measured in results.items() if candidate.steps]
    if all(refused):
        raise ArgumentError(next(measured.failure.partition(": ")[2] for one, measured in results.items() if one.steps))
    compared = Comparison(results, nfe, len(ready))
    if run is not None:
        _write(run, compared)
    return compared


def candidates_of(
    model: Model,
    methods: Any,
    starts: Any,
    nfe: int,
    spacing: str | None = None,
    label: str | None = None,
    guidance: float = 1.0,
) -> list[Candidate]:
    """What `compare` compares, methods and starts as people type them; errors as there."""
    return equal_cost(_methods(methods), listed(starts), nfe, model, spacing, label, guidance)


def settings_of(model: Model, methods: Any, starts: Any, **settings: JsonValue) -> dict[str, JsonValue]:
    """All that a comparison depends on besides its photos, for the manifest and the name of its folder."""
    return {
        "model": model.name,
        "model_digest": model.digest,
        "schedule_digest": model.schedule.digest,
        "image_size": list(model.image_size),
        "dtype": precision_of(model),
        "device": str(model.device),
        "methods": list(_methods(methods)),
        "forwards": list(listed(starts)),
        **settings,
    }


def _methods(methods: Any) -> tuple[str, ...]:
    return tuple(METHODS) if methods == "all" else listed(methods)


def _write(run: Run, compared: Comparison) -> None:
    """`comparison.md`, `.png` and `.json`."""
    run.write("comparison.png", compared.picture().png)
    run.write("comparison.json", json.dumps(compared.to_dict(), indent=1, allow_nan=False))
    run.write(
        "comparison.md",
        "\n\n".join([table(compared.candidates).markdown(), *compared.failures, *compared.notes(COLUMNS)]) + "\n",
    )
    run.finish({}, {})


def listed(given: Any) -> tuple[str, ...]:
    """Names split at commas, except commas inside brackets.

    >>> listed("ddim, renoise:average=(0,1)")
    ('ddim', 'renoise:average=(0,1)')
    """
    parts = re.split(r",(?![^(]*\))", given) if isinstance(given, str) else given
    return tuple(part.strip() for part in parts)


def _opened(source: Source, given: Given, names: Sequence[str] | None) -> tuple[Model, list[Photo]]:
    """A model of the size of the photos, and the photos; files come after photos that were already read."""
    if isinstance(given, Tensor):
        check_rows(given, "images")
        model, images = opened(source, as_state(given))
        check_images(model, images)
        labels = [f"{i:04d}" for i in range(len(images))] if names is None else list(names)
        if len(labels) != len(images):
            raise ArgumentError(f"expected one name per image, given {counted(len(images), 'image')}, {len(labels)} names")
        return model, [Photo.of(image, name) for image, name in zip(images, labels, strict=True)]
    if names is not None:
        raise ArgumentError("names are for the images of a tensor; photos have their own")
    every: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    photos = [one for one in every if isinstance(one, Photo)]
    places = [one for one in every if isinstance(one, (str, Path))]
    pictures = [one for one in every if not isinstance(one, (Photo, str, Path))]
    files = find_photos(places)
    if pictures or (files and not photos and files[0].suffix != ".parquet"):
        model, pixels = opened(source, pictures or files[:1])
        photos += [Photo.of(image, f"images[{i}]") for i, image in enumerate(pixels) if pictures]
    else:
        model = load(source)
    photos += read_photos(files, model.image_size)
    if not photos:
        raise ArgumentError("expected at least one photo, given none")
    for photo in photos:
        check_images(model, photo.pixels[None])
    return model, photos
