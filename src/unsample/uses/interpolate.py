"""Images sampled along a path of latents, under conditions that are interpolated as well.

Images in place of latents are inverted first, and the path leads through their latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._tensors import brief
from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Condition, Model
from ..core.stepper import Stepper
from ..core.trajectory import Trajectory
from ..errors import ArgumentError, counted
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from .door import MethodLike, SamplerLike, StartLike, inverted, read_sampler, use
from .invert import invert_first
from .paths import along, corners, key_frames
from .sample import sample
from .sources import Conditions, Picture, Size, Source, grid_of, one_condition, opened, opened_for_latents

Keys = Float[Tensor, "keys *item"]


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Images along a path.

    Attributes:
        images: One per frame, nominally in [-1, 1], not clamped; those of a grid row by row.
        latents: What they were sampled from.
        keys: Which frames are the given latents.
        nfe: Network evaluations per frame.
    """

    images: Tensor = field(repr=False)
    latents: Tensor = field(repr=False)
    keys: tuple[int, ...]
    nfe: int


@use({"method": read_sampler}, [inverted("inversion", "start", "seed")], keys="images")
def interpolate(
    model: Source,
    images: Tensor | Trajectory | Picture | Sequence[Picture],
    *,
    prompt: Conditions = None,
    size: Size | None = None,
    frames: int | tuple[int, int] = 9,
    path: str = "slerp",
    steps: int | None = None,
    method: SamplerLike = DDIM(),
    condition: Conditions = None,
    guidance: float = 1.0,
    inversion: MethodLike = DEFAULT_METHOD,
    start: StartLike = DEFAULT_START,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Interpolation:
    """Images along the path from the first of some latents, or pictures, through all others to the last.

    Pictures are inverted first, each under its own condition, with the guidance that the frames are sampled with: the frames
    at the keys are then their reconstructions. The result's `nfe` is that of sampling alone.

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        images: The keys, at least 2 pictures, as `unsample.invert` takes them. Or latents at the noisy end: a tensor, shape
            (keys, *model.shape), or a trajectory. A tensor is never pixels.
        prompt: Another name of `condition`.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with the keys.
        frames: Images in all, every key being one of them (`key_frames`). Or the rows and columns of a grid, whose four
            corners are then the keys: upper left, upper right, lower left, lower right.
        path: `slerp`, `lerp` or `norm`, as the functions of these names.
        steps: N, moves of the whole grid; default is 50, or the trajectory's. Ignored when `grid` is given.
        method: How a move down is made. A reversible method gains nothing here: it has nothing stored of the frames.
        condition: One for all, or one per key. Conditions that differ are interpolated as embeddings, along straight lines,
            in a model that has some (`Model.embed`).
        guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only.
        inversion: The method that inverts pictures, or its name; not one that stores something beside the latent.
        start: Where their inversions start; or as on the command line, "4%" or 2.
        seed: For the start's noise, together with `items`.
        items: One id per picture; defaults to 0, 1, 2, ...
        batch_size: Images per network call; all at once by default.
        grid: The levels to visit; default is the model's own, or the trajectory's.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Too few keys or frames, a grid of other than four keys, or conditions that have nothing in between.
        DivergenceError: A key that is not finite.
        UnknownNameError: No such path.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    condition = one_condition(condition, prompt)
    if isinstance(images, (Tensor, Trajectory)):
        model, latents = opened_for_latents(model, images if isinstance(images, Tensor) else images.latent, size)
        grid = grid_of(model, steps, grid, images if isinstance(images, Trajectory) else None)
        if isinstance(images, Trajectory):
            _check_trajectory(images, grid)
    else:
        model, pixels = opened(model, images, size)
        grid = grid_of(model, steps, grid)
        _check_inversion(inversion)
        # what cannot be interpolated is refused before any network call
        places = torch.zeros(len(pixels), 1, device="cpu")
        count = len(frames_between(model, places, frames=frames, path=path, condition=condition).latents)
        there, on_step = invert_first(
            model,
            pixels,
            method=inversion,
            start=start,
            grid=grid,
            moves_after=count * grid.steps,
            on_step=on_step,
            condition=condition,
            guidance=guidance,
            seed=seed,
            items=items,
            batch_size=batch_size,
        )
        latents = there.latent
    made = frames_between(model, latents, frames=frames, path=path, condition=condition)
    sampled = sample(
        made.model,
        made.latents,
        method=method,
        condition=made.conditions,
        guidance=guidance,
        batch_size=batch_size,
        grid=grid,
        on_step=on_step,
    )
    return Interpolation(sampled.images, made.latents, made.keys, sampled.nfe)


@brief
@dataclass(frozen=True, eq=False)
class Frames:
    """What the images of a path are sampled from.

    Attributes:
        model: The given one; where conditions are interpolated, with a conditioner whose conditions are frame numbers.
        latents: One per frame.
        conditions: One for all, or one per frame for this model.
        keys: Which frames are the given latents.
    """

    model: Model
    latents: Tensor
    conditions: Conditions
    keys: tuple[int, ...]


def frames_between(
    model: Model,
    keys: Keys,
    *,
    frames: int | tuple[int, int] = 9,
    path: str = "slerp",
    condition: Conditions = None,
) -> Frames:
    """The latents and conditions that `interpolate` samples from; arguments and errors as there."""
    latents, at = _spread(keys, frames, path)
    if condition is None or isinstance(condition, (str, int)):
        return Frames(model, latents, condition, at)
    if len(condition) != len(keys):
        given = f"{counted(len(keys), 'latent')}, {counted(len(condition), 'condition')}"
        raise ArgumentError(f"expected one condition, or one per latent: {given}")
    if all(one == condition[0] for one in condition):
        return Frames(model, latents, condition[0], at)
    numbered = replace(model, conditioner=_Numbered.of(model, condition, frames))
    return Frames(numbered, latents, list(range(len(latents))), at)


def _spread(keys: Tensor, frames: int | tuple[int, int], path: str) -> tuple[Tensor, tuple[int, ...]]:
    """The frames of a path or a grid, and which of them are the keys."""
    if isinstance(frames, int):
        return along(keys, frames, path), tuple(key_frames(len(keys), frames))
    if len(keys) != 4:
        raise ArgumentError(
            f"expected 4 pictures or latents, the corners of a grid, given {len(keys)}; frames=9 makes a path through all"
        )
    rows, columns = frames
    a, b, c, d = keys
    latents = corners(a, b, c, d, rows, columns, path).flatten(0, 1)
    return latents, (0, columns - 1, (rows - 1) * columns, rows * columns - 1)


@dataclass(frozen=True)
class _Numbered:
    """A conditioner whose conditions are the numbers of frames; None is the model's own unconditional."""

    model: Model
    rows: Any

    @classmethod
    def of(cls, model: Model, conditions: Sequence[Condition], frames: int | tuple[int, int]) -> _Numbered:
        """From the conditions of the keys: their embeddings interpolated over the frames."""

        def spread(rows: Any) -> Any:
            if isinstance(rows, Mapping):
                return {name: spread(part) for name, part in rows.items()}
            if rows.is_floating_point():
                return _spread(rows, frames, "lerp")[0]
            if not bool((rows == rows[:1]).all()):
                raise ArgumentError(
                    f"model {model.name!r} takes more of a condition than its embedding, such as which words count; "
                    "give one condition for all latents"
                )
            return _spread(rows.double(), frames, "lerp")[0].round().to(rows)

        return cls(model, spread(_embedded(model, conditions)))

    def __call__(self, conditions: Sequence[Condition], device: torch.device) -> Any:
        """The embeddings of frames."""
        if None in conditions:
            return _embedded(self.model, [None] * len(conditions))
        rows: Any = list(conditions)
        return {name: part[rows] for name, part in self.rows.items()} if isinstance(self.rows, Mapping) else self.rows[rows]


def _embedded(model: Model, conditions: Sequence[Condition]) -> Any:
    """Conditions as the network takes them: a floating tensor, or several by name."""
    encoded = None if model.conditioner is None else model.conditioner(conditions, model.device)
    if isinstance(encoded, Mapping):
        return encoded
    try:
        return model.embed(conditions)
    except ArgumentError as error:
        raise ArgumentError(f"{error}, or give one condition for all latents") from None


def _check_trajectory(keys: Trajectory, grid: Grid) -> None:
    """Refuse a trajectory that does not end at the noisy end, or whose latents are not all that sampling back needs."""
    if keys.index != grid.steps:
        raise ArgumentError(
            f"expected a trajectory up to the noisy end, level {grid.steps}, given one up to {keys.index}: give steps"
        )
    if keys.stored.tensors():
        raise ArgumentError(
            "the trajectory is sampled back by what its method stored of each picture, and between pictures there is nothing "
            "stored: invert by another method, or give trajectory.latent to do without"
        )


def _check_inversion(inversion: Stepper | Corrected) -> None:
    if isinstance(inversion, Corrected) or inversion.reversible:
        raise ArgumentError(
            f"{inversion} is sampled back by what it stores of each picture, and between pictures there is nothing stored: "
            "choose another inversion, such as LookAhead()"
        )
