"""Other pictures of pictures: `edit` and `variations`; an edit also takes up what a run on disk has inverted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._typing import Images
from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.grid import Grid
from ..core.model import Condition
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Trajectory
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from ..methods.starts import parse_start
from . import edit as editing
from . import variations as varying
from .edit import Edit
from .sources import Picture, Size, Source, for_latents, told, with_images
from .variations import VARIED_START, Variations

if TYPE_CHECKING:
    from ..runs.directory import Run

__all__ = ["edit", "variations"]


def edit(
    model: Source,
    images: Images | Picture | Sequence[Picture] | Trajectory | None = None,
    *,
    to: Condition | Sequence[Condition],
    source: Condition | Sequence[Condition] = None,
    size: Size | None = None,
    guidance: float = 3.0,
    negative: Condition | Sequence[Condition] | Mapping[int, Tensor] | EllipsisType = ...,
    strength: float = 1.0,
    mask: Tensor | str | Path | None = None,
    steps: int = 50,
    method: Stepper | Corrected = DEFAULT_METHOD,
    start: Start = DEFAULT_START,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Edit:
    """Images inverted under `source` and sampled under `to`.

    Where `to` is the source's condition the result is the reconstruction, whatever the guidance: moving away from the source
    then cancels (negative-prompt inversion, Miyake et al. 2023). Below a forward start, pivots lie on the line of its noise.

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call. Or,
            without images, a run directory of `unsample invert`: its model and inversions are read, and nothing is inverted
            again. A run has its own source, size, steps, method, seed, items and grid; of its starts it is `start`, or its
            last where that is left out and the run has not the default one.
        images: A tensor of pixels in [-1, 1], or pictures, as `unsample.invert` takes them; or a trajectory of `invert` under
            `source`, for as many edits as you like. Of a trajectory, or a run, a smaller strength or a mask needs the states,
            `keep=Keep("states")`; a mask then holds down to the lowest state kept, so add the clean one, level 0, after a
            forward start (a run has it).
        to: The condition of the edit; one for all items or one per item; None is unconditional.
        source: The condition that the images are inverted under.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with the images.
        guidance: w in eps_n + w (eps_to - eps_n) on the way down; the way up is walked without. Large ones saturate
            the colours, as in sampling: on the bundled model from about 4 on.
        negative: What eps_n is asked under; by default the source, None for the unconditional, or embeddings by level
            (`unsample.null_text`).
        strength: The share of the moves that is walked up and down, 0..1; 0 is the image itself, through the codec.
        mask: Where the picture may change: true or from 0.5 on, shape (height, width) or (batch, height, width) of the images;
            a grey picture file, white where it may; or "auto" (`difference_mask`). Without, everywhere.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: How the way up is made, or was.
        start: Where it starts.
        seed: For the start's noise and that of an automatic mask, together with `items`.
        items: One id per image; defaults to 0, 1, 2, ...
        batch_size: Items per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Settings that do not fit together, or a trajectory or a run that lacks what they need.
        ImageError: A picture that is missing, unreadable or too small, or such a mask.
        DivergenceError: A result that is not finite.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
        RunError: A run that is not a complete one of `unsample invert`, or was made with other weights.
    """
    edits: dict[str, Any] = {"to": to, "guidance": guidance, "negative": negative, "strength": strength, "mask": mask}
    edits |= {"batch_size": batch_size, "on_step": on_step}
    own: dict[str, Any] = {"source": source, "steps": steps, "method": method, "seed": seed, "items": items, "grid": grid}
    run = _run_in(model, images)
    if run is not None:
        _refuse_taken(run, {**own, "size": size})
        return _edit_of_run(run, start, edits)
    if isinstance(images, Trajectory):
        return editing.edit(for_latents(model, images.latent, size), images, start=start, **own, **edits)
    assert images is not None  # else there is a run
    ready, pixels = with_images(model, images, size)
    return editing.edit(ready, pixels, start=start, **own, **edits)


def variations(
    model: Source,
    images: Images | Picture | Sequence[Picture],
    *,
    prompt: Condition | Sequence[Condition] = None,
    size: Size | None = None,
    seeds: int | Sequence[int] = 8,
    start: Start = VARIED_START,
    condition: Condition | Sequence[Condition] = None,
    strength: float | None = None,
    method: Stepper | Corrected = DEFAULT_METHOD,
    steps: int = 50,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Variations:
    """The same images from other draws of the forward start's noise: the more start, the more they differ.

    Each draw has a way of its own, and only the encoding is shared. From the start's level up to the noisy end and back under
    one condition is a way that changes nothing but by the method's error: by default it is left out, and each result is
    sampled down from the start's level, k evaluations in place of about 2 N - k (SDEdit by DDIM; Meng et al. 2022).

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        images: A tensor of pixels in [-1, 1], or pictures, as `unsample.invert` takes them.
        prompt: Another name of `condition`.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with the images.
        seeds: How many, counted from 0, or which.
        start: The forward start, at level k.
        condition: Up and down; one for all items or one per item.
        strength: The share of the moves after which to turn around, at least the start's, which is the default; 1 is the
            noisy end.
        method: How the way up is made.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        items: One id per image; defaults to 0, 1, 2, ...
        batch_size: Images per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each batch of images with (results made, results in all), for progress bars.

    Raises:
        ArgumentError: A start without noise, fewer than one seed, or what `edit` refuses.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    ready, pixels = with_images(model, images, size)
    return varying.variations(
        ready,
        pixels,
        seeds=seeds,
        start=start,
        condition=told(condition, prompt),
        strength=strength,
        method=method,
        steps=steps,
        items=items,
        batch_size=batch_size,
        grid=grid,
        on_step=on_step,
    )


def _run_in(model: Source, images: object | None) -> Run | None:
    """The run that stands in the place of model and images."""
    from ..runs.read_back import run_in  # what reads manifests would slow the import

    run = run_in(model)
    if run is None and images is None:
        raise ArgumentError(
            "expected images to edit: pictures, a tensor or a trajectory; or in place of model and images a run directory of "
            f"`unsample invert`, with a manifest.json, given {model if isinstance(model, (str, Path)) else 'a model alone'}"
        )
    if run is not None and images is not None:
        raise ArgumentError(f"the run in {model} has its own pictures: leave out images, or give a model to edit these with")
    return run


def _refuse_taken(run: Run, given: Mapping[str, Any]) -> None:
    """Refuse settings that a run has of its own, where they are other than the defaults."""
    defaults = inspect.signature(edit).parameters
    taken = [name for name, value in given.items() if value != defaults[name].default]
    if taken:
        raise ArgumentError(f"the run in {run.path} has its own {', '.join(taken)}: leave that out, or give pictures")


def _edit_of_run(run: Run, start: Start, edits: Mapping[str, Any]) -> Edit:
    """An edit of the inversions of a run."""
    from ..runs.read_back import read_inverted, starts_of

    there = [parse_start(text) for text in starts_of(run)]
    chosen = None if start == DEFAULT_START and start not in there else start
    found = read_inverted(run, chosen, states=edits["mask"] is not None or edits["strength"] < 1)
    how, own = found.settings, edits["batch_size"]
    made: dict[str, Any] = {"source": how.label, "method": how.inversion, "seed": how.seed, "items": found.items}
    made |= {"grid": how.grid(found.model), "batch_size": how.batch_size if own is None else own}
    return editing.edit(found.model, found.trajectory, **{**edits, **made})
