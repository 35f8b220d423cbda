"""Images sampled along a path of latents, under conditions that are interpolated as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batching import OnStep
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Condition, Model
from ..core.stepper import Stepper
from ..errors import ArgumentError
from .paths import along, corners, key_frames
from .sample import sample

__all__ = ["Frames", "Interpolation", "frames_between", "interpolate"]

Keys = Float[Tensor, "keys *item"]


@dataclass(frozen=True)
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


@torch.no_grad()
def interpolate(
    model: Model,
    keys: Keys,
    *,
    frames: int | tuple[int, int] = 9,
    path: str = "slerp",
    steps: int = 50,
    method: Stepper = DDIM(),
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Interpolation:
    """Images along the path from the first of some latents through all others to the last.

    Args:
        model: What `unsample.load` returns, or your own `Model`.
        keys: Latents at the noisy end, shape (keys, *model.shape), at least 2: a `Trajectory.latent`, or `draw_noise(...)`.
        frames: Images in all, every key being one of them (`key_frames`). Or the rows and columns of a grid, whose four
            corners are then the keys: upper left, upper right, lower left, lower right.
        path: `slerp`, `lerp` or `norm`, as the functions of these names.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: What walks down. It has no memory to go by, so reversible methods are at home elsewhere.
        condition: One for all, or one per key. Conditions that differ are interpolated as embeddings, along straight lines,
            in a model that has some (`Model.embed`).
        guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only.
        batch_size: Images per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Too few keys or frames, a grid of other than four keys, or conditions that have nothing in between.
        DivergenceError: A key that is not finite.
        UnknownNameError: No such path.
    """
    made = frames_between(model, keys, frames=frames, path=path, condition=condition)
    how: dict[str, Any] = {"steps": steps, "grid": grid, "method": method, "batch_size": batch_size, "on_step": on_step}
    found = sample(made.model, made.latents, condition=made.conditions, guidance=guidance, **how)
    return Interpolation(found.images, made.latents, made.keys, found.nfe)


@dataclass(frozen=True, eq=False)
class Frames:
    """What `sample` makes the images of a way from.

    Attributes:
        model: The given one, told about the frames if their conditions lie between those of the keys.
        latents: One per frame.
        conditions: One for all, or one per frame for this model.
        keys: Which frames are the given latents.
    """

    model: Model
    latents: Tensor
    conditions: Condition | Sequence[Condition]
    keys: tuple[int, ...]


def frames_between(
    model: Model,
    keys: Keys,
    *,
    frames: int | tuple[int, int] = 9,
    path: str = "slerp",
    condition: Condition | Sequence[Condition] = None,
) -> Frames:
    """The latents and conditions that `interpolate` samples from; arguments and errors are its own."""
    latents, at = _spread(keys, frames, path)
    if condition is None or isinstance(condition, (str, int)):
        return Frames(model, latents, condition, at)
    if len(condition) != len(keys):
        raise ArgumentError(f"expected one condition, or one per latent: {len(keys)} latents, {len(condition)} conditions")
    if all(one == condition[0] for one in condition):
        return Frames(model, latents, condition[0], at)
    told = replace(model, conditioner=_Numbered.of(model, condition, frames))
    return Frames(told, latents, list(range(len(latents))), at)


def _spread(keys: Tensor, frames: int | tuple[int, int], path: str) -> tuple[Tensor, tuple[int, ...]]:
    """The frames of a way or a grid, and which of them are the keys."""
    if isinstance(frames, int):
        return along(keys, frames, path), tuple(key_frames(len(keys), frames))
    if len(keys) != 4:
        raise ArgumentError(f"expected 4 latents, the corners of a grid, given {len(keys)}; frames=9 makes a way through all")
    rows, columns = frames
    a, b, c, d = keys
    found = corners(a, b, c, d, rows, columns, path).flatten(0, 1)
    return found, (0, columns - 1, (rows - 1) * columns, rows * columns - 1)


@dataclass(frozen=True)
class _Numbered:
    """A conditioner whose conditions are the numbers of frames; None is the model's own unconditional."""

    model: Model
    rows: Any

    @classmethod
    def of(cls, model: Model, conditions: Sequence[Condition], frames: int | tuple[int, int]) -> _Numbered:
        """Of keys with these conditions: their embeddings spread over the frames."""

        def spread(rows: Any) -> Any:
            if isinstance(rows, Mapping):
                return {name: spread(part) for name, part in rows.items()}
            if rows.is_floating_point():
                return _spread(rows, frames, "lerp")[0]
            if not bool((rows == rows[:1]).all()):
                raise ArgumentError(
                    f"model {model.name!r} is told more of a condition than its embedding, such as which words count; "
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
    """What the network takes for conditions: floating tensors, one or several by name."""
    encoded = None if model.conditioner is None else model.conditioner(conditions, model.device)
    if isinstance(encoded, Mapping):
        return encoded
    try:
        return model.embed(conditions)
    except ArgumentError as error:
        raise ArgumentError(f"{error}, or give one condition for all latents") from None
