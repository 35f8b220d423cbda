"""The door: `invert`, `sample` and `reconstruct` of whatever people have at hand.

A model may be given as a `Model`, a live diffusers pipeline, a name or a directory; pictures as a tensor, PIL images, arrays
or files. Here they become a `Model` and a tensor, all that `inversion` and `sampling` know. A pipeline stays as it is: each
call makes a model around its networks and reads its scheduler anew, so what was changed in between counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from math import isqrt
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from . import inversion, sampling
from ._typing import Images
from .corrected import Corrected
from .errors import ArgumentError, ImageError
from .grid import Grid
from .inversion import DEFAULT_METHOD, DEFAULT_START, Reconstruction
from .io import Photo, decode_photo, read_photo
from .model import Condition, Model
from .models import load
from .models.prompts import PromptConditioner
from .sampling import OnStep, Samples
from .starts import Start
from .steppers import DDIM, Stepper
from .stored import Stored
from .trajectory import Keep, Trajectory

__all__ = ["Picture", "Pipeline", "invert", "reconstruct", "sample"]


@runtime_checkable
class Pipeline(Protocol):
    """A live diffusers pipeline, of a class that `unsample.load` knows."""

    @property
    def components(self) -> Mapping[str, Any]:
        """Its parts by name."""


Source = Model | Pipeline | str | Path
"""What `unsample.load` takes."""

Picture = Image.Image | npt.NDArray[Any] | str | Path
"""A PIL image, an array of bytes of shape (height, width, 3), or a file."""

Size = tuple[int, int]

CELLS = 8
"""Sizes found for a picture are multiples of so many latent cells, 64 pixels with Stable Diffusion: what its U-Net halves."""


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
    opened, pixels = _with_images(model, images, size)
    return inversion.invert(
        opened,
        pixels,
        steps=steps,
        method=method,
        start=start,
        condition=_told(condition, prompt),
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
        _opened(model, size, lambda found: _scaled(latent, found.codec.scale) or found.image_size),
        latent,
        steps=steps,
        method=method,
        condition=_told(condition, prompt),
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
    opened, pixels = _with_images(model, images, size)
    return inversion.reconstruct(
        opened,
        pixels,
        steps=steps,
        method=method,
        sampler=sampler,
        start=start,
        condition=_told(condition, prompt),
        guidance=guidance,
        seed=seed,
        items=items,
        batch_size=batch_size,
        grid=grid,
        on_step=on_step,
    )


def _told(
    condition: Condition | Sequence[Condition], prompt: Condition | Sequence[Condition]
) -> Condition | Sequence[Condition]:
    if condition is not None and prompt is not None:
        raise ArgumentError(f"prompt is another name of condition: give one, not both {prompt!r} and {condition!r}")
    return condition if prompt is None else prompt


def _opened(source: Source, size: Size | None, fitting: Callable[[Model], Size]) -> Model:
    """The model of `source`: of `size`, or else of the size that is fitting if it takes several, or else of its own."""
    if isinstance(source, Model):
        if size is not None and tuple(size) != source.image_size:
            height, width = source.image_size
            raise ArgumentError(
                f"size {size[0]}x{size[1]}: model {source.name!r} is one of {height}x{width}; "
                "leave out size, or load a model of that size"
            )
        return source
    model = load(source, size=size)
    several = model.codec.scale > 1 and isinstance(model.conditioner, PromptConditioner)
    if size is None and several and (wanted := fitting(model)) != model.image_size:
        del model  # a name is read again: there may be no room for two
        model = load(source, size=wanted)
    return model


def _with_images(source: Source, images: Images | Picture | Sequence[Picture], size: Size | None) -> tuple[Model, Tensor]:
    """A model, and pixels of its size."""
    if isinstance(images, Tensor):
        return _opened(source, size, lambda model: _scaled(images, 1) or model.image_size), images
    pictures = [images] if isinstance(images, (Image.Image, np.ndarray, str, Path)) else list(images)
    if not pictures:
        raise ImageError("expected at least one picture, given none")
    model = _opened(source, size, lambda model: _fitting(model, _photo(pictures[0], 0, (1, 1)).original))
    return model, torch.stack([_photo(picture, i, model.image_size).pixels for i, picture in enumerate(pictures)])


def _scaled(x: Tensor, scale: int) -> Size | None:
    """Height and width of a batch, times `scale`; None if it has none, which is refused later."""
    return (x.shape[2] * scale, x.shape[3] * scale) if x.ndim == 4 else None


def _fitting(model: Model, picture: tuple[int, int]) -> Size:
    """The size for a picture of this width and height: no larger than it, and no more pixels than the model's own."""
    unit, (height, width) = CELLS * model.codec.scale, model.image_size
    share = height * width, picture[0] * picture[1]
    fits = [min(side, isqrt(side * side * share[0] // share[1])) // unit * unit for side in picture]
    return max(unit, fits[1]), max(unit, fits[0])


def _photo(picture: Picture, i: int, size: Size) -> Photo:
    """A picture as if read from a file."""
    if isinstance(picture, (str, Path)):
        return read_photo(picture, size)
    name = f"images[{i}]"
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ArgumentError(
                f"expected {name} to be an array of uint8 of shape (height, width, 3), given {picture.dtype} "
                f"{picture.shape}; convert it, or give a tensor (batch, channels, height, width) in [-1, 1]"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ArgumentError(f"expected {name} to be a PIL image, an array or a file, given {type(picture).__name__}")
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        raise ImageError(f"{name} is of mode {picture.mode}: expected RGB, RGBA or L; use convert('RGB')")
    file = BytesIO()
    picture.save(file, "PNG", exif=picture.getexif(), compress_level=0)
    return decode_photo(file.getvalue(), name, size)
