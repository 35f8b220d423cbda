"""What tensors need whatever room they are in: shapes with names, enough precision, gradients where a method descends.

Callers have their own settings: half precision, `torch.autocast`, `torch.inference_mode`, a device without float64. They reach
the network, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import ArgumentError

Images = Float[Tensor, "batch channels height width"]
"""Pictures in [-1, 1]. Shapes are checked at run time in the tests (jaxtyping and beartype), free otherwise."""

Latents = Float[Tensor, "batch cells cell_height cell_width"]
"""States of a codec, of another size than its images."""

C = TypeVar("C", bound=type)


def brief(cls: C) -> C:
    """A decorator of dataclasses that hold tensors: each is printed by its shape.

    >>> from dataclasses import dataclass
    >>> @brief
    ... @dataclass
    ... class Pair:
    ...     x: Tensor
    ...     by_level: Mapping[int, Tensor]
    >>> Pair(torch.ones(2, 3), {0: torch.ones(2), 5: torch.ones(2)})
    Pair(x=Tensor[2, 3], by_level={0: Tensor[2], 5: Tensor[2]})
    """

    def shape_by_shape(self: Any) -> str:
        shown = {field.name: _shown(getattr(self, field.name)) for field in fields(self) if field.repr}
        return f"{type(self).__qualname__}({', '.join(f'{name}={text}' for name, text in shown.items())})"

    cls.__repr__ = shape_by_shape  # type: ignore[assignment]
    return cls


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"Tensor{list(value.shape)}"
    if isinstance(value, Mapping):
        parts = [f"{key!r}: {_shown(each)}" for key, each in value.items()]
        return f"{{{', '.join([*parts[:2], '...', *parts[-1:]] if len(parts) > 4 else parts)}}}"
    if type(value) is tuple:
        return f"({', '.join(map(_shown, value))})"
    return repr(value)


def has_float64(x: Tensor) -> bool:
    """Whether the device of `x` has float64; Apple's MPS has not."""
    try:
        x.new_empty(0, dtype=torch.float64)
    except TypeError:
        return False
    return True


def wide(x: Tensor) -> Tensor:
    """`x` in float64; in float32 on a device that has no float64 (Apple's MPS).

    >>> wide(torch.ones(1)).dtype
    torch.float64
    """
    return x.to(torch.float64 if x.dtype == torch.float64 or has_float64(x) else torch.float32)


def as_wide_as(x: Tensor, other: Tensor) -> Tensor:
    """`x` in at least the precision of `other`.

    >>> as_wide_as(torch.ones(1).half(), torch.ones(1)).dtype
    torch.float32
    """
    return x if x.dtype == other.dtype else x.to(torch.promote_types(x.dtype, other.dtype))


def as_state(x: Tensor) -> Tensor:
    """A tensor as a walk carries it: in at least float32, without a graph, and such that gradients can be taken through it.

    >>> as_state(torch.ones(1).half()).dtype
    torch.float32
    """
    x = x.detach()
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def check_dense(x: object, name: str) -> None:
    """Raise unless `x` is a tensor of floating-point values, neither sparse nor nested.

    Raises:
        ArgumentError: Anything else, with how to convert it.
    """
    if not isinstance(x, Tensor):
        hint = "; torch.from_numpy(...) makes one" if type(x).__module__ == "numpy" else ""
        raise ArgumentError(f"expected {name} as a tensor, given {type(x).__name__}{hint}")
    if x.is_nested or x.layout != torch.strided:
        raise ArgumentError(f"expected {name} as a dense tensor, given a {'nested' if x.is_nested else 'sparse'} one")
    if not x.is_floating_point():
        hint = "images / 127.5 - 1" if x.dtype == torch.uint8 else ".float()"
        raise ArgumentError(f"expected {name} in floating-point numbers, given {x.dtype}: convert it, e.g. with {hint}")
    if x.is_meta:
        raise ArgumentError(f"expected {name} with values, given a tensor on the meta device, which has none")


def check_rows(x: object, name: str) -> None:
    """Raise unless `x` is such a tensor with a row per item.

    Raises:
        ArgumentError: As `check_dense`, or a single number.
    """
    check_dense(x, name)
    if isinstance(x, Tensor) and not x.ndim:
        raise ArgumentError(f"expected {name} with a row per item, given a single number")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without gradients, and outside of inference mode, whose tensors no method could take gradients through."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def gradients() -> Iterator[None]:
    """With gradients, whatever mode the caller is in.

    Raises:
        ArgumentError: A network whose weights were made in inference mode.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise ArgumentError(
            "this method takes gradients through the network, whose weights were made in torch.inference_mode(): "
            "load the model outside of it, or choose a method without gradients"
        ) from None


@contextmanager
def full_precision() -> Iterator[None]:
    """Without the caller's autocast, which is meant for networks."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
