"""There and back: `invert`, `sample` and `reconstruct` of whatever people have at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .._typing import Images
from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Condition
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Keep, Stored, Trajectory
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from . import invert as inversion
from . import sample as sampling
from .invert import Reconstruction
from .sample import Samples
from .sources import Picture, Size, Source, for_latents, told, with_images

__all__ = ["invert", "reconstruct", "sample"]


def invert(
    model: Source,
    images: Images | Picture | Sequence[Picture],
    *,
    prompt: Condition | Sequence[Condition] = None,
    size: Size | None = None,
    steps: int = 50,
    method: Stepper | Corrected = DEFAULT_METHOD,
    start: Start = DEFAULT_START,
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    until: int | None = None,
    batch_size: int | None = None,
    keep: Keep = Keep(),
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Trajectory:
    """The latents of `images`: the start's state, walked up the grid (docs/theory.md, eq. 4 and 6).

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        images: A tensor of pixels in [-1, 1] of the model's size, float32, or float64 for a float64 walk. Or one or several
            PIL images, arrays (height, width, 3) of uint8 or files, which are cropped and reduced to the model's size.
        prompt: Another name of `condition`.
        size: Height and width to make a model of. By default latent models that take prompts are made for the images: for a
            tensor as it is; for the first picture at most as large as it is and as the model's own pictures, in multiples of
            64 pixels (8 latent cells). Other models keep their own size, and a `Model` has one.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: How a move is made.
        start: Where the walk starts: `FromImage()`, or `ForwardNoise(...)`.
        condition: One for all items or one per item; a prompt, class index or name; None is unconditional.
        guidance: w in eps_u + w (eps_c - eps_u).
        seed: For the start's noise, together with `items`.
        items: One id per image; defaults to 0, 1, 2, ... The noise of an item depends on (seed, id) alone.
        until: Stop at this level of the grid instead of the noisy end.
        batch_size: Items per network call; all at once by default.
        keep: What to keep besides the latents.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move with (item moves done, item moves in all); for progress bars.

    Returns:
        A `Trajectory`; its `nfe` is the measured number of network evaluations per item.

    Raises:
        ArgumentError: Images of the wrong shape or range of values, or settings that do not fit together.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    ready, pixels = with_images(model, images, size)
    return inversion.invert(
        ready,
        pixels,
        steps=steps,
        method=method,
        start=start,
        condition=told(condition, prompt),
        guidance=guidance,
        seed=seed,
        items=items,
        until=until,
        batch_size=batch_size,
        keep=keep,
        grid=grid,
        on_step=on_step,
    )


def sample(
    model: Source,
    latent: Tensor,
    *,
    prompt: Condition | Sequence[Condition] = None,
    size: Size | None = None,
    steps: int = 50,
    method: Stepper = DDIM(),
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    negative: Condition | Sequence[Condition] | Mapping[int, Tensor] = None,
    index: int | None = None,
    stored: Stored = Stored(),
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Samples:
    """Images sampled from `latent` by walking down the grid (docs/theory.md, eq. 3).

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        latent: States at level `index`, shape (batch, *model.shape): a `Trajectory.latent`, or `draw_noise(...)`.
        prompt: Another name of `condition`.
        size: Height and width of the images; default is what goes with the latent's shape.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: How a move is made.
        condition: One for all items or one per item; a prompt, class index or name; None is unconditional.
        guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only.
        negative: What guidance moves away from: one condition or one per item; the default None is the unconditional. Or
            embeddings by level, as `unsample.null_text` finds them.
        index: The level `latent` is at; default is the noisy end.
        stored: `Trajectory.stored`, with which some methods turn around exactly.
        seed: For the noise that a stochastic `method` adds, together with `items`. With corrections stored, none is drawn.
        items: One id per latent; defaults to 0, 1, 2, ... The noise of an item depends on (seed, id, level) alone.
        batch_size: Items per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: A latent of the wrong shape, or settings that do not fit together.
        DivergenceError: A latent that is not finite.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    return sampling.sample(
        for_latents(model, latent, size),
        latent,
        steps=steps,
        method=method,
        condition=told(condition, prompt),
        guidance=guidance,
        negative=negative,
        index=index,
        stored=stored,
        seed=seed,
        items=items,
        batch_size=batch_size,
        grid=grid,
        on_step=on_step,
    )


def reconstruct(
    model: Source,
    images: Images | Picture | Sequence[Picture],
    *,
    prompt: Condition | Sequence[Condition] = None,
    size: Size | None = None,
    steps: int = 50,
    method: Stepper | Corrected = DEFAULT_METHOD,
    sampler: Stepper | None = None,
    start: Start = DEFAULT_START,
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Reconstruction:
    """Invert with `method`, sample back with `sampler`; the other arguments are those of `invert`.

    What the method stores is used on the way back, unless another `sampler` than its own is given; most methods store nothing
    and sample back by DDIM.
    """
    ready, pixels = with_images(model, images, size)
    return inversion.reconstruct(
        ready,
        pixels,
        steps=steps,
        method=method,
        sampler=sampler,
        start=start,
        condition=told(condition, prompt),
        guidance=guidance,
        seed=seed,
        items=items,
        batch_size=batch_size,
        grid=grid,
        on_step=on_step,
    )
