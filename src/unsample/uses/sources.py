"""Turns a model and images, whatever they are given as, into what the rest of the library works on: a `Model` and a tensor.

Every use calls this first. A pipeline is left as it is: each call makes a model around its networks and reads its scheduler
again, so that changes made in between count. A `Model` and a tensor are returned as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from .._arguments import warn
from .._tensors import Images, as_state, check_rows
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Condition, Model
from ..core.schedule import AnySchedule, FlowSchedule
from ..core.stepper import Stepper
from ..core.stored import Stored
from ..core.trajectory import Trajectory
from ..errors import ArgumentError, ImageError
from ..methods.registry import parse_method
from ..models import load
from ..models.families.prompts import PromptConditioner
from ..pictures.read import fitted, read_photo


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
"""Height and width in pixels."""

Conditions = Condition | Sequence[Condition]
"""One for all items, or one per item."""

RANGE = "expected images in [-1, 1], given some in [0, 1], nothing below 0"
"""How the warning begins."""

CELLS = 8
"""Sizes chosen for a picture are multiples of so many latent cells: 64 pixels with Stable Diffusion, whose U-Net halves the
latent three times."""

STEPS = 50
"""Moves of the whole grid, if nothing else is said."""


def one_condition(condition: Conditions, prompt: Conditions) -> Conditions:
    """The condition, which may be given under either name.

    Raises:
        ArgumentError: Both are given.
    """
    if condition is not None and prompt is not None:
        raise ArgumentError(f"prompt is another name of condition: give one, not both {prompt!r} and {condition!r}")
    return condition if prompt is None else prompt


def opened(source: Source, images: Images | Picture | Sequence[Picture], size: Size | None = None) -> tuple[Model, Tensor]:
    """A model of the size of its images, and their pixels: (batch, channels, height, width) in [-1, 1], at least float32.

    Raises:
        ArgumentError: Something else than pictures, or a size that a `Model` does not have.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: What cannot be loaded.
    """
    if isinstance(images, Tensor):
        check_rows(images, "images")
        _warn_of_range(images)
        return _model(source, size, lambda model: _scaled(images, 1) or model.image_size), as_state(images)
    if not isinstance(images, (Image.Image, np.ndarray, str, Path, Iterable)) or isinstance(images, (bytes, Mapping)):
        raise ArgumentError(
            "expected images as a tensor (batch, channels, height, width) in [-1, 1], or PIL images, arrays or files, "
            f"given {type(images).__name__}"
        )
    pictures = [images] if isinstance(images, (Image.Image, np.ndarray, str, Path)) else list(images)
    if not pictures:
        raise ImageError("expected at least one picture, given none")
    model = _model(source, size, lambda model: _fitting(model, _pixels(pictures[0], 0, (1, 1))[1]))
    return model, torch.stack([_pixels(picture, i, model.image_size)[0] for i, picture in enumerate(pictures)])


def opened_for_latents(source: Source, latents: Tensor, size: Size | None = None) -> tuple[Model, Tensor]:
    """A model of `size`, or else of the size of images with such latents, and the latents: (batch, ...), at least float32.

    Raises:
        ArgumentError: A size that a `Model` does not have.
        ModelError: What cannot be loaded.
    """
    check_rows(latents, "latents")
    return _model(source, size, lambda model: _scaled(latents, model.codec.scale) or model.image_size), as_state(latents)


def grid_of(model: Model, steps: int | None, grid: Grid | None, there: Trajectory | None = None) -> Grid:
    """The levels to visit: those of the trajectory, or else the given ones, or else the model's own.

    Raises:
        ArgumentError: A grid of another schedule than the model's, or other levels than the trajectory's.
    """
    own = there.grid if there is not None else None
    if there is not None and there.schedule not in ("", model.schedule.digest):
        raise ArgumentError(
            f"the trajectory is of a model with another schedule than {model.name!r}: give the model that it was inverted "
            "with, or its latent alone"
        )
    if own is not None:
        if (grid is not None and grid != own) or (grid is None and steps not in (None, own.steps)):
            other = f"steps={steps}" if grid is None else f"a grid of {grid.steps}"
            raise ArgumentError(
                f"the trajectory visits the levels of its own grid of {own.steps} moves, given {other}: leave that out, or "
                "sample from trajectory.latent to do without what it knows"
            )
        return own
    grid = grid or model.grid(STEPS if steps is None else steps)
    if not _same_levels(grid.schedule, model.schedule):
        raise ArgumentError(
            f"the grid's levels are those of another schedule than model {model.name!r} was trained on: make it by "
            "model.grid(steps), or of model.schedule"
        )
    return grid


def way_down(there: Trajectory, method: Stepper | None = None) -> tuple[Stepper, Stored]:
    """What samples back from the end of a trajectory, and with what stored; another `method` does without that.

    Raises:
        ArgumentError: The trajectory was read from a file that does not name its method, and something is stored for that.
    """
    own = there.sampler or (parse_method(there.method).sampler if there.method else method)
    if own is None and there.stored.tensors():
        raise ArgumentError("the trajectory stores what its method turns around with, and not which method: give method")
    own = own or DDIM()
    return (own, there.stored) if method in (None, own) else (method or own, Stored())


def _same_levels(one: AnySchedule | None, other: AnySchedule) -> bool:
    """Whether equal timesteps have equal levels, as far as is known; of flow models the trained range alone decides."""
    if isinstance(one, FlowSchedule) and isinstance(other, FlowSchedule):
        return len(one) == len(other)
    return one is None or one == other


def _model(source: Source, size: Size | None, fitting: Callable[[Model], Size]) -> Model:
    """The model of `source`: of `size`, or else of the fitting size if it can have several, or else of its own."""
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


def _warn_of_range(images: Tensor) -> None:
    """Warn of images that look like [0, 1]; a picture that is white or grey all over may be meant."""
    if images.is_floating_point() and images.numel():
        low, high = (float(value) for value in torch.aminmax(images.detach()))
        if 0 <= low < high <= 1:
            warn(f"{RANGE}; if they are in [0, 1], give images * 2 - 1")


def _scaled(x: Tensor, scale: int) -> Size | None:
    """Height and width of a batch, times `scale`; None for a tensor of another number of dimensions, refused later."""
    return (x.shape[2] * scale, x.shape[3] * scale) if x.ndim == 4 else None


def _fitting(model: Model, picture: tuple[int, int]) -> Size:
    """The size for a picture of this width and height: no larger than it, and no more pixels than the model's own.

    Of these it is the one with most pixels, each counted by the square of the share of the picture that a crop to its shape
    leaves: what is lost at the sides weighs more than what is lost by reducing.
    """
    unit, (height, width) = CELLS * model.codec.scale, model.image_size
    most = min(height * width, picture[0] * picture[1])

    def shown(size: Size) -> float:
        high, wide = size[0] / picture[1], size[1] / picture[0]
        return size[0] * size[1] * (min(high, wide) / max(high, wide)) ** 2

    heights = range(unit, max(unit, min(picture[1], most // unit)) + 1, unit)
    sizes = [(up, max(unit, min(picture[0], most // up) // unit * unit)) for up in heights]
    return max(sizes, key=shown)


def _pixels(picture: Picture, i: int, size: Size) -> tuple[Tensor, tuple[int, int]]:
    """A picture at `size`, as if read from a file, and its own width and height."""
    if isinstance(picture, (str, Path)):
        photo = read_photo(picture, size)
        return photo.pixels, photo.original
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
    return fitted(picture, name, size)[:2]
