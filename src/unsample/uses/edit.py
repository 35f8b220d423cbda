"""Editing: up under one condition, down under another.

An inversion under the source's condition leads to a latent from which sampling under that condition returns. Under another
condition the same latent becomes another picture, the more so the further up the walk went. A mask keeps the background: on
the way down the state outside of it is set back, level by level, to the one that the way up passed there (its pivot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from torch import Tensor

from .._arguments import Idle, number
from .._tensors import Images, brief
from ..core.batching import OnStep, broadcast_conditions, counter, negative_of
from ..core.corrections import Corrected
from ..core.files import expanded
from ..core.grid import Grid
from ..core.model import Model
from ..core.rng import ItemNoise
from ..core.stepper import Stepper
from ..core.trajectory import Keep, Trajectory
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from .door import NEGATIVE, MethodLike, StartLike, read_negative, use
from .masks import AUTO, Mask, cells_of, difference_mask, mask_tensor, warn_of_nothing
from .sources import Conditions, Picture, Size, Source, grid_of, opened, opened_for_latents, way_down
from .turning import REPLAYED, check_editable, pivots_of, turning_level, walked_down, walked_up


class _FromSource(Enum):
    """One value, which stands for the condition of the source."""

    SOURCE = "source"

    def __repr__(self) -> str:
        return self.name


FromSource = Literal[_FromSource.SOURCE]
SOURCE: Final = _FromSource.SOURCE
"""In place of a condition: the one that the images are, or were, inverted under."""


INVERTED = "on a trajectory, which is inverted already"


@brief
@dataclass(frozen=True, eq=False)
class Edit:
    """Edited images.

    Attributes:
        images: Nominally in [-1, 1], not clamped; shape (batch, channels, height, width).
        trajectory: The way up, which serves further edits; after a masked one with all pivots, the clean state at level 0.
        mask: Where the state might change, one value a latent cell; None for everywhere.
        nfe_up: Network evaluations per item on the way up; 0 for a trajectory that was there before.
        nfe_down: Evaluations on the way down.
        nfe_mask: Evaluations to find the mask.
    """

    images: Tensor
    trajectory: Trajectory
    mask: Tensor | None
    nfe_up: int
    nfe_down: int
    nfe_mask: int = 0

    @property
    def nfe(self) -> int:
        """In all."""
        return self.nfe_up + self.nfe_down + self.nfe_mask


@use(
    {
        "negative": lambda name, value: value if value is SOURCE else read_negative(name, value),
        "strength": number,
    },
    [
        NEGATIVE,
        Idle(("start",), lambda given: isinstance(given.images, Trajectory), INVERTED),
        Idle(("seed",), lambda given: isinstance(given.images, Trajectory) and not isinstance(given.mask, str), INVERTED),
    ],
)
def edit(
    model: Source,
    images: Images | Picture | Sequence[Picture] | Trajectory | None = None,
    *,
    to: Conditions,
    source: Conditions = None,
    size: Size | None = None,
    guidance: float = 3.0,
    negative: Conditions | Mapping[int, Tensor] | FromSource = SOURCE,
    strength: float = 1.0,
    mask: Mask | None = None,
    steps: int | None = None,
    method: MethodLike = DEFAULT_METHOD,
    start: StartLike = DEFAULT_START,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Edit:
    """Images inverted under `source` and sampled under `to`.

    Where `to` is the source's condition the result is the reconstruction, whatever the guidance: moving away from the source
    then cancels (negative-prompt inversion, Miyake et al. 2023). Below a forward start, pivots lie on the line from the image
    to the first state above it.

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call. What
            `unsample invert` left in a run directory is edited by `unsample.read_run(directory).edit(...)`.
        images: A tensor of pixels in [-1, 1], or pictures, as `unsample.invert` takes them; or a trajectory of `invert` under
            `source`, for as many edits as you like. With a trajectory a smaller strength or a mask needs the states,
            `keep=Keep("states")`; a mask then holds down to the lowest state kept, so add the clean one, level 0, after a
            forward start.
        to: The condition of the edit; one for all items or one per item; None is unconditional.
        source: The condition that the images are inverted under.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with the images.
        guidance: w in eps_n + w (eps_to - eps_n) on the way down; the way up is without guidance. A large w saturates
            the colours, as in sampling: on the bundled model from about 4 on.
        negative: The condition of eps_n: by default that of the source; None for the unconditional; or embeddings by level
            (`unsample.null_text`).
        strength: The share of the moves that is walked up and down, 0..1; 0 is the image itself, through the codec.
        mask: Where the picture may change: true or from 0.5 on, shape (height, width) or (batch, height, width) of the images;
            a grey picture, white where it may: a file, a PIL image or an array of bytes; or "auto" (`difference_mask`).
            Without, everywhere.
        steps: N, moves of the whole grid; default is 50, or the trajectory's. Ignored when `grid` is given.
        method: How a move up is made; or its name, as on the command line. A trajectory knows its own.
        start: Where the way up starts; or as on the command line, "4%" or 2.
        seed: For the start's noise and that of an automatic mask, together with `items`.
        items: One id per image; defaults to 0, 1, 2, ...
        batch_size: Items per network call; all at once by default.
        grid: The levels to visit; default is the model's own, or the trajectory's.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Settings that do not fit together, a trajectory that lacks what they need, or a run directory.
        ImageError: A picture that is missing, unreadable or too small, or such a mask.
        DivergenceError: A result that is not finite.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    _refuse_run(model)
    if images is None:
        raise ArgumentError("expected images to edit: pictures, a tensor or a trajectory of `invert`, given a model alone")
    if isinstance(images, Trajectory):
        model, latent = opened_for_latents(model, images.latent, size)
        images = replace(images, latent=latent)
    else:
        model, images = opened(model, images, size)
    grid = grid_of(model, steps, grid, images if isinstance(images, Trajectory) else None)
    level, count = turning_level(strength, grid, None if isinstance(images, Trajectory) else start), len(images)
    sampler = _sampler_of(images, method) if isinstance(images, Trajectory) else method.sampler
    check_editable(method)
    check_editable(sampler, masked=mask is not None)
    if isinstance(images, Trajectory) and images.stored.eps:
        raise ArgumentError(REPLAYED)
    noise = ItemNoise(seed, list(range(count)) if items is None else list(items))
    if negative is SOURCE:
        negative = None if model.distilled else source
    conditions = broadcast_conditions(to, count)
    if conditions is None and not negative_of(negative, count, slice(0, count)) and not model.distilled:
        guidance = 1.0  # there is nothing to move towards or away from
    model.denoiser(conditions and conditions[:1], guidance, negative_of(negative, count, slice(0, 1)))  # refused before work
    if isinstance(images, Trajectory):
        there, nfe_up = _cut_off(images, level, grid, method), 0
    else:
        keep = Keep() if mask is None else Keep("states")
        there = walked_up(
            model, images, None, method, start, grid, level, noise, keep=keep, condition=source, batch_size=batch_size
        )
        nfe_up = there.nfe
    cells, nfe_mask = _mask_of(model, there, mask, to, source, grid, noise, batch_size)
    if cells is not None:
        there = replace(there, states=pivots_of(there.states, grid, level))
    report = counter(on_step, total=count * level)
    edited, nfe_down = walked_down(
        model,
        there,
        grid,
        sampler,
        conditions,
        guidance=guidance,
        negative=negative,
        cells=cells,
        batch_size=batch_size,
        report=report,
    )
    return Edit(edited, there, cells, nfe_up, nfe_down, nfe_mask)


