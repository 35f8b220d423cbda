"""From noise to images: `sample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._arguments import Idle, optional
from .._tensors import brief
from ..core.ascend import descend
from ..core.batching import OnStep, batches, broadcast_conditions, counter, negative_of
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Model
from ..core.rng import ItemNoise
from ..core.stored import Stored
from ..core.trajectory import Trajectory
from ..errors import ArgumentError, DivergenceError
from .door import NEGATIVE, SamplerLike, a_model, read_sampler, read_state, use
from .sources import Conditions, Size, Source, grid_of, one_condition, opened_for_latents, way_down


@brief
@dataclass(frozen=True, eq=False)
class Samples:
    """Sampled images.

    Attributes:
        images: Nominally in [-1, 1], not clamped; shape (batch, channels, height, width).
        nfe: Network evaluations per item.
    """

    images: Tensor
    nfe: int


def _stores_for_another(given: Any) -> bool:
    method = given.method or DDIM()
    if isinstance(given.latent, Trajectory):
        method, _ = way_down(given.latent, given.method)
    return bool(given.stored.memory) and not method.reversible


@use(
    {"method": optional(read_sampler), "latent": read_state},
    [
        NEGATIVE,
        Idle(("stored",), _stores_for_another, "on a sampler other than that of the method which stored it"),
    ],
)
def sample(
    model: Source,
    latent: Tensor | Trajectory,
    *,
    prompt: Conditions = None,
    size: Size | None = None,
    steps: int | None = None,
    method: SamplerLike | None = None,
    condition: Conditions = None,
    guidance: float = 1.0,
    negative: Conditions | Mapping[int, Tensor] = None,
    index: int | None = None,
    stored: Stored | None = None,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Samples:
    """Images sampled from `latent` by walking down the grid (docs/theory.md, eq. 3).

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        latent: A trajectory of `invert`, which is sampled back on its own grid, from where it ended, by the sampler of its
            method and with what that stored. Or states at level `index`, shape (batch, *model.shape): `draw_noise(...)`, say.
        prompt: Another name of `condition`.
        size: Height and width of the images; default is what goes with the latent's shape.
        steps: N, moves of the whole grid; default is 50, or the trajectory's. Ignored when `grid` is given.
        method: How a move is made; or its name, as on the command line. Default is DDIM, or the trajectory's own; another than
            that does without what is stored.
        condition: One for all items or one per item; a prompt, class index or name; None is unconditional.
        guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only.
        negative: What guidance moves away from: one condition or one per item; the default None is the unconditional. Or
            embeddings by level, as `unsample.null_text` finds them.
        index: The level `latent` is at; default is the noisy end, or where the trajectory ended.
        stored: `Trajectory.stored`, with which some methods turn around exactly; only needed beside a tensor.
        seed: For the noise that a stochastic `method` adds, together with `items`. With corrections stored, none is drawn.
        items: One id per latent; defaults to 0, 1, 2, ... The noise of an item depends on (seed, id, level) alone.
        batch_size: Items per network call; all at once by default.
        grid: The levels to visit; default is the model's own, or the trajectory's.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: A latent of the wrong shape, or settings that do not fit together: other levels than those of the
            trajectory, or than what is stored belongs to.
        DivergenceError: A latent that is not finite.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    there = latent if isinstance(latent, Trajectory) else None
    if isinstance(latent, Trajectory):
        method, own = way_down(latent, method)
        stored, index = own if stored is None else stored, latent.index if index is None else index
        latent = latent.latent
    method, stored = method or DDIM(), stored or Stored()
    (model, latent), condition = opened_for_latents(model, latent, size), one_condition(condition, prompt)
    grid = grid_of(model, steps, grid, there)
    if latent.ndim != 4 or tuple(latent.shape[1:]) != model.shape or not len(latent):
        raise ArgumentError(
            f"expected latents of shape (batch, {', '.join(map(str, model.shape))}) "
            f"for model {model.name!r}, given {tuple(latent.shape)}"
        )
    if not bool(torch.isfinite(latent).all()):
        raise DivergenceError("expected finite latents, given some with NaN or infinity: their inversion diverged")
    stored.check(grid, latent)
    ids = list(range(len(latent))) if items is None else list(items)
    if len(ids) != len(latent):
        raise ArgumentError(f"expected one id per latent: {len(latent)} latents, {len(ids)} items")
    conditions = broadcast_conditions(condition, len(latent))
    top = grid.steps if index is None else index
    report = counter(on_step, total=len(latent) * top)
    images, nfe = [], 0
    for rows in batches(len(latent), batch_size):
        away = negative_of(negative, len(latent), rows)
        denoiser = model.denoiser(conditions and conditions[rows], guidance, away)
        x, kept, noise = latent[rows].to(model.device), stored.take(rows, model.device), ItemNoise(seed, ids[rows])
        made = descend(denoiser, x, grid, method, kept, noise, index=top, on_move=report)
        images.append(model.codec.decode(made.latent))
        nfe = made.nfe
    return Samples(torch.cat(images), nfe)


@use({"model": a_model})
def draw_noise(model: Model, count: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """True noise for `count` items of the model's shape; item i is the same for any count. States are float32 at least."""
    dtype = torch.promote_types(dtype, torch.float32)
    return ItemNoise(seed, range(count)).draw((count, *model.shape), stream="sample", dtype=dtype, device=model.device)
