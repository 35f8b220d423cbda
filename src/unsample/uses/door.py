"""The door of every use: what Python callers give is read here, as the command line reads what people type.

A method may be given as "heun", a start as "4%" or 2, what to keep as "states", a label as a number of numpy. What is none of
these is refused in one line, before any work. Model and pictures are read by `sources`, which `use` leaves them to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._arguments import Idle, Reader, number, one_of, optional, shown, sides, takes, text, whole
from .._tensors import check_rows, undisturbed
from ..core.callable import can_be_called
from ..core.corrections import Corrected
from ..core.grid import Grid
from ..core.model import Model
from ..core.specs import check_options, parse_spec
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.stored import Stored
from ..core.trajectory import Keep, Trajectory
from ..errors import ArgumentError
from ..methods.registry import parse_method
from ..methods.starts import parse_start

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:  # callers may give text as well, which `use` has read before a function sees it
    MethodLike = Any
    SamplerLike = Any
    StartLike = Any
    KeepLike = Any
else:
    MethodLike = Stepper | Corrected
    SamplerLike = Stepper
    StartLike = Start
    KeepLike = Keep


def read_method(name: str, value: Any) -> Stepper | Corrected:
    """A method, or one as people type it: `damped:iterations=10`.

    Raises:
        ArgumentError: No method.
    """
    if isinstance(value, str):
        return parse_method(value)
    if isinstance(value, type) and issubclass(value, (Stepper, Corrected)):
        raise ArgumentError(f"expected {name} with its options, given the class: write {value.__name__}()")
    if not isinstance(value, (Stepper, Corrected)):
        raise ArgumentError(f'expected {name} as a method such as us.DDIM(), or its name, "heun", given {shown(value)}')
    return value


def read_sampler(name: str, value: Any) -> Stepper:
    """A method that moves by itself, down as well as up.

    Raises:
        ArgumentError: None, or one that samples by another.
    """
    method = read_method(name, value)
    if isinstance(method, Corrected):
        raise ArgumentError(f"expected {name} as a method of single moves, given {method}: give its sampler, {method.sampler}")
    return method


def read_start(name: str, value: Any) -> Start:
    """A start, or one as people type it: `4%`, or a number of moves.

    Raises:
        ArgumentError: No start.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        return parse_start(value)
    if isinstance(value, type) or not isinstance(value, Start):
        raise ArgumentError(f'expected {name} as a start such as us.ForwardNoise(steps=2), or "4%" or 2, given {shown(value)}')
    return value


def read_keep(name: str, value: Any) -> Keep:
    """What to keep, or its name with options: `states:every=10`; None is nothing but the latent.

    Raises:
        ArgumentError: Nothing that can be kept.
    """
    if value is None:
        return Keep()
    if isinstance(value, str):
        what, options = parse_spec(value)
        check_options(f"keep {what!r}", options, ("every", "device"))
        return Keep(what, **options)  # type: ignore[arg-type]  # which Keep checks
    if not isinstance(value, Keep):
        raise ArgumentError(f'expected {name} as us.Keep("states"), or "states", "eps" or "all", given {shown(value)}')
    return value


def read_state(name: str, value: Any) -> Tensor | Trajectory:
    """Latents: a dense tensor, or a trajectory."""
    if not isinstance(value, Trajectory):
        check_rows(value, name)
    return value  # type: ignore[no-any-return]


def _condition(name: str, value: Any) -> Any:
    """One condition for all items, or a list with one for each."""
    value = _listed(name, value)
    return [_one(name, each) for each in value] if isinstance(value, list) else _one(name, value)


def _listed(name: str, value: Any) -> Any:
    """Whatever has one entry per item as a list; anything else as it is."""
    if isinstance(value, Tensor) and (value.is_nested or value.layout != torch.strided or value.is_meta):
        raise ArgumentError(f"expected {name} as a list, given a tensor that has none: sparse, nested or on the meta device")
    if isinstance(value, (Tensor, np.ndarray)):
        return value.tolist()
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping, type)) else value