def _refuse_run(model: Source) -> None:
    """Refuse a run directory, which has a model and pictures of its own."""
    if isinstance(model, (str, Path)) and (expanded(model) / "manifest.json").is_file():
        raise ArgumentError(
            f"{model} is a run directory, with a model and pictures of its own: edit those with "
            f"unsample.read_run({str(model)!r}).edit(to=...), or give a model and images"
        )


def _sampler_of(there: Trajectory, method: Stepper | Corrected) -> Stepper:
    """What samples a trajectory back: its own sampler, or else that of the method which is said to have found it."""
    given = None if method == DEFAULT_METHOD else method.sampler
    sampler, stored = way_down(there, given)
    if len(stored.tensors()) < len(there.stored.tensors()):
        raise ArgumentError(
            f"the trajectory is sampled back by {way_down(there)[0]} and what it stores for that, given {method}: "
            "leave out method, or give the images"
        )
    return sampler


def _cut_off(there: Trajectory, level: int, grid: Grid, method: Stepper | Corrected) -> Trajectory:
    """A given trajectory, cut off at `level`."""
    if there.index > grid.steps or (there.index < level):
        raise ArgumentError(
            f"expected a trajectory up to level {level} of {grid.steps}, given one up to {there.index}: give steps"
        )
    if isinstance(method, Corrected) and not there.stored.corrections:
        raise ArgumentError(
            f"expected a trajectory of {method}, given one without corrections: give the method it was made by"
        )
    if level == there.index:
        return there
    if there.stored.tensors():
        raise ArgumentError("what the method stored belongs to the whole way: give the images for a smaller strength")
    if level not in there.states:
        raise ArgumentError(
            f"the trajectory kept no state at level {level}: invert with keep=Keep('states'), or give the images"
        )
    return replace(there, latent=there.states[level], index=level)


def _mask_of(
    model: Model,
    there: Trajectory,
    mask: Mask | None,
    to: Conditions,
    source: Conditions,
    grid: Grid,
    noise: ItemNoise,
    batch_size: int | None,
) -> tuple[Tensor | None, int]:
    """The mask at the resolution of states, and the evaluations it took."""
    if mask is None:
        return None, 0
    if not isinstance(mask, str) or mask != AUTO:
        cells = cells_of(model, mask_tensor(mask, model.image_size), len(there))
        warn_of_nothing(cells)
        return cells, 0
    if 0 not in there.states:
        raise ArgumentError(
            "an automatic mask looks at the clean state, level 0, which the trajectory did not keep: give the images"
        )
    return difference_mask(
        model, there.states[0], to=to, source=source, grid=grid, seed=noise.seed, items=noise.items, batch_size=batch_size
    )