def _one(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise ArgumentError(f"expected {name} as a prompt, a class (name or index) or a list of them, given {shown(value)}")


def read_negative(name: str, value: Any) -> Any:
    """A condition, or embeddings by level."""
    return _by_level(name, value) if isinstance(value, Mapping) else _condition(name, value)


def _by_level(name: str, value: Any) -> Any:
    """Tensors by level."""
    one_of("a mapping of levels to tensors", Mapping)(name, value)
    for level, tensor in value.items():
        whole(0)(f"a level of {name}", level)
        check_rows(tensor, f"{name} of level {level}")
    return value


def _items(name: str, value: Any) -> list[str | int]:
    ids = _listed(name, value)
    if not isinstance(ids, list) or not all(isinstance(each, (str, int, np.integer)) for each in ids):
        raise ArgumentError(f"expected {name} as a list with one text or whole number per image, given {shown(value)}")
    return ids


def _frames(name: str, value: Any) -> int | tuple[int, int]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        rows, columns = (whole(1)(name, side) for side in value)
        return rows, columns
    count: int = whole(1)(f"{name}, a number or (rows, columns),", value)
    return count


def _seeds(name: str, value: Any) -> int | list[int]:
    value = _listed(name, value)
    if isinstance(value, list):
        return [whole()(name, each) for each in value]
    count: int = whole(0)(f"{name}, how many or a list,", value)
    return count


def read_mask(name: str, value: Any) -> Any:
    """A mask: a picture, or a tensor or array of True and False or of values in [0, 1]; an array of bytes is a picture.

    Raises:
        ArgumentError: None, or one with other values.
    """
    if isinstance(value, (str, Path, Image.Image)) or (isinstance(value, np.ndarray) and value.dtype == np.uint8):
        return value
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "buif"
    known = torch.from_numpy(value.astype(float)) if numbers else value
    odd = not isinstance(known, Tensor) or known.is_nested or known.layout != torch.strided
    if odd or known.is_complex() or known.is_meta:
        raise ArgumentError(f'expected {name} as a dense tensor with values, a grey picture or "auto", given {shown(value)}')
    if known.numel():
        low, high = (float(each) for each in torch.aminmax(known.double()))
        if not 0 <= low <= high <= 1:  # nor NaN
            raise ArgumentError(
                f"expected {name} of True and False or of values in [0, 1], given values from {low:g} to {high:g}; "
                "of bytes, mask / 255"
            )
    return value


def _dtype(name: str, value: Any) -> torch.dtype:
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise ArgumentError(f"expected {name} as a floating-point type such as torch.float32, given {shown(value)}")
    return value


def _on_step(name: str, value: Any) -> Any:
    if not callable(value) or not can_be_called(value, 2):
        raise ArgumentError(f"expected {name} as a function of moves done and moves in all, given {shown(value)}")
    return value


READERS: Mapping[str, Reader] = {
    "method": read_method,
    "sampler": optional(read_sampler),
    "inversion": read_method,
    "start": read_start,
    "keep": read_keep,
    "condition": _condition,
    "prompt": _condition,
    "source": _condition,
    "to": _condition,
    "negative": read_negative,
    "guidance": number,
    "strength": optional(number),
    "steps": optional(whole()),
    "seed": whole(),
    "seeds": _seeds,
    "items": optional(_items),
    "index": optional(whole()),
    "until": optional(whole()),
    "batch_size": optional(whole()),
    "size": optional(sides),
    "grid": optional(one_of("a Grid, as of model.grid(50)", Grid)),
    "on_step": optional(_on_step),
    "stored": optional(one_of("the `stored` of a trajectory", Stored)),
    "frames": _frames,
    "path": text,
    "mask": optional(read_mask),
    "source_latents": optional(_by_level),
    "pivots": one_of("a trajectory of `invert`", Trajectory),
    "iterations": whole(0),
    "rate": number,
    "tolerance": number,
    "count": whole(1),
    "draws": whole(1),
    "dtype": _dtype,
}
"""Parameter of a use -> how it is read."""


STEPS = Idle(("steps",), lambda given: given.grid is not None and given.steps != given.grid.steps, "beside a grid")

NEGATIVE = Idle(("negative",), lambda given: given.guidance == 1, "at guidance 1, which moves away from nothing")


def inverted(*names: str) -> Idle:
    """Arguments of an inversion that latents do not need."""
    return Idle(names, lambda given: isinstance(given.images, (Tensor, Trajectory)), "on latents, which are inverted already")


def use(
    readers: Mapping[str, Reader] | None = None, idle: Sequence[Idle] = (), /, **former: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of a use: its arguments are read by `READERS`, and it runs outside of gradients and inference mode.

    Args:
        readers: Those of its own.
        idle: Arguments that do nothing beside others, for `takes`.
        former: Former name of a parameter -> its name.
    """
    read = takes({**READERS, **(readers or {})}, (STEPS, *idle), **former)
    return lambda function: read(undisturbed()(function))


def a_model(name: str, value: Any) -> Model:
    """Reads a `Model`."""
    if not isinstance(value, Model):
        raise ArgumentError(f"expected {name} as a Model, as of us.load(...), given {shown(value)}")
    return value
